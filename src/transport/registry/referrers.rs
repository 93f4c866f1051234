//! The referrers of a manifest, from the referrers API or, if the registry lacks it, from the fallback tag (distribution-spec
//! 1.1, "Listing Referrers", "Referrers Tag Schema"). distribution 2.x and 3.1 have no such API.

use std::collections::HashSet;

use bytes::Bytes;
use reqwest::{Method, Url};
use serde_json::{Value, json};

use super::answer::{excerpt_shown, refusal};
use super::auth::Scopes;
use super::denials::{self, Denials};
use super::failure::Failure;
use super::host::{Ask, Host, RequestTarget, strange};
use super::manifests::{self, Fetched};
use super::memory::ReferrersApi;
use super::paging::{Onward, Pages};
use super::questions::{Question, given_up};
use super::reply::{Read, Reply};
use crate::base::error::{Error, Kind, Reach, Reason, Result};
use crate::base::progress::Event;
use crate::content::{Lookup, Need, ReferrerList, Stored};
use crate::oci::{
    Descriptor, Digest, MAX_MANIFEST_SIZE, Manifest, Reference, Repository, Tag, has_at_most_values, media_type,
};

/// Maximum number of companions of one image, more than any real image has. Limits what a registry can make us read.
const MAX_ATTACHED: usize = 10_000;
/// Maximum size of all pages about a subject in bytes, more than any real subject has. Stops a server that never ends.
const MOST_IN_ALL: u64 = 64 * 1024 * 1024;

/// Returns all manifests whose subject is `subject`. Only a registry that could be asked can say that there are none:
/// if its API is broken, the list under the fallback tag may be incomplete.
pub(super) async fn list(host: &Host, repository: &Repository, subject: &Digest) -> Result<ReferrerList> {
    match by_api(host, repository, subject).await {
        Ok(Some(found)) if found.doubt.is_none() => Ok(found),
        // Entries that the API lists badly may also be under the fallback tag.
        Ok(Some(mut list)) => {
            let others = from_fallback(host, repository, subject).await.unwrap_or_default();
            let is_new = |other: &Descriptor| list.found.iter().all(|found| found.digest != other.digest);
            let others: Vec<Descriptor> = others.into_iter().filter(is_new).collect();
            list.found.extend(others);
            Ok(list)
        }
        Ok(None) => from_fallback(host, repository, subject).await.map(ReferrerList::from),
        Err(error) if matches!(error.kind(), Kind::RateLimited | Kind::Interrupted) => Err(error),
        Err(error) if error.stopped().is_some() => Err(error),
        // A list under the fallback tag exists only if something was entered in it.
        Err(error) => match from_fallback(host, repository, subject).await {
            Ok(found) if !found.is_empty() => Ok(ReferrerList { found, doubt: Some(error) }),
            _ => Err(error),
        },
    }
}

/// `None` if the registry has no such API, as this question or an earlier one found out.
async fn by_api(host: &Host, repository: &Repository, subject: &Digest) -> Result<Option<ReferrerList>> {
    let answers = &host.memory.answers;
    let _first = match answers.is_new(Question::Referrers) {
        true => Some(host.memory.first_referrers.lock().await),
        false => None,
    };
    // All but the first of those that waited now know.
    let _first = _first.filter(|_| answers.is_new(Question::Referrers));
    answers.check(Question::Referrers)?;
    let known = host.memory.referrers_api(repository);
    {
        // The first question decides for all that wait here.
        let mut api = known.lock().await;
        match &*api {
            Some(ReferrersApi::Absent) => return Ok(None),
            Some(ReferrersApi::Unusable(error)) => return Err(error.clone()),
            Some(ReferrersApi::Present) => {}
            None => {
                let found = from_api(host, repository, subject).await;
                *api = learned(host, &found);
                return found.map_err(Broken::into_error);
            }
        }
    }
    let found = from_api(host, repository, subject).await;
    let learned = learned(host, &found);
    if !matches!(found, Ok(Some(_))) {
        *known.lock().await = learned;
    }
    found.map_err(Broken::into_error)
}

/// Why the API returned no list.
enum Broken {
    /// The question failed; that is already recorded.
    Asking(Error),
    /// The account may not use it here.
    Denied(Error),
    /// The answer is not a list; the next answer may be.
    NoList(Error),
    /// The answer is useless, and so is the next one.
    Useless(Error),
}

impl Broken {
    /// The repository answers no request without a token; another subject makes no difference.
    fn of_asking(error: Error) -> Broken {
        match error.kind() {
            Kind::Unauthorized => Broken::Denied(error),
            _ => Broken::Asking(error),
        }
    }

    /// Whether the registry cannot be asked anything else either.
    fn is_of_more(&self) -> bool {
        let Broken::Asking(error) = self else { return false };
        matches!(error.kind(), Kind::RateLimited | Kind::Interrupted) || error.stopped().is_some()
    }

    fn into_error(self) -> Error {
        match self {
            Broken::Asking(error) | Broken::Denied(error) | Broken::NoList(error) | Broken::Useless(error) => error,
        }
    }
}

/// Returns what an answer shows about the next one. A denial concerns the repository, and a useless answer only the
/// subject. [`questions`](super::questions) decides whether the registry has no such API at all.
fn learned(host: &Host, found: &Result<Option<ReferrerList>, Broken>) -> Option<ReferrersApi> {
    let answers = &host.memory.answers;
    match found {
        Err(Broken::Asking(_)) => None,
        Err(Broken::NoList(error) | Broken::Useless(error)) => {
            answers.useless(Question::Referrers, error);
            None
        }
        Err(Broken::Denied(error)) => Some(ReferrersApi::Unusable(given_up(error))),
        Ok(found) => {
            answers.answered(Question::Referrers);
            Some(if found.is_some() { ReferrersApi::Present } else { ReferrersApi::Absent })
        }
    }
}

/// `None` if the registry has no such API. If a part of the list could be read, that part is the answer, with a doubt.
async fn from_api(host: &Host, repository: &Repository, subject: &Digest) -> Result<Option<ReferrerList>, Broken> {
    let what = format!("listing what refers to {repository}@{subject}");
    let mut wrong_answers = host.tries(&what).after_wrong_answer();
    loop {
        let mut list = ReferrerList::default();
        return match read_pages(host, repository, subject, &what, &mut list).await {
            Ok(true) => Ok(Some(list)),
            Ok(false) => Ok(None),
            // The page of a gateway may disappear in a moment.
            Err(Broken::NoList(error)) if list.found.is_empty() => {
                wrong_answers.again(Failure::soon(error)).await.map_err(Broken::Useless)?;
                continue;
            }
            Err(broken) if list.found.is_empty() || broken.is_of_more() => Err(broken),
            Err(broken) => {
                list.doubt.get_or_insert(broken.into_error());
                Ok(Some(list))
            }
        };
    }
}

/// Reads all pages into `list`. `false` if the registry has no such API.
async fn read_pages(
    host: &Host,
    repository: &Repository,
    subject: &Digest,
    what: &str,
    list: &mut ReferrerList,
) -> Result<bool, Broken> {
    let useless = |reason: &dyn std::fmt::Display| Broken::Useless(strange(what, reason));
    let path = format!("/v2/{}/referrers/{subject}", repository.path());
    let mut url = host.url(&path).await.map_err(Broken::Asking)?;
    let mut seen = HashSet::new();
    let mut pages = Pages::new(url.clone(), MOST_IN_ALL);
    let mut others: Vec<Url> = Vec::new();
    let mut is_answered = false;
    loop {
        let is_first = pages.is_untouched();
        pages.visit(&url);
        let ask = Ask::new(Method::GET, String::new(), Scopes::pull(repository), what)
            .optional(Some(Question::Referrers))
            .header("accept", media_type::OCI_INDEX);
        let mut ask = ask.map_err(Broken::Asking)?;
        ask.target = RequestTarget::Url(url.clone());
        let read = host.read(&ask, MAX_MANIFEST_SIZE, |reply| (pages.after(&url, reply), reply.secrets())).await;
        let ((onward, secrets), body) = match read.map_err(Broken::of_asking)? {
            Read::Whole(head, body) => (head, body),
            Read::Unread(reply) => match reply.status() {
                400 | 404 | 405 | 501 if is_first && is_a_registrys(&reply) => return Ok(false),
                // A page may have a second address.
                _ if !others.is_empty() => {
                    url = others.remove(0);
                    continue;
                }
                _ if is_answered => return Ok(true),
                401 | 403 => return Err(Broken::Denied(refusal(what, *reply).await.error)),
                _ => return Err(Broken::Useless(refusal(what, *reply).await.error)),
            },
        };
        let before = list.found.len();
        if before > MAX_ATTACHED {
            return Err(useless(&format!("the list names more than {MAX_ATTACHED} manifests")));
        }
        if !is_nothing(&body) {
            match Manifest::parse(body.clone(), Some(media_type::OCI_INDEX), None) {
                Ok(index) => list.found.extend(children(&index, &mut seen)),
                Err(error) => {
                    list.found.extend(good_entries(&body).into_iter().filter(|good| seen.insert(good.digest)));
                    let is_part = list.found.len() > before;
                    let kind =
                        if is_part { "a part of the answer cannot be used" } else { "the answer is not an index" };
                    let shown = excerpt_shown(&body, &secrets);
                    let error = shown.known_to(strange(what, format!("{kind}: {}", shown.text))).because(error);
                    if !is_part {
                        return Err(Broken::NoList(error));
                    }
                    list.doubt.get_or_insert(error);
                }
            }
        }
        pages.note(&url, body.len(), list.found.len() > before).map_err(|reason| useless(&reason))?;
        match onward {
            // The first of two addresses may belong to another repository behind this gateway, which has nothing to
            // list.
            Onward::End if list.found.len() == before && !others.is_empty() => {
                is_answered = true;
                url = others.remove(0);
            }
            Onward::End => return Ok(true),
            Onward::At(mut addresses) => {
                is_answered = false;
                others = addresses.split_off(1);
                url = addresses.remove(0);
            }
            Onward::Lost(reason) => return Err(useless(&format!("the next page {reason}"))),
        }
    }
}

/// Maximum number of values in a list of [`MAX_ATTACHED`] entries with twenty values each: in memory they take far more
/// space than in the answer.
const MOST_VALUES: usize = 20 * MAX_ATTACHED;

/// Returns the valid descriptors of a list with other entries.
fn good_entries(body: &[u8]) -> Vec<Descriptor> {
    if !has_at_most_values(body, MOST_VALUES) {
        return Vec::new();
    }
    let Ok(mut index) = serde_json::from_slice::<Value>(body) else { return Vec::new() };
    let Some(Value::Array(entries)) = index.get_mut("manifests").map(Value::take) else { return Vec::new() };
    let alone = |entry: Value| {
        let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [entry]});
        let index = Manifest::parse(index.to_string().into(), Some(media_type::OCI_INDEX), None).ok()?;
        index.children().into_iter().map(|child| child.descriptor).next()
    };
    entries.into_iter().take(MAX_ATTACHED + 1).filter_map(alone).collect()
}

/// Whether the registry, or a registry that it redirects to, has answered; and not, for example, a login service.
fn is_a_registrys(reply: &Reply) -> bool {
    reply.own || reply.header("docker-distribution-api-version").is_some()
}

/// Harbor answers `{}` about a subject that it does not have (Harbor 2.15 `src/server/registry/referrers.go`), and a
/// nil list in Go is `null`. Any other object without a list is not an answer.
fn is_nothing(body: &[u8]) -> bool {
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(fields)) => fields.is_empty() || fields.get("manifests").is_some_and(Value::is_null),
        _ => false,
    }
}

async fn from_fallback(host: &Host, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>> {
    let tag = Tag::referrers(subject);
    let reference = repository.with_tag(tag.clone());
    // This run may have created the list after it read the tags.
    if host.memory.lacks_tag(repository, &tag) && !host.memory.written.has_manifest(&reference) {
        return Ok(Vec::new());
    }
    match manifests::get(host, &reference, Scopes::pull(repository), Need::Optional).await? {
        // GitLab's registry takes the tag for the digest that it is made from: this is the subject itself.
        Some(found) if found.digest() == *subject => {}
        Some(found) if found.media_type() == media_type::OCI_INDEX => {
            return Ok(children(&found, &mut HashSet::new()));
        }
        Some(_) => {
            let text =
                format!("{reference} should list what refers to {subject}, but is not an OCI index; it lists nothing");
            host.wire.events.report(Event::Warning(text));
        }
        None => {}
    }
    Ok(Vec::new())
}

/// Returns the manifests of an index, each once.
fn children(index: &Manifest, seen: &mut HashSet<Digest>) -> Vec<Descriptor> {
    let children = index.children().into_iter().map(|child| child.descriptor);
    children.filter(|descriptor| seen.insert(descriptor.digest)).collect()
}

/// Stores a manifest. If it has a subject and the registry does not do so itself, it is also entered in the fallback
/// list.
pub(super) async fn put(host: &Host, reference: &Reference, manifest: &Manifest) -> Result<Stored> {
    if let Some(digest) = reference.digest.filter(|digest| *digest != manifest.digest()) {
        let other = |found| Error::damaged(format!("storing manifest {reference}: its bytes have {found}"));
        digest.prove(&manifest.bytes()?).map_err(other)?;
    }
    let reply = manifests::store(host, reference, &manifest.bytes()?, manifest.media_type()).await?;
    let Some(subject) = manifest.subject() else { return Ok(Stored::Listed) };
    if reply.header("oci-subject").is_some() {
        *host.memory.referrers_api(&reference.repository).lock().await = Some(ReferrersApi::Present);
        return Ok(Stored::Listed);
    }
    drop(reply);
    enter(host, &reference.repository, &subject.digest, manifest).await
}

/// Enters `manifest` in the fallback list of `subject`: reads, changes and writes the list, one change at a time per
/// subject. A list that cannot be read or changed is left alone and not tried again: its content is unknown, and an
/// image does not need a list.
///
/// # Errors
/// Anything that concerns more than the list, and that the registry accepted the list and does not have it.
async fn enter(host: &Host, repository: &Repository, subject: &Digest, manifest: &Manifest) -> Result<Stored> {
    let lock = host.memory.fallback_list(repository, subject);
    let _held = lock.lock().await;
    let list = repository.with_tag(Tag::referrers(subject));
    if let Some(why) = host.memory.left_alone(&list) {
        return Ok(Stored::Unlisted { list, why });
    }
    match write_entry(host, &list, manifest).await {
        Err(why) if is_of_list_alone(&why) => {
            host.memory.leave_alone(&list, &why);
            Ok(Stored::Unlisted { list, why })
        }
        stored => stored,
    }
}

/// Whether a list could not be written because of its current content, or because the account may not read it.
fn is_of_list_alone(error: &Error) -> bool {
    let is_of_object = |reason: &Reason| reason.reach() == Reach::Object && *reason != Reason::DamagedTarget;
    let is_passing = matches!(error.kind(), Kind::RateLimited | Kind::Interrupted | Kind::Disk);
    !is_passing && error.stopped().is_none() && error.reason().is_none_or(is_of_object)
}

async fn write_entry(host: &Host, reference: &Reference, manifest: &Manifest) -> Result<Stored> {
    let repository = &reference.repository;
    let current = match manifests::fetch(host, reference, Scopes::push(repository), Need::Required).await? {
        Fetched::Manifest(list) => Some(*list),
        Fetched::Absent => None,
        // Some registries deny access to what does not exist. An existing list must not be replaced.
        Fetched::Denied(_) if denials::is_unlisted(host, reference).await => None,
        Fetched::Denied(error) => return Err(error.with_reason(Reason::NoPullRight)),
    };
    let mut index = match &current {
        Some(index) => editable(reference, index)?,
        None => json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": []}),
    };
    let Some(list) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
        return Err(taken(reference));
    };
    let digest = manifest.digest().to_string();
    if list.iter().any(|entry| entry.get("digest").and_then(Value::as_str) == Some(&digest)) {
        return Ok(Stored::Listed);
    }
    list.push(entry(manifest)?);
    let body = Bytes::from(index.to_string());
    if body.len() as u64 > MAX_MANIFEST_SIZE {
        let text = format!("entering {digest} in {reference}: the list would exceed {MAX_MANIFEST_SIZE} bytes");
        return Err(Error::new(Kind::Refused, text));
    }
    manifests::store(host, reference, &body, media_type::OCI_INDEX).await?;
    match manifests::look_up(host, reference, Denials::Errors).await {
        // This account may push and not read: the successful PUT is the proof.
        Err(error) if matches!(error.kind(), Kind::Unauthorized | Kind::Refused) => Ok(Stored::Listed),
        Err(error) => Err(error),
        Ok(Lookup::Absent) => {
            let text = format!(
                "entering {digest} in {reference}: the registry accepted the list and does not have it, or a cache in \
                 front of it returns an old answer"
            );
            Err(Error::damaged(text).with_reason(Reason::DamagedTarget))
        }
        Ok(Lookup::Found(_)) => Ok(Stored::Entered),
        Ok(Lookup::Blocked(_)) => Ok(Stored::Listed),
    }
}

/// Returns the list as it is, including entries from others.
fn editable(reference: &Reference, index: &Manifest) -> Result<Value> {
    if index.media_type() != media_type::OCI_INDEX {
        return Err(taken(reference));
    }
    let mut index: Value = serde_json::from_slice(&index.bytes()?).map_err(|e| taken(reference).because(e))?;
    // A nil list in Go.
    if let Some(list) = index.get_mut("manifests").filter(|list| list.is_null()) {
        *list = json!([]);
    }
    Ok(index)
}

fn taken(reference: &Reference) -> Error {
    Error::new(Kind::Refused, format!("{reference} should list referrers, but something else has that tag"))
}

/// Returns the descriptor that the specification requires in the list: with artifactType and the annotations of the
/// manifest.
fn entry(manifest: &Manifest) -> Result<Value> {
    let mut entry = json!({
        "mediaType": manifest.media_type(),
        "digest": manifest.digest().to_string(),
        "size": manifest.size(),
    });
    if let Some(artifact_type) = manifest.artifact_type() {
        entry["artifactType"] = artifact_type.into();
    }
    let annotations = manifest.annotations()?;
    if !annotations.is_empty() {
        entry["annotations"] = json!(annotations);
    }
    Ok(entry)
}
