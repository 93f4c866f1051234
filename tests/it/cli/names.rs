//! Names at the target: kept, scoped, flattened, mapped; and two images that would get one name.

use super::{Source, ends_with, names, stderr, succeed};
use crate::support::images;
use crate::support::registry::Registry;

fn two() -> Source {
    Source::of(&[images::oci("team/app", "1", &["a"]), images::oci("other/deep/tool", "2", &["b"])])
}

/// The names at a new target after an import with `options`, below `mirror`.
#[track_caller]
fn named(bundle: &str, options: &[&str]) -> Vec<String> {
    let target = Registry::start();
    let to = format!("{}/mirror", target.host());
    succeed(&[&["import", bundle, "--to", &to], options].concat());
    names(&target)
}

#[test]
fn names_are_kept_scoped_or_flattened() {
    let source = two();
    let bundle = source.bundle("b.tar");
    let host = source.host().replace(':', "-");
    assert_eq!(named(&bundle, &[]), ["mirror/other/deep/tool:2", "mirror/team/app:1"]);
    let scoped = [format!("mirror/{host}/other/deep/tool:2"), format!("mirror/{host}/team/app:1")];
    assert_eq!(named(&bundle, &["--scoped"]), scoped);
    assert_eq!(named(&bundle, &["--flatten"]), ["mirror/app:1", "mirror/tool:2"]);
    ends_with(2, &["import", &bundle, "--to", "127.0.0.1:9", "--scoped", "--flatten"]);
}

#[test]
fn without_a_prefix_the_path_starts_at_the_registry_root() {
    let source = two();
    let target = Registry::start();
    succeed(&["import", &source.bundle("b"), "--to", target.host()]);
    assert_eq!(names(&target), ["other/deep/tool:2", "team/app:1"]);
}

#[test]
fn map_rules_apply_in_order_and_unmatched_images_keep_their_names() {
    let source = two();
    let bundle = source.bundle("b.tar");
    let host = source.host();
    let map = source.file("map", &format!("# ours\n{host}/team/ -> ours/\n~ ^.*/(.*)$ -> never/$1\n"));
    assert_eq!(named(&bundle, &["--map", &map]), ["mirror/never/tool:2", "mirror/ours/app:1"]);
    let map = source.file("map", &format!("{host}/team/app -> renamed\n"));
    assert_eq!(named(&bundle, &["--map", &map, "--flatten"]), ["mirror/renamed:1", "mirror/tool:2"]);
    let map = source.file("map", "no arrow here\nx -> \n~ ( -> y\n");
    let output = ends_with(2, &["import", &bundle, "--to", "127.0.0.1:9", "--map", &map]);
    assert!(["map:1", "map:2", "map:3"].iter().all(|line| stderr(&output).contains(line)), "{}", stderr(&output));
}

#[test]
fn two_images_that_map_to_one_name_are_refused_and_named_before_any_push() {
    let source = Source::of(&[images::oci("team/app", "1", &["a"]), images::oci("other/app", "1", &["b"])]);
    let bundle = source.bundle("b.tar");
    let target = Registry::start();
    let output = ends_with(2, &["import", &bundle, "--to", target.host(), "--flatten"]);
    let message = stderr(&output);
    assert!(
        source.references.iter().all(|reference| message.contains(reference)) && message.contains("--scoped"),
        "{message}"
    );
    assert_eq!(target.requests(), []);
}

#[test]
fn when_two_companions_collide_one_fails_and_the_images_arrive() {
    let source = Source::of(&[images::oci("team/app", "1", &["a"]), images::oci("other/app", "2", &["a"])]);
    let ours = images::cosign_signature(&images::oci("team/app", "1", &["a"]));
    ours.push(&source.registry);
    images::artifact("other/app", ours.tag.as_deref().unwrap(), b"theirs").push(&source.registry);
    let bundle = source.bundle("b.tar");
    let target = Registry::start();
    let message = stderr(&ends_with(1, &["import", &bundle, "--to", target.host(), "--flatten"]));
    assert!(message.contains("failed: companion") && message.contains("be neither joined"), "{message}");
    assert!(message.contains("2 images pushed"), "{message}");
    assert!(["1", "2"].iter().all(|tag| target.digest("app", tag).is_some()));
    assert_eq!(named(&bundle, &[]).len(), 4);
}

#[test]
fn allowlist_entries_with_one_target_name_are_refused_when_the_list_is_read() {
    let source = Source::of(&[
        images::oci("team/app", "1", &["a"]),
        images::oci("other/app", "1", &["b"]),
        images::oci("other/same", "1", &["b"]),
        images::oci("base/tool", "1", &["c"]),
    ]);
    let (host, out) = (source.host(), source.path("b.tar").display().to_string());
    let text = format!("{host}/team/app:1 as=base/app\n{host}/other/app:1  as=base/app:1\n");
    let list = source.file("list.txt", &text);
    for command in [&["lock"][..], &["export", "-o", &out]] {
        let message = stderr(&ends_with(2, &[command, &["-f", &list]].concat()));
        for part in ["list.txt:1", "list.txt:2", "base/app:1 at the target"] {
            assert!(message.contains(part), "{command:?}: no {part}: {message}");
        }
        // Only the first one is carried.
        ends_with(1, &[command, &["-f", &list, "--keep-going"]].concat());
    }
    // Duplicates of one image under one name, and names that an import option may merge.
    let same =
        format!("{host}/other/app:1 as=base/app\n{host}/other/same:1 as=base/app\n{host}/team/app:1 as=base/tool\n");
    let list = source.file("same.txt", &format!("{same}{host}/base/tool:1\n"));
    let message = stderr(&ends_with(0, &["export", "-f", &list, "-o", &out]));
    assert!(
        message.contains("same.txt:3") && message.contains("same.txt:4") && message.contains("--scoped"),
        "{message}"
    );
    assert!(!message.contains("same.txt:1"), "{message}");
    ends_with(2, &["import", &out, "--to", "127.0.0.1:9"]);
}

#[test]
fn two_names_of_one_image_may_map_to_one_name() {
    let source = Source::of(&[images::oci("team/app", "1", &["a"]), images::oci("other/app", "1", &["a"])]);
    let bundle = source.bundle("b.tar");
    assert_eq!(named(&bundle, &["--flatten"]), ["mirror/app:1"]);
}

#[test]
fn an_invalid_target_name_is_refused_with_the_reason() {
    let source = two();
    let bundle = source.bundle("b.tar");
    for (to, says) in [
        ("http://127.0.0.1:9", "without http://"),
        ("127.0.0.1:9/mirror:tag", "prefix"),
        ("127.0.0.1:9/Upper", "lower case"),
        ("", "target"),
    ] {
        let output = ends_with(2, &["import", &bundle, "--to", to]);
        assert!(stderr(&output).contains(says), "{to}: {}", stderr(&output));
    }
}
