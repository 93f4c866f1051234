//! Tools packed into a bundle: every form returns them unchanged, and they affect nothing else.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::images::{self, Image};
use crate::support::ran::Ran;
use crate::support::registry::Registry;
use crate::support::{files_below, gapferry, gapferry_process_of, tempdir};

const SCRIPT: &str = "#!/bin/sh\necho hello from the other side\n";

/// A registry, a lock of two images in it, and two tools.
struct Fixture {
    source: Registry,
    images: Vec<Image>,
    directory: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        let source = Registry::start();
        let large = images::noise(1, 1_500_000);
        let images = vec![images::oci("team/one", "1", &[&large, "small"]), images::oci("team/two", "2", &["other"])];
        images.iter().for_each(|image| image.push(&source));
        let fixture = Fixture { source, images, directory: tempdir() };
        let names = fixture.images.iter().map(|image| format!("{}/{}", fixture.source.host(), image.name()));
        let names: Vec<String> = names.collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        fixture.run(&[&["lock", "-o", "images.lock"], &names[..]].concat()).ended(0);
        fixture.write("hello", SCRIPT.as_bytes());
        fixture.write("data.bin", images::noise(7, 900_000).as_bytes());
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::of(gapferry().current_dir(self.directory.path()).args(args))
    }

    fn export(&self, out: &str, more: &[&str]) -> Ran {
        self.run(&[&["export", "--locked", "images.lock", "-o", out], more].concat())
    }

    /// Exports with both tools.
    fn packed(&self, out: &str, more: &[&str]) {
        self.export(out, &[&["--tool-file", "hello", "--tool-file", "data.bin"], more].concat()).ended(0);
    }

    /// The volumes of this name, in order.
    fn volumes(&self, name: &str) -> Vec<String> {
        let names = fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let names = names.map(|name| name.into_string().unwrap());
        let mut names: Vec<String> = names.filter(|file| file.starts_with(&format!("{name}."))).collect();
        names.sort();
        names
    }

    /// Checks that the target has each image as at its source, and nothing else.
    #[track_caller]
    fn has_arrived(&self, target: &Registry) {
        let catalog = target.request("GET", "/v2/_catalog").send().text();
        assert_eq!(catalog.trim(), r#"{"repositories":["m/team/one","m/team/two"]}"#);
        for image in &self.images {
            let digest = target.digest(&format!("m/{}", image.repository), image.tag.as_ref().unwrap());
            assert_eq!(digest, Some(image.digest()), "{}", image.name());
        }
    }

    /// Changes a byte in the middle of a file of a bundle.
    fn damage(&self, bundle: &str, path: &str) {
        let place = self.path(bundle);
        let (file, begin, size) = match place.is_dir() {
            true => (place.join(path), 0, fs::metadata(place.join(path)).unwrap().len()),
            false => {
                let mut archive = tar::Archive::new(File::open(&place).unwrap());
                let mut entries = archive.entries().unwrap().map(Result::unwrap);
                let entry = entries.find(|entry| entry.path().unwrap() == Path::new(path)).expect(path);
                (place, entry.raw_file_position(), entry.size())
            }
        };
        let file = File::options().read(true).write(true).open(file).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, begin + size / 2).unwrap();
        file.write_all_at(&[!byte[0]], begin + size / 2).unwrap();
    }
}

fn shell(directory: &Path, script: &str) -> String {
    let ran = Command::new("sh").args(["-ec", script]).current_dir(directory).output().unwrap();
    assert!(ran.status.success(), "{script}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn the_packed_program_can_be_extracted_from_every_form_with_standard_tools_and_runs() {
    let fixture = Fixture::new();
    // Under another name, and stripped of debug information, which is most of the file.
    let program = fixture.path("started-as");
    let stripped = Command::new("strip").arg("-o").arg(&program).arg(env!("CARGO_BIN_EXE_gapferry")).status();
    assert!(stripped.unwrap().success());
    let run = |script: &str| {
        let path = std::env::var("PATH").unwrap();
        let mut command = gapferry_process_of("sh".as_ref());
        command.args(["-ec", script]).env("PATH", path).current_dir(fixture.directory.path());
        let ran = command.output().unwrap();
        assert!(ran.status.success(), "{script}: {}", String::from_utf8_lossy(&ran.stderr));
    };
    let wanted = fs::read(&program).unwrap();
    let comes_out = |directory: &Path| {
        assert!(fs::read(directory.join("tools/gapferry")).unwrap() == wanted, "{}", directory.display());
        assert_eq!(mode(&directory.join("tools/gapferry")), 0o755);
        let checked = shell(directory, "sha256sum -c --ignore-missing SHA256SUMS");
        assert!(checked.contains("tools/gapferry: OK"), "{checked}");
        let version = shell(directory, "tools/gapferry --version");
        assert_eq!(version.trim(), concat!("gapferry ", env!("CARGO_PKG_VERSION")));
        fs::remove_dir_all(directory).unwrap();
    };
    let export = "./started-as export --locked images.lock --include-tool -o";
    run(&format!("{export} bundle"));
    run(&format!("{export} bundle.tar"));
    run("mkdir tar && tar -xf bundle.tar -C tar tools/gapferry SHA256SUMS");
    comes_out(&fixture.path("bundle"));
    comes_out(&fixture.path("tar"));
    run(&format!("mkdir stream && {export} - | tar -xf - -C stream tools/gapferry SHA256SUMS"));
    comes_out(&fixture.path("stream"));
    // The program is larger than these volumes, so it is cut.
    run("./started-as split bundle.tar -o part --volume-size 16MB && rm bundle.tar");
    run("./started-as join part.*.tar -o joined && rm part.*");
    comes_out(&fixture.path("joined"));
}

#[test]
fn the_same_lock_and_tools_give_the_same_bytes_and_changed_tools_do_not() {
    let fixture = Fixture::new();
    fixture.packed("one.tar", &[]);
    fixture.export("other.tar", &["--tool-file", "./data.bin", "--tool-file", "./hello"]).ended(0);
    let bytes = |name: &str| fs::read(fixture.path(name)).unwrap();
    assert!(bytes("one.tar") == bytes("other.tar"));
    fixture.packed("other.tar", &[]);
    let again = fixture.export("other.tar", &["--tool-file", "data.bin", "--tool-file", "hello"]).ended(0);
    again.reported(&["other.tar: unchanged"]);
    // The same length: only the digest differs.
    fixture.write("hello", SCRIPT.replace("hello", "HELLO").as_bytes());
    let gets = fixture.source.count("GET", "/blobs/", 200);
    for out in ["other.tar", "directory"] {
        fixture.packed(out, &[]);
        fixture.packed(out, &[]);
        fixture.run(&["verify", out]).ended(0);
    }
    assert!(bytes("one.tar") != bytes("other.tar"));
    assert_eq!(fs::read(fixture.path("directory/tools/hello")).unwrap(), SCRIPT.replace("hello", "HELLO").as_bytes());
    // A tool that is no longer wanted is removed, and no layer was fetched again for any of this.
    fixture.export("directory", &["--tool-file", "hello"]).ended(0);
    fixture.export("other.tar", &[]).ended(0);
    let left: Vec<String> = files_below(&fixture.path("directory/tools")).into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, ["hello"]);
    fixture.export("directory", &[]).ended(0);
    assert!(!fixture.path("directory/tools").exists());
    assert_eq!(fixture.source.count("GET", "/blobs/", 200) - gets, 5, "only once, for the directory");
    fixture.export("plain.tar", &[]).ended(0);
    assert!(bytes("plain.tar") == bytes("other.tar"));
}

#[test]
fn every_command_recognizes_the_tools_of_a_bundle() {
    let fixture = Fixture::new();
    for out in ["directory", "bundle.tar", "bundle.tar.zst"] {
        fixture.packed(out, &[]);
        for more in [&["verify"][..], &["verify", "--full"]] {
            fixture.run(&[more, &[out]].concat()).ended(0);
        }
        let listed = fixture.run(&["list", out]).ended(0).stdout;
        assert!(listed.contains("2 images, 1.2 MiB (1.2 MiB without sharing)"), "{listed}");
        assert!(listed.contains("with tools/data.bin (878.9 KiB), tools/hello (41 B)"), "{listed}");
        let target = Registry::start();
        fixture.run(&["import", out, "--to", &format!("{}/m", target.host())]).ended(0);
        fixture.has_arrived(&target);
    }
    assert_eq!(mode(&fixture.path("directory/tools/hello")), 0o755);
    let listed = fixture.run(&["list", "directory", "--json"]).ended(0).stdout;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["tools"][1]["path"], "tools/hello");
    assert_eq!(listed["tools"][1]["size"], SCRIPT.len());
    // In a pipe, the tools come before the manifests.
    let target = Registry::start();
    let export = ["--locked", "images.lock", "-o", "-", "--tool-file", "hello", "--tool-file", "data.bin"];
    let streamed = gapferry().current_dir(fixture.directory.path()).arg("export").args(export).output().unwrap();
    let piped = |args: &[&str]| {
        let mut command = gapferry();
        Ran::of(command.current_dir(fixture.directory.path()).args(args).write_stdin(streamed.stdout.clone()))
    };
    piped(&["verify", "-"]).ended(0);
    piped(&["import", "-", "--to", &format!("{}/m", target.host())]).ended(0);
    fixture.has_arrived(&target);
}

#[test]
fn a_changed_tool_is_named_and_blamed_on_no_image() {
    let fixture = Fixture::new();
    for (out, spoil) in [("directory", true), ("bundle.tar", true), ("lacking", false)] {
        fixture.packed(out, &[]);
        match spoil {
            true => fixture.damage(out, "tools/hello"),
            false => fs::remove_file(fixture.path(out).join("tools/hello")).unwrap(),
        }
        let message = fixture.run(&["verify", out]).ended(3).stdout;
        for words in ["tools/hello: ", "do not run it", "1 problem, 0 of 2 images affected"] {
            assert!(message.contains(words), "{words}: {message}");
        }
        let target = Registry::start();
        fixture.run(&["import", out, "--to", &format!("{}/m", target.host())]).ended(3).reported(&["tools/hello"]);
        assert_eq!(target.uploads(), 0);
    }
    // From a pipe, the damage is found before anything is pushed.
    let target = Registry::start();
    for args in [&["verify", "-"][..], &["import", "-", "--to", &format!("{}/m", target.host())]] {
        let mut command = gapferry();
        let bytes = fs::read(fixture.path("bundle.tar")).unwrap();
        let ran = Ran::of(command.args(args).write_stdin(bytes)).ended(3);
        assert!(format!("{}{}", ran.stdout, ran.stderr).contains("tools/hello: wrong digest"), "{ran:#?}");
    }
    assert_eq!(target.uploads(), 0);
    // An undeclared program is the last thing anyone should run.
    fixture.packed("more", &[]);
    fs::copy(fixture.path("hello"), fixture.path("more/tools/setup.sh")).unwrap();
    let message = fixture.run(&["verify", "more"]).ended(3).stdout;
    assert!(message.contains("tools/setup.sh: not declared") && message.contains("do not run it"), "{message}");
}

#[test]
fn a_signature_covers_the_tools() {
    let fixture = Fixture::new();
    let make =
        "openssl ecparam -name prime256v1 -genkey -noout -out a.pem && openssl pkey -in a.pem -pubout -out a.pub";
    shell(fixture.directory.path(), make);
    fixture.packed("bundle", &["--sign-key", "a.pem"]);
    fixture.run(&["verify", "bundle", "--key", "a.pub"]).ended(0);
    // An attacker who changes a tool cannot change the signed sums.
    fixture.write("bundle/tools/hello", b"#!/bin/sh\nrm -rf /\n");
    let sum = "s=$(sha256sum bundle/tools/hello | cut -c1-64); sed -i \"s|^.* tools/hello$|$s  tools/hello|\" bundle/SHA256SUMS";
    shell(fixture.directory.path(), sum);
    shell(&fixture.path("bundle"), "sha256sum -c --quiet --ignore-missing SHA256SUMS");
    fixture.run(&["verify", "bundle", "--key", "a.pub"]).ended(3).reported(&["its signature does not match"]);
}

#[test]
fn a_damaged_tool_blocks_no_image_repair_and_is_restored_from_the_same_file() {
    let fixture = Fixture::new();
    for (out, repair) in [("directory", "d.tar"), ("bundle.tar", "b.tar")] {
        fixture.packed(out, &[]);
        let whole = |name: &str| match fixture.path(name) {
            path if path.is_dir() => files_below(&path),
            path => vec![(String::new(), fs::read(path).unwrap())],
        };
        let before = whole(out);
        let layer = fixture.images[0].blob_digests().pop().unwrap().replacen(':', "/", 1);
        fixture.damage(out, "tools/hello");
        fixture.damage(out, &format!("blobs/{layer}"));
        let asked = fixture.run(&["verify", out, "--missing", "missing.json"]).ended(3);
        asked.reported(&["1 blob,", ", 1 tool"]);
        let export = ["export", "--repair", "missing.json", "--locked", "images.lock", "-o", repair];
        fixture.run(&export).ended(0).reported(&["also lacks tools/hello", "--tool-file"]);
        let repaired = fixture.run(&["repair", out, repair]).ended(3).stdout;
        assert!(repaired.contains("1 file repaired, 1 file not in"), "{repaired}");
        assert!(repaired.contains("tools/hello: wrong digest") && !repaired.contains("affects"), "{repaired}");
        // Another file of that name would cross the gap in vain.
        fixture.run(&["verify", out, "--missing", "missing.json"]).ended(3);
        fs::create_dir_all(fixture.path("wrong")).unwrap();
        fixture.write("wrong/hello", b"of another version");
        let asked = fixture.source.requests().len();
        let wrong = fixture.run(&[&export[..], &["--tool-file", "wrong/hello"]].concat()).ended(2);
        wrong.reported(&["tools/hello was another file"]);
        fixture
            .run(&[&export[..], &["--tool-file", "data.bin"]].concat())
            .ended(2)
            .reported(&["data.bin is not missing"]);
        assert_eq!(fixture.source.requests().len(), asked);
        fixture.run(&[&export[..], &["--tool-file", "hello"]].concat()).ended(0);
        fixture.run(&["repair", out, repair]).ended(0);
        assert!(whole(out) == before);
    }
    assert_eq!(mode(&fixture.path("directory/tools/hello")), 0o755);
}

#[test]
fn tools_are_stored_once_in_a_set_of_volumes_and_survive_join() {
    let fixture = Fixture::new();
    fixture.packed("bundle.tar", &[]);
    // In these volumes data.bin is cut, and so is a layer.
    for (at, size) in ["64KiB", "300kB", "1MB", "10MB"].into_iter().enumerate() {
        let name = format!("split{at}");
        fixture.run(&["split", "bundle.tar", "-o", &name, "--volume-size", size]).ended(0);
        let volumes = fixture.volumes(&name);
        let volumes: Vec<&str> = volumes.iter().map(String::as_str).collect();
        volumes.iter().for_each(|volume| drop(fixture.run(&["verify", volume]).ended(0)));
        fixture.run(&[&["verify"], &volumes[..]].concat()).ended(0);
        let joined = format!("joined{at}.tar");
        fixture.run(&[&["join", "-o", &joined], &volumes[..]].concat()).ended(0);
        assert!(fs::read(fixture.path("bundle.tar")).unwrap() == fs::read(fixture.path(&joined)).unwrap(), "{size}");
        let lists = volumes.iter().map(|volume| shell(fixture.directory.path(), &format!("tar -tvf {volume}")));
        let lists: String = lists.collect();
        let holders: Vec<&str> = lists.lines().filter(|line| line.ends_with(" tools/hello")).collect();
        assert!(holders.len() == 1 && holders[0].starts_with("-rwxr-xr-x"), "{holders:?}");
        fixture.run(&[&["join", "-o", &format!("directory{at}")], &volumes[..]].concat()).ended(0);
        assert_eq!(mode(&fixture.path(&format!("directory{at}/tools/hello"))), 0o755);
    }
}

#[test]
fn exported_volumes_contain_the_tools_and_import_in_any_order() {
    let fixture = Fixture::new();
    let size = ["--volume-size", "700kB"];
    fixture.packed("set", &size);
    let volumes = fixture.volumes("set");
    let volumes: Vec<&str> = volumes.iter().map(String::as_str).collect();
    assert!(volumes.len() > 3, "{volumes:?}");
    fixture.run(&[&["verify"], &volumes[..]].concat()).ended(0);
    let bytes = |name: &str| fs::read(fixture.path(name)).unwrap();
    for (number, volume) in (1..).zip(&volumes) {
        fs::rename(fixture.path(volume), fixture.path("kept")).unwrap();
        fixture.packed("set", &[&size[..], &["--only-volume", &number.to_string()]].concat());
        assert!(bytes(volume) == bytes("kept"), "{volume}");
    }
    fixture.run(&[&["join", "-o", "joined"], &volumes[..]].concat()).ended(0);
    assert_eq!(bytes("joined/tools/hello"), SCRIPT.as_bytes());
    assert!(bytes("joined/tools/data.bin") == bytes("data.bin"));
    let target = Registry::start();
    let to = format!("{}/m", target.host());
    let take = |volume: &&str| fixture.run(&["import", volume, "--state", "state", "--to", &to]).code;
    let codes: Vec<Option<i32>> = volumes.iter().rev().map(take).collect();
    // The import waits for nothing once the images are there: only tools are missing.
    assert!(codes.starts_with(&[Some(6)]) && codes.ends_with(&[Some(0)]), "{codes:?}");
    fixture.has_arrived(&target);
    // A missing volume causes only that one message; a tool is not an image.
    let message = fixture.run(&[&["verify"], &volumes[1..]].concat()).ended(3).stdout;
    assert!(message.contains("volume 1 of") && !message.contains("tools/"), "{message}");
    let holds =
        |volume: &&&str| shell(fixture.directory.path(), &format!("tar -tf {volume}")).contains("tools/hello\n");
    let holder = volumes.iter().find(holds).unwrap();
    fixture.damage(holder, "tools/hello");
    let message = fixture.run(&[&["verify"], &volumes[..]].concat()).ended(3).stdout;
    assert!(message.contains(&format!("{holder}: tools/hello: wrong digest")), "{message}");
    assert!(message.contains(", 0 of 2 images affected"), "{message}");
}

#[test]
fn a_lost_volume_is_rewritten_with_its_tools() {
    let fixture = Fixture::new();
    fixture.packed("set", &["--volume-size", "700kB"]);
    let volumes = fixture.volumes("set");
    let holds =
        |volume: &&String| shell(fixture.directory.path(), &format!("tar -tf {volume}")).contains("tools/hello\n");
    let lost = volumes.iter().find(holds).unwrap();
    let before = fs::read(fixture.path(lost)).unwrap();
    fs::remove_file(fixture.path(lost)).unwrap();
    let left: Vec<&str> = volumes.iter().filter(|volume| *volume != lost).map(String::as_str).collect();
    fixture.run(&[&["verify", "--missing", "missing.json"], &left[..]].concat()).ended(3);
    let missing: serde_json::Value = serde_json::from_slice(&fs::read(fixture.path("missing.json")).unwrap()).unwrap();
    let tools = missing["tools"].as_array().unwrap().iter().map(|tool| tool["path"].as_str().unwrap());
    let options: Vec<&str> = tools.flat_map(|path| ["--tool-file", path.strip_prefix("tools/").unwrap()]).collect();
    assert!(options.contains(&"hello"), "{missing}");
    let export = ["export", "--repair", "missing.json", "--locked", "images.lock", "-o", "repair.tar"];
    let repair = [&["repair", "repair.tar"], &left[..]].concat();
    fixture.run(&export).ended(0);
    let message = fixture.run(&repair).ended(3).stdout;
    assert!(message.contains("0 volumes made again") && !fixture.path(lost).exists(), "{message}");
    fixture.run(&[&export[..], &options].concat()).ended(0);
    fixture.run(&repair).ended(0);
    assert!(fs::read(fixture.path(lost)).unwrap() == before);
}

#[test]
fn unpackable_tools_are_all_named_before_any_request() {
    let fixture = Fixture::new();
    for directory in ["other", "third"] {
        fs::create_dir(fixture.path(directory)).unwrap();
        fixture.write(&format!("{directory}/{}", if directory == "other" { "hello" } else { "GapFerry" }), b"x");
    }
    fixture.write("a:b", b"x");
    let asked = fixture.source.requests().len();
    let files = ["hello", "other/hello", "third/GapFerry", "a:b", "none", "other", ".."];
    let options: Vec<&str> = files.iter().flat_map(|file| ["--tool-file", file]).collect();
    for out in ["b", "b.tar", "b.tar.zst", "-"] {
        let refused = fixture.export(out, &[&["--include-tool"], &options[..]].concat()).ended(2);
        refused.reported(&[
            "other/hello: hello would have the same name",
            "third/GapFerry: ",
            "a:b: its name has",
            "none: ",
            "other: it is not a regular file",
            "..: the path has no file name",
        ]);
        assert!(!fixture.path(out).exists() && !fixture.path(&format!("{out}.partial")).exists());
    }
    assert_eq!(fixture.source.requests().len(), asked);
}

#[test]
fn a_bundle_migrated_from_storage_can_include_tools() {
    let fixture = Fixture::new();
    let storage = fixture.source.storage();
    let migrate = ["migrate", storage.to_str().unwrap(), "--to-bundle", "bundle", "--tool-file", "hello"];
    fixture.run(&migrate).ended(0);
    fixture.run(&migrate).ended(0).reported(&["unchanged"]);
    fixture.run(&["verify", "bundle"]).ended(0);
    assert_eq!(fs::read(fixture.path("bundle/tools/hello")).unwrap(), SCRIPT.as_bytes());
}
