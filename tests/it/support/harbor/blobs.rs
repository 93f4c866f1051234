//! Blobs and their uploads as distribution 2.8 does them, with Harbor's quota in front.

use axum::http::{Method, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use gapferry::oci::Digest;

use super::answer::{bytes, empty, header as with_header, refuse};
use super::{Answer, Call, Row, State, Upload};

pub fn read(state: &State, call: &Call, repository: &str, item: &str) -> Answer {
    let Ok(digest) = item.parse::<Digest>() else {
        return refuse(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
    };
    // Harbor answers HEAD from its database, and the registry answers GET.
    if let Some(row) = state.rows.get(&digest).filter(|_| call.method == Method::HEAD) {
        return match row {
            Row::Deleting => in_collection(),
            Row::Absent => refuse(404, "NOT_FOUND", &format!("blob {digest} not found")),
        };
    }
    let held = state.repositories.get(repository).is_some_and(|repository| repository.blobs.contains(&digest));
    let Some(content) = state.blobs.get(&digest).filter(|_| held).cloned() else {
        return refuse(404, "BLOB_UNKNOWN", "blob unknown to registry");
    };
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return refuse(405, "UNSUPPORTED", "The operation is unsupported.");
    }
    let whole = content.len();
    let range = call.header(header::RANGE).strip_prefix("bytes=").and_then(|range| range.split_once('-'));
    let range = range.and_then(|(first, last)| {
        let last = last.parse::<usize>().unwrap_or(whole.saturating_sub(1));
        Some((first.parse::<usize>().ok()?, last.min(whole.saturating_sub(1))))
    });
    let answer = match range {
        Some((first, last)) if first > last || first >= whole => {
            with_header(empty(416), "content-range", format!("bytes */{whole}"))
        }
        Some((first, last)) => {
            let part = bytes(206, "application/octet-stream", content.slice(first..=last));
            with_header(part, "content-range", format!("bytes {first}-{last}/{whole}"))
        }
        None => bytes(200, "application/octet-stream", content),
    };
    let answer = with_header(answer, "accept-ranges", "bytes");
    with_header(answer, "docker-content-digest", digest.to_string())
}

pub fn upload(state: &mut State, call: &Call, repository: &str, session: &str) -> Answer {
    if call.method == Method::POST && session.is_empty() {
        return begin(state, call, repository);
    }
    let unknown = || refuse(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry");
    let Some(upload) = state.uploads.get(session).filter(|upload| upload.repository == repository) else {
        return unknown();
    };
    let size = upload.data.len();
    if call.parameter("_state") != Some(offset_state(size).as_str()) {
        // The upload is gone: a client that lost count has to start again.
        state.uploads.remove(session);
        return refuse(404, "BLOB_UPLOAD_INVALID", "blob upload invalid");
    }
    match call.method {
        Method::GET => progress(state, repository, session, 204),
        Method::DELETE => {
            state.uploads.remove(session);
            empty(204)
        }
        Method::PATCH => append(state, call, repository, session),
        Method::PUT => close(state, call, repository, session),
        _ => unknown(),
    }
}

fn begin(state: &mut State, call: &Call, repository: &str) -> Answer {
    if let (Some(digest), Some(from)) = (call.parameter("mount"), call.parameter("from")) {
        let Ok(digest) = digest.parse::<Digest>() else {
            return refuse(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
        };
        if state.repositories.get(from).is_some_and(|from| from.blobs.contains(&digest)) {
            let size = state.blobs.get(&digest).map_or(0, |content| content.len() as u64);
            if let Err(refusal) = charge(state, repository, &digest, size) {
                return refusal;
            }
            let linked = link(state, repository, digest);
            // The registry has already made its link.
            let is_known = state.rows.get(&digest) != Some(&Row::Absent);
            return if is_known { linked } else { refuse(404, "NOT_FOUND", &format!("blob {digest} not found")) };
        }
    }
    state.counter += 1;
    let session = format!("00000000-0000-4000-8000-{:012}", state.counter);
    let fresh = Upload { repository: repository.to_owned(), data: vec![], patched: false };
    state.uploads.insert(session.clone(), fresh);
    progress(state, repository, &session, 202)
}

fn append(state: &mut State, call: &Call, repository: &str, session: &str) -> Answer {
    let Some(upload) = state.uploads.get_mut(session) else { return empty(404) };
    let range = call.header(header::CONTENT_RANGE);
    let start = range.split_once('-').and_then(|(start, _)| start.parse::<usize>().ok());
    if !range.is_empty() && start != Some(upload.data.len()) {
        return refuse(416, "RANGE_INVALID", "invalid content range");
    }
    upload.data.extend_from_slice(&call.body);
    upload.patched |= !call.body.is_empty();
    progress(state, repository, session, 202)
}

fn close(state: &mut State, call: &Call, repository: &str, session: &str) -> Answer {
    let Some(upload) = state.uploads.get(session) else { return empty(404) };
    if upload.patched && !call.body.is_empty() {
        // Harbor would count only the last part, and the project's quota would stay wrong.
        let text = format!("{repository}: data was sent by PATCH and again in the closing PUT");
        state.violations.push(text.clone());
        return refuse(400, "SIZE_INVALID", &text);
    }
    if !call.headers.contains_key(header::CONTENT_LENGTH) {
        state.violations.push(format!("{repository}: the closing PUT has no Content-Length"));
    }
    let data = bytes::Bytes::from([&upload.data[..], &call.body].concat());
    let Some(Ok(digest)) = call.parameter("digest").map(str::parse::<Digest>) else {
        state.uploads.remove(session);
        return refuse(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
    };
    // Harbor refuses this before its registry sees it: the session stays as it was.
    if state.rows.get(&digest) == Some(&Row::Deleting) {
        return in_collection();
    }
    if let Err(refusal) = charge(state, repository, &digest, data.len() as u64) {
        return refusal;
    }
    state.rows.remove(&digest);
    state.uploads.remove(session);
    if Digest::of(digest.algorithm(), &data) != digest {
        let project = project_of(repository).to_owned();
        state.projects.get_mut(&project).map(|project| project.blobs.remove(&digest));
        return refuse(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
    }
    state.blobs.insert(digest, data);
    link(state, repository, digest)
}

fn link(state: &mut State, repository: &str, digest: Digest) -> Answer {
    state.repositories.entry(repository.to_owned()).or_default().blobs.insert(digest);
    let answer = with_header(empty(201), "docker-content-digest", digest.to_string());
    with_header(answer, "location", format!("/v2/{repository}/blobs/{digest}"))
}

fn progress(state: &State, repository: &str, session: &str, status: u16) -> Answer {
    let size = state.uploads.get(session).map_or(0, |upload| upload.data.len());
    let host = if state.setup.absolute_locations { format!("http://{}", state.address) } else { String::new() };
    let location =
        format!("{host}/v2/{repository}/blobs/uploads/{session}?_state={}", offset_state(size).replace('=', "%3D"));
    let answer = with_header(empty(status), "location", location);
    let answer = with_header(answer, "range", format!("0-{}", size.saturating_sub(1)));
    with_header(answer, "docker-upload-uuid", session)
}

/// The state the client must return unread; distribution signs it. Its padding is percent-encoded in the Location.
fn offset_state(size: usize) -> String {
    URL_SAFE.encode(format!("{{\"Offset\":{size:03}}}"))
}

pub fn in_collection() -> Answer {
    refuse(404, "NOT_FOUND", "the asking blob is in GC, mark it as non existing, request id: 0")
}

pub fn project_of(repository: &str) -> &str {
    repository.split('/').next().unwrap_or(repository)
}

/// Counts `size` bytes of new content against the project's quota, each digest once.
pub fn charge(state: &mut State, repository: &str, digest: &Digest, size: u64) -> Result<(), Answer> {
    let Some(project) = state.projects.get_mut(project_of(repository)) else { return Ok(()) };
    if project.blobs.contains_key(digest) {
        return Ok(());
    }
    let used = project.used();
    if let Some(limit) = project.quota.filter(|limit| used + size > *limit) {
        let (size, used, limit) = (in_words(size), in_words(used), in_words(limit));
        let text = format!(
            "adding {size} of storage resource, which when updated to current usage of {used} will exceed the \
             configured upper limit of {limit}."
        );
        return Err(refuse(403, "DENIED", &text));
    }
    project.blobs.insert(*digest, size);
    Ok(())
}

/// A size in the style of Harbor's messages.
fn in_words(bytes: u64) -> String {
    let power = (1..5).take_while(|power| bytes >= 1 << (10 * power)).last();
    match power {
        Some(power) => {
            let unit = ["KiB", "MiB", "GiB", "TiB"][power - 1];
            format!("{:.1} {unit}", bytes as f64 / (1_u64 << (10 * power)) as f64)
        }
        None => format!("{bytes} B"),
    }
}
