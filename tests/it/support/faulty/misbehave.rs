//! The effect of each fault on an answer and a connection.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use super::traffic::Meter;
use super::{After, Answer, Fault, Form, Seen, Stage, tokens};

/// The size of one write; traffic is counted in these.
const PIECE: usize = 64 * 1024;

/// The state of a connection afterwards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Then {
    Goes,
    Ends,
    Breaks,
}

/// The answer of a fault that does not pass the request on.
pub(super) fn instead(fault: &Fault, request: &Seen) -> Option<Answer> {
    let answer = match fault {
        Fault::Page => Answer::new(200).with("Content-Type", "text/html").body("<h1>Please log in</h1>"),
        Fault::Status(status) | Fault::Hasty(status) => error_answer(*status, "UNAVAILABLE"),
        Fault::Unauthorized => tokens::challenge(request),
        Fault::TooMany(after) => error_answer(429, "TOOMANYREQUESTS").with("Retry-After", retry_after(*after)),
        Fault::Redirect(host) => Answer::new(307).with("Location", format!("http://{host}{}", request.target)),
        Fault::RedirectLoop => Answer::new(307).with("Location", request.target.clone()),
        Fault::Cancelled => error_answer(404, "BLOB_UPLOAD_INVALID"),
        _ => return None,
    };
    Some(answer)
}

fn error_answer(status: u16, code: &str) -> Answer {
    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"by order of the test"}}]}}"#);
    Answer::new(status).with("Content-Type", "application/json").body(body)
}

fn retry_after(after: After) -> String {
    match after {
        After::Seconds(seconds) => seconds.to_string(),
        After::Date(from_now) => httpdate::fmt_http_date(SystemTime::now() + from_now),
    }
}

/// Applies a fault to the request that is passed on.
pub(super) fn spoil_request(fault: &Fault, request: &mut Seen) {
    match fault {
        Fault::IgnoreRange => {
            request.headers.remove("range");
        }
        Fault::WrongDigest => flip(&mut request.body),
        // White space: the manifest stays valid but has another digest.
        Fault::ExtraBytes(count) if !request.body.is_empty() => {
            request.body.extend(std::iter::repeat_n(b' ', *count));
            request.headers.insert("content-length".into(), request.body.len().to_string());
        }
        _ => {}
    }
}

/// Applies a fault to the answer.
pub(super) fn spoil_answer(fault: &Fault, request: &Seen, answer: &mut Answer) {
    match fault {
        Fault::AfterAll(status) => *answer = error_answer(*status, "UNAVAILABLE"),
        Fault::WrongDigest if request.body.is_empty() => flip(&mut answer.body),
        Fault::WrongLength(more) => {
            let message = answer.remove("content-length").and_then(|length| length.parse().ok());
            let length = message.unwrap_or(answer.body.len() as i64) + more;
            answer.headers.push(("Content-Length".into(), length.max(0).to_string()));
        }
        Fault::ExtraBytes(count) if request.body.is_empty() => answer.body.extend(std::iter::repeat_n(b'+', *count)),
        Fault::WrongType(name) => {
            answer.remove("content-type");
            answer.headers.push(("Content-Type".into(), (*name).into()));
        }
        Fault::WrongRange => {
            if let Some(range) = answer.remove("content-range") {
                let (start, rest) = range.trim_start_matches("bytes ").split_once('-').unwrap_or(("0", "0/0"));
                let start: usize = start.parse().unwrap_or(0);
                answer.headers.push(("Content-Range".into(), format!("bytes {}-{rest}", start + 1)));
            }
        }
        Fault::Location(form) => {
            if let Some(location) = answer.remove("location") {
                answer.headers.push(("Location".into(), rewritten(*form, &location, request.header("host"))));
            }
        }
        _ => {}
    }
}

fn flip(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
}

fn rewritten(form: Form, location: &str, host: &str) -> String {
    static CHANGES: AtomicUsize = AtomicUsize::new(0);
    let path = match location.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => location,
    };
    match form {
        Form::Relative => path.to_owned(),
        Form::Absolute => format!("http://{host}{path}"),
        Form::Changing => {
            let separator = if path.contains('?') { '&' } else { '?' };
            format!("{path}{separator}change={}", CHANGES.fetch_add(1, Ordering::Relaxed))
        }
    }
}

/// Sends an answer, or as much of it as its fault allows.
pub(super) fn send(stream: &TcpStream, method: &str, answer: &Answer, meter: &Meter) -> io::Result<Then> {
    let mut out = stream;
    let head = answer.head();
    let body: &[u8] = if method == "HEAD" { &[] } else { &answer.body };
    let (until, then) = match answer.fault {
        Some(Fault::Reset(stage)) => (reached(stage, body), Then::Breaks),
        Some(Fault::Stall(stage)) => (reached(stage, body), Then::Goes),
        Some(Fault::Truncate(at)) => (reached(Stage::Body(at), body), Then::Ends),
        // The announced and the sent length differ, so the client could not find the start of the next answer.
        Some(Fault::WrongLength(_)) => (Sent::Body(body.len()), Then::Ends),
        _ => (Sent::Body(body.len()), Then::Goes),
    };
    match until {
        Sent::Nothing => {}
        Sent::HalfAHead => out.write_all(&head.as_bytes()[..head.len() / 2])?,
        Sent::Body(length) => {
            out.write_all(head.as_bytes())?;
            for piece in pieces(&body[..length], answer.fault.as_ref()) {
                out.write_all(piece)?;
                meter.add(|counts| counts.bytes += piece.len());
            }
        }
    }
    if let Some(Fault::Stall(_)) = answer.fault {
        return Ok(silence(meter));
    }
    Ok(then)
}

enum Sent {
    Nothing,
    HalfAHead,
    Body(usize),
}

fn reached(stage: Stage, body: &[u8]) -> Sent {
    match stage {
        Stage::RequestBody(_) | Stage::Request | Stage::BeforeAnswer => Sent::Nothing,
        Stage::Headers => Sent::HalfAHead,
        Stage::Body(at) => Sent::Body(at.min(body.len())),
    }
}

fn pieces<'a>(body: &'a [u8], fault: Option<&Fault>) -> impl Iterator<Item = &'a [u8]> {
    let drips = if let Some(Fault::Drip(pieces)) = fault { Some((*pieces).max(1)) } else { None };
    let size = drips.map_or(PIECE, |drips| body.len().div_ceil(drips).max(1));
    body.chunks(size).inspect(move |_| {
        if drips.is_some() {
            pause();
        }
    })
}

/// Long enough for a piece to be sent by itself. This simulates the slow connection; no test waits for an event here.
pub(super) fn pause() {
    #[allow(clippy::disallowed_methods)]
    std::thread::sleep(Duration::from_millis(2));
}

/// Sends and reads nothing more until the test is over or releases it.
pub(super) fn silence(meter: &Meter) -> Then {
    meter.add(|counts| counts.stalls += 1);
    meter.until_released();
    Then::Ends
}
