//! Shapes of answers and of queries.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes};
use axum::http::{Response, header};
use serde_json::{Value, json};

use super::Answer;

pub fn empty(status: u16) -> Answer {
    Response::builder().status(status).header(header::CONTENT_LENGTH, "0").body(Body::empty()).unwrap()
}

pub fn json(status: u16, value: Value) -> Answer {
    bytes(status, "application/json; charset=utf-8", Bytes::from(value.to_string()))
}

pub fn bytes(status: u16, content_type: &str, content: Bytes) -> Answer {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, content_type)
        .header(header::CONTENT_LENGTH, content.len())
        .body(Body::from(content))
        .unwrap()
}

pub fn refuse(status: u16, code: &str, message: &str) -> Answer {
    json(status, json!({"errors": [{"code": code, "message": message}]}))
}

pub fn header(mut answer: Answer, name: &'static str, value: impl AsRef<str>) -> Answer {
    answer.headers_mut().insert(name, value.as_ref().parse().unwrap());
    answer
}

/// Names and values of a query, percent-decoded, in order per name.
pub fn parse_query(query: &str) -> BTreeMap<String, Vec<String>> {
    let mut parsed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        parsed.entry(decode(name)).or_default().push(decode(value));
    }
    parsed
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                plain.push(byte);
                at += 2;
            }
            (b'+', _) => plain.push(b' '),
            (byte, _) => plain.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&plain).into_owned()
}
