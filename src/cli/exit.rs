//! How a command ended, and its exit code.

use crate::app;
use crate::base::error::Kind;

/// Wrong use or input, or the local file system refused.
pub const WRONG_USE: u8 = 2;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
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

impl From<app::Outcome> for Outcome {
    fn from(outcome: app::Outcome) -> Outcome {
        match outcome {
            app::Outcome::Done => Outcome::Done,
            app::Outcome::SomeImagesFailed => Outcome::SomeImagesFailed,
            app::Outcome::Damaged => Outcome::Damaged,
            app::Outcome::Failed(kind) => Outcome::Failed(kind),
            app::Outcome::Waiting => Outcome::Waiting,
        }
    }
}

impl Outcome {
    pub fn code(self) -> u8 {
        match self {
            Outcome::Done => 0,
            Outcome::SomeImagesFailed => 1,
            Outcome::Damaged => 3,
            Outcome::Failed(kind) => code_of(kind),
            Outcome::Waiting => 6,
            Outcome::Interrupted => 130,
            Outcome::Terminated => 143,
            Outcome::HungUp => 129,
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
