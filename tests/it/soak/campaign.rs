//! Many rounds on several lanes, and their totals.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::soak::round;
use crate::soak::test_site::TestSite;
use crate::support::faulty::Dice;

/// The parameters of a campaign.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    pub seed: u64,
    /// The number of the first round; with `rounds: 1`, only that round is played.
    pub first: u64,
    pub rounds: u64,
    /// No round starts after this time.
    pub at_most: Duration,
    /// The number of rounds that run at the same time.
    pub lanes: usize,
}

/// The counts so far.
#[derive(Default)]
pub struct Tally {
    pub rounds: u64,
    /// The number of program runs, by their outcome.
    pub ends: BTreeMap<String, u64>,
    /// The injected faults.
    pub faults: BTreeMap<String, u64>,
    /// The number of checks for complete images while they were being made.
    pub looks: u64,
}

impl Campaign {
    /// The parameters set by `scripts/soak`.
    pub fn from_environment() -> Campaign {
        let number = |name: &str| {
            let text = std::env::var(format!("GAPFERRY_SOAK_{name}")).ok()?;
            Some(text.parse::<u64>().unwrap_or_else(|e| panic!("GAPFERRY_SOAK_{name}={text}: {e}")))
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
        Campaign {
            seed: number("SEED").unwrap_or(now),
            first: number("FIRST").unwrap_or(0),
            rounds: number("ROUNDS").unwrap_or(500),
            at_most: Duration::from_secs(number("SECONDS").unwrap_or(3600)),
            lanes: number("LANES").unwrap_or(4) as usize,
        }
    }

    /// Panics with the seed and the round if something is wrong.
    pub fn run(&self) {
        let started = Instant::now();
        println!("seed {}: at most {} rounds in {} s", self.seed, self.rounds, self.at_most.as_secs());
        let (next, failed) = (AtomicU64::new(self.first), AtomicBool::new(false));
        let (tally, failures) = (Mutex::new(Tally::default()), Mutex::new(Vec::new()));
        let lane = || {
            let site = TestSite::new(self.seed);
            while !failed.load(Ordering::SeqCst) && started.elapsed() < self.at_most {
                let number = next.fetch_add(1, Ordering::SeqCst);
                if number >= self.first + self.rounds {
                    return;
                }
                let played = round::play(&site, number, self.dice(number));
                let mut tally = tally.lock().expect("the tally");
                match played {
                    Ok(one) => tally.add(one),
                    Err(what) => {
                        failed.store(true, Ordering::SeqCst);
                        failures.lock().expect("the failures").push((number, what));
                    }
                }
                if tally.rounds.is_multiple_of(25) && tally.rounds > 0 {
                    println!("{:6.0} s  {tally}", started.elapsed().as_secs_f32());
                }
            }
        };
        std::thread::scope(|scope| (0..self.lanes.max(1)).for_each(|_| drop(scope.spawn(lane))));
        let tally = tally.into_inner().expect("the tally");
        println!("{:6.0} s  {tally}\n{}", started.elapsed().as_secs_f32(), tally.details());
        let failures = failures.into_inner().expect("the failures");
        for (number, what) in &failures {
            println!("FAILED  seed {} round {number}: {what}", self.seed);
        }
        let again = failures.first().map(|(number, _)| format!("scripts/soak --seed {} --round {number}", self.seed));
        assert!(failures.is_empty(), "to reproduce: {}", again.unwrap_or_default());
        assert!(tally.rounds > 0, "no round was played");
    }

    fn dice(&self, number: u64) -> Dice {
        Dice::new(Dice::new(self.seed).next() ^ number.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }
}

impl Tally {
    pub fn count(counts: &mut BTreeMap<String, u64>, what: impl Into<String>) {
        *counts.entry(what.into()).or_default() += 1;
    }

    fn add(&mut self, other: Tally) {
        self.rounds += other.rounds;
        self.looks += other.looks;
        for (mine, its) in [(&mut self.ends, other.ends), (&mut self.faults, other.faults)] {
            its.into_iter().for_each(|(what, times)| *mine.entry(what).or_default() += times);
        }
    }

    fn details(&self) -> String {
        let lines = |title: &str, counts: &BTreeMap<String, u64>| {
            let lines: String = counts.iter().map(|(what, times)| format!("  {times:6}  {what}\n")).collect();
            format!("{title}:\n{lines}")
        };
        lines("runs", &self.ends) + &lines("faults", &self.faults)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (runs, faults): (u64, u64) = (self.ends.values().sum(), self.faults.values().sum());
        let killed: u64 = self.ends.iter().filter(|(end, _)| end.contains("SIG")).map(|(_, times)| times).sum();
        write!(
            f,
            "{} rounds: {runs} runs, {killed} of them stopped by a signal, {faults} faults, {} looks; \
             no wrong or half image",
            self.rounds, self.looks
        )
    }
}
