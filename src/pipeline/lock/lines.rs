//! The lines of a lock's images in its file, for messages.

use std::collections::HashMap;

use crate::base::position::ReferencePositions;
use crate::oci::Reference;

const KEY: &str = "\"reference\"";

/// Returns `FILE:LINE` of each reference in the JSON `text` of a lock. A reference is missing only if it is written in
/// a way that no lock uses.
pub fn written(text: &[u8], file: &str) -> ReferencePositions {
    let Ok(text) = std::str::from_utf8(text) else { return ReferencePositions::default() };
    let mut lines = HashMap::new();
    for (at, line) in text.lines().enumerate() {
        for (key, _) in line.match_indices(KEY) {
            let Some(value) = line[key + KEY.len()..].trim_start().strip_prefix(':') else { continue };
            let mut value = serde_json::Deserializer::from_str(value).into_iter::<Reference>();
            if let Some(Ok(reference)) = value.next() {
                lines.entry(reference).or_insert_with(|| format!("{file}:{}", at + 1));
            }
        }
    }
    ReferencePositions::from(lines)
}
