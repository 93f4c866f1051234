//! What a command needs of the process it runs in. Everything comes in here, so that a caller decides about all of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;

use crate::base::error::{Error, Result};
use crate::base::progress::{Event, Events, Reporter, Silent};
use crate::bundle::LAST_TIME;
use crate::credentials::Secret;
use crate::pipeline::transfer::Publishing;

/// See the module documentation. Cheap to clone; clones share events and tags.
#[derive(Clone)]
pub struct Environment {
    /// Where progress, notices and warnings go.
    pub events: Events,
    /// The variables that count: places of credentials and configuration, proxies, `PATH` for credential helpers.
    pub variables: BTreeMap<String, String>,
    /// Asked for a password that a request names a user for.
    pub passwords: Arc<dyn Passwords>,
    /// The time that is written into receipts.
    pub clock: fn() -> Timestamp,
    /// Tags that are being set. To stop a command, close it, wait for that, and drop the command's future: then the receipt
    /// names every tag that the registry has set.
    pub publishing: Publishing,
}

/// Asks a person.
pub trait Passwords: Send + Sync {
    /// The password of `user`.
    ///
    /// # Errors
    /// There is no way to ask.
    fn password_of(&self, user: &str) -> Result<Secret>;
}

/// For a program that cannot ask a person: every question is an error.
pub struct NoPasswords;

impl Passwords for NoPasswords {
    fn password_of(&self, user: &str) -> Result<Secret> {
        Err(Error::input(format!("no password is given for {user}, and this program cannot ask for one")))
    }
}

/// The time that is written into bundles and locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BundleTime {
    pub time: Timestamp,
    /// `SOURCE_DATE_EPOCH` prescribes it.
    pub is_prescribed: bool,
}

impl Environment {
    /// Without any variable.
    pub fn new(events: Events) -> Environment {
        Environment {
            events,
            variables: BTreeMap::new(),
            passwords: Arc::new(NoPasswords),
            clock: Timestamp::now,
            publishing: Publishing::default(),
        }
    }

    /// With the variables of this process that are text.
    pub fn of_process(events: Events) -> Environment {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Environment { variables: std::env::vars_os().filter_map(text).collect(), ..Environment::new(events) }
    }

    /// The same, and what remembers whether an event says that the result lacks something.
    pub fn watched(&self) -> (Environment, Arc<Watch>) {
        let watch = Arc::new(Watch::new(self.events.clone()));
        (Environment { events: watch.clone(), ..self.clone() }, watch)
    }

    /// The time that is written into bundles and locks, in whole seconds: now, or what `SOURCE_DATE_EPOCH` says.
    ///
    /// # Errors
    /// `SOURCE_DATE_EPOCH` is no time that a bundle can have.
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
                "SOURCE_DATE_EPOCH is {text:?}, not seconds since 1970 that a bundle can have (at most {LAST_TIME})"
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

/// Passes all events on, and remembers whether one of them says that the result lacks something.
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
