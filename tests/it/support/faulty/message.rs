//! HTTP/1.1 requests and answers, read and written by hand, because faults need control over every byte.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use super::Fault;

/// One request as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn new(method: &str, target: impl Into<String>) -> Seen {
        Seen { method: method.to_owned(), target: target.into(), ..Seen::default() }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn is(&self, method: &str, start: &str) -> bool {
        self.method == method && self.target.starts_with(start)
    }

    /// The start of `Range: bytes=N-`.
    pub fn range(&self) -> Option<usize> {
        self.header("range").strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }

    /// The byte that `Range: bytes=N-N` asks for.
    pub fn byte(&self) -> Option<usize> {
        let (first, last) = self.header("range").strip_prefix("bytes=")?.split_once('-')?;
        first.parse().ok().filter(|_| first == last)
    }

    pub fn length(&self) -> usize {
        self.header("content-length").parse().unwrap_or(0)
    }
}

/// The answer to a request.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The fault applied to the answer in transit.
    pub fault: Option<Fault>,
}

impl Answer {
    pub fn new(status: u16) -> Answer {
        Answer { status, ..Answer::default() }
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Answer {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Answer {
        self.body = body.into();
        self
    }

    /// This answer with a fault in transit.
    pub fn but(mut self, fault: Fault) -> Answer {
        self.fault = Some(fault);
        self
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn remove(&mut self, name: &str) -> Option<String> {
        let at = self.headers.iter().position(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(self.headers.remove(at).1)
    }

    /// Status line and headers, with a Content-Length unless one is given.
    pub fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {} x\r\n", self.status);
        let has_length = self.header("content-length").or(self.header("transfer-encoding")).is_some();
        if self.status != 204 && !has_length {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head + "\r\n"
    }
}

/// The last byte of a blob that a test's server accepted without storing it, if the request asks for that byte.
pub fn last_byte(request: &Seen) -> Option<Answer> {
    let at = request.byte().filter(|_| request.method == "GET" && request.target.contains("/blobs/"))?;
    Some(Answer::new(206).with("Content-Range", format!("bytes {at}-{at}/{}", at + 1)).body("x"))
}

/// 200, or 206 from the requested offset or with the requested byte.
pub fn ranged(request: &Seen, content: &[u8]) -> Answer {
    if let Some((at, byte)) = request.byte().and_then(|at| Some((at, *content.get(at)?))) {
        let range = format!("bytes {at}-{at}/{}", content.len());
        return Answer::new(206).with("Content-Range", range).body([byte]);
    }
    match request.range() {
        None => Answer::new(200).body(content),
        Some(start) => {
            let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
            Answer::new(206).with("Content-Range", range).body(&content[start..])
        }
    }
}

/// Sends the request to `host` (`host:port`) on a new connection. Returns the complete answer or an error.
pub fn exchange(host: &str, request: &Seen) -> io::Result<Answer> {
    let stream = TcpStream::connect(host)?;
    // A server that refuses early may have stopped reading; its answer is read anyway.
    let _ = send_request(&stream, host, request);
    receive_answer(&stream, &request.method)
}

/// Sends the request with the length from its headers, which may exceed its body.
pub fn send_request(mut stream: &TcpStream, host: &str, request: &Seen) -> io::Result<()> {
    let mut head = format!("{} {} HTTP/1.1\r\nconnection: close\r\n", request.method, request.target);
    if !request.headers.contains_key("host") {
        head += &format!("host: {host}\r\n");
    }
    if !request.headers.contains_key("content-length") && !request.body.is_empty() {
        head += &format!("content-length: {}\r\n", request.body.len());
    }
    for (name, value) in request.headers.iter().filter(|(name, _)| *name != "connection") {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all((head + "\r\n").as_bytes())?;
    stream.write_all(&request.body)
}

fn receive_answer(stream: &TcpStream, method: &str) -> io::Result<Answer> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let mut answer = Answer::new(status.ok_or(io::ErrorKind::UnexpectedEof)?);
    answer.headers = read_headers(&mut reader)?;
    answer.remove("connection");
    if method == "HEAD" || answer.status == 204 {
        return Ok(answer);
    }
    let length = answer.remove("content-length").and_then(|length| length.parse().ok());
    let chunked = answer.remove("transfer-encoding").is_some();
    match length {
        Some(length) => {
            answer.body = vec![0; length];
            reader.read_exact(&mut answer.body)?;
        }
        None if chunked => answer.body = read_chunks(&mut reader)?,
        None => {
            reader.read_to_end(&mut answer.body)?;
        }
    }
    Ok(answer)
}

/// The head of the next request on a connection, without its body; `None` at the end.
pub fn receive_head(reader: &mut impl BufRead) -> io::Result<Option<Seen>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers = read_headers(reader)?.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    Ok(Some(Seen { method, target, headers, body: Vec::new() }))
}

fn read_headers(reader: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { return Ok(headers) };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

fn read_chunks(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let length = u64::from_str_radix(line.trim(), 16).map_err(|_| io::ErrorKind::InvalidData)?;
        reader.by_ref().take(length).read_to_end(&mut body)?;
        reader.read_line(&mut line)?;
        if length == 0 {
            return Ok(body);
        }
    }
}
