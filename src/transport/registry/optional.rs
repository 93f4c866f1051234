//! Questions that an image can do without: which signatures, attestations and other artifacts are attached to it.
//!
//! A registry may refuse one kind of question for hours, or never answer it, and serve everything else. That must not end the
//! run, close the gate for other requests or use up the retry budget. So a failure of such a question is followed by a control
//! question, for a manifest that the registry has given before. If that is answered, the failure concerns this kind of question
//! alone. If not, the registry itself is limited or down, and the control question waits for it like any other request.
//!
//! A kind of question that has failed for good is not asked again in this run; one that was answered before is given up only
//! after [`MOST_FAILURES`] failures in a row. It is answered when the answer was read to its end and understood. An answer that is
//! of no use, such as a web page or an endless list, is about what was asked for; only where none was ever understood does
//! the question count as failed after [`MOST_FAILURES`] of them. So it is with a 500 that names content: the registry has looked,
//! and what it found is damaged.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backon::BackoffBuilder;
use reqwest::Method;

use super::answer::refusal_with_codes;
use super::auth::Scopes;
use super::failure::{Failure, Retry, is_transient};
use super::host::{Ask, Host};
use super::memory::Memory;
use super::reply::{Read, Reply};
use super::retry::backoff;
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Event;
use crate::oci::{Reference, media_type};

/// Failures in a row, each after its own tries, of a kind of question that the registry has answered before.
const MOST_FAILURES: u32 = 3;
/// The longest Retry-After that is waited for when other questions are answered.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How much depends on an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Required,
    /// See the module documentation.
    Optional(Question),
}

/// The kinds of optional questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Question {
    /// The referrers API.
    Referrers,
    /// A companion's manifest, by the tag of cosign or of the fallback list, or by its digest.
    Companion,
    /// The list of tags.
    Tags,
}

/// What a registry has made of optional questions so far.
#[derive(Default)]
pub(super) struct Answers {
    kinds: Mutex<HashMap<Question, State>>,
    /// A manifest that it has given.
    given: Mutex<Option<Reference>>,
}

#[derive(Default)]
struct State {
    answered: bool,
    /// In a row.
    failures: u32,
    /// The last answer that was of no use, and how many there were, as long as none was understood.
    useless: (u32, String),
    /// Why it is not asked again.
    given_up: Option<(Kind, String)>,
}

impl Answers {
    /// # Errors
    /// That of an earlier question of this kind, which is not asked again.
    pub fn check(&self, question: Question) -> Result<()> {
        match self.kinds().get(&question).and_then(|state| state.given_up.as_ref()) {
            Some((kind, why)) => Err(Error::new(*kind, why.clone())),
            None => Ok(()),
        }
    }

    /// Whether nothing is known of this kind of question.
    pub fn is_new(&self, question: Question) -> bool {
        self.kinds().get(&question).is_none_or(|state| !state.answered && state.given_up.is_none())
    }

    /// An answer was read to its end and understood, a refusal included.
    pub fn answered(&self, question: Question) {
        let mut kinds = self.kinds();
        let state = kinds.entry(question).or_default();
        (state.answered, state.failures) = (true, 0);
    }

    /// Notes a failure after which the same question is not repeated.
    pub fn failed(&self, question: Question, error: &Error) {
        let mut kinds = self.kinds();
        let state = kinds.entry(question).or_default();
        state.failures += 1;
        if !state.answered || state.failures >= MOST_FAILURES {
            state.given_up.get_or_insert_with(|| (error.kind(), error.chain()));
        }
    }

    /// Notes an answer that came and is of no use. The same one again says nothing new.
    pub fn useless(&self, question: Question, error: &Error) {
        let mut kinds = self.kinds();
        let state = kinds.entry(question).or_default();
        let (seen, last) = &mut state.useless;
        let why = error.chain();
        if state.answered || *last == why {
            return;
        }
        (*seen, *last) = (*seen + 1, why.clone());
        if *seen >= MOST_FAILURES {
            state.given_up.get_or_insert((error.kind(), why));
        }
    }

    /// Notes a manifest that the registry has given.
    pub fn note_given(&self, reference: &Reference) {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.get_or_insert_with(|| reference.clone());
    }

    fn given(&self) -> Option<Reference> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn kinds(&self) -> MutexGuard<'_, HashMap<Question, State>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As [`Host::ask`] and [`Host::read`], for an answer that is not needed. The caller notes whether it was understood.
///
/// # Errors
/// The question failed, alone; or the registry as a whole is limited or down, as [`Host::ask`] says it.
pub(super) async fn ask<T>(
    host: &Host,
    ask: &Ask<'_>,
    question: Question,
    limit: Option<u64>,
    head: &(impl Fn(&Reply) -> T + Sync),
) -> Result<Read<T>> {
    let mut backoff = backoff(&host.wire.limits).build();
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
        // Another try would end the same way, or nothing more may be asked of this registry.
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

/// One try, at the pace of the registry.
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

/// An answer that may be another one next time, unless it names content that is damaged there.
async fn transient(what: &str, reply: Reply) -> Failure {
    const OF_CONTENT: [&str; 4] = ["BLOB_UNKNOWN", "MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID", "MANIFEST_UNKNOWN"];
    let is_error = reply.status() == 500;
    let (failure, codes) = refusal_with_codes(what, reply).await;
    match is_error && codes.iter().any(|code| OF_CONTENT.contains(&code.as_str())) {
        true => Failure::never(failure.error),
        false => failure,
    }
}

/// The failure of a question that others do not share: a limit is not the registry's.
fn alone(failure: Failure, tries: u32) -> Error {
    let error = match failure.error.kind() {
        Kind::RateLimited => Error::new(Kind::Network, failure.error.chain()),
        _ => failure.error,
    };
    if tries > 1 { error.while_doing(format!("giving up after {tries} tries")) } else { error }
}

/// Asks for what the registry has given before, as patiently as for anything else. `false`: it had to be waited for.
///
/// # Errors
/// The registry is down, or limited for longer than was allowed.
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
        // Some registries fail at HEAD alone.
        method = Method::GET;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(failures: &[&str], noted: impl Fn(&Answers, Question, &Error)) -> Answers {
        let answers = Answers::default();
        failures.iter().for_each(|why| noted(&answers, Question::Referrers, &Error::damaged(*why)));
        answers
    }

    #[test]
    fn answers_that_are_of_no_use_end_a_question_only_where_none_was_ever_understood() {
        let is_over = |answers: &Answers| answers.check(Question::Referrers).is_err();
        let useless = Answers::useless;
        assert!(!is_over(&asked(&["of a", "of b"], useless)));
        assert!(!is_over(&asked(&["of a"; 10], useless)), "one subject that is asked about again and again");
        assert!(is_over(&asked(&["of a", "of b", "of c"], useless)));
        let understood = asked(&["of a"], useless);
        understood.answered(Question::Referrers);
        for subject in ["of b", "of c", "of d", "of e"] {
            understood.useless(Question::Referrers, &Error::damaged(subject));
        }
        assert!(!is_over(&understood));
    }

    #[test]
    fn a_question_that_gets_no_answer_is_not_asked_again() {
        let is_over = |answers: &Answers| answers.check(Question::Referrers).is_err();
        assert!(is_over(&asked(&["of a"], Answers::failed)));
        let answers = Answers::default();
        answers.answered(Question::Referrers);
        for left in [false, false, true] {
            answers.failed(Question::Referrers, &Error::damaged("of a"));
            assert_eq!(is_over(&answers), left);
        }
    }
}
