//! Allowlists as people write them (text, YAML, skopeo's file, standard input), on both sides of the gap.

use serde_json::Value;

use super::{Source, ends_with, everything, json, names, run, stderr, succeed};
use crate::support::registry::{Options, Registry};
use crate::support::{gapferry, images};

fn lock_of(arguments: &[&str]) -> Value {
    json(&succeed(&[&["lock"], arguments].concat()))
}

/// The references of a lock without the registry part.
fn tags(lock: &Value) -> Vec<String> {
    let images = lock["images"].as_array().unwrap().iter();
    images.map(|image| image["reference"].as_str().unwrap().split_once('/').unwrap().1.to_owned()).collect()
}

fn four() -> Source {
    Source::of(&[
        images::oci_index("team/multi", "1.0", "m"),
        images::oci("team/app", "1.0", &["a"]),
        images::oci("team/app", "1.1", &["b"]),
        images::oci("team/app", "edge", &["c"]),
    ])
}

#[test]
fn a_text_allowlist_with_comments_bom_and_crlf_selects_platforms_and_names() {
    let source = four();
    let host = source.host();
    let text = format!(
        "\u{feff}# the base images\r\n{host}/team/multi:1.0 platform=linux/arm64 as=base/multi:new  # one only\r\n\r\n\
         {host}/team/app:1.1\r\n"
    );
    let list = source.file("list.txt", &text);
    let lock = lock_of(&["-f", &list]);
    assert_eq!(tags(&lock), ["team/multi:1.0", "team/app:1.1"]);
    let multi = &lock["images"][0];
    assert_eq!(multi["as"], "base/multi:new");
    assert_eq!(multi["platforms"][0]["architecture"], "arm64");
    assert_eq!(multi["selection"]["index"], "single");
    // The name applies at the target.
    let out = source.path("b.tar");
    let out = out.to_str().unwrap();
    succeed(&["export", "-f", &list, "-o", out]);
    let target = Registry::start();
    succeed(&["import", out, "--to", &format!("{}/mirror", target.host())]);
    assert_eq!(names(&target), ["mirror/base/multi:new", "mirror/team/app:1.1"]);
}

#[test]
fn a_yaml_list_and_stdin_select_the_same_images_as_the_text_file() {
    let source = four();
    let host = source.host();
    let text = format!("{host}/team/multi:1.0 platform=linux/arm64 as=base/multi\n{host}/team/app:edge\n");
    let yaml =
        format!("- ref: {host}/team/multi:1.0\n  platform: [linux/arm64]\n  as: base/multi\n- {host}/team/app:edge\n");
    let expected = lock_of(&["-f", &source.file("list.txt", &text)])["images"].clone();
    assert_eq!(lock_of(&["-f", &source.file("list.yaml", &yaml)])["images"], expected);
    for input in [text, yaml] {
        let output = gapferry().args(["lock", "-f", "-"]).write_stdin(input).output().unwrap();
        assert_eq!(json(&output)["images"], expected, "{}", stderr(&output));
    }
    let output = gapferry().args(["lock", "-f", "-"]).write_stdin("UPPER:1\n").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("standard input:1"), "{}", stderr(&output));
}

#[test]
fn a_bare_repository_selects_all_tags_and_a_pattern_without_a_match_is_an_error() {
    let source = four();
    let host = source.host();
    let lock = lock_of(&[&format!("{host}/team/app")]);
    assert_eq!(tags(&lock), ["team/app:1.0", "team/app:1.1", "team/app:edge"]);
    let list = format!("{host}:\n  images-by-semver: {{team/app: '>= 1.1'}}\n");
    assert_eq!(tags(&lock_of(&["-f", &source.file("semver.yaml", &list)])), ["team/app:1.1"]);
    let none = format!("{host}:\n  images: {{team/multi: []}}\n  images-by-tag-regex: {{team/app: ^nothing$}}\n");
    let none = source.file("none.yaml", &none);
    let output = run(&["lock", "-f", &none]);
    assert!(!output.status.success() && stderr(&output).contains("none.yaml:"), "{}", stderr(&output));
    assert_eq!(tags(&lock_of(&["-f", &none, "--allow-empty"])), ["team/multi:1.0"]);
}

#[test]
fn a_skopeo_file_supplies_credentials_and_tls_settings() {
    let options = Options { credentials: Some(("user".into(), "secret".into())), tls: true, ..Options::default() };
    let closed = Registry::with(options);
    images::oci("team/app", "1.0", &["a"]).push(&closed);
    let source = four();
    let file = |tls_verify: bool, password: &str| {
        let text = format!(
            "{}:\n  tls-verify: {tls_verify}\n  credentials: {{username: user, password: {password}}}\n  \
             images: {{team/app: ['1.0']}}\n{}:\n  images: {{team/app: [edge]}}\n",
            closed.host(),
            source.host()
        );
        source.file("sync.yaml", &text)
    };
    assert_eq!(tags(&lock_of(&["-f", &file(false, "secret")])), ["team/app:1.0", "team/app:edge"]);
    ends_with(4, &["lock", "-f", &file(false, "wrong")]);
    // No trusted authority signed its certificate.
    let output = ends_with(5, &["lock", "-f", &file(true, "secret"), "--retries", "0"]);
    assert!(stderr(&output).contains("--ca-file"), "{}", stderr(&output));
    succeed(&["lock", "-f", &file(true, "secret"), "--ca-file", closed.ca_file().to_str().unwrap()]);
}

#[test]
fn merged_duplicates_and_expanded_short_names_are_reported() {
    let source = four();
    let reference = format!("{}/team/app:1.0", source.host());
    let list = source.file("list.txt", &format!("{reference}\n{reference}\n"));
    let output = succeed(&["lock", &reference, "-f", &list]);
    assert_eq!(tags(&json(&output)), ["team/app:1.0"]);
    assert!(stderr(&output).contains("note:") && stderr(&output).contains(&reference), "{}", stderr(&output));
    // Nothing listens at this proxy; only the messages before the connection matter.
    let mut offline = gapferry();
    offline.env("HTTPS_PROXY", "http://127.0.0.1:9").args(["lock", "nginx:1", "--retries", "0"]);
    let output = offline.output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert!(stderr(&output).contains("nginx:1 is docker.io/library/nginx:1"), "{}", stderr(&output));
}

#[test]
fn an_image_missing_from_the_isolated_sides_list_is_refused_before_any_request() {
    let source = four();
    let bundle = source.bundle("b.tar");
    let target = Registry::start();
    let host = source.host();
    let list = source.file("allow.txt", &format!("{host}/team/multi:1.0\n{host}/team/app:1.0\n"));
    let output = ends_with(3, &["import", &bundle, "--to", target.host(), "--allow", &list]);
    let message = stderr(&output);
    assert!(
        message.contains(&format!("{host}/team/app:1.1")) && message.contains(&format!("{host}/team/app:edge")),
        "{message}"
    );
    assert!(!message.contains(&format!("{host}/team/app:1.0")), "only refused images are named: {message}");
    assert_eq!(target.requests(), []);
    let whole = source.file("allow.txt", &format!("{host}/team/multi:1.0\n{host}/team/app # all its tags\n"));
    succeed(&["import", &bundle, "--to", target.host(), "--allow", &whole]);
    assert_eq!(everything(&target).len(), 4);
}

#[test]
fn a_list_that_pins_a_digest_refuses_the_tag_with_another_digest() {
    let source = Source::of(&[images::oci("team/app", "1.0", &["a"])]);
    let bundle = source.bundle("b.tar");
    let target = Registry::start();
    let right = images::oci("team/app", "1.0", &["a"]).digest();
    let wrong = images::oci("team/app", "1.0", &["b"]).digest();
    for (digest, code) in [(wrong, 3), (right, 0)] {
        let list = source.file("allow.txt", &format!("{}/team/app:1.0@{digest}\n", source.host()));
        ends_with(code, &["import", &bundle, "--to", target.host(), "--allow", &list]);
        assert_eq!(everything(&target).len(), usize::from(code == 0));
    }
}

/// An index with two platforms, and companions of the index and of a child in both forms.
fn signed() -> Vec<images::Image> {
    let app = images::oci_index("team/app", "1.0", "signed");
    let sbom = images::referrer(&app, "application/spdx+json", b"sbom");
    let of_child = images::referrer(&app.children[0], "application/spdx+json", b"sbom of a child");
    let lists = [(&app, &sbom), (&app.children[0], &of_child)]
        .map(|(subject, referrer)| images::referrers_tag(subject, std::slice::from_ref(referrer)));
    let signatures = [images::cosign_signature(&app), images::cosign_signature(&app.children[0])];
    [app].into_iter().chain(lists).chain(signatures).collect()
}

#[test]
fn a_tag_listing_selects_only_images_and_their_referrers_travel_with_them() {
    let all = signed();
    let source = Source::of(&all);
    let host = source.host();
    let regex = source.file("regex.yaml", &format!("{host}:\n  images-by-tag-regex: {{team/app: '.'}}\n"));
    let empty = source.file("empty.yaml", &format!("{host}:\n  images: {{team/app: []}}\n"));
    let whole = format!("{host}/team/app");
    for how in [&[&*whole][..], &["-f", &regex], &["-f", &empty], &[&*whole, "--platform", "linux/amd64"]] {
        let output = succeed(&[&["lock"], how].concat());
        assert_eq!(tags(&json(&output)), ["team/app:1.0"], "{how:?}");
        assert!(stderr(&output).contains("4 tags of signatures"), "{}", stderr(&output));
    }
    let out = source.path("b").display().to_string();
    succeed(&["export", &whole, "-o", &out]);
    let target = Registry::start();
    succeed(&["import", &out, "--to", target.host()]);
    let tags_of =
        |registry: &Registry| registry.tags("team/app").into_iter().collect::<std::collections::BTreeSet<_>>();
    assert_eq!(tags_of(&target), tags_of(&source.registry));
    // A companion named in full is what the user asked for.
    let named = format!("{whole}:{}", all[3].tag.as_deref().unwrap());
    assert_eq!(tags(&lock_of(&[&named])), [all[3].name()]);
    let only = source.file("only.yaml", &format!("{host}:\n  images-by-tag-regex: {{team/app: '[.]sig$'}}\n"));
    let output = ends_with(4, &["lock", "-f", &only]);
    assert!(stderr(&output).contains("matches no image, only signatures"), "{}", stderr(&output));
    let output = succeed(&["lock", &whole, "--no-referrers"]);
    assert!(stderr(&output).matches("they are left behind (--no-referrers)").count() == 1, "{}", stderr(&output));
}

#[test]
fn a_tag_that_only_looks_like_a_companion_is_an_image() {
    let app = images::oci("team/app", "1.0", &["a"]);
    let own = app.named("team/app", &app.digest().replace(':', "-"));
    let elsewhere =
        images::cosign_signature(&app).named("team/signatures", images::cosign_signature(&app).tag.as_deref().unwrap());
    let source = Source::of(&[app.clone(), own.clone(), elsewhere.clone()]);
    let host = source.host();
    // Some builds protect an image from garbage collection with a tag of its own digest.
    assert_eq!(tags(&lock_of(&[&format!("{host}/team/app")])), [app.name(), own.name()]);
    // COSIGN_REPOSITORY: the subject is in another repository, so nothing else would carry its signature.
    assert_eq!(tags(&lock_of(&[&format!("{host}/team/signatures")])), [elsewhere.name()]);
}

#[test]
fn a_target_name_that_the_list_does_not_assign_is_refused() {
    let source = Source::of(&[images::oci("team/app", "1.0", &["a"])]);
    let target = Registry::start();
    let entry = format!("{}/team/app:1.0", source.host());
    let renamed = source.file("renamed.txt", &format!("{entry} as=prod/payments\n"));
    let (plain_bundle, renamed_bundle) = (source.bundle("plain.tar"), source.path("renamed.tar"));
    let renamed_bundle = renamed_bundle.to_str().unwrap();
    succeed(&["export", "-f", &renamed, "-o", renamed_bundle]);
    let plain = source.file("plain.txt", &format!("{entry}\n"));
    let other = source.file("other.txt", &format!("{entry} as=prod/payments:2\n"));
    for (bundle, list, says) in [
        (renamed_bundle, &plain, "has as=prod/payments:1.0, and"),
        (renamed_bundle, &other, "gives it as=prod/payments:2"),
        (&plain_bundle, &renamed, "has no other name, and"),
    ] {
        let output = ends_with(3, &["import", bundle, "--to", target.host(), "--allow", list]);
        assert!(stderr(&output).contains(says), "{says}: {}", stderr(&output));
        assert_eq!(target.requests(), []);
    }
    succeed(&["import", renamed_bundle, "--to", target.host(), "--allow", &renamed]);
    assert_eq!(names(&target), ["prod/payments:1.0"]);
}

#[test]
fn a_list_with_platforms_refuses_an_index_with_a_manifest_without_platform() {
    let mut index = images::oci_index("team/multi", "1.0", "m");
    let mut manifest: Value = serde_json::from_slice(&index.manifest).unwrap();
    // A client that finds no platform in the index reads the config, which says arm64.
    manifest["manifests"][1].as_object_mut().unwrap().remove("platform");
    index.manifest = manifest.to_string().into_bytes();
    let source = Source::of(&[index]);
    let bundle = source.bundle("b.tar");
    let target = Registry::start();
    let entry = format!("{}/team/multi:1.0", source.host());
    let list = source.file("allow.txt", &format!("{entry} platform=linux/amd64\n"));
    let output = ends_with(3, &["import", &bundle, "--to", target.host(), "--allow", &list]);
    assert!(stderr(&output).contains("(no platform), which"), "{}", stderr(&output));
    assert_eq!(target.requests(), []);
    succeed(&["import", &bundle, "--to", target.host(), "--allow", &source.file("all.txt", &entry)]);
}

/// Each platform of an attached index can be pulled by its digest, as if it had been requested.
#[test]
fn a_list_with_platforms_refuses_an_attached_image_for_another_platform() {
    let app = images::oci("team/app", "1.0", &["app"]);
    let other = images::oci_for("arm64", "team/app", "", &["other"]);
    let with_platform = images::index_of("team/app", "", &[(&other, Some("arm64"))], Some(&app));
    let without = images::index_of("team/app", "", &[(&other, None)], Some(&app));
    let harmless = images::index_of("team/app", "", &[(&images::artifact("team/app", "", b"x"), None)], Some(&app));
    for (attached, is_refused) in [(with_platform, true), (without, true), (harmless, false)] {
        let list = images::referrers_tag(&app, std::slice::from_ref(&attached));
        let source = Source::of(&[app.clone(), attached, list]);
        let (bundle, target) = (source.path("b.tar").display().to_string(), Registry::start());
        let entry = format!("{}/team/app:1.0", source.host());
        succeed(&["export", &entry, "-o", &bundle]);
        let list = source.file("allow.txt", &format!("{entry} platform=linux/amd64\n"));
        let import = ["import", &bundle, "--to", target.host(), "--allow"];
        if is_refused {
            let output = ends_with(3, &[&import[..], &[&list]].concat());
            assert!(stderr(&output).contains("(linux/arm64), which"), "{}", stderr(&output));
            assert_eq!(target.requests(), []);
        } else {
            succeed(&[&import[..], &[&list]].concat());
        }
        succeed(&[&import[..], &[&source.file("all.txt", &entry)]].concat());
    }
}

/// An artifact carried as an image becomes a referrer of the image it names.
#[test]
fn a_referrer_of_an_excluded_image_is_refused_unless_the_list_names_it_exactly() {
    let app = images::oci("team/app", "1.0", &["app"]);
    let sbom =
        images::Image { tag: Some("sbom".to_owned()), ..images::referrer(&app, "application/spdx+json", b"sbom") };
    let source = Source::of(&[app, sbom.clone()]);
    let host = source.host();
    let (alone, both) = (source.path("alone.tar").display().to_string(), source.path("both.tar").display().to_string());
    let names = [format!("{host}/team/app:sbom"), format!("{host}/team/app:1.0")];
    succeed(&["export", &names[0], "-o", &alone]);
    succeed(&["export", &names[0], &names[1], "-o", &both]);
    let target = Registry::start();
    let list = source.file("list.txt", &format!("{host}/team/app\n"));
    let output = ends_with(3, &["import", &alone, "--to", target.host(), "--allow", &list]);
    assert!(stderr(&output).contains("which does not enter with it"), "{}", stderr(&output));
    assert_eq!(target.requests(), []);
    let exact = source.file("exact.txt", &format!("{}@{}\n", names[0], sbom.digest()));
    // An export with the same list warns about it.
    for (list, warns) in [(&source.file("tag.txt", &names[0]), true), (&exact, false), (&list, false)] {
        let again = source.path("again.tar").display().to_string();
        let message = stderr(&succeed(&["export", "-f", list, "-o", &again]));
        assert_eq!(message.contains("an import with this list (--allow) would refuse it"), warns, "{message}");
    }
    for (bundle, list) in [(&alone, &exact), (&both, &list)] {
        succeed(&["import", bundle, "--to", Registry::start().host(), "--allow", list]);
    }
    succeed(&["import", &alone, "--to", target.host()]);
}
