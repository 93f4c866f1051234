//! Reads and writes receipts and the signatures next to them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::local::{Input, Text, read_bounded, write_file};
use crate::base::error::{Error, Fact, Result};
use crate::base::fsops::Entry;
use crate::bundle::MAX_SIGNATURE;
use crate::pipeline::receipt::{MAX_RECEIPT, Receipt, signature_beside};
use crate::signing::{PrivateKey, PublicKey, signature_in};

/// A receipt or an inventory, and its name in error messages.
#[derive(Clone, Debug)]
pub struct NamedReceipt {
    pub name: String,
    pub receipt: Receipt,
}

/// What is known about a signature.
#[derive(Clone)]
pub enum Signature {
    Absent,
    /// A signature exists, and no key was given.
    Unchecked,
    By(PublicKey),
}

/// Where to write a receipt, and the key that signs it.
#[derive(Clone)]
pub struct ReceiptFile {
    pub path: PathBuf,
    /// The key. The signature is written next to the receipt, to `PATH.sig`.
    pub sign_key: Option<Arc<PrivateKey>>,
}

/// Reads a receipt or an inventory, and checks its signature.
///
/// # Errors
/// The file cannot be read, is not a receipt, or is signed by none of the given keys.
pub fn read_receipt(from: &Input, keys: &[PublicKey]) -> Result<(NamedReceipt, Signature)> {
    let Text { name, bytes } = from.read(MAX_RECEIPT + 1)?;
    let signature = check_signature(from, &bytes, keys)?;
    let receipt = Receipt::parse(&bytes, &name)?;
    Ok((NamedReceipt { name, receipt }, signature))
}

/// Why a receipt is not proven to be signed by an accepted key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptProblem {
    #[error("a receipt from a pipe has no signature next to it; save both as files")]
    Piped,
    #[error("it is not signed ({} does not exist)", signature.display())]
    Unsigned { signature: PathBuf },
    #[error("its signature matches none of the keys: another key signed it, or it was altered")]
    FitsNoKey,
}

impl Fact for ReceiptProblem {}

/// Checks the signature of a receipt.
///
/// # Errors
/// Keys were given, and none of them has signed the receipt.
fn check_signature(from: &Input, receipt: &[u8], keys: &[PublicKey]) -> Result<Signature> {
    let refuse =
        |fault: ReceiptProblem| Err(Error::damaged(format!("{} is refused: {fault}", from.name())).with_fact(fault));
    let Some(path) = file(from) else {
        return match keys.is_empty() {
            true => Ok(Signature::Absent),
            false => refuse(ReceiptProblem::Piped),
        };
    };
    let beside = signature_beside(path);
    match (keys.is_empty(), beside.is_file()) {
        (true, true) => return Ok(Signature::Unchecked),
        (true, false) => return Ok(Signature::Absent),
        (false, true) => {}
        (false, false) => return refuse(ReceiptProblem::Unsigned { signature: beside }),
    }
    let signature = signature_in(&read_bounded(&beside, MAX_SIGNATURE + 1)?.bytes);
    match keys.iter().find(|key| key.verifies(receipt, &signature)) {
        Some(by) => Ok(Signature::By(by.clone())),
        None => refuse(ReceiptProblem::FitsNoKey),
    }
}

/// Returns the file, unless it can only be read once.
fn file(from: &Input) -> Option<&Path> {
    match from {
        Input::File(path) if path.metadata().is_ok_and(|it| !it.is_file() && !it.is_dir()) => None,
        Input::File(path) => Some(path),
        Input::Text(_) => None,
    }
}

/// Returns the receipt that a new one will replace, if it exists. If the new receipt will be signed, the old one only
/// counts if it is signed by the same key.
pub fn earlier(file: &ReceiptFile) -> Option<Receipt> {
    let path = Some(&file.path).filter(|path| path.is_file())?;
    let text = read_bounded(path, MAX_RECEIPT + 1).ok()?;
    let is_signed = |key: &Arc<PrivateKey>| {
        let signature = read_bounded(&signature_beside(path), MAX_SIGNATURE + 1);
        signature.is_ok_and(|signature| key.public().verifies(&text.bytes, &signature_in(&signature.bytes)))
    };
    if !file.sign_key.as_ref().is_none_or(is_signed) {
        return None;
    }
    Receipt::parse(&text.bytes, &text.name).ok()
}

impl ReceiptFile {
    /// Writes the receipt, and next to it its signature: binary, of the bytes of the receipt. An existing signature is
    /// removed first, because it would make the new receipt look altered.
    ///
    /// # Errors
    /// One of the files cannot be written or removed, or the receipt would be too large to read again
    /// ([`Receipt::to_file_that_fits`]).
    pub fn write(&self, receipt: &Receipt) -> Result<()> {
        let bytes = receipt.to_file_that_fits()?.into_bytes();
        let signature = self.sign_key.as_ref().map(|key| key.sign(&bytes)).transpose()?;
        let beside = signature_beside(&self.path);
        if beside.is_file() {
            Entry::of(&beside)?.remove()?;
        }
        write_file(&self.path, &bytes)?;
        signature.map_or(Ok(()), |signature| write_file(&beside, &signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `--since-key` would report the new receipt as altered.
    #[test]
    fn an_unsigned_receipt_does_not_keep_the_signature_of_the_one_it_replaces() {
        let directory = tempfile::tempdir().unwrap();
        let file = ReceiptFile { path: directory.path().join("receipt"), sign_key: None };
        let signature = signature_beside(&file.path);
        std::fs::write(&signature, "of an earlier receipt").unwrap();
        let text =
            r#"{"version": 1, "target": "r", "finished": "2026-11-21T00:00:00Z", "confirmed": [], "images": []}"#;
        let receipt = Receipt::parse(text.as_bytes(), "a receipt").unwrap();
        file.write(&receipt).unwrap();
        assert!(file.path.is_file() && !signature.exists());
        let (_, found) = read_receipt(&Input::File(file.path), &[]).unwrap();
        assert!(matches!(found, Signature::Absent));
    }
}
