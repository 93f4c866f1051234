//! What a denial means at a target: 401 and 403 are also how some registries answer for what does not exist (Artifactory,
//! Quay, ECR with its policies).

use super::admission;
use super::host::Host;
use super::optional::{Need, Question};
use super::tags;
use crate::error::{Error, Kind};
use crate::oci::Reference;
use crate::progress::Event;

/// What it means if a target denies a look at a tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Denials {
    /// The tag counts as absent if its repository takes uploads, which is tried.
    #[default]
    AbsentIfWritable,
    /// It counts as absent, and no upload is tried: nothing is to be changed there.
    Absent,
    /// An error: whoever must not replace a tag has to know.
    Errors,
}

/// Whether `reference`, a look at which was denied, counts as absent, so that the push itself shows what is right. Said once for
/// each registry.
pub(super) async fn mean_absent(host: &Host, reference: &Reference, denied: &Error, denials: Denials) -> bool {
    let (is_absent, why) = match denials {
        Denials::Errors => return false,
        Denials::Absent => (true, "a dry run does not test whether uploads are accepted"),
        Denials::AbsentIfWritable => {
            let cell = host.memory.takes_uploads(&reference.repository);
            let takes_uploads = async { admission::may_push(host, &reference.repository).await.is_ok() };
            (*cell.get_or_init(|| takes_uploads).await, "the repository accepts uploads")
        }
    };
    if is_absent && host.memory.is_first_denial() {
        let text = format!(
            "{} denied a look-up, and what it denies is treated as missing ({why}): {}",
            host.registry,
            denied.chain()
        );
        host.wire.events.report(Event::Warning(text));
    }
    is_absent
}

/// Whether the repository's list of tags shows that a tag, a look at which was denied, is not there. A repository that does not
/// exist has none.
pub(super) async fn is_unlisted(host: &Host, reference: &Reference) -> bool {
    let Some(tag) = &reference.tag else { return false };
    match tags::list(host, &reference.repository, Need::Optional(Question::Tags)).await {
        Ok(list) => list.doubts.is_empty() && !list.tags.contains(tag),
        Err(error) => error.kind() == Kind::NotFound,
    }
}
