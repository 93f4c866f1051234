//! `gapferry auth check`: shows the credentials for a registry and what they allow.

use super::context::Context;
use super::exit::CommandOutcome;
use super::registry::RegistryArgs;
use crate::app::{self, AuthReport, AuthRequest, LoginTarget};
use crate::base::error::{Error, Result};
use crate::base::progress::plain_piece;
use crate::oci::Repository;

const ABOUT: &str = "\
Shows which credentials gapferry uses for a registry: where they come from and the user name, never the password. It \
then asks the registry whether it accepts them; with a repository, whether it allows pulling; and with --push, \
whether it allows pushing, by starting an upload and cancelling it. Nothing is changed.

Exit codes: 0 everything that was asked is allowed; 4 refused; 5 not reached, or not a registry; 2 a problem with a \
credentials file or helper.";

const AFTER: &str = "\
Examples:
  gapferry auth check harbor.internal
  gapferry auth check harbor.internal --push mirror/app
  gapferry auth check quay.io/team/app
  gapferry auth check harbor.internal --json | jq -r .user";

/// Check credentials and permissions at a registry
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

/// Show which credentials a registry accepts and what they allow
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
struct Check {
    /// Registry, or a repository in it
    #[arg(value_name = "HOST[/REPOSITORY]")]
    host: String,
    /// Also check pulling from and pushing to this repository
    #[arg(long, value_name = "REPOSITORY")]
    push: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub async fn run(args: Args, context: &Context) -> Result<CommandOutcome> {
    let Command::Check(check) = args.command;
    let (target, push) = (check.target()?, check.push.is_some());
    let request = AuthRequest { target, push, registry: check.registry.options()? };
    let report = app::auth_check(&request, &context.environment).await?;
    context.end();
    match check.json {
        true => context.print_json(&report)?,
        false => context.print(&text(&report))?,
    }
    report.failure.map_or(Ok(CommandOutcome::Done), Err)
}

impl Check {
    /// The repository may be given with or without its host.
    fn target(&self) -> Result<LoginTarget> {
        let target = LoginTarget::parse(&self.host)?;
        let Some(push) = self.push.as_deref() else { return Ok(target) };
        let path = push.strip_prefix(&format!("{}/", self.host)).unwrap_or(push);
        if !target.path.is_empty() && target.path != path {
            let text = format!("checking {target}: --push names another repository, {path:?}; name one of them");
            return Err(Error::input(text));
        }
        let named = |e| Error::input("reading --push").because(e);
        let repository = Repository::new(&target.registry, path).map_err(named)?;
        Ok(LoginTarget { registry: target.registry, path: repository.path().to_owned() })
    }
}

fn text(report: &AuthReport) -> String {
    let mut text = format!("{}\n", report.registry);
    let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:<12} {}\n", plain_piece(value)));
    match &report.credentials {
        Some(origin) => line("credentials", &origin.to_string()),
        None => {
            line("credentials", "none; looked in");
            report.searched.iter().for_each(|path| line("", &path.display().to_string()));
        }
    }
    let user = report.user.as_deref().or(report.identity_token.then_some("by identity token"));
    line("user", user.unwrap_or("anonymous"));
    let repository = report.repository.as_deref().unwrap_or_default();
    match (report.accepted, report.asked) {
        (Some(true), Some(false)) => line("accepted", "yes, without credentials"),
        (accepted, _) => line("accepted", verdict_words(accepted)),
    }
    for (name, may) in [("pull", report.pull), ("push", report.push)] {
        may.into_iter().for_each(|may| line(name, &format!("{}, {repository}", verdict_words(Some(may)))));
    }
    text
}

fn verdict_words(verdict: Option<bool>) -> &'static str {
    match verdict {
        Some(true) => "yes",
        Some(false) => "no",
        None => "not known",
    }
}
