//! What a person may do about an error, and what programs know it by.

use serde::Serialize;

/// Advice about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Hint {
    /// What a program knows the hint by; there exactly if there is a hint.
    #[serde(rename = "hintCode")]
    pub code: HintCode,
    /// What a person may do about it.
    #[serde(rename = "hint")]
    pub text: &'static str,
}

/// What a hint is about. Each has one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HintCode {
    /// The local file system has no room.
    DiskFull,
    /// The local file system denies access.
    PermissionDenied,
    /// The local file system is mounted read-only.
    ReadOnlyFileSystem,
    /// `-` was given to a command that reads no standard input.
    NoStandardInput,
    /// The path does not exist.
    NoSuchPath,
    /// The medium may be failing.
    FailingMedium,
    /// The local file system does not hold a file so large.
    FileTooLarge,
    /// A server no longer answers, or refuses all that is sent.
    ServerStopped,
    /// The server answers with an error of its own.
    ServerError,
    /// A web page answers instead of the registry.
    WebPage,
    /// The registry speaks a version of TLS, or has a certificate, that is too old.
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
    /// The registry was not reached.
    NotReached,
    /// The address of a foreign layer does not give the layer.
    ForeignLayerLost,
    /// What accompanies a locked image has changed since the lock was made.
    CompanionChanged,
    /// The registry does not accept the credentials that were just typed.
    LoginRefused,
    /// The registry wants other credentials.
    Unauthorized,
    /// The registry lacks a blob that its own manifest names.
    BlobLost,
    /// The registry no longer has what the lock names.
    LockedGone,
    /// The registry does not have it.
    NotFound,
    /// The registry limits the number of requests.
    RateLimited,
    /// The registry's disk is full.
    RegistryFull,
    /// The registry, or a proxy before it, refuses a request so large.
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
    /// The bundle did not arrive as a whole.
    NotReceived,
    /// The bundle has images that the allowlist does not name.
    NotAllowed,
    /// It is an OCI image layout and not a bundle.
    ImageLayout,
    /// It is a repair and not a bundle.
    RepairFile,
    /// Files of the bundle are bad or absent.
    RepairBundle,
    /// Volumes of the bundle are bad or absent, or files in them.
    RepairVolumes,
    /// A file of this machine, of a bundle for example, is damaged.
    DamagedFile,
    /// What was read is not what it should be.
    DamagedSource,
    /// The bundle is not signed.
    BundleUnsigned,
    /// The receipt is not signed.
    ReceiptUnsigned,
    /// No accepted key has signed the bundle.
    KeyNotAccepted,
    /// What was signed has been altered.
    Altered,
    /// An image has none of the platforms that were asked for.
    PlatformMissing,
    /// The repository does not exist, and a push does not create it.
    UnknownRepository,
    /// The registry refuses foreign layers.
    ForeignLayerRefused,
    /// The target cannot give back content that was sent to it.
    DamagedTarget,
    /// The target lacks content whose bytes have passed in a stream.
    Passed,
    /// The quota of a project is used up.
    ProjectQuota,
    /// The disk or the quota of the target is full.
    TargetFull,
    /// The registry takes no uploads: it is in maintenance, or caches another one.
    NoPushes,
    /// A web page answered when an upload was to begin.
    WebPageAtUpload,
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
    /// A gateway before the registry takes no request so large.
    BodyLimit,
    /// The registry cannot deliver an object.
    Undelivered,
    /// The registry cannot deliver an object; `--keep-going` gets everything else.
    KeepGoing,
    /// A proxy or gateway compresses the registry's answers.
    Compressed,
    /// A policy forbids pulling.
    PullPolicy,
    /// This account may not pull, and what a tag means has to be known.
    NoPullRight,
    /// The index names children that are missing on purpose, which the registry refuses.
    SparseIndex,
}
