//! The inputs that a command takes from its process. The caller decides about all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;

use crate::base::error::{Error, Result};
use crate::base::progress::{Event, Events, Reporter, Silent};
use crate::bundle::LAST_TIME;
use crate::credentials::Secret;
use crate::pipeline::transfer::Publishing;

/// See the module documentation. Clones are cheap, and share events and tags.
#[derive(Clone)]
pub struct Environment {
    /// Where progress, notices and warnings go.
    pub events: Events,
    /// The variables that gapferry reads: locations of credentials and configuration, proxies, `PATH` for credential
    /// helpers.
    pub variables: BTreeMap<String, String>,
    /// Returns the password of a user named in a request.
    pub passwords: Arc<dyn Passwords>,
    /// The time written into receipts.
    pub clock: fn() -> Timestamp,
    /// Tags that are being set. To stop a command, close this, wait until it is empty, and drop the command's future: the
    /// receipt then lists every tag that the registry has set.
    pub publishing: Publishing,
}

/// Asks a person for a password.
pub trait Passwords: Send + Sync {
    /// Returns the password of `user`.
    ///
    /// # Errors
    /// Asking is not possible.
    fn password_of(&self, user: &str) -> Result<Secret>;
}

/// For programs that cannot ask a person: every question is an error.
pub struct NoPasswords;

impl Passwords for NoPasswords {
    fn password_of(&self, user: &str) -> Result<Secret> {
        Err(Error::input(format!("no password was given for {user}, and this program cannot ask for one")))
    }
}

/// The time written into bundles and locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BundleTime {
    pub time: Timestamp,
    /// Whether `SOURCE_DATE_EPOCH` prescribes the time.
    pub is_prescribed: bool,
}

impl Environment {
    /// An environment without variables.
    pub fn new(events: Events) -> Environment {
        Environment {
            events,
            variables: BTreeMap::new(),
            passwords: Arc::new(NoPasswords),
            clock: Timestamp::now,
            publishing: Publishing::default(),
        }
    }

    /// An environment with the variables of this process whose values are Unicode.
    pub fn of_process(events: Events) -> Environment {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Environment { variables: std::env::vars_os().filter_map(text).collect(), ..Environment::new(events) }
    }

    /// Returns a copy that records whether an event reports an incomplete result, and the record.
    pub fn watched(&self) -> (Environment, Arc<Watch>) {
        let watch = Arc::new(Watch::new(self.events.clone()));
        (Environment { events: watch.clone(), ..self.clone() }, watch)
    }

    /// Returns the time written into bundles and locks, in whole seconds: `SOURCE_DATE_EPOCH`, or the present.
    ///
    /// # Errors
    /// `SOURCE_DATE_EPOCH` is not a time that a bundle can have.
    pub(super) fn bundle_time(&self) -> Result<BundleTime> {
        let Some(text) = self.variable("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty()) else {
            let now = (self.clock)().as_second();
            let time = Timestamp::from_second(now).unwrap_or(Timestamp::UNIX_EPOCH);
            return Ok(BundleTime { time, is_prescribed: false });
        };
        let seconds = text.parse().ok().filter(|seconds: &i64| (0..=LAST_TIME).contains(seconds));
        let time = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
        let fail = || {
            Error::input(format!(
                "SOURCE_DATE_EPOCH is {text:?}, not a number of seconds since 1970 that a bundle can have (at most {LAST_TIME})"
            ))
        };
        Ok(BundleTime { time: time.ok_or_else(fail)?, is_prescribed: true })
    }

    pub fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }
}

impl Default for Environment {
    fn default() -> Environment {
        Environment::new(Arc::new(Silent))
    }
}

/// Forwards all events, and records whether one of them reports an incomplete result.
pub struct Watch {
    events: Events,
    is_incomplete: AtomicBool,
}

impl Watch {
    pub fn new(events: Events) -> Watch {
        Watch { events, is_incomplete: AtomicBool::new(false) }
    }

    pub fn is_incomplete(&self) -> bool {
        self.is_incomplete.load(Ordering::Relaxed)
    }
}

impl Reporter for Watch {
    fn report(&self, event: Event) {
        if matches!(event, Event::Incomplete(_)) {
            self.is_incomplete.store(true, Ordering::Relaxed);
        }
        self.events.report(event);
    }
}
