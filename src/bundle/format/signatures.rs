//! The names of signatures, and the files of a bundle that are not declared.

use super::{BUNDLE_JSON, CHUNKS, DOCKER_JSON, INDEX_JSON, OCI_LAYOUT, SUMS, SUMS512};
use crate::files::Layout;
use crate::signing::PublicKey;

/// The first signature of `SHA256SUMS`. The names of others contain part of their key's digest.
pub const SIGNATURE: &str = "SHA256SUMS.sig";
/// The first signature of `chunks.b3`.
pub const CHUNKS_SIGNATURE: &str = "chunks.b3.sig";
/// Maximum size of a signature in bytes; ours have 64 or 72, plain or in base64.
pub const MAX_SIGNATURE: u64 = 512;
/// Maximum number of signatures of one file.
pub const MOST_SIGNATURES: usize = 16;
/// Hexadecimal digits of a key in a name.
pub const DIGITS: usize = 16;
const ENDING: &str = ".sig";

/// The file that a signature with this path signs; `None` for other names.
pub fn signed_file(path: &str) -> Option<&'static str> {
    let signed = [SUMS, CHUNKS].into_iter().find(|signed| path.starts_with(signed))?;
    let name = path.strip_prefix(signed)?.strip_suffix(ENDING)?;
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_key = |key: &str| key.len() == DIGITS && key.as_bytes().iter().all(is_digit);
    (name.is_empty() || name.strip_prefix('.').is_some_and(is_key)).then_some(signed)
}

/// Whether the name is that of a signature.
pub fn is_signature(path: &str) -> bool {
    signed_file(path).is_some()
}

/// The name of a further signature of `signed`.
pub fn name_of_key(signed: &str, key: &PublicKey) -> String {
    let mut digits = key.fingerprint().hex();
    digits.truncate(DIGITS);
    format!("{signed}.{digits}{ENDING}")
}

/// The signatures of `signed` in a layout, in tar order: the plain name first, the others bytewise.
pub fn signatures_of<'a>(layout: &'a Layout, signed: &str) -> Vec<&'a str> {
    let all = layout.entries().map(|(path, _)| path);
    let mut paths: Vec<&str> = all.filter(|path| signed_file(path) == Some(signed)).collect();
    paths.sort_by_key(|path| (path.len(), *path));
    paths
}

/// The files before tools and blobs in a tar that exist in `layout`, in order. Volumes have the signatures of `chunks.b3`
/// there too.
pub fn head_of(layout: &Layout, with_chunks: bool) -> Vec<String> {
    let own = [OCI_LAYOUT, BUNDLE_JSON, INDEX_JSON, DOCKER_JSON, SUMS512, SUMS];
    let own = own.into_iter().filter(|path| layout.size_of(path).is_some());
    let of_chunks = if with_chunks { signatures_of(layout, CHUNKS) } else { Vec::new() };
    own.chain(signatures_of(layout, SUMS)).chain(of_chunks).map(str::to_owned).collect()
}

/// Whether the name belongs at the top of a bundle's directory.
pub fn is_metadata(path: &str) -> bool {
    matches!(path, OCI_LAYOUT | INDEX_JSON | DOCKER_JSON | SUMS512) || is_never_declared(path)
}

/// Whether a file may be in a bundle without being in its list.
pub fn is_never_declared(path: &str) -> bool {
    matches!(path, BUNDLE_JSON | SUMS | CHUNKS) || is_signature(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_names_count_as_signatures() {
        for (path, signed) in [
            ("SHA256SUMS.sig", Some(SUMS)),
            ("SHA256SUMS.0123456789abcdef.sig", Some(SUMS)),
            ("chunks.b3.sig", Some(CHUNKS)),
            ("chunks.b3.0123456789abcdef.sig", Some(CHUNKS)),
            ("SHA256SUMS", None),
            ("SHA256SUMS.0123456789ABCDEF.sig", None),
            ("SHA256SUMS.0123456789abcde.sig", None),
            ("SHA256SUMS0123456789abcdef.sig", None),
            ("SHA256SUMS..sig", None),
            ("SHA512SUMS.sig", None),
            ("tools/SHA256SUMS.sig", None),
            ("bundle.json.sig", None),
        ] {
            assert_eq!(signed_file(path), signed, "{path}");
        }
    }
}
