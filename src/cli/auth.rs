//! `gapferry auth check`: whom a registry takes us for, and what it lets us do.

use std::collections::BTreeMap;

use serde::Serialize;

use super::context::{Context, env};
use super::exit::Outcome;
use super::login_target::LoginTarget;
use super::registry::RegistryArgs;
use crate::app::{ErrorDetail, JsonReport, REPORT_VERSION};
use crate::base::blocking::blocking;
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::plain_piece;
use crate::credentials::{Found, Kept, Origin, Store};
use crate::oci::Repository;
use crate::transport::registry::{AuthCheck, Registries};

const ABOUT: &str = "\
Says which credentials a registry is shown: the place they come from and the user, never the password. Then asks the registry \
whether it accepts them, with a repository whether it may be pulled from, and with --push whether it may be pushed to, by an \
upload that is begun and given up. Nothing is changed there.";

const AFTER: &str = "\
Examples:
  gapferry auth check harbor.internal
  gapferry auth check quay.io/team/app
  gapferry auth check harbor.internal --push mirror/app
  gapferry auth check harbor.internal --json | jq -r .user

Exit code 0: all that was asked may be done. 4: refused. 5: not reached, or what answers is not a registry. 2: a file of credentials or a helper is at fault.";

/// Look at who we are to a registry
#[derive(clap::Args)]
#[command(after_long_help = "Examples:\n  gapferry auth check harbor.internal --push mirror/app")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Check(Check),
}

/// Say which credentials a registry is shown and whether it accepts them
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
struct Check {
    /// The registry, or a repository there
    #[arg(value_name = "HOST[/REPOSITORY]")]
    host: String,
    /// Ask as well whether this repository of HOST may be pulled from and pushed to
    #[arg(long, value_name = "REPOSITORY")]
    push: Option<String>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// What was found out; `null` is what was not asked, or could not be.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct AuthReport {
    version: u32,
    /// All that was asked may be done.
    ok: bool,
    /// `HOST[:PORT]`.
    registry: String,
    /// The path of the repository that was asked about. `null`: none was.
    repository: Option<String>,
    /// Where the credentials come from. `null`: there are none.
    credentials: Option<Origin>,
    /// `null`: the credentials name no user.
    user: Option<String>,
    /// The credentials are an identity token.
    identity_token: bool,
    /// `false`: the registry asks for no credentials.
    asked: Option<bool>,
    /// The registry accepts the credentials.
    accepted: Option<bool>,
    /// The repository may be pulled from.
    pull: Option<bool>,
    /// The repository may be pushed to.
    push: Option<bool>,
    /// Why something may not be done, or could not be asked.
    error: Option<ErrorDetail>,
}

impl JsonReport for AuthReport {}

pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    let Command::Check(check) = args.command;
    let login_target = check.login_target()?;
    let mut store = check.registry.credentials([login_target.registry.clone()], context)?;
    let found = locate(&store, &login_target).await?;
    if let Some(found) = &found {
        // What is reported is what is shown, and a helper is asked once.
        store.set(&login_target.registry, found.credentials.clone());
    }
    let registries = check.registry.connect_as(store, &BTreeMap::new(), context)?;
    let mut report = AuthReport::of(&login_target, found);
    let asked = report.ask(&registries, &login_target, check.push.is_some()).await;
    report.error = asked.as_ref().err().map(ErrorDetail::of);
    report.ok = asked.is_ok();
    context.end();
    match check.json {
        true => context.print_json(&report)?,
        false => context.print(&report.text(&check))?,
    }
    asked.map(|()| Outcome::Done)
}

/// A helper may wait for its user.
async fn locate(store: &Store, login_target: &LoginTarget) -> Result<Option<Found>> {
    let (store, registry, path) = (store.clone(), login_target.registry.clone(), login_target.path.clone());
    let attempted = format!("looking up credentials for {login_target}");
    blocking(&attempted, move || store.locate(&registry, &path)).await
}

impl Check {
    /// The repository may be named with its host or without.
    fn login_target(&self) -> Result<LoginTarget> {
        let login_target = LoginTarget::parse(&self.host)?;
        let Some(push) = self.push.as_deref() else { return Ok(login_target) };
        let path = push.strip_prefix(&format!("{}/", self.host)).unwrap_or(push);
        if !login_target.path.is_empty() && login_target.path != path {
            let text = format!("checking {login_target}: --push names another repository, {path:?}; name one of them");
            return Err(Error::input(text));
        }
        let named = |e| Error::input("reading --push").because(e);
        let repository = Repository::new(&login_target.registry, path).map_err(named)?;
        Ok(LoginTarget { registry: login_target.registry, path: repository.path().to_owned() })
    }
}

impl AuthReport {
    fn of(login_target: &LoginTarget, found: Option<Found>) -> AuthReport {
        let repository = Some(login_target.path.clone()).filter(|path| !path.is_empty());
        let mut report = AuthReport {
            version: REPORT_VERSION,
            registry: login_target.registry.clone(),
            repository,
            ..AuthReport::default()
        };
        if let Some(Found { credentials, origin }) = found {
            report.identity_token = credentials.identity_token.is_some();
            report.user = Some(credentials.username).filter(|user| !user.is_empty());
            report.credentials = Some(origin);
        }
        report
    }

    /// Asks one thing after the other, up to the first that is not so.
    async fn ask(&mut self, registries: &Registries, login_target: &LoginTarget, push: bool) -> Result<()> {
        let checked = registries.check_auth(&login_target.registry, &login_target.path).await;
        self.accepted = verdict(&checked);
        self.asked = self.accepted.map(|_| !matches!(checked, Ok(AuthCheck::NotAsked)));
        let checked = checked?;
        if let AuthCheck::WebPage(_) = &checked {
            (self.accepted, self.asked) = (None, None);
        }
        if login_target.path.is_empty() {
            return match checked {
                AuthCheck::WebPage(page) => Err(no_registry(&login_target.registry, &page)),
                AuthCheck::Accepted | AuthCheck::NotAsked => Ok(()),
            };
        }
        let named = |e| Error::input(format!("checking {login_target}")).because(e);
        let repository = Repository::new(&login_target.registry, &login_target.path).map_err(named)?;
        let pull = registries.may_pull(&repository).await;
        self.pull = verdict(&pull);
        pull?;
        if push {
            let push = registries.may_push(&repository).await;
            self.push = verdict(&push);
            push?;
        }
        Ok(())
    }

    fn text(&self, check: &Check) -> String {
        let mut text = format!("{}\n", self.registry);
        let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:<12} {}\n", plain_piece(value)));
        match &self.credentials {
            Some(origin) => line("credentials", &origin.to_string()),
            None => {
                line("credentials", "none; looked in");
                let files = Kept::all(check.registry.authfile(), &env);
                files.iter().for_each(|file| line("", &file.path().display().to_string()));
            }
        }
        let user = self.user.as_deref().or(self.identity_token.then_some("by identity token"));
        line("user", user.unwrap_or("nobody"));
        let repository = self.repository.as_deref().unwrap_or_default();
        match (self.accepted, self.asked) {
            (Some(true), Some(false)) => line("accepted", "everybody is"),
            (accepted, _) => line("accepted", verdict_words(accepted)),
        }
        for (name, may) in [("pull", self.pull), ("push", self.push)] {
            may.into_iter().for_each(|may| line(name, &format!("{}, {repository}", verdict_words(Some(may)))));
        }
        text
    }
}

/// What a web page at the root means: a gateway may know only the paths of repositories.
fn no_registry(registry: &str, page: &str) -> Error {
    let text = format!(
        "asking {registry} whether it accepts the credentials: GET /v2/ is not answered as a registry does: {page}; if only \
         repositories are routed to a registry, `gapferry auth check {registry}/REPOSITORY` can tell"
    );
    Error::new(Kind::Network, text)
}

fn verdict<T>(answer: &Result<T>) -> Option<bool> {
    match answer {
        Ok(_) => Some(true),
        Err(e) => matches!(e.kind(), Kind::Unauthorized | Kind::Refused | Kind::NotFound).then_some(false),
    }
}

fn verdict_words(verdict: Option<bool>) -> &'static str {
    match verdict {
        Some(true) => "yes",
        Some(false) => "no",
        None => "not known",
    }
}
