use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use super::*;
use crate::base::error::{Fact, PullPolicyWords};
use crate::oci::Digest;

/// An error that needs a hint, and one with similar words that must not get the same hint.
struct Case {
    helps: Error,
    similar: Error,
}

fn digest() -> Digest {
    Digest::sha256(b"a")
}

fn os(errno: Errno) -> Error {
    Error::disk("writing", Path::new("/a"), io::Error::from_raw_os_error(errno.raw_os_error()))
}

/// An error with the same words and no facts.
fn words_of(error: &Error) -> Error {
    Error::new(error.kind(), error.chain())
}

/// An error as the registry client builds it from a refusal.
fn answered(kind: Kind, status: u16, symptom: Option<Symptom>, words: &str) -> Error {
    let answer = UnexpectedStatus { status, is_page: false, symptom, words: words.to_owned() };
    Error::new(kind, format!("uploading blob sha256:aa to r/a: {answer}")).with_fact(answer)
}

fn fact(kind: Kind, fact: impl Fact) -> Case {
    let helps = Error::of(kind, fact);
    Case { similar: words_of(&helps), helps }
}

fn no_answer(fault: Option<TlsProblem>, reason: &str) -> Error {
    let cause = NoAnswer { reason: reason.to_owned(), tls: fault, spoke_tls: fault.is_some(), is_unresolved: false };
    Error::new(Kind::Network, "asking r.example").because(cause)
}

fn tls(fault: TlsProblem, reason: &str) -> Case {
    let helps = no_answer(Some(fault), reason);
    Case { similar: words_of(&helps), helps }
}

/// An error whose words came as text from another program, which may print anything.
fn quoted(error: &Error) -> Error {
    Error::new(error.kind(), format!("the helper says {:?}", error.chain()))
}

fn disk(disk: Disk) -> Case {
    let error = |errno| {
        let helps = os(errno);
        Case { similar: Error::new(Kind::Disk, helps.chain()), helps }
    };
    match disk {
        Disk::Full => error(Errno::NOSPC),
        Disk::Denied => error(Errno::ACCESS),
        Disk::ReadOnly => error(Errno::ROFS),
        Disk::NoSuchPath => error(Errno::NOENT),
        Disk::NoStandardInput => {
            let missing = || io::Error::from_raw_os_error(Errno::NOENT.raw_os_error());
            let helps = Error::disk("opening", Path::new("-"), missing());
            Case { helps, similar: Error::disk("opening", Path::new("-: a"), missing()) }
        }
        Disk::Failing => error(Errno::IO),
        Disk::FileTooLarge => error(Errno::FBIG),
        Disk::Other => Case { helps: os(Errno::NAMETOOLONG), similar: os(Errno::NOSPC) },
    }
}

fn network(network: Network) -> Case {
    match network {
        Network::Stopped => {
            let why = "has not answered for 2 min (refused); gapferry sends it no more requests".to_owned();
            let stopped = Stopped { place: "r.example".to_owned(), why, is_full: false };
            let helps = Error::new(Kind::Network, "reading a").because(stopped);
            Case { similar: words_of(&helps), helps }
        }
        Network::ServerError => {
            let helps = answered(Kind::Network, 502, None, "502 Bad Gateway");
            Case { similar: words_of(&helps), helps }
        }
        Network::WebPage => {
            let helps = Error::new(Kind::Network, "the answer holds no token: (a web page) Sign in").with_fact(WebPage);
            Case { similar: words_of(&helps), helps }
        }
        Network::Tls(TlsProblem::Outdated) => {
            tls(TlsProblem::Outdated, "the TLS handshake failed: the server offers SSL")
        }
        Network::Tls(TlsProblem::Expired) => tls(TlsProblem::Expired, "invalid peer certificate: it has expired"),
        Network::Tls(TlsProblem::NotYetValid) => {
            tls(TlsProblem::NotYetValid, "invalid peer certificate: it is not valid yet")
        }
        Network::Tls(TlsProblem::WrongName) => tls(
            TlsProblem::WrongName,
            "invalid peer certificate: it is not valid for name a.example, only for b.example",
        ),
        Network::Tls(TlsProblem::Untrusted) => tls(TlsProblem::Untrusted, "invalid peer certificate: UnknownIssuer"),
        Network::Tls(TlsProblem::ClientCertificateDemanded) => {
            tls(TlsProblem::ClientCertificateDemanded, "the server requires a client certificate, and none was sent")
        }
        Network::Tls(TlsProblem::Other) => {
            let helps = no_answer(Some(TlsProblem::Other), "received corrupt message");
            Case { similar: Error::new(Kind::Refused, helps.chain()), helps }
        }
        Network::NotReached => {
            let helps = no_answer(None, "tcp connect error: Connection refused");
            Case { similar: Error::new(Kind::Refused, helps.chain()), helps }
        }
    }
}

fn registry(registry: Registry) -> Case {
    let refused = |status, symptom, words| {
        let helps = answered(Kind::Refused, status, symptom, words);
        Case { similar: words_of(&helps), helps }
    };
    match registry {
        Registry::ForeignLayer => {
            let foreign = |error: Error| error.with_fact(BlobFault::Foreign(digest()));
            let text = "reading blob sha256:aa of r/a at https://m/, which its manifest names: 404 Not Found";
            Case {
                helps: foreign(Error::new(Kind::NotFound, text)),
                // If a certificate is not trusted, the address can be reached.
                similar: foreign(no_answer(Some(TlsProblem::Untrusted), "invalid peer certificate: UnknownIssuer")),
            }
        }
        Registry::CompanionChanged => {
            let text =
                "its signature (tag sha256-aa.sig) was replaced since: r no longer has sha256:bb, which the lock names";
            let error = Error::new(Kind::NotFound, text);
            let helps = error.clone().with_fact(LockedLost::CompanionChanged(digest()));
            Case { helps, similar: error.with_fact(LockedLost::Gone(digest())) }
        }
        Registry::LoginRefused => {
            let error = Error::new(Kind::Unauthorized, "logging in to r.example as me");
            Case { helps: error.clone().with_fact(LoggingIn), similar: error }
        }
        Registry::Unauthorized => {
            let helps = answered(Kind::Unauthorized, 401, None, "401 Unauthorized");
            Case { similar: Error::new(Kind::Refused, helps.chain()), helps }
        }
        Registry::BlobLost => {
            let helps = answered(Kind::NotFound, 404, None, "404 Not Found").with_fact(BlobFault::Lost(digest()));
            Case { similar: Error::new(Kind::NotFound, "reading blob sha256:aa of r/a: 404 Not Found"), helps }
        }
        Registry::LockedGone => {
            let error = Error::new(Kind::NotFound, "r no longer has sha256:aa, which the lock names");
            Case { helps: error.clone().with_fact(LockedLost::Gone(digest())), similar: error }
        }
        Registry::NotFound => {
            let helps = Error::new(Kind::NotFound, "r does not have it: 404 Not Found");
            Case { similar: Error::new(Kind::Refused, helps.chain()), helps }
        }
        Registry::RateLimited => {
            let helps = answered(Kind::RateLimited, 429, None, "429 Too Many Requests");
            Case { similar: Error::new(Kind::Refused, helps.chain()), helps }
        }
        Registry::Full => refused(507, Some(Symptom::DiskFull), "507 Insufficient Storage: no space left on device"),
        Registry::RequestTooLarge => refused(413, None, "413 Payload Too Large: (a web page) nginx"),
        Registry::Quota => refused(403, Some(Symptom::Quota), "403 Forbidden: DENIED: storage quota exceeded"),
        Registry::ReadOnly => refused(403, Some(Symptom::ReadOnly), "403 Forbidden: DENIED: repository is read-only"),
        Registry::MediaType => refused(415, None, "415 Unsupported Media Type"),
    }
}

fn bundle(bundle: Bundle) -> Case {
    let path = || PathBuf::from("a.tar");
    match bundle {
        Bundle::VolumesMissing => {
            let text = "a.tar has 1 problem, the first: volumes/001.json is missing";
            Case { similar: Error::damaged(text), ..fact(Kind::Damaged, VolumesMissing { missing: vec![3], of: 4 }) }
        }
        Bundle::NotNewer => {
            let (made, last) = (jiff::Timestamp::UNIX_EPOCH, jiff::Timestamp::UNIX_EPOCH);
            fact(Kind::Damaged, NotNewer { path: path(), made, receipt: "r.json".to_owned(), last })
        }
        Bundle::NotReceived => {
            let not_received = NotReceived { length: 5, why: "the pipe has ended".to_owned() };
            Case {
                // This machine failed to read on, not the other side.
                similar: Error::of(Kind::Disk, not_received.clone()),
                helps: Error::of(Kind::Damaged, not_received),
            }
        }
        Bundle::NotAllowed => fact(Kind::Damaged, NotAllowed { list: "allow.txt".to_owned(), images: 2 }),
        Bundle::Repair => Case {
            similar: Error::of(Kind::Input, NoBundle::Other("a repair file".into())),
            ..fact(Kind::Input, NoBundle::Repair(path()))
        },
        Bundle::ImageLayout => Case {
            similar: Error::of(Kind::Input, NoBundle::Other("an OCI image layout and not a bundle".into())),
            ..fact(Kind::Input, NoBundle::ImageLayout(path()))
        },
        Bundle::Recovery => fact(Kind::Damaged, RecoveryFault::Forged { made: path() }),
        Bundle::Refused => {
            let helps = Error::damaged("a.tar has 1 problem, the first").because(Refusal { problems: Vec::new() });
            Case { similar: words_of(&helps), helps }
        }
        Bundle::Damaged => {
            let helps = Error::damaged("reading blob sha256:aa: it ended after 1 of 2 bytes");
            Case { similar: Error::input(helps.chain()), helps }
        }
    }
}

fn unproven(unproven: Unproven) -> Case {
    let message = |words: &str| Error::damaged(format!("a.tar is refused: {words}"));
    match unproven {
        Unproven::BundleUnsigned => Case {
            similar: message("a.tar is refused: it is not signed"),
            ..fact(Kind::Damaged, SignatureProblem::Unsigned)
        },
        Unproven::ReceiptUnsigned => {
            let case = fact(Kind::Damaged, ReceiptProblem::Unsigned { signature: "r.json.sig".into() });
            Case { similar: Error::of(Kind::Damaged, SignatureProblem::Unsigned), ..case }
        }
        Unproven::FitsNoKey => {
            let case = fact(Kind::Damaged, SignatureProblem::FitsNoKey { keys: "the key aa".to_owned() });
            Case { similar: Error::of(Kind::Damaged, ReceiptProblem::FitsNoKey), ..case }
        }
        Unproven::Altered => fact(Kind::Damaged, SignatureProblem::Altered),
        Unproven::ReceiptPiped => fact(Kind::Damaged, ReceiptProblem::Piped),
    }
}

fn case(situation: Situation) -> Case {
    match situation {
        Situation::Disk(one) => disk(one),
        Situation::Network(one) => network(one),
        Situation::Registry(one) => registry(one),
        Situation::Bundle(one) => bundle(one),
        Situation::Unproven(one) => unproven(one),
        Situation::Lacking => {
            let helps = Error::new(Kind::Lacking, "r lacks what the increment builds on");
            Case { similar: Error::new(Kind::Refused, helps.chain()), helps }
        }
    }
}

fn all() -> Vec<Situation> {
    use Bundle::*;
    let disks = [
        Disk::Full,
        Disk::Denied,
        Disk::ReadOnly,
        Disk::NoSuchPath,
        Disk::NoStandardInput,
        Disk::Failing,
        Disk::FileTooLarge,
        Disk::Other,
    ];
    let faults = [
        TlsProblem::Outdated,
        TlsProblem::Expired,
        TlsProblem::NotYetValid,
        TlsProblem::WrongName,
        TlsProblem::Untrusted,
        TlsProblem::ClientCertificateDemanded,
        TlsProblem::Other,
    ];
    let networks = [Network::Stopped, Network::ServerError, Network::WebPage, Network::NotReached];
    let registries = [
        Registry::ForeignLayer,
        Registry::CompanionChanged,
        Registry::LoginRefused,
        Registry::Unauthorized,
        Registry::BlobLost,
        Registry::LockedGone,
        Registry::NotFound,
        Registry::RateLimited,
        Registry::Full,
        Registry::RequestTooLarge,
        Registry::Quota,
        Registry::ReadOnly,
        Registry::MediaType,
    ];
    let bundles = [VolumesMissing, NotNewer, NotReceived, NotAllowed, ImageLayout, Repair, Recovery, Refused, Damaged];
    let unproven = [
        Unproven::BundleUnsigned,
        Unproven::ReceiptUnsigned,
        Unproven::FitsNoKey,
        Unproven::Altered,
        Unproven::ReceiptPiped,
    ];
    let networks = networks.into_iter().chain(faults.map(Network::Tls)).map(Situation::Network);
    let others = bundles.map(Situation::Bundle).into_iter().chain(unproven.map(Situation::Unproven));
    let all = disks.map(Situation::Disk).into_iter().chain(networks).chain(registries.map(Situation::Registry));
    all.chain(others).chain([Situation::Lacking]).collect()
}

/// A wrong hint misleads an operator. An error gets its hint by its facts, never by its words.
#[test]
fn each_hint_appears_where_it_helps_and_not_where_only_the_words_are_alike() {
    for situation in all() {
        let Case { helps, similar } = case(situation);
        assert_eq!(Situation::of(&helps), Some(situation), "{helps:?}");
        assert_ne!(Situation::of(&similar), Some(situation), "{similar:?}");
        assert!(situation.hint().is_none() || for_error(&similar) != situation.hint(), "{similar:?}");
        for outer in [helps.clone().while_doing("exporting a"), helps.while_doing("image a").while_doing("exporting a")]
        {
            assert_eq!(for_error(&outer), situation.hint(), "what is said around it changes nothing: {outer:?}");
        }
    }
}

/// A credential helper or a registry may quote any of our errors.
#[test]
fn the_words_of_another_program_get_no_hint_of_their_own() {
    for situation in all() {
        let helps = case(situation).helps;
        let (message, plain) = (quoted(&helps), Error::new(helps.kind(), "the helper failed"));
        assert_eq!(for_error(&message), for_error(&plain), "{message:?}");
    }
}

/// An export that fails for ten images must not say less than one that fails for one.
#[test]
fn an_error_for_several_failures_has_the_hint_of_the_one_that_counts() {
    for situation in all() {
        let helps = case(situation).helps;
        let several = Error::new(helps.kind(), "2 of them failed:").listing([helps.chain(), "b".to_owned()]);
        assert_eq!(for_error(&several.speaking_for(helps)), situation.hint(), "{situation:?}");
    }
}

fn reasons() -> Vec<Reason> {
    vec![
        Reason::UnknownContent(vec![digest()]),
        Reason::UnknownRepository,
        Reason::ForeignLayer,
        Reason::DamagedTarget,
        Reason::PlatformMissing,
        Reason::Passed,
        Reason::Quota { left: 1 },
        Reason::Full { left: 1 },
        Reason::ReadOnly,
        Reason::NoPushes,
        Reason::WebPage,
        Reason::UnknownUploadHost,
        Reason::ProxyCache,
        Reason::NoPushRight,
        Reason::UploadDenied,
        Reason::ImmutableTag,
        Reason::BlobInCollection,
        Reason::BodyLimit,
        Reason::DamagedFile,
        Reason::Undelivered,
        Reason::Compressed,
        Reason::PullPolicy,
        Reason::NoPullRight,
    ]
}

#[test]
fn a_reason_has_its_hint_and_its_name_alone_has_not() {
    for reason in reasons() {
        let error = Error::new(Kind::Refused, format!("uploading a: {reason:?}"));
        let hint = for_error(&error.clone().with_reason(reason.clone()));
        assert_eq!(hint, for_reason(&reason), "{reason:?}");
        assert_eq!(hint.is_none(), matches!(reason, Reason::UnknownContent(_)), "{reason:?}");
        assert_eq!(for_error(&error), None, "{reason:?}");
    }
}

/// A script that goes by the code must not treat two situations alike.
#[test]
fn every_hint_has_a_code_of_its_own() {
    let of_situations = all().into_iter().filter_map(Situation::hint);
    let of_reasons = reasons().iter().filter_map(for_reason).collect::<Vec<_>>();
    let others = [HintCode::KeepGoing, HintCode::SparseIndex, HintCode::RepairBundle, HintCode::RepairVolumes];
    let mut texts = BTreeMap::new();
    for hint in of_situations.chain(of_reasons).chain(others).map(with_text) {
        let printed = serde_json::to_value(hint).unwrap();
        let code = printed["hintCode"].as_str().unwrap().to_owned();
        assert!(code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{code}");
        assert_eq!(printed["hint"], hint.text);
        let known = texts.insert(hint.text, code.clone());
        assert!(known.is_none_or(|known| known == code), "two codes for one text: {code}");
    }
    let codes: BTreeSet<&String> = texts.values().collect();
    assert_eq!(codes.len(), texts.len(), "two texts for one code: {texts:?}");
}

/// A cache with a full disk fails for every object.
#[test]
fn an_object_that_is_not_delivered_for_want_of_room_gets_the_hint_to_make_room() {
    let full = answered(Kind::Network, 500, Some(Symptom::DiskFull), "500 Internal Server Error: no space left");
    let hint = for_error(&full.with_reason(Reason::Undelivered));
    assert_eq!(hint, Some(Registry::Full.hint()));
    let stopped = Stopped { place: "r".to_owned(), why: "fails (500)".to_owned(), is_full: true };
    assert_eq!(for_error(&Error::new(Kind::Network, "reading a").because(stopped)), Some(Registry::Full.hint()));
}

/// For other commands the hint would name an option that they do not have.
#[test]
fn only_commands_that_can_go_on_without_an_object_hint_at_that() {
    let hint = for_error(&Error::new(Kind::Refused, "x").with_reason(Reason::Undelivered)).unwrap();
    assert!(!text(hint).contains("--keep-going") && text(that_may_keep_going(hint)).contains("--keep-going"));
    let other = for_error(&Error::new(Kind::NotFound, "x")).unwrap();
    assert_eq!(that_may_keep_going(other), other);
}

/// "add the CA" does not help an operator who has already given the CA.
#[test]
fn only_a_certificate_that_is_not_trusted_asks_for_the_ca() {
    for fault in all().into_iter().filter(|one| matches!(one, Situation::Network(Network::Tls(_)))) {
        let hint = fault.hint().map(text).unwrap_or_default();
        let is_untrusted = fault == Situation::Network(Network::Tls(TlsProblem::Untrusted));
        assert_eq!(hint.contains("--ca-file"), is_untrusted, "{fault:?}: {hint}");
    }
}

#[test]
fn a_policy_is_quoted_in_its_own_words() {
    let error =
        Error::new(Kind::Refused, "reading a: 412 Precondition Failed: not scanned").with_reason(Reason::PullPolicy);
    let quoted = error.clone().with_fact(PullPolicyWords("not scanned".to_owned())).while_doing("image a");
    assert_eq!(quoted.policy().as_deref(), Some("not scanned"));
    assert_eq!(
        error.of_kind(Kind::Refused).policy().as_deref(),
        Some("reading a: 412 Precondition Failed: not scanned")
    );
    assert_eq!(Error::new(Kind::Refused, "a").with_fact(PullPolicyWords("b".to_owned())).policy(), None);
}
