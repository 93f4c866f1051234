//! Manifests: requested, verified, stored (distribution-spec, "Pulling manifests", "Pushing Manifests").
//!
//! **Threats.** A body may be anything: at most 4 MiB are read, and always hashed. The digest, type and length that the
//! registry states must agree with it.

use bytes::Bytes;
use reqwest::Method;

use super::answer::{excerpt_shown, excerpt_without, forbidden, is_html, is_page, refusal};
use super::auth::Scopes;
use super::denials::{self, Denials};
use super::facts::WebPage;
use super::failure::Failure;
use super::host::{Ask, Host, strange};
use super::questions::Question;
use super::reply::{Read, Reply};
use crate::base::error::{Error, Kind, Reason, Result};
use crate::content::{Lookup, Need, TagDeletion};
use crate::oci::{
    Descriptor, Digest, MAX_MANIFEST_SIZE, Manifest, ManifestError, Reference, Repository, Tag, media_type,
};

/// The header in which a registry states the digest of a manifest.
const CONTENT_DIGEST: &str = "docker-content-digest";
/// How often a manifest is sent again after the registry reported content missing that this run has just sent. Under
/// load that passes; if it does not, the content is sent again (`transfer`).
const MOST_DENIALS: u32 = 3;
/// How many bytes of an unexpected body are read.
const MOST_SHOWN: usize = 64 * 1024;

/// Looks up a tag or digest at a target. If the registry denies having what this run has just stored, it is asked
/// again.
///
/// Some registries answer 401 or 403 for what does not exist. A denied tag or digest counts as absent if the repository
/// accepts uploads, because then the push decides; `denials` may say otherwise. The same holds for a look-up that is
/// refused in another way, or that keeps failing while the registry answers other requests. The tag of a list of
/// signatures counts as blocked, unless the repository's list of tags shows that the tag does not exist; the same holds
/// if the answer for such a tag is not a manifest.
pub(super) async fn look_up(host: &Host, reference: &Reference, denials: Denials) -> Result<Lookup> {
    let what = format!("looking up {reference}");
    let (mut tries, mut is_again) = (host.tries(&what), false);
    // The list may contain signatures by others, so its content must be known before it is replaced. An image can do
    // without it.
    let is_list = reference.tag.as_ref().is_some_and(Tag::is_list);
    loop {
        let (scopes, need) = (Scopes::push(&reference.repository), Need::Required);
        let answer = match look(host, reference, scopes.clone(), Absence::AsLearned, need).await {
            // A list that this run has stored has to be read back.
            Err(error) if is_list && is_of_list_alone(&error) && !host.memory.written.has_manifest(reference) => {
                return Ok(unread_list(host, reference, &error).await);
            }
            Err(error) if error.is_of_object_alone() => Ok(Answer::Denied(error)),
            answer => answer,
        };
        match answer {
            Err(error) => return error.policy().map(Lookup::Blocked).ok_or(error),
            // Some caches in front of a registry answer HEAD with the previous content.
            Ok(Answer::Found(found)) if host.memory.written.is_other(reference, &found.digest) => {
                let read = by_get(host, reference, scopes, Absence::ByGet, need).await?;
                return Ok(Lookup::Found(if let Answer::Found(read) = read { read } else { found }));
            }
            Ok(Answer::Found(descriptor)) => {
                if is_again {
                    host.memory.note_late_answer();
                }
                return Ok(Lookup::Found(descriptor));
            }
            Ok(Answer::Absent) if !host.memory.written.has_manifest(reference) => return Ok(Lookup::Absent),
            Ok(Answer::Absent) if is_again && host.memory.swallows() => return Ok(Lookup::Absent),
            Ok(Answer::Absent) => {}
            Ok(Answer::Denied(error)) if host.memory.written.has_manifest(reference) => return Err(error),
            Ok(Answer::Denied(error)) => {
                denials::mean_absent(host, reference, &error, denials).await?;
                if error.kind() == Kind::Network {
                    host.memory.note_stumble();
                }
                return Ok(if is_list { unread_list(host, reference, &error).await } else { Lookup::Absent });
            }
        }
        let denied =
            Error::new(Kind::NotFound, format!("{what}: the registry accepted the manifest, but does not have it"));
        is_again = true;
        if tries.again(Failure::soon(denied)).await.is_err() {
            host.memory.note_swallowed();
            return Ok(Lookup::Absent);
        }
    }
}

/// Whether the look-up of a list of signatures failed because of the list itself: the registry fails on it, or answers
/// with something else, such as a web page.
fn is_of_list_alone(error: &Error) -> bool {
    let is_no_manifest = matches!(error.kind(), Kind::Damaged | Kind::Input) && error.reason().is_none();
    let is_compressed = error.reason() == Some(&Reason::Compressed);
    is_no_manifest || is_compressed || error.kind() == Kind::Network && error.is_of_object_alone()
}

/// The result for a list of signatures that cannot be read.
async fn unread_list(host: &Host, reference: &Reference, error: &Error) -> Lookup {
    if error.kind() == Kind::Network {
        host.memory.note_stumble();
    }
    match denials::is_unlisted(host, reference).await {
        true => Lookup::Absent,
        false => Lookup::Blocked(error.chain()),
    }
}

/// `None` if the registry has no such tag or digest.
pub(super) async fn resolve(
    host: &Host,
    reference: &Reference,
    scopes: Scopes,
    need: Need,
) -> Result<Option<Descriptor>> {
    match look(host, reference, scopes, Absence::ByGet, need).await? {
        Answer::Found(descriptor) => Ok(Some(descriptor)),
        Answer::Absent => Ok(None),
        Answer::Denied(error) => Err(error),
    }
}

/// A registry's answer about a tag or digest.
enum Answer {
    Found(Descriptor),
    Absent,
    /// 401 or 403, or no conclusive answer.
    Denied(Error),
}

/// Which request may establish that something is absent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Absence {
    /// Only GET: caching proxies answer HEAD with 404 for what GET would fetch.
    ByGet,
    /// HEAD as well, once it has found something at this registry, because nearly everything that is looked up at a
    /// target is absent. Never for what this run has stored there.
    AsLearned,
}

/// HEAD is a hint: if it is inconclusive, GET decides, so that the result does not depend on the method.
async fn look(host: &Host, reference: &Reference, scopes: Scopes, absence: Absence, need: Need) -> Result<Answer> {
    let hint = head(host, reference, scopes.clone(), need).await?;
    let was_brought = host.memory.written.has_manifest(reference);
    // A list that exists but is not seen would be replaced, and all its signatures lost.
    let is_list = reference.tag.as_ref().is_some_and(Tag::is_list);
    let may_skip = absence == Absence::AsLearned && !was_brought && !is_list;
    match hint {
        Hint::Found(descriptor) => Ok(Answer::Found(descriptor)),
        Hint::Absent if may_skip && host.memory.manifest_heads.are_believed() => Ok(Answer::Absent),
        Hint::Absent => {
            let answer = by_get(host, reference, scopes, absence, need).await?;
            // Content that this run has stored may have appeared between the two requests.
            if matches!(answer, Answer::Found(_)) && !was_brought {
                host.memory.manifest_heads.note_hidden();
            }
            Ok(answer)
        }
        Hint::Nothing => by_get(host, reference, scopes, absence, need).await,
    }
}

/// The answer to HEAD.
enum Hint {
    Found(Descriptor),
    Absent,
    /// The answer contains too little, or there was none.
    Nothing,
}

async fn head(host: &Host, reference: &Reference, scopes: Scopes, need: Need) -> Result<Hint> {
    let what = format!("looking up {reference}");
    let ask = asking(Method::HEAD, reference, scopes, &what)?.optional(Question::Companion.if_optional(need));
    let Some(reply) = host.hint(&ask).await? else { return Ok(Hint::Nothing) };
    match reply.status() {
        200 => {}
        404 | 410 if reply.own => return Ok(Hint::Absent),
        _ => return Ok(Hint::Nothing),
    }
    let digest = reply.header(CONTENT_DIGEST).and_then(|header| header.parse::<Digest>().ok());
    let served_as = reply.header("content-type").and_then(|t| t.split(';').next()).map(str::trim);
    // A cache may answer HEAD with the previous content.
    let is_other = reference.digest.is_some_and(|asked| digest.is_some_and(|sent| sent != asked));
    Ok(match (digest.or(reference.digest), served_as, reply.content_length()) {
        (Some(digest), Some(served_as), Some(size)) if media_type::is_manifest(served_as) && size > 0 && !is_other => {
            host.memory.note_answered(reference);
            // A cache finds what has just passed through it, so that proves nothing.
            if reply.own && !host.memory.written.has_manifest(reference) {
                host.memory.manifest_heads.note_found();
            }
            Hint::Found(Descriptor::new(served_as, digest, size))
        }
        _ => Hint::Nothing,
    })
}

async fn by_get(host: &Host, reference: &Reference, scopes: Scopes, absence: Absence, need: Need) -> Result<Answer> {
    let fetched = match absence == Absence::AsLearned && host.memory.stumbles() {
        true => fetch_once(host, reference, scopes).await?,
        false => fetch(host, reference, scopes, need).await?,
    };
    Ok(match fetched {
        Fetched::Manifest(manifest) => Answer::Found(manifest.descriptor()),
        Fetched::Absent => Answer::Absent,
        Fetched::Denied(error) => Answer::Denied(error),
    })
}

/// `None` if the registry has no such tag or digest.
pub(super) async fn get(host: &Host, reference: &Reference, scopes: Scopes, need: Need) -> Result<Option<Manifest>> {
    match fetch(host, reference, scopes, need).await? {
        Fetched::Manifest(manifest) => Ok(Some(*manifest)),
        Fetched::Absent => Ok(None),
        Fetched::Denied(error) => Err(error),
    }
}

pub(super) enum Fetched {
    Manifest(Box<Manifest>),
    Absent,
    /// 401 or 403.
    Denied(Error),
}

pub(super) async fn fetch(host: &Host, reference: &Reference, scopes: Scopes, need: Need) -> Result<Fetched> {
    let what = reading(reference);
    let ask = asking(Method::GET, reference, scopes, &what)?.optional(Question::Companion.if_optional(need));
    let mut wrong_answers = host.tries(&what).after_wrong_answer();
    loop {
        let read = host.read(&ask, MAX_MANIFEST_SIZE, Headers::of).await?;
        if need == Need::Optional {
            host.memory.answers.answered(Question::Companion);
        }
        match fetched(host, read, reference, &what).await {
            Ok(fetched) => return Ok(fetched),
            Err(failure) => wrong_answers.again(failure).await?,
        }
    }
}

/// A single try, at a registry where repeated look-ups of missing content have failed before.
async fn fetch_once(host: &Host, reference: &Reference, scopes: Scopes) -> Result<Fetched> {
    let what = reading(reference);
    let ask = asking(Method::GET, reference, scopes, &what)?;
    let Some(reply) = host.hint(&ask).await? else {
        return Ok(Fetched::Denied(strange(&what, "there was no answer")));
    };
    let read = reply.read(&what, Some(MAX_MANIFEST_SIZE), &Headers::of).await.map_err(|failure| failure.error);
    let fetched = match read {
        Ok(read) => fetched(host, read, reference, &what).await.map_err(|failure| failure.error),
        Err(error) => Err(error),
    };
    fetched.or_else(|error| match error.is_of_object_alone() {
        true => Ok(Fetched::Denied(error)),
        false => Err(error),
    })
}

/// What the headers of an answer state about a manifest.
struct Headers {
    served_as: Option<String>,
    digest: Option<Digest>,
    /// See [`Reply::secrets`].
    secrets: Vec<String>,
}

impl Headers {
    fn of(reply: &Reply) -> Headers {
        let served_as = reply.header("content-type").map(str::to_owned);
        let digest = reply.header(CONTENT_DIGEST).and_then(|header| header.parse().ok());
        Headers { served_as, digest, secrets: reply.secrets() }
    }
}

/// Interprets the answer to a GET of a manifest.
async fn fetched(host: &Host, read: Read<Headers>, reference: &Reference, what: &str) -> Result<Fetched, Failure> {
    let (headers, body) = match read {
        Read::Whole(headers, body) => (headers, body),
        Read::Unread(reply) => {
            let status = reply.status();
            if matches!(status, 404 | 410) {
                return Ok(Fetched::Absent);
            }
            let error = refusal(what, *reply).await.error;
            return match status {
                401 | 403 => Ok(Fetched::Denied(error)),
                // The request contained no condition, so a policy refused it.
                412 => Err(Failure::never(forbidden(error))),
                _ => Err(Failure::never(error)),
            };
        }
    };
    let manifest = received(&headers, body, reference, what)?;
    host.memory.note_answered(reference);
    Ok(Fetched::Manifest(Box::new(manifest)))
}

fn received(headers: &Headers, body: Bytes, reference: &Reference, what: &str) -> Result<Manifest, Failure> {
    // A requested digest proves the bytes, whatever the header states.
    if let Some(named) = headers.digest.filter(|_| reference.digest.is_none()) {
        let other = |found| format!("{what}: the registry states digest {named}, but the bytes have {found}");
        named.prove(&body).map_err(|found| Failure::soon(Error::damaged(other(found))))?;
    }
    let served_as = headers.served_as.as_deref();
    let parsed = Manifest::parse(body.clone(), served_as, reference.digest.as_ref());
    parsed.map_err(|error| {
        let may_pass = may_pass(&error, &body, headers, reference);
        let error = not_carried(what, &body, headers, error);
        if may_pass { Failure::soon(error) } else { Failure::never(error) }
    })
}

/// Whether another try may return the manifest, because these bytes are not, or may not be, those that were requested.
fn may_pass(error: &ManifestError, body: &Bytes, headers: &Headers, reference: &Reference) -> bool {
    let is_proven = |digest: Digest| digest.prove(body).is_ok();
    match error {
        ManifestError::Digest { .. } => true,
        ManifestError::Malformed { .. } => !reference.digest.or(headers.digest).is_some_and(is_proven),
        _ => false,
    }
}

fn not_carried(what: &str, body: &Bytes, headers: &Headers, error: ManifestError) -> Error {
    match error {
        ManifestError::Schema1 | ManifestError::MediaType(_) => Error::input(what).because(error),
        // A server other than the registry has answered.
        _ if is_page(headers.served_as.as_deref().is_some_and(is_html), body) => {
            strange(what, format!("the answer is not a manifest: {}", excerpt_without(body, &headers.secrets)))
                .with_fact(WebPage)
        }
        _ => Error::damaged(what).because(error),
    }
}

/// Deletes a tag, or a manifest by its digest (distribution-spec, "Deleting tags", "Deleting Manifests"). distribution
/// before 3.0 answers 400, because it deletes by digest only. If deletion is switched off, it answers 405, as
/// specified.
pub(super) async fn delete(host: &Host, reference: &Reference) -> Result<TagDeletion> {
    let what = format!("deleting {reference}");
    let ask = Ask::new(Method::DELETE, path(reference)?, Scopes::delete(&reference.repository), &what);
    let reply = host.ask(&ask).await?;
    match reply.status() {
        200 | 202 | 204 | 404 => Ok(TagDeletion::Deleted),
        400 => Ok(TagDeletion::Unsupported),
        405 | 501 => Ok(TagDeletion::SwitchedOff),
        _ => Err(refusal(&what, reply).await.error),
    }
}

/// Stores a manifest under its tag, or else its digest. The manifest counts as stored if the registry states its
/// digest, answers with the specified status (distribution-spec, "Pushing Manifests": 201 Created), or returns the
/// manifest when asked.
///
/// # Errors
/// A refusal, or [`Kind::Damaged`] if every try stored bytes other than those sent.
pub(super) async fn store(host: &Host, reference: &Reference, body: &Bytes, media_type: &str) -> Result<Reply> {
    let what = format!("storing manifest {reference}");
    let repository = &reference.repository;
    let name = match (&reference.tag, &reference.digest) {
        (Some(tag), _) => repository.with_tag(tag.clone()),
        (None, Some(digest)) => repository.with_digest(*digest),
        (None, None) => return Err(Error::input(format!("{what}: the reference has neither a tag nor a digest"))),
    };
    let mut ask =
        Ask::new(Method::PUT, path(&name)?, Scopes::push(repository), &what).header("content-type", media_type)?;
    ask.body = body.clone();
    let (mut tries, mut denials) = (host.tries(&what), 0);
    loop {
        let reply = host.ask(&ask).await?;
        if !matches!(reply.status(), 200..=202 | 204) {
            denials += 1;
            tries.again(denied(host, &ask, repository, reply, denials).await).await?;
            continue;
        }
        match stored(host, &name, body, reply, &what).await {
            Ok(reply) => {
                // Recorded under the digest that later requests use.
                let digest = reference.digest.unwrap_or_else(|| Digest::sha256(body));
                host.memory.written.note_manifest(reference, digest);
                return Ok(reply);
            }
            Err(failure) => tries.again(failure).await?,
        }
    }
}

/// Whether a successful answer to a PUT means that the registry has these bytes.
async fn stored(host: &Host, name: &Reference, body: &Bytes, reply: Reply, what: &str) -> Result<Reply, Failure> {
    let stored = reply.header(CONTENT_DIGEST).and_then(|header| header.parse::<Digest>().ok());
    match stored.map(|stored| stored.prove(body).map_err(|sent| (stored, sent))) {
        Some(Ok(())) => return Ok(reply),
        // A proxy may have changed the manifest in transit.
        Some(Err((stored, sent))) => {
            let text = format!("{what}: the registry stored another manifest, {stored} instead of {sent}");
            return Err(Failure::soon(Error::damaged(text)));
        }
        None if reply.status() == 201 => return Ok(reply),
        None => {}
    }
    // The answer is not the specified one: the registry deviates from the specification, or a proxy answered with a
    // page.
    let found = resolve(host, name, Scopes::push(&name.repository), Need::Required).await.map_err(Failure::never)?;
    if found.is_some_and(|found| found.digest.is_of(body)) {
        return Ok(reply);
    }
    let (status, secrets) = (reply.status(), reply.secrets());
    let shown = excerpt_shown(&reply.body_start(MOST_SHOWN).await, &secrets);
    let error = strange(what, format!("the answer is {status}, but the manifest is not stored: {}", shown.text));
    Err(Failure::soon(shown.known_to(error)))
}

/// The failure for a refused PUT. If the registry reports content missing that this run has stored, another try may
/// succeed. For mounted content one more try is enough, because the mount may have linked nothing.
async fn denied(host: &Host, ask: &Ask<'_>, repository: &Repository, reply: Reply, denials: u32) -> Failure {
    let failure = ask.refused(reply).await;
    let written = &host.memory.written;
    let is_mounted = |named: &[Digest]| named.iter().any(|digest| written.is_mounted(repository, digest));
    match failure.error.reason() {
        Some(Reason::UnknownContent(named)) if denials > 1 && is_mounted(named) => failure,
        Some(Reason::UnknownContent(named)) if denials <= MOST_DENIALS && written.is_denied(repository, named) => {
            Failure::soon(failure.error)
        }
        Some(Reason::BlobInCollection) => Failure::soon(failure.error),
        _ => failure,
    }
}

fn reading(reference: &Reference) -> String {
    format!("reading manifest {reference}")
}

/// A request for a manifest of any type.
fn asking<'a>(method: Method, reference: &Reference, scopes: Scopes, what: &'a str) -> Result<Ask<'a>> {
    Ask::new(method, path(reference)?, scopes, what).header("accept", media_type::ACCEPT_MANIFESTS)
}

/// `/v2/<name>/manifests/<digest, else tag>`
fn path(reference: &Reference) -> Result<String> {
    let Some(target) = reference.target() else {
        return Err(Error::input(format!("reading {reference}: the reference needs a tag or a digest")));
    };
    Ok(format!("/v2/{}/manifests/{target}", reference.repository.path()))
}
