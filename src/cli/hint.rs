//! What to do about an error; added here, at the edge, so that the library's errors stay plain.

use rustix::io::Errno;

use crate::base::error::{Error, Kind, Reason};
use crate::transport::registry::says_full;

/// What helps where a policy of a project forbids pulling.
pub const PULL_POLICY: &str = "a policy of the project forbids pulling: meet what it asks for, or have an administrator of the project change it (on Harbor \
     under Configuration: content trust, vulnerability severity, CVE allowlist)";

const UNDELIVERED: &str = "the registry works, but cannot deliver this object: ask its administrator";

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

/// Advice for whoever sees this error, if there is any that is better than none.
pub fn for_error(error: &Error) -> Option<&'static str> {
    let chain = error.chain();
    let is_of_object = |reason: &&Reason| **reason == Reason::Undelivered;
    let reason = error.reason().filter(|reason| !is_of_object(reason) || !is_full(&chain));
    if let Some(hint) = reason.and_then(for_reason) {
        return Some(hint);
    }
    match error.kind() {
        Kind::Disk => for_disk(error),
        Kind::NotFound | Kind::Unauthorized | Kind::Refused | Kind::Network if is_foreign_layer(&chain) => Some(
            "the registry leaves this layer to an address of its maker's, which may be gone or out of reach from here: leave such \
             layers out (without --foreign-layers), or let the address be reached",
        ),
        Kind::NotFound | Kind::Unauthorized | Kind::Refused
            if chain.contains(" was replaced since: ") || chain.contains(" is gone since: ") =>
        {
            Some(
                "--companions today goes on with what is attached to the image now, under a new lock, and --companions none without any; \
             an export onto the bundle that was made of this lock finds them there",
            )
        }
        Kind::Unauthorized if chain.starts_with("logging in") => {
            Some("check user and password, and on Harbor whether the robot has expired; nothing was kept")
        }
        Kind::Unauthorized => Some(
            "`gapferry auth check HOST` says which user is shown; give another by --creds USER, --authfile FILE or \
             `gapferry login HOST`; on Harbor a missing project answers the same way",
        ),
        Kind::NotFound if chain.contains("reading blob ") && chain.contains(": 404 ") => Some(
            "the registry's storage lacks a blob that its own manifest names: the image has to be pushed there again",
        ),
        Kind::NotFound if chain.contains("no longer has") && chain.contains("which the lock names") => Some(
            "the registry has deleted it: lock again, or export onto the bundle that was made of this lock, which has it",
        ),
        Kind::NotFound => Some("check the spelling of registry, repository and tag, and whether you may read it"),
        Kind::RateLimited => Some(
            "run the same command again later: what is done is kept (of `lock`: with -o); --max-wait 6h waits instead; \
                 logging in raises most limits",
        ),
        Kind::Refused | Kind::Network if is_full(&chain) => {
            Some("the registry is full: free space on its disk, then run the same command again")
        }
        // Of several failures only the text is left.
        Kind::Network if error.stopped().is_some() || chain.contains("; nothing more is asked of it") => {
            Some("when it answers again, run the same command again: what is done is kept")
        }
        Kind::Network if is_server_error(&chain) => Some(
            "the registry, or what stands before it, answers, but with an error of its own: when it works again, run the same command \
             again, which continues",
        ),
        Kind::Network if chain.contains("(a web page)") => Some(OF_A_PAGE),
        Kind::Network => for_network(&chain),
        // nginx refuses uploads over 1 MiB unless told otherwise.
        Kind::Refused if chain.contains(": 413 ") => Some(
            "the registry, or a proxy before it, limits the size of uploads (nginx: client_max_body_size 0; in \
             Kubernetes the annotation proxy-body-size of the ingress): have that lifted, then run the same command again",
        ),
        Kind::Refused if chain.contains("quota") => {
            Some("raise the project's quota, or clean it up; then run the same command again")
        }
        Kind::Refused if chain.contains("read-only") || chain.contains("readonly") => {
            Some("the registry is in read-only mode: ask its administrator, then run the same command again")
        }
        Kind::Damaged if chain.contains("volume") && chain.contains("missing") => Some(
            "bring the others too, or take them one by one (`import --state FILE`); lost ones are made again by `gapferry repair`, \
             of recovery volumes, or where the bundle came from",
        ),
        Kind::Damaged if chain.contains("which is not later than") => Some(
            "an old bundle was brought: bring the one that was made last; to go back on purpose, leave out --newer-than",
        ),
        Kind::Damaged if chain.contains("it has not come: ") => {
            Some("send all of it again, by the same command on both sides: what has arrived is not pushed again")
        }
        Kind::Damaged if chain.contains(" is refused: ") => Some(for_unsigned(&chain)),
        Kind::Damaged if chain.contains(" does not allow ") && chain.contains("of the bundle; ") => {
            Some("add them to the allowlist of --allow, or bring a bundle without them")
        }
        Kind::Damaged if chain.contains("(a web page)") => Some(OF_A_PAGE),
        Kind::Damaged => Some("run the same command again; if it stays, the source itself is damaged"),
        Kind::Lacking => Some(
            "bring what is missing: on the connected side export again, with --since and the receipt of an import that arrived, or an \
             inventory of this target (`gapferry inventory`), or without --since; or fetch just this (import --missing, \
             export --repair)",
        ),
        Kind::Refused if chain.contains(": 415 ") => Some(
            "this registry takes OCI media types only, not Docker's; zot takes both with `\"compat\": [\"docker2s2\"]` in the section \
             `http` of its configuration",
        ),
        Kind::Input if chain.contains("is an OCI image layout, but not a bundle") => Some(
            "`gapferry serve LAYOUT` makes a registry of it, and `gapferry export` makes a bundle of the images in that registry",
        ),
        Kind::Refused | Kind::Input | Kind::Interrupted => None,
    }
}

/// `None`: the reason alone gives no remedy.
fn for_reason(reason: &Reason) -> Option<&'static str> {
    match reason {
        Reason::PlatformMissing => Some(
            "leave the platform out; or --skip-missing-platform (export, lock) takes what each image has of those asked for",
        ),
        Reason::UnknownContent(_) => None,
        Reason::UnknownRepository => Some(
            "this registry does not create a repository when it is pushed to (AWS ECR, for example): create it there first, then run \
             the same command again",
        ),
        Reason::ForeignLayer => Some(
            "allow the addresses of foreign layers in the registry's configuration (distribution: validation.manifests.urls.allow, \
             such as ['^https://mcr\\.microsoft\\.com/']), then run the same command again",
        ),
        Reason::DamagedTarget => Some(
            "the target's storage is damaged, or it remembers what a garbage collection has deleted: restart the registry; if that does \
             not help, run `gapferry check` on its storage and remove the files that it names; then run the same command again. A cache \
             in front of the registry must not keep answers about manifests (nginx: no proxy_cache_valid for 404)",
        ),
        Reason::Passed => Some("run the same command again with --reupload, which sends every blob as it comes"),
        Reason::Quota { .. } => Some(
            "raise the project's quota, or delete what is not needed and run Harbor's garbage collection; then run the same \
             command again",
        ),
        Reason::ReadOnly => {
            Some("the registry is in read-only mode: ask its administrator, then run the same command again")
        }
        Reason::NoPushes => Some(
            "the registry is in maintenance (distribution: storage.maintenance.readonly) or a cache of another one (proxy.remoteurl): \
             ask its administrator, then run the same command again",
        ),
        Reason::WebPage => Some(
            "a login page, a captive portal or a proxy answers in the registry's place: open the address in a browser to see which; then \
             run the same command again",
        ),
        Reason::UnknownUploadHost => Some(
            "the registry does not know by which name it is reached: check Harbor's external_url, distribution's http.host, or the \
             headers Host and X-Forwarded-* that the proxy before it sets; then run the same command again",
        ),
        Reason::ProxyCache => Some("choose another project, by --to HOST/PROJECT or --map"),
        Reason::NoPushRight => Some(
            "give the account the role Developer or higher, or a robot the permission to push; then run the same command again",
        ),
        Reason::UploadDenied => Some(
            "`gapferry auth check HOST/REPOSITORY` says which user is shown and whether it may push: have it granted, or give another \
             user by --creds USER, --authfile FILE or `gapferry login HOST`; then run the same command again",
        ),
        Reason::Full { .. } => Some(
            "the target is full: free space on its disk, or raise --quota of `gapferry serve`; then run the same command again",
        ),
        Reason::ImmutableTag => Some(
            "--on-existing skip leaves such tags as they are; or choose another tag (as=, --map), or change the project's rule",
        ),
        Reason::BlobInCollection => Some(
            "Harbor's garbage collection is at work: run the same command again when it is done (what a collection that crashed \
             has left is free again after 2 hours)",
        ),
        Reason::BodyLimit => Some(
            "a gateway before the registry limits the size of requests: raise its limit (nginx: client_max_body_size) to more than \
             the largest layer has; then run the same command again",
        ),
        Reason::DamagedFile => Some(
            "`gapferry verify BUNDLE --full` names all that is damaged; copy the bundle from its medium again, or mend it with \
             `gapferry repair` (from another copy, or from what `export --repair` brings); of a registry's storage, `gapferry check`",
        ),
        Reason::Undelivered => Some(UNDELIVERED),
        Reason::Compressed => Some(
            "switch compression off in the proxy or gateway before the registry (nginx: gzip off), or bypass it; then run the same \
             command again",
        ),
        Reason::PullPolicy => Some(PULL_POLICY),
        Reason::NoPullRight => Some(
            "give the account the right to pull there: without it nobody can see what a tag means, and --on-existing skip and fail \
             depend on that",
        ),
    }
}

fn for_disk(error: &Error) -> Option<&'static str> {
    // Of several failures only the text is left; the first speaks for all.
    let code = error.os_error().or_else(|| named_in(&error.chain()));
    match code.map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC | Errno::DQUOT) => Some("make room, or write elsewhere; then run the same command again"),
        Some(Errno::ACCESS | Errno::PERM) => Some("check the permissions, or run as a user who may"),
        Some(Errno::ROFS) => Some("the file system is mounted read-only"),
        Some(Errno::NOENT) if error.chain().starts_with("opening -: ") => Some(
            "only `verify` and `import` read a bundle from standard input (`-`), and no other beside it: save it to a file",
        ),
        Some(Errno::NOENT) => Some("check the path"),
        Some(Errno::IO) => Some("the medium may be failing: try to read it elsewhere, or use another one"),
        Some(Errno::FBIG) => Some(
            "the file system cannot hold a file this large (FAT32: 4 GiB), or a limit forbids it (ulimit -f): write a directory, \
             format it anew, or lift the limit",
        ),
        _ => None,
    }
}

/// The number in `… (os error 28)`, as the standard library writes it.
fn named_in(chain: &str) -> Option<i32> {
    let (_, after) = chain.split_once("(os error ")?;
    after.split_once(')')?.0.parse().ok()
}

/// A bundle that is not, or not provably, by whom it should be.
fn for_unsigned(chain: &str) -> &'static str {
    if chain.contains("(there is no ") {
        "have it signed where it was written (`import --receipt FILE --sign-key`, `inventory --sign-key`), and bring both files"
    } else if chain.contains("is not signed") {
        "have it signed where it was made (`export --sign-key`, `gapferry sign`), and bring it again"
    } else if chain.contains("does not fit") {
        "ask whoever made it for the fingerprint of their key, not by way of the medium; if it is this one, somebody altered the \
         bundle: do not use it"
    } else {
        "do not use it before you know who changed it; bring it again from where it was made"
    }
}

/// Of several failures only the text is left; and a cache whose disk is full fails to give.
fn is_full(chain: &str) -> bool {
    chain.contains(": 507 ") || says_full(chain)
}

/// The host answered: its name and port are right.
fn is_server_error(chain: &str) -> bool {
    [": 500 ", ": 502 ", ": 503 ", ": 504 "].iter().any(|status| chain.contains(status))
}

/// As the registry client says it of the URLs of a layer; a certificate it does not trust has a remedy of its own.
fn is_foreign_layer(chain: &str) -> bool {
    chain.contains("reading blob ") && chain.contains("its manifest names") && !is_of_certificate(chain)
}

fn is_of_certificate(chain: &str) -> bool {
    ["certificate", "UnknownIssuer", "CaUsedAsEndEntity"].iter().any(|word| chain.contains(word))
}

fn for_network(chain: &str) -> Option<&'static str> {
    if ["subjectAltName, and", "old version of X.509", "the TLS handshake failed"]
        .iter()
        .any(|words| chain.contains(words))
    {
        return Some(
            "this has to be set right at the registry, or at the proxy before it: a certificate of X.509 version 3 with the host in its \
             subjectAltName, and TLS 1.2 or 1.3 with ECDHE",
        );
    }
    for (words, hint) in [
        (
            "certificate: it has expired",
            "have the registry's certificate renewed; or, if this machine's clock is wrong, set it right",
        ),
        (
            "certificate: it is not valid yet",
            "set this machine's clock right; if it is right, have the registry use a certificate that is valid now",
        ),
        (
            "certificate: it is not valid for name ",
            "call the registry by a name that its certificate is for, or have it get one with this name in its subjectAltName",
        ),
        (
            "demands a client certificate",
            "put the certificate and its key as NAME.cert and NAME.key in /etc/containers/certs.d/HOST[:PORT], or in a directory that \
             --cert-dir names",
        ),
    ] {
        if chain.contains(words) {
            return Some(hint);
        }
    }
    if is_of_certificate(chain) {
        return Some(
            "add the registry's CA with --ca-file FILE, or as FILE.crt in /etc/containers/certs.d/HOST[:PORT]; or (not over a \
             network you do not trust) --tls-verify=false",
        );
    }
    Some(
        "check name, port and proxy (HTTPS_PROXY, NO_PROXY); for a registry without TLS: --plain-http. Run again to continue",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The command has no such option, so a hint at it leads nowhere.
    #[test]
    fn only_commands_that_can_go_on_without_an_object_hint_at_that() {
        let hint = for_error(&Error::new(Kind::Refused, "x").with_reason(Reason::Undelivered)).unwrap();
        assert!(!hint.contains("--keep-going") && that_may_keep_going(hint).contains("--keep-going"));
        let other = for_error(&Error::new(Kind::NotFound, "x")).unwrap();
        assert_eq!(that_may_keep_going(other), other);
    }

    #[test]
    fn a_refused_upload_says_whose_limit_it_hit() {
        let text = "uploading blob sha256:aa to r/a:";
        for (kind, said, helps) in [
            (
                Kind::Refused,
                "413 Payload Too Large: (a web page) 413 Request Entity Too Large nginx",
                "client_max_body_size",
            ),
            (Kind::Refused, "507 Insufficient Storage", "free space"),
            (
                Kind::Network,
                r#"500 Internal Server Error: UNKNOWN: unknown error: {"DriverName":"filesystem","Enclosed":{"Op":"mkdir","Err":28}}"#,
                "free space",
            ),
            (Kind::Refused, "403 Forbidden: DENIED: storage quota exceeded", "quota"),
            (Kind::Network, "502 Bad Gateway", "when it works again"),
            (Kind::Network, "the answer holds no token: (a web page) Sign in", "a login page"),
        ] {
            let hint = for_error(&Error::new(kind, format!("{text} {said}"))).unwrap_or_default();
            assert!(hint.contains(helps), "{said}: {hint}");
        }
        let other = Error::new(Kind::Refused, format!("{text} 403 Forbidden: DENIED: no"));
        assert_eq!(for_error(&other), None);
    }

    /// An operator who has given the CA already learns nothing from "add the CA".
    #[test]
    fn each_fault_of_a_certificate_has_a_hint_of_its_own() {
        for (said, helps) in [
            ("invalid peer certificate: it has expired: it was valid until 2025-01-01T00:00:00Z", "renewed"),
            ("invalid peer certificate: it is not valid yet: it is valid from 2027-01-01T00:00:00Z on", "clock"),
            ("invalid peer certificate: it is not valid for name a.example, only for b.example", "by a name"),
            ("the server demands a client certificate, and none was shown", "--cert-dir"),
            ("invalid peer certificate: UnknownIssuer", "--ca-file"),
        ] {
            let hint = for_error(&Error::new(Kind::Network, format!("asking r.example: {said}"))).unwrap_or_default();
            assert!(hint.contains(helps) && hint.contains("--ca-file") == (helps == "--ca-file"), "{said}: {hint}");
        }
    }
}
