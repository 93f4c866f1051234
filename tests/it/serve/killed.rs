//! A server that is killed, or read by another one at the same time: acknowledged content is there.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::json;

use super::layout_of;
use crate::support::embedded::Embedded;
use crate::support::images::{self, Image};
use crate::support::{self, tempdir};

/// A layout with so many tags that the index is not rewritten at each push.
fn large(directory: &Path, image: &Image) {
    layout_of(directory, std::slice::from_ref(image));
    let descriptor = |n: u32| {
        let name = format!("docker.io/{}:old{n}", image.repository);
        let mut descriptor = image.descriptor();
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        descriptor
    };
    let manifests: Vec<_> = (0..400).map(descriptor).collect();
    std::fs::write(directory.join("index.json"), json!({"schemaVersion": 2, "manifests": manifests}).to_string())
        .unwrap();
}

fn indexed(directory: &Path) -> String {
    std::fs::read_to_string(directory.join("index.json")).unwrap()
}

fn start(layout: &Path) -> (Child, String) {
    let mut command = support::gapferry_process();
    command.arg("serve").arg(layout).args(["--listen", "127.0.0.1:0", "--writable"]);
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut address = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut address).unwrap();
    (process, address.trim().to_owned())
}

#[test]
fn every_acknowledged_push_survives_a_kill() {
    let work = tempdir();
    let image = images::oci("team/app", "1", &["x"]);
    large(work.path(), &image);
    let (mut process, address) = start(work.path());
    let send = |method, tag: &str, body: &[u8]| {
        let url = format!("http://{address}/v2/team/app/manifests/{tag}");
        support::http::request(method, url).header("Content-Type", &image.media_type).body(body).send()
    };
    send("PUT", "new", &image.manifest).expect(201);
    send("DELETE", "old7", b"").expect(202);
    send("PUT", "newer", &image.manifest).expect(201);
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(!indexed(work.path()).contains("team/app:new"), "this test needs a journal");
    serde_json::from_str::<serde_json::Value>(&indexed(work.path())).expect("still a layout");
    let check = |server: &Embedded| {
        for (tag, status) in [("new", 200), ("newer", 200), ("old6", 200), ("old7", 404)] {
            server.get(&format!("/v2/team/app/manifests/{tag}")).expect(status);
        }
    };
    check(&Embedded::serve(work.path()));
    assert!(work.path().join("index.journal").exists(), "reading changes nothing");
    // The next server merges both into one index before it accepts anything.
    let server = Embedded::writable(work.path());
    check(&server);
    assert!(!work.path().join("index.journal").exists());
    let index = indexed(work.path());
    assert!(index.contains("team/app:newer") && !index.contains("team/app:old7\""));
    drop(server);
    check(&Embedded::serve(work.path()));
}

#[test]
fn a_stopped_server_leaves_one_complete_index() {
    let work = tempdir();
    let image = images::oci("team/app", "1", &["x"]);
    large(work.path(), &image);
    let server = Embedded::writable(work.path());
    image.named("team/app", "new").push(&server);
    assert!(!indexed(work.path()).contains("team/app:new\""));
    // Another server reads the same directory.
    Embedded::serve(work.path()).get("/v2/team/app/manifests/new").expect(200);
    drop(server);
    assert!(indexed(work.path()).contains("team/app:new\""));
    assert!(!work.path().join("index.journal").exists());
}

#[test]
fn a_damaged_journal_is_reported() {
    let work = tempdir();
    let image = images::oci("team/app", "1", &["x"]);
    layout_of(work.path(), std::slice::from_ref(&image));
    std::fs::write(work.path().join("index.journal"), "0123456789abcdef {}\n0123456789abcdef {}\n").unwrap();
    for writable in [true, false] {
        let error = Embedded::try_serve(work.path(), writable).err().unwrap();
        assert!(error.to_string().contains("index.journal"), "{error}");
    }
}
