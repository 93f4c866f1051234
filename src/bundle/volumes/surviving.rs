//! What is left of a set with recovery volumes: which files are intact, and which mebibytes of the others.
//!
//! # Threats
//! Any file may belong to another set, or be damaged or forged, whatever its name. The set that most proven files belong to is
//! the one that is meant. A medium may fail in places: what cannot be read is bad, and the rest is not.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::format::{MAX_RECOVERY_CHUNKS, RecoveryJson};
use super::names::{Part, SetName};
use super::opened::{OpenedPath, SetId, id_of, id_of_recovery, look};
use super::parity::{MEBIBYTE, Shard, ShardPlace, VolumeHasher};
use super::recovery_layout::{PRINT, head, plan};
use super::volume_proof::{self, VolumeProof};
use crate::base::error::{Error, Fact, Result};
use crate::base::fsops;
use crate::base::progress::{Event, Events, Phase};
use crate::bundle::{Proven as Signed, sums};
use crate::content::in_parallel;
use crate::content::proof::prove as prove_slice;
use crate::files::Layout;
use crate::oci::Digest;

/// A file that was given.
#[derive(Debug)]
struct GivenFile {
    path: PathBuf,
    /// Which volume it is, and of which set, as far as its description can be read.
    part: Option<Part>,
    set: Option<SetId>,
    recovery: Option<Proven>,
    found: Region,
    /// Whether the bundle's own digests prove it, whatever recovery volumes state.
    is_good: bool,
}

/// The description in a recovery volume, confirmed by its own sums.
#[derive(Debug)]
struct Proven {
    json: RecoveryJson,
    /// `r01.b3`.
    chunks: Vec<u8>,
}

/// What was read of a stretch of a file.
#[derive(Debug, Default)]
struct Region {
    size: u64,
    /// `None` if not all of it could be read.
    sha256: Option<Digest>,
    /// BLAKE3 of each mebibyte; `None` if it could not be read.
    mebibytes: Vec<Option<[u8; 32]>>,
}

/// A given volume, or what is left of it.
#[derive(Debug)]
pub struct SurvivingVolume {
    pub path: PathBuf,
    /// Position of the shard in the file.
    offset: u64,
    /// By mebibyte of the shard; `None` if the whole file matches the recovery volumes.
    good: Option<Vec<bool>>,
    /// Whether the bundle's own digests prove it. It is then not replaced, even if it differs from what the parity was
    /// computed from.
    is_good: bool,
    /// Whether its content shows that it was a volume of this set, or it is empty; otherwise only its name says so.
    pub is_recognized: bool,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Surviving {
    /// The name of the files.
    pub name: SetName,
    /// The description in the recovery volumes; `number` is meaningless.
    pub json: RecoveryJson,
    /// The BLAKE3 of all mebibytes of all volumes.
    pub known: Vec<u8>,
    /// By number.
    pub volumes: Vec<Option<SurvivingVolume>>,
    pub recovery: Vec<Option<SurvivingVolume>>,
    /// Files of other sets or of none.
    pub foreign: Vec<PathBuf>,
}

impl SurvivingVolume {
    /// Whether it need not be reconstructed.
    pub fn is_whole(&self) -> bool {
        self.good.is_none() || self.is_good
    }

    /// Whether it is good but differs from what the recovery volumes state.
    pub fn is_unlike(&self) -> bool {
        self.good.is_some() && self.is_good
    }

    /// Of several copies, the one with the highest worth is used.
    fn worth(&self) -> (bool, bool, usize) {
        let good = self.good.iter().flatten().filter(|good| **good).count();
        (self.good.is_none(), self.is_good, good)
    }
}

impl Surviving {
    /// Examines all bytes of these files. In a `signed` bundle, a volume may have a signature by an accepted key that no other
    /// volume has.
    ///
    /// # Errors
    /// A path does not exist, no recovery volume can be read, or the names do not belong to a set.
    pub fn survey(paths: &[PathBuf], signed: Option<&Signed>, events: &Events) -> Result<Surviving> {
        let bytes = paths.iter().filter_map(|path| path.metadata().ok()).map(|file| file.len()).sum();
        events.report(Event::Phase { phase: Phase::Verify, items: paths.len() as u64, bytes });
        let given = in_parallel(paths, |path| GivenFile::look(path, events));
        let mut given = given.into_iter().collect::<Result<Vec<GivenFile>>>()?;
        let (mut json, known) = description(&given)?;
        json.number = 1;
        let name = name(&given, &json)?;
        find_good(&mut given, &json, signed, events);
        let mut surviving = Surviving {
            name,
            known,
            volumes: json.volumes.iter().map(|_| None).collect(),
            recovery: (0..json.of).map(|_| None).collect(),
            foreign: Vec::new(),
            json,
        };
        for given in given {
            surviving.place(given)?;
        }
        Ok(surviving)
    }

    fn place(&mut self, given: GivenFile) -> Result<()> {
        let found = match &given.recovery {
            Some(proven) if is_same(&proven.json, &self.json) => Some(recovery(&given, proven)?),
            Some(_) => None,
            None => self.volume(&given),
        };
        let Some((part, left)) = found else {
            self.foreign.push(given.path);
            return Ok(());
        };
        let place = match part {
            Part::Volume(number) => self.volumes.get_mut(number as usize - 1),
            Part::Recovery(number) => self.recovery.get_mut(number as usize - 1),
        };
        if let Some(place) = place.filter(|place| place.as_ref().is_none_or(|other| other.worth() < left.worth())) {
            *place = Some(left);
        }
        Ok(())
    }

    /// Which volume a file is or was.
    fn volume(&self, given: &GivenFile) -> Option<(Part, SurvivingVolume)> {
        let GivenFile { path, part, set, found, is_good, .. } = given;
        let says_set = set.is_some() || found.size == 0;
        let left = |good: Option<Vec<bool>>| {
            let is_recognized = says_set || good.as_ref().is_none_or(|good| found.shows(good));
            SurvivingVolume { path: path.clone(), offset: 0, good, is_good: *is_good, is_recognized }
        };
        if let Some(number) = listed(found, &self.json) {
            return Some((Part::Volume(number), left(None)));
        }
        if set.is_some_and(|set| set != id_of_recovery(&self.json)) {
            return None;
        }
        let named = SetName::of_part(path).filter(|(name, _)| name.base().file_name() == self.name.base().file_name());
        let candidates = part.iter().copied().chain(named.map(|(_, part)| part));
        let candidates = candidates.filter_map(|part| match part {
            Part::Volume(number) => Some((part, left(Some(self.good(number, found)?)))),
            // Without its own description, nothing of it can be used.
            Part::Recovery(number) => (number <= self.json.of).then(|| (part, left(Some(Vec::new())))),
        });
        candidates.max_by_key(|(_, left)| left.worth())
    }

    /// Which mebibytes are unchanged in this volume; `None` if there is no such volume.
    fn good(&self, number: u32, found: &Region) -> Option<Vec<bool>> {
        let at = (number as usize).checked_sub(1).filter(|at| *at < self.json.volumes.len())?;
        let mebibytes = |size: u64| usize::try_from(size.div_ceil(MEBIBYTE)).unwrap_or(usize::MAX);
        let before: usize = self.json.volumes[..at].iter().map(|volume| mebibytes(volume.size)).sum();
        let own = self.known.chunks_exact(PRINT as usize).skip(before).take(mebibytes(self.json.volumes[at].size));
        Some(found.compare(own))
    }

    /// The shards, as far as they are left.
    pub fn shards(&self) -> (Vec<Shard>, Vec<Shard>) {
        let place = |left: &Option<SurvivingVolume>| {
            left.as_ref().map(|left| ShardPlace::new(&left.path, left.offset, left.good.clone()))
        };
        let volumes = self.volumes.iter().zip(&self.json.volumes);
        let originals = volumes.map(|(left, volume)| Shard { size: volume.size, place: place(left) });
        let parities = self.recovery.iter().map(|left| Shard { size: self.json.shard, place: place(left) });
        (originals.collect(), parities.collect())
    }

    /// Every volume of the set, including recovery volumes, and what is left of it.
    pub fn parts(&self) -> impl Iterator<Item = (Part, Option<&SurvivingVolume>)> {
        let volumes = (1..).map(Part::Volume).zip(self.volumes.iter().map(Option::as_ref));
        volumes.chain((1..).map(Part::Recovery).zip(self.recovery.iter().map(Option::as_ref)))
    }
}

impl GivenFile {
    fn look(path: &Path, events: &Events) -> Result<GivenFile> {
        let metadata = path.metadata().map_err(|e| Error::disk("opening", path, e))?;
        if !metadata.is_file() {
            return Err(Error::input(format!("{} is not a file, so it cannot be a volume", path.display())));
        }
        let mut given = GivenFile {
            path: path.to_owned(),
            part: None,
            set: None,
            recovery: None,
            found: Region::default(),
            is_good: false,
        };
        match look(path, false) {
            Ok(OpenedPath::Volume(volume, _)) => {
                given.part = Some(Part::Volume(volume.json.number));
                given.set = Some(id_of(&volume.json));
            }
            Ok(OpenedPath::Recovery(recovery)) => {
                given.part = Some(Part::Recovery(recovery.json.number));
                given.set = Some(id_of_recovery(&recovery.json));
                given.recovery = proven(recovery.json, &recovery.layout);
            }
            Ok(OpenedPath::Broken(broken)) => given.part = broken.part,
            // It may have lost its beginning; its bytes decide.
            Ok(OpenedPath::Other(..)) | Err(_) => {}
        }
        let (offset, size) = match &given.recovery {
            Some(Proven { json, .. }) => (plan(json)?.files.last().map_or(0, |file| file.data), json.shard),
            None => (0, metadata.len()),
        };
        given.found = Region::read(path, offset, size, events)?;
        events.report(Event::ItemDone);
        Ok(given)
    }
}

/// The number of the intact volume that this is, according to the recovery volumes.
fn listed(found: &Region, json: &RecoveryJson) -> Option<u32> {
    let digest = found.sha256?;
    let at = json.volumes.iter().position(|volume| volume.is(found.size, &digest))?;
    u32::try_from(at + 1).ok()
}

/// Finds volumes that are good although recovery volumes disagree: those may be forged, or older than a volume that was
/// written again. If all volumes seem to exist and still not all of the bundle does, none of these is trusted.
fn find_good(given: &mut [GivenFile], json: &RecoveryJson, signed: Option<&Signed>, events: &Events) {
    let set = id_of_recovery(json);
    let of_set = given.iter().filter(|given| given.set == Some(set) && given.recovery.is_none());
    let of_set: Vec<(&GivenFile, bool)> = of_set.map(|given| (given, listed(&given.found, json).is_some())).collect();
    if of_set.iter().all(|(_, is_listed)| *is_listed) {
        return;
    }
    let volumes: Vec<volume_proof::GivenVolume> = of_set
        .iter()
        .filter_map(|(given, _)| match given.part? {
            Part::Volume(number) => {
                Some(volume_proof::GivenVolume { number, path: given.path.clone(), is_made: false })
            }
            Part::Recovery(_) => None,
        })
        .collect();
    let unlike: Vec<&Path> =
        of_set.iter().filter(|(_, is_listed)| !is_listed).map(|(given, _)| given.path.as_path()).collect();
    let good: HashSet<PathBuf> =
        VolumeProof::open(&volumes, set, signed, events).map(|proof| proof.good(&unlike)).unwrap_or_default();
    given.iter_mut().for_each(|given| given.is_good = good.contains(&given.path));
}

/// A recovery volume's description, if its sums match.
fn proven(json: RecoveryJson, layout: &Layout) -> Option<Proven> {
    let part = Part::Recovery(json.number);
    let (name, length) = (part.chunks(json.of), json.chunks_length());
    let slice = layout.slice(&name).ok().flatten().filter(|slice| slice.size() == length)?;
    let sums = layout.read(&part.sums(json.of), MEBIBYTE).ok().flatten()?;
    // What does not match its sum takes no memory.
    prove_slice(&slice, &sums::digest_of(&sums, &name)?, &|_| ()).ok()?;
    let chunks = slice.read_all(MAX_RECOVERY_CHUNKS).ok()?;
    Some(Proven { json, chunks: chunks.to_vec() })
}

/// What is left of a recovery volume whose description is proven.
fn recovery(given: &GivenFile, Proven { json, chunks }: &Proven) -> Result<(Part, SurvivingVolume)> {
    let plan = plan(json)?;
    let offset = plan.files.last().map_or(0, |file| file.data);
    let known = usize::try_from(json.known_mebibytes().saturating_mul(PRINT)).unwrap_or(usize::MAX);
    let good = given.found.compare(chunks[known.min(chunks.len())..].chunks_exact(PRINT as usize));
    let is_whole = match given.found.sha256 {
        Some(digest) if good.iter().all(|good| *good) => {
            is_framed(&given.path, &head(json, chunks, &digest)?, offset + json.shard, plan.length)
        }
        _ => false,
    };
    let good = (!is_whole).then_some(good);
    let left = SurvivingVolume { path: given.path.clone(), offset, good, is_good: false, is_recognized: true };
    Ok((Part::Recovery(json.number), left))
}

/// Whether the bytes before and after the parity are right.
fn is_framed(path: &Path, head: &[u8], end: u64, length: u64) -> bool {
    let framed = || -> io::Result<bool> {
        let file = fsops::open_plain(path)?;
        let mut begin = vec![0; head.len()];
        file.read_exact_at(&mut begin, 0)?;
        let mut rest = vec![0; usize::try_from(length.saturating_sub(end)).unwrap_or_default()];
        file.read_exact_at(&mut rest, end)?;
        Ok(begin == head && rest.iter().all(|byte| *byte == 0) && file.metadata()?.len() == length)
    };
    framed().unwrap_or(false)
}

impl Region {
    fn read(path: &Path, offset: u64, size: u64, events: &Events) -> Result<Region> {
        let file = fsops::open_plain(path).map_err(|e| Error::disk("opening", path, e))?;
        let mut buffer = vec![0; usize::try_from(size.min(MEBIBYTE)).unwrap_or_default()];
        let (mut hasher, mut is_whole, mut mebibytes) = (VolumeHasher::default(), true, Vec::new());
        let mut at = 0;
        while at < size {
            let length = usize::try_from((size - at).min(MEBIBYTE)).unwrap_or_default();
            let piece = &mut buffer[..length];
            match file.read_exact_at(piece, offset.saturating_add(at)) {
                Ok(()) => {
                    mebibytes.push(Some(*blake3::hash(piece).as_bytes()));
                    if is_whole {
                        hasher.update(piece);
                    }
                }
                Err(error) => {
                    tracing::debug!("reading {} at {}: {error}", path.display(), offset + at);
                    is_whole = false;
                    mebibytes.push(None);
                }
            }
            events.report(Event::BlobAdvanced { digest: Digest::ZEROS, bytes: length as u64 });
            at += length as u64;
        }
        Ok(Region { size, sha256: is_whole.then(|| hasher.finish().sha256), mebibytes })
    }

    /// Whether `good` mebibytes identify the file. Zeros do not, because many files have them.
    fn shows(&self, good: &[bool]) -> bool {
        let zeros =
            [MEBIBYTE, self.size % MEBIBYTE].map(|length| Some(*blake3::hash(&vec![0; length as usize]).as_bytes()));
        good.iter().zip(&self.mebibytes).any(|(good, found)| *good && !zeros.contains(found))
    }

    /// Which of its mebibytes are equal to these.
    fn compare<'a>(&self, known: impl Iterator<Item = &'a [u8]>) -> Vec<bool> {
        let found = self.mebibytes.iter().map(Option::as_ref).chain(std::iter::repeat(None));
        known.zip(found).map(|(known, found)| found.is_some_and(|found| found == known)).collect()
    }
}

/// Why recovery volumes cannot help. The error says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryFault {
    #[error("the recovery volumes are of the bundle {of}, and the signed bundle is {signed}")]
    OtherBundle { of: Digest, signed: Digest },
    /// Their result is not what the bundle declares.
    #[error("{} cannot be reconstructed from forged or damaged recovery volumes", made.display())]
    Forged { made: PathBuf },
    /// The beginning of every one of them is damaged.
    #[error("no recovery volume describes what was lost")]
    Unknown,
}

impl Fact for RecoveryFault {}

/// Whether two recovery volumes belong to the same set.
fn is_same(one: &RecoveryJson, other: &RecoveryJson) -> bool {
    RecoveryJson { number: other.number, ..one.clone() } == *other
}

/// The description in recovery volumes that most files match; of several, the first.
fn description(given: &[GivenFile]) -> Result<(RecoveryJson, Vec<u8>)> {
    let mut described: Vec<(&Proven, usize)> = Vec::new();
    for proven in given.iter().filter_map(|given| given.recovery.as_ref()) {
        match described.iter_mut().find(|(other, _)| is_same(&proven.json, &other.json)) {
            Some((_, votes)) => *votes += 1,
            None => described.push((proven, 1)),
        }
    }
    let digests: Vec<(u64, Digest)> =
        given.iter().filter_map(|given| Some((given.found.size, given.found.sha256?))).collect();
    for (proven, votes) in &mut described {
        let volumes: HashMap<Digest, u64> =
            proven.json.volumes.iter().map(|volume| (volume.sha256, volume.size)).collect();
        *votes += digests.iter().filter(|(size, digest)| volumes.get(digest) == Some(size)).count();
    }
    let most = described.iter().rev().max_by_key(|(_, votes)| *votes).ok_or_else(|| {
        let text =
            "none of these files is a recovery volume with an intact start, and only those describe what was lost; \
             without one, `gapferry verify --missing` lists what has to be fetched again";
        Error::damaged(format!("repairing a set: {text}")).with_fact(RecoveryFault::Unknown)
    })?;
    let json = most.0.json.clone();
    let length = usize::try_from(json.known_mebibytes().saturating_mul(PRINT)).unwrap_or(usize::MAX);
    let known = most.0.chunks[..length.min(most.0.chunks.len())].to_vec();
    Ok((json, known))
}

/// The name of the files of the set, from those that belong to it.
fn name(given: &[GivenFile], json: &RecoveryJson) -> Result<SetName> {
    let mut votes: HashMap<SetName, (usize, usize)> = HashMap::new();
    for (at, given) in given.iter().enumerate() {
        let is_of_it = given.set == Some(id_of_recovery(json));
        if let Some((name, _)) = SetName::of_part(&given.path).filter(|(_, part)| Some(*part) == given.part) {
            // Earlier ones are better.
            let votes = votes.entry(name).or_insert((0, usize::MAX - at));
            votes.0 += usize::from(is_of_it);
        }
    }
    let name = votes.into_iter().max_by_key(|(_, votes)| *votes).map(|(name, _)| name);
    name.ok_or_else(|| Error::input("none of these files is named like a volume, NAME.003.tar or NAME.r01.tar"))
}
