//! A whole kind of request that fails, and objects that fail by themselves.

use super::*;

/// Each blob would cost all its tries, and manifests are answered all the time.
#[test]
fn a_registry_that_gives_no_blob_is_given_up_within_the_budget() {
    let (outage, events) = outage(5, Some(Duration::from_secs(50)));
    let start = Instant::now();
    let at = |second| start + Duration::from_secs(second);
    let fail = |began, end, what| {
        outage.answered_at(at(end), Work::Read);
        outage.note_probe(Instant::now(), true);
        fail_at(&outage, at(end), at(began), what, Work::Content, Evidence::Status)
    };
    assert!(matches!(fail(0, 0, "a"), Next::Exhausted), "one blob may be damaged");
    assert!(matches!(fail(0, 1, "b"), Next::Together(_)), "more than one");
    assert!(matches!(fail(20, 20, "c"), Next::Together(_)));
    let next = fail(51, 51, "d");
    let Next::GivenUp(stopped) = next else { panic!("{next:?}") };
    assert!(stopped.why.starts_with("has given no content of a blob for 51.0 s (why)"), "{stopped}");
    assert_eq!(events.events().len(), 1, "that it waits: {:?}", events.events());
}

/// A damaged blob would end the run, with everything that is not yet transferred.
#[test]
fn blobs_that_are_damaged_do_not_end_a_run_however_many_images_share_them() {
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

/// Otherwise an outage of a minute behind a gateway that answers `/v2/` itself ends the run, whatever the budget.
#[test]
fn a_gateway_that_answers_pings_itself_is_waited_for_within_the_budget() {
    for evidence in [Evidence::Gateway, Evidence::NoAnswer] {
        let (outage, events) = outage(5, Some(Duration::from_secs(600)));
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let fail = |second, what| {
            outage.answered_at(at(second), Work::Enter);
            outage.note_probe(Instant::now(), true);
            fail_at(&outage, at(second), start, what, Work::Complete, evidence)
        };
        assert!(matches!(fail(20, "a"), Next::Exhausted), "one alone says nothing");
        for second in 21..60 {
            for what in ["b", "c", "d"] {
                assert!(matches!(fail(second, what), Next::Together(_)), "{evidence:?} {what} {second}");
            }
        }
        assert_eq!(events.events().len(), 1, "{:?}", events.events());
        outage.answered_at(at(60), Work::Complete);
        assert!(outage.state().silence.is_none());
        // What fails by itself when others succeed has its own tries and no more.
        assert!(matches!(fail(61, "b"), Next::Exhausted));
    }
}
