//! What each hint says to a person.

use crate::app::{HintCode, SPARSE_REMEDY};

pub fn text(code: HintCode) -> &'static str {
    match code {
        HintCode::DiskFull => "make room, or write elsewhere; then run the same command again",
        HintCode::PermissionDenied => "check the permissions, or run as a user who may",
        HintCode::ReadOnlyFileSystem => "the file system is mounted read-only",
        HintCode::NoStandardInput => {
            "only `verify` and `import` read a bundle from standard input (`-`), and no other beside it: save it to a file"
        }
        HintCode::NoSuchPath => "check the path",
        HintCode::FailingMedium => "the medium may be failing: try to read it elsewhere, or use another one",
        HintCode::FileTooLarge => {
            "the file system cannot hold a file this large (FAT32: 4 GiB), or a limit forbids it (ulimit -f): write a directory, \
             format it anew, or lift the limit"
        }
        HintCode::ServerStopped => "when it answers again, run the same command again: what is done is kept",
        HintCode::ServerError => {
            "the registry, or what stands before it, answers, but with an error of its own: when it works again, run the same command \
             again, which continues"
        }
        HintCode::WebPage => {
            "a proxy or a login page answers instead of the registry: check name, port and proxy (HTTPS_PROXY, NO_PROXY), and log in \
             there first"
        }
        HintCode::TlsOutdated => {
            "this has to be set right at the registry, or at the proxy before it: a certificate of X.509 version 3 with the host in its \
             subjectAltName, and TLS 1.2 or 1.3 with ECDHE"
        }
        HintCode::CertificateExpired => {
            "have the registry's certificate renewed; or, if this machine's clock is wrong, set it right"
        }
        HintCode::CertificateNotYetValid => {
            "set this machine's clock right; if it is right, have the registry use a certificate that is valid now"
        }
        HintCode::CertificateOfOtherName => {
            "call the registry by a name that its certificate is for, or have it get one with this name in its subjectAltName"
        }
        HintCode::CertificateUntrusted => {
            "add the registry's CA with --ca-file FILE, or as FILE.crt in /etc/containers/certs.d/HOST[:PORT]; or (not over a \
             network you do not trust) --tls-verify=false"
        }
        HintCode::ClientCertificateDemanded => {
            "put the certificate and its key as NAME.cert and NAME.key in /etc/containers/certs.d/HOST[:PORT], or in a directory that \
             --cert-dir names"
        }
        HintCode::NotReached => {
            "check name, port and proxy (HTTPS_PROXY, NO_PROXY); for a registry without TLS: --plain-http. Run again to continue"
        }
        HintCode::ForeignLayerLost => {
            "the registry leaves this layer to an address of its maker's, which may be gone or out of reach from here: leave such \
             layers out (without --foreign-layers), or let the address be reached"
        }
        HintCode::CompanionChanged => {
            "--companions today goes on with what is attached to the image now, under a new lock, and --companions none without any; \
             an export onto the bundle that was made of this lock finds them there"
        }
        HintCode::LoginRefused => {
            "check user and password, and on Harbor whether the robot has expired; nothing was kept"
        }
        HintCode::Unauthorized => {
            "`gapferry auth check HOST` says which user is shown; give another by --creds USER, --authfile FILE or \
             `gapferry login HOST`; on Harbor a missing project answers the same way"
        }
        HintCode::BlobLost => {
            "the registry's storage lacks a blob that its own manifest names: the image has to be pushed there again"
        }
        HintCode::LockedGone => {
            "the registry has deleted it: lock again, or export onto the bundle that was made of this lock, which has it"
        }
        HintCode::NotFound => "check the spelling of registry, repository and tag, and whether you may read it",
        HintCode::RateLimited => {
            "run the same command again later: what is done is kept (of `lock`: with -o); --max-wait 6h waits instead; \
             logging in raises most limits"
        }
        HintCode::RegistryFull => "the registry is full: free space on its disk, then run the same command again",
        // nginx refuses uploads over 1 MiB unless it is configured otherwise.
        HintCode::RequestTooLarge => {
            "the registry, or a proxy before it, limits the size of uploads (nginx: client_max_body_size 0; in \
             Kubernetes the annotation proxy-body-size of the ingress): have that lifted, then run the same command again"
        }
        HintCode::Quota => "raise the project's quota, or clean it up; then run the same command again",
        HintCode::RegistryReadOnly => {
            "the registry is in read-only mode: ask its administrator, then run the same command again"
        }
        HintCode::MediaTypeRefused => {
            "this registry takes OCI media types only, not Docker's; zot takes both with `\"compat\": [\"docker2s2\"]` in the section \
             `http` of its configuration"
        }
        HintCode::Lacking => {
            "bring what is missing: on the connected side export again, with --since and the receipt of an import that arrived, or an \
             inventory of this target (`gapferry inventory`), or without --since; or fetch just this (import --missing, \
             export --repair)"
        }
        HintCode::VolumesMissing => {
            "bring the others too, or take them one by one (`import --state FILE`); lost ones are made again by `gapferry repair`, \
             of recovery volumes, or where the bundle came from"
        }
        HintCode::NotNewer => {
            "an old bundle was brought: bring the one that was made last; to go back on purpose, leave out --newer-than"
        }
        HintCode::NotReceived => {
            "send all of it again, by the same command on both sides: what has arrived is not pushed again"
        }
        HintCode::NotAllowed => "add them to the allowlist of --allow, or bring a bundle without them",
        HintCode::RepairFile => "`gapferry repair BUNDLE REPAIR` puts what it brings into the bundle",
        HintCode::ImageLayout => {
            "`gapferry serve LAYOUT` makes a registry of it, and `gapferry export` makes a bundle of the images in that registry"
        }
        HintCode::RepairBundle => {
            "`gapferry repair BUNDLE COPY` repairs it in its place with another copy, in any form; or fetch only what is bad: here \
             `gapferry verify BUNDLE --missing missing.json`, on the connected side `gapferry export --repair missing.json --locked LOCK \
             -o repair.tar`, here `gapferry repair BUNDLE repair.tar`"
        }
        HintCode::RepairVolumes => {
            "`gapferry repair NAME.*.tar` makes bad or lost volumes again of the others and of recovery volumes; without these, of a copy \
             of the bundle, or of what `verify --missing` and `export --repair` bring, named with them: `gapferry repair NAME.*.tar COPY`"
        }
        HintCode::DamagedFile => {
            "`gapferry verify BUNDLE --full` names all that is damaged; copy the bundle from its medium again, or repair it with \
             `gapferry repair` (from another copy, or from what `export --repair` brings); of a registry's storage, `gapferry check`"
        }
        HintCode::DamagedSource => "run the same command again; if it stays, the source itself is damaged",
        HintCode::BundleUnsigned => {
            "have it signed where it was made (`export --sign-key`, `gapferry sign`), and bring it again"
        }
        HintCode::ReceiptUnsigned => {
            "have it signed where it was written (`import --receipt FILE --sign-key`, `inventory --sign-key`), and bring both files"
        }
        HintCode::KeyNotAccepted => {
            "ask the maker of the bundle for the fingerprint of the key, by another way than the medium; if it is the fingerprint in this \
             message, the bundle was altered: do not use it"
        }
        HintCode::Altered => "do not use it before you know who changed it; bring it again from where it was made",
        HintCode::PlatformMissing => {
            "leave the platform out; or --skip-missing-platform (export, lock) takes what each image has of those asked for"
        }
        HintCode::UnknownRepository => {
            "this registry does not create a repository when it is pushed to (AWS ECR, for example): create it there first, then run \
             the same command again"
        }
        HintCode::ForeignLayerRefused => {
            "allow the addresses of foreign layers in the registry's configuration (distribution: validation.manifests.urls.allow, \
             such as ['^https://mcr\\.microsoft\\.com/']), then run the same command again"
        }
        HintCode::DamagedTarget => {
            "the target's storage is damaged, or it remembers what a garbage collection has deleted: restart the registry; if that does \
             not help, run `gapferry check` on its storage and remove the files that it names; then run the same command again. A cache \
             in front of the registry must not keep answers about manifests (nginx: no proxy_cache_valid for 404)"
        }
        HintCode::Passed => "run the same command again with --reupload, which sends every blob as it comes",
        HintCode::ProjectQuota => {
            "raise the project's quota, or delete what is not needed and run Harbor's garbage collection; then run the same \
             command again"
        }
        HintCode::TargetFull => {
            "the target is full: free space on its disk, or raise --quota of `gapferry serve`; then run the same command again"
        }
        HintCode::NoPushes => {
            "the registry is in maintenance (distribution: storage.maintenance.readonly) or a cache of another one (proxy.remoteurl): \
             ask its administrator, then run the same command again"
        }
        HintCode::WebPageAtUpload => {
            "a login page, a captive portal or a proxy answers in the registry's place: open the address in a browser to see which; then \
             run the same command again"
        }
        HintCode::UnknownUploadHost => {
            "the registry does not know by which name it is reached: check Harbor's external_url, distribution's http.host, or the \
             headers Host and X-Forwarded-* that the proxy before it sets; then run the same command again"
        }
        HintCode::ProxyCache => "choose another project, by --to HOST/PROJECT or --map",
        HintCode::NoPushRight => {
            "give the account the role Developer or higher, or a robot the permission to push; then run the same command again"
        }
        HintCode::UploadDenied => {
            "`gapferry auth check HOST/REPOSITORY` says which user is shown and whether it may push: have it granted, or give another \
             user by --creds USER, --authfile FILE or `gapferry login HOST`; then run the same command again"
        }
        HintCode::ImmutableTag => {
            "--on-existing skip leaves such tags as they are; or choose another tag (as=, --map), or change the project's rule"
        }
        HintCode::BlobInCollection => {
            "Harbor's garbage collection is at work: run the same command again when it is done (what a collection that crashed \
             has left is free again after 2 hours)"
        }
        HintCode::BodyLimit => {
            "a gateway before the registry limits the size of requests: raise its limit (nginx: client_max_body_size) to more than \
             the largest layer has; then run the same command again"
        }
        HintCode::Undelivered => "the registry works, but cannot deliver this object: ask its administrator",
        HintCode::KeepGoing => {
            "the registry works, but cannot deliver this object: ask its administrator; meanwhile --keep-going exports everything else"
        }
        HintCode::Compressed => {
            "switch compression off in the proxy or gateway before the registry (nginx: gzip off), or bypass it; then run the same \
             command again"
        }
        HintCode::PullPolicy => {
            "a policy of the project forbids pulling: meet what it asks for, or have an administrator of the project change it (on Harbor \
             under Configuration: content trust, vulnerability severity, CVE allowlist)"
        }
        HintCode::NoPullRight => {
            "give the account the right to pull there: without it gapferry cannot see what a tag means, and --on-existing skip and fail \
             depend on that"
        }
        HintCode::SparseIndex => SPARSE_REMEDY,
    }
}
