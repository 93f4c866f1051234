//! Stable codes of errors, for programs.

use serde::Serialize;

use super::error::{Error, Kind, Reason};

/// The code of an error.
///
/// It is that of the error's [`Reason`] if there is one, otherwise that of its [`Kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The command line is wrong.
    Usage,
    /// Wrong usage, an invalid file, or an invalid combination of options.
    Input,
    /// The local file system refused to read or write.
    Disk,
    /// The local file system is full.
    DiskFull,
    /// Bytes are wrong, or no trusted key has signed them.
    Damaged,
    /// The registry does not have it.
    NotFound,
    /// The registry requires other credentials.
    Unauthorized,
    /// The registry refused a request.
    Refused,
    /// The registry asks for a longer wait than is allowed.
    RateLimited,
    /// The target lacks what an increment builds on.
    Lacking,
    /// The network or the other side failed.
    Network,
    /// Stopped by the user or the system.
    Interrupted,
    /// The registry rejects a manifest because it lacks content that the manifest refers to.
    UnknownContent,
    /// The repository does not exist, and a push does not create it.
    UnknownRepository,
    /// The registry rejects layers that are stored elsewhere.
    ForeignLayer,
    /// The target cannot return content that was pushed to it.
    DamagedTarget,
    /// An image has none of the requested platforms.
    PlatformMissing,
    /// The target lacks content that has already passed in a stream and cannot be sent again.
    Passed,
    /// The project's storage quota is used up.
    Quota,
    /// The disk or the quota of the whole registry is full.
    RegistryFull,
    /// The whole registry is read-only for now.
    ReadOnly,
    /// No upload can be started: the registry is in maintenance, or is a cache of another one.
    NoPushes,
    /// A web page answered the request for an upload.
    WebPage,
    /// The registry returns upload addresses whose host cannot be resolved here.
    UnknownUploadHost,
    /// The project is a cache of another registry and accepts no pushes.
    ProxyCache,
    /// This account may not push to the project.
    NoPushRight,
    /// No upload may be started in this repository.
    UploadDenied,
    /// The tag exists and is immutable.
    ImmutableTag,
    /// The registry's garbage collection is deleting the blob.
    BlobInCollection,
    /// A proxy in front of the registry rejects requests of this size.
    BodyLimit,
    /// A local file, for example of a bundle, is damaged.
    DamagedFile,
    /// The registry keeps failing for this object, but works otherwise.
    Undelivered,
    /// A proxy in front of the registry compresses its responses.
    Compressed,
    /// A policy forbids pulling the content.
    PullPolicy,
    /// This account may not pull, and gapferry must know what a tag refers to.
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
