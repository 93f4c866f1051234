//! Units of JSON.

use std::time::Duration;

use serde::Serializer;

/// As a number of seconds.
pub fn as_seconds<S: Serializer>(elapsed: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(elapsed.as_secs_f64())
}
