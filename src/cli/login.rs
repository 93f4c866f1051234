//! `gapferry login`: credentials are tried at the registry, then kept where skopeo, podman and docker keep them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::context::{Context, check_writable, env, environment};
use super::exit::Outcome;
use super::hint::LoggingIn;
use super::login_target::LoginTarget;
use super::password::{ask_password, ask_user, secret_from_stdin};
use super::registry::RegistryArgs;
use crate::app::{JsonReport, REPORT_VERSION};
use crate::base::error::Result;
use crate::base::progress::Event;
use crate::credentials::{AMBIENT, Credentials, Kept, Origin, Store, Variables, variable_name};
use crate::transport::registry::AuthCheck;

const ABOUT: &str = "\
Tries a user name and password at a registry and keeps them, if it accepts them, in the file that skopeo and podman write: \
--authfile, else REGISTRY_AUTH_FILE, else DOCKER_CONFIG/config.json, else $XDG_RUNTIME_DIR/containers/auth.json. So they are \
logged in too, and a login by one of them counts here. Where that file names a credential helper (credHelpers, credsStore), \
the helper keeps them. All else in the file stays as it is.

HOST/NAMESPACE keeps credentials for that namespace alone, beside those of the host.";

const AFTER: &str = "\
Examples:
  gapferry login harbor.internal
  gapferry login harbor.internal -u 'robot$ci' --password-stdin < token
  gapferry login quay.io/team -u me --authfile auth.json

Exit code 0: accepted and kept. 4: refused, nothing is changed. 5: not reached, nothing is changed.";

/// Try credentials at a registry and keep them for it
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// The registry, or a namespace there
    #[arg(value_name = "HOST[/NAMESPACE]")]
    host: String,
    /// User name; asked for if left out
    #[arg(short, long, value_name = "USER", conflicts_with_all = ["creds", "creds_stdin"])]
    username: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// The password; other users of this machine can see it: prefer to be asked, or --password-stdin
    #[arg(short, long, value_name = "PASS", requires = "username", conflicts_with = "password_stdin")]
    #[arg(hide_short_help = true)]
    password: Option<String>,
    /// Print where it is kept as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Where credentials were kept.
#[derive(Serialize)]
struct LoginReport {
    version: u32,
    ok: bool,
    /// `HOST[:PORT]`.
    registry: String,
    /// Empty: the whole registry.
    namespace: String,
    /// Whose they are.
    user: String,
    /// Where they are.
    kept: Origin,
}

impl JsonReport for LoginReport {}

pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    let login_target = LoginTarget::parse(&args.host)?;
    let kept = Kept::to_write(args.registry.authfile(), &env)?;
    check(&kept, &login_target)?;
    let credentials = args.credentials(&login_target, context)?;
    credentials.check_keepable()?;
    let user = credentials.username.clone();
    let attempt = || format!("logging in to {login_target} as {user}");
    let checked = args
        .check_auth(&login_target, credentials.clone(), context)
        .await
        .map_err(|e| e.while_doing(attempt()).with_fact(LoggingIn))?;
    let origin = kept.log_in(&login_target.registry, &login_target.path, &credentials)?;
    context.end();
    let registry = &login_target.registry;
    let doubt = match checked {
        AuthCheck::Accepted => None,
        AuthCheck::NotAsked => Some(format!("{registry} accepts anonymous requests")),
        AuthCheck::WebPage(page) => Some(format!("{registry} does not answer GET /v2/ as a registry does: {page}")),
    };
    if let Some(doubt) = doubt {
        context.environment.events.report(Event::Warning(format!("{doubt}: the password could not be checked")));
    }
    warn_of_stronger(&login_target, args.registry.authfile(), context);
    context.say(&format!("logged in to {login_target} as {user}; kept {}", place(&origin)));
    if args.json {
        let (registry, namespace, kept) = (login_target.registry, login_target.path, origin);
        context.print_json(&LoginReport { version: REPORT_VERSION, ok: true, registry, namespace, user, kept })?;
    }
    Ok(Outcome::Done)
}

/// Before somebody types a password.
fn check(kept: &Kept, login_target: &LoginTarget) -> Result<()> {
    kept.check(&login_target.registry, &login_target.path)?;
    if kept.path().exists() { check_writable([&kept.path().to_owned()]) } else { Ok(()) }
}

fn place(origin: &Origin) -> String {
    match origin {
        Origin::Helper { program, .. } => format!("by {program}"),
        other => format!("in {other}"),
    }
}

/// What is kept helps nobody while a variable says something else.
fn warn_of_stronger(login_target: &LoginTarget, authfile: Option<&Path>, context: &Context) {
    let own = Variables::of(environment()).has(&login_target.registry).then(|| variable_name(&login_target.registry));
    let all = || env(AMBIENT).filter(|value| !value.is_empty()).map(|_| AMBIENT.to_owned());
    if let Some(name) = own.or_else(all).filter(|_| authfile.is_none()) {
        let text = format!("the variable {name} is set, and counts more than what is kept now");
        context.environment.events.report(Event::Warning(text));
    }
}

impl Args {
    fn credentials(&self, login_target: &LoginTarget, context: &Context) -> Result<Credentials> {
        if let Some(given) = self.registry.given()? {
            return Ok(given);
        }
        let instead = "use --username USER with --password-stdin";
        let user = match &self.username {
            Some(user) => user.clone(),
            None => ask_user(&login_target.to_string(), "no --username is given", instead)?,
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

    async fn check_auth(
        &self,
        login_target: &LoginTarget,
        credentials: Credentials,
        context: &Context,
    ) -> Result<AuthCheck> {
        let mut store = Store::anonymous();
        store.set(&login_target.registry, credentials);
        let registries = self.registry.connect_as(store, &BTreeMap::new(), context)?;
        registries.check_auth(&login_target.registry, &login_target.path).await
    }
}
