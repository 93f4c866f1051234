//! The command line: one file per command, with its `Args` and a `run` that reads as a sentence.
//!
//! This is the only module that prints. It turns options into a request for [`crate::app`], and the report into text. Data
//! goes to standard output, messages go to standard error.

mod allowlist;
mod arrange;
mod auth;
mod check;
mod companions;
mod completions;
mod context;
mod convert;
mod exit;
mod export;
mod fingerprint;
mod guide;
mod hangup;
mod hint;
mod import;
mod inspect;
mod interrupt;
mod inventory;
mod join;
mod list;
mod lock;
mod login;
mod logout;
mod man;
mod migrate;
mod mirrors;
mod outputs;
mod password;
mod piped;
mod prove;
mod push;
mod read_back;
mod receipts;
mod registry;
mod render;
mod repair;
mod serve;
mod sign;
mod signing;
mod since;
mod split;
mod standard_output;
mod stdin;
mod table;
mod tools;
mod verify;
mod volume_size;

use std::process::ExitCode;
use std::sync::Arc;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::app::{ErrorDetail, ErrorReport};
use crate::base::code::Code;
use crate::base::error::{Error, Kind, Result};
use crate::credentials::report_helpers_to;
use context::{Context, Global};
use exit::CommandOutcome;

const ABOUT: &str = "\
Carries container images across an air gap.

On the connected side, `export` turns an allowlist of images into one self-verifying bundle. Someone carries the bundle \
across. On the isolated side, `verify` proves every byte and `import` pushes the images to the internal registry: Harbor 2.x, \
or any other that implements the OCI distribution specification. Digests never change unless you ask for it. After an \
interruption, run the same command again; it continues where it stopped.";

const AFTER: &str = "\
Examples:
  gapferry export -f images.txt -o /mnt/usb/images.tar
  gapferry verify /mnt/usb/images.tar
  gapferry import /mnt/usb/images.tar --to harbor.internal/mirror

`gapferry COMMAND -h` is a summary, `gapferry COMMAND --help` the manual.
`gapferry guide` explains whole tasks, also without internet.

Exit codes:
  0    Done.
  1    Some images failed and the others are done; run again for the rest. Or a
       list of tags may be incomplete.
  2    Wrong usage, invalid input, or a problem with the local file system.
  3    Damaged or untrusted.
  4    The registry refused a request, or failed for one object only.
  5    The network failed, or the server is not a registry.
  6    More volumes are needed (import --state).
  7    The target lacks what an increment builds on; nothing was pushed.
  130, 143, 129
       Stopped by Ctrl-C, SIGTERM or SIGHUP; run again to continue.

Environment:
  REGISTRY_AUTH_FILE, DOCKER_CONFIG
       Where credentials are stored.
  GAPFERRY_CREDS
       Like --creds, but invisible to other users.
  GAPFERRY_CREDS_HOST
       The same for one registry, such as GAPFERRY_CREDS_QUAY_IO: write `_` for
       `.` and `:`, and `__` for `-`.
  CONTAINERS_REGISTRIES_CONF
       Like --registries-conf.
  COSIGN_PASSWORD
       Passphrase of an encrypted private key.
  SOURCE_DATE_EPOCH
       Time for bundles and locks, in seconds since 1970.
  HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY
       Proxies.
  NO_COLOR
       Disables colours.
  PAGER
       Program that shows `gapferry guide` on a terminal; default: less.

Files:
  /etc/gapferry/config.toml, ~/.config/gapferry/config.toml
       Signatures that verify, import, serve, convert, split, join and repair
       require: `require-signature = true`, `keys = [\"/etc/gapferry/our.pub\"]`.";

#[derive(Parser)]
#[command(name = "gapferry", version, about = "Carries container images across an air gap", long_about = ABOUT)]
#[command(after_long_help = AFTER, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Export(export::Args),
    Lock(lock::Args),
    Verify(verify::Args),
    Convert(convert::Args),
    Join(join::Args),
    Repair(repair::Args),
    Split(split::Args),
    Sign(sign::Args),
    Fingerprint(fingerprint::Args),
    List(list::Args),
    Inspect(inspect::Args),
    Import(import::Args),
    Inventory(inventory::Args),
    Prove(prove::Args),
    Migrate(migrate::Args),
    Check(check::Args),
    Serve(serve::Args),
    Login(login::Args),
    Logout(logout::Args),
    Auth(auth::Args),
    Guide(guide::Args),
    Man(man::Args),
    Completions(completions::Args),
}

/// Raises the limit on open files. A set can have thousands of volumes, and each stays open while it is read. The usual soft
/// limit of 1,024 exists for programs that use `select`, which gapferry does not.
fn open_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const ENOUGH: u64 = 65_536;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(ENOUGH, |maximum| maximum.min(ENOUGH));
    if current.is_some_and(|current| current < wanted) {
        // If this fails, opening too many files fails later, with an error.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
}

/// Disables core dumps, which would contain secrets. This also keeps other processes of the user from reading the memory.
fn leave_no_core_dump() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    // If one of them fails, the other still helps.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Runs the program.
pub fn main() -> ExitCode {
    leave_no_core_dump();
    let Parsed { cli, distinct, wants_json } = match parse() {
        Ok(parsed) => parsed,
        Err(error) => return misused(&error),
    };
    open_many_files();
    let mut context = Context::new(&cli.global);
    context.may_keep_going = match &cli.command {
        Command::Export(args) => !args.allowlist.keep_going,
        Command::Lock(args) => !args.allowlist.keep_going,
        _ => false,
    };
    let context = Arc::new(context);
    report_helpers_to(context.environment.events.clone());
    let outcome = distinct.and_then(|()| runtime()).and_then(|runtime| {
        let outcome = match cli.command {
            // A signal is the normal end of a server.
            Command::Serve(args) => runtime.block_on(serve::run(args, &context)),
            command => {
                let work = |context: Arc<Context>| async move { run(command, &context).await };
                interrupt::run_until_stopped(&runtime, &context, work)
            }
        };
        // Threads that still read or write must not delay the exit; what they leave is the same as after an interruption.
        runtime.shutdown_background();
        outcome
    });
    context.end();
    if wants_json && let Some(error) = no_result(&outcome) {
        context.report_failure(&error);
    }
    let outcome = outcome.unwrap_or_else(|error| {
        context.failed(&error);
        CommandOutcome::Failed(error.kind())
    });
    ExitCode::from(outcome.code())
}

/// Prints help or the version, or the error in the command line.
fn misused(error: &clap::Error) -> ExitCode {
    // clap knows which stream to use.
    let _ = error.print();
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    if std::env::args_os().any(|argument| argument == "--json") {
        let text = error.render().to_string();
        let message = text.strip_prefix("error: ").unwrap_or(&text).trim_end().to_owned();
        let detail = ErrorDetail { code: Code::Usage, message, hint: None, problems: Vec::new() };
        context::print_failure(&ErrorReport::new(detail));
    }
    ExitCode::from(exit::WRONG_USE)
}

/// The error of a command that ended without a result.
fn no_result(outcome: &Result<CommandOutcome>) -> Option<Error> {
    match outcome {
        Err(error) => Some(error.clone()),
        Ok(CommandOutcome::Interrupted | CommandOutcome::Terminated | CommandOutcome::HungUp) => {
            Some(Error::new(Kind::Interrupted, "stopped: run the same command again to continue"))
        }
        Ok(_) => None,
    }
}

struct Parsed {
    cli: Cli,
    /// Whether all outputs are distinct files.
    distinct: Result<()>,
    /// Whether the command has `--json` and it was given.
    wants_json: bool,
}

fn parse() -> Result<Parsed, clap::Error> {
    let mut command = arrange::arrange(command());
    let mut matches = command.try_get_matches_from_mut(std::env::args_os()).map_err(without_false_advice)?;
    let distinct = outputs::check_distinct(&command, &matches);
    let wants_json = wants_json(&matches);
    let cli = Cli::from_arg_matches_mut(&mut matches).map_err(|e| e.format(&mut command))?;
    Ok(Parsed { cli, distinct, wants_json })
}

/// Removes two lines of clap that mislead: the advice to pass an unknown option as a value, which no command takes, and for
/// options that exclude each other a usage line that combines them.
fn without_false_advice(mut error: clap::Error) -> clap::Error {
    let misleading = match error.kind() {
        ErrorKind::UnknownArgument if error.get(ContextKind::SuggestedArg).is_none() => Some(ContextKind::Suggested),
        ErrorKind::ArgumentConflict => Some(ContextKind::Usage),
        _ => None,
    };
    misleading.map(|context| error.insert(context, ContextValue::None));
    error
}

fn wants_json(matches: &ArgMatches) -> bool {
    let own = matches.try_get_one::<bool>("json").ok().flatten().is_some_and(|json| *json);
    own || matches.subcommand().is_some_and(|(_, below)| wants_json(below))
}

fn runtime() -> Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|e| Error::new(Kind::Disk, "starting").because(e))
}

async fn run(command: Command, context: &Context) -> Result<CommandOutcome> {
    match command {
        Command::Export(args) => export::run(args, context).await,
        Command::Lock(args) => lock::run(args, context).await,
        Command::Verify(args) => verify::run(args, context),
        Command::Convert(args) => convert::run(&args, context).await,
        Command::Join(args) => join::run(&args, context).await,
        Command::Repair(args) => repair::run(args, context),
        Command::Split(args) => split::run(args, context).await,
        Command::Sign(args) => sign::run(&args, context),
        Command::Fingerprint(args) => fingerprint::run(&args, context),
        Command::List(args) => list::run(&args, context),
        Command::Inspect(args) => inspect::run(args, context).await,
        Command::Import(args) => import::run(args, context).await,
        Command::Inventory(args) => inventory::run(args, context).await,
        Command::Prove(args) => prove::run(args, context).await,
        Command::Migrate(args) => migrate::run(args, context).await,
        Command::Check(args) => check::run(args, context),
        Command::Serve(args) => serve::run(args, context).await,
        Command::Login(args) => login::run(args, context).await,
        Command::Logout(args) => logout::run(args, context),
        Command::Auth(args) => auth::run(args, context).await,
        Command::Completions(args) => completions::run(&args, context),
        Command::Guide(args) => guide::run(&args, context),
        Command::Man(args) => man::run(&args, context),
    }
}

/// The command line as declared, for completions and manual pages.
pub fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
