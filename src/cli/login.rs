//! `gapferry login`: checks credentials at a registry and stores them where skopeo, podman and docker look for them.

use super::context::Context;
use super::exit::CommandOutcome;
use super::password::{ask_password, ask_user, secret_from_stdin};
use super::registry::RegistryArgs;
use crate::app::{self, LoginReport, LoginRequest, LoginTarget, RegistryOptions};
use crate::base::error::Result;
use crate::base::progress::Event;
use crate::credentials::{CredentialOrigin, Credentials};
use crate::transport::registry::AuthCheck;

const ABOUT: &str = "\
Checks a user name and password at a registry and, if the registry accepts them, stores them in the file that skopeo \
and podman use: --authfile, otherwise REGISTRY_AUTH_FILE, otherwise DOCKER_CONFIG/config.json, otherwise \
$XDG_RUNTIME_DIR/containers/auth.json. A login with gapferry therefore works for these tools, and theirs for \
gapferry. If that file names a credential helper (credHelpers, credsStore), the helper stores them. The rest of the \
file is not changed.

HOST/NAMESPACE stores credentials for one namespace, in addition to those of the host.

Exit codes: 0 accepted and stored; 4 rejected; 5 registry not reached. After 4 and 5 nothing is changed.";

const AFTER: &str = "\
Examples:
  gapferry login harbor.internal
  gapferry login harbor.internal -u 'robot$ci' --password-stdin <token
  gapferry login quay.io/team -u me --authfile auth.json";

/// Check credentials at a registry and store them
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// Registry, or a namespace in it
    #[arg(value_name = "HOST[/NAMESPACE]")]
    host: String,
    /// User name; asks if it is left out
    #[arg(short, long, value_name = "USER", conflicts_with_all = ["creds", "creds_stdin"])]
    username: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// Password
    ///
    /// Other users of the machine can see it. Prefer to be asked, or use --password-stdin.
    #[arg(short, long, value_name = "PASS", requires = "username", conflicts_with = "password_stdin")]
    #[arg(hide_short_help = true)]
    password: Option<String>,
    /// Print where the credentials are stored as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub async fn run(args: Args, context: &Context) -> Result<CommandOutcome> {
    let target = LoginTarget::parse(&args.host)?;
    let authfile = args.registry.authfile();
    // Before a person types a password.
    app::check_login(&target, authfile.as_deref(), &context.environment)?;
    let registry = args.registry.options()?;
    let credentials = args.credentials(&target, &registry, context)?;
    let request = LoginRequest { target, credentials, authfile, registry };
    let report = app::login(&request, &context.environment).await?;
    context.end();
    warn(&report, context);
    context.say(&format!("logged in to {} as {}; kept {}", request.target, report.user, place(&report.kept)));
    if args.json {
        context.print_json(&report)?;
    }
    Ok(CommandOutcome::Done)
}

fn place(origin: &CredentialOrigin) -> String {
    match origin {
        CredentialOrigin::Helper { program, .. } => format!("by {program}"),
        other => format!("in {other}"),
    }
}

/// Warns about circumstances that make the login less useful than it seems.
fn warn(report: &LoginReport, context: &Context) {
    let registry = &report.registry;
    let doubt = match &report.checked {
        AuthCheck::Accepted => None,
        AuthCheck::NotAsked => Some(format!("{registry} accepts anonymous requests")),
        AuthCheck::WebPage(page) => Some(format!("{registry} does not answer GET /v2/ as a registry does: {page}")),
    };
    let doubt = doubt.map(|doubt| format!("{doubt}: the password could not be checked"));
    let stronger = report.stronger_variable.as_ref();
    let stronger = stronger.map(|name| format!("the variable {name} is set, and counts more than what is kept now"));
    let warnings = doubt.into_iter().chain(stronger);
    warnings.for_each(|text| context.environment.events.report(Event::Warning(text)));
}

impl Args {
    fn credentials(&self, target: &LoginTarget, registry: &RegistryOptions, context: &Context) -> Result<Credentials> {
        if let Some(given) = registry.credentials.credentials(&context.environment)? {
            return Ok(given);
        }
        let instead = "use --username USER with --password-stdin";
        let user = match &self.username {
            Some(user) => user.clone(),
            None => ask_user(&target.to_string(), "no --username is given", instead)?,
        };
        let password = match &self.password {
            _ if self.password_stdin => secret_from_stdin("the password (--password-stdin)")?,
            Some(password) => {
                let text = "other users of this machine can see --password: prefer to be asked, or --password-stdin";
                context.environment.events.report(Event::Warning(text.to_owned()));
                password.clone()
            }
            None => ask_password(&user, "no password is given", instead)?,
        };
        Ok(Credentials::basic(user, password))
    }
}
