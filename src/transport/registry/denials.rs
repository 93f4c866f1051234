//! What a denial means at a target: 401 and 403 are also how some registries answer for what does not exist (Artifactory,
//! Quay, ECR with its policies).

use super::admission;
use super::host::Host;
use super::tags;
use crate::error::{Error, Kind};
use crate::oci::Reference;
use crate::progress::Event;

/// Whether `reference`, a look at which was denied, counts as absent: its repository takes uploads, so that the push itself
/// shows what is right. Said once for each registry.
pub(super) async fn mean_absent(host: &Host, reference: &Reference, denied: &Error) -> bool {
    let cell = host.memory.takes_uploads(&reference.repository);
    let takes_uploads =
        *cell.get_or_init(|| async { admission::may_push(host, &reference.repository).await.is_ok() }).await;
    if takes_uploads && host.memory.is_first_denial() {
        let text = format!(
            "{}: what it denies counts as absent, because it takes uploads there: {}",
            host.registry,
            denied.chain()
        );
        host.wire.events.report(Event::Warning(text));
    }
    takes_uploads
}

/// Whether the repository's list of tags shows that a tag, a look at which was denied, is not there. A repository that does not
/// exist has none.
pub(super) async fn is_unlisted(host: &Host, reference: &Reference) -> bool {
    let Some(tag) = &reference.tag else { return false };
    match tags::list(host, &reference.repository).await {
        Ok(list) => list.doubts.is_empty() && !list.tags.contains(tag),
        Err(error) => error.kind() == Kind::NotFound,
    }
}
