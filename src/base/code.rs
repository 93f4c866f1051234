//! What an error is, for programs: a word that does not change when its text does.

use serde::Serialize;

use super::error::{Error, Kind, Reason};

/// What an error is, as exactly as that is known.
///
/// It is that of its [`Reason`] if it has one, else that of its [`Kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The command line is wrong.
    Usage,
    /// Wrong use, an invalid file, or a combination that makes no sense.
    Input,
    /// The local file system refused to read or to write.
    Disk,
    /// The local file system has no room.
    DiskFull,
    /// Bytes are not what they should be, or no trusted key has signed them.
    Damaged,
    /// The registry does not have it.
    NotFound,
    /// The registry wants other credentials.
    Unauthorized,
    /// The registry refused.
    Refused,
    /// The registry asks to be left alone for longer than was allowed.
    RateLimited,
    /// The target lacks what an increment builds on.
    Lacking,
    /// The network or the other side failed.
    Network,
    /// The user or the system asked to stop.
    Interrupted,
    /// The registry does not take a manifest, because it lacks content that the manifest names.
    UnknownContent,
    /// The repository does not exist, and a push does not create it.
    UnknownRepository,
    /// The registry refuses layers that are kept elsewhere.
    ForeignLayer,
    /// The target cannot give back content that was sent to it.
    DamagedTarget,
    /// An image has none of the platforms that were asked for.
    PlatformMissing,
    /// The target lacks content that can no longer be sent: its bytes have passed in a stream.
    Passed,
    /// The project's storage quota.
    Quota,
    /// The disk or the quota of the whole registry is full.
    RegistryFull,
    /// The whole registry takes no change for now.
    ReadOnly,
    /// No upload can be begun: the registry is in maintenance, or caches another one.
    NoPushes,
    /// A web page answered when an upload was to begin.
    WebPage,
    /// The registry gives addresses for uploads whose host has no address here.
    UnknownUploadHost,
    /// The project caches another registry, and takes no push.
    ProxyCache,
    /// This account may not push to the project.
    NoPushRight,
    /// No upload may be begun in the repository.
    UploadDenied,
    /// The tag exists and may not change its meaning.
    ImmutableTag,
    /// The registry's garbage collection is deleting the blob.
    BlobInCollection,
    /// What stands before the registry takes no request so large.
    BodyLimit,
    /// A file of this machine, of a bundle for example, is not what it should be.
    DamagedFile,
    /// The registry fails again and again at this object, and answers otherwise.
    Undelivered,
    /// What stands before the registry compresses its answers.
    Compressed,
    /// A policy forbids pulling what is there.
    PullPolicy,
    /// This account may not pull, and what a tag means has to be known.
    NoPullRight,
}

impl Code {
    pub fn of(error: &Error) -> Code {
        match error.reason() {
            Some(reason) => Code::of_reason(reason),
            None => Code::of_kind(error),
        }
    }

    fn of_kind(error: &Error) -> Code {
        match error.kind() {
            Kind::Input => Code::Input,
            Kind::Disk if error.is_disk_full() => Code::DiskFull,
            Kind::Disk => Code::Disk,
            Kind::Damaged => Code::Damaged,
            Kind::NotFound => Code::NotFound,
            Kind::Unauthorized => Code::Unauthorized,
            Kind::Refused => Code::Refused,
            Kind::RateLimited => Code::RateLimited,
            Kind::Lacking => Code::Lacking,
            Kind::Network => Code::Network,
            Kind::Interrupted => Code::Interrupted,
        }
    }

    fn of_reason(reason: &Reason) -> Code {
        match reason {
            Reason::UnknownContent(_) => Code::UnknownContent,
            Reason::UnknownRepository => Code::UnknownRepository,
            Reason::ForeignLayer => Code::ForeignLayer,
            Reason::DamagedTarget => Code::DamagedTarget,
            Reason::PlatformMissing => Code::PlatformMissing,
            Reason::Passed => Code::Passed,
            Reason::Quota { .. } => Code::Quota,
            Reason::Full { .. } => Code::RegistryFull,
            Reason::ReadOnly => Code::ReadOnly,
            Reason::NoPushes => Code::NoPushes,
            Reason::WebPage => Code::WebPage,
            Reason::UnknownUploadHost => Code::UnknownUploadHost,
            Reason::ProxyCache => Code::ProxyCache,
            Reason::NoPushRight => Code::NoPushRight,
            Reason::UploadDenied => Code::UploadDenied,
            Reason::ImmutableTag => Code::ImmutableTag,
            Reason::BlobInCollection => Code::BlobInCollection,
            Reason::BodyLimit => Code::BodyLimit,
            Reason::DamagedFile => Code::DamagedFile,
            Reason::Undelivered => Code::Undelivered,
            Reason::Compressed => Code::Compressed,
            Reason::PullPolicy => Code::PullPolicy,
            Reason::NoPullRight => Code::NoPullRight,
        }
    }
}
