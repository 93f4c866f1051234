//! A server that answers as a test tells it to, well or badly, and remembers what it was asked.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

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
}

/// What is sent back.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Only so much of the body is sent, then the connection breaks.
    cut: Option<usize>,
    /// After the (cut) body the connection stays open and silent.
    silent: bool,
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

    pub fn cut(mut self, at: usize) -> Answer {
        self.cut = Some(at);
        self
    }

    pub fn silent(mut self, at: usize) -> Answer {
        (self.cut, self.silent) = (Some(at), true);
        self
    }
}

/// 200, or 206 from where the request wants it.
pub fn ranged(request: &Seen, content: &[u8]) -> Answer {
    match request.range() {
        None => Answer::new(200).body(content),
        Some(start) => {
            let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
            Answer::new(206).with("Content-Range", range).body(&content[start..])
        }
    }
}

/// A running server. It lives as long as the test's runtime.
pub struct Server {
    /// `127.0.0.1:port`
    pub address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// `answer` is given each request and how many came before it.
    pub async fn start(answer: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) -> Server {
        Server::at("127.0.0.1:0", answer).await.unwrap()
    }

    /// At an address of which the machine may know nothing.
    pub async fn at(
        address: &str,
        answer: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static,
    ) -> io::Result<Server> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), seen.clone());
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (answer, log) = (answer.clone(), log.clone());
                tokio::spawn(async move { converse(connection, &*answer, &log).await });
            }
        });
        Ok(Server { address, seen })
    }

    /// As [`Server::start`]; pings are answered with 200 and neither shown to `answer` nor remembered.
    pub async fn registry(answer: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) -> Server {
        let server = Server::start(move |request, before| match request.target.as_str() {
            "/v2/" => Answer::new(200),
            _ => answer(request, before - 1),
        });
        server.await
    }

    /// Everything asked so far but pings, oldest first.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|request| request.target != "/v2/").cloned().collect()
    }

    pub fn count(&self, method: &str, start: &str) -> usize {
        self.seen().iter().filter(|request| request.is(method, start)).count()
    }
}

async fn converse(
    connection: TcpStream,
    answer: &(dyn Fn(&Seen, usize) -> Answer + Send + Sync),
    log: &Mutex<Vec<Seen>>,
) -> io::Result<()> {
    let mut connection = BufReader::new(connection);
    while let Some(request) = receive(&mut connection).await? {
        let before = {
            let mut log = log.lock().unwrap();
            log.push(request.clone());
            log.len() - 1
        };
        let answer = answer(&request, before);
        let mut head = format!("HTTP/1.1 {} x\r\n", answer.status);
        if answer.status != 204 && !answer.headers.iter().any(|(name, _)| name == "Content-Length") {
            head += &format!("Content-Length: {}\r\n", answer.body.len());
        }
        for (name, value) in &answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        connection.write_all(head.as_bytes()).await?;
        if request.method != "HEAD" {
            let sent = answer.cut.unwrap_or(answer.body.len());
            connection.write_all(&answer.body[..sent]).await?;
        }
        connection.flush().await?;
        if answer.silent {
            std::future::pending::<()>().await;
        }
        if answer.cut.is_some() {
            return Ok(());
        }
    }
    Ok(())
}

async fn receive(connection: &mut BufReader<TcpStream>) -> io::Result<Option<Seen>> {
    let mut line = String::new();
    if connection.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut request = Seen { method, target, ..Seen::default() };
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        request.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = request.header("content-length").parse().unwrap_or(0);
    request.body = vec![0; length];
    connection.read_exact(&mut request.body).await?;
    Ok(Some(request))
}
