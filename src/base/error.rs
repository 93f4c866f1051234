//! The one error of the library: what was attempted on which object, and of what kind the failure is.
//!
//! The text never repeats its cause: that is in [`source`](std::error::Error::source), and the chain is printed once, at
//! the edge of the program, where hints are added too.
//!
//! # Facts
//! No decision reads a text. Exit codes follow from [`Kind`] alone, what to do next from [`Kind`] and [`Reason`]. What else
//! a caller or a hint has to know is a *fact*: a value of a type of the room that made the error, with fields, whose
//! `Display` gives the words. [`Error::of`] makes an error of a fact, [`Error::with_fact`] adds one to an error that says
//! more, [`because`](Error::because) takes one as the cause, and [`Error::find`] finds any of them. The types that implement
//! [`Fact`] are all facts there are. Other causes, such as an error of the operating system, have methods of their own
//! ([`Error::os_error`], [`Error::is_disk_full`]). An error that speaks for several keeps the facts of the one that decided its
//! kind ([`Error::speaking_for`]).

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::progress::redacted;
use crate::oci::{Digest, ManifestError, NotKept};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it is: decides the exit code, whether another try could help, and the hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Wrong use, an invalid file or a combination that makes no sense.
    Input,
    /// The local file system refused to read or to write (no space, no permission, a bad medium).
    Disk,
    /// Bytes are not what they should be: wrong digest, wrong size, something missing or undeclared.
    Damaged,
    /// The registry does not have it.
    NotFound,
    /// The registry wants other credentials, or none were found (401).
    Unauthorized,
    /// The registry refused: no right, quota, read-only, immutable tag, an unsupported manifest; or it fails at this object alone.
    Refused,
    /// The registry asks to be left alone for longer than was allowed (429).
    RateLimited,
    /// The target lacks what an increment builds on.
    Lacking,
    /// The network or the other side failed: no connection, TLS, time-out, 5xx after all tries.
    Network,
    /// The user or the system asked to stop.
    Interrupted,
}

/// What an error knows beside its [`Kind`] and its [`Reason`]: a type of the room that makes the error. Its implementors are all
/// the facts there are.
pub trait Fact: StdError + Send + Sync + 'static {}

impl Fact for ManifestError {}
impl Fact for Stopped {}

/// What exactly the other side objects to, where its answer says so. Decisions and hints follow from it where it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The registry does not take a manifest, because it lacks content that the manifest names: these digests, as far as it
    /// says which.
    UnknownContent(Vec<Digest>),
    /// The repository does not exist, and a push does not create it.
    UnknownRepository,
    /// The registry refuses layers that have `urls`.
    ForeignLayer,
    /// The target still lacks content that was sent to it again, or cannot give it back.
    DamagedTarget,
    /// An image has none of the platforms that were asked for.
    PlatformMissing,
    /// The target lacks content that can no longer be sent: its bytes have passed in a stream.
    Passed,
    /// The project's storage quota: it certainly has room for `left` more bytes.
    Quota { left: u64 },
    /// The disk or the quota of the whole registry: it certainly has room for `left` more bytes.
    Full { left: u64 },
    /// The whole registry takes no change for now.
    ReadOnly,
    /// No upload can be begun here at all: the registry is in maintenance, or caches another one.
    NoPushes,
    /// A web page was answered when an upload was to begin, and how far that reaches is not said.
    WebPage,
    /// The registry gives addresses for uploads whose host has no address here.
    UnknownUploadHost,
    /// The project caches another registry, and takes no push.
    ProxyCache,
    /// This account may not push to the project.
    NoPushRight,
    /// No upload may be begun in the repository (401, 403), and how far that reaches is not said.
    UploadDenied,
    /// The tag exists and may not change its meaning.
    ImmutableTag,
    /// The registry's garbage collection is deleting the blob.
    BlobInCollection,
    /// What stands before the registry takes no request so large, and smaller ones did not do.
    BodyLimit,
    /// A file of this machine, of a bundle for example, is not what it should be.
    DamagedFile,
    /// The registry fails again and again at this object, and answers otherwise.
    Undelivered,
    /// What stands before the registry compresses its answers, though they were asked for as they are.
    Compressed,
    /// The content is there, but a policy forbids pulling it: it is not signed, not scanned, or a scan found something.
    PullPolicy,
    /// This account may not pull, and what a tag means has to be known before it may be changed.
    NoPullRight,
}

/// One cause that ends everything that concerns a registry, or a part of one, for the rest of the run: it no longer answers,
/// say, or refuses all that is sent. It is reported once, for all images concerned, and decides the exit code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place} {why}")]
pub struct Stopped {
    /// `host[:port]`, or a path below it.
    pub place: String,
    /// What it does, as a sentence goes on from its name: `has not answered for 2 min (connection refused)`.
    pub why: String,
    /// Its disk has no room.
    pub is_full: bool,
}

/// The words in which a policy forbids pulling.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct PullPolicyWords(pub String);

impl Fact for PullPolicyWords {}

/// What was done to a file when the operating system refused it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{verb} {}", path.display())]
pub struct FileOperation {
    /// `opening`, say.
    pub verb: String,
    pub path: PathBuf,
}

impl Fact for FileOperation {}

/// How much of the other side a [`Reason`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// What was asked for alone.
    Object,
    /// Everything in the same project (the first component of a repository's path).
    Project,
    Registry,
}

impl Reason {
    pub fn reach(&self) -> Reach {
        match self {
            Reason::ReadOnly | Reason::Full { .. } | Reason::UnknownUploadHost => Reach::Registry,
            // Whoever answers for several registries may refuse uploads to one of them.
            Reason::Quota { .. } | Reason::NoPushes | Reason::ProxyCache | Reason::NoPushRight => Reach::Project,
            Reason::UnknownContent(_)
            | Reason::UnknownRepository
            | Reason::ForeignLayer
            | Reason::DamagedTarget
            | Reason::PlatformMissing
            | Reason::Passed
            | Reason::UploadDenied
            | Reason::WebPage
            | Reason::ImmutableTag
            | Reason::BlobInCollection
            | Reason::BodyLimit
            | Reason::DamagedFile
            | Reason::Undelivered
            | Reason::Compressed
            | Reason::PullPolicy
            | Reason::NoPullRight => Reach::Object,
        }
    }
}

/// A failure, with what was attempted and on what. See the module documentation.
#[derive(Clone)]
pub struct Error(Box<Parts>);

#[derive(Clone)]
struct Parts {
    kind: Kind,
    reason: Option<Reason>,
    attempt: String,
    /// What belongs below it, a line each.
    list: Vec<String>,
    facts: Vec<Arc<dyn StdError + Send + Sync>>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    /// Of several failures whose texts are in `attempt` or `list`: the one that counts.
    first: Option<Arc<Error>>,
}

impl Error {
    /// `attempt` says what was tried, on which object, and, if there is no cause below, why it failed:
    /// `reading blob sha256:… of quay.io/a/b: the body ended after 10 of 20 bytes`.
    pub fn new(kind: Kind, attempt: impl Into<String>) -> Error {
        let (attempt, list, facts) = (attempt.into(), Vec::new(), Vec::new());
        Error(Box::new(Parts { kind, reason: None, attempt, list, facts, source: None, first: None }))
    }

    /// An error in the words of `fact`, which [`find`](Error::find) finds.
    pub fn of(kind: Kind, fact: impl Fact) -> Error {
        Error::new(kind, fact.to_string()).with_fact(fact)
    }

    /// The text says more than `fact`, or says it in other words. Of two facts of one type the later one counts.
    pub fn with_fact(mut self, fact: impl Fact) -> Error {
        self.0.facts.push(Arc::new(fact));
        self
    }

    /// Keeps what is known of `first`, one of several failures whose texts this error has: for all of them.
    pub fn speaking_for(mut self, first: Error) -> Error {
        self.0.first = Some(Arc::new(first));
        self
    }

    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// With a list below the message, such as everything that is wrong in a file. A line break inside the message or an item is
    /// text from outside and is never printed as one.
    pub fn listing(mut self, list: impl IntoIterator<Item = String>) -> Error {
        self.0.list.extend(list);
        self
    }

    pub fn input(attempt: impl Into<String>) -> Error {
        Error::new(Kind::Input, attempt)
    }

    pub fn damaged(attempt: impl Into<String>) -> Error {
        Error::new(Kind::Damaged, attempt)
    }

    /// A failed file operation: `Error::disk("writing", &path, error)`. Bytes that could be read and are wrong
    /// ([`InvalidData`](std::io::ErrorKind::InvalidData)) are damage, not a failing disk.
    pub fn disk(verb: &str, path: &std::path::Path, source: std::io::Error) -> Error {
        let kind = if source.kind() == std::io::ErrorKind::InvalidData { Kind::Damaged } else { Kind::Disk };
        Error::of(kind, FileOperation { verb: verb.to_owned(), path: path.to_owned() }).because(source)
    }

    /// There is not enough room; looks like the operating system's own ENOSPC to whoever gives hints.
    pub fn disk_full(attempt: impl Into<String>) -> Error {
        let no_space = rustix::io::Errno::NOSPC.raw_os_error();
        Error::new(Kind::Disk, attempt).because(std::io::Error::from_raw_os_error(no_space))
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The same failure seen from further out: `self` becomes the cause, the kind stays.
    pub fn while_doing(self, attempt: impl Into<String>) -> Error {
        let mut outer = Error::new(self.kind(), attempt);
        outer.0.source = Some(Arc::new(self));
        outer
    }

    /// The same failure, understood otherwise.
    pub fn of_kind(mut self, kind: Kind) -> Error {
        self.0.kind = kind;
        self
    }

    /// What was said of one thing, as the failure of another.
    pub fn without_reason(mut self) -> Error {
        self.0.reason = None;
        self
    }

    pub fn with_reason(mut self, reason: Reason) -> Error {
        self.0.reason = Some(reason);
        self
    }

    /// The outermost reason in the chain, if the other side gave any.
    pub fn reason(&self) -> Option<&Reason> {
        let cause = || self.source()?.downcast_ref::<Error>()?.reason();
        self.0.reason.as_ref().or_else(cause)
    }

    /// The first fact or cause of this type, from the outside in. An error that has none gives that of the failure it speaks for.
    pub fn find<T: Fact>(&self) -> Option<&T> {
        let own = self.0.facts.iter().rev().find_map(|fact| fact.downcast_ref::<T>());
        own.or_else(|| causes(self.source()).find_map(|cause| found_in(cause))).or_else(|| self.first()?.find())
    }

    /// The failure whose facts count, if this error speaks for several.
    pub fn first(&self) -> Option<&Error> {
        let below = || causes(self.source()).find_map(|cause| cause.downcast_ref::<Error>()?.0.first.as_deref());
        self.0.first.as_deref().or_else(below)
    }

    /// The words in which a policy forbids pulling, if that is why it failed.
    pub fn policy(&self) -> Option<String> {
        if self.reason() != Some(&Reason::PullPolicy) {
            return None;
        }
        let words = self.find::<PullPolicyWords>().map(|PullPolicyWords(words)| redacted(words).into_owned());
        Some(words.unwrap_or_else(|| self.chain()))
    }

    /// What was asked for is not there, or is denied: some registries answer 401 or 403 for what they do not have.
    pub fn is_absent_or_denied(&self) -> bool {
        let is_kind = matches!(self.0.kind, Kind::NotFound | Kind::Unauthorized | Kind::Refused);
        is_kind && self.reason().is_none() && self.stopped().is_none()
    }

    /// The other side failed at what was asked for by itself: it is not down, does not want to be left alone, and gave no reason.
    pub fn is_of_object_alone(&self) -> bool {
        let is_unexplained = matches!(self.reason(), None | Some(Reason::Undelivered));
        matches!(self.0.kind, Kind::Network | Kind::Refused) && is_unexplained && self.stopped().is_none()
    }

    /// There was no room on the local file system: nothing else that needs room has a chance.
    pub fn is_disk_full(&self) -> bool {
        use rustix::io::Errno;
        matches!(self.os_error().map(Errno::from_raw_os_error), Some(Errno::NOSPC | Errno::DQUOT))
    }

    /// This process, or the machine, has run out of what it takes to open a file: that says nothing of the file.
    pub fn is_shortage(&self) -> bool {
        use rustix::io::Errno;
        let errno = self.os_error().map(Errno::from_raw_os_error);
        matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
    }

    /// The local file system takes nothing more, full or read-only: nothing else that is to be written has a chance.
    pub fn is_disk_closed(&self) -> bool {
        use rustix::io::Errno;
        self.is_disk_full() || self.os_error().map(Errno::from_raw_os_error) == Some(Errno::ROFS)
    }

    /// What has ended everything else too, if that is why it failed itself; that another failure for which it speaks was of this
    /// kind does not count.
    pub fn stopped(&self) -> Option<&Stopped> {
        causes(self.source()).find_map(|cause| cause.downcast_ref::<Stopped>())
    }

    /// The whole chain on one line, outermost first: `a: b: c`; what it lists stands behind it. No secret of this run is in it.
    pub fn chain(&self) -> String {
        let mut lines = self.lines();
        match lines.split_off(1) {
            list if list.is_empty() => lines.concat(),
            list => {
                let list: Vec<&str> = list.iter().map(|line| line.trim_start()).collect();
                format!("{}: {}", lines.concat().trim_end_matches(':'), list.join("; "))
            }
        }
    }

    /// The chain, and below it what it lists, a line each: at least one.
    pub fn lines(&self) -> Vec<String> {
        let (mut text, mut list) = (self.0.attempt.clone(), self.0.list.clone());
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            list.extend(error.downcast_ref::<Error>().iter().flat_map(|error| error.0.list.clone()));
            cause = error.source();
        }
        std::iter::once(text).chain(list).map(|line| redacted(&line).into_owned()).collect()
    }

    /// The operating system's error code, if a file operation lies below. An error that has none gives that of the failure it speaks
    /// for.
    pub fn os_error(&self) -> Option<i32> {
        let own = causes(self.source()).find_map(|cause| cause.downcast_ref::<std::io::Error>());
        own.map_or_else(|| self.first()?.os_error(), std::io::Error::raw_os_error)
    }
}

/// A cause and those below it. What an [`io::Error`](std::io::Error) wraps is one, though its `source` skips it.
fn causes<'a>(first: Option<&'a (dyn StdError + 'static)>) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(first, |cause: &&'a (dyn StdError + 'static)| {
        let cause: &'a (dyn StdError + 'static) = *cause;
        let wrapped = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        wrapped.map(|wrapped| wrapped as &(dyn StdError + 'static)).or_else(|| cause.source())
    })
}

/// The value of this type that a cause is, or has as a fact.
fn found_in<'a, T: StdError + 'static>(cause: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let facts = || cause.downcast_ref::<Error>()?.0.facts.iter().rev().find_map(|fact| fact.downcast_ref::<T>());
    cause.downcast_ref::<T>().or_else(facts)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redacted(&self.0.attempt))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.chain())
    }
}

impl From<NotKept> for Error {
    fn from(NotKept { digest, source }: NotKept) -> Error {
        Error::new(Kind::Disk, format!("keeping the manifest {digest}")).because(source)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}
