//! `gapferry serve`: a bundle or layout as a registry.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::context::Context;
use super::exit::CommandOutcome;
use super::hangup::Hangup;
use super::signing::KeyArgs;
use crate::app::{self, ServeReport, ServeRequest, ServedContent};
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Event;
use crate::base::progress::units::parse_bytes;

const ABOUT: &str = "\
Serves a bundle, or any OCI image layout, as a registry: a directory or a tar, which is read by offset and never extracted.

Whatever speaks to registries can pull from it: docker, podman, containerd, skopeo, and gapferry itself. An image answers to \
its full name below the server's address (127.0.0.1:5000/quay.io/org/app:1; the colon before a port becomes a hyphen) and to \
the name without its host (127.0.0.1:5000/org/app:1), where docker.io comes first and a tag that other hosts have with \
different digests is left out. A client that says of which registry an image is (`?ns=quay.io`, as containerd does of a mirror \
in hosts.toml) gets that registry's image, or 404 where it is not in the bundle.

With --writable a directory takes pushes and deletions too; one that is absent or empty becomes an empty layout. The first \
write to a bundle removes bundle.json, SHA256SUMS and manifest.json, which would no longer be true: it is a plain layout from \
then on.

There is no authentication and no TLS: whoever reaches the address may read everything, and with --writable change \
everything. So it listens on loopback; another address has to be given with --listen, and should be behind something that \
asks who is there. Requests by a name that --host does not give, and those of web pages, are refused.

With --key, or where the configuration demands it, only a bundle that was signed is served, and not with --writable; names \
and manifests are proven before, blobs are for the client to prove.

The address is printed on standard output once connections are taken. Ctrl-C or SIGTERM ends it: requests in flight get ten \
seconds, exit code 0.";

const AFTER: &str = "\
Examples:
  gapferry serve /mnt/usb/images.tar
  skopeo list-tags --tls-verify=false docker://127.0.0.1:5000/library/nginx

  gapferry serve ./new-layout --writable
  docker push 127.0.0.1:5000/team/app:1.0

In a script, on a free port:
  coproc SERVER { gapferry serve images.tar --listen 127.0.0.1:0; }
  read -r address <&\"${SERVER[0]}\"";

/// Serve a bundle or layout as a registry
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// A bundle or OCI layout, a directory or a tar; or all volumes of a bundle
    #[arg(required = true)]
    bundle: Vec<PathBuf>,
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    listen: SocketAddr,
    /// Take pushes and deletions; directories only
    #[arg(long)]
    writable: bool,
    /// A name, without port, by which clients reach this server; may be repeated
    ///
    /// Requests are taken for addresses, `localhost` and these names. Others may come from a web page in a browser that was led
    /// here, and are refused.
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// The most that the directory may hold, such as 200GiB
    #[arg(long, value_name = "SIZE", requires = "writable", value_parser = parse_bytes)]
    quota: Option<u64>,
    #[command(flatten)]
    keys: KeyArgs,
}

pub async fn run(args: Args, context: &Context) -> Result<CommandOutcome> {
    // Before anything is said, so that nobody can stop it too early.
    let mut stopped = Box::pin(stopped()?);
    let shown = shown(&args.bundle);
    let request = args.request(context)?;
    let serving = tokio::select! {
        serving = app::serve(request, &context.environment) => Some(serving?),
        () = &mut stopped => None,
    };
    context.end();
    if let Some(serving) = serving {
        introduce(&shown, &serving.report, context)?;
        serving.run(stopped).await?;
    }
    context.say("stopped");
    Ok(CommandOutcome::Done)
}

impl Args {
    fn request(self, context: &Context) -> Result<ServeRequest> {
        let content = match (self.writable, self.bundle) {
            (false, paths) => ServedContent::ReadOnly { paths, trust: self.keys.trust(context)? },
            (true, bundle) => {
                self.keys.refuse_writable(context)?;
                let [directory] =
                    <[PathBuf; 1]>::try_from(bundle).map_err(|_| Error::input("--writable takes one directory"))?;
                ServedContent::Writable { directory, quota: self.quota }
            }
        };
        Ok(ServeRequest { content, listen: self.listen, hosts: self.hosts })
    }
}

fn shown(paths: &[PathBuf]) -> String {
    let all: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    all.join(" ")
}

fn introduce(shown: &str, report: &ServeReport, context: &Context) -> Result<()> {
    let ServeReport { address, is_writable, references, .. } = report;
    if !address.ip().is_loopback() {
        let may = if *is_writable { "read and change" } else { "read" };
        context.environment.events.report(Event::Warning(format!("whoever reaches {address} may {may} everything")));
    }
    let how = if *is_writable { "pull and push" } else { "read-only" };
    let count = references.len();
    let plural = if count == 1 { "tag" } else { "tags" };
    context.say(&format!("serving {shown} ({how}, {count} {plural}); Ctrl-C ends it"));
    if let Some(first) = references.first() {
        context.say(&format!("for example: {address}/{first}"));
    }
    context.print(&format!("{address}\n"))
}

/// Done when the process is asked to stop.
fn stopped() -> Result<impl Future<Output = ()> + Send + 'static> {
    let listen = |kind| signal(kind).map_err(|e| Error::new(Kind::Disk, "listening for signals").because(e));
    let (mut interrupt, mut terminate): (Signal, Signal) =
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let mut hangup = Hangup::listen()?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = hangup.next() => {}
        }
    })
}
