//! Bundles made to attack: escaping paths, links, devices, contradictions, excessive numbers and nesting. Each is
//! refused with its reason; nothing is pushed, nothing outside is touched, and nothing panics.

use std::path::Path;

use gapferry::bundle::BundleJson;
use gapferry::oci::Digest;
use gapferry::oci::media_type::OCI_MANIFEST;
use serde_json::{Value, json};
use tar::EntryType;

use super::bundle::{Fixture, Form, blob_path, verify};
use super::forged::{entry, forge, refused, replace, resum, tar_with};
use crate::support::ran::Ran;
use crate::support::registry::Registry;
use crate::support::{gapferry, sha256, tempdir};

#[test]
fn a_tar_with_escaping_paths_links_devices_or_duplicates_is_refused() {
    let fixture = Fixture::new();
    let target = Registry::start();
    let regular = EntryType::Regular;
    let long = "x/".repeat(600) + "x";
    let cases = [
        ("../outside", entry("../outside", regular, b"x"), "leads out"),
        ("a/../../outside", entry("a/../../outside", regular, b"x"), "leads out"),
        ("/etc/gapferry-test", entry("/etc/gapferry-test", regular, b"x"), "absolute"),
        ("blobs//x", entry("blobs//x", regular, b"x"), "plain path"),
        ("blobs/./x", entry("blobs/./x", regular, b"x"), "plain path"),
        ("blobs\\\\x", entry("blobs\\x", regular, b"x"), "characters"),
        ("\\u{1b}[2J", entry("\u{1b}[2J", regular, b"x"), "characters"),
        ("index.json", entry("index.json", regular, b"{}"), "twice"),
        ("index.json", entry("./index.json", regular, b"{}"), "twice"),
        ("INDEX.json", entry("INDEX.json", regular, b"{}"), "only in case"),
        ("index.json", entry("INDEX.json/x", regular, b"{}"), "the directory INDEX.json only in case"),
        ("index.json", entry("index.json", EntryType::Directory, b""), "a file and a directory"),
        ("blobs/sha256", entry("blobs/sha256", regular, b""), "a file and a directory"),
        ("index.json", entry("index.json/x", regular, b"{}"), "a file and a directory"),
        ("link", entry("link", EntryType::Symlink, b""), "symbolic link"),
        ("hard", entry("hard", EntryType::Link, b""), "hard link"),
        ("tty", entry("tty", EntryType::Char, b""), "device"),
        ("disk", entry("disk", EntryType::Block, b""), "device"),
        ("pipe", entry("pipe", EntryType::Fifo, b""), "device"),
        ("sparse", entry("sparse", EntryType::GNUSparse, b""), "sparse"),
        ("blobs", entry("blobs", EntryType::Directory, b"content"), "directory with content"),
        ("other", entry("other", EntryType::new(b'V'), b""), "unknown type"),
        ("all", entry("all", EntryType::XGlobalHeader, b"11 size=99\n"), "all entries"),
    ];
    let directory = tempdir();
    for (at, (path, entry, says)) in cases.iter().enumerate() {
        let bundle = directory.path().join(format!("{at}.tar"));
        std::fs::write(&bundle, tar_with(&fixture.parts, std::slice::from_ref(entry))).unwrap();
        let report = refused(&bundle, &target, says);
        let named =
            report.problems.iter().any(|p| p["path"] == *path && p["found"].as_str().unwrap_or("").contains(says));
        assert!(named, "{path}: {says}: {report:#?}");
    }
    let name = [entry("././@LongLink", EntryType::GNULongName, long.as_bytes()), entry("x", regular, b"x")];
    let bundle = directory.path().join("long.tar");
    std::fs::write(&bundle, tar_with(&fixture.parts, &name)).unwrap();
    refused(&bundle, &target, "a name that is too long");
    assert!(!Path::new("/etc/gapferry-test").exists());
}

#[test]
fn an_extended_header_cannot_make_two_programs_read_different_files() {
    let fixture = Fixture::new();
    let target = Registry::start();
    let directory = tempdir();
    // Gives the next entry another size, with a long name in between: GNU tar and Go disagree on the file's size.
    let size = entry("pax", EntryType::XHeader, b"12 size=512\n");
    let name = entry("././@LongLink", EntryType::GNULongName, b"smuggled\0");
    let file = entry("x", EntryType::Regular, &[b'x'; 512]);
    let bundle = directory.path().join("b.tar");
    std::fs::write(&bundle, tar_with(&fixture.parts, &[size, name, file])).unwrap();
    let report = refused(&bundle, &target, "smuggled");
    assert_eq!(report.paths(), ["././@LongLink".to_owned(), "x".to_owned()].into(), "{report:#?}");
}

#[test]
fn an_extended_header_without_an_entry_is_refused() {
    let fixture = Fixture::new();
    let target = Registry::start();
    let directory = tempdir();
    for (kind, data) in [(EntryType::XHeader, &b"12 path=abc\n"[..]), (EntryType::GNULongName, b"abc\0")] {
        let bundle = directory.path().join("b.tar");
        std::fs::write(&bundle, tar_with(&fixture.parts, &[entry("last", kind, data)])).unwrap();
        refused(&bundle, &target, "an extended header at the end");
    }
}

#[test]
fn invalid_overlong_or_deeply_nested_paths_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let fixture = Fixture::new();
    let target = Registry::start();
    for (case, name) in [
        ("no text", std::ffi::OsStr::from_bytes(b"\xff\xfe").to_owned()),
        ("a line of its own", "OK: all is well\nOK".into()),
        ("deep", "d/".repeat(40).into()),
        ("too long", format!("{}/{}", "a".repeat(200), "b/".repeat(10)).into()),
    ] {
        let directory = tempdir();
        let root = fixture.parts.write(directory.path(), Form::Directory);
        let file = root.join(&name).join("file");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, b"x").unwrap();
        refused(&root, &target, case);
    }
}

#[test]
fn links_and_pipes_in_a_bundle_directory_are_refused_and_never_followed() {
    let fixture = Fixture::new();
    let target = Registry::start();
    let layer = fixture.locations()[0].path.clone();
    let secret = tempdir();
    std::fs::write(secret.path().join("file"), b"of the machine, not of the bundle").unwrap();
    type Prepare<'a> = &'a dyn Fn(&Path);
    let depths = "d/".repeat(16);
    let deep = depths.trim_end_matches('/');
    let cases: [(&str, Prepare<'_>); 6] = [
        (deep, &|root| {
            std::fs::create_dir_all(root.join(deep)).unwrap();
            std::fs::write(root.join(deep).join("hidden"), b"declared by nobody").unwrap();
        }),
        ("link", &|root| std::os::unix::fs::symlink(secret.path().join("file"), root.join("link")).unwrap()),
        ("tree", &|root| std::os::unix::fs::symlink(secret.path(), root.join("tree")).unwrap()),
        ("loop", &|root| std::os::unix::fs::symlink(".", root.join("loop")).unwrap()),
        (&layer, &|root| {
            // The right content, but not a file inside the bundle.
            let (inside, outside) = (root.join(&layer), secret.path().join("layer"));
            std::fs::rename(&inside, &outside).unwrap();
            std::os::unix::fs::symlink(outside, inside).unwrap();
        }),
        ("pipe", &|root| {
            let made = std::process::Command::new("mkfifo").arg(root.join("pipe")).status().unwrap();
            assert!(made.success());
        }),
    ];
    for (path, prepare) in cases {
        let directory = tempdir();
        let root = fixture.parts.write(directory.path(), Form::Directory);
        prepare(&root);
        let report = refused(&root, &target, path);
        assert_eq!(report.paths(), [path.to_owned()].into(), "{report:#?}");
        assert!(report.problems.iter().any(|problem| problem["code"] == "unsafe"), "{report:#?}");
    }
}

#[test]
fn files_with_correct_sums_must_still_agree_with_each_other() {
    let fixture = Fixture::new();
    let target = Registry::start();
    let text = |path: &str| String::from_utf8(fixture.parts.clone().bytes(path).clone()).unwrap();
    let swapped = text("manifest.json").replace("team/one:1", "x").replace("team/three:1", "team/one:1");
    let renamed = text("index.json").replace("team/one:1", "team/first:1");
    let exchanged = text("index.json").replace("team/one:1", "x").replace("team/three:1", "team/one:1");
    let deep = format!("{{\"manifests\": {}", "[".repeat(100_000));
    let unnamed = json!({"mediaType": OCI_MANIFEST, "digest": sha256(b"elsewhere"), "size": 12_345});
    let unnamed = format!(":[{unnamed},");
    let cases = [
        ("manifest.json", "another image under a name", swapped),
        ("manifest.json", "no list", "{}".to_owned()),
        ("manifest.json", "nesting", "[".repeat(100_000)),
        ("index.json", "another name", renamed),
        ("index.json", "another image under a name", exchanged.replace("\"x\"", "\"127.0.0.1/team/three:1\"")),
        ("index.json", "nothing", "{\"schemaVersion\": 2, \"manifests\": []}".to_owned()),
        ("index.json", "nesting", deep),
        ("index.json", "white space", text("index.json").replacen(':', ": ", 1)),
        ("index.json", "another media type", text("index.json").replacen("image.manifest", "image.index", 1)),
        ("index.json", "a manifest without a name", text("index.json").replacen(":[", &unnamed, 1)),
        ("manifest.json", "white space", text("manifest.json") + "\n"),
        ("manifest.json", "no image", "[]".to_owned()),
    ];
    for (path, case, text) in cases {
        let directory = tempdir();
        let report =
            refused(&replace(&fixture, path, text.as_bytes()).write(directory.path(), Form::Tar), &target, case);
        assert_eq!(report.paths(), [path.to_owned()].into(), "{case}: {report:#?}");
    }
}

#[test]
fn excessive_numbers_and_nesting_in_bundle_json_are_refused() {
    let fixture = Fixture::new();
    let target = Registry::start();
    let text = String::from_utf8(fixture.parts.clone().bytes("bundle.json").clone()).unwrap();
    let deep = "[".repeat(200_000);
    let cases = [
        ("a size beyond 64 bits", text.replacen("\"size\": ", "\"size\": 99999999999999999999999", 1)),
        ("a size without end", text.replacen("\"size\": ", "\"size\": 1e999, \"x\": ", 1)),
        ("a negative size", text.replacen("\"size\": ", "\"size\": -", 1)),
        ("a version beyond 32 bits", text.replacen("\"gapferryBundle\": 1", "\"gapferryBundle\": 4294967297", 1)),
        ("a key nobody knows", text.replacen("\"parents\"", "\"surprise\": 1, \"parents\"", 1)),
        ("deep nesting", text.replacen("\"parents\": ", &format!("\"parents\": {deep}"), 1)),
        ("nothing but nesting", deep.clone()),
        ("a digest that is a path", text.replacen("\"digest\": \"sha256:", "\"digest\": \"sha256:../../", 1)),
    ];
    for (case, text) in cases {
        let mut parts = fixture.parts.clone();
        *parts.bytes("bundle.json") = text.into_bytes();
        resum(&mut parts);
        let directory = tempdir();
        let report = refused(&parts.write(directory.path(), Form::Tar), &target, case);
        assert_eq!(report.paths(), ["bundle.json".to_owned()].into(), "{case}: {report:#?}");
    }
}

#[test]
fn a_bundle_of_another_format_version_is_not_called_damaged() {
    let fixture = Fixture::new();
    let parts = forge(&fixture, |json| json["gapferryBundle"] = json!(2));
    for form in [Form::Directory, Form::Tar] {
        let directory = tempdir();
        let path = parts.write(directory.path(), form);
        for command in [&["verify"][..], &["list"], &["import", "--to", "127.0.0.1:9"]] {
            let output = gapferry().args(command).arg(&path).output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{stderr}");
            assert!(stderr.contains("format 2") && stderr.contains("reads format 1"), "{stderr}");
        }
    }
}

#[test]
fn oversized_metadata_files_are_refused_unread() {
    let fixture = Fixture::new();
    let target = Registry::start();
    let size = 1 << 40;
    for name in ["bundle.json", "SHA256SUMS", "index.json"] {
        let directory = tempdir();
        let root = fixture.parts.write(directory.path(), Form::Directory);
        // A sparse file takes no space, but reading it in full would exhaust the memory.
        let file = std::fs::OpenOptions::new().write(true).open(root.join(name)).unwrap();
        if file.set_len(size).is_err() {
            eprintln!(
                "skipped {name}: the file system of the temporary directory has no room for a file of {size} bytes"
            );
            continue;
        }
        let list = gapferry().arg("list").arg(&root).output().unwrap();
        let code = if name == "bundle.json" { 3 } else { 0 };
        assert_eq!(list.status.code(), Some(code), "{name}: {}", String::from_utf8_lossy(&list.stderr));
        let output = gapferry().arg("import").arg(&root).args(["--to", target.host()]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{name}: {stderr}");
        assert!(stderr.contains(name), "{stderr}");
    }
}

#[test]
fn a_consistent_bundle_that_contradicts_its_manifests_is_refused() {
    let fixture = Fixture::new();
    let target = Registry::start();
    let nowhere = sha256(b"not in the bundle");
    type Edit<'a> = &'a dyn Fn(&mut Value);
    let cases: [(&str, Edit<'_>); 10] = [
        ("another image than the one pinned", &|json| {
            let reference = json["lock"]["images"][0]["reference"].as_str().unwrap().to_owned();
            json["lock"]["images"][0]["reference"] = json!(format!("{reference}@{nowhere}"));
        }),
        ("platforms that are not carried", &|json| {
            json["lock"]["images"][0]["platforms"] = json!([{"os": "plan9", "architecture": "mips"}]);
        }),
        ("an image that is not there", &|json| json["lock"]["images"][0]["digest"] = json!(nowhere)),
        ("another name for an image", &|json| json["lock"]["images"][0]["reference"] = json!("evil.example/other:1")),
        ("a file above the root", &|json| json["files"][5]["path"] = json!("../../../etc/passwd")),
        ("an absolute file", &|json| json["files"][5]["path"] = json!("/etc/passwd")),
        ("an image left out", &|json| drop(json["lock"]["images"].as_array_mut().unwrap().pop())),
        ("a file named twice", &|json| {
            let file = json["files"][0].clone();
            json["files"].as_array_mut().unwrap().push(file);
        }),
        ("a blob named twice", &|json| {
            let files = json["files"].as_array_mut().unwrap();
            files.push(files.last().unwrap().clone());
        }),
        ("the size of a manifest", &|json| json["lock"]["images"][0]["size"] = json!(1u64 << 60)),
    ];
    for (case, edit) in cases {
        let parts = forge(&fixture, edit);
        let directory = tempdir();
        refused(&parts.write(directory.path(), Form::Tar), &target, case);
    }
}

#[test]
fn a_bundle_cannot_declare_a_required_layer_as_omitted() {
    let fixture = Fixture::new();
    let target = Registry::start();
    let json: Value = serde_json::from_slice(fixture.parts.clone().bytes("bundle.json")).unwrap();
    for reason in ["foreign-layer", "platform-not-selected"] {
        for file in json["files"].as_array().unwrap().iter().filter(|f| f["path"].as_str().unwrap().contains("blobs/"))
        {
            let path = file["path"].as_str().unwrap();
            let absent =
                json!({"digest": path.replace("blobs/sha256/", "sha256:"), "size": file["size"], "reason": reason});
            let mut parts = forge(&fixture, |json| {
                json["files"].as_array_mut().unwrap().retain(|file| file["path"] != path);
                for image in json["lock"]["images"].as_array_mut().unwrap() {
                    image["absent"] = json!([absent]);
                }
            });
            parts.remove(path);
            let sums = String::from_utf8(parts.bytes("SHA256SUMS").clone()).unwrap();
            let left: Vec<&str> = sums.lines().filter(|line| !line.ends_with(path)).collect();
            *parts.bytes("SHA256SUMS") = (left.join("\n") + "\n").into_bytes();
            let directory = tempdir();
            refused(&parts.write(directory.path(), Form::Tar), &target, &format!("{path} {reason}"));
        }
    }
}

#[test]
fn text_from_a_bundle_cannot_control_the_terminal() {
    let fixture = Fixture::new();
    let escape = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\u{202e}\u{2028}\nOK: all is well";
    let parts = forge(&fixture, |json| {
        json["lock"]["images"][0]["source"] = json!(escape);
        json["lock"]["images"][0]["mediaType"] = json!(escape);
        json["lock"]["images"][0]["platforms"] = json!([{"os": escape, "architecture": escape}]);
        json["files"][3]["path"] = json!(format!("blobs/{escape}"));
    });
    let directory = tempdir();
    let path = parts.write(directory.path(), Form::Tar);
    for command in [&["list"][..], &["verify"], &["inspect"], &["import", "--to", "127.0.0.1:9"]] {
        let output = gapferry().args(command).arg(&path).output().unwrap();
        for stream in [&output.stdout, &output.stderr] {
            let text = String::from_utf8_lossy(stream);
            let is_bad = |c: &char| c.is_control() && *c != '\n' || matches!(c, '\u{202e}' | '\u{2028}');
            assert_eq!(text.chars().find(is_bad), None, "{command:?}: {text:?}");
            assert!(!text.contains("\nOK: all"), "{command:?}: {text}");
        }
    }
}

/// A pipe needs this order, and two writers must produce the same bytes for the same contents, so no command accepts
/// another order.
#[test]
fn every_command_refuses_blobs_out_of_order_with_the_same_message() {
    let fixture = Fixture::new();
    let target = Registry::start();
    let is_blob = |file: &Value| file["path"].as_str().unwrap().starts_with("blobs/");
    let config = Digest::sha256(&fixture.images[1].blobs[0]).blob_path();
    let behind = |files: &mut Vec<Value>, path: &str| {
        let at = files.iter().position(|file| file["path"] == path).unwrap();
        let file = files.remove(at);
        files.push(file);
    };
    for (case, in_order) in [("reversed", true), ("a config behind layers", false)] {
        let mut parts = forge(&fixture, |json| {
            let files = json["files"].as_array_mut().unwrap();
            if in_order {
                let first = files.iter().position(is_blob).unwrap();
                files[first..].reverse();
            } else {
                behind(files, &config);
            }
        });
        let bundle: BundleJson = serde_json::from_slice(parts.bytes("bundle.json")).unwrap();
        let identity = Digest::sha256(parts.bytes("bundle.json"));
        *parts.bytes("SHA256SUMS") = bundle.sha256sums(identity).into_bytes();
        let directory = tempdir();
        let path = parts.write(directory.path(), Form::Tar);
        let report = refused(&path, &target, case);
        let [problem] = &report.problems[..] else { panic!("{case}: {report:#?}") };
        let said = problem["found"].as_str().unwrap();
        assert!(problem["path"] == "bundle.json" && said.contains("is out of order"), "{case}: {problem}");
        let out = directory.path().join("copy");
        let ran = Ran::of(gapferry().arg("convert").arg(&path).arg("-o").arg(&out)).ended(3);
        assert!(ran.stderr.contains(said), "{case}: {said}: {ran:?}");
    }
}

/// Both lists may be on bad sectors: the command must still tell intact images from lost ones.
#[test]
fn without_a_readable_file_list_blobs_are_verified_by_their_names() {
    let fixture = Fixture::new();
    let layer = &fixture.locations()[0];
    let mut parts = fixture.parts.clone();
    *parts.bytes("bundle.json") = b"garbage".to_vec();
    parts.remove("SHA256SUMS");
    parts.bytes(&layer.path)[1] ^= 1;
    parts.add("install.sh", b"#!/bin/sh\n");
    for form in [Form::Directory, Form::Tar] {
        let directory = tempdir();
        let report = verify(&parts.write(directory.path(), form));
        assert_eq!(report.code, 3, "{report:#?}");
        let found = |path: &str| report.problems.iter().find(|problem| problem["path"] == path).map(|p| &p["code"]);
        assert_eq!(found(&layer.path), Some(&json!("wrong-digest")), "{report:#?}");
        assert_eq!(found("install.sh"), Some(&json!("undeclared")), "{report:#?}");
        let paths = ["bundle.json", "SHA256SUMS", "install.sh", &layer.path].map(str::to_owned);
        assert_eq!(report.paths(), paths.into(), "{form:?}: {report:#?}");
    }
}

/// A bad sector in the list must cost no more than the line it hits. The operator still has to see which images are
/// intact, and must not be advised to remove a layer because its line is lost.
#[test]
fn a_blob_with_a_damaged_line_is_verified_by_its_name_if_no_other_list_is_readable() {
    let fixture = Fixture::new();
    let layer = &fixture.locations()[0];
    let is_of_layer = |line: &str| line.ends_with(&layer.path);
    let other_digit = |line: &str, at: usize| {
        let digit = if &line[at..=at] == "0" { "1" } else { "0" };
        format!("{}{digit}{}", &line[..at], &line[at + 1..])
    };
    let garbage = |line: &str| format!("g{}", &line[1..]);
    let digest = |line: &str| other_digit(line, 5);
    let name = |line: &str| other_digit(line, line.len() - 1);
    let cut = |line: &str| line[..40].to_owned();
    for (what, damage) in
        [("garbage", &garbage as &dyn Fn(&str) -> String), ("digest", &digest), ("name", &name), ("cut", &cut)]
    {
        let mut parts = fixture.parts.clone();
        *parts.bytes("bundle.json") = b"garbage".to_vec();
        let sums = String::from_utf8(parts.bytes("SHA256SUMS").clone()).unwrap();
        let lines = sums.lines().map(|line| if is_of_layer(line) { damage(line) } else { line.to_owned() } + "\n");
        *parts.bytes("SHA256SUMS") = lines.collect::<String>().into_bytes();
        for is_damaged in [false, true] {
            if is_damaged {
                parts.bytes(&layer.path)[1] ^= 1;
            }
            let directory = tempdir();
            let report = verify(&parts.write(directory.path(), Form::Directory));
            let codes = |path: &str| {
                let problems = report.problems.iter().filter(|problem| problem["path"] == path);
                problems.map(|problem| problem["code"].as_str().unwrap()).collect::<Vec<_>>()
            };
            assert!(codes("SHA256SUMS").contains(&"malformed"), "{what}: {report:#?}");
            assert_eq!(codes(&layer.path), if is_damaged { &["wrong-digest"][..] } else { &[] }, "{what}: {report:#?}");
            let others = report.paths().into_iter().filter(|path| *path != layer.path);
            assert_eq!(others.collect::<Vec<_>>(), ["SHA256SUMS", "bundle.json"], "{what}: {report:#?}");
        }
    }
    // An intact list says which files should exist.
    let mut parts = fixture.parts.clone();
    *parts.bytes("bundle.json") = b"garbage".to_vec();
    let extra = blob_path(&sha256(b"extra"));
    parts.add(&extra, b"extra");
    let directory = tempdir();
    let report = verify(&parts.write(directory.path(), Form::Directory));
    let undeclared = report.problems.iter().find(|problem| problem["path"] == *extra).map(|problem| &problem["code"]);
    assert_eq!(undeclared, Some(&json!("undeclared")), "{report:#?}");
}
