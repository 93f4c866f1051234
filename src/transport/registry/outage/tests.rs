use super::*;
use crate::base::progress::Recorder;
use std::sync::Arc;

mod kinds;

fn outage(retries: u32, retry_budget: Option<Duration>) -> (Outage, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let events: Events = recorder.clone();
    let first_delay = Duration::from_millis(1);
    let limits = RequestLimits { retries, retry_budget, first_delay, ..RequestLimits::default() };
    (Outage::new("r.io:5000", &limits, &events), recorder)
}

fn fail(outage: &Outage, what: &str, no_answer: bool, own: bool) -> Next {
    fail_since(outage, what, Instant::now(), no_answer, own)
}

fn fail_since(outage: &Outage, what: &str, since: Instant, no_answer: bool, own: bool) -> Next {
    let own = own.then_some(Duration::from_millis(1));
    let now = Instant::now();
    let evidence = if no_answer { Evidence::NoAnswer } else { Evidence::Status };
    outage.failed(&Suspicion {
        what,
        work: Work::Read,
        of_whole: false,
        why: "refused",
        is_full: false,
        since,
        began: now,
        at: now,
        evidence,
        own,
    })
}

#[test]
fn a_single_failing_request_does_not_make_the_others_wait() {
    let (outage, events) = outage(5, Some(Duration::from_secs(100)));
    outage.answered(Work::Complete);
    for _ in 0..3 {
        assert!(matches!(fail(&outage, "a", true, true), Next::Alone(_)));
    }
    assert!(matches!(fail(&outage, "a", false, false), Next::Exhausted), "a gateway's 502 for one manifest");
    assert!(events.events().is_empty());
}

/// A name server that fails for half a minute must not make a storage server that answered all night look wrong.
#[test]
fn a_server_that_has_answered_once_stays_known_when_requests_fail() {
    let (outage, _) = outage(5, None);
    fail(&outage, "a", true, true);
    assert!(!outage.is_known(), "no answer came");
    outage.answered(Work::Read);
    fail(&outage, "a", true, true);
    assert!(outage.is_known());
}

#[test]
fn requests_that_fail_one_after_another_are_reported_once() {
    let (outage, _) = outage(5, None);
    let message = [10, 2000, 2000, 3000].map(|delay| outage.is_news(Duration::from_millis(delay)));
    assert_eq!(message, [false, true, false, false]);
}

#[test]
fn when_several_requests_fail_all_wait_together_and_it_is_reported_once() {
    let (outage, events) = outage(5, Some(Duration::from_secs(100)));
    outage.answered(Work::Complete);
    assert!(matches!(fail(&outage, "a", true, true), Next::Alone(_)));
    // Rounds of about a millisecond each, until the outage is reported, and some more.
    let round = || {
        for what in ["b", "a", "c", "b"] {
            assert!(matches!(fail(&outage, what, true, false), Next::Together(_)), "{what}");
        }
    };
    while events.events().is_empty() {
        round();
    }
    (0..100).for_each(|_| round());
    outage.answered(Work::Complete);
    let log: Vec<String> = events.events().iter().map(|event| format!("{event:?}")).collect();
    assert_eq!(log.len(), 2, "{log:?}");
    assert!(log[0].contains("r.io:5000 does not answer (refused)") && log[1].contains("answers again"), "{log:?}");
}

/// Otherwise the request sleeps through the whole round, which may last half a minute.
#[tokio::test]
async fn an_answer_between_a_failure_and_its_wait_ends_the_wait() {
    let (outage, _) = outage(5, Some(Duration::from_secs(100)));
    outage.answered(Work::Complete);
    fail(&outage, "a", true, true);
    let Next::Together(round) = fail(&outage, "b", true, true) else { panic!("all wait") };
    outage.answered(Work::Complete);
    let round = Round { delay: Duration::from_secs(3600), ..round };
    assert!(tokio::time::timeout(Duration::from_secs(60), outage.rest(round)).await.is_ok());
}

#[test]
fn a_budget_of_zero_gives_the_server_up_at_the_first_failure() {
    let (outage, _) = outage(5, Some(Duration::ZERO));
    outage.answered(Work::Complete);
    assert!(matches!(fail(&outage, "a", true, true), Next::GivenUp(_)));
    assert!(matches!(fail(&outage, "b", false, true), Next::GivenUp(_)));
}

#[test]
fn a_registry_that_never_answered_is_given_up_after_the_tries_of_one_request() {
    let (outage, _) = outage(1, Some(Duration::from_secs(100)));
    assert!(matches!(fail(&outage, "a", true, true), Next::Alone(_)));
    assert!(matches!(fail(&outage, "a", true, false), Next::Exhausted));
    assert!(matches!(fail(&outage, "b", true, true), Next::GivenUp(_)), "the others need not find out");
}

/// A host that accepts connections and never answers would otherwise take six times as long as the first timeout.
#[test]
fn a_registry_that_never_answered_gets_no_more_than_the_budget() {
    let (outage, _) = outage(5, Some(Duration::from_secs(100)));
    let start = Instant::now();
    let at = |second| start + Duration::from_secs(second);
    let fail = |began, end| {
        let (what, work, of_whole, why, own) = ("a", Work::Enter, true, "no answer", Some(Duration::from_secs(1)));
        let evidence = Evidence::NoAnswer;
        let [began, at] = [began, end].map(at);
        outage.failed_at(
            at,
            &Suspicion { what, work, of_whole, why, is_full: false, since: began, began, at, evidence, own },
        )
    };
    assert!(matches!(fail(0, 60), Next::Alone(_)));
    let next = fail(61, 121);
    let Next::GivenUp(stopped) = next else { panic!("{next:?}") };
    assert!(stopped.why.contains("has not answered for 2 min 1 s"), "{stopped}");
}

#[test]
fn a_request_that_began_to_fail_before_the_last_answer_ends_by_its_own_count() {
    let (outage, _) = outage(1, Some(Duration::from_secs(100)));
    let since = Instant::now();
    outage.answered(Work::Complete);
    let now = Instant::now();
    let suspicion = Suspicion {
        what: "a",
        work: Work::Read,
        of_whole: false,
        why: "reset",
        is_full: false,
        since,
        began: now,
        at: now,
        evidence: Evidence::NoAnswer,
        own: None,
    };
    assert!(matches!(outage.failed(&suspicion), Next::Exhausted));
}

#[test]
fn late_errors_from_a_gateway_do_not_count_against_a_registry_that_answers() {
    let (outage, events) = outage(5, Some(Duration::ZERO));
    let began = Instant::now();
    outage.answered(Work::Complete);
    for what in ["a", "b", "c"] {
        let own = Some(Duration::from_millis(1));
        let late = Suspicion {
            what,
            work: Work::Read,
            of_whole: false,
            why: "502",
            is_full: false,
            since: began,
            began,
            at: Instant::now(),
            evidence: Evidence::Status,
            own,
        };
        assert!(matches!(outage.failed(&late), Next::Alone(_)), "{what}");
    }
    assert!(events.events().is_empty());
    assert!(matches!(fail(&outage, "d", true, true), Next::GivenUp(_)), "a later request counts");
}

#[test]
fn the_probe_decides_while_a_gateway_answers() {
    let (outage, events) = outage(5, Some(Duration::from_secs(100)));
    outage.answered(Work::Complete);
    assert!(matches!(fail(&outage, "a", false, true), Next::Alone(_)), "one failure proves nothing");
    assert!(matches!(fail(&outage, "b", false, true), Next::Unsure));
    let failed = Instant::now();
    assert!(outage.is_unprobed_since(failed));
    outage.note_probe(Instant::now(), true);
    assert!(!outage.is_unprobed_since(failed));
    assert!(matches!(fail(&outage, "b", false, true), Next::Alone(_)));
    assert!(matches!(fail(&outage, "a", false, false), Next::Exhausted), "by its own count");
    outage.note_probe(Instant::now(), false);
    let down = Suspicion {
        what: "b",
        work: Work::Read,
        of_whole: false,
        why: "502",
        is_full: false,
        since: failed,
        began: failed,
        at: failed,
        evidence: Evidence::Status,
        own: None,
    };
    assert!(matches!(outage.failed(&down), Next::Together(_)), "all wait");
    assert!(events.events().is_empty());
}

#[test]
fn a_registry_that_answers_only_the_probe_is_given_up_in_the_end() {
    let (outage, _) = outage(5, Some(Duration::ZERO));
    outage.answered(Work::Complete);
    outage.note_probe(Instant::now(), true);
    let first = Instant::now();
    assert!(matches!(fail_since(&outage, "a", first, false, true), Next::Alone(_)));
    for what in ["b", "c", "b", "d"] {
        assert!(matches!(fail_since(&outage, what, first, false, false), Next::Exhausted), "{what}");
    }
    let later = loop {
        let now = Instant::now();
        if now > first && outage.state().silence.as_ref().unwrap().spent.unwrap() < now {
            break now;
        }
    };
    let own = Some(Duration::from_millis(1));
    let first = Suspicion {
        what: "e",
        work: Work::Read,
        of_whole: false,
        why: "refused",
        is_full: false,
        since: later,
        began: later,
        at: later,
        evidence: Evidence::Status,
        own,
    };
    assert!(matches!(outage.failed(&first), Next::Alone(_)), "one failure may pass");
    let again = Suspicion { began: later + Duration::from_millis(1), ..first };
    assert!(matches!(outage.failed(&again), Next::GivenUp(_)));
}

#[tokio::test]
async fn a_server_that_was_given_up_gets_no_more_requests() {
    let (outage, _) = outage(5, Some(Duration::ZERO));
    outage.answered(Work::Complete);
    assert!(outage.pass("x").await.is_ok());
    fail(&outage, "a", true, true);
    let error = outage.pass("reading y").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Network);
    assert!(error.stopped().is_some() && error.chain().contains("r.io:5000"), "{error:?}");
    outage.over().await;
}

/// The registry asks for a wait, `second` seconds after `start`.
fn put_off(outage: &Outage, start: Instant, second: u64, wanted: u64, before: u64) -> Announced {
    let [second, wanted, before] = [second, wanted, before].map(Duration::from_secs);
    outage.announced_at(start + second, Work::Read, wanted, before, "503")
}

#[test]
fn a_server_that_only_announces_waits_is_given_up_after_one_warning() {
    let (outage, events) = outage(5, Some(Duration::from_secs(120)));
    let start = Instant::now();
    // Six requests at once, every minute, for the ten minutes that are allowed.
    for minute in 0..10 {
        for _ in 0..6 {
            assert!(matches!(put_off(&outage, start, 60 * minute, 60, 60 * minute), Announced::Wait(_)), "{minute}");
        }
    }
    let Announced::GivenUp(stopped) = put_off(&outage, start, 600, 60, 600) else { panic!("it waits for ever") };
    assert!(stopped.why.contains("allows only 10 min 0 s in all") && stopped.why.contains("503"), "{stopped}");
    assert!(matches!(fail(&outage, "b", true, true), Next::GivenUp(_)), "for all");
    let events: Vec<String> = events.events().iter().map(|event| format!("{event:?}")).collect();
    assert!(events.len() == 1 && events[0].contains("r.io:5000 asks to wait"), "{events:?}");
}

#[test]
fn a_wait_longer_than_allowed_gives_the_server_up_at_once_and_an_answer_resets_the_limit() {
    let (outage, events) = outage(5, Some(Duration::from_secs(120)));
    let start = Instant::now();
    assert!(matches!(put_off(&outage, start, 0, 599, 0), Announced::Wait(_)));
    outage.answered(Work::Complete);
    assert!(matches!(put_off(&outage, start, 599, 599, 0), Announced::Wait(_)));
    assert!(events.events().len() >= 2, "asks to wait, answers again");
    assert!(matches!(put_off(&outage, start, 599, 601, 0), Announced::GivenUp(_)));
}

#[test]
fn one_request_that_is_put_off_for_ever_does_not_end_the_run_but_a_second_one_does() {
    let (outage, events) = outage(5, None);
    let start = Instant::now();
    for second in 0..600 {
        assert!(matches!(put_off(&outage, start, second, 1, second), Announced::Wait(_)));
        // Other requests are answered.
        outage.answered(Work::Complete);
    }
    assert!(matches!(put_off(&outage, start, 600, 1, 600), Announced::Enough));
    outage.answered(Work::Complete);
    assert!(matches!(put_off(&outage, start, 601, 1, 600), Announced::GivenUp(_)));
    assert!(events.events().is_empty(), "a second is not worth a line: {:?}", events.events());
}

#[test]
fn announced_waits_do_not_use_up_the_budget() {
    let (outage, _) = outage(5, Some(Duration::ZERO));
    outage.answered(Work::Complete);
    let start = Instant::now();
    assert!(matches!(put_off(&outage, start, 0, 60, 0), Announced::Wait(_)));
    assert!(outage.state().silence.is_none());
}

/// Otherwise a connection that breaks during a restart ends the run within a wait that the registry announced.
#[test]
fn a_failure_during_an_announced_wait_counts_from_the_end_of_that_wait() {
    let (outage, _) = outage(5, Some(Duration::from_secs(20)));
    outage.answered(Work::Complete);
    let start = Instant::now();
    let at = |second| start + Duration::from_secs(second);
    assert!(matches!(put_off(&outage, start, 0, 300, 0), Announced::Wait(_)));
    for second in [1, 200, 300, 319] {
        let next = fail_at(&outage, at(second), at(second), "a", Work::Complete, Evidence::NoAnswer);
        assert!(!matches!(next, Next::GivenUp(_)), "{second}: {next:?}");
    }
    let next = fail_at(&outage, at(321), at(321), "b", Work::Complete, Evidence::NoAnswer);
    assert!(matches!(next, Next::GivenUp(_)), "{next:?}");
}

/// Reports a failure at `at`, of a try that was made at `began`.
fn fail_at(outage: &Outage, at: Instant, began: Instant, what: &str, work: Work, evidence: Evidence) -> Next {
    let (of_whole, why, since, own) = (false, "why", began, None);
    outage.failed_at(at, &Suspicion { what, work, of_whole, why, is_full: false, since, began, at, evidence, own })
}

/// Otherwise a frozen host costs the time until its first failure is noticed, and the budget on top.
#[test]
fn a_silence_begins_when_the_unanswered_request_was_sent() {
    let (outage, _) = outage(5, Some(Duration::from_secs(50)));
    outage.answered(Work::Read);
    let asked = Instant::now();
    let at = |second| asked + Duration::from_secs(second);
    // A connection that breaks at once starts a silence.
    assert!(matches!(fail_at(&outage, at(1), at(1), "a", Work::Read, Evidence::NoAnswer), Next::Alone(_)));
    let next = fail_at(&outage, at(60), asked, "b", Work::Complete, Evidence::NoAnswer);
    let Next::GivenUp(stopped) = next else { panic!("{next:?}") };
    assert!(stopped.why.starts_with("has not answered for 59"), "{stopped}");
}

#[tokio::test]
async fn open_requests_end_when_the_budget_is_used_up() {
    let (outage, _) = outage(5, Some(Duration::from_millis(20)));
    outage.answered(Work::Read);
    let (outage, now) = (Arc::new(outage), Instant::now());
    let open = tokio::spawn({
        let outage = outage.clone();
        async move { outage.over().await }
    });
    fail_at(&outage, now, now, "a", Work::Read, Evidence::NoAnswer);
    assert!(open.await.unwrap().why.contains("has not answered"));
}

/// Sessions are opened all the time while the database accepts no changes, so the budget would never be used up.
#[test]
fn a_registry_that_opens_uploads_and_completes_none_is_given_up() {
    let (outage, events) = outage(5, Some(Duration::from_secs(50)));
    outage.answered(Work::Complete);
    outage.note_probe(Instant::now(), true);
    let start = Instant::now();
    let at = |second| start + Duration::from_secs(second);
    let fail = |second, what| {
        outage.answered_at(at(second), Work::Read);
        outage.answered_at(at(second), Work::Begin);
        fail_at(&outage, at(second), at(second), what, Work::Complete, Evidence::Status)
    };
    for (second, what) in [(20, "a"), (20, "b"), (40, "c"), (60, "d")] {
        assert!(matches!(fail(second, what), Next::Exhausted), "{what}");
    }
    let next = fail(80, "e");
    let Next::GivenUp(stopped) = next else { panic!("{next:?}") };
    assert!(stopped.why.starts_with("has stored nothing for 1 min 0 s (why)"), "{stopped}");
    assert!(events.events().is_empty());
}

#[test]
fn a_completed_upload_restarts_the_budget() {
    let (outage, _) = outage(5, Some(Duration::from_secs(50)));
    outage.answered(Work::Complete);
    outage.note_probe(Instant::now(), true);
    let now = Instant::now();
    for second in [0, 20, 40, 60, 80, 100] {
        let at = now + Duration::from_secs(second);
        for what in ["a", "b"] {
            assert!(matches!(fail_at(&outage, at, at, what, Work::Complete, Evidence::Status), Next::Exhausted));
        }
        outage.answered(Work::Complete);
    }
}

/// “Answers again” would be wrong after a token from a cache, and all waiting requests would be sent for nothing.
#[test]
fn a_weaker_answer_does_not_end_an_outage() {
    for (failing, weaker) in [
        (Work::Read, Work::Token),
        (Work::Read, Work::Enter),
        (Work::Read, Work::Begin),
        (Work::Content, Work::Read),
        (Work::Content, Work::Begin),
        (Work::Complete, Work::Content),
    ] {
        let (outage, events) = outage(5, Some(Duration::from_secs(100)));
        let now = Instant::now();
        for what in ["a", "b"] {
            outage.note_probe(Instant::now(), false);
            fail_at(&outage, now, now, what, failing, Evidence::Status);
        }
        outage.answered(weaker);
        assert!(outage.state().silence.is_some(), "{failing:?} {weaker:?}");
        outage.answered(Work::Complete);
        assert!(outage.state().silence.is_none() && events.events().is_empty());
    }
}

/// Otherwise a registry that completes no upload gets every large blob again and again: some upload always moves.
#[test]
fn a_moving_upload_does_not_count_as_a_completed_one() {
    let (outage, events) = outage(5, Some(Duration::from_secs(50)));
    outage.answered(Work::Complete);
    outage.note_probe(Instant::now(), true);
    let start = Instant::now();
    let at = |second| start + Duration::from_secs(second);
    let fail = |began, end, what| fail_at(&outage, at(end), at(began), what, Work::Complete, Evidence::Status);
    for second in 0..20 {
        outage.moved_at(at(second), start);
    }
    assert!(matches!(fail(0, 20, "a"), Next::Exhausted) && matches!(fail(0, 21, "b"), Next::Exhausted));
    let since = |outage: &Outage| outage.state().silence.as_ref().unwrap().failing_since(Work::Complete);
    assert_eq!(since(&outage), at(20));
    // A transfer that began before the failures may still succeed, so it is waited for.
    outage.moved_at(at(60), at(10));
    assert_eq!(since(&outage), at(60));
    // A transfer that began later may fail as the others did.
    outage.moved_at(at(120), at(70));
    assert_eq!(since(&outage), at(60));
    let next = fail(110, 120, "c");
    assert!(matches!(next, Next::GivenUp(_)), "some upload always moves: {next:?}");
    assert!(events.events().is_empty());
}

/// Otherwise each movement would send all waiting requests at once, to a registry that is down.
#[test]
fn a_moving_upload_does_not_end_the_wait_of_other_requests() {
    let (outage, events) = outage(5, Some(Duration::from_secs(100)));
    outage.answered(Work::Complete);
    let start = Instant::now();
    for what in ["a", "b"] {
        outage.note_probe(Instant::now(), false);
        fail(&outage, what, false, true);
    }
    outage.moved(start);
    assert!(outage.state().silence.as_ref().is_some_and(|silence| silence.several));
    outage.answered(Work::Complete);
    assert!(outage.state().silence.is_none() && events.events().is_empty());
}

#[test]
fn a_sign_of_life_does_not_end_an_announced_wait() {
    let (outage, events) = outage(5, None);
    let start = Instant::now();
    assert!(matches!(put_off(&outage, start, 0, 60, 0), Announced::Wait(_)));
    outage.answered(Work::Token);
    outage.is_alive();
    outage.moved(start);
    assert!(outage.state().announced.is_some() && events.events().len() == 1, "{:?}", events.events());
}

/// A busy token server puts some requests off and answers the others: the waits do not add up to an outage.
#[test]
fn a_token_ends_the_announced_waits_of_a_token_server() {
    let (outage, _) = outage(5, None);
    let start = Instant::now();
    let five = Duration::from_secs(5);
    for minute in 0..20 {
        let now = start + Duration::from_secs(60 * minute);
        let wait = outage.announced_at(now, Work::Token, five, Duration::ZERO, "503");
        assert!(matches!(wait, Announced::Wait(_)), "minute {minute}");
        outage.answered_at(now + five, Work::Token);
    }
}

/// The hint for an object that cannot be stored depends on whether the registry has stored any; a refusal stores none.
#[test]
fn an_answer_does_not_prove_that_something_was_stored() {
    let (outage, _) = outage(5, None);
    outage.answered(Work::Complete);
    assert!(!outage.has_stored());
    outage.note_stored();
    assert!(outage.has_stored());
}
