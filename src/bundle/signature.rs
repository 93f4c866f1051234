//! Checks the signature of a bundle before anything else of it is used.
//!
//! # Threats
//! Everything but the keys may be forged. The signature covers `SHA256SUMS`, which lists `bundle.json`, which lists everything
//! else. Only these files are read, each up to a limit, until this chain is verified. A medium may answer differently when it
//! is read again, so each file is read once, and the verified bytes are kept and passed on ([`Proven`]).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::format::{
    BUNDLE_JSON, BundleJson, CHUNKS, MAX_BUNDLE_JSON, MAX_SIGNATURE, MOST_SIGNATURES, SIGNATURE, SUMS, is_signature,
    signatures_of,
};
use super::sums::{self, MAX_SUMS};
use crate::base::error::{Error, Fact, Result};
use crate::files::Layout;
use crate::oci::Digest;
use crate::signing::{PublicKey, signature_in};

/// Maximum number of signatures of one file to try, over all volumes of a set.
const MOST_TRIED: usize = 1_000;

/// A bundle as verified by a signature.
#[derive(Clone, Debug)]
pub struct Proven {
    /// The key that made the signature.
    pub by: PublicKey,
    /// The signed SHA-256 of `bundle.json`.
    pub identity: Digest,
    /// That `bundle.json`.
    pub document: BundleJson,
    /// All accepted keys.
    keys: Arc<[PublicKey]>,
}

impl Proven {
    /// Whether an accepted key has signed these bytes of `chunks.b3`.
    ///
    /// # Errors
    /// A signature cannot be read.
    pub fn has_signed(&self, layout: &Layout, chunks: &[u8]) -> Result<bool> {
        Ok(signer(layout, CHUNKS, chunks, &self.keys)?.is_some())
    }

    /// The accepted key that made this signature of `bytes`.
    pub fn accepted_key(&self, bytes: &[u8], signature: &[u8]) -> Option<&PublicKey> {
        self.keys.iter().find(|key| key.verifies(bytes, signature))
    }
}

/// Checks the signatures of the layout's `SHA256SUMS`, and `bundle.json` against it. Any of `keys` is enough. No other file is
/// opened.
///
/// # Errors
/// The bundle is unsigned or signed by other keys, or one of the two files was changed (`Damaged`); or they cannot be read.
pub fn check_signature(layout: &Layout, keys: &[PublicKey]) -> Result<Proven> {
    let shown = layout.path().display();
    let refuse = |fault: SignatureProblem| Error::damaged(format!("{shown} is refused: {fault}")).with_fact(fault);
    if signatures_of(layout, SUMS).is_empty() {
        // A link or a pipe in its place has no size either.
        let odd = layout.problems().iter().find(|fault| is_signature(&fault.path));
        return Err(refuse(match odd {
            Some(fault) => SignatureProblem::NoPlainFile { path: fault.path.clone(), is: fault.what.to_string() },
            None => SignatureProblem::Unsigned,
        }));
    }
    let missing = |path| refuse(SignatureProblem::Lacks(path));
    let sums = layout.read(SUMS, MAX_SUMS)?.ok_or_else(|| missing(SUMS))?;
    let Some(by) = signer(layout, SUMS, &sums, keys)? else { return Err(refuse(SignatureProblem::fits_none(keys))) };
    let identity = sums::identity(&sums).ok_or_else(|| refuse(SignatureProblem::NamesNoBundle))?;
    let json = layout.read(BUNDLE_JSON, MAX_BUNDLE_JSON)?.ok_or_else(|| missing(BUNDLE_JSON))?;
    if !identity.is_of(&json) {
        return Err(refuse(SignatureProblem::Altered));
    }
    let document = BundleJson::parse(&json, &layout.path().join(BUNDLE_JSON).display().to_string())?;
    if document.sha256sums(identity).as_bytes() != sums {
        return Err(refuse(SignatureProblem::OtherSums));
    }
    Ok(Proven { by, identity, document, keys: keys.into() })
}

/// The first of `keys` that has signed `bytes`, the content of the file `signed` in a layout or part of it.
///
/// # Errors
/// There are more signatures than allowed, or one cannot be read.
pub fn signer(layout: &Layout, signed: &str, bytes: &[u8], keys: &[PublicKey]) -> Result<Option<PublicKey>> {
    let signatures = read_signatures(layout, signed)?;
    let fits = |key: &&PublicKey| signatures.iter().any(|signature| key.verifies(bytes, signature));
    Ok(keys.iter().find(fits).cloned())
}

/// Volumes of a set may have different signatures of the same bytes.
fn read_signatures(layout: &Layout, signed: &str) -> Result<BTreeSet<Vec<u8>>> {
    let mut all = BTreeSet::new();
    let own = if layout.parts().is_empty() { std::slice::from_ref(layout) } else { layout.parts() };
    for part in own {
        let paths = signatures_of(part, signed);
        if paths.len() > MOST_SIGNATURES {
            let (shown, number) = (part.path().display(), paths.len());
            let text = format!("{shown} has {number} signatures of {signed}; the maximum is {MOST_SIGNATURES}");
            return Err(Error::damaged(text));
        }
        for path in paths.into_iter().filter(|path| part.size_of(path).is_some_and(|size| size <= MAX_SIGNATURE)) {
            if let Some(file) = part.read(path, MAX_SIGNATURE)?.filter(|_| all.len() < MOST_TRIED) {
                all.insert(signature_in(&file));
            }
        }
    }
    Ok(all)
}

/// Why a bundle is not verified by an accepted key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureProblem {
    #[error("it is not signed (it has no {SIGNATURE})")]
    Unsigned,
    #[error("its {path} is not a regular file ({is})")]
    NoPlainFile { path: String, is: String },
    #[error("it has no {0}")]
    Lacks(&'static str),
    /// `keys` describes them.
    #[error("its signature does not match {keys}: another key signed it, or {SUMS} or {SIGNATURE} was altered")]
    FitsNoKey { keys: String },
    #[error("its signature is good, but {SUMS} does not list {BUNDLE_JSON} first")]
    NamesNoBundle,
    #[error("{BUNDLE_JSON} was altered after {SUMS} was signed")]
    Altered,
    #[error("its signature is good, but {SUMS} does not follow from {BUNDLE_JSON}")]
    OtherSums,
}

impl Fact for SignatureProblem {}

impl SignatureProblem {
    fn fits_none(keys: &[PublicKey]) -> SignatureProblem {
        let fingerprints: Vec<String> = keys.iter().map(|key| key.fingerprint().to_string()).collect();
        let keys = match &fingerprints[..] {
            [one] => format!("the key {one}"),
            several => format!("any of the {} keys ({})", several.len(), several.join(", ")),
        };
        SignatureProblem::FitsNoKey { keys }
    }
}
