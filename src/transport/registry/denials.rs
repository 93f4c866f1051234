//! What a denial means at a target: 401 and 403 are also how some registries answer for what does not exist (Artifactory,
//! Quay, ECR with its policies).

use super::auth_check;
use super::facts::{Symptom, UnexpectedStatus};
use super::host::Host;
use super::tags;
use crate::base::error::{Error, Kind, Reason, Result};
use crate::base::progress::Event;
use crate::content::Need;
use crate::oci::Reference;

/// What it means if a target denies a look at a tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Denials {
    /// The tag counts as absent if its repository takes uploads, which is tried.
    #[default]
    AbsentIfWritable,
    /// It counts as absent, and no upload is tried: nothing is to be changed there.
    Absent,
    /// It is an error: a push that must not replace a tag needs to know its digest.
    Errors,
}

/// `reference`, a look at which was denied, counts as absent, so that the push itself shows what is right. Said once for each
/// registry.
///
/// # Errors
/// It does not: the denial, or what is said to uploads where that names a reason.
pub(super) async fn mean_absent(host: &Host, reference: &Reference, denied: &Error, denials: Denials) -> Result<()> {
    let why = match denials {
        Denials::Errors if is_of_pulling(denied) => return Err(denied.clone().with_reason(Reason::NoPullRight)),
        Denials::Errors => return Err(denied.clone()),
        Denials::Absent => "a dry run does not test whether uploads are accepted",
        Denials::AbsentIfWritable => {
            let cell = host.memory.takes_uploads(&reference.repository);
            match cell.get_or_init(|| auth_check::may_push(host, &reference.repository)).await {
                Ok(()) => "the repository accepts uploads",
                Err(refused) if refused.reason().is_some() => return Err(refused.clone()),
                Err(_) => return Err(denied.clone()),
            }
        }
    };
    if host.memory.is_first_denial() {
        let text = format!(
            "{} does not say whether some names exist; they are treated as missing ({why}): {}",
            host.registry,
            denied.chain()
        );
        host.wire.events.report(Event::Warning(text));
    }
    Ok(())
}

/// Whether Harbor says that the account lacks the right to pull. It says the same of a project that does not exist, which was
/// looked for before.
fn is_of_pulling(denied: &Error) -> bool {
    let says_so = |answer: &UnexpectedStatus| answer.symptom == Some(Symptom::NoPullRight);
    denied.kind() == Kind::Unauthorized && denied.find().is_some_and(says_so)
}

/// Whether the repository's list of tags shows that a tag, a look at which was denied, is not there. A repository that does not
/// exist has none.
pub(super) async fn is_unlisted(host: &Host, reference: &Reference) -> bool {
    let Some(tag) = &reference.tag else { return false };
    match tags::list(host, &reference.repository, Need::Optional).await {
        Ok(list) => list.doubts.is_empty() && !list.tags.contains(tag),
        // A gateway may route no lists, and answer 404 for that.
        Err(error) => error.kind() == Kind::NotFound && host.memory.answered_tags(&reference.repository).is_empty(),
    }
}
