//! Receipts that a command reads, with the signatures beside them.

use std::path::Path;

use super::allowlist::read_bounded;
use super::context::Context;
use super::signing::signed_by;
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Event;
use crate::bundle::MAX_SIGNATURE;
use crate::pipeline::receipt::{MAX_RECEIPT, Receipt, signature_beside};
use crate::signing::{PrivateKey, PublicKey, signature_in};

/// Reads a receipt or an inventory; `option` is the one that names keys.
///
/// # Errors
/// Not readable, no receipt, or signed by none of the keys, if there are any.
pub fn read(path: &Path, keys: &[PublicKey], option: &str, context: &Context) -> Result<Receipt> {
    let (name, bytes) = read_bounded(path, MAX_RECEIPT + 1)?;
    check_signature(path, &bytes, keys, option, context)?;
    Receipt::parse(&bytes, &name)
}

/// The receipt that a new one is going to replace, if there is one; one that `key` is going to sign only if it has signed that,
/// too.
pub fn earlier(path: &Path, key: Option<&PrivateKey>) -> Option<Receipt> {
    let (name, bytes) =
        Some(path).filter(|path| path.is_file()).and_then(|path| read_bounded(path, MAX_RECEIPT + 1).ok())?;
    let is_signed = |key: &PrivateKey| {
        let signature = read_bounded(&signature_beside(path), MAX_SIGNATURE + 1);
        signature.is_ok_and(|(_, signature)| key.public().verifies(&bytes, &signature_in(&signature)))
    };
    if !key.is_none_or(is_signed) {
        return None;
    }
    Receipt::parse(&bytes, &name).ok()
}

/// Whether it can be read once only.
pub fn is_piped(path: &Path) -> bool {
    path == Path::new("-") || path.metadata().is_ok_and(|it| !it.is_file() && !it.is_dir())
}

/// Holds a receipt against the signature beside it.
///
/// # Errors
/// Keys were named, and none of them has signed it.
fn check_signature(path: &Path, receipt: &[u8], keys: &[PublicKey], option: &str, context: &Context) -> Result<()> {
    let (shown, beside, is_piped) = (path.display(), signature_beside(path), is_piped(path));
    let is_there = !is_piped && beside.is_file();
    if keys.is_empty() {
        if is_there {
            let text = format!("{shown} is signed; without {option} that is not checked");
            context.events.report(Event::Notice(text));
        }
        return Ok(());
    }
    let refuse = |why: String| Err(Error::new(Kind::Damaged, format!("{shown} is refused: {why}")));
    if is_piped {
        return refuse("what comes through a pipe has no signature beside it; save both".to_owned());
    }
    if !is_there {
        return refuse(format!("it is not signed (there is no {})", beside.display()));
    }
    let (_, signature) = read_bounded(&beside, MAX_SIGNATURE + 1)?;
    let signature = signature_in(&signature);
    match keys.iter().find(|key| key.verifies(receipt, &signature)) {
        Some(by) => context.say(&format!("{shown}: {}", signed_by(by))),
        None => {
            return refuse("its signature fits none of the keys: another key signed it, or it was altered".to_owned());
        }
    }
    Ok(())
}
