//! How a command ended, and its exit code.

use crate::app;
use crate::base::error::Kind;

/// Wrong use or input, or the local file system refused.
pub const WRONG_USE: u8 = 2;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandOutcome {
    Done,
    SomeImagesFailed,
    /// A check found problems and has listed them.
    Damaged,
    Failed(Kind),
    /// All that was at hand is done; the rest of it is still to be brought.
    Waiting,
    /// By Ctrl-C.
    Interrupted,
    /// By SIGTERM.
    Terminated,
    /// By SIGHUP: the terminal is gone.
    HungUp,
}

impl From<app::Outcome> for CommandOutcome {
    fn from(outcome: app::Outcome) -> CommandOutcome {
        match outcome {
            app::Outcome::Done => CommandOutcome::Done,
            app::Outcome::SomeImagesFailed => CommandOutcome::SomeImagesFailed,
            app::Outcome::Damaged => CommandOutcome::Damaged,
            app::Outcome::Failed(kind) => CommandOutcome::Failed(kind),
            app::Outcome::Waiting => CommandOutcome::Waiting,
        }
    }
}

impl CommandOutcome {
    pub fn code(self) -> u8 {
        match self {
            CommandOutcome::Done => 0,
            CommandOutcome::SomeImagesFailed => 1,
            CommandOutcome::Damaged => 3,
            CommandOutcome::Failed(kind) => code_of(kind),
            CommandOutcome::Waiting => 6,
            CommandOutcome::Interrupted => 130,
            CommandOutcome::Terminated => 143,
            CommandOutcome::HungUp => 129,
        }
    }
}

fn code_of(kind: Kind) -> u8 {
    match kind {
        Kind::Input | Kind::Disk => WRONG_USE,
        Kind::Damaged => 3,
        Kind::NotFound | Kind::Unauthorized | Kind::Refused | Kind::RateLimited => 4,
        Kind::Network => 5,
        Kind::Lacking => 7,
        Kind::Interrupted => 130,
    }
}
