//! `gapferry serve`: serves a bundle or layout as a registry.

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
Serves a bundle, or any OCI image layout, as a registry. The bundle is a directory, a tar that is read in place, or \
all volumes of a set.

Any registry client can pull from it: docker, podman, containerd, skopeo, gapferry. An image has two names below the \
server's address: its full name (127.0.0.1:5000/quay.io/org/app:1, with the colon before a port replaced by a \
hyphen) and the name without its registry (127.0.0.1:5000/org/app:1). For the short name docker.io takes precedence, \
and a tag that several registries have with different digests is left out. For clients that name the upstream \
registry (`?ns=quay.io`, as containerd does for mirrors in hosts.toml), the server returns only that registry's \
images.

With --writable a directory also accepts pushes and deletions. A directory that is missing or empty becomes an empty \
layout. The first write to a bundle removes bundle.json, SHA256SUMS and manifest.json, because they no longer match; \
it is then a plain layout.

There is no authentication and no TLS. Anyone who can reach the address can read everything, and with --writable \
change everything. The server therefore listens on loopback by default; put any other address (--listen) behind a \
proxy that authenticates. Requests from web pages, and requests for a host name that --host does not list, are \
rejected.

With --key, or if the configuration requires signatures, only a signed bundle is served, and --writable is rejected. \
Names and manifests are verified before the server starts; clients verify blobs.

The server prints its address on standard output when it is ready, with --json as part of a report. Ctrl-C or \
SIGTERM stops it: running requests get ten seconds, and the exit code is 0.";

const AFTER: &str = "\
Examples:
  gapferry serve /mnt/usb/images.tar
  gapferry serve ./layout --writable

  # Pull from it, or push to it.
  skopeo list-tags --tls-verify=false docker://127.0.0.1:5000/library/nginx
  docker push 127.0.0.1:5000/team/app:1.0

  # In a script, on a free port.
  coproc SERVER { gapferry serve images.tar --listen 127.0.0.1:0; }
  read -r address <&\"${SERVER[0]}\"";

/// Serve a bundle or layout as a registry
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// Bundle or OCI layout: directory, tar, or all volumes of a set
    #[arg(required = true)]
    bundle: Vec<PathBuf>,
    /// Address and port to listen on; port 0 picks a free port
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    listen: SocketAddr,
    /// Accept pushes and deletions (directories only)
    #[arg(long)]
    writable: bool,
    /// Host name under which clients reach this server; repeatable
    ///
    /// Without a port. The server always accepts IP addresses and `localhost`. Other names are rejected, because a web page
    /// could direct a browser here under a name of its own.
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// Maximum size of the directory, such as 200GiB
    #[arg(long, value_name = "SIZE", requires = "writable", value_parser = parse_bytes)]
    quota: Option<u64>,
    /// Print the address and the tags as JSON when the server is ready
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    keys: KeyArgs,
}

pub async fn run(args: Args, context: &Context) -> Result<CommandOutcome> {
    // Before the first output, so that a signal cannot arrive too early.
    let mut stopped = Box::pin(stopped()?);
    let (shown, json) = (shown(&args.bundle), args.json);
    let request = args.request(context)?;
    let serving = tokio::select! {
        serving = app::serve(request, &context.environment) => Some(serving?),
        () = &mut stopped => None,
    };
    context.end();
    match serving {
        Some(serving) => {
            introduce(&shown, &serving.report, context);
            // Last, because a script connects as soon as it reads this.
            if json {
                context.print_json(&serving.report)?;
            } else {
                context.print(&format!("{}\n", serving.report.address))?;
            }
            serving.run(stopped).await?;
        }
        // A script that waits for the report needs one.
        None if json => return Err(Error::new(Kind::Interrupted, "stopped before the server was ready")),
        None => {}
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

fn introduce(shown: &str, report: &ServeReport, context: &Context) {
    let ServeReport { address, writable, references, .. } = report;
    if !address.ip().is_loopback() {
        let may = if *writable { "read and change" } else { "read" };
        context
            .environment
            .events
            .report(Event::Warning(format!("anyone who can reach {address} can {may} everything")));
    }
    let how = if *writable { "pull and push" } else { "read-only" };
    let count = references.len();
    let plural = if count == 1 { "tag" } else { "tags" };
    context.say(&format!("serving {shown} ({how}, {count} {plural}); Ctrl-C ends it"));
    if let Some(first) = references.first() {
        context.say(&format!("for example: {address}/{first}"));
    }
}

/// Completes when the process receives a signal to stop.
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
