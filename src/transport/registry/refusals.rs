//! Recognizes causes that concern more than one request, from the words of a registry.
//!
//! Harbor uses one status and one code for most of them (403 `DENIED`): only its message distinguishes a full quota
//! from read-only mode. The messages are those of Harbor 2.0–2.16 (`src/lib/errors`,
//! `src/server/middleware/{quota,readonly,v2auth,immutable,contenttrust, vulnerable,repoproxy,blob}`); "the asking blob
//! is in GC" is from Harbor's own registry.
//!
//! **Threats.** The text comes from outside. It selects a cause and, for a quota, a number of bytes, and nothing else.
//! At worst it stops a push that the registry could have refused anyway.

use serde::Deserialize;

use super::facts::Symptom;
use crate::base::error::Reason;

#[derive(Deserialize)]
struct Errors {
    errors: Vec<ApiError>,
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// Whether a refusal is really an internal error. Harbor answers 401 to everything while its database is unreachable
/// (`middleware/v2auth`: any failure to look up a project is "unauthorized"), with the message of its PostgreSQL
/// driver.
pub(super) fn is_down(status: u16, body: &[u8]) -> bool {
    const SAID: [&str; 6] =
        ["failed to connect to", "connection refused", "dial tcp", "dial error", "conn closed", "(SQLSTATE "];
    let is_one =
        |error: &ApiError| error.code == "UNAUTHORIZED" && SAID.iter().any(|words| error.message.contains(words));
    status == 401 && serde_json::from_slice(body).is_ok_and(|Errors { errors }| errors.iter().any(is_one))
}

/// Whether the answer to an upload says that the disk behind the registry is full. distribution hides that in a 500.
pub(super) fn is_disk_full(status: u16, body: &[u8]) -> bool {
    status == 507 || (500..=599).contains(&status) && says_full(&String::from_utf8_lossy(body))
}

/// Returns the cause that the status and the words of an answer suggest. `shown` are the words as they are displayed.
pub(super) fn symptom(status: u16, body: &[u8], shown: &str) -> Option<Symptom> {
    let is_of_pulling = || {
        let one = |error: &ApiError| error.code == "UNAUTHORIZED" && error.message.contains("action: pull");
        serde_json::from_slice(body).is_ok_and(|Errors { errors }| errors.iter().any(one))
    };
    match () {
        () if is_disk_full(status, body) || says_full(shown) => Some(Symptom::DiskFull),
        () if status == 401 => is_of_pulling().then_some(Symptom::NoPullRight),
        () if shown.contains("quota") => Some(Symptom::Quota),
        () if shown.contains("read-only") || shown.contains("readonly") => Some(Symptom::ReadOnly),
        () => None,
    }
}

/// Whether a text mentions a full disk or a disk quota, in words or as Go writes the number of ENOSPC (28) or EDQUOT
/// (122).
fn says_full(text: &str) -> bool {
    const WORDS: [&str; 3] = ["no space left", "disk quota exceeded", "XMinioStorageFull"];
    let names = |number: &str| {
        text.split("Err").skip(1).any(|rest| {
            let Some(rest) = rest.trim_start_matches(['\\', '"']).strip_prefix(':') else { return false };
            rest.trim_start().strip_prefix(number).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
        })
    };
    WORDS.iter().any(|words| text.contains(words)) || names("28") || names("122")
}

/// Returns the cause that an answer with this status and body names, if any.
pub(super) fn named(status: u16, body: &[u8]) -> Option<Reason> {
    let Errors { errors } = serde_json::from_slice(body).ok()?;
    errors.iter().find_map(|error| cause(status, &error.code, &error.message))
}

fn cause(status: u16, code: &str, message: &str) -> Option<Reason> {
    let says = |words: &str| message.contains(words);
    match (status, code) {
        // A gateway may change the status to the one for requests that are too large.
        (403 | 413, "DENIED") if says("exceed the configured upper limit") => {
            Some(Reason::Quota { left: left(message) })
        }
        // The message of `gapferry serve --quota`.
        (403, "DENIED") if says("the quota of this registry") => Some(Reason::Full { left: exact(message) }),
        (403, "DENIED") if says("read only mode") => Some(Reason::ReadOnly),
        (403, "DENIED") if says("to a proxy project") => Some(Reason::ProxyCache),
        (401, "UNAUTHORIZED") if says("unauthorized to access repository") && says("action: push") => {
            Some(Reason::NoPushRight)
        }
        (412, "PRECONDITION") if says("configured as immutable") => Some(Reason::ImmutableTag),
        (412, "PROJECTPOLICYVIOLATION") => Some(Reason::PullPolicy),
        (404, "NOT_FOUND") if says("blob is in GC") => Some(Reason::BlobInCollection),
        _ => None,
    }
}

/// Returns the space that a project certainly has left, from `… current usage of 386.0 KiB will exceed the configured
/// upper limit of 2.9 MiB`. Both numbers are rounded to a tenth of their unit.
fn left(message: &str) -> u64 {
    let after = |words: &str| message.rsplit_once(words).and_then(|(_, rest)| amount(rest));
    match (after("current usage of "), after("configured upper limit of ")) {
        (Some(used), Some(limit)) => limit.least.saturating_sub(used.most),
        _ => 0,
    }
}

/// Returns the space in `…, 1234 bytes left`.
fn exact(message: &str) -> u64 {
    let number = message.rsplit_once(" bytes left").and_then(|(before, _)| before.rsplit(' ').next());
    number.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The range of bytes that a rounded number may stand for.
struct Amount {
    least: u64,
    most: u64,
}

fn amount(text: &str) -> Option<Amount> {
    let mut words = text.split_whitespace();
    let number: f64 = words.next()?.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)?;
    let unit = words.next()?.trim_end_matches(['.', ',', ';']);
    if unit == "B" {
        return Some(Amount { least: number as u64, most: number as u64 });
    }
    let power = ["KiB", "MiB", "GiB", "TiB", "PiB"].iter().position(|known| *known == unit)?;
    let bytes = 1024_f64.powi(power as i32 + 1);
    Some(Amount { least: ((number - 0.05).max(0.0) * bytes) as u64, most: ((number + 0.05) * bytes).ceil() as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason_of(status: u16, code: &str, message: &str) -> Option<Reason> {
        let body = serde_json::json!({"errors": [{"code": code, "message": message}]});
        named(status, body.to_string().as_bytes())
    }

    #[test]
    fn harbors_own_words_name_the_cause() {
        let push = "unauthorized to access repository: lib/multi, action: push";
        for (status, code, message, cause) in [
            (403, "DENIED", "The system is in read only mode. Any modification is prohibited.", Reason::ReadOnly),
            (403, "DENIED", "can not push artifact to a proxy project: hub", Reason::ProxyCache),
            (403, "DENIED", "the quota of this registry is 1 KiB, 24 bytes left", Reason::Full { left: 24 }),
            (403, "DENIED", "the quota of this registry", Reason::Full { left: 0 }),
            (401, "UNAUTHORIZED", push, Reason::NoPushRight),
            (
                412,
                "PRECONDITION",
                "Failed to process request due to 'chart:0.1.0' configured as immutable.",
                Reason::ImmutableTag,
            ),
            (412, "PROJECTPOLICYVIOLATION", "The image is not signed by cosign.", Reason::PullPolicy),
            (404, "NOT_FOUND", "the asking blob is in GC, mark it as non existing", Reason::BlobInCollection),
        ] {
            assert_eq!(reason_of(status, code, message), Some(cause), "{message}");
        }
        for (status, code, message) in [
            (403, "DENIED", "requested access to the resource is denied"),
            (401, "UNAUTHORIZED", "unauthorized to access repository: closed/a, action: pull"),
            (404, "NOT_FOUND", "repository lib/a not found"),
            (200, "DENIED", "The system is in read only mode."),
        ] {
            assert_eq!(reason_of(status, code, message), None, "{message}");
        }
        for body in ["", "null", "[]", "{\"errors\":null}", "{\"errors\":[{}]}", "<html>read only mode</html>"] {
            assert_eq!(named(403, body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn a_harbor_without_its_database_is_down_and_refuses_no_account() {
        let says = |status, code: &str, message: &str| {
            let body = serde_json::json!({"errors": [{"code": code, "message": message}]});
            is_down(status, body.to_string().as_bytes())
        };
        for message in [
            "failed to connect to `user=postgres database=registry`: 127.0.0.1:5432 (127.0.0.1): dial error: dial tcp \
             127.0.0.1:5432: connect: connection refused",
            "FATAL: the database system is shutting down (SQLSTATE 57P03)",
            "conn closed",
        ] {
            assert!(says(401, "UNAUTHORIZED", message), "{message}");
        }
        assert!(!says(401, "UNAUTHORIZED", "unauthorized to access repository: lib/a, action: push"));
        assert!(!says(403, "DENIED", "conn closed") && !is_down(401, b"<html>connection refused</html>"));
    }

    #[test]
    fn a_full_disk_is_recognized_wherever_its_number_stands() {
        let go = |error: &str| {
            format!(r#"{{"errors":[{{"detail":{{"DriverName":"filesystem","Enclosed":{{{error}}}}}}}]}}"#)
        };
        for (status, body, full) in [
            (500, go(r#""Op":"mkdir","Path":"/v","Err":28"#), true),
            (500, go(r#""Err":28,"Op":"mkdir""#), true),
            (503, go(r#""Op":"write","Err": 122"#), true),
            (500, r#"{"errors":[{"detail":"{\"Op\":\"write\",\"Err\":28}"}]}"#.to_owned(), true),
            (500, "write /v/x: no space left on device".to_owned(), true),
            (507, String::new(), true),
            (500, go(r#""Op":"mkdir","Err":280"#), false),
            (500, go(r#""Op":"mkdir","Err":2"#), false),
            (500, "Error 28".to_owned(), false),
            (400, go(r#""Op":"mkdir","Err":28"#), false),
        ] {
            assert_eq!(is_disk_full(status, body.as_bytes()), full, "{status} {body}");
        }
    }

    /// Advice to raise a quota does not help an account without rights, and vice versa.
    #[test]
    fn the_words_of_a_refusal_point_to_what_a_person_can_do() {
        let pull =
            r#"{"errors":[{"code":"UNAUTHORIZED","message":"unauthorized to access repository: a, action: pull"}]}"#;
        let push =
            r#"{"errors":[{"code":"UNAUTHORIZED","message":"unauthorized to access repository: a, action: push"}]}"#;
        let unlike = r#"{"errors":[{"code":"DENIED","message":"action: pull"}]}"#;
        for (status, body, shown, expected) in [
            (403, "", "DENIED: storage quota exceeded", Some(Symptom::Quota)),
            (403, "", "DENIED: repository is read-only", Some(Symptom::ReadOnly)),
            (403, "", "DENIED: the registry is readonly", Some(Symptom::ReadOnly)),
            (403, "", "DENIED: disk quota exceeded", Some(Symptom::DiskFull)),
            (507, "", "", Some(Symptom::DiskFull)),
            (500, "write /v: no space left on device", "", Some(Symptom::DiskFull)),
            (401, pull, "UNAUTHORIZED: quota", Some(Symptom::NoPullRight)),
            (401, push, "UNAUTHORIZED: quota", None),
            (401, unlike, "", None),
            (403, pull, "", None),
            (403, "", "DENIED: requested access is denied", None),
        ] {
            assert_eq!(symptom(status, body.as_bytes(), shown), expected, "{status} {body} {shown}");
        }
    }

    #[test]
    fn of_a_quota_the_room_that_is_certainly_left_is_read() {
        let left = |used: &str, limit: &str| {
            let message = format!(
                "adding 19.1 MiB of storage resource, which when updated to current usage of {used} will exceed the \
                 configured upper limit of {limit}."
            );
            assert_eq!(reason_of(413, "DENIED", &message), reason_of(403, "DENIED", &message));
            match reason_of(403, "DENIED", &message) {
                Some(Reason::Quota { left }) => left,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(left("100 B", "1000 B"), 900);
        assert_eq!(left("386.0 KiB", "2.9 MiB"), ((2.85 * 1048576.0) as u64) - (386.05_f64 * 1024.0).ceil() as u64);
        assert_eq!(left("3.0 MiB", "3.0 MiB"), 0, "rounding does not make room");
        for nonsense in ["", "x", "-1 MiB", "NaN GiB", "1e400 GiB", "5 parsecs"] {
            assert_eq!(left("0 B", nonsense), 0, "{nonsense}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_message_makes_it_panic(used in "[ -~]{0,12}", limit in "[0-9.e]{0,30} [KMGTP]iB") {
            let _ = left(&format!("current usage of {used} will exceed the configured upper limit of {limit}"));
        }
    }
}
