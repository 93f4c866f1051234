//! Bundles read by other programs, and the places where a bundle may be written.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use gapferry::base::error::Kind;
use gapferry::base::progress::{Events, Silent};
use gapferry::bundle::preflight::{self, Whole};
use gapferry::bundle::{Bundle, Form, Options, Writer};
use gapferry::content::{Need, Source};
use gapferry::verify::{Depth, check};

use super::fixture::{Builder, noise, two_images};
use crate::support::{files_below, sha256_file, skopeo, tempdir};

fn run(program: &str, arguments: &[&str], directory: &Path) -> String {
    let output = Command::new(program).args(arguments).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn silent() -> Events {
    Arc::new(Silent)
}

/// Small images and one blob identified by its sha512, whose path does not fit into a tar header.
fn with_sha512() -> Builder {
    two_images().sha512("registry.test/team/artifact:x", noise(9, 1000))
}

#[test]
fn sha256sum_verifies_the_directory_and_tar_unpacks_the_same_files() {
    let (directory, builder) = (tempdir(), with_sha512());
    let (folder, tar) = (directory.path().join("bundle"), directory.path().join("bundle.tar"));
    let (one, other) = (builder.write(&folder).unwrap(), builder.write(&tar).unwrap());
    assert_eq!(one.identity, other.identity);
    let of_256 = run("sha256sum", &["-c", "SHA256SUMS"], &folder);
    let of_512 = run("sha512sum", &["-c", "SHA512SUMS"], &folder);
    let proven = of_256.lines().count() + of_512.lines().count();
    assert_eq!(proven, files_below(&folder).len() - 2, "all but SHA256SUMS and chunks.b3: {of_256}{of_512}");

    let listed = run("tar", &["tf", "bundle.tar"], directory.path());
    let first: Vec<&str> = listed.lines().take(6).collect();
    assert_eq!(first, ["oci-layout", "bundle.json", "index.json", "manifest.json", "SHA512SUMS", "SHA256SUMS"]);
    assert_eq!(listed.lines().last(), Some("chunks.b3"), "the list that is known last is at the end");
    let unpacked = directory.path().join("unpacked");
    std::fs::create_dir(&unpacked).unwrap();
    run("tar", &["xf", "../bundle.tar"], &unpacked);
    assert!(files_below(&unpacked) == files_below(&folder), "the forms differ");
    for out in [folder, tar] {
        let report = check(&out, Depth::Full, &silent()).unwrap();
        assert!(report.is_clean(), "{report:#?}");
    }
}

/// An export checks its output path when it starts, and may then run for hours.
#[test]
fn a_file_that_appears_at_the_output_path_during_an_export_is_kept() {
    let (directory, builder) = (tempdir(), two_images());
    for (name, form) in [("bundle", Form::Directory), ("bundle.tar", Form::Tar)] {
        let out = directory.path().join(name);
        let writer = Writer::create(&out, builder.files(), Options::copying(form), silent()).unwrap();
        builder.fill(&writer).unwrap();
        let theirs = if name == "bundle" { out.join("thesis.txt") } else { out.clone() };
        std::fs::create_dir_all(theirs.parent().unwrap()).unwrap();
        std::fs::write(&theirs, "theirs").unwrap();
        let error = writer.finish().unwrap_err();
        assert!(error.chain().contains("something else has taken this name"), "{}", error.chain());
        assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "theirs");
    }
}

#[test]
fn skopeo_finds_each_image_by_its_full_name_in_both_forms() {
    let (directory, builder) = (tempdir(), two_images());
    for (name, transport) in [("bundle", "oci"), ("bundle.tar", "oci-archive")] {
        let out = directory.path().join(name);
        builder.write(&out).unwrap();
        for image in builder.contents().lock.images {
            let digest = skopeo::digest(&format!("{transport}:{}:{}", out.display(), image.reference));
            assert_eq!(digest.trim(), image.digest.to_string());
        }
    }
}

#[test]
fn the_same_contents_give_the_same_tar_however_it_was_written() {
    let (directory, builder) = (tempdir(), with_sha512());
    let (first, second) = (directory.path().join("a.tar"), directory.path().join("b.tar"));
    builder.write(&first).unwrap();
    builder.write(&second).unwrap();
    assert_eq!(sha256_file(&first), sha256_file(&second));
    // Written over a smaller bundle of that name, whose blobs are reused.
    let third = directory.path().join("c.tar");
    two_images().write(&third).unwrap();
    builder.write(&third).unwrap();
    assert_eq!(sha256_file(&first), sha256_file(&third));
    assert_eq!(files_below(directory.path()).len(), 3, "no leftovers beside the bundles");
}

#[test]
fn a_layout_resolves_names_and_digests() {
    let (directory, builder) = (tempdir(), two_images());
    let out = directory.path().join("bundle");
    builder.write(&out).unwrap();
    let bundle = Bundle::open(&out).unwrap();
    let image = &bundle.lock().images[1];
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let layout = bundle.layout();
        assert_eq!(layout.resolve(&image.reference, Need::Required).await.unwrap().unwrap().digest, image.digest);
        let by_digest = image.reference.repository.with_digest(image.digest);
        assert_eq!(layout.manifest(&by_digest, Need::Required).await.unwrap().unwrap().digest(), image.digest);
        let tags = layout.tags(&image.reference.repository, Need::Required).await.unwrap();
        assert_eq!(tags.tags.iter().map(|tag| tag.as_str()).collect::<Vec<_>>(), ["2.0"]);
        let missing = "registry.test/team/two:3".parse().unwrap();
        assert!(layout.resolve(&missing, Need::Required).await.unwrap().is_none());
    });
}

#[test]
fn a_trailing_slash_or_a_symlink_names_the_same_output() {
    let (directory, builder) = (tempdir(), two_images());
    let out = directory.path().join("bundle");
    for _ in 0..2 {
        builder.write(Path::new(&format!("{}/", out.display()))).unwrap();
        assert!(check(&out, Depth::Full, &silent()).unwrap().is_clean());
    }
    let link = directory.path().join("latest");
    std::os::unix::fs::symlink("bundle", &link).unwrap();
    let more = with_sha512();
    more.write(&link).unwrap();
    assert!(link.is_symlink());
    assert_eq!(Bundle::open(&out).unwrap().lock().images.len(), 3);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2, "no leftovers beside the bundles");
}

#[test]
fn an_output_that_is_not_a_bundle_of_the_same_form_is_never_replaced() {
    let (directory, builder) = (tempdir(), two_images());
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("notes.tar"), "mine").unwrap();
    std::fs::create_dir(at("work")).unwrap();
    std::fs::write(at("work/thesis"), "mine").unwrap();
    std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
    builder.write(&at("tar.tar")).unwrap();
    std::fs::rename(at("tar.tar"), at("tar")).unwrap();
    builder.write(&at("folder")).unwrap();
    std::fs::rename(at("folder"), at("folder.tar")).unwrap();
    let before = files_below(directory.path());
    for name in ["notes.tar", "work", "dangling", "tar", "folder.tar"] {
        let error = builder.write(&at(name)).unwrap_err();
        assert!(matches!(error.kind(), Kind::Input | Kind::Disk), "{error:?}");
        assert!(error.chain().contains(name), "{error:?}");
    }
    assert!(files_below(directory.path()) == before);
    let mounted = preflight::survey(Path::new("/proc"), &builder.files(), &Options::copying(Form::Directory));
    assert!(mounted.unwrap_err().to_string().contains("mount point"));
}

#[test]
fn a_second_run_on_the_same_output_is_refused() {
    let (directory, builder) = (tempdir(), two_images());
    for name in ["bundle", "bundle.tar"] {
        let out = directory.path().join(name);
        let first = builder.create(&out).unwrap();
        let error = builder.create(&out).err().unwrap();
        assert!(error.to_string().contains("another gapferry is writing it"), "{error:?}");
        builder.fill(&first).unwrap();
        first.finish().unwrap();
    }
}

#[test]
fn a_repeated_export_repairs_a_bundle_and_fetches_only_damaged_blobs() {
    let (directory, builder) = (tempdir(), two_images());
    for name in ["bundle", "bundle.tar"] {
        let out = directory.path().join(name);
        builder.write(&out).unwrap();
        let is_whole = |whole: Whole<'_>| preflight::up_to_date(&out, builder.files().identity, whole).is_some();
        let events = silent();
        assert!(is_whole(Whole::Proven(&events)));
        damage(&out, &builder.layer(1).digest.blob_path());
        assert!(is_whole(Whole::BySizes) && !is_whole(Whole::Proven(&events)));
        builder.source.take_asked();
        builder.write(&out).unwrap();
        assert_eq!(builder.source.take_asked(), [(builder.layer(1).digest, 0)]);
        assert!(check(&out, Depth::Full, &events).unwrap().is_clean());
        damage(&out, "SHA256SUMS");
        assert!(!is_whole(Whole::Proven(&events)));
    }
}

/// Flips a bit in the middle of a file of a bundle of either form.
fn damage(bundle: &Path, path: &str) {
    let layout = gapferry::files::Layout::open(bundle).unwrap();
    let bytes = layout.read(path, u64::MAX).unwrap().unwrap();
    let file = if layout.is_tar() { bundle.to_owned() } else { bundle.join(path) };
    let mut all = std::fs::read(&file).unwrap();
    let start = all.windows(bytes.len()).position(|window| window == &bytes[..]).unwrap();
    all[start + bytes.len() / 2] ^= 1;
    // Replaces the file: writing in place would damage its other hard links too.
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, all).unwrap();
}
