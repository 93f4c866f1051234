//! Limits on a single client, so that others are served.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use gapferry::serve::Limits;

use super::code;
use crate::support::embedded::Embedded;
use crate::support::images;
use crate::support::tempdir;

const SOON: Duration = Duration::from_millis(50);

#[test]
fn an_abandoned_upload_is_dropped_even_if_no_other_starts() {
    let work = tempdir();
    let server = Embedded::limited(work.path(), Limits { upload_idle: SOON, ..Limits::default() });
    let begun = server.request("POST", "/v2/a/blobs/uploads/").send().expect(202);
    let place = begun.header("location").unwrap();
    // Status requests do not count as sending.
    while server.get(place).status != 404 {
        std::thread::yield_now();
    }
    let left = std::fs::read_dir(work.path().join(".uploads")).map_or(0, Iterator::count);
    assert_eq!(left, 0);
    assert_eq!(code(&server.request("PATCH", place).body("late").send().expect(404)), "BLOB_UPLOAD_UNKNOWN");
}

#[test]
fn the_number_of_open_uploads_is_limited() {
    let work = tempdir();
    let server = Embedded::limited(work.path(), Limits { uploads: 2, ..Limits::default() });
    let begin = || server.request("POST", "/v2/a/blobs/uploads/").send();
    let first = begin().expect(202);
    begin().expect(202);
    assert_eq!(code(&begin().expect(429)), "TOOMANYREQUESTS");
    server.request("DELETE", first.header("location").unwrap()).send().expect(204);
    begin().expect(202);
}

#[test]
fn an_oversized_manifest_is_refused() {
    let work = tempdir();
    let image = images::oci("a", "1", &["x"]);
    let server = Embedded::limited(work.path(), Limits { manifest: 100, ..Limits::default() });
    image.blobs.iter().for_each(|blob| images::push_blob(&server, "a", blob));
    let put = server.request("PUT", "/v2/a/manifests/1").header("Content-Type", &image.media_type);
    assert_eq!(code(&put.body(image.manifest.clone()).send().expect(413)), "SIZE_INVALID");
}

#[test]
fn a_silent_client_does_not_block_others_for_long() {
    let work = tempdir();
    let server = Embedded::limited(work.path(), Limits { connections: 1, head: SOON, ..Limits::default() });
    let _silent = TcpStream::connect(server.host()).unwrap();
    server.get("/v2/").expect(200);
}

/// Sends a request on a connection that stays open, and reads the answer.
fn asked(server: &Embedded) -> TcpStream {
    let mut client = TcpStream::connect(server.host()).unwrap();
    client.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"{}") {
        let mut piece = [0; 512];
        let read = client.read(&mut piece).unwrap();
        assert!(read > 0);
        answer.extend_from_slice(&piece[..read]);
    }
    client
}

#[test]
fn idle_connections_give_way_to_an_active_one() {
    let work = tempdir();
    let never = Duration::from_secs(3600);
    let limits = Limits { connections: 4, head: never, idle: never, ..Limits::default() };
    let server = Embedded::limited(work.path(), limits);
    let silent: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(server.host()).unwrap()).collect();
    server.get("/v2/").expect(200);
    drop(silent);
    // Connections that were answered and stay open give way too.
    let answered: Vec<TcpStream> = (0..4).map(|_| asked(&server)).collect();
    server.get("/v2/").expect(200);
    drop(answered);
}

#[test]
fn a_body_that_trickles_is_cut_off() {
    let work = tempdir();
    let server = Embedded::limited(work.path(), Limits { idle: SOON, least: 1024, ..Limits::default() });
    let mut client = TcpStream::connect(server.host()).unwrap();
    let head = "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n";
    client.write_all(head.as_bytes()).unwrap();
    client.write_all(b"a few bytes").unwrap();
    // The connection ends with an answer or a reset, although the client sends nothing more.
    let _ = client.read_to_end(&mut Vec::new());
    server.get("/v2/").expect(200);
}

#[test]
fn slow_uploads_on_every_slot_do_not_block_others() {
    let work = tempdir();
    let never = Duration::from_secs(3600);
    let limits = Limits { connections: 2, idle: never, patience: SOON, ..Limits::default() };
    let server = Embedded::limited(work.path(), limits);
    let head = "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\na few";
    let slow: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut client = TcpStream::connect(server.host()).unwrap();
            client.write_all(head.as_bytes()).unwrap();
            client
        })
        .collect();
    server.get("/v2/").expect(200);
    drop(slow);
}
