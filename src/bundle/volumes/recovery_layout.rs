//! Which recovery volumes a set can have, and the layout of one.

use jiff::Timestamp;

use super::format::{MAX_RECOVERY_CHUNKS, RecoveryJson, VOLUME_VERSION, WholeVolume};
use super::names::Part;
use super::parity::{self, MEBIBYTE, UNIT};
use crate::base::error::{Error, Result};
use crate::bundle::sums;
use crate::bundle::tar_plan::TarPlan;
use crate::oci::Digest;

/// Bytes of a BLAKE3.
pub const PRINT: u64 = 32;

impl RecoveryJson {
    /// Number of BLAKE3 of volumes.
    pub fn known_mebibytes(&self) -> u64 {
        self.volumes.iter().map(|volume| volume.size.div_ceil(MEBIBYTE)).fold(0, u64::saturating_add)
    }

    /// Bytes of `volumes/r01.b3`: the BLAKE3 of the volumes and those of the parity.
    pub fn chunks_length(&self) -> u64 {
        self.known_mebibytes().saturating_add(self.shard.div_ceil(MEBIBYTE)).saturating_mul(PRINT)
    }
}

/// The set to compute recovery volumes for, and their number.
#[derive(Clone, Copy, Debug)]
pub struct RecoveryOf {
    /// The identity of the bundle.
    pub identity: Digest,
    /// The time of the bundle.
    pub created: Timestamp,
    /// Maximum size of a volume in bytes.
    pub limit: u64,
    /// Number of volumes.
    pub volumes: u32,
    /// Number of recovery volumes.
    pub recovery: u32,
}

/// Size in bytes of the largest recovery volume of a set with volumes of these sizes.
///
/// # Errors
/// The code does not support this number of volumes, or the sizes overflow.
pub fn recovery_length(sizes: &[u64], recovery: u32, limit: u64) -> Result<u64> {
    let (identity, created) = (Digest::ZEROS, Timestamp::UNIX_EPOCH);
    let volumes = u32::try_from(sizes.len()).unwrap_or(u32::MAX);
    let json = RecoveryOf { identity, created, limit, volumes, recovery }.json(sizes)?;
    Ok(plan(&RecoveryJson { number: recovery, ..json })?.length)
}

impl RecoveryOf {
    /// The description for volumes of these sizes, with zeros in place of their digests.
    ///
    /// # Errors
    /// The code does not support this number of volumes, or the sizes overflow.
    pub fn json(&self, sizes: &[u64]) -> Result<RecoveryJson> {
        let RecoveryOf { identity, created, limit, volumes, recovery } = *self;
        let longest = sizes.iter().copied().max().unwrap_or_default();
        let shard = longest.checked_next_multiple_of(UNIT).filter(|_| longest > 0 && longest <= limit);
        let is_coded = sizes.len() == volumes as usize && parity::supports(sizes.len(), recovery as usize);
        let Some(shard) = shard.filter(|_| is_coded) else {
            let text = format!("{volumes} volumes of at most {limit} bytes cannot have {recovery} recovery volumes");
            return Err(Error::input(text));
        };
        let volumes = sizes.iter().map(|size| WholeVolume { size: *size, sha256: Digest::ZEROS }).collect();
        let gapferry_recovery = VOLUME_VERSION;
        let json =
            RecoveryJson { gapferry_recovery, identity, created, number: 1, of: recovery, limit, shard, volumes };
        if json.chunks_length() > MAX_RECOVERY_CHUNKS {
            let text = "a set with recovery volumes can have at most 8 TiB: write it without --recovery, or as several \
                 bundles";
            return Err(Error::input(text));
        }
        Ok(json)
    }
}

/// The layout of a recovery volume; of `json`, only the length matters.
pub fn plan(json: &RecoveryJson) -> Result<TarPlan> {
    let (part, of) = (Part::Recovery(json.number), json.of);
    let names = [part.json(of), part.chunks(of), part.parity(of)];
    let sums = names.iter().map(|name| sums::LINE + name.len() as u64).sum();
    let [own, chunks, parity] = names;
    let files = [
        (own, json.to_bytes()?.len() as u64),
        (chunks, json.chunks_length()),
        (part.sums(of), sums),
        (parity, json.shard),
    ];
    TarPlan::new(files)
}

/// Everything in a recovery volume before the parity. `chunks` is the whole of `r01.b3`.
pub fn head(json: &RecoveryJson, chunks: &[u8], parity: &Digest) -> Result<Vec<u8>> {
    let bytes = json.to_bytes()?;
    let plan = plan(json)?;
    let [own, b3, own_sums, data] = &plan.files[..] else { return Ok(Vec::new()) };
    let digests = [(&own.path, Digest::sha256(&bytes)), (&b3.path, Digest::sha256(chunks)), (&data.path, *parity)];
    let lines = sums::write(digests.into_iter().map(|(path, digest)| (path.as_str(), digest)));
    let mtime = u64::try_from(json.created.as_second()).unwrap_or_default();
    let mut head = Vec::new();
    for (file, bytes) in [(own, &*bytes), (b3, chunks), (own_sums, lines.as_bytes())] {
        head.extend(file.header_blocks(mtime));
        head.extend(bytes);
        head.resize(head.len().next_multiple_of(512), 0);
    }
    head.extend(data.header_blocks(mtime));
    Ok(head)
}
