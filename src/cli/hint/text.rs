//! The text of each hint.

use crate::app::{HintCode, SPARSE_REMEDY};

pub fn text(code: HintCode) -> &'static str {
    match code {
        HintCode::DiskFull => "free some space, or write to another disk; then run the same command again",
        HintCode::PermissionDenied => "check the permissions, or run as a user who has them",
        HintCode::ReadOnlyFileSystem => "remount the file system read-write, or write to another one",
        HintCode::NoStandardInput => {
            "only `verify` and `import` read a bundle from standard input (`-`), and only one: save it to a file"
        }
        HintCode::NoSuchPath => "the path does not exist: check its spelling, and whether its medium is mounted",
        HintCode::IsDirectory => "the path is a directory: name a file instead",
        HintCode::NotDirectory => "a part of the path is a file, not a directory: check the path",
        HintCode::FailingMedium => "the medium may be failing: read it on another machine, or use another medium",
        HintCode::FileTooLarge => {
            "the file system cannot store a file this large (FAT32: 4 GiB), or `ulimit -f` forbids it: write a directory or \
             volumes (--volume-size fat32), use another file system, or raise the limit"
        }
        HintCode::ServerStopped => {
            "check the host name, and whether the server runs; when it answers again, run the same command again to continue"
        }
        HintCode::ServerError => {
            "the registry, or a proxy in front of it, has an internal error: when it works again, run the same command again \
             to continue"
        }
        HintCode::WebPage => {
            "a proxy or a login page answers instead of the registry: check the name, port and proxy (HTTPS_PROXY, NO_PROXY), \
             and log in to the network first"
        }
        HintCode::TlsOutdated => {
            "this must be fixed at the registry, or at the proxy in front of it: use an X.509 version 3 certificate with the \
             host in its subjectAltName, and TLS 1.2 or 1.3 with ECDHE"
        }
        HintCode::CertificateExpired => {
            "have the registry's certificate renewed; if this machine's clock is wrong, set it"
        }
        HintCode::CertificateNotYetValid => {
            "set this machine's clock; if it is right, have the registry use a certificate that is already valid"
        }
        HintCode::CertificateOfOtherName => {
            "use a registry name that the certificate contains, or have this name added to the certificate's subjectAltName"
        }
        HintCode::CertificateUntrusted => {
            "add the registry's CA with --ca-file FILE, or as FILE.crt in /etc/containers/certs.d/HOST[:PORT]; on a trusted \
             network, --tls-verify=false works too"
        }
        HintCode::ClientCertificateDemanded => {
            "put the client certificate and its key as NAME.cert and NAME.key into /etc/containers/certs.d/HOST[:PORT], or \
             into a directory named with --cert-dir"
        }
        HintCode::NotReached => {
            "check the name, port and proxy (HTTPS_PROXY, NO_PROXY); for a registry without TLS, use --plain-http. Run again \
             to continue"
        }
        HintCode::ForeignLayerLost => {
            "the registry refers to the vendor's address for this layer, which is gone or cannot be reached from here: leave \
             out --foreign-layers, or allow access to the address"
        }
        HintCode::CompanionChanged => {
            "--companions today exports what is attached to the image now, under a new lock, and --companions none exports no \
             companions; an export onto the bundle that was made from this lock finds them there"
        }
        HintCode::LoginRefused => {
            "check the user name and password, and on Harbor whether the robot account has expired; nothing was stored"
        }
        HintCode::Unauthorized => {
            "`gapferry auth check HOST` shows which user is used; choose another with --creds USER, --authfile FILE or \
             `gapferry login HOST`. Harbor answers the same way for a missing project"
        }
        HintCode::BlobLost => {
            "the registry's storage lacks a blob that its own manifest lists: push the image there again"
        }
        HintCode::LockedGone => {
            "the registry has deleted it: create a new lock, or export onto the bundle that was made from this lock, which \
             has it"
        }
        HintCode::NotFound => {
            "check the spelling of registry, repository and tag, and whether your account may read it"
        }
        HintCode::RateLimited => {
            "run the same command again later to continue (`lock` continues only with -o); --max-wait 6h waits instead; \
             logging in raises most limits"
        }
        HintCode::RegistryFull => "the registry is full: free space on its disk, then run the same command again",
        // nginx refuses uploads over 1 MiB unless it is configured otherwise.
        HintCode::RequestTooLarge => {
            "the registry, or a proxy in front of it, limits the size of uploads (nginx: client_max_body_size 0; Kubernetes \
             ingress: the annotation proxy-body-size): have the limit raised, then run the same command again"
        }
        HintCode::Quota => "raise the project's quota or delete images; then run the same command again",
        HintCode::RegistryReadOnly => {
            "the registry is in read-only mode: ask its administrator, then run the same command again"
        }
        HintCode::MediaTypeRefused => {
            "this registry accepts only OCI media types, not Docker's; zot accepts both with `\"compat\": [\"docker2s2\"]` in \
             the section `http` of its configuration"
        }
        HintCode::Lacking => {
            "on the connected side, export again: without --since, or with an inventory of this target (`gapferry \
             inventory`). To fetch only the missing content, run `import --missing FILE` here, `export --repair FILE` on the \
             connected side, and `import --repair REPAIR` here"
        }
        HintCode::VolumesMissing => {
            "add the other volumes to the command, or import one at a time (`import --state FILE`). If a volume is lost, \
             `gapferry repair` reconstructs it from recovery volumes, and `export --only-volume` writes it again"
        }
        HintCode::NotNewer => {
            "this bundle is older than the last one: import the newest bundle; to go back on purpose, omit --newer-than"
        }
        HintCode::NotReceived => {
            "send the whole stream again with the same commands; what has arrived is not pushed again"
        }
        HintCode::NotAllowed => "add the images to the allowlist of --allow, or bring a bundle without them",
        HintCode::RepairFile => "this is a repair file: `gapferry repair BUNDLE REPAIR` applies it to the bundle",
        HintCode::ImageLayout => {
            "`gapferry serve LAYOUT` serves it as a registry, and `gapferry export` writes a bundle from that registry"
        }
        HintCode::RepairBundle => {
            "`gapferry repair BUNDLE COPY` repairs it in place from another copy in any form. Or fetch only what is bad: run \
             `gapferry verify BUNDLE --missing missing.json` here, `gapferry export --repair missing.json --locked LOCK -o \
             repair.tar` on the connected side, and `gapferry repair BUNDLE repair.tar` here"
        }
        HintCode::RepairVolumes => {
            "`gapferry repair NAME.*.tar` reconstructs bad and lost volumes if there are recovery volumes; otherwise add a \
             copy of the bundle, or a repair file from `verify --missing` and `export --repair`: `gapferry repair NAME.*.tar \
             COPY`"
        }
        HintCode::DamagedFile => {
            "`gapferry verify BUNDLE --full` lists all damage (for a registry's storage, `gapferry check`); copy the bundle \
             from its medium again, or repair it with `gapferry repair`"
        }
        HintCode::DamagedSource => "run the same command again; if the error persists, the source itself is damaged",
        HintCode::BundleUnsigned => {
            "sign the bundle where it was made (`export --sign-key`, `gapferry sign`), and transfer it again"
        }
        HintCode::ReceiptUnsigned => {
            "sign it where it was written (`import --receipt FILE --sign-key`, `inventory --sign-key`), and transfer the file \
             and its signature"
        }
        HintCode::KeyNotAccepted => {
            "ask the person who made the bundle for the fingerprint of the signing key, by phone or another separate channel. If it differs from \
             the fingerprint in this message, pass that key with --key. If it is the same, the bundle was changed: do not use it"
        }
        HintCode::Altered => "find out who changed the bundle before you use it; bring it again from where it was made",
        HintCode::PlatformMissing => {
            "drop this platform, or use --skip-missing-platform (export, lock): it exports the platforms that each image has, \
             and leaves out images that have none of them"
        }
        HintCode::UnknownRepository => {
            "this registry does not create repositories on push (for example AWS ECR): create the repository there, then run \
             the same command again"
        }
        HintCode::ForeignLayerRefused => {
            "allow the addresses of foreign layers in the registry's configuration (distribution: \
             validation.manifests.urls.allow, such as ['^https://mcr\\.microsoft\\.com/']), then run the same command again"
        }
        HintCode::DamagedTarget => {
            "the target's storage is damaged, or its cache still lists what a garbage collection deleted: restart the \
             registry. If that does not help, run `gapferry check` on its storage and remove the files that it names; then \
             run the same command again. A cache in front of the registry must not keep answers about manifests (nginx: no \
             proxy_cache_valid for 404)"
        }
        HintCode::Passed => "run the same command again with --reupload, which pushes every blob as it arrives",
        HintCode::ProjectQuota => {
            "raise the project's quota, or delete images and run Harbor's garbage collection; then run the same command again"
        }
        HintCode::TargetFull => {
            "the target is full: free space on its disk, or raise --quota of `gapferry serve`; then run the same command \
             again"
        }
        HintCode::NoPushes => {
            "the registry is in maintenance mode (distribution: storage.maintenance.readonly) or is a cache of another \
             registry (proxy.remoteurl): ask its administrator, then run the same command again"
        }
        HintCode::WebPageAtUpload => {
            "a login page, a captive portal or a proxy answers instead of the registry: open the address in a browser to see \
             which one, then run the same command again"
        }
        HintCode::UnknownUploadHost => {
            "the registry does not know the name under which clients reach it: check Harbor's external_url, distribution's \
             http.host, or the headers Host and X-Forwarded-* that the proxy sets; then run the same command again"
        }
        HintCode::ProxyCache => "choose another project with --to HOST/PROJECT or --map",
        HintCode::NoPushRight => {
            "give the account the role Developer or higher, or the robot account permission to push; then run the same \
             command again"
        }
        HintCode::UploadDenied => {
            "`gapferry auth check HOST/REPOSITORY` shows which user is used and whether it may push: have the permission \
             granted, or choose another user with --creds USER, --authfile FILE or `gapferry login HOST`; then run the same \
             command again"
        }
        HintCode::ImmutableTag => {
            "--on-existing skip leaves such tags alone; or choose another tag (as=, --map), or change the project's rule"
        }
        HintCode::BlobInCollection => {
            "Harbor's garbage collection is running: run the same command again when it has finished (after a crashed \
             collection, Harbor releases the blobs within 2 hours)"
        }
        HintCode::BodyLimit => {
            "a gateway in front of the registry limits the size of requests: raise its limit (nginx: client_max_body_size) \
             above the size of the largest layer; then run the same command again"
        }
        HintCode::Undelivered => "the registry works but cannot deliver this object: ask its administrator",
        HintCode::KeepGoing => {
            "the registry works but cannot deliver this object: ask its administrator; --keep-going exports everything else \
             meanwhile"
        }
        HintCode::Compressed => {
            "turn off compression in the proxy or gateway in front of the registry (nginx: gzip off), or bypass it; then run \
             the same command again"
        }
        HintCode::PullPolicy => {
            "a policy of the project forbids pulling: comply with it, or have a project administrator change it (in Harbor \
             under Configuration: content trust, vulnerability severity, CVE allowlist)"
        }
        HintCode::NoPullRight => {
            "give the account permission to pull there: without it gapferry cannot see which image a tag has, which \
             --on-existing skip and fail depend on"
        }
        HintCode::SparseIndex => SPARSE_REMEDY,
    }
}
