//! Requests that an image can do without: which signatures, attestations and other artifacts are attached to it.
//!
//! A registry may refuse one kind of request for hours, or never answer it, and serve everything else. That must not end the
//! run, close the gate for other requests or use up the retry budget. A failure of such a request is therefore followed by a
//! control request for a manifest that the registry has returned before. If that succeeds, the failure concerns only this kind
//! of request. Otherwise the registry itself is limited or down, and the control request waits like any other.
//!
//! [`questions`](crate::transport::registry::questions) decides what is not requested again.

use std::time::{Duration, Instant};

use backon::BackoffBuilder;
use reqwest::Method;

use super::{Ask, Host};
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Event;
use crate::oci::media_type;
use crate::transport::registry::answer::refusal_with_codes;
use crate::transport::registry::auth::Scopes;
use crate::transport::registry::failure::{Failure, Retry, is_transient};
use crate::transport::registry::memory::Memory;
use crate::transport::registry::questions::Question;
use crate::transport::registry::reply::{Read, Reply};

/// Maximum Retry-After to wait for if other requests are answered.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// As [`Host::ask`] and [`Host::read`], for a response that is not required. The caller records whether it was understood.
///
/// # Errors
/// The request itself failed; or the registry as a whole is limited or down, as in [`Host::ask`].
pub(super) async fn ask<T>(
    host: &Host,
    ask: &Ask<'_>,
    question: Question,
    limit: Option<u64>,
    head: &(impl Fn(&Reply) -> T + Sync),
) -> Result<Read<T>> {
    let mut backoff = host.wire.limits.backoff().build();
    let mut tries = 0;
    loop {
        host.memory.answers.check(question)?;
        tries += 1;
        let began = Instant::now();
        let read = match once(host, ask).await? {
            Ok(reply) => {
                let server = reply.server.clone();
                host.wire.unless_given_up(server.as_ref(), ask.what, reply.read(ask.what, limit, head)).await
            }
            Err(failure) => Err(failure),
        };
        let failure = match read {
            Ok(read) => return Ok(read),
            Err(failure) => failure,
        };
        // A retry would end the same way, or nothing more may be requested from this registry.
        if failure.retry == Retry::Never {
            if failure.error.stopped().is_none() && failure.error.kind() != Kind::RateLimited {
                host.memory.answers.useless(question, &failure.error);
            }
            return Err(failure.error);
        }
        let is_silent = began.elapsed() >= host.wire.limits.stall;
        let next = backoff.next();
        if !answers_others(host).await? && next.is_some() {
            continue;
        }
        let delay = match failure.retry {
            _ if is_silent => None,
            Retry::After(wanted) if wanted > LONGEST_WAIT => None,
            Retry::After(wanted) => next.map(|next| next.max(wanted)),
            Retry::Now => next.map(|_| Duration::ZERO),
            _ => next,
        };
        let Some(delay) = delay else {
            let error = alone(failure, tries);
            host.memory.answers.failed(question, &error);
            return Err(error);
        };
        if host.wire.outage.is_news(delay) {
            let (what, why) = (ask.what.to_owned(), failure.error.chain());
            let why = why.strip_prefix(&format!("{what}: ")).unwrap_or(&why).to_owned();
            host.wire.events.report(Event::Waiting { what, why, delay });
        }
        tokio::time::sleep(delay).await;
    }
}

/// One attempt, at the pace of the registry.
async fn once(host: &Host, ask: &Ask<'_>) -> Result<Result<Reply, Failure>> {
    let _turn = if ask.is_pull() { Some(host.gate.pull(ask.what).await?) } else { None };
    let permit = host.reads.enter().await;
    Ok(match host.once(ask).await {
        Ok(reply) if is_transient(reply.status()) => Err(transient(ask.what, reply).await),
        Ok(mut reply) => {
            reply.permit = Some(permit);
            Ok(reply)
        }
        Err(failure) => Err(failure),
    })
}

/// A response that may differ next time, unless it names content that is damaged there.
async fn transient(what: &str, reply: Reply) -> Failure {
    const OF_CONTENT: [&str; 4] = ["BLOB_UNKNOWN", "MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID", "MANIFEST_UNKNOWN"];
    let is_error = reply.status() == 500;
    let (failure, codes) = refusal_with_codes(what, reply).await;
    match is_error && codes.iter().any(|code| OF_CONTENT.contains(&code.as_str())) {
        true => Failure::never(failure.error),
        false => failure,
    }
}

/// The failure of a request that others do not share: a limit is not the registry's.
fn alone(failure: Failure, tries: u32) -> Error {
    let error = match failure.error.kind() {
        Kind::RateLimited => failure.error.of_kind(Kind::Network),
        _ => failure.error,
    };
    if tries > 1 { error.while_doing(format!("giving up after {tries} tries")) } else { error }
}

/// Requests what the registry has returned before, as patiently as anything else. Returns `false` if it had to wait.
///
/// # Errors
/// The registry is down, or limited for longer than allowed.
async fn answers_others(host: &Host) -> Result<bool> {
    let what = format!("asking whether {} answers other questions", host.registry);
    let (path, scopes) = match host.memory.answers.given() {
        Some(given) => {
            let target = given.target().unwrap_or_default();
            (format!("/v2/{}/manifests/{target}", given.repository.path()), Scopes::pull(&given.repository))
        }
        None => ("/v2/".to_owned(), Scopes::enter("")),
    };
    let (mut tries, mut at_once, mut method) = (host.tries(&what), true, Method::HEAD);
    let Memory { manifest_heads, blob_heads, .. } = &host.memory;
    if path == "/v2/" || manifest_heads.are_ignored(blob_heads, &host.wire.outage) {
        method = Method::GET;
    }
    loop {
        let control = Ask::new(method, path.clone(), scopes.clone(), &what);
        let control = control.header("accept", media_type::ACCEPT_MANIFESTS)?;
        let failure = match once(host, &control).await? {
            Ok(_) => return Ok(at_once),
            Err(failure) => failure,
        };
        at_once = false;
        tries.again(failure).await?;
        // Some registries fail only for HEAD.
        //
        method = Method::GET;
    }
}
