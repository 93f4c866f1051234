//! Signs of life. While a request waits for its answer and nothing else comes from the registry, the registry is asked
//! whether it is up: it may just take long, or it may be frozen. All waiting requests share this question, and end
//! together when the registry is given up.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use super::{Evidence, LOOK, Outage, Suspicion, Work, used_up_by};
use crate::base::error::Stopped;
use crate::transport::registry::upload_body::UploadWatch;

/// When to request a sign of life.
#[derive(Clone, Copy, Debug)]
pub(in crate::transport::registry) struct Rhythm {
    /// Ask after this long without anything from the registry, and again each time it passes.
    pub quiet: Duration,
    /// How long the answer may take.
    pub patience: Duration,
}

impl Outage {
    /// How much longer a request that has waited since `then` may wait for a server from which nothing has ever come.
    pub fn patience_with_unknown(&self, then: Instant) -> Option<Duration> {
        self.limits.retry_budget.map(|budget| budget.saturating_sub(then.elapsed()))
    }

    /// How soon to ask: two missed signs fit into one and a half times the stall limit. A short budget asks earlier,
    /// but leaves a slow registry time to answer.
    pub fn rhythm(&self) -> Rhythm {
        let stall = self.limits.stall;
        let within = self.limits.retry_budget.map_or(stall, |budget| budget.clamp(stall / 4, stall));
        Rhythm { quiet: within / 4, patience: within / 2 }
    }

    /// How long nothing has come from the server, counted from `then` at the earliest.
    pub fn quiet_for(&self, then: Instant) -> Duration {
        self.state().heard().map_or(then, |heard| heard.max(then)).elapsed()
    }

    /// Whether to ask for a sign of life now. Of several waiting requests only one asks.
    pub fn asks_for_sign(&self, rhythm: Rhythm) -> bool {
        let (now, mut state) = (Instant::now(), self.state());
        if state.stopped.is_some() || state.next_sign.is_some_and(|next| now < next) {
            return false;
        }
        // The asking request may end before the answer arrives.
        state.next_sign = Some(now + rhythm.patience + rhythm.quiet / 2);
        true
    }

    /// A requested sign of life did not arrive, for the reason `why`. A request has waited for its answer since `then`.
    pub fn gave_no_sign(&self, then: Instant, why: &str) {
        let is_one_of_several = {
            let mut state = self.state();
            state.next_sign = Some(Instant::now() + self.rhythm().quiet);
            state.signs_missed += 1;
            state.signs_missed > 1
        };
        // A single sign may be lost or late.
        if is_one_of_several {
            self.is_silent(then, why);
        }
    }

    /// Records that nothing was received from the server since it was last heard. A request has waited for its answer
    /// since `then`.
    pub fn is_silent(&self, then: Instant, why: &str) {
        let now = Instant::now();
        let mut guard = self.state();
        let state = &mut *guard;
        if state.stopped.is_some() {
            return;
        }
        let (what, evidence, work) = ("", Evidence::NoAnswer, Work::Token);
        let heard = state.heard();
        let began = heard.map_or(then, |heard| heard.max(then));
        let sign = Suspicion {
            what,
            work,
            of_whole: true,
            why,
            is_full: false,
            since: began,
            began,
            at: now,
            evidence,
            own: None,
        };
        let silence = state.noted(&sign, &self.limits, heard, now);
        let lasted = now.saturating_duration_since(silence.quiet_since(heard));
        let left = self.limits.retry_budget.map(|budget| budget.saturating_sub(lasted));
        // With no time left, the error at the end of the budget says the same.
        let is_worth_a_line = silence.unanswered && left.is_none_or(|left| !left.is_zero());
        let is_news = is_worth_a_line && !std::mem::replace(&mut silence.is_reported, true);
        drop(guard);
        self.silent.notify_waiters();
        if is_news {
            self.announce(why, left);
        }
    }

    /// Returns when the registry is given up, so that a request that is still open ends without failing itself.
    pub async fn over(&self) -> Stopped {
        loop {
            let (changed, silent) = (self.changed.notified(), self.silent.notified());
            let left = match self.left_at(Instant::now()) {
                Ok(left) => left,
                Err(stopped) => return stopped,
            };
            tokio::select! {
                () = changed => {}
                () = silent => {}
                () = tokio::time::sleep(left.unwrap_or_default()), if left.is_some() => {}
            }
        }
    }

    /// How long the server may stay silent until it is given up; `None` while answers arrive.
    ///
    /// # Errors
    /// The server is given up.
    fn left_at(&self, now: Instant) -> Result<Option<Duration>, Stopped> {
        let mut guard = self.state();
        let state = &mut *guard;
        if let Some(stopped) = &state.stopped {
            return Err(stopped.clone());
        }
        let heard = state.heard();
        let budget = self.limits.retry_budget;
        let silence = state.silence.as_ref().filter(|silence| silence.unanswered);
        let (Some(silence), Some(budget)) = (silence, budget) else { return Ok(None) };
        let lasted = now.saturating_duration_since(silence.quiet_since(heard));
        let left = budget.saturating_sub(lasted);
        if !left.is_zero() {
            return Ok(Some(left));
        }
        let why = used_up_by("has not answered", lasted, &silence.why);
        let stopped = state.stop(&self.place, why, false);
        drop(guard);
        self.wake();
        Err(stopped)
    }

    /// Records, while polled, that an upload moves. Never returns.
    pub async fn follow(&self, upload: &UploadWatch) -> Infallible {
        let (began, mut sent) = (Instant::now(), upload.sent());
        loop {
            tokio::time::sleep(LOOK).await;
            let now = upload.sent();
            if std::mem::replace(&mut sent, now) < now {
                self.moved(began);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::progress::Recorder;
    use crate::transport::registry::config::RequestLimits;

    fn outage(retry_budget: Option<u64>) -> Outage {
        let retry_budget = retry_budget.map(Duration::from_secs);
        Outage::new(
            "r.io",
            &RequestLimits { retry_budget, ..RequestLimits::default() },
            &(Arc::new(Recorder::default()) as _),
        )
    }

    /// With a budget of 20 s, a frozen registry would otherwise be noticed only after a minute, when the first request
    /// times out.
    #[test]
    fn a_short_budget_asks_for_signs_of_life_sooner() {
        for (budget, quiet, patience) in
            [(None, 15, 30), (Some(120), 15, 30), (Some(20), 5, 10), (Some(10), 3, 7), (Some(0), 3, 7)]
        {
            let rhythm = outage(budget).rhythm();
            assert_eq!((rhythm.quiet.as_secs(), rhythm.patience.as_secs()), (quiet, patience), "{budget:?}");
        }
    }

    #[test]
    fn only_one_of_several_waiting_requests_asks_for_a_sign() {
        let outage = outage(Some(20));
        let asks = || outage.asks_for_sign(outage.rhythm());
        assert!(asks() && !asks());
        outage.gave_no_sign(Instant::now(), "no answer");
        assert!(!asks(), "not at once");
    }

    #[test]
    fn one_missed_sign_proves_nothing_and_a_second_in_a_row_gives_the_registry_up() {
        let outage = outage(Some(0));
        outage.answered(Work::Read);
        let since = Instant::now();
        let is_over = || outage.left_at(Instant::now()).is_err();
        outage.gave_no_sign(since, "no answer");
        outage.is_alive();
        outage.gave_no_sign(since, "no answer");
        assert!(!is_over());
        outage.gave_no_sign(since, "no answer");
        assert!(is_over());
    }
}
