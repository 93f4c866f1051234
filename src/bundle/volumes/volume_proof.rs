//! Proves volumes by the digests of their bundle. A reconstructed volume must pass before it gets a name, and a volume that
//! passes is never replaced.
//!
//! # Threats
//! Every volume may be forged, and so may the recovery volumes it was computed from, because no signature covers them. The
//! content of a volume is proven by the `bundle.json` with the digest of the set's identity, and its description by its
//! content. A cut file is proven as a whole, from its segment in the volume in question and those in the others. Signatures
//! are in no list: they must be by an accepted key, or equal those of another volume.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::VolumeFile;
use super::assemble::pieces_of;
use super::opened::{OpenedPath, SetId, Volume, id_of, look};
use super::set::is_held;
use crate::base::error::Result;
use crate::base::progress::{Event, Events, Phase};
use crate::bundle::format::{FileEntry, sums};
use crate::bundle::open::json_of;
use crate::bundle::sums::MAX_SUMS;
use crate::bundle::tar_plan::BLOCK;
use crate::bundle::{
    BUNDLE_JSON, BundleJson, MAX_SIGNATURE, MOST_SIGNATURES, Proven, SUMS, VOLUMES, is_signature, signatures_of,
    signed_file,
};
use crate::content::chunks::Chunks;
use crate::content::proof::{Hashed, Hashing, Unproven, Wrong, prove};
use crate::content::{Slice, in_parallel};
use crate::files::{Layout, Piece};
use crate::oci::{Algorithm, Digest};
use crate::signing::{is_well_formed, signature_in};

/// A volume to prove, or that helps to prove others.
#[derive(Clone, Debug)]
pub struct GivenVolume {
    pub number: u32,
    pub path: PathBuf,
    /// Whether it was computed from recovery volumes, and therefore does not confirm signatures.
    pub is_made: bool,
}

/// Why a volume is not proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeProblem {
    pub volume: PathBuf,
    /// A file in it, or of the bundle.
    pub file: String,
    pub what: String,
}

impl VolumeProblem {
    /// Logs why a volume counts as damaged.
    fn note(&self) {
        tracing::debug!("{}: {} {}", self.volume.display(), self.file, self.what);
    }
}

/// The entries that a volume may have: its own files, declared files of the bundle, segments that it lists, and signatures.
pub struct VolumeEntries<'v> {
    label: &'v str,
    segments: HashMap<String, &'v VolumeFile>,
}

impl<'v> VolumeEntries<'v> {
    pub fn of(volume: &'v Volume) -> VolumeEntries<'v> {
        let segments = volume.json.files.iter().filter(|file| file.segment.is_some());
        let segments = segments.map(|file| (file.stored_path(), file)).collect();
        VolumeEntries { label: &volume.label, segments }
    }

    /// `is_declared` says whether `bundle.json` declares the file. The volume's own sums prove nothing here.
    pub fn may_have(&self, path: &str, is_declared: impl Fn(&str) -> bool) -> bool {
        if let Some(file) = self.segments.get(path) {
            return is_declared(&file.path);
        }
        let own = path.strip_prefix(VOLUMES).and_then(|name| name.strip_prefix(self.label));
        let is_own = matches!(own, Some(".json" | ".b3" | ".sha256"));
        is_own || matches!(path, BUNDLE_JSON | SUMS) || is_signature(path) || is_declared(path)
    }
}

/// A file of which the volume `at` has a segment.
struct Joined<'p> {
    at: usize,
    file: &'p FileEntry,
    pieces: Vec<Piece>,
}

/// The volumes of one set.
pub struct VolumeProof<'k> {
    set: SetId,
    volumes: Vec<Volume>,
    /// In the same order.
    layouts: Vec<Layout>,
    /// The paths of computed volumes.
    made: HashSet<PathBuf>,
    bundle: BundleJson,
    signed: Option<&'k Proven>,
    events: &'k Events,
}

/// What was read of a file in a volume.
struct Read {
    sha256: Hashed,
    /// Different only if the bundle declares it with a digest of another algorithm.
    hashed: Hashed,
    chunks: Chunks,
}

impl<'k> VolumeProof<'k> {
    /// Opens these volumes, each of which must be the volume with its number in the `set`. In a `signed` bundle, a signature
    /// by an accepted key proves itself.
    ///
    /// # Errors
    /// One of them is not, or none has the `bundle.json` of the set.
    pub fn open(
        given: &[GivenVolume],
        set: SetId,
        signed: Option<&'k Proven>,
        events: &'k Events,
    ) -> Result<VolumeProof<'k>, VolumeProblem> {
        let (mut volumes, mut layouts) = (Vec::new(), Vec::new());
        for GivenVolume { number, path, .. } in given {
            let fault = |what: String| VolumeProblem {
                volume: path.clone(),
                file: "its description of itself".to_owned(),
                what,
            };
            match look(path, false) {
                Ok(OpenedPath::Volume(volume, layout))
                    if id_of(&volume.json) == set && volume.json.number == *number =>
                {
                    volumes.push(volume);
                    layouts.push(layout);
                }
                Ok(OpenedPath::Volume(Volume { json, .. }, _)) => {
                    let (of, identity) = (json.of, json.identity);
                    return Err(fault(format!("belongs to volume {} of {of} of {identity}", json.number)));
                }
                Ok(OpenedPath::Broken(broken)) => return Err(fault(format!("cannot be read: {}", broken.why))),
                Ok(OpenedPath::Recovery(_) | OpenedPath::Other(..)) => return Err(fault("is not there".to_owned())),
                Err(error) => return Err(fault(format!("cannot be read: {}", error.chain()))),
            }
        }
        let volume = given.first().map_or_else(PathBuf::new, |given| given.path.clone());
        let fault = |what: String| VolumeProblem { volume: volume.clone(), file: BUNDLE_JSON.to_owned(), what };
        let json = layouts.iter().find_map(|layout| json_of(layout, set.identity));
        let json = json.ok_or_else(|| fault(format!("does not match {}", set.identity)))?;
        let bundle = BundleJson::parse(&json, BUNDLE_JSON).map_err(|error| fault(error.chain()))?;
        let made = given.iter().filter(|given| given.is_made).map(|given| given.path.clone()).collect();
        Ok(VolumeProof { set, volumes, layouts, made, bundle, signed, events })
    }

    /// The good volumes: each by itself, and cut files together with the volumes that are good by themselves or not in
    /// question. If all volumes of the set are among them and some files are still missing, none is good.
    pub fn good(mut self, in_question: &[&Path]) -> HashSet<PathBuf> {
        let alone = |path: &&&Path| self.alone(path).inspect_err(VolumeProblem::note).is_ok();
        let mut good: HashSet<PathBuf> = in_question.iter().filter(alone).map(|path| path.to_path_buf()).collect();
        self.retain(in_question, &good);
        for fault in self.together(in_question) {
            fault.note();
            good.remove(&fault.volume);
        }
        self.retain(in_question, &good);
        match self.lacking() {
            Some(fault) => {
                fault.note();
                HashSet::new()
            }
            None => good,
        }
    }

    /// Drops those in question that are not good.
    fn retain(&mut self, in_question: &[&Path], good: &HashSet<PathBuf>) {
        let in_question: HashSet<&Path> = in_question.iter().copied().collect();
        let is_kept = |path: &Path| good.contains(path) || !in_question.contains(path);
        let all = self.volumes.drain(..).zip(self.layouts.drain(..));
        (self.volumes, self.layouts) = all.filter(|(volume, _)| is_kept(&volume.path)).unzip();
    }

    fn at(&self, path: &Path) -> Option<usize> {
        self.volumes.iter().position(|volume| volume.path == path)
    }

    /// Proves every byte of this volume, as far as no other volume is needed.
    ///
    /// # Errors
    /// The first problem.
    pub fn alone(&self, path: &Path) -> Result<(), VolumeProblem> {
        let Some(at) = self.at(path) else { return Ok(()) };
        One { proof: self, volume: &self.volumes[at], layout: &self.layouts[at] }.check()?;
        if self.made.contains(path) {
            self.manifests(at)?;
        }
        self.signatures(at)
    }

    /// A computed volume has the manifests that every volume repeats.
    fn manifests(&self, at: usize) -> Result<(), VolumeProblem> {
        let repeated = |at: usize| -> BTreeSet<&str> {
            let listed: HashSet<&str> = self.volumes[at].json.files.iter().map(|file| file.path.as_str()).collect();
            let blobs = self.layouts[at].entries().map(|(path, _)| path).filter(|path| path.starts_with("blobs/"));
            blobs.filter(|path| !listed.contains(path)).collect()
        };
        let Some(other) = self.volumes.iter().position(|volume| !self.made.contains(&volume.path)) else {
            return Ok(());
        };
        match repeated(other).difference(&repeated(at)).next() {
            Some(path) => Err(self.fault(at, path, "is missing, and the other volumes have it".to_owned())),
            None => Ok(()),
        }
    }

    /// Proves every file of the bundle of which one of these volumes has a segment, and returns the problems. If segments are
    /// missing, the file is skipped, except in a computed volume.
    pub fn together(&self, paths: &[&Path]) -> Vec<VolumeProblem> {
        let (segments, declared) = (self.segments(), self.declared());
        let (mut files, mut faults) = (Vec::new(), Vec::new());
        for at in paths.iter().filter_map(|path| self.at(path)) {
            let Volume { path, json, .. } = &self.volumes[at];
            for file in json.files.iter().filter(|file| file.segment.is_some()) {
                let pieces = segments.get(&*file.path).and_then(|all| self.pieces(all, at));
                match (pieces, declared.get(&*file.path)) {
                    (Some(pieces), Some(file)) => files.push(Joined { at, file, pieces }),
                    _ if self.made.contains(path) => {
                        faults.push(self.fault(at, &file.path, "cannot be assembled from its segments".to_owned()));
                    }
                    _ => {}
                }
            }
        }
        let bytes = files.iter().map(|joined| joined.file.size).fold(0, u64::saturating_add);
        self.events.report(Event::Phase { phase: Phase::Recheck, items: files.len() as u64, bytes });
        // With many volumes, each file is proven once.
        let mut found: HashMap<&[Piece], Option<String>> = HashMap::new();
        for Joined { file, pieces, .. } in &files {
            if !found.contains_key(&pieces[..]) {
                found.insert(pieces, self.wrong(file, pieces));
            }
            self.events.report(Event::ItemDone);
        }
        let fault = |Joined { at, file, pieces }: &Joined| {
            let what = found.get(&pieces[..])?.clone()?;
            Some(self.fault(*at, &file.path, what))
        };
        faults.extend(files.iter().filter_map(fault));
        faults
    }

    /// The problem of a file joined from these pieces.
    fn wrong(&self, file: &FileEntry, pieces: &[Piece]) -> Option<String> {
        let Some(slice) = self.slice(pieces) else { return Some("cannot be read".to_owned()) };
        match prove(&slice, &file.digest, &|bytes| self.advance(bytes)) {
            Ok(()) if slice.size() == file.size => None,
            Ok(()) => Some(format!("has {} bytes", slice.size())),
            Err(Unproven::Wrong(Wrong { found, .. })) => Some(format!("has the digest {found}")),
            Err(Unproven::Unreadable(error)) => Some(format!("cannot be read: {error}")),
        }
    }

    /// A file of the bundle that these volumes lack although all numbers of the set are among them. A computed volume is to
    /// blame, if there is one.
    pub fn lacking(&self) -> Option<VolumeProblem> {
        let numbers: HashSet<u32> = self.volumes.iter().map(|volume| volume.json.number).collect();
        if numbers.len() < self.set.of as usize {
            return None;
        }
        let there: HashSet<(&str, u64)> = self.layouts.iter().flat_map(Layout::entries).collect();
        let segments = self.segments();
        let is_joined = |file: &FileEntry| {
            let pieces = segments.get(&*file.path).and_then(|all| self.pieces(all, 0));
            pieces.and_then(|pieces| self.slice(&pieces)).is_some_and(|slice| slice.size() == file.size)
        };
        let is_there = |file: &FileEntry| there.contains(&(&*file.path, file.size)) || is_joined(file);
        let lost = self.bundle.files.iter().find(|file| !is_there(file))?;
        let at = self.volumes.iter().position(|volume| self.made.contains(&volume.path)).unwrap_or_default();
        Some(self.fault(at, &lost.path, "would be in no volume".to_owned()))
    }

    fn fault(&self, at: usize, file: &str, what: String) -> VolumeProblem {
        let volume = self.volumes.get(at).map_or_else(PathBuf::new, |volume| volume.path.clone());
        VolumeProblem { volume, file: file.to_owned(), what }
    }

    fn declared(&self) -> HashMap<&str, &FileEntry> {
        self.bundle.files.iter().map(|file| (file.path.as_str(), file)).collect()
    }

    /// All segments by their file, each with the index of its volume.
    fn segments(&self) -> HashMap<&str, Vec<(usize, &VolumeFile)>> {
        let mut segments: HashMap<&str, Vec<(usize, &VolumeFile)>> = HashMap::new();
        for (at, volume) in self.volumes.iter().enumerate() {
            for file in volume.json.files.iter().filter(|file| file.segment.is_some()) {
                segments.entry(&file.path).or_default().push((at, file));
            }
        }
        segments
    }

    /// The segments of a file in order; if several volumes have one, that of the volume `first`.
    fn pieces(&self, all: &[(usize, &VolumeFile)], first: usize) -> Option<Vec<Piece>> {
        let mut segments = BTreeMap::new();
        let (own, others): (Vec<_>, Vec<_>) = all.iter().partition(|(at, _)| *at == first);
        for (at, file) in own.into_iter().chain(others) {
            if let Some(segment) = file.segment.as_deref() {
                segments
                    .entry(segment.number)
                    .or_insert((Piece { part: at, path: file.stored_path() }, segment.clone()));
            }
        }
        pieces_of(segments, &self.layouts)
    }

    fn slice(&self, pieces: &[Piece]) -> Option<Slice> {
        let slice = |piece: &Piece| self.layouts.get(piece.part)?.slice(&piece.path).ok().flatten();
        Slice::joined(pieces.iter().map(slice).collect::<Option<Vec<Slice>>>()?)
    }

    fn advance(&self, bytes: u64) {
        self.events.report(Event::BlobAdvanced { digest: self.set.identity, bytes });
    }

    /// The signatures of a volume must equal those of another volume that was not computed, or be by accepted keys. Without
    /// another volume, they must only look like signatures; only a key can tell whether they are valid.
    fn signatures(&self, at: usize) -> Result<(), VolumeProblem> {
        let number = self.volumes[at].json.number;
        let fault = |file: &str, what: &str| self.fault(at, file, what.to_owned());
        let own = signatures_in(&self.layouts[at]).map_err(|path| fault(&path, "is not a signature"))?;
        let others = self.volumes.iter().zip(&self.layouts);
        let mut others = others.filter(|(v, _)| v.json.number != number && !self.made.contains(&v.path)).peekable();
        let is_alone = others.peek().is_none();
        if others.any(|(_, layout)| signatures_in(layout).is_ok_and(|there| there == own)) {
            return Ok(());
        }
        let sums = self.bundle.sha256sums(self.set.identity);
        let is_accepted = |(path, signature): &(&String, &Vec<u8>)| {
            let is_by_key = |signed: &Proven| signed.accepted_key(sums.as_bytes(), signature).is_some();
            signed_file(path) == Some(SUMS) && self.signed.is_some_and(is_by_key)
        };
        if is_alone && (self.signed.is_none() || own.iter().any(|one| is_accepted(&one))) {
            return Ok(());
        }
        match own.iter().find(|one| !is_accepted(one)) {
            None if own.is_empty() => Err(fault(SUMS, "has no signature and should have one")),
            None => Ok(()),
            Some((path, _)) => Err(fault(path, "is in no other volume and does not match any key that was given")),
        }
    }
}

/// The signatures of a volume by name; the error is the name of a file that cannot be a signature.
fn signatures_in(layout: &Layout) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let paths: Vec<&str> = layout.entries().map(|(path, _)| path).filter(|path| is_signature(path)).collect();
    for signed in [SUMS, crate::bundle::CHUNKS] {
        if let Some(path) = signatures_of(layout, signed).get(MOST_SIGNATURES) {
            return Err((*path).to_owned());
        }
    }
    let read = |path: &&str| {
        let file = layout.read(path, MAX_SIGNATURE).ok().flatten();
        let signature = file.map(|file| signature_in(&file)).filter(|signature| is_well_formed(signature));
        signature.map(|signature| ((*path).to_owned(), signature)).ok_or_else(|| (*path).to_owned())
    };
    paths.iter().map(read).collect()
}

/// A volume by itself.
struct One<'p> {
    proof: &'p VolumeProof<'p>,
    volume: &'p Volume,
    layout: &'p Layout,
}

impl One<'_> {
    fn fault(&self, file: &str, what: impl Into<String>) -> VolumeProblem {
        VolumeProblem { volume: self.volume.path.clone(), file: file.to_owned(), what: what.into() }
    }

    /// One of its own files.
    fn own(&self, end: &str) -> String {
        format!("{VOLUMES}{}.{end}", self.volume.label)
    }

    fn check(&self) -> Result<(), VolumeProblem> {
        if let Some(odd) = self.layout.problems().first() {
            return Err(self.fault(&odd.path, &*odd.what));
        }
        let length = self.volume.path.metadata().map_or(0, |metadata| metadata.len());
        if !length.is_multiple_of(BLOCK) {
            return Err(self.fault(
                "the tar",
                format!(
                    "has {length} bytes, which is not a multiple of the block size \
                 {BLOCK}"
                ),
            ));
        }
        let declared: HashMap<&str, &FileEntry> =
            self.proof.bundle.files.iter().map(|file| (file.path.as_str(), file)).collect();
        let allowed = VolumeEntries::of(self.volume);
        let sums = self.own("sha256");
        let entries: Vec<(&str, u64)> =
            self.layout.entries().filter(|(path, _)| *path != sums && !is_signature(path)).collect();
        if let Some((path, _)) =
            entries.iter().find(|(path, _)| !allowed.may_have(path, |path| declared.contains_key(path)))
        {
            return Err(self.fault(path, "is not declared in bundle.json"));
        }
        let bytes = entries.iter().map(|(_, size)| *size).fold(0, u64::saturating_add);
        self.proof.events.report(Event::Phase { phase: Phase::Recheck, items: entries.len() as u64, bytes });
        let read = in_parallel(&entries, |(path, size)| {
            let read = self.read(path, *size, declared.get(path).copied());
            self.proof.events.report(Event::ItemDone);
            Ok((*path, read?))
        });
        let read = read.into_iter().collect::<Result<HashMap<&str, Read>, VolumeProblem>>()?;
        for (path, size) in &entries {
            if let Some(read) = read.get(path) {
                self.file(path, *size, read, &declared, &allowed)?;
            }
        }
        let mut repeated = declared.keys().copied().filter(|path| !is_held(path)).chain([BUNDLE_JSON, SUMS]);
        if let Some(path) = repeated.find(|path| !read.contains_key(path)) {
            return Err(self.fault(path, "is missing"));
        }
        self.sums(&sums, &read)?;
        self.chunks(&read)
    }

    fn read(&self, path: &str, size: u64, declared: Option<&FileEntry>) -> Result<Read, VolumeProblem> {
        let unreadable = |why: String| self.fault(path, format!("cannot be read: {why}"));
        let slice = self.layout.slice(path).map_err(|error| unreadable(error.chain()))?;
        let slice = slice.ok_or_else(|| self.fault(path, "is missing"))?;
        let advance = |bytes| self.proof.advance(bytes);
        let hashers = Hashing::of_prefix(Algorithm::Sha256, &slice, size, &advance);
        let hashers = hashers.map_err(|error| unreadable(error.to_string()))?;
        let (sha256, chunks) = (Hashed::of(hashers.digest), hashers.chunks.finish());
        let hashed = match declared.map_or(Algorithm::Sha256, |file| file.digest.algorithm()) {
            Algorithm::Sha256 => sha256.clone(),
            other => {
                let hasher = slice.hash_prefix(other, size, &|_| ());
                Hashed::of(hasher.map_err(|error| unreadable(error.to_string()))?)
            }
        };
        Ok(Read { sha256, hashed, chunks })
    }

    /// A file by what the bundle declares, or what the volume states about its segment.
    fn file(
        &self,
        path: &str,
        size: u64,
        read: &Read,
        declared: &HashMap<&str, &FileEntry>,
        allowed: &VolumeEntries<'_>,
    ) -> Result<(), VolumeProblem> {
        let identity = self.proof.set.identity;
        let has = |digest: &Digest| read.hashed.prove(digest).is_ok();
        let is_right = match allowed.segments.get(path).and_then(|file| file.segment.as_deref()) {
            Some(segment) => segment.size == size && has(&segment.sha256),
            None if path == BUNDLE_JSON => has(&identity),
            None if path == SUMS => has(&Digest::sha256(self.proof.bundle.sha256sums(identity).as_bytes())),
            // They are compared with what was read.
            None if path == self.own("json") || path == self.own("b3") => true,
            None => declared.get(path).is_some_and(|file| file.size == size && has(&file.digest)),
        };
        let found = || self.fault(path, format!("has the digest {}", read.hashed));
        is_right.then_some(()).ok_or_else(found)
    }

    /// Its sums match everything in it except signatures.
    fn sums(&self, own: &str, read: &HashMap<&str, Read>) -> Result<(), VolumeProblem> {
        let wrong = || self.fault(own, "does not match its files");
        let bytes = self.layout.read(own, MAX_SUMS).ok().flatten().ok_or_else(wrong)?;
        let mut named = HashSet::new();
        for line in sums::lines(&bytes, Algorithm::Sha256) {
            let line = line.ok_or_else(wrong)?;
            let is_right = read.get(line.path).is_some_and(|read| read.sha256.prove(&line.digest).is_ok());
            (is_right && named.insert(line.path)).then_some(()).ok_or_else(wrong)?;
        }
        (named.len() == read.len()).then_some(()).ok_or_else(wrong)
    }

    /// Its BLAKE3 match its content.
    fn chunks(&self, read: &HashMap<&str, Read>) -> Result<(), VolumeProblem> {
        let own = self.own("b3");
        let mut values = Vec::new();
        for file in &self.volume.json.files {
            let read = read.get(&*file.stored_path()).ok_or_else(|| self.fault(&file.path, "is missing"))?;
            if file.blake3.bytes() != read.chunks.root() {
                return Err(self.fault(&file.path, "has another BLAKE3 than in the description of the volume"));
            }
            values.extend(read.chunks.values().iter().flatten());
        }
        let is_right = matches!(self.layout.read(&own, values.len() as u64), Ok(Some(there)) if there == values);
        is_right.then_some(()).ok_or_else(|| self.fault(&own, "does not match its files"))
    }
}
