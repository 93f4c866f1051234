//! `-o OUT.tar.zst`: a smaller bundle that can still be read by offset.

use std::process::Command;

use super::fixture::{Fixture, text};
use crate::support::registry::Registry;
use crate::support::{images, skopeo};

const WHOLE: usize = usize::MAX;

/// The fixture with an additional chart, which is mostly text.
fn exported() -> (Fixture, Vec<u8>) {
    let fixture = Fixture::new();
    fixture.run(&["export", "--locked", "images.lock", "-o", "images.tar.zst", "--json"]).ended(0);
    let packed = std::fs::read(fixture.path("images.tar.zst")).unwrap();
    (fixture, packed)
}

#[test]
fn every_command_that_reads_a_bundle_reads_a_compressed_one() {
    let (fixture, packed) = exported();
    let plain = std::fs::read(fixture.streamed("saved.tar", &[])).unwrap();
    // Decompressing with zstd gives the same tar.
    let unpacked = Command::new("zstd").args(["-dcq", text(&fixture.path("images.tar.zst"))]).output().unwrap().stdout;
    assert!(unpacked == plain && packed.len() < plain.len());
    for full in [&[][..], &["--full"]] {
        let message = fixture.run(&[&["verify", "images.tar.zst"][..], full].concat()).ended(0).stdout;
        assert!(message.contains("4 images"), "{message}");
    }
    for command in [["list", "images.tar.zst"], ["fingerprint", "images.tar.zst"]] {
        let plain = fixture.run(&[command[0], "saved.tar"]).ended(0).stdout.replace("saved.tar", "images.tar.zst");
        assert_eq!(fixture.run(&command).ended(0).stdout, plain);
    }
    let served = crate::support::embedded::Embedded::serve(&fixture.path("images.tar.zst"));
    let image = &fixture.images[0];
    let reference = served.references().iter().find(|name| name.contains("team/one")).unwrap();
    assert_eq!(skopeo::digest(&format!("docker://{}/{reference}", served.host())), image.digest());
    let target = Registry::start();
    let to = format!("{}/mirror", target.host());
    fixture.run(&["import", "images.tar.zst", "--plain-http", "--to", &to]).ended(0);
    for image in &fixture.images {
        let tag = image.tag.as_deref().unwrap();
        assert_eq!(target.digest(&format!("mirror/{}", image.repository), tag), Some(image.digest()));
    }
    // From a pipe as well.
    fixture.piped(&["verify", "-"], &packed, 10_000).ended(0);
    fixture.piped(&["import", "-", "--plain-http", "--to", &to], &packed, WHOLE).ended(0).reported(&["4 present"]);
}

#[test]
fn compressed_blobs_are_stored_as_they_are_and_the_rest_is_compressed() {
    let registry = Registry::start();
    let words = "the same words again and again ".repeat(100_000);
    let layer = images::layer_tar("words", words.as_bytes());
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let image = |tag, layer| images::oci_raw("team/words", tag, config, &[layer]);
    let plain = image("plain", ("application/vnd.oci.image.layer.v1.tar", layer));
    let noise = image("noise", (images::OCI_LAYER_GZIP, images::gzip(images::noise(5, 4_000_000).as_bytes())));
    let directory = crate::support::tempdir();
    let size = |image: &images::Image| {
        image.push(&registry);
        let out = directory.path().join(format!("{}.tar.zst", image.tag.as_deref().unwrap()));
        let name = format!("{}/{}", registry.host(), image.name());
        crate::support::gapferry().args(["export", &name, "-o", text(&out)]).assert().success();
        (out.metadata().unwrap().len(), image.blobs[1].len() as u64)
    };
    let (packed, whole) = size(&plain);
    assert!(packed < whole / 100, "{packed} of {whole}");
    let (packed, whole) = size(&noise);
    assert!(packed >= whole && packed < whole + whole / 1000 + 20_000, "{packed} of {whole}");
}

#[test]
fn a_damaged_compressed_bundle_is_never_called_intact() {
    let (fixture, packed) = exported();
    for at in (0..packed.len()).step_by(packed.len() / 40) {
        let mut bytes = packed.clone();
        bytes[at] ^= 0x20;
        std::fs::write(fixture.path("bad.tar.zst"), bytes).unwrap();
        let message = fixture.run(&["verify", "bad.tar.zst"]);
        assert!(matches!(message.code, Some(2 | 3)), "byte {at}: {message:#?}");
    }
    for length in [packed.len() - 1, packed.len() / 2, 600] {
        std::fs::write(fixture.path("bad.tar.zst"), &packed[..length]).unwrap();
        let message = fixture.run(&["verify", "bad.tar.zst"]);
        assert!(matches!(message.code, Some(2 | 3)), "{length} bytes: {message:#?}");
        let message = fixture.piped(&["verify", "-"], &packed[..length], WHOLE);
        assert!(length == packed.len() - 1 || matches!(message.code, Some(2 | 3)), "{length} bytes: {message:#?}");
    }
}

#[test]
fn a_repeated_export_keeps_it_and_an_interrupted_one_leaves_no_false_bundle() {
    let (fixture, packed) = exported();
    let again = ["export", "--locked", "images.lock", "-o", "images.tar.zst"];
    fixture.run(&again).ended(0).reported(&["unchanged"]);
    std::fs::write(fixture.path("images.tar.zst.partial"), &packed[..100_000]).unwrap();
    fixture.run(&["verify", "images.tar.zst.partial"]).ended(2).reported(&["unfinished"]);
    std::fs::remove_file(fixture.path("images.tar.zst")).unwrap();
    fixture.run(&again).ended(0);
    assert!(std::fs::read(fixture.path("images.tar.zst")).unwrap() == packed);
    assert!(!fixture.path("images.tar.zst.partial").exists());
    // An existing file is not overwritten.
    std::fs::write(fixture.path("other.tar.zst"), "something else").unwrap();
    fixture.run(&["export", "--locked", "images.lock", "-o", "other.tar.zst"]).ended(2).reported(&["not overwritten"]);
    assert_eq!(std::fs::read(fixture.path("other.tar.zst")).unwrap(), b"something else");
}

#[test]
fn impossible_operations_on_a_compressed_bundle_are_refused_with_a_remedy() {
    let (fixture, packed) = exported();
    let made = ["genpkey", "-algorithm", "ed25519", "-out", text(&fixture.path("key.pem"))].map(str::to_owned);
    assert!(Command::new("openssl").args(made).status().unwrap().success());
    fixture
        .run(&["sign", "images.tar.zst", "--key", "key.pem"])
        .ended(2)
        .reported(&["is compressed", "gapferry convert"]);
    fixture.run(&["export", "--locked", "images.lock", "-o", "plain.tar"]).ended(0);
    fixture.run(&["repair", "images.tar.zst", "plain.tar"]);
    assert!(std::fs::read(fixture.path("images.tar.zst")).unwrap() == packed);
    // With a key, the bundle is rewritten with a signature.
    let signed = ["export", "--locked", "images.lock", "-o", "images.tar.zst", "--sign-key", "key.pem"];
    fixture.run(&signed).ended(0).reported(&["written", "signed by"]);
    fixture.run(&signed).ended(0).reported(&["unchanged", "signed by"]);
    // A compressed tar without the seek table cannot be read by offset, but can be read from a pipe.
    std::fs::write(fixture.path("other.tar.zst"), images::zstd(&std::fs::read(fixture.path("plain.tar")).unwrap()))
        .unwrap();
    fixture.run(&["verify", "other.tar.zst"]).ended(2).reported(&["compressed with zstd"]);
    fixture.piped(&["verify", "-"], &std::fs::read(fixture.path("other.tar.zst")).unwrap(), WHOLE).ended(0);
}

#[test]
fn a_broken_compressed_pipe_is_reported_like_any_other() {
    let (fixture, packed) = exported();
    let target = Registry::start();
    let to = format!("{}/mirror", target.host());
    for cut in [2_000, packed.len() / 4, packed.len() / 2, packed.len() - 700, packed.len() - 3] {
        let message = fixture.piped(&["verify", "-"], &packed[..cut], 50_000).ended(3);
        let message = format!("{}{}", message.stdout, message.stderr);
        assert!(message.contains("its compressed data ends within a frame: it is cut short"), "{cut}: {message}");
        let import = ["import", "-", "--plain-http", "--to", &to];
        let message = fixture.piped(&import, &packed[..cut], 50_000);
        assert!(matches!(message.code, Some(1 | 3)), "{cut}: {message:#?}");
        message.reported(&["cut short"]);
    }
    let followed = [&packed[..], b"and something else"].concat();
    let message = fixture.piped(&["verify", "-"], &followed, WHOLE).ended(3).stdout;
    assert!(message.contains("cannot be decompressed"), "{message}");
    std::fs::write(fixture.path("cut.tar.zst"), &packed[..packed.len() / 2]).unwrap();
    fixture.run(&["verify", "cut.tar.zst"]).ended(2).reported(&["if an export wrote it, it is cut short"]);
    // A destroyed frame header before any data.
    let mut bytes = packed.clone();
    bytes[9] ^= 0x77;
    std::fs::write(fixture.path("bad.tar.zst"), &bytes).unwrap();
    fixture.run(&["verify", "bad.tar.zst"]).ended(3).reported(&["frame 0 of the file"]);
    fixture.piped(&["verify", "-"], &bytes, WHOLE).ended(3).reported(&["cannot be decompressed"]);
}
