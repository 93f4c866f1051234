//! What to do about a reason that the other side gives.

use crate::base::error::Reason;

/// What helps where a policy of a project forbids pulling.
pub const PULL_POLICY: &str = "a policy of the project forbids pulling: meet what it asks for, or have an administrator of the project change it (on Harbor \
     under Configuration: content trust, vulnerability severity, CVE allowlist)";

pub const DAMAGED_FILE: &str = "`gapferry verify BUNDLE --full` names all that is damaged; copy the bundle from its medium again, or repair it with \
     `gapferry repair` (from another copy, or from what `export --repair` brings); of a registry's storage, `gapferry check`";

pub const UNDELIVERED: &str = "the registry works, but cannot deliver this object: ask its administrator";

/// `None`: the reason alone gives no remedy.
pub fn for_reason(reason: &Reason) -> Option<&'static str> {
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
        Reason::DamagedFile => Some(DAMAGED_FILE),
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
