//! Outcomes of a command and their exit codes.

use crate::app;
use crate::base::error::Kind;

/// Wrong usage, invalid input, or a problem with the local file system.
pub const WRONG_USE: u8 = 2;

/// The outcome of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandOutcome {
    Done,
    SomeImagesFailed,
    /// A check found problems and listed them.
    Damaged,
    Failed(Kind),
    /// Everything available is done; more volumes are needed.
    Waiting,
    /// Stopped by Ctrl-C.
    Interrupted,
    /// Stopped by SIGTERM.
    Terminated,
    /// Stopped by SIGHUP: the terminal is gone.
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
