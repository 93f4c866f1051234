//! Renders the companions of images.

use crate::pipeline::companion::Kind;

/// `2 signatures, 1 SBOM`, or `-` if there are none. `is_unknown` says that the registry may have more.
pub fn counted(kinds: &[Kind], is_unknown: bool) -> String {
    let of = |kind: Kind| kinds.iter().filter(|own| **own == kind).count();
    let all = [Kind::Signature, Kind::Attestation, Kind::Sbom, Kind::Other].map(|kind| (kind, of(kind)));
    let parts: Vec<String> = all.iter().filter(|(_, number)| *number > 0).map(|(kind, n)| kind.counted(*n)).collect();
    match (parts.is_empty(), is_unknown) {
        (true, false) => "-".to_owned(),
        (true, true) => "unknown".to_owned(),
        (false, false) => parts.join(", "),
        (false, true) => format!("{}, perhaps more", parts.join(", ")),
    }
}
