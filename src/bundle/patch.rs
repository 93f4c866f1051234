//! What is written into a bundle that is repaired, and where its bytes come from.

use bytes::Bytes;

use crate::base::error::{Error, Result};
use crate::content::Slice;
use crate::files::Layout;
use crate::oci::{Digest, Hasher};

/// How much is read at a time, in bytes.
const PIECE: usize = 1 << 20;

/// A file that is to be written.
pub struct Piece<'a> {
    pub path: String,
    pub size: u64,
    pub digest: Digest,
    pub bytes: From<'a>,
}

/// Where its bytes come from.
pub enum From<'a> {
    /// Opened when it is read: there may be more than files can be open.
    Of(&'a Layout),
    Made(Vec<u8>),
    /// What is there already, but for these stretches: from which byte on, rising and apart.
    Patched(&'a Layout, Vec<(u64, Bytes)>),
}

impl Piece<'_> {
    /// Hands out the bytes in order, and of each piece whether it is new there; gives the digest of what they were.
    ///
    /// # Errors
    /// Not readable, or shorter than it should be.
    pub fn read(&self, take: &mut dyn FnMut(&[u8], bool)) -> Result<Digest> {
        let mut hasher = Hasher::new(self.digest.algorithm());
        let mut both = |bytes: &[u8], is_new| {
            hasher.update(bytes);
            take(bytes, is_new);
        };
        match &self.bytes {
            From::Made(bytes) => both(bytes, true),
            From::Of(repair) => {
                let slice = self.slice(repair)?;
                let read = slice.read_prefix(self.size, &mut |bytes| both(bytes, true));
                read.map_err(|e| Error::disk("reading", slice.path(), e))?;
            }
            From::Patched(bundle, patches) => {
                let slice = self.slice(bundle)?;
                let mut at = 0;
                for (first, bytes) in patches {
                    // What is replaced may not even be readable.
                    read(&slice, at, *first, &mut |bytes| both(bytes, false))?;
                    both(bytes, true);
                    at = first + bytes.len() as u64;
                }
                read(&slice, at, self.size, &mut |bytes| both(bytes, false))?;
            }
        }
        Ok(hasher.finish())
    }

    fn slice(&self, layout: &Layout) -> Result<Slice> {
        let gone = || Error::damaged(format!("{}: {} is gone", layout.path().display(), self.path));
        layout.slice(&self.path)?.ok_or_else(gone)
    }
}

/// Hands out the bytes from `at` up to `end`.
fn read(slice: &Slice, mut at: u64, end: u64, take: &mut dyn FnMut(&[u8])) -> Result<()> {
    let mut buffer = vec![0; PIECE];
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
        match slice.read_at(at, &mut buffer[..want]).map_err(|e| Error::disk("reading", slice.path(), e))? {
            0 => return Err(Error::damaged(format!("{} is shorter than it was", slice.path().display()))),
            read => {
                take(&buffer[..read]);
                at += read as u64;
            }
        }
    }
    Ok(())
}
