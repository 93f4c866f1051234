//! `verify -`.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::fixture::{Fixture, ended, text};

const WHOLE: usize = usize::MAX;

#[test]
fn a_bundle_from_a_pipe_is_verified_like_a_file() {
    let fixture = Fixture::new();
    let saved = std::fs::read(fixture.streamed("saved.tar", &[])).unwrap();
    let file = fixture.run(&["verify", "saved.tar"]).ended(0).stdout;
    let identity = |text: &str| text.lines().find(|line| line.starts_with("identity")).map(str::to_owned);
    for piece in [1_000, WHOLE] {
        let text = fixture.piped(&["verify", "-"], &saved, piece).ended(0).stdout;
        assert!(text.starts_with("OK: standard input: 4 images"), "{text}");
        assert_eq!(identity(&text), identity(&file));
    }
    // Export piped into verify, without a file; and a tar that was not streamed.
    let mut export = fixture.streaming(&[]).stderr(Stdio::inherit()).spawn().unwrap();
    let verify = fixture.process(&["verify", "-"]).stdin(export.stdout.take().unwrap()).output().unwrap();
    assert!(export.wait().unwrap().success());
    ended(verify).ended(0);
    fixture.run(&["export", "--locked", "images.lock", "-o", "plain.tar"]).ended(0);
    let plain = std::fs::read(fixture.path("plain.tar")).unwrap();
    fixture.piped(&["verify", "-"], &plain, WHOLE).ended(0);
    // A named pipe.
    assert!(Command::new("mkfifo").arg(fixture.path("pipe")).status().unwrap().success());
    let verify = fixture.process(&["verify", "pipe"]).spawn().unwrap();
    std::fs::write(fixture.path("pipe"), &plain).unwrap();
    assert!(ended(verify.wait_with_output().unwrap()).ended(0).stdout.contains("OK: pipe"));
}

/// The report of `verify --json`, without the place of the bytes.
fn report_of(text: &str, name: &str) -> Value {
    let mut json: Value = serde_json::from_str(&text.replace(name, "IT")).unwrap();
    json["files"] = Value::Null;
    json["bytes"] = Value::Null;
    // A consumed stream cannot be repaired.
    for key in ["hint", "hintCode"] {
        json.as_object_mut().unwrap().remove(key);
    }
    json
}

const FIRST_HEADER: &str = "the first header";

#[test]
fn problems_in_a_pipe_are_named_as_in_a_file() {
    let fixture = Fixture::new();
    let whole = std::fs::read(fixture.streamed("whole.tar", &[])).unwrap();
    let find =
        |name: &str| 512 * (0..whole.len() / 512).find(|at| whole[at * 512..].starts_with(name.as_bytes())).unwrap();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    let layer = format!(
        "blobs/{}",
        gapferry::oci::Digest::sha256(&fixture.images[0].blobs[1]).blob_path().trim_start_matches("blobs/")
    );
    let manifest = format!("blobs/sha256/{}", fixture.images[0].digest().trim_start_matches("sha256:"));
    let mut damages = vec![
        ("two tars", [&whole[..], &whole[..]].concat()),
        ("garbage behind it", [&whole[..], &[7; 3000]].concat()),
        ("no end mark", whole[..whole.len() - 1024].to_vec()),
        ("half an end mark", whole[..whole.len() - 512].to_vec()),
        ("nothing but the metadata", whole[..find("blobs/")].to_vec()),
    ];
    for name in ["oci-layout", "bundle.json", "index.json", "manifest.json", "SHA256SUMS", &manifest, &layer] {
        let header = if find(name) == 0 { FIRST_HEADER } else { "a header" };
        damages.push((header, flipped(find(name) + 5)));
        damages.push(("a byte", flipped(find(name) + 512 + 20)));
        damages.push(("cut", whole[..find(name) + 700].to_vec()));
    }
    for (what, bytes) in damages {
        std::fs::write(fixture.path("bad.tar"), &bytes).unwrap();
        let file = fixture.run(&["verify", "bad.tar", "--full", "--json"]);
        let pipe = fixture.piped(&["verify", "-", "--json"], &bytes, 100_000);
        assert_eq!(pipe.code, file.code, "{what}: {pipe:#?}");
        assert_ne!(file.code, Some(0), "{what}");
        // Only in a file can verify find the data after it.
        if file.code == Some(3) && !file.stdout.is_empty() && what != FIRST_HEADER {
            assert_eq!(report_of(&pipe.stdout, "standard input"), report_of(&file.stdout, "bad.tar"), "{what}");
        }
    }
}

#[test]
fn a_pipe_without_a_bundle_is_reported_as_such() {
    let fixture = Fixture::new();
    fixture.piped(&["verify", "-"], b"", WHOLE).ended(2).reported(&["standard input is empty"]);
    fixture.piped(&["verify", "-"], &[7; 5000], WHOLE).ended(2).reported(&["standard input is not a tar"]);
    fixture.piped(&["verify", "-"], b"\x1f\x8b and so on", WHOLE).ended(2).reported(&["compressed with gzip"]);
}

#[test]
fn a_stream_without_a_trusted_signature_is_refused_before_its_first_blob() {
    let fixture = Fixture::new();
    let keys = [("ours", "key.pem", "key.pub"), ("theirs", "other.pem", "other.pub")];
    for (_, private, public) in keys {
        let (private, public) = (fixture.path(private), fixture.path(public));
        let make = ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", text(&private)];
        assert!(Command::new("openssl").args(make).status().unwrap().success());
        let show = ["pkey", "-in", text(&private), "-pubout", "-out", text(&public)];
        assert!(Command::new("openssl").args(show).stderr(Stdio::null()).status().unwrap().success());
    }
    let signed = std::fs::read(fixture.streamed("signed.tar", &["--sign-key", "key.pem"])).unwrap();
    let unsigned = std::fs::read(fixture.streamed("plain.tar", &[])).unwrap();
    let text = fixture.piped(&["verify", "-", "--key", "key.pub"], &signed, WHOLE).ended(0).stdout;
    assert!(text.contains("signed by"), "{text}");
    // The blobs never arrived; the message must not be that they are missing.
    let first = |bytes: &[u8]| 512 * (1 + (0..).find(|at| bytes[at * 512..].starts_with(b"blobs/")).unwrap());
    for (bytes, key, why) in [(&signed, "other.pub", "does not match"), (&unsigned, "key.pub", "not signed")] {
        let refused = fixture.piped(&["verify", "-", "--key", key], &bytes[..first(bytes)], WHOLE).ended(3);
        refused.reported(&["standard input is refused", why]);
    }
}

#[test]
fn the_missing_list_of_a_stream_can_be_written() {
    let fixture = Fixture::new();
    let whole = std::fs::read(fixture.streamed("whole.tar", &[])).unwrap();
    let cut = &whole[..whole.len() - 2_000_000];
    fixture.piped(&["verify", "-", "--missing", "missing.json"], cut, WHOLE).ended(3);
    let missing: Value = serde_json::from_slice(&std::fs::read(fixture.path("missing.json")).unwrap()).unwrap();
    assert!(!missing["blobs"].as_array().unwrap().is_empty(), "{missing}");
}

#[test]
fn a_wrong_byte_is_located_in_a_pipe_as_in_a_file() {
    let fixture = Fixture::new();
    fixture.run(&["export", "--locked", "images.lock", "-o", "bad.tar"]).ended(0);
    let mut bytes = std::fs::read(fixture.path("bad.tar")).unwrap();
    let layer = gapferry::oci::Digest::sha256(&fixture.images[0].blobs[1]).blob_path();
    let header = 512 * (0..).find(|at| bytes[at * 512..].starts_with(layer.as_bytes())).unwrap();
    bytes[header + 512 + 2_500_000] ^= 1;
    bytes[header + 512 + 3_500_000] ^= 1;
    std::fs::write(fixture.path("bad.tar"), &bytes).unwrap();
    let pipe = fixture.piped(&["verify", "-", "--json", "--missing", "pipe.json"], &bytes, 100_000).ended(3).stdout;
    let file = fixture.run(&["verify", "bad.tar", "--full", "--json", "--missing", "file.json"]).ended(3).stdout;
    assert_eq!(report_of(&pipe, "standard input"), report_of(&file, "bad.tar"));
    let problems = report_of(&pipe, "standard input")["problems"].take();
    assert_eq!(problems[0]["path"], layer);
    assert_eq!(problems[0]["ranges"], serde_json::json!([{ "first": 2_097_152, "last": 4_101_191 }]));
    let found = problems[0]["found"].as_str().unwrap();
    assert!(found.starts_with("sha256:") && found.contains("bytes 2097152-4101191 of"), "{found}");
    // Only these are fetched again.
    let missing = std::fs::read(fixture.path("pipe.json")).unwrap();
    assert_eq!(missing, std::fs::read(fixture.path("file.json")).unwrap());
    let missing: Value = serde_json::from_slice(&missing).unwrap();
    assert_eq!(missing["blobs"][0]["ranges"][0]["values"].as_array().unwrap().len(), 2, "{missing}");
}

#[test]
fn part_of_a_bundle_is_not_called_a_damaged_bundle() {
    let fixture = Fixture::new();
    fixture.run(&["export", "--locked", "images.lock", "-o", "plain.tar"]).ended(0);
    fixture.run(&["split", "plain.tar", "-o", "part.tar", "--volume-size", "3MB"]).ended(0);
    let volume = std::fs::read(fixture.path("part.002.tar")).unwrap();
    for command in [&["verify", "-"][..], &["import", "-", "--to", "127.0.0.1:1/none"]] {
        let refused = fixture.piped(command, &volume, WHOLE).ended(2);
        refused.reported(&["standard input is not a bundle but a volume of a bundle", "from a file"]);
    }
}

#[test]
fn commands_that_cannot_stream_refuse_a_dash() {
    let fixture = Fixture::new();
    fixture.run(&["export", "--locked", "images.lock", "-o", "plain.tar"]).ended(0);
    fixture.run(&["split", "plain.tar", "-o", "part.tar", "--volume-size", "3MB"]).ended(0);
    fixture.run(&["join", "-o", "-", "part.001.tar", "part.002.tar"]).ended(2).reported(&["no stream"]);
    fixture.run(&["split", "plain.tar", "-o", "-", "--volume-size", "3MB"]).ended(2).reported(&["no stream"]);
    assert!(!fixture.path("-").exists() && !fixture.path("-.001.tar").exists());
    for command in [&["list", "-"][..], &["fingerprint", "-"], &["verify", "plain.tar", "-"]] {
        fixture.run(command).ended(2).reported(&["only `verify` and `import` read a bundle from standard input"]);
    }
}
