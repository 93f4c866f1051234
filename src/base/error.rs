//! The library's one error type: what was attempted on which object, and the kind of the failure.
//!
//! The text never repeats its cause, which is in [`source`](std::error::Error::source). The chain is printed once, at the edge
//! of the program, where hints are added.
//!
//! # Facts
//! No decision depends on text. Exit codes follow from [`Kind`] alone, and hints from [`Kind`] and [`Reason`]. Everything else
//! that a caller or a hint needs is a *fact*: a value with fields, of a type of the module that created the error, whose
//! `Display` is the text. [`Error::of`] creates an error from a fact, [`Error::with_fact`] adds one to an error with more
//! text, [`because`](Error::because) accepts one as the cause, and [`Error::find`] finds any of them. The implementors of
//! [`Fact`] are the complete list. Other causes, such as an error of the operating system, have their own methods
//! ([`Error::os_error`], [`Error::is_disk_full`]). An error that stands for several failures keeps the facts of the one that
//! decided its kind ([`Error::speaking_for`]).

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::progress::redacted;
use crate::oci::{Digest, ManifestError, NotKept};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of a failure. It decides the exit code, whether a retry may help, and the hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Wrong use, an invalid file or an invalid combination of options.
    Input,
    /// The local file system refused to read or write: no space, no permission, a bad medium.
    Disk,
    /// Bytes are wrong: wrong digest, wrong size, something missing or undeclared.
    Damaged,
    /// The registry does not have it.
    NotFound,
    /// The registry requires other credentials, or none were found (401).
    Unauthorized,
    /// The registry refused: no permission, quota, read-only, immutable tag, an unsupported manifest; or it fails for this
    /// object only.
    Refused,
    /// The registry asks for a longer wait than is allowed (429).
    RateLimited,
    /// The target lacks what an increment builds on.
    Lacking,
    /// The network or the server failed: no connection, TLS, time-out, 5xx after all retries.
    Network,
    /// Stopped by the user or the system.
    Interrupted,
}

/// What an error knows in addition to its [`Kind`] and [`Reason`]: a type of the module that creates the error. The
/// implementors are the complete list of facts.
pub trait Fact: StdError + Send + Sync + 'static {}

impl Fact for ManifestError {}
impl Fact for Stopped {}

/// What exactly the server objects to, if its response says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The registry rejects a manifest because it lacks content that the manifest refers to: these digests, as far as it names
    /// them.
    UnknownContent(Vec<Digest>),
    /// The repository does not exist, and a push does not create it.
    UnknownRepository,
    /// The registry rejects layers with `urls`.
    ForeignLayer,
    /// The target still lacks content after it was pushed again, or cannot return it.
    DamagedTarget,
    /// An image has none of the requested platforms.
    PlatformMissing,
    /// The target lacks content that has already passed in a stream and cannot be sent again.
    Passed,
    /// The project's storage quota. There is certainly space for `left` more bytes.
    Quota { left: u64 },
    /// The disk or quota of the whole registry. There is certainly space for `left` more bytes.
    Full { left: u64 },
    /// The whole registry is read-only for now.
    ReadOnly,
    /// No upload can be started here: the registry is in maintenance, or is a cache of another one.
    NoPushes,
    /// A web page answered the request for an upload. How much of the registry is affected is unknown.
    WebPage,
    /// The registry returns upload addresses whose host cannot be resolved here.
    UnknownUploadHost,
    /// The project is a cache of another registry and accepts no pushes.
    ProxyCache,
    /// This account may not push to the project.
    NoPushRight,
    /// No upload may be started in this repository (401, 403). How much of the registry is affected is unknown.
    UploadDenied,
    /// The tag exists and is immutable.
    ImmutableTag,
    /// The registry's garbage collection is deleting the blob.
    BlobInCollection,
    /// A proxy in front of the registry rejects requests of this size, and smaller chunks did not help.
    BodyLimit,
    /// A local file, for example of a bundle, is damaged.
    DamagedFile,
    /// The registry keeps failing for this object, but works otherwise.
    Undelivered,
    /// A proxy in front of the registry compresses responses although gapferry asked for uncompressed ones.
    Compressed,
    /// The content exists, but a policy forbids pulling it: it is unsigned or unscanned, or a scan found a vulnerability.
    PullPolicy,
    /// This account may not pull, and gapferry must know what a tag refers to before it changes it.
    NoPullRight,
}

/// A cause that stops everything related to a registry, or a part of one, for the rest of the run: for example, the registry
/// no longer answers or rejects every push. It is reported once for all images affected, and decides the exit code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place} {why}")]
pub struct Stopped {
    /// `host[:port]`, or a path below it.
    pub place: String,
    /// The reason, as a predicate that follows the name: `has not answered for 2 min (connection refused)`.
    pub why: String,
    /// Whether its disk is full.
    pub is_full: bool,
}

/// The registry's explanation of a policy that forbids pulling.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct PullPolicyWords(pub String);

impl Fact for PullPolicyWords {}

/// What was done to a file when the operating system refused.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{verb} {}", path.display())]
pub struct FileOperation {
    /// A verb such as `opening`.
    pub verb: String,
    pub path: PathBuf,
}

impl Fact for FileOperation {}

/// How much of the server a [`Reason`] affects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Only the requested object.
    Object,
    /// Everything in the same project (the first component of a repository's path).
    Project,
    Registry,
}

impl Reason {
    pub fn reach(&self) -> Reach {
        match self {
            Reason::ReadOnly | Reason::Full { .. } | Reason::UnknownUploadHost => Reach::Registry,
            // A server for several registries may refuse uploads to only one of them.
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

/// A failure: what was attempted, and on what. See the module documentation.
#[derive(Clone)]
pub struct Error(Box<Parts>);

#[derive(Clone)]
struct Parts {
    kind: Kind,
    reason: Option<Reason>,
    attempt: String,
    /// Lines that belong below the message.
    list: Vec<String>,
    facts: Vec<Arc<dyn StdError + Send + Sync>>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    /// The decisive one of several failures whose texts are in `attempt` or `list`.
    first: Option<Arc<Error>>,
}

impl Error {
    /// Creates an error. `attempt` says what was attempted on which object and, if there is no cause below, why it failed:
    /// `reading blob sha256:… of quay.io/a/b: the body ended after 10 of 20 bytes`.
    pub fn new(kind: Kind, attempt: impl Into<String>) -> Error {
        let (attempt, list, facts) = (attempt.into(), Vec::new(), Vec::new());
        Error(Box::new(Parts { kind, reason: None, attempt, list, facts, source: None, first: None }))
    }

    /// Creates an error with the text of `fact`, which [`find`](Error::find) finds.
    pub fn of(kind: Kind, fact: impl Fact) -> Error {
        Error::new(kind, fact.to_string()).with_fact(fact)
    }

    /// Adds a fact whose text is not needed. Of two facts of one type, the later one is found.
    pub fn with_fact(mut self, fact: impl Fact) -> Error {
        self.0.facts.push(Arc::new(fact));
        self
    }

    /// Adds the facts of `first`, the decisive one of several failures whose texts this error contains.
    pub fn speaking_for(mut self, first: Error) -> Error {
        self.0.first = Some(Arc::new(first));
        self
    }

    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// Adds a list below the message, such as all problems in a file. A line break inside the message or an item is foreign
    /// text and is never printed as a line break.
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

    /// Creates an error for a failed file operation: `Error::disk("writing", &path, error)`. Readable but wrong bytes
    /// ([`InvalidData`](std::io::ErrorKind::InvalidData)) count as damage, not as a failing disk.
    pub fn disk(verb: &str, path: &std::path::Path, source: std::io::Error) -> Error {
        let kind = if source.kind() == std::io::ErrorKind::InvalidData { Kind::Damaged } else { Kind::Disk };
        Error::of(kind, FileOperation { verb: verb.to_owned(), path: path.to_owned() }).because(source)
    }

    /// Creates an error for a lack of space. Hints treat it like ENOSPC from the operating system.
    pub fn disk_full(attempt: impl Into<String>) -> Error {
        let no_space = rustix::io::Errno::NOSPC.raw_os_error();
        Error::new(Kind::Disk, attempt).because(std::io::Error::from_raw_os_error(no_space))
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Wraps the failure: `self` becomes the cause, and the kind stays.
    pub fn while_doing(self, attempt: impl Into<String>) -> Error {
        let mut outer = Error::new(self.kind(), attempt);
        outer.0.source = Some(Arc::new(self));
        outer
    }

    /// Changes the kind.
    pub fn of_kind(mut self, kind: Kind) -> Error {
        self.0.kind = kind;
        self
    }

    /// Removes the reason, to report what was said about one object as the failure of another.
    pub fn without_reason(mut self) -> Error {
        self.0.reason = None;
        self
    }

    pub fn with_reason(mut self, reason: Reason) -> Error {
        self.0.reason = Some(reason);
        self
    }

    /// The outermost reason in the chain, if any.
    pub fn reason(&self) -> Option<&Reason> {
        let cause = || self.source()?.downcast_ref::<Error>()?.reason();
        self.0.reason.as_ref().or_else(cause)
    }

    /// The first fact or cause of this type, from the outside in; otherwise that of the failure this error stands for.
    pub fn find<T: Fact>(&self) -> Option<&T> {
        let own = self.0.facts.iter().rev().find_map(|fact| fact.downcast_ref::<T>());
        own.or_else(|| causes(self.source()).find_map(|cause| found_in(cause))).or_else(|| self.first()?.find())
    }

    /// The decisive failure, if this error stands for several.
    pub fn first(&self) -> Option<&Error> {
        let below = || causes(self.source()).find_map(|cause| cause.downcast_ref::<Error>()?.0.first.as_deref());
        self.0.first.as_deref().or_else(below)
    }

    /// The registry's explanation of the policy that forbids pulling, if that is the cause.
    pub fn policy(&self) -> Option<String> {
        if self.reason() != Some(&Reason::PullPolicy) {
            return None;
        }
        let words = self.find::<PullPolicyWords>().map(|PullPolicyWords(words)| redacted(words).into_owned());
        Some(words.unwrap_or_else(|| self.chain()))
    }

    /// Whether the object does not exist or is denied. Some registries answer 401 or 403 for objects they do not have.
    pub fn is_absent_or_denied(&self) -> bool {
        let is_kind = matches!(self.0.kind, Kind::NotFound | Kind::Unauthorized | Kind::Refused);
        is_kind && self.reason().is_none() && self.stopped().is_none()
    }

    /// Whether the server failed for this object only: it is not down, does not ask for a wait, and gave no reason.
    pub fn is_of_object_alone(&self) -> bool {
        let is_unexplained = matches!(self.reason(), None | Some(Reason::Undelivered));
        matches!(self.0.kind, Kind::Network | Kind::Refused) && is_unexplained && self.stopped().is_none()
    }

    /// Whether the local file system was full. Nothing else that needs space can succeed.
    pub fn is_disk_full(&self) -> bool {
        use rustix::io::Errno;
        matches!(self.os_error().map(Errno::from_raw_os_error), Some(Errno::NOSPC | Errno::DQUOT))
    }

    /// Whether this process or the machine lacks the resources to open a file. This says nothing about the file itself.
    pub fn is_shortage(&self) -> bool {
        use rustix::io::Errno;
        let errno = self.os_error().map(Errno::from_raw_os_error);
        matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
    }

    /// Whether the local file system is full or read-only. Nothing else can be written.
    pub fn is_disk_closed(&self) -> bool {
        use rustix::io::Errno;
        self.is_disk_full() || self.os_error().map(Errno::from_raw_os_error) == Some(Errno::ROFS)
    }

    /// The cause that stopped everything, if this error itself failed because of it. That of a failure it stands for does not
    /// count.
    pub fn stopped(&self) -> Option<&Stopped> {
        causes(self.source()).find_map(|cause| cause.downcast_ref::<Stopped>())
    }

    /// The whole chain on one line, outermost first: `a: b: c`, followed by its list. Secrets of this run are masked.
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

    /// The chain, followed by its list, one line each. There is at least one line.
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

    /// The error code of the operating system, if a file operation is the cause; otherwise that of the failure this error
    /// stands for.
    pub fn os_error(&self) -> Option<i32> {
        let own = causes(self.source()).find_map(|cause| cause.downcast_ref::<std::io::Error>());
        own.map_or_else(|| self.first()?.os_error(), std::io::Error::raw_os_error)
    }
}

/// A cause and the causes below it. An error wrapped in [`io::Error`](std::io::Error) counts, although its `source` skips it.
fn causes<'a>(first: Option<&'a (dyn StdError + 'static)>) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(first, |cause: &&'a (dyn StdError + 'static)| {
        let cause: &'a (dyn StdError + 'static) = *cause;
        let wrapped = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        wrapped.map(|wrapped| wrapped as &(dyn StdError + 'static)).or_else(|| cause.source())
    })
}

/// The value of this type that is the cause itself or one of its facts.
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
        Error::new(Kind::Disk, format!("storing the manifest {digest}")).because(source)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}
