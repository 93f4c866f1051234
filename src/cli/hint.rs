//! Finds the hint for an error. Hints are added here, at the edge, so that errors of the library stay plain.
//!
//! [`Situation::of`] classifies an error by its [`Kind`], its [`Reason`] and its facts, never by its text. [`Situation::hint`]
//! returns the code of the hint for each situation, and [`text`] its words.

mod reason;
#[cfg(test)]
mod tests;
mod text;

use std::path::Path;

use rustix::io::Errno;

use crate::app::{Hint, HintCode, LoggingIn, NotAllowed, NotNewer, ReceiptProblem};
use crate::base::error::{Error, FileOperation, Kind, Reason, Stopped};
use crate::bundle::NotReceived;
use crate::bundle::volumes::{RecoveryFault, VolumesMissing};
use crate::bundle::{NoBundle, SignatureProblem};
use crate::pipeline::walk::LockedLost;
use crate::transport::registry::{BlobFault, NoAnswer, Symptom, TlsProblem, UnexpectedStatus, WebPage};
use crate::verify::{Refusal, Report};
use reason::for_reason;
use text::text;

/// The hint for an error of a command that has `--keep-going` and was run without it.
pub fn that_may_keep_going(hint: HintCode) -> HintCode {
    if hint == HintCode::Undelivered { HintCode::KeepGoing } else { hint }
}

/// A hint with its text.
pub fn with_text(code: HintCode) -> Hint {
    Hint { code, text: text(code) }
}

/// The hint for a verified bundle, if a repair can help.
pub fn for_verified(report: &Report) -> Option<Hint> {
    let code = if report.set.is_some() { HintCode::RepairVolumes } else { HintCode::RepairBundle };
    report.is_repairable().then(|| with_text(code))
}

/// The hint for an error, if there is a useful one.
pub fn for_error(error: &Error) -> Option<HintCode> {
    let is_of_object = |reason: &&Reason| **reason == Reason::Undelivered;
    let reason = error.reason().filter(|reason| !is_of_object(reason) || !is_registry_full(error));
    reason.and_then(for_reason).or_else(|| Situation::of(error)?.hint())
}

/// A situation that a person can do something about.
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

/// Problems with the local file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disk {
    Full,
    Denied,
    ReadOnly,
    NoSuchPath,
    /// `-` was given to a command that does not read standard input.
    NoStandardInput,
    Failing,
    FileTooLarge,
    Other,
}

/// The other side cannot be reached, or something else answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    /// A server has stopped answering, or refuses to continue.
    Stopped,
    ServerError,
    WebPage,
    Tls(TlsProblem),
    NotReached,
}

/// Refusals of a registry, and things it does not have.
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

/// Problems with a bundle, or with data from a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bundle {
    VolumesMissing,
    NotNewer,
    NotReceived,
    NotAllowed,
    ImageLayout,
    Repair,
    /// The recovery volumes are unusable; the error says what to do.
    Recovery,
    /// The bundle was checked and has problems.
    Refused,
    Damaged,
}

/// A required signature is missing, or is not by an accepted key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unproven {
    BundleUnsigned,
    ReceiptUnsigned,
    FitsNoKey,
    Altered,
    /// A receipt on standard input has no signature; the error says what to do.
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
                match no_bundle {
                    NoBundle::ImageLayout(_) => Some(Situation::Bundle(Bundle::ImageLayout)),
                    NoBundle::Repair(_) => Some(Situation::Bundle(Bundle::Repair)),
                    NoBundle::Other(_) => None,
                }
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

    fn hint(self) -> Option<HintCode> {
        match self {
            Situation::Disk(disk) => disk.hint(),
            Situation::Network(network) => Some(network.hint()),
            Situation::Registry(registry) => Some(registry.hint()),
            Situation::Bundle(bundle) => bundle.hint(),
            Situation::Unproven(unproven) => unproven.hint(),
            Situation::Lacking => Some(HintCode::Lacking),
        }
    }
}

/// Whether a registry is full, or a cache cannot deliver anything because its disk is full.
fn is_registry_full(error: &Error) -> bool {
    let is_symptom = |answer: &UnexpectedStatus| answer.symptom == Some(Symptom::DiskFull);
    stopped(error).is_some_and(|stopped| stopped.is_full) || error.find().is_some_and(is_symptom)
}

/// The error that stopped the run, or the decisive one of several failures.
fn stopped(error: &Error) -> Option<&Stopped> {
    error.stopped().or_else(|| error.first()?.stopped())
}

/// An untrusted certificate has its own remedy.
fn is_foreign_layer(error: &Error) -> bool {
    let is_foreign = matches!(error.find(), Some(BlobFault::Foreign(_)));
    let is_of_certificate = tls_fault(error).is_some_and(|fault| match fault {
        TlsProblem::Expired | TlsProblem::NotYetValid | TlsProblem::WrongName | TlsProblem::Untrusted => true,
        TlsProblem::ClientCertificateDemanded | TlsProblem::Outdated => true,
        TlsProblem::Other => false,
    });
    is_foreign && !is_of_certificate
}

fn tls_fault(error: &Error) -> Option<TlsProblem> {
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
    if let Some(fault) = error.find::<SignatureProblem>() {
        return Situation::Unproven(match fault {
            SignatureProblem::Unsigned => Unproven::BundleUnsigned,
            SignatureProblem::FitsNoKey { .. } => Unproven::FitsNoKey,
            SignatureProblem::NoPlainFile { .. }
            | SignatureProblem::Lacks(_)
            | SignatureProblem::NamesNoBundle
            | SignatureProblem::Altered
            | SignatureProblem::OtherSums => Unproven::Altered,
        });
    }
    if let Some(fault) = error.find::<ReceiptProblem>() {
        return Situation::Unproven(match fault {
            ReceiptProblem::Unsigned { .. } => Unproven::ReceiptUnsigned,
            ReceiptProblem::FitsNoKey => Unproven::Altered,
            ReceiptProblem::Piped => Unproven::ReceiptPiped,
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
        match error.os_error().map(Errno::from_raw_os_error) {
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

    fn hint(self) -> Option<HintCode> {
        match self {
            Disk::Full => Some(HintCode::DiskFull),
            Disk::Denied => Some(HintCode::PermissionDenied),
            Disk::ReadOnly => Some(HintCode::ReadOnlyFileSystem),
            Disk::NoStandardInput => Some(HintCode::NoStandardInput),
            Disk::NoSuchPath => Some(HintCode::NoSuchPath),
            Disk::Failing => Some(HintCode::FailingMedium),
            Disk::FileTooLarge => Some(HintCode::FileTooLarge),
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

    fn hint(self) -> HintCode {
        match self {
            Network::Stopped => HintCode::ServerStopped,
            Network::ServerError => HintCode::ServerError,
            Network::WebPage => HintCode::WebPage,
            Network::Tls(TlsProblem::Outdated) => HintCode::TlsOutdated,
            Network::Tls(TlsProblem::Expired) => HintCode::CertificateExpired,
            Network::Tls(TlsProblem::NotYetValid) => HintCode::CertificateNotYetValid,
            Network::Tls(TlsProblem::WrongName) => HintCode::CertificateOfOtherName,
            Network::Tls(TlsProblem::ClientCertificateDemanded) => HintCode::ClientCertificateDemanded,
            Network::Tls(TlsProblem::Untrusted) => HintCode::CertificateUntrusted,
            Network::Tls(TlsProblem::Other) | Network::NotReached => HintCode::NotReached,
        }
    }
}

impl Registry {
    fn hint(self) -> HintCode {
        match self {
            Registry::ForeignLayer => HintCode::ForeignLayerLost,
            Registry::CompanionChanged => HintCode::CompanionChanged,
            Registry::LoginRefused => HintCode::LoginRefused,
            Registry::Unauthorized => HintCode::Unauthorized,
            Registry::BlobLost => HintCode::BlobLost,
            Registry::LockedGone => HintCode::LockedGone,
            Registry::NotFound => HintCode::NotFound,
            Registry::RateLimited => HintCode::RateLimited,
            Registry::Full => HintCode::RegistryFull,
            Registry::RequestTooLarge => HintCode::RequestTooLarge,
            Registry::Quota => HintCode::Quota,
            Registry::ReadOnly => HintCode::RegistryReadOnly,
            Registry::MediaType => HintCode::MediaTypeRefused,
        }
    }
}

impl Bundle {
    fn hint(self) -> Option<HintCode> {
        match self {
            Bundle::VolumesMissing => Some(HintCode::VolumesMissing),
            Bundle::NotNewer => Some(HintCode::NotNewer),
            Bundle::NotReceived => Some(HintCode::NotReceived),
            Bundle::NotAllowed => Some(HintCode::NotAllowed),
            Bundle::ImageLayout => Some(HintCode::ImageLayout),
            Bundle::Repair => Some(HintCode::RepairFile),
            Bundle::Recovery => None,
            Bundle::Refused => Some(HintCode::DamagedFile),
            Bundle::Damaged => Some(HintCode::DamagedSource),
        }
    }
}

impl Unproven {
    fn hint(self) -> Option<HintCode> {
        match self {
            Unproven::BundleUnsigned => Some(HintCode::BundleUnsigned),
            Unproven::ReceiptUnsigned => Some(HintCode::ReceiptUnsigned),
            Unproven::FitsNoKey => Some(HintCode::KeyNotAccepted),
            Unproven::Altered => Some(HintCode::Altered),
            Unproven::ReceiptPiped => None,
        }
    }
}
