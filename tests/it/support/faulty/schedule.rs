//! Random faults: dice with a seed, and the possible faults of each kind of request.

use std::collections::HashMap;
use std::time::Duration;

use super::{After, Fault, Form, Seen, Stage};

/// Random numbers determined by the seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to `below`, exclusive.
    pub fn below(&mut self, below: usize) -> usize {
        (self.next() % below.max(1) as u64) as usize
    }

    pub fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    /// A random size; small ones are as likely as large ones.
    pub fn size(&mut self) -> usize {
        let bits = self.below(23);
        self.below(1 << bits)
    }

    pub fn choose<T>(&mut self, mut from: Vec<T>) -> T {
        let at = self.below(from.len());
        from.swap_remove(at)
    }
}

/// Faults depend on the seed, the request and how often it came, not on which of several simultaneous requests was
/// faster.
#[derive(Clone, Debug)]
pub struct Schedule {
    seed: u64,
    /// One in this many requests fails.
    one_in: usize,
    /// The maximum number of faults.
    most: usize,
    /// Whether to include faults that no retry can fix and that fail the run.
    severe: bool,
    /// The destination of redirects.
    elsewhere: String,
    asked: HashMap<String, u64>,
}

impl Schedule {
    pub fn new(seed: u64, one_in: usize, most: usize) -> Schedule {
        Schedule { seed, one_in, most, severe: false, elsewhere: String::new(), asked: HashMap::new() }
    }

    pub fn severe(mut self, severe: bool) -> Schedule {
        self.severe = severe;
        self
    }

    /// Redirects some reads to that host.
    pub fn elsewhere(mut self, host: &str) -> Schedule {
        host.clone_into(&mut self.elsewhere);
        self
    }

    pub(super) fn pick(&mut self, request: &Seen) -> Option<Fault> {
        let mut dice = self.dice_for(request);
        if self.most == 0 || !dice.one_in(self.one_in) {
            return None;
        }
        let what = What::of(request);
        let mut choice = self.passing(&mut dice, what);
        if self.severe && dice.one_in(3) {
            choice = severe(&mut dice, what, request);
        }
        if choice.is_empty() {
            return None;
        }
        self.most -= 1;
        Some(dice.choose(choice))
    }

    fn dice_for(&mut self, request: &Seen) -> Dice {
        // An upload's path contains a random name; its digest does not.
        let path = match request.target.split_once("/uploads/") {
            Some((before, rest)) => format!("{before}{}", rest.rsplit("digest=").next().unwrap_or_default()),
            None => request.target.clone(),
        };
        let key = format!("{} {path}", request.method);
        let times = self.asked.entry(key.clone()).or_default();
        *times += 1;
        let mixed = key.bytes().fold(self.seed, |mixed, byte| Dice::new(mixed ^ u64::from(byte)).next());
        Dice::new(mixed ^ *times)
    }

    /// Faults that a patient client survives: half of them any request's faults, half those of this kind.
    fn passing(&self, dice: &mut Dice, what: What) -> Vec<Fault> {
        let own = self.passing_of(dice, what);
        if !own.is_empty() && dice.one_in(2) {
            return own;
        }
        let transient = dice.choose(vec![500, 502, 503, 504, 408]);
        let mut faults = vec![
            Fault::Reset(Stage::Request),
            Fault::Reset(Stage::BeforeAnswer),
            Fault::Reset(Stage::Headers),
            Fault::Status(transient),
            Fault::ExpireTokens,
            Fault::Unauthorized,
        ];
        if dice.one_in(6) {
            faults.push(Fault::TooMany(After::Seconds(1)));
            faults.push(Fault::TooMany(After::Date(Duration::from_secs(1))));
        }
        faults
    }

    fn passing_of(&self, dice: &mut Dice, what: What) -> Vec<Fault> {
        let mut faults = Vec::new();
        if what.is_read() {
            faults.push(Fault::Reset(Stage::Body(dice.size())));
            faults.push(Fault::Truncate(dice.size()));
            faults.push(Fault::Drip(1 + dice.below(20)));
        }
        match what {
            What::Blob => {
                faults.extend([Fault::IgnoreRange, Fault::WrongRange, Fault::WrongType("text/plain")]);
                if !self.elsewhere.is_empty() {
                    faults.extend(vec![Fault::Redirect(self.elsewhere.clone()); 2]);
                }
            }
            What::Upload => {
                let at = dice.size();
                faults.extend([Fault::Reset(Stage::RequestBody(at)), Fault::Cancelled, Fault::Hasty(503)]);
            }
            What::Session => faults.extend([Form::Relative, Form::Absolute, Form::Changing].map(Fault::Location)),
            _ => {}
        }
        faults
    }
}

/// Faults that a client may believe and report; a later run must recover.
fn severe(dice: &mut Dice, what: What, request: &Seen) -> Vec<Fault> {
    let mut faults = vec![Fault::Page, Fault::Status(403), Fault::Stall(Stage::BeforeAnswer)];
    if what.is_read() {
        faults.extend([Fault::Stall(Stage::Body(dice.size())), Fault::RedirectLoop]);
    }
    if matches!(what, What::Blob | What::Manifest) {
        let extra = 1 + dice.below(100);
        faults.extend([Fault::WrongDigest, Fault::WrongLength(-1), Fault::WrongLength(7), Fault::ExtraBytes(extra)]);
    }
    match what {
        What::Blob => faults.extend([Fault::Status(404), Fault::Status(416)]),
        What::Upload => {
            let at = dice.size();
            faults.extend([Fault::Hasty(413), Fault::WrongDigest, Fault::Stall(Stage::RequestBody(at))]);
        }
        // A registry can detect a wrong manifest only if its digest is in the path; under a tag, it stores what was
        // sent.
        What::Stored if request.target.contains("sha256:") => faults.push(Fault::WrongDigest),
        What::Stored => faults.push(Fault::Status(412)),
        // "Not there" about an image's referrers cannot be distinguished from the truth.
        What::Manifest if !request.target.contains("sha256") => faults.push(Fault::Status(404)),
        _ => {}
    }
    faults
}

/// What a request is about.
#[derive(Clone, Copy, PartialEq)]
enum What {
    Blob,
    Manifest,
    Tags,
    Upload,
    Session,
    Stored,
    Other,
}

impl What {
    fn of(request: &Seen) -> What {
        let path = request.target.as_str();
        match request.method.as_str() {
            "POST" if path.contains("/blobs/uploads/") => What::Session,
            "PUT" | "PATCH" if path.contains("/blobs/uploads/") => What::Upload,
            "PUT" if path.contains("/manifests/") => What::Stored,
            "GET" if path.contains("/blobs/") => What::Blob,
            "GET" if path.contains("/manifests/") => What::Manifest,
            "GET" if path.contains("/tags/list") => What::Tags,
            _ => What::Other,
        }
    }

    fn is_read(self) -> bool {
        matches!(self, What::Blob | What::Manifest | What::Tags)
    }
}
