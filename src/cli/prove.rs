//! `gapferry prove`: what a receipt confirms, read back from the registry.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use jiff::Timestamp;
use serde_json::json;

use super::context::Context;
use super::exit::Outcome;
use super::hint;
use super::push::report::named;
use super::receipts;
use super::registry::RegistryArgs;
use super::signing::public;
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Event;
use crate::base::progress::units::{bytes, count, duration};
use crate::oci::{Reference, Repository};
use crate::pipeline::naming::{Target, parse_target};
use crate::pipeline::prove::{Claim, Confirmed, ImageProof, Options, Plan, Prover, State, Verdict};
use crate::pipeline::receipt::{CompanionReceipt, ImageOutcome, Receipt};
use crate::transport::registry::Registries;

const ABOUT: &str = "\
Reads back from a registry, over HTTP, everything that a receipt or an inventory confirms to be there, and proves its digests: a \
check of a registry whose storage is out of reach.

Tags must still mean what they meant; all manifests are read first, which gives the bytes to be read. Each blob is then read to its \
end once: registries keep one copy, and a repository only a name for it. In every other repository its last byte shows that the \
name leads to content of that length; --every-repository reads all of it there too. Mirrors are not asked. Limits of the registry \
are obeyed, and --jobs says how much is read at once.

What was proven is noted in RECEIPT.proving, or in the file of --state: after an interruption the same command goes on, blob by \
blob. The file is removed when all is done, so that the next proof reads everything again.

A tag that was moved or deleted since is one result, and its image is not looked for any further.

Exit code 0: everything was proven. 3: something is wrong, or a manifest or blob is missing. 1: tags were moved or deleted, or \
something could not be read. 4, 5: the registry refused, or could not be reached.";

const AFTER: &str = "\
Examples:
  gapferry import images.tar --to harbor.internal/mirror --receipt receipt.json --prove
  gapferry prove receipt.json
  gapferry prove receipt.json --dry-run
  gapferry prove receipt.json --key ours.pub
  gapferry prove receipt.json --to harbor-copy.internal/mirror
  gapferry prove receipt.json --json | jq -r '.images[] | select(.verdict != \"proven\") | .reference'";

/// More images that are wrong are not shown one by one.
const MOST_SHOWN: usize = 1000;

/// Prove over HTTP that a registry still has what a receipt confirms
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// The receipt of an import or a migration, or an inventory
    receipt: PathBuf,
    /// Refuse a receipt that this public key has not signed
    ///
    /// Repeatable: one of them has to have. The signature stands beside the receipt, in RECEIPT.sig, where --sign-key puts it.
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// Where it is now, if the registry has another name or its images have another prefix
    #[arg(long, value_name = "HOST[:PORT][/PREFIX]")]
    to: Option<String>,
    /// Read every blob in every repository that needs it
    #[arg(long)]
    every_repository: bool,
    /// Ask about tags and manifests, print how much there is to read, and read none of it
    #[arg(long)]
    dry_run: bool,
    /// Note what was proven in this file instead of RECEIPT.proving
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Print one result for each image as JSON
    #[arg(long, help_heading = "Output")]
    json: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    let started = Instant::now();
    args.registry.claim_stdin()?;
    let keys = args.key.iter().map(|key| public(key)).collect::<Result<Vec<_>>>()?;
    let receipt = receipts::read(&args.receipt, &keys, "--key", context)?;
    let from = parse_target(&receipt.target)?;
    let to = args.to.as_deref().map_or_else(|| parse_target(&receipt.target), parse_target)?;
    let (claims, confirmed) = claims(&receipt, &from, &to)?;
    if claims.is_empty() {
        let name = args.receipt.display();
        return Err(Error::input(format!("{name} confirms no image, so there is nothing to prove")));
    }
    let registries = args.registry.connect([to.registry.clone()], &BTreeMap::new(), context)?;
    let state = args.state.clone().unwrap_or_else(|| state_beside(&args.receipt));
    let job = Job {
        registries: &registries,
        registry: &to.registry,
        options: Options { jobs: args.registry.jobs(), every_repository: args.every_repository },
        state: Some(&state),
        dry_run: args.dry_run,
    };
    let proof = job.run(&claims, &confirmed, context).await?;
    if args.json {
        print_json(&receipt.target, args.to.as_deref(), &proof, context)?;
    } else {
        print(&proof, context)?;
        tell_withheld(&proof.plan, context);
        context.say(&summary(&proof, started));
    }
    Ok(outcome(&proof.plan))
}

/// A proof that was asked for.
pub struct Job<'a> {
    pub registries: &'a Registries,
    /// `host[:port]`.
    pub registry: &'a str,
    pub options: Options,
    /// Where to note what was proven; without one an interrupted proof begins anew.
    pub state: Option<&'a Path>,
    pub dry_run: bool,
}

/// What came of it.
pub struct Proof {
    pub plan: Plan,
    pub dry_run: bool,
    /// Bytes of distinct blobs.
    pub bytes: u64,
    /// Those that an earlier run had read.
    pub before: u64,
    /// Bytes that this run has read.
    pub read: u64,
}

impl Job<'_> {
    /// # Errors
    /// What keeps everything from being proven; what was proven is in the state.
    pub async fn run(&self, claims: &[Claim], confirmed: &Confirmed, context: &Context) -> Result<Proof> {
        self.registries.expect(claims.iter().map(|claim| &claim.reference.repository));
        let target = self.registries.itself();
        let prover = Prover { target: &target, options: self.options, events: context.events.clone() };
        let mut plan = prover.plan(claims, confirmed).await?;
        let state = match self.state.filter(|_| !self.dry_run) {
            Some(path) => State::open(path, self.registry, Timestamp::now(), &context.events)?,
            None => State::default(),
        };
        let (ahead, before) = plan.bytes(&state, self.options);
        context.end();
        let (blobs, images) = (count(plan.blobs.len(), "blob"), count(plan.images.len(), "image"));
        context.say(&format!("{} to read: {blobs} of {images}", bytes(ahead)));
        if let Some(begun) = state.earlier() {
            context.say(&format!("{} were proven before; this proof began {begun}", bytes(before)));
        }
        let read = if self.dry_run { 0 } else { prover.read(&mut plan, &state).await? };
        if plan.unplaced > 0 {
            let text = "confirmed, and no image leads there any more: not proven";
            context.events.report(Event::Warning(format!("{} {text}", count(plan.unplaced, "digest"))));
        }
        // Of what could not be read the rest need not be read again.
        if plan.images.iter().all(|image| image.verdict != Verdict::Unread || image.withheld().is_some()) {
            state.finish()?;
        }
        context.end();
        Ok(Proof { plan, dry_run: self.dry_run, bytes: ahead.saturating_add(before), before, read })
    }
}

/// Where an interrupted proof of a receipt is noted.
pub fn state_beside(receipt: &Path) -> PathBuf {
    let mut beside = receipt.as_os_str().to_owned();
    beside.push(".proving");
    beside.into()
}

/// What a receipt says that is there.
fn claims(receipt: &Receipt, from: &Target, to: &Target) -> Result<(Vec<Claim>, Confirmed)> {
    let mut claims = BTreeMap::new();
    for image in &receipt.images {
        let is_there = matches!(image.outcome, ImageOutcome::Pushed | ImageOutcome::Present);
        let (Some(reference), Some(digest), true) = (&image.reference, image.digest, is_there) else { continue };
        let reference = moved(reference, from, to)?;
        let of = |companion: &CompanionReceipt| {
            let tag = companion.tag.clone().map(|tag| reference.repository.with_tag(tag));
            // What the bundle has of a list may be there too, by its digest.
            let meant = companion.meant().map(|meant| [companion.digest, meant]).into_iter().flatten();
            meant.map(move |digest| (tag.clone(), digest)).collect::<Vec<_>>()
        };
        let mut companions: Vec<_> = image.companions.iter().flat_map(of).collect();
        let meant = image.meant().unwrap_or(digest);
        if meant != digest {
            companions.push((Some(reference.clone()), digest));
        }
        companions.dedup();
        let digest = meant;
        claims.insert(reference.clone(), Claim { reference, digest, companions });
    }
    let manifests = || receipt.manifests.iter().map(|kept| &kept.0);
    let referrers = manifests().filter(|manifest| manifest.subject().is_some()).cloned().collect();
    let lists = manifests().map(|manifest| (manifest.digest(), manifest.clone())).collect();
    let digests = receipt.confirmed.iter().copied().collect();
    // Older versions did not write them down.
    let find_companions = receipt.images.iter().all(|image| image.companions.is_empty());
    Ok((claims.into_values().collect(), Confirmed { digests, referrers, lists, find_companions }))
}

/// The name that a reference below `from` has below `to`.
fn moved(reference: &Reference, from: &Target, to: &Target) -> Result<Reference> {
    let (repository, wrong) =
        (&reference.repository, |why| Error::input(format!("the receipt names {reference}: {why}")));
    if repository.registry() != from.registry {
        return Err(wrong(format!("that is not at {}", from.registry)));
    }
    let path = repository.path();
    let below = from.prefix.as_ref().and_then(|prefix| path.strip_prefix(prefix)?.strip_prefix('/'));
    // What an allowlist named otherwise need not be below the prefix.
    let path = match (&to.prefix, below) {
        (Some(prefix), Some(below)) => format!("{prefix}/{below}"),
        (Some(prefix), None) if from.prefix.is_none() => format!("{prefix}/{path}"),
        (None, Some(below)) => below.to_owned(),
        (_, None) => path.to_owned(),
    };
    let repository = Repository::new(&to.registry, &path).map_err(|e| wrong(e.reason))?;
    Ok(Reference { repository, ..reference.clone() })
}

pub fn outcome(plan: &Plan) -> Outcome {
    match () {
        () if plan.count(Verdict::Damaged) > 0 => Outcome::Damaged,
        () if plan.is_proven() => Outcome::Done,
        () => Outcome::SomeImagesFailed,
    }
}

/// Why an image was not proven, as the outcome of its push.
///
/// What a policy alone withholds is there.
pub fn failure(image: &ImageProof) -> Option<Error> {
    if image.withheld().is_some() {
        return None;
    }
    let text = image.problems.join("; ");
    let kind = match image.verdict {
        Verdict::Proven => return None,
        Verdict::Damaged => Kind::Damaged,
        Verdict::Missing | Verdict::Moved => Kind::NotFound,
        Verdict::Unread => Kind::Network,
    };
    let error = Error::new(kind, format!("reading it back: {text}"));
    Some(if kind == Kind::Damaged { error.with_reason(crate::base::error::Reason::DamagedTarget) } else { error })
}

fn print(proof: &Proof, context: &Context) -> Result<()> {
    let is_told = |image: &&ImageProof| image.verdict != Verdict::Proven && image.withheld().is_none();
    let wrong = || proof.plan.images.iter().filter(is_told);
    for image in wrong().take(MOST_SHOWN) {
        let problems: BTreeSet<&String> = image.problems.iter().collect();
        let problems: String = problems.iter().map(|problem| format!("  {problem}\n")).collect();
        context.print(&format!("{} {}\n{problems}", word(image.verdict), image.reference))?;
    }
    match wrong().count().saturating_sub(MOST_SHOWN) {
        0 => Ok(()),
        more => context.print(&format!("and {more} more\n")),
    }
}

/// Images that a policy lets nobody read, one line for each policy.
pub fn tell_withheld(plan: &Plan, context: &Context) {
    let mut policies: BTreeMap<&str, Vec<&Reference>> = BTreeMap::new();
    for image in &plan.images {
        image.withheld().into_iter().for_each(|policy| policies.entry(policy).or_default().push(&image.reference));
    }
    for (policy, images) in policies {
        let (number, names) = (count(images.len(), "image"), named(images));
        let text = format!("{number} not proven ({names}): a policy of the project forbids pulling: {policy}");
        context.failed_image(&text, Some(hint::PULL_POLICY));
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Proven => "proven:",
        Verdict::Moved => "moved:",
        Verdict::Missing => "missing:",
        Verdict::Damaged => "damaged:",
        Verdict::Unread => "not read:",
    }
}

/// One line: how many images ended how.
pub fn summary(proof: &Proof, started: Instant) -> String {
    let plan = &proof.plan;
    let mut parts = Vec::new();
    let proven = if proof.dry_run { "to prove" } else { "proven" };
    for (verdict, word) in [
        (Verdict::Proven, proven),
        (Verdict::Damaged, "damaged"),
        (Verdict::Missing, "missing"),
        (Verdict::Moved, "moved"),
        (Verdict::Unread, "not read"),
    ] {
        match plan.count(verdict) {
            0 if verdict != Verdict::Proven => {}
            number if parts.is_empty() => parts.push(format!("{} {word}", count(number, "image"))),
            number => parts.push(format!("{number} {word}")),
        }
    }
    format!("{}; {} read, {}", parts.join(", "), bytes(proof.read), duration(started.elapsed()))
}

fn print_json(target: &str, to: Option<&str>, proof: &Proof, context: &Context) -> Result<()> {
    context.print_json(&json!({
        "target": to.unwrap_or(target), "dryRun": proof.dry_run, "images": proof.plan.images,
        "blobs": proof.plan.blobs.len(), "bytes": proof.bytes, "provenBefore": proof.before, "read": proof.read,
        "unplaced": proof.plan.unplaced,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_was_renamed_has_the_same_images_below_its_new_prefix() {
        let reference: Reference = "old:1/mirror/team/app:1".parse().unwrap();
        for (from, to, path) in [
            ("old:1/mirror", "new/copy", "new/copy/team/app:1"),
            ("old:1/mirror", "new", "new/team/app:1"),
            ("old:1", "new/copy", "new/copy/mirror/team/app:1"),
            ("old:1/mirror/team", "new/x", "new/x/app:1"),
            ("old:1/other", "new/copy", "new/mirror/team/app:1"),
        ] {
            let (from, to) = (parse_target(from).unwrap(), parse_target(to).unwrap());
            assert_eq!(moved(&reference, &from, &to).unwrap().to_string(), path);
        }
        let (from, to) = (parse_target("elsewhere").unwrap(), parse_target("new").unwrap());
        assert!(moved(&reference, &from, &to).is_err(), "a receipt may not send us anywhere else");
    }
}
