//! What to do about an error; added here, at the edge, so that the library's errors stay plain.
//!
//! [`Situation::of`] finds what a person can do something about, by what an error knows: its [`Kind`], its [`Reason`] and its
//! facts. [`Situation::hint`] has advice for each. No text is read.

mod reason;
#[cfg(test)]
mod tests;

use std::path::Path;

use rustix::io::Errno;

use crate::app::{NotAllowed, NotNewer, ReceiptFault};
use crate::base::error::{Error, FileOperation, Kind, Reason, Stopped};
use crate::bundle::stream::NotReceived;
use crate::bundle::volumes::{RecoveryFault, VolumesMissing};
use crate::bundle::{NoBundle, SignatureFault};
use crate::pipeline::walk::LockedLost;
use crate::transport::registry::{BlobFault, NoAnswer, Symptom, TlsFault, UnexpectedStatus, WebPage};
use crate::verify::Refusal;
pub use reason::PULL_POLICY;
use reason::{DAMAGED_FILE, UNDELIVERED, for_reason};

/// The hint for an error of a command that has the option `--keep-going`, and was called without it.
pub fn that_may_keep_going(hint: &'static str) -> &'static str {
    match hint {
        UNDELIVERED => {
            "the registry works, but cannot deliver this object: ask its administrator; meanwhile --keep-going exports everything else"
        }
        hint => hint,
    }
}

const OF_A_PAGE: &str = "a proxy or a login page answers instead of the registry: check name, port and proxy (HTTPS_PROXY, NO_PROXY), and log in \
     there first";

/// Credentials were tried that a person has just typed.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("logging in")]
pub struct LoggingIn;

/// Advice about this error, if there is any that is better than none.
pub fn for_error(error: &Error) -> Option<&'static str> {
    let is_of_object = |reason: &&Reason| **reason == Reason::Undelivered;
    let reason = error.reason().filter(|reason| !is_of_object(reason) || !is_registry_full(error));
    reason.and_then(for_reason).or_else(|| Situation::of(error)?.hint())
}

/// What a person can do something about, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Situation {
    Disk(Disk),
    Network(Network),
    Registry(Registry),
    Bundle(Bundle),
    Unproven(Unproven),
    /// The target lacks what an increment builds on.
    Lacking,
}

/// The local file system refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disk {
    Full,
    Denied,
    ReadOnly,
    NoSuchPath,
    /// `-` was given to a command that reads no standard input.
    NoStandardInput,
    Failing,
    FileTooLarge,
    Other,
}

/// The other side was not reached, or something else answers in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    /// A server no longer answers, or does no more.
    Stopped,
    ServerError,
    WebPage,
    Tls(TlsFault),
    NotReached,
}

/// What a registry refuses or does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Registry {
    ForeignLayer,
    CompanionChanged,
    LoginRefused,
    Unauthorized,
    BlobLost,
    LockedGone,
    NotFound,
    RateLimited,
    Full,
    RequestTooLarge,
    Quota,
    ReadOnly,
    MediaType,
}

/// What is wrong with a bundle, or with what was read of a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bundle {
    VolumesMissing,
    NotNewer,
    NotReceived,
    NotAllowed,
    ImageLayout,
    /// The recovery volumes are no good; the error says what to do.
    Recovery,
    /// It was checked, and has problems.
    Refused,
    Damaged,
}

/// What should be signed by the holder of an accepted key is not, or that is not proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unproven {
    BundleUnsigned,
    ReceiptUnsigned,
    FitsNoKey,
    Altered,
    /// A receipt that comes without its signature; the error says what to do.
    ReceiptPiped,
}

impl Situation {
    fn of(error: &Error) -> Option<Situation> {
        let is_of_registry =
            matches!(error.kind(), Kind::NotFound | Kind::Unauthorized | Kind::Refused | Kind::Network);
        if is_of_registry && is_foreign_layer(error) {
            return Some(Situation::Registry(Registry::ForeignLayer));
        }
        match error.kind() {
            Kind::Input => {
                let no_bundle = error.find::<NoBundle>()?;
                matches!(no_bundle, NoBundle::ImageLayout(_)).then_some(Situation::Bundle(Bundle::ImageLayout))
            }
            Kind::Disk => Some(Situation::Disk(Disk::of(error))),
            Kind::Damaged => Some(damaged(error)),
            Kind::NotFound => Some(Situation::Registry(not_found(error))),
            Kind::Unauthorized => Some(Situation::Registry(unauthorized(error))),
            Kind::Refused => refused(error).map(Situation::Registry),
            Kind::RateLimited => Some(Situation::Registry(Registry::RateLimited)),
            Kind::Lacking => Some(Situation::Lacking),
            Kind::Network if is_registry_full(error) => Some(Situation::Registry(Registry::Full)),
            Kind::Network => Some(Situation::Network(Network::of(error))),
            Kind::Interrupted => None,
        }
    }

    fn hint(self) -> Option<&'static str> {
        match self {
            Situation::Disk(disk) => disk.hint(),
            Situation::Network(network) => Some(network.hint()),
            Situation::Registry(registry) => Some(registry.hint()),
            Situation::Bundle(bundle) => bundle.hint(),
            Situation::Unproven(unproven) => unproven.hint(),
            Situation::Lacking => Some(
                "bring what is missing: on the connected side export again, with --since and the receipt of an import that arrived, or an \
                 inventory of this target (`gapferry inventory`), or without --since; or fetch just this (import --missing, \
                 export --repair)",
            ),
        }
    }
}

/// A registry is full, or a cache whose full disk keeps it from giving anything.
fn is_registry_full(error: &Error) -> bool {
    let is_symptom = |answer: &UnexpectedStatus| answer.symptom == Some(Symptom::DiskFull);
    stopped(error).is_some_and(|stopped| stopped.is_full) || error.find().is_some_and(is_symptom)
}

/// What has ended everything; where several failures have one error, in the one that counts.
fn stopped(error: &Error) -> Option<&Stopped> {
    error.stopped().or_else(|| error.first()?.stopped())
}

/// A certificate that is not trusted has a remedy of its own.
fn is_foreign_layer(error: &Error) -> bool {
    let is_foreign = matches!(error.find(), Some(BlobFault::Foreign(_)));
    let is_of_certificate = tls_fault(error).is_some_and(|fault| match fault {
        TlsFault::Expired | TlsFault::NotYetValid | TlsFault::WrongName | TlsFault::Untrusted => true,
        TlsFault::ClientCertificateDemanded | TlsFault::Outdated => true,
        TlsFault::Other => false,
    });
    is_foreign && !is_of_certificate
}

fn tls_fault(error: &Error) -> Option<TlsFault> {
    error.find::<NoAnswer>()?.tls
}

fn is_companion_changed(error: &Error) -> bool {
    matches!(error.find(), Some(LockedLost::CompanionChanged(_)))
}

fn not_found(error: &Error) -> Registry {
    match error.find() {
        Some(LockedLost::CompanionChanged(_)) => return Registry::CompanionChanged,
        Some(LockedLost::Gone(_)) => return Registry::LockedGone,
        Some(LockedLost::Denied(_)) | None => {}
    }
    let is_lost = matches!(error.find(), Some(BlobFault::Lost(_)));
    if is_lost { Registry::BlobLost } else { Registry::NotFound }
}

fn unauthorized(error: &Error) -> Registry {
    match () {
        () if is_companion_changed(error) => Registry::CompanionChanged,
        () if error.find::<LoggingIn>().is_some() => Registry::LoginRefused,
        () => Registry::Unauthorized,
    }
}

fn refused(error: &Error) -> Option<Registry> {
    if is_companion_changed(error) {
        return Some(Registry::CompanionChanged);
    }
    if is_registry_full(error) {
        return Some(Registry::Full);
    }
    let answer = error.find::<UnexpectedStatus>()?;
    match (answer.status, answer.symptom) {
        (413, _) => Some(Registry::RequestTooLarge),
        (_, Some(Symptom::Quota)) => Some(Registry::Quota),
        (_, Some(Symptom::ReadOnly)) => Some(Registry::ReadOnly),
        (415, _) => Some(Registry::MediaType),
        (_, Some(Symptom::DiskFull | Symptom::NoPullRight) | None) => None,
    }
}

fn damaged(error: &Error) -> Situation {
    if let Some(fault) = error.find::<SignatureFault>() {
        return Situation::Unproven(match fault {
            SignatureFault::Unsigned => Unproven::BundleUnsigned,
            SignatureFault::FitsNoKey { .. } => Unproven::FitsNoKey,
            SignatureFault::NoPlainFile { .. }
            | SignatureFault::Lacks(_)
            | SignatureFault::NamesNoBundle
            | SignatureFault::Altered
            | SignatureFault::OtherSums => Unproven::Altered,
        });
    }
    if let Some(fault) = error.find::<ReceiptFault>() {
        return Situation::Unproven(match fault {
            ReceiptFault::Unsigned { .. } => Unproven::ReceiptUnsigned,
            ReceiptFault::FitsNoKey => Unproven::Altered,
            ReceiptFault::Piped => Unproven::ReceiptPiped,
        });
    }
    match () {
        () if error.find::<VolumesMissing>().is_some() => Situation::Bundle(Bundle::VolumesMissing),
        () if error.find::<NotNewer>().is_some() => Situation::Bundle(Bundle::NotNewer),
        () if error.find::<NotReceived>().is_some() => Situation::Bundle(Bundle::NotReceived),
        () if error.find::<NotAllowed>().is_some() => Situation::Bundle(Bundle::NotAllowed),
        () if error.find::<RecoveryFault>().is_some() => Situation::Bundle(Bundle::Recovery),
        () if Refusal::of(error).is_some() => Situation::Bundle(Bundle::Refused),
        () if is_page(error) => Situation::Network(Network::WebPage),
        () => Situation::Bundle(Bundle::Damaged),
    }
}

fn is_page(error: &Error) -> bool {
    error.find::<WebPage>().is_some() || error.find().is_some_and(|answer: &UnexpectedStatus| answer.is_page)
}

impl Disk {
    fn of(error: &Error) -> Disk {
        let code = error.os_error().or_else(|| error.first()?.os_error());
        match code.map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC | Errno::DQUOT) => Disk::Full,
            Some(Errno::ACCESS | Errno::PERM) => Disk::Denied,
            Some(Errno::ROFS) => Disk::ReadOnly,
            Some(Errno::NOENT) if error.find().is_some_and(|it: &FileOperation| it.path == Path::new("-")) => {
                Disk::NoStandardInput
            }
            Some(Errno::NOENT) => Disk::NoSuchPath,
            Some(Errno::IO) => Disk::Failing,
            Some(Errno::FBIG) => Disk::FileTooLarge,
            _ => Disk::Other,
        }
    }

    fn hint(self) -> Option<&'static str> {
        match self {
            Disk::Full => Some("make room, or write elsewhere; then run the same command again"),
            Disk::Denied => Some("check the permissions, or run as a user who may"),
            Disk::ReadOnly => Some("the file system is mounted read-only"),
            Disk::NoStandardInput => Some(
                "only `verify` and `import` read a bundle from standard input (`-`), and no other beside it: save it to a file",
            ),
            Disk::NoSuchPath => Some("check the path"),
            Disk::Failing => Some("the medium may be failing: try to read it elsewhere, or use another one"),
            Disk::FileTooLarge => Some(
                "the file system cannot hold a file this large (FAT32: 4 GiB), or a limit forbids it (ulimit -f): write a directory, \
                 format it anew, or lift the limit",
            ),
            Disk::Other => None,
        }
    }
}

impl Network {
    fn of(error: &Error) -> Network {
        let status = error.find::<UnexpectedStatus>().map(|answer| answer.status);
        match () {
            () if stopped(error).is_some() => Network::Stopped,
            () if matches!(status, Some(500 | 502 | 503 | 504)) => Network::ServerError,
            () if is_page(error) => Network::WebPage,
            () => tls_fault(error).map_or(Network::NotReached, Network::Tls),
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Network::Stopped => "when it answers again, run the same command again: what is done is kept",
            Network::ServerError => {
                "the registry, or what stands before it, answers, but with an error of its own: when it works again, run the same command \
                 again, which continues"
            }
            Network::WebPage => OF_A_PAGE,
            Network::Tls(TlsFault::Outdated) => {
                "this has to be set right at the registry, or at the proxy before it: a certificate of X.509 version 3 with the host in its \
                 subjectAltName, and TLS 1.2 or 1.3 with ECDHE"
            }
            Network::Tls(TlsFault::Expired) => {
                "have the registry's certificate renewed; or, if this machine's clock is wrong, set it right"
            }
            Network::Tls(TlsFault::NotYetValid) => {
                "set this machine's clock right; if it is right, have the registry use a certificate that is valid now"
            }
            Network::Tls(TlsFault::WrongName) => {
                "call the registry by a name that its certificate is for, or have it get one with this name in its subjectAltName"
            }
            Network::Tls(TlsFault::ClientCertificateDemanded) => {
                "put the certificate and its key as NAME.cert and NAME.key in /etc/containers/certs.d/HOST[:PORT], or in a directory that \
                 --cert-dir names"
            }
            Network::Tls(TlsFault::Untrusted) => {
                "add the registry's CA with --ca-file FILE, or as FILE.crt in /etc/containers/certs.d/HOST[:PORT]; or (not over a \
                 network you do not trust) --tls-verify=false"
            }
            Network::Tls(TlsFault::Other) | Network::NotReached => {
                "check name, port and proxy (HTTPS_PROXY, NO_PROXY); for a registry without TLS: --plain-http. Run again to continue"
            }
        }
    }
}

impl Registry {
    fn hint(self) -> &'static str {
        match self {
            Registry::ForeignLayer => {
                "the registry leaves this layer to an address of its maker's, which may be gone or out of reach from here: leave such \
                 layers out (without --foreign-layers), or let the address be reached"
            }
            Registry::CompanionChanged => {
                "--companions today goes on with what is attached to the image now, under a new lock, and --companions none without any; \
                 an export onto the bundle that was made of this lock finds them there"
            }
            Registry::LoginRefused => {
                "check user and password, and on Harbor whether the robot has expired; nothing was kept"
            }
            Registry::Unauthorized => {
                "`gapferry auth check HOST` says which user is shown; give another by --creds USER, --authfile FILE or \
                 `gapferry login HOST`; on Harbor a missing project answers the same way"
            }
            Registry::BlobLost => {
                "the registry's storage lacks a blob that its own manifest names: the image has to be pushed there again"
            }
            Registry::LockedGone => {
                "the registry has deleted it: lock again, or export onto the bundle that was made of this lock, which has it"
            }
            Registry::NotFound => "check the spelling of registry, repository and tag, and whether you may read it",
            Registry::RateLimited => {
                "run the same command again later: what is done is kept (of `lock`: with -o); --max-wait 6h waits instead; \
                 logging in raises most limits"
            }
            Registry::Full => "the registry is full: free space on its disk, then run the same command again",
            // nginx refuses uploads over 1 MiB unless it is configured otherwise.
            Registry::RequestTooLarge => {
                "the registry, or a proxy before it, limits the size of uploads (nginx: client_max_body_size 0; in \
                 Kubernetes the annotation proxy-body-size of the ingress): have that lifted, then run the same command again"
            }
            Registry::Quota => "raise the project's quota, or clean it up; then run the same command again",
            Registry::ReadOnly => {
                "the registry is in read-only mode: ask its administrator, then run the same command again"
            }
            Registry::MediaType => {
                "this registry takes OCI media types only, not Docker's; zot takes both with `\"compat\": [\"docker2s2\"]` in the section \
                 `http` of its configuration"
            }
        }
    }
}

impl Bundle {
    fn hint(self) -> Option<&'static str> {
        match self {
            Bundle::VolumesMissing => Some(
                "bring the others too, or take them one by one (`import --state FILE`); lost ones are made again by `gapferry repair`, \
                 of recovery volumes, or where the bundle came from",
            ),
            Bundle::NotNewer => Some(
                "an old bundle was brought: bring the one that was made last; to go back on purpose, leave out --newer-than",
            ),
            Bundle::NotReceived => {
                Some("send all of it again, by the same command on both sides: what has arrived is not pushed again")
            }
            Bundle::NotAllowed => Some("add them to the allowlist of --allow, or bring a bundle without them"),
            Bundle::ImageLayout => Some(
                "`gapferry serve LAYOUT` makes a registry of it, and `gapferry export` makes a bundle of the images in that registry",
            ),
            Bundle::Recovery => None,
            Bundle::Refused => Some(DAMAGED_FILE),
            Bundle::Damaged => Some("run the same command again; if it stays, the source itself is damaged"),
        }
    }
}

impl Unproven {
    fn hint(self) -> Option<&'static str> {
        match self {
            Unproven::BundleUnsigned => {
                Some("have it signed where it was made (`export --sign-key`, `gapferry sign`), and bring it again")
            }
            Unproven::ReceiptUnsigned => Some(
                "have it signed where it was written (`import --receipt FILE --sign-key`, `inventory --sign-key`), and bring both files",
            ),
            Unproven::FitsNoKey => Some(
                "ask whoever made it for the fingerprint of their key, not by way of the medium; if it is this one, somebody altered the \
                 bundle: do not use it",
            ),
            Unproven::Altered => {
                Some("do not use it before you know who changed it; bring it again from where it was made")
            }
            Unproven::ReceiptPiped => None,
        }
    }
}
