//! What a denial means at a target: some registries also answer 401 and 403 for what does not exist (Artifactory, Quay, ECR
//! with its policies).

use super::auth_check;
use super::facts::{Symptom, UnexpectedStatus};
use super::host::Host;
use super::tags;
use crate::base::error::{Error, Kind, Reason, Result};
use crate::base::progress::Event;
use crate::content::Need;
use crate::oci::Reference;

/// What it means if a target denies a lookup of a tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Denials {
    /// The tag counts as absent if its repository accepts uploads, which is tried.
    #[default]
    AbsentIfWritable,
    /// It counts as absent, and no upload is tried, because nothing will be changed there.
    Absent,
    /// It is an error: a push that must not replace a tag needs to know its digest.
    Errors,
}

/// Treats `reference`, whose lookup was denied, as absent, so that the push itself decides. This is reported once for each
/// registry.
///
/// # Errors
/// It is not treated as absent: the denial, or the reason why uploads are refused.
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

/// Whether Harbor says that the account lacks permission to pull. It says the same about a missing project, which was looked
/// for before.
fn is_of_pulling(denied: &Error) -> bool {
    let says_so = |answer: &UnexpectedStatus| answer.symptom == Some(Symptom::NoPullRight);
    denied.kind() == Kind::Unauthorized && denied.find().is_some_and(says_so)
}

/// Whether the repository's list of tags shows that a tag, whose lookup was denied, does not exist. A missing repository has
/// no tags.
pub(super) async fn is_unlisted(host: &Host, reference: &Reference) -> bool {
    let Some(tag) = &reference.tag else { return false };
    match tags::list(host, &reference.repository, Need::Optional).await {
        Ok(list) => list.doubts.is_empty() && !list.tags.contains(tag),
        // A gateway may not route lists, and answer 404.
        Err(error) => error.kind() == Kind::NotFound && host.memory.answered_tags(&reference.repository).is_empty(),
    }
}
