//! HTTP exchanges for `--log-http`. The sender has already masked secrets.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

/// A moment of one HTTP exchange.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// Number of the exchange in this run, from 1. All moments of one exchange have the same number.
    pub number: u64,
    pub moment: Moment,
}

/// Names and values of the headers to log.
pub type Headers = Vec<(String, String)>;

/// A moment of an exchange. Times are measured from its start.
#[derive(Clone, Debug, PartialEq)]
pub enum Moment {
    /// A request is sent. `attempt` is 1 unless an earlier attempt failed; `bytes` is the length of its body.
    Asked { method: String, url: String, attempt: u32, bytes: u64, headers: Headers },
    /// The status and headers of the response have arrived.
    Answered { status: u16, after: Duration, headers: Headers },
    /// The response body has ended, or the rest is not needed.
    Read { bytes: u64, whole: bool, after: Duration },
    /// There is no response, or its body broke off.
    Failed { why: String, after: Duration },
}

/// One line: `http 7 > GET https://…`, `http 7 < 200 after 12 ms; …`.
impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http {} ", self.number)?;
        match &self.moment {
            Moment::Asked { method, url, attempt, bytes, headers } => {
                write!(f, "> {method} {url}")?;
                if *attempt > 1 {
                    write!(f, " (try {attempt})")?;
                }
                if *bytes > 0 {
                    write!(f, ", {bytes} bytes")?;
                }
                listed(f, headers)
            }
            Moment::Answered { status, after, headers } => {
                write!(f, "< {status} after {} ms", after.as_millis())?;
                listed(f, headers)
            }
            Moment::Read { bytes, whole, after } => {
                let rest = if *whole { "" } else { ", the rest was not read" };
                write!(f, "= {bytes} bytes after {} ms{rest}", after.as_millis())
            }
            Moment::Failed { why, after } => write!(f, "! after {} ms: {why}", after.as_millis()),
        }
    }
}

fn listed(f: &mut fmt::Formatter<'_>, headers: &Headers) -> fmt::Result {
    headers.iter().try_for_each(|(name, value)| write!(f, "; {name}: {value}"))
}

impl Exchange {
    /// The JSON form, for logs that programs read.
    pub(super) fn to_json(&self) -> Value {
        let object = |headers: &Headers| -> Value {
            headers.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect()
        };
        let mut value = match &self.moment {
            Moment::Asked { method, url, attempt, bytes, headers } => {
                json!({ "event": "http-request", "method": method, "url": url, "try": attempt, "bytes": bytes,
                        "headers": object(headers) })
            }
            Moment::Answered { status, headers, .. } => {
                json!({ "event": "http-answer", "status": status, "headers": object(headers) })
            }
            Moment::Read { bytes, whole, .. } => json!({ "event": "http-body", "bytes": bytes, "whole": whole }),
            Moment::Failed { why, .. } => json!({ "event": "http-failure", "text": why }),
        };
        value["number"] = self.number.into();
        if let Moment::Answered { after, .. } | Moment::Read { after, .. } | Moment::Failed { after, .. } = &self.moment
        {
            value["seconds"] = after.as_secs_f64().into();
        }
        value
    }
}
