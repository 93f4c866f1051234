//! One round: an export and an import, each repeated until it succeeds.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use rustix::process::Signal;

use crate::soak::campaign::Tally;
use crate::soak::process::{End, Kill, program, run};
use crate::soak::test_site::{TestSite, look, prove};
use crate::support::faulty::{Dice, Proxy, Schedule};
use crate::support::registry::Registry;
use crate::support::tempdir;

/// In this many runs, any fault may happen.
const SEVERE: usize = 4;
/// In this many runs there are faults and kills at all.
const DISTURBED: usize = 6;
/// After this many runs the job must be done.
const MOST: usize = 8;

struct Round<'a> {
    site: &'a TestSite,
    dice: Dice,
    tally: Tally,
    /// The events so far, for the analysis of a failure.
    story: String,
}

/// Plays the round to its end.
///
/// # Errors
/// A description of the forbidden state that was seen.
pub fn play(site: &TestSite, number: u64, dice: Dice) -> Result<Tally, String> {
    let directory = tempdir();
    let mut round = Round { site, dice, tally: Tally { rounds: 1, ..Tally::default() }, story: String::new() };
    let out = directory.path().join(if round.dice.one_in(2) { "out.tar" } else { "out" });
    if let Err(what) = round.export(&out).and_then(|()| round.import(&out)) {
        return Err(format!("{what}\n{}", round.story));
    }
    let leaked = site.proxy.elsewhere().seen().iter().any(|request| !request.header("authorization").is_empty());
    match leaked {
        true => Err(format!("round {number}: a redirect took credentials to another host")),
        false => Ok(round.tally),
    }
}

impl Round<'_> {
    fn export(&mut self, out: &Path) -> Result<(), String> {
        let mut arguments = vec!["export".to_owned(), "-o".into(), out.display().to_string()];
        match self.dice.one_in(2) {
            true => arguments.extend(["--locked".into(), self.site.lock.display().to_string()]),
            false => {
                // Without it, a bundle may record that attached artifacts are unknown.
                arguments.push("--require-referrers".into());
                arguments.extend(self.site.references.iter().cloned());
            }
        }
        let (site, mut looks) = (self.site, 0);
        let outcome = self.until_done(&site.proxy, arguments, 40, || {
            if !out.exists() {
                return Ok(());
            }
            looks += 1;
            site.check_bundle(out)
        });
        self.tally.looks += looks;
        outcome?;
        site.check_bundle(out)?;
        let beside: Vec<_> =
            std::fs::read_dir(out.parent().expect("a directory")).expect("listing").flatten().collect();
        if beside.len() > 1 {
            return Err(format!("left beside the bundle: {beside:?}"));
        }
        self.verify(out)
    }

    fn verify(&self, out: &Path) -> Result<(), String> {
        let output = program().arg("verify").arg(out).output().map_err(|e| e.to_string())?;
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("verify: {}", String::from_utf8_lossy(&output.stdout))),
        }
    }

    fn import(&mut self, bundle: &Path) -> Result<(), String> {
        let target = Registry::start();
        let proxy = Proxy::with_tokens(target.host());
        let arguments = vec!["import".to_owned(), bundle.display().to_string(), "--to".into(), proxy.address.clone()];
        let (images, mut turn) = (&self.site.images, 0);
        self.until_done(&proxy, arguments, 90, || {
            turn += 1;
            look(target.host(), &images[turn % images.len()]).map(drop)
        })?;
        self.tally.looks += turn as u64;
        for image in images {
            if !look(target.host(), image)? {
                return Err(format!("{} is not at the target", image.name()));
            }
            prove(target.host(), image)?;
        }
        if proxy.elsewhere().seen().iter().any(|request| !request.header("authorization").is_empty()) {
            return Err("a redirect took credentials to another host".to_owned());
        }
        Ok(())
    }

    /// Runs the program repeatedly with fewer and fewer faults; the last runs have none.
    fn until_done(
        &mut self,
        proxy: &Proxy,
        arguments: Vec<String>,
        requests: usize,
        mut watch: impl FnMut() -> Result<(), String>,
    ) -> Result<(), String> {
        let mut message = String::new();
        for attempt in 0..MOST {
            let before = proxy.done().len();
            proxy.schedule(self.schedule(attempt, proxy));
            let kill = (attempt < DISTURBED && !self.dice.one_in(3)).then(|| Kill::by(&mut self.dice, requests));
            let mut arguments = arguments.clone();
            arguments.extend(["-j".into(), (1 + self.dice.below(6)).to_string()]);
            let ended = run(&arguments, proxy, kill, &mut watch);
            proxy.schedule(None);
            for (request, fault) in proxy.done().drain(before..) {
                Tally::count(&mut self.tally.faults, fault.name());
                self.story += &format!("    {fault:?}: {request}\n");
            }
            let end = ended?;
            let code = (end.status, end.signal);
            self.story += &format!("  {}: {code:?}\n{}", arguments[0], end.message);
            watch()?;
            self.check_end(&arguments[0], &end, &proxy.address)?;
            if end.status.code() == Some(0) {
                return Ok(());
            }
            message = end.message;
        }
        Err(format!("not done after {MOST} runs, the last ones undisturbed\n{message}"))
    }

    fn schedule(&mut self, attempt: usize, proxy: &Proxy) -> Option<Schedule> {
        let (seed, one_in, most) = (self.dice.next(), 5 + self.dice.below(20), 3 + self.dice.below(15));
        let severe = attempt < SEVERE && self.dice.one_in(2);
        let schedule = Schedule::new(seed, one_in, most).severe(severe).elsewhere(&proxy.elsewhere().address);
        (attempt < DISTURBED).then_some(schedule)
    }

    /// Checks that a run ended by its signal, or with an exit code for an injected fault and a message that names it.
    fn check_end(&mut self, command: &str, end: &End, proxy: &str) -> Result<(), String> {
        let sent = end.signal.map(|signal| match signal {
            Signal::KILL => "SIGKILL",
            Signal::TERM => "SIGTERM",
            _ => "SIGINT",
        });
        let what = match (end.status.code(), end.status.signal()) {
            (Some(0), _) => "done".to_owned(),
            (Some(code @ (1 | 3 | 4 | 5)), _) if end.message.contains(proxy) => format!("exit code {code}"),
            (Some(130), _) if end.signal == Some(Signal::INT) => "exit code 130 after SIGINT".to_owned(),
            (Some(143), _) if end.signal == Some(Signal::TERM) => "exit code 143 after SIGTERM".to_owned(),
            // The signal arrived before the handlers were installed.
            (None, Some(signal)) if end.signal.is_some_and(|sent| sent.as_raw() == signal) => {
                sent.unwrap_or("?").to_owned()
            }
            _ => return Err(format!("{command} ended with {:?} after {sent:?}, saying\n{}", end.status, end.message)),
        };
        Tally::count(&mut self.tally.ends, format!("{command}: {what}"));
        Ok(())
    }
}
