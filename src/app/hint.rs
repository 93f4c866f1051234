//! Hints about errors: a text for people and a code for programs.

use serde::Serialize;

/// A hint about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Hint {
    /// The code for programs. Present if and only if there is a hint.
    #[serde(rename = "hintCode")]
    pub code: HintCode,
    /// What to do about the error.
    #[serde(rename = "hint")]
    pub text: &'static str,
}

/// The subject of a hint. Each code has one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HintCode {
    /// The local file system is full.
    DiskFull,
    /// The local file system denies access.
    PermissionDenied,
    /// The local file system is mounted read-only.
    ReadOnlyFileSystem,
    /// `-` was given to a command that does not read standard input.
    NoStandardInput,
    /// The path does not exist.
    NoSuchPath,
    /// The path is a directory where a file is needed.
    IsDirectory,
    /// A part of the path is a file where a directory is needed.
    NotDirectory,
    /// The medium may be failing.
    FailingMedium,
    /// The local file system cannot store a file this large.
    FileTooLarge,
    /// A server no longer answers, or refuses everything sent to it.
    ServerStopped,
    /// The server answers with an internal error.
    ServerError,
    /// A web page answers instead of the registry.
    WebPage,
    /// The registry uses an outdated version of TLS or an outdated certificate.
    TlsOutdated,
    /// The registry's certificate has expired.
    CertificateExpired,
    /// The registry's certificate is not valid yet.
    CertificateNotYetValid,
    /// The registry's certificate is for another name.
    CertificateOfOtherName,
    /// No known authority has issued the registry's certificate.
    CertificateUntrusted,
    /// The registry demands a client certificate.
    ClientCertificateDemanded,
    /// The registry could not be reached.
    NotReached,
    /// The address of a foreign layer does not return the layer.
    ForeignLayerLost,
    /// A companion of a locked image has changed since the lock was made.
    CompanionChanged,
    /// The registry does not accept the credentials just entered.
    LoginRefused,
    /// The registry requires other credentials.
    Unauthorized,
    /// The registry lacks a blob that its own manifest names.
    BlobLost,
    /// The registry no longer has what the lock lists.
    LockedGone,
    /// The registry does not have the requested content.
    NotFound,
    /// The registry limits the number of requests.
    RateLimited,
    /// The registry's disk is full.
    RegistryFull,
    /// The registry, or a proxy in front of it, refuses a request this large.
    RequestTooLarge,
    /// A quota of the registry is used up.
    Quota,
    /// The registry is in read-only mode.
    RegistryReadOnly,
    /// The registry refuses Docker's media types.
    MediaTypeRefused,
    /// The target lacks what an increment builds on.
    Lacking,
    /// Volumes of the bundle are missing.
    VolumesMissing,
    /// The bundle is older than the last one that arrived.
    NotNewer,
    /// The bundle was not received completely.
    NotReceived,
    /// The bundle has images that the allowlist does not allow.
    NotAllowed,
    /// The path is an OCI image layout, not a bundle.
    ImageLayout,
    /// The path is a repair file, not a bundle.
    RepairFile,
    /// Files of the bundle are damaged or missing.
    RepairBundle,
    /// Volumes of the bundle, or files in them, are damaged or missing.
    RepairVolumes,
    /// A local file, for example of a bundle, is damaged.
    DamagedFile,
    /// The content read differs from what it should be.
    DamagedSource,
    /// The bundle is not signed.
    BundleUnsigned,
    /// The receipt is not signed.
    ReceiptUnsigned,
    /// No accepted key has signed the bundle.
    KeyNotAccepted,
    /// Signed content was altered.
    Altered,
    /// An image has none of the requested platforms.
    PlatformMissing,
    /// The repository does not exist, and a push does not create it.
    UnknownRepository,
    /// The registry refuses foreign layers.
    ForeignLayerRefused,
    /// The target cannot return content that was sent to it.
    DamagedTarget,
    /// The target lacks content whose bytes already passed in a stream.
    Passed,
    /// The quota of a project is used up.
    ProjectQuota,
    /// The disk or the quota of the target is full.
    TargetFull,
    /// The registry accepts no uploads: it is in maintenance, or it caches another registry.
    NoPushes,
    /// A web page answered the start of an upload.
    WebPageAtUpload,
    /// The registry returns upload addresses whose host name cannot be resolved here.
    UnknownUploadHost,
    /// The project caches another registry, and accepts no push.
    ProxyCache,
    /// This account may not push to the project.
    NoPushRight,
    /// The registry denies the start of an upload to the repository.
    UploadDenied,
    /// The tag exists and is immutable.
    ImmutableTag,
    /// The registry's garbage collection is deleting the blob.
    BlobInCollection,
    /// A gateway in front of the registry refuses a request this large.
    BodyLimit,
    /// The registry cannot deliver an object.
    Undelivered,
    /// The registry cannot deliver an object; `--keep-going` fetches everything else.
    KeepGoing,
    /// A proxy or gateway compresses the registry's answers.
    Compressed,
    /// A policy forbids pulling.
    PullPolicy,
    /// This account may not pull, and gapferry must know what a tag means.
    NoPullRight,
    /// The index names children that were left out on purpose, and the registry refuses that.
    SparseIndex,
}
