//! `gapferry export --volume-size`: volumes written in place while blobs arrive, interrupted, resumed, and single
//! volumes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use gapferry::base::progress::Silent;
use gapferry::bundle::volumes::{Shape, VolumeOptions, VolumeSelection};
use gapferry::bundle::{Form, Options, Writer};
use gapferry::oci::Digest;

use crate::bundle::fixture::{Builder, noise, two_images};
use crate::signed::keys::{Key, Kind};
use crate::support::barrier::Barrier;
use crate::support::images::{self, Image};
use crate::support::ran::Ran;
use crate::support::registry::Registry;
use crate::support::{gapferry, gapferry_process, sha256_file, tempdir};
use crate::volumes::recover::forge;

/// A size that cuts only the largest layer.
const SIZE: &str = "1MB";

struct Fixture {
    directory: tempfile::TempDir,
    source: Registry,
    images: Vec<Image>,
}

impl Fixture {
    fn new() -> Fixture {
        let source = Registry::start();
        let (small, large) = (images::noise(1, 300_000), images::noise(2, 2_000_000));
        let more = images::noise(3, 700_000);
        let images = vec![
            images::oci("team/one", "1", &[&small, &large]),
            images::oci("team/two", "2", &[&small, &more]),
            images::oci_index("team/three", "3", "an index"),
        ];
        images.iter().for_each(|image| image.push(&source));
        let fixture = Fixture { directory: tempdir(), source, images };
        // Compared bundles need the same time.
        let lock = fixture.path("lock");
        let host = fixture.source.host();
        let names = fixture.images.iter().map(|image| format!("{host}/{}", image.name()));
        Ran::of(gapferry().arg("lock").args(names).arg("-o").arg(&lock)).ended(0);
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn export(&self, out: &Path, more: &[&str]) -> Ran {
        let lock = self.path("lock");
        let size = ["--volume-size", SIZE];
        Ran::of(gapferry().arg("export").arg("--locked").arg(lock).arg("-o").arg(out).args(size).args(more))
    }

    fn blob_gets(&self) -> usize {
        self.source.count("GET", "/blobs/", 200)
    }
}

/// The volumes of this name; nothing else of that name may exist.
fn volumes(out: &Path) -> Vec<PathBuf> {
    let (directory, stem) = (out.parent().unwrap(), out.file_stem().unwrap().to_str().unwrap());
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut paths: Vec<PathBuf> = entries.filter(|path| name(path).starts_with(&format!("{stem}."))).collect();
    paths.sort();
    for (at, path) in paths.iter().enumerate() {
        assert_eq!(name(path), format!("{stem}.{:03}.tar", at + 1), "{paths:?}");
    }
    paths
}

fn sums(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| sha256_file(path)).collect()
}

#[test]
fn exported_volumes_equal_split_volumes_and_join_to_the_same_bytes() {
    let fixture = Fixture::new();
    let out = fixture.path("v.tar");
    fixture.export(&out, &[]).ended(0).reported(&["v.001.tar: written", "3 images"]);
    let paths = volumes(&out);
    assert!(paths.len() > 2 && paths.iter().all(|path| path.metadata().unwrap().len() <= 1_000_000), "{paths:?}");
    Ran::of(gapferry().arg("verify").args(&paths)).ended(0);
    // Every form is the same bundle.
    let stream = fixture.path("stream.tar");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gapferry"));
    command.args(["export", "--locked", fixture.path("lock").to_str().unwrap(), "-o", "-"]);
    assert!(command.stdout(std::fs::File::create(&stream).unwrap()).stderr(Stdio::null()).status().unwrap().success());
    let again = fixture.path("again.tar");
    Ran::of(gapferry().arg("split").arg(&stream).arg("-o").arg(&again).args(["--volume-size", SIZE])).ended(0);
    assert_eq!(sums(&volumes(&again)), sums(&paths));
    let joined = fixture.path("joined.tar");
    Ran::of(gapferry().arg("join").args(&paths).arg("-o").arg(&joined)).ended(0);
    assert_eq!(sha256_file(&joined), sha256_file(&stream));
}

#[test]
fn one_rewritten_volume_is_identical_and_fetches_only_its_own_blobs() {
    let fixture = Fixture::new();
    let (out, alone) = (fixture.path("v.tar"), fixture.path("alone.tar"));
    fixture.export(&out, &[]).ended(0);
    let paths = volumes(&out);
    let all = fixture.blob_gets();
    for (path, number) in paths.iter().zip(1..) {
        let before = fixture.blob_gets();
        fixture.export(&alone, &["--only-volume", &number.to_string()]).ended(0);
        let made = fixture.path(&format!("alone.{number:03}.tar"));
        assert_eq!(sha256_file(&made), sha256_file(path), "volume {number}");
        assert!(fixture.blob_gets() - before < all, "everything was fetched again");
        std::fs::remove_file(made).unwrap();
    }
    fixture.export(&alone, &["--only-volume", "77"]).ended(2).reported(&["no volume 77"]);
    let plain = Ran::of(gapferry().args(["export", "x", "-o", "y.tar", "--volume-size", SIZE, "--only-volume", "1"]));
    plain.ended(2).reported(&["--locked"]);
}

#[test]
fn a_rerun_fetches_only_damaged_content() {
    let fixture = Fixture::new();
    let out = fixture.path("v.tar");
    fixture.export(&out, &[]).ended(0);
    let (paths, fetched) = (volumes(&out), fixture.blob_gets());
    let first = sums(&paths);
    fixture.export(&out, &[]).ended(0).reported(&["v.001.tar: unchanged", "0 B fetched"]);
    assert_eq!(fixture.blob_gets(), fetched);
    let plan = fixture.export(&out, &["--dry-run", "--json"]).ended(0).stdout;
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    assert_eq!((&plan["of"], &plan["upToDate"]), (&paths.len().into(), &true.into()), "{plan}");
    // Flips one bit in the last volume.
    let mut bytes = std::fs::read(&paths[paths.len() - 1]).unwrap();
    let at = bytes.len() - 5_000;
    bytes[at] ^= 1;
    std::fs::write(&paths[paths.len() - 1], bytes).unwrap();
    let last = format!("v.{:03}.tar: written", paths.len());
    let report = fixture.export(&out, &["--json"]).ended(0).reported(&["v.001.tar: unchanged", &last]);
    let report: serde_json::Value = serde_json::from_str(&report.stdout).unwrap();
    let unchanged = report["volumes"].as_array().unwrap().iter().map(|volume| volume["unchanged"].as_bool().unwrap());
    assert_eq!(unchanged.filter(|unchanged| !unchanged).count(), 1, "only the damaged volume is written: {report}");
    assert!((1..=2).contains(&(fixture.blob_gets() - fetched)), "only damaged content is fetched");
    assert_eq!(sums(&volumes(&out)), first);
    // Fewer images need fewer volumes; extra volumes of the earlier set are removed.
    let lock = std::fs::read_to_string(fixture.path("lock")).unwrap();
    let mut smaller: serde_json::Value = serde_json::from_str(&lock).unwrap();
    smaller["images"].as_array_mut().unwrap().remove(0);
    std::fs::write(fixture.path("lock"), smaller.to_string()).unwrap();
    let before = fixture.blob_gets();
    fixture.export(&out, &[]).ended(0).reported(&["2 images"]);
    assert_eq!(fixture.blob_gets(), before, "all content was in the earlier volumes");
    assert!(volumes(&out).len() < paths.len());
    Ran::of(gapferry().arg("verify").args(volumes(&out))).ended(0);
}

#[test]
fn a_killed_export_of_volumes_resumes_and_a_second_run_is_refused() {
    let fixture = Fixture::new();
    let whole = fixture.path("whole.tar");
    fixture.export(&whole, &[]).ended(0);
    let expected = sums(&volumes(&whole));
    // The last blob waits at the barrier until the others have arrived.
    let barrier = Barrier::before(fixture.source.host(), "GET /v2/team/two/blobs/");
    let lock = std::fs::read_to_string(fixture.path("lock")).unwrap();
    let mirrors = fixture.path("registries.conf");
    let host = fixture.source.host();
    let text = format!(
        "[[registry]]\nlocation = \"{host}\"\n[[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
        barrier.host()
    );
    std::fs::write(&mirrors, text).unwrap();
    assert!(lock.contains(host));
    let out = fixture.path("v.tar");
    let mirrors = ["--registries-conf", mirrors.to_str().unwrap(), "-j", "1"];
    let mut process = gapferry_process()
        .args(["export", "--locked", fixture.path("lock").to_str().unwrap(), "--volume-size", SIZE, "-o"])
        .arg(&out)
        .args(mirrors)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    barrier.wait();
    fixture.export(&out, &[]).ended(2).reported(&["another gapferry is writing it"]);
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(!fixture.path("v.001.tar").exists() && fixture.path("v.001.tar.partial").exists());
    Ran::of(gapferry().arg("verify").arg(fixture.path("v.001.tar.partial"))).ended(2).reported(&["unfinished"]);
    let before = fixture.blob_gets();
    fixture.export(&out, &[]).ended(0);
    assert!(fixture.blob_gets() - before < before, "finished blobs are not fetched again");
    assert_eq!(sums(&volumes(&out)), expected);
}

#[test]
fn a_blob_spanning_several_volumes_resumes_where_it_stopped() {
    let (directory, builder) = (tempdir(), two_images().sha512("registry.test/a:x", noise(9, 900_000)));
    let out = directory.path().join("v.tar");
    let create = |only| Writer::create(&out, builder.files(), options(VolumeSelection::of(only)), Arc::new(Silent));
    let large = builder.layer(1).digest;
    builder.source.breaks.lock().unwrap().insert(large, 2_500_000);
    let writer = create(None).unwrap();
    builder.fill(&writer).unwrap_err();
    drop(writer);
    builder.source.breaks.lock().unwrap().clear();
    builder.source.take_asked();
    let writer = create(None).unwrap();
    builder.fill(&writer).unwrap();
    let asked = builder.source.take_asked();
    let from = asked.iter().find(|(digest, _)| *digest == large).unwrap().1;
    assert!(from >= 2_000_000, "from byte {from}: {asked:?}");
    assert!(!asked.iter().any(|(digest, _)| *digest == builder.layer(0).digest), "{asked:?}");
    writer.finish().unwrap();
    let paths = volumes(&out);
    Ran::of(gapferry().args(["verify", "--full"]).args(&paths)).ended(0);
    // A single volume needs no blob of another one, whatever its digest.
    let (first, alone) = (sha256_file(&paths[0]), create(Some(1)).unwrap());
    builder.fill(&alone).unwrap();
    alone.finish().unwrap();
    assert_eq!(sha256_file(&paths[0]), first);
}

#[test]
fn a_kill_during_the_final_renames_loses_and_leaves_nothing() {
    let (directory, builder) = (tempdir(), two_images());
    let out = directory.path().join("v.tar");
    let create = || Writer::create(&out, builder.files(), options(VolumeSelection::All), Arc::new(Silent)).unwrap();
    let writer = create();
    builder.fill(&writer).unwrap();
    let journal = directory.path().join("v.volumes.partial.journal");
    let kept = std::fs::read(&journal).unwrap();
    writer.finish().unwrap();
    let paths = volumes(&out);
    let first = sums(&paths);
    // The state after the first rename, which is the second volume's.
    std::fs::write(&journal, kept).unwrap();
    for path in paths[..1].iter().chain(&paths[2..]) {
        std::fs::rename(path, format!("{}.partial", path.display())).unwrap();
    }
    // Leftover of a larger set that was never finished.
    std::fs::write(directory.path().join("v.099.tar.partial"), "unfinished").unwrap();
    builder.source.take_asked();
    create().finish().unwrap();
    assert_eq!(builder.source.take_asked(), [], "every blob was present");
    assert_eq!(sums(&volumes(&out)), first);
    assert!(!journal.exists());
}

/// Volumes of a megabyte.
fn options(selection: VolumeSelection) -> Options {
    options_of(1_000_000, selection)
}

fn options_of(limit: u64, selection: VolumeSelection) -> Options {
    let shape = Shape { limit, recovery: 0 };
    Options::copying(Form::Volumes(VolumeOptions { shape, selection }))
}

#[test]
fn writing_single_volumes_keeps_an_unfinished_set() {
    let (directory, builder) = (tempdir(), two_images());
    let out = directory.path().join("v.tar");
    let create = |selection| Writer::create(&out, builder.files(), options(selection), Arc::new(Silent)).unwrap();
    let large = builder.layer(1).digest;
    builder.source.breaks.lock().unwrap().insert(large, 2_500_000);
    builder.fill(&create(VolumeSelection::All)).unwrap_err();
    builder.source.breaks.lock().unwrap().clear();
    let there: Vec<Digest> = builder.source.take_asked().into_iter().map(|(digest, _)| digest).collect();
    assert!(there.len() > 1, "{there:?}");
    let writer = create(VolumeSelection::Only([2, 3].into()));
    builder.fill(&writer).unwrap();
    writer.finish().unwrap();
    // Other volumes are started but never finished.
    builder.fill(&create(VolumeSelection::Only([4, 5].into()))).unwrap();
    builder.source.take_asked();
    let writer = create(VolumeSelection::All);
    builder.fill(&writer).unwrap();
    let asked = builder.source.take_asked();
    let again: Vec<_> = asked.iter().filter(|(digest, _)| there.contains(digest)).collect();
    assert_eq!(again, [&(large, 2_500_000)], "nothing was lost");
    writer.finish().unwrap();
    Ran::of(gapferry().args(["verify", "--full"]).args(volumes(&out))).ended(0);
}

/// tar warns about a volume without an end mark, and `verify` calls it cut short.
#[test]
fn an_unfinished_set_of_another_volume_size_leaves_nothing_behind() {
    let (directory, builder) = (tempdir(), two_images());
    let out = directory.path().join("v.tar");
    let begin = |limit, selection| {
        let writer = Writer::create(&out, builder.files(), options_of(limit, selection), Arc::new(Silent)).unwrap();
        builder.fill(&writer).unwrap();
        writer
    };
    drop(begin(1_000_000, VolumeSelection::All));
    let journal = directory.path().join("v.volumes.partial.journal");
    let kept = std::fs::read(&journal).unwrap();
    drop(begin(1_500_000, VolumeSelection::Only([2].into())));
    assert!(!journal.exists(), "the journal's entry about volume 2 is outdated");
    // Restores the journal as a leftover.
    std::fs::write(&journal, kept).unwrap();
    begin(1_000_000, VolumeSelection::All).finish().unwrap();
    Ran::of(gapferry().args(["verify", "--full"]).args(volumes(&out))).ended(0);
}

#[test]
fn the_first_volume_appears_only_after_all_others() {
    let (directory, builder) = (tempdir(), two_images());
    let out = directory.path().join("v.tar");
    let create = || Writer::create(&out, builder.files(), options(VolumeSelection::All), Arc::new(Silent)).unwrap();
    let writer = create();
    builder.fill(&writer).unwrap();
    let first = directory.path().join("v.001.tar");
    std::fs::create_dir(&first).unwrap();
    writer.finish().unwrap_err();
    std::fs::remove_dir(&first).unwrap();
    let partial = |number: u32| directory.path().join(format!("v.{number:03}.tar.partial")).exists();
    assert!(partial(1) && !(2..10).any(partial), "all others have their final names");
    builder.source.take_asked();
    create().finish().unwrap();
    assert_eq!(builder.source.take_asked(), [], "every blob was present");
    Ran::of(gapferry().args(["verify", "--full"]).args(volumes(&out))).ended(0);
}

#[test]
fn each_volume_of_a_signed_export_carries_the_signature() {
    let fixture = Fixture::new();
    let key = fixture.path("key.pem");
    let openssl = |arguments: &[&str]| assert!(Command::new("openssl").args(arguments).status().unwrap().success());
    openssl(&["genpkey", "-algorithm", "ed25519", "-out", key.to_str().unwrap()]);
    let public = fixture.path("key.pub");
    openssl(&["pkey", "-in", key.to_str().unwrap(), "-pubout", "-out", public.to_str().unwrap()]);
    let out = fixture.path("v.tar");
    fixture.export(&out, &[]).ended(0);
    let signed = |what: &str| {
        fixture.export(&out, &["--sign-key", key.to_str().unwrap()]).ended(0).reported(&[what, "signed by"])
    };
    signed("v.001.tar: written");
    signed("v.001.tar: unchanged");
    for path in volumes(&out) {
        Ran::of(gapferry().arg("verify").arg(&path).arg("--key").arg(&public)).ended(0);
    }
}

#[test]
fn a_set_rewritten_with_another_key_has_its_signature_in_every_volume() {
    let fixture = Fixture::new();
    let key = |name: &str, kind| Key::new(fixture.directory.path(), name, kind);
    let (one, other, third) = (key("one", Kind::P256), key("other", Kind::P256), key("third", Kind::Ed25519));
    let out = fixture.path("v.tar");
    let export = |key: &Key, what: &str| {
        let private = key.private.to_str().unwrap();
        fixture.export(&out, &["--sign-key", private]).ended(0).reported(&[what, "signed by"]);
        for path in volumes(&out) {
            Ran::of(gapferry().arg("verify").arg(&path).arg("--key").arg(&key.public)).ended(0);
        }
    };
    export(&one, "v.001.tar: written");
    export(&one, "v.001.tar: unchanged");
    export(&other, "v.001.tar: written");
    // A copy signed by a third key.
    let bundle = fixture.path("b.tar");
    Ran::of(gapferry().arg("join").args(volumes(&out)).arg("-o").arg(&bundle)).ended(0);
    Ran::of(gapferry().arg("export").arg("--locked").arg(fixture.path("lock")).arg("-o").arg(&bundle)).ended(0);
    Ran::of(gapferry().arg("sign").arg(&bundle).arg("--key").arg(&third.private)).ended(0);
    let split = |what: &str| {
        let mut split = gapferry();
        split.arg("split").arg(&bundle).arg("-o").arg(&out).args(["--volume-size", SIZE]);
        Ran::of(&mut split).ended(0).reported(&[what]);
    };
    split("v.001.tar: written");
    split("v.001.tar: unchanged");
    for path in volumes(&out) {
        Ran::of(gapferry().arg("verify").arg(&path).arg("--key").arg(&third.public)).ended(0);
    }
}

#[test]
fn a_volume_rewritten_with_a_key_has_the_layout_of_the_others() {
    let fixture = Fixture::new();
    let key = Key::new(fixture.directory.path(), "key", Kind::Ed25519);
    let (bundle, out) = (fixture.path("b.tar"), fixture.path("v.tar"));
    let sign = ["--sign-key", key.private.to_str().unwrap()];
    let lock = fixture.path("lock");
    Ran::of(gapferry().arg("export").arg("--locked").arg(lock).arg("-o").arg(&bundle).args(sign)).ended(0);
    Ran::of(gapferry().arg("split").arg(&bundle).arg("-o").arg(&out).args(["--volume-size", SIZE])).ended(0);
    let (paths, first) = (volumes(&out), sums(&volumes(&out)));
    std::fs::remove_file(&paths[1]).unwrap();
    fixture.export(&out, &["--only-volume", "2", sign[0], sign[1]]).ended(0);
    assert_eq!(sums(&paths), first, "the volume repeats the signature of chunks.b3, as the others do");
    // A volume that claims to belong to the set but has another layout.
    forge(&paths[0], |name, bytes| {
        if name == "volumes/001.json" {
            let mut json: serde_json::Value = serde_json::from_slice(bytes).unwrap();
            json["files"].as_array_mut().unwrap().swap(0, 1);
            *bytes = serde_json::to_vec_pretty(&json).unwrap();
        }
    });
    std::fs::remove_file(&paths[1]).unwrap();
    let only = ["--only-volume", "2", sign[0], sign[1]];
    fixture.export(&out, &only).ended(2).reported(&["v.001.tar", "without --only-volume"]);
    assert!(!paths[1].exists());
}

#[test]
fn a_bundle_that_fits_into_one_volume_is_a_single_volume() {
    let directory = tempdir();
    let builder = Builder::new().image("registry.test/a:1", &[noise(1, 1_000)]);
    let out = directory.path().join("disc");
    let volumes = VolumeOptions { shape: Shape { limit: 1 << 30, recovery: 0 }, selection: VolumeSelection::All };
    let options = Options::copying(Form::Volumes(volumes));
    let writer = Writer::create(&out, builder.files(), options, Arc::new(Silent)).unwrap();
    builder.fill(&writer).unwrap();
    writer.finish().unwrap();
    Ran::of(gapferry().arg("verify").arg(directory.path().join("disc.001.tar"))).ended(0);
    assert!(!directory.path().join("disc.002.tar").exists());
}
