//! Where everything in a recovery volume stands.

use super::format::RecoveryJson;
use super::names::Part;
use super::parity::MEBIBYTE;
use crate::base::error::Result;
use crate::bundle::sums;
use crate::bundle::tar_plan::TarPlan;
use crate::oci::Digest;

/// Bytes of a BLAKE3.
pub const PRINT: u64 = 32;

impl RecoveryJson {
    /// How many BLAKE3 of volumes there are.
    pub fn known_mebibytes(&self) -> u64 {
        self.volumes.iter().map(|volume| volume.size.div_ceil(MEBIBYTE)).fold(0, u64::saturating_add)
    }

    /// Bytes of `volumes/r01.b3`: the BLAKE3 of the volumes, and those of the parity.
    pub fn chunks_length(&self) -> u64 {
        self.known_mebibytes().saturating_add(self.shard.div_ceil(MEBIBYTE)).saturating_mul(PRINT)
    }
}

/// What stands where in a recovery volume; of `json` only the length matters.
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

/// Everything of a recovery volume that stands before the parity. `chunks` is the whole of `r01.b3`.
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
