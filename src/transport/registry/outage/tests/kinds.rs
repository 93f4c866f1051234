//! A whole kind of request that fails, and objects that fail individually.

use super::*;

/// Without this rule each blob would use up all its tries, because manifests are answered all the time.
#[test]
fn a_registry_that_delivers_no_blob_is_given_up_within_the_budget() {
    let (outage, events) = outage(5, Some(Duration::from_secs(50)));
    let start = Instant::now();
    let at = |second| start + Duration::from_secs(second);
    let fail = |began, end, what| {
        outage.answered_at(at(end), Work::Read);
        outage.note_probe(Instant::now(), true);
        fail_at(&outage, at(end), at(began), what, Work::Content, Evidence::Status)
    };
    assert!(matches!(fail(0, 0, "a"), Next::Exhausted), "one blob may be damaged");
    assert!(matches!(fail(0, 1, "b"), Next::Together(_)), "two blobs have failed");
    assert!(matches!(fail(20, 20, "c"), Next::Together(_)));
    let next = fail(51, 51, "d");
    let Next::GivenUp(stopped) = next else { panic!("{next:?}") };
    assert!(stopped.why.starts_with("has delivered no blob content for 51.0 s (why)"), "{stopped}");
    assert_eq!(events.events().len(), 1, "only that all wait: {:?}", events.events());
}

/// Otherwise a damaged blob would end the run before everything else is transferred.
#[test]
fn damaged_blobs_do_not_end_a_run_however_many_images_share_them() {
    let (outage, events) = outage(5, Some(Duration::from_secs(50)));
    outage.answered(Work::Content);
    let start = Instant::now();
    for damaged in [&["a"][..], &["a", "b"]] {
        for second in (0..600).step_by(20) {
            let at = start + Duration::from_secs(second);
            for what in damaged {
                outage.note_probe(Instant::now(), true);
                let next = fail_at(&outage, at, at, what, Work::Content, Evidence::Status);
                assert!(matches!(next, Next::Exhausted), "{damaged:?} {second}: {next:?}");
            }
        }
    }
    assert!(events.events().is_empty());
}

/// Otherwise an outage of one minute behind a gateway that answers `/v2/` itself ends the run, whatever the budget.
#[test]
fn a_registry_behind_a_gateway_that_answers_the_probe_is_waited_for_within_the_budget() {
    for evidence in [Evidence::Gateway, Evidence::NoAnswer] {
        let (outage, events) = outage(5, Some(Duration::from_secs(600)));
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let fail = |second, what| {
            outage.answered_at(at(second), Work::Enter);
            outage.note_probe(Instant::now(), true);
            fail_at(&outage, at(second), start, what, Work::Complete, evidence)
        };
        assert!(matches!(fail(20, "a"), Next::Exhausted), "one failure proves nothing");
        for second in 21..60 {
            for what in ["b", "c", "d"] {
                assert!(matches!(fail(second, what), Next::Together(_)), "{evidence:?} {what} {second}");
            }
        }
        assert_eq!(events.events().len(), 1, "{:?}", events.events());
        outage.answered_at(at(60), Work::Complete);
        assert!(outage.state().silence.is_none());
        // A request that fails while others succeed has its own tries and no more.
        assert!(matches!(fail(61, "b"), Next::Exhausted));
    }
}

/// One large layer may take an hour, and damaged blobs fail during that time just as they would after it.
#[test]
fn blobs_that_fail_while_another_one_arrives_fail_individually() {
    let (outage, _) = outage(5, Some(Duration::from_secs(50)));
    let outage = Arc::new(outage);
    let coming = outage.downloads();
    let fail = |what| {
        outage.note_probe(Instant::now(), true);
        let now = Instant::now();
        fail_at(&outage, now, now, what, Work::Content, Evidence::Status)
    };
    assert!(matches!(fail("a"), Next::Exhausted) && matches!(fail("b"), Next::Exhausted));
    drop(coming);
    assert!(matches!(fail("c"), Next::Together(_)));
}

/// Two layers on which the registry hangs are not an outage: others were stored while these waited.
#[test]
fn uploads_that_hang_while_others_are_stored_fail_individually() {
    let (outage, _) = outage(5, Some(Duration::from_secs(50)));
    let start = Instant::now();
    let at = |second| start + Duration::from_secs(second);
    outage.answered_at(at(10), Work::Complete);
    let fail = |began, end, what| {
        outage.note_probe(Instant::now(), true);
        fail_at(&outage, at(end), at(began), what, Work::Complete, Evidence::NoAnswer)
    };
    assert!(matches!(fail(0, 70, "a"), Next::Exhausted));
    assert!(matches!(fail(0, 71, "b"), Next::Exhausted));
    assert!(matches!(fail(72, 140, "c"), Next::GivenUp(_)), "nothing is stored any more");
}

/// Uploads that have moved for half an hour all break when a load balancer restarts: they must continue and not end the
/// run.
#[test]
fn uploads_that_moved_until_they_broke_together_have_used_up_no_budget() {
    let (outage, _) = outage(5, Some(Duration::from_secs(120)));
    let start = Instant::now();
    let at = |second| start + Duration::from_secs(second);
    outage.answered_at(start, Work::Begin);
    outage.moved_at(at(1799), start);
    for what in ["a", "b", "c"] {
        outage.note_probe(Instant::now(), true);
        let next = fail_at(&outage, at(1800), start, what, Work::Begin, Evidence::NoAnswer);
        assert!(!matches!(next, Next::GivenUp(_)), "{what}: {next:?}");
    }
}

/// Otherwise each round of large uploads restarts the budget, and a registry that stores nothing costs hours.
#[test]
fn a_try_that_outlasts_the_memory_of_a_silence_still_belongs_to_it() {
    let (outage, _) = outage(5, Some(Duration::from_secs(120)));
    let start = Instant::now();
    let at = |second| start + Duration::from_secs(second);
    let fail = |began, end, what| {
        outage.moved_at(at(end), at(began));
        outage.note_probe(Instant::now(), true);
        fail_at(&outage, at(end), at(began), what, Work::Complete, Evidence::Status)
    };
    assert!(!matches!(fail(0, 1200, "a"), Next::GivenUp(_)) && !matches!(fail(0, 1200, "b"), Next::GivenUp(_)));
    assert!(matches!(fail(1201, 2400, "a"), Next::GivenUp(_)));
}

/// The target's storage may be damaged: blobs that can be uploaded again must not wait as if the registry were down.
#[test]
fn objects_that_may_be_damaged_at_the_target_fail_individually() {
    let (outage, events) = outage(5, Some(Duration::from_secs(120)));
    let start = Instant::now();
    for (second, what) in ["a", "b", "c"].into_iter().enumerate() {
        outage.note_probe(Instant::now(), true);
        let at = start + Duration::from_secs(200 * second as u64);
        let next = fail_at(&outage, at, at, what, Work::Content, Evidence::Object);
        assert!(matches!(next, Next::Exhausted), "{what}: {next:?}");
    }
    assert!(events.events().is_empty());
}

#[test]
fn an_announced_wait_neither_answers_other_kinds_of_request_nor_uses_up_their_budget() {
    let (outage, _) = outage(5, Some(Duration::from_secs(120)));
    let start = Instant::now();
    for what in ["a", "b"] {
        outage.note_probe(Instant::now(), true);
        fail_at(&outage, start, start, what, Work::Complete, Evidence::Status);
    }
    let (now, wanted) = (start + Duration::from_secs(10), Duration::from_secs(30));
    for _ in 0..3 {
        assert!(matches!(
            outage.announced_at(now, Work::Read, wanted, Duration::ZERO, "503"),
            super::super::Announced::Wait(_)
        ));
    }
    let state = outage.state();
    let silence = state.silence.as_ref().unwrap();
    assert_eq!(silence.failing_since(Work::Complete), start + wanted, "put off once, however many requests were");
}

/// An upload that fails after the registry was quiet for a while is still a single failing request.
#[test]
fn a_missed_sign_of_life_does_not_count_as_a_failed_request() {
    let (outage, _) = outage(5, Some(Duration::from_secs(120)));
    outage.answered(Work::Read);
    outage.is_silent(Instant::now(), "no answer");
    outage.is_alive();
    let now = Instant::now();
    fail_at(&outage, now, now, "a", Work::Complete, Evidence::NoAnswer);
    assert!(!outage.state().silence.as_ref().unwrap().several);
}
