//! Reads receipts and the signatures next to them.

use std::path::Path;

use super::allowlist::input;
use super::context::Context;
use super::signing::signed_by;
use crate::app::{NamedReceipt, Signature, read_receipt};
use crate::base::error::Result;
use crate::base::progress::Event;
use crate::pipeline::receipt::MAX_RECEIPT;
use crate::signing::PublicKey;

/// Reads a receipt or an inventory. `option` is the name of the option for keys.
///
/// # Errors
/// The file cannot be read, is not a receipt, or is signed by none of the given keys.
pub fn read(path: &Path, keys: &[PublicKey], option: &str, context: &Context) -> Result<NamedReceipt> {
    let (read, signature) = read_receipt(&input(path, MAX_RECEIPT + 1)?, keys)?;
    match signature {
        Signature::Absent => {}
        Signature::Unchecked => {
            let text = format!("{} is signed; without {option} that is not checked", path.display());
            context.environment.events.report(Event::Notice(text));
        }
        Signature::By(key) => context.say(&format!("{}: {}", path.display(), signed_by(&key))),
    }
    Ok(read)
}
