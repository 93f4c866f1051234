//! The choice of requests that a fault hits.

use super::{Fault, Host, Seen};

/// A fault for matching requests.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    method: String,
    part: String,
    /// The number of matching requests to spare, and the number to hit after them.
    spared: usize,
    hit: usize,
    fault: Fault,
}

impl Rule {
    fn fits(&self, request: &Seen) -> bool {
        (self.method == "*" || self.method == request.method) && request.target.contains(&self.part)
    }
}

/// The first rule whose turn it is; every matching rule counts the request.
pub(super) fn pick(rules: &mut [Rule], request: &Seen) -> Option<Fault> {
    let mut picked = None;
    for rule in rules.iter_mut().filter(|rule| rule.fits(request)) {
        if rule.spared > 0 {
            rule.spared -= 1;
        } else if rule.hit > 0 && picked.is_none() {
            rule.hit -= 1;
            picked = Some(rule.fault.clone());
        }
    }
    picked
}

/// A rule under construction: by default it hits the first matching request, once.
pub struct When<'a> {
    host: &'a Host,
    rule: Rule,
}

impl<'a> When<'a> {
    pub(super) fn new(host: &'a Host, method: &str, part: &str) -> When<'a> {
        let (method, part) = (method.to_owned(), part.to_owned());
        When { host, rule: Rule { method, part, spared: 0, hit: 1, fault: Fault::Page } }
    }

    /// Starts with the `n`th matching request, counted from 1 and from now.
    pub fn nth(mut self, n: usize) -> When<'a> {
        self.rule.spared = n - 1;
        self
    }

    pub fn times(mut self, times: usize) -> When<'a> {
        self.rule.hit = times;
        self
    }

    pub fn always(self) -> When<'a> {
        self.times(usize::MAX)
    }

    pub fn fault(mut self, fault: Fault) {
        self.rule.fault = fault;
        self.host.add(self.rule);
    }
}
