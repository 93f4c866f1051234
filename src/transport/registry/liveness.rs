//! Watches the registry while a request waits for its answer: asks the registry for signs of life, ends the wait when
//! the registry is given up, and reports an answer that takes unusually long.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::header::HeaderMap;

use super::call::{Call, Payload};
use super::failure::{Failure, may_be_down};
use super::outage::{Outage, ServerWork, Work, given_up};
use super::unanswered::silence;
use super::upload_body::UploadWatch;
use super::wire::Wire;
use crate::base::error::Result;
use crate::base::progress::Event;
use crate::base::progress::units::duration;

/// An answer to sent content that takes longer than this is reported.
const LONG: Duration = Duration::from_secs(30);
/// How often a running upload is checked.
const LOOK: Duration = Duration::from_millis(500);

impl Wire {
    /// Returns the result of `waiting`, unless `server` is given up first. If `server` is the registry, it is meanwhile
    /// asked for signs of life when nothing has come from it for a while, because it may otherwise take long to notice
    /// that it is gone.
    pub async fn unless_given_up<T>(
        &self,
        server: Option<&ServerWork>,
        what: &str,
        waiting: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let Some(server) = server else { return waiting.await };
        // Without a budget nothing is given up; signs are then asked for only on behalf of requests that may take long.
        let may_end = self.limits.retry_budget.is_some() || server.work >= Work::Begin;
        let listens = may_end && Arc::ptr_eq(&server.outage, &self.outage);
        tokio::select! {
            biased;
            // First: once the server is given up, nothing more is sent.
            stopped = server.outage.over() => Err(Failure::never(given_up(what, stopped))),
            done = waiting => done,
            never = self.listen(&server.outage), if listens => match never {},
        }
    }

    async fn listen(&self, outage: &Outage) -> Infallible {
        let (since, rhythm) = (Instant::now(), outage.rhythm());
        loop {
            let known = self.home.get().map(|_| rhythm.quiet);
            // A host that has never answered gets the budget at most.
            let quiet = known.or_else(|| outage.patience_with_unknown(since)).unwrap_or(rhythm.quiet).min(rhythm.quiet);
            if let Some(left) = quiet.checked_sub(outage.quiet_for(since)).filter(|left| !left.is_zero()) {
                tokio::time::sleep(left).await;
                continue;
            }
            match self.home.get().and_then(|home| home.join("/v2/").ok()) {
                Some(url) if outage.asks_for_sign(rhythm) => {
                    self.ask_for_sign(outage, since, url, rhythm.patience).await
                }
                Some(_) => {}
                // This is the first request to the host.
                None => {
                    let Some(left) = outage.patience_with_unknown(since) else { return std::future::pending().await };
                    tokio::time::sleep(left).await;
                    outage.is_silent(since, "there was no answer");
                }
            }
            tokio::time::sleep(rhythm.quiet).await;
        }
    }

    async fn ask_for_sign(&self, outage: &Outage, since: Instant, url: reqwest::Url, patience: Duration) {
        let what = "asking whether the registry is up";
        let (method, headers, body) = (Method::GET, HeaderMap::new(), Payload::none());
        let call = Call { method, url, headers, body, authorization: None, what };
        let asked = Instant::now();
        let sign = tokio::time::timeout(patience, self.status(call)).await;
        match sign.unwrap_or_else(|_| Err(silence(what, patience, "", None))) {
            // A gateway that cannot reach the registry ends the waiting request as well.
            Ok(status) if may_be_down(status) => {}
            Ok(_) => outage.is_alive(),
            // Something else has come from the registry meanwhile.
            Err(_) if outage.is_heard_since(asked) => {}
            Err(failure) => {
                let why = failure.error.chain();
                outage.gave_no_sign(since, why.strip_prefix(what).map_or(&*why, |why| why.trim_start_matches(": ")));
            }
        }
    }

    /// Warns when the answer to an uploaded blob or manifest takes long while the registry answers other requests.
    /// `patience` is the whole time that the answer may take once everything is sent. Never returns.
    pub async fn report_if_long(
        &self,
        server: Option<&ServerWork>,
        what: &str,
        upload: Option<&UploadWatch>,
        patience: Duration,
    ) -> Infallible {
        let Some(server) = server.filter(|server| server.work == Work::Complete) else {
            return std::future::pending().await;
        };
        while upload.is_some_and(|upload| !upload.is_sent()) {
            tokio::time::sleep(LOOK).await;
        }
        let since = Instant::now();
        tokio::time::sleep(LONG).await;
        let line = long_wait(server, what, since, patience);
        line.into_iter().for_each(|text| self.events.report(Event::Warning(text)));
        std::future::pending().await
    }
}

/// The line for a request whose answer has taken [`LONG`] since `since`, if one is due. No line is due while the server
/// answers nothing, because that is reported elsewhere, and at most one at a time for each server.
fn long_wait(server: &ServerWork, what: &str, since: Instant, patience: Duration) -> Option<String> {
    let (outage, left) = (&server.outage, patience.saturating_sub(LONG));
    let answers = outage.is_heard_since(since) && outage.quiet_for(since) < LONG * 2 / 3;
    if left.is_zero() || !answers || !outage.is_news(left) {
        return None;
    }
    let (place, long, left) = (outage.place(), duration(LONG), duration(left));
    Some(format!(
        "{what}: {place} received everything {long} ago and has not confirmed it, although it answers other requests; waiting up to \
         {left} more"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::progress::Recorder;
    use crate::transport::registry::config::RequestLimits;

    /// Without a line for a quarter of an hour, gapferry would seem to hang.
    #[test]
    fn an_answer_that_takes_long_is_reported_once_while_the_server_answers_other_requests() {
        let outage = Arc::new(Outage::new("r.io", &RequestLimits::default(), &(Arc::new(Recorder::default()) as _)));
        let server = ServerWork { outage: outage.clone(), work: Work::Complete };
        let tell = |since| long_wait(&server, "uploading x", since, Duration::from_secs(900));
        let since = Instant::now();
        assert_eq!(tell(since), None, "the server answers nothing");
        outage.answered(Work::Read);
        assert_eq!(long_wait(&server, "uploading x", since, LONG), None, "no time is left");
        let text = tell(since).unwrap();
        assert!(
            text.starts_with("uploading x: r.io received everything 30.0 s ago and has not confirmed it"),
            "{text}"
        );
        assert!(text.ends_with("waiting up to 14 min 30 s more"), "{text}");
        assert_eq!(tell(since), None, "one line is enough for all requests");
    }
}
