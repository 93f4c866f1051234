//! The network between a machine and its registries: a web proxy (forwarding and CONNECT, RFC 9110 §9.3.6), and a relay
//! to an IPv6 address. Plain threads; every name leads to one registry.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A web proxy that records the heads of requests. It lives as long as the test.
pub struct WebProxy {
    pub address: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl WebProxy {
    /// Connects every host name to `registry`, `127.0.0.1:port`; with a `refusal` (`407 Proxy Authentication
    /// Required`), refuses everything.
    pub fn to(registry: &str, refusal: Option<&'static str>) -> WebProxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let (registry, log) = (registry.to_owned(), heads.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (registry, log) = (registry.clone(), log.clone());
                std::thread::spawn(move || serve(client, &registry, refusal, &log));
            }
        });
        WebProxy { address, heads }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The heads of requests so far, first line and headers.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("the log").clone()
    }
}

fn serve(mut client: TcpStream, registry: &str, refusal: Option<&str>, log: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    log.lock().expect("the log").push(head.clone());
    if let Some(refusal) = refusal {
        return client.write_all(format!("HTTP/1.1 {refusal}\r\nContent-Length: 0\r\n\r\n").as_bytes());
    }
    let mut upstream = TcpStream::connect(registry)?;
    if head.starts_with("CONNECT ") {
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    } else {
        // One request per connection: the registry is asked to close it after its answer.
        let (first, headers) = head.split_once("\r\n").unwrap_or_default();
        let path = first.splitn(4, '/').nth(3).unwrap_or_default();
        let method = first.split(' ').next().unwrap_or_default();
        upstream.write_all(format!("{method} /{path}\r\nConnection: close\r\n{headers}").as_bytes())?;
    }
    upstream.write_all(reader.buffer())?;
    both_ways(client, upstream)
}

fn both_ways(client: TcpStream, upstream: TcpStream) -> io::Result<()> {
    let (mut from, mut to) = (client.try_clone()?, upstream.try_clone()?);
    let up = std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let (mut from, mut to) = (upstream, client);
    let _ = io::copy(&mut Read::by_ref(&mut from), &mut to);
    let _ = to.shutdown(Shutdown::Both);
    let _ = up.join();
    Ok(())
}

/// A relay to `registry` from an IPv6 loopback address, `[::1]:port`; `None` where the machine has none.
pub fn ipv6_relay(registry: &str) -> Option<String> {
    let listener = TcpListener::bind("[::1]:0").ok()?;
    let address = listener.local_addr().ok()?.to_string();
    let registry = registry.to_owned();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let registry = registry.clone();
            std::thread::spawn(move || both_ways(client, TcpStream::connect(registry)?));
        }
    });
    Some(address)
}
