use super::*;
use crate::oci::{Digest, Tag};
use crate::pipeline::lock::Attached;
use crate::pipeline::lock::Rename;

fn image(reference: &str, rename: Option<&str>) -> LockedImage {
    LockedImage {
        reference: reference.parse().unwrap(),
        rename: rename.map(|text| Rename::try_from(text.to_owned()).unwrap()),
        source: "x".into(),
        digest: Digest::sha256(b""),
        media_type: String::new(),
        size: 0,
        total_size: 0,
        platforms: Vec::new(),
        selection: None,
        absent: Vec::new(),
        attached: None,
        attached_unknown: false,
    }
}

fn name(naming: &Naming, reference: &str) -> String {
    naming.target("host:5000", &image(reference, None)).unwrap().to_string()
}

fn styled(style: Style, prefix: Option<&str>) -> Naming {
    Naming { prefix: prefix.map(str::to_owned), style, map: Map::default() }
}

fn mapped(rules: &str) -> Naming {
    Naming { map: Map::parse(rules.as_bytes(), "map").unwrap(), ..styled(Style::Default, Some("p")) }
}

#[test]
fn each_style_names_an_image_as_documented() {
    let digest = Digest::sha256(b"");
    for (style, reference, expected) in [
        (Style::Default, "nginx:1.27", "host:5000/p/library/nginx:1.27".to_owned()),
        (Style::Default, "quay.io/a/b/c:x", "host:5000/p/a/b/c:x".to_owned()),
        (Style::Scoped, "nginx:1.27", "host:5000/p/docker.io/library/nginx:1.27".to_owned()),
        (Style::Flatten, "quay.io/a/b/c:x", "host:5000/p/c:x".to_owned()),
        (Style::Default, &format!("quay.io/a@{digest}"), format!("host:5000/p/a@{digest}")),
        (Style::Default, &format!("quay.io/a:v1@{digest}"), "host:5000/p/a:v1".to_owned()),
    ] {
        assert_eq!(name(&styled(style, Some("p")), reference), expected);
    }
    assert_eq!(name(&styled(Style::Default, None), "nginx:1"), "host:5000/library/nginx:1");
}

#[test]
fn a_scoped_host_is_a_legal_path_whatever_it_looks_like() {
    let naming = styled(Style::Scoped, None);
    for (reference, expected) in [
        ("reg:5000/a:x", "host:5000/reg-5000/a:x"),
        ("Reg.Example.com:443/a:x", "host:5000/reg.example.com-443/a:x"),
        ("[::1]:5000/a:x", "host:5000/ipv6-0-0-0-0-0-0-0-1-5000/a:x"),
        ("[2001:DB8::1]/a:x", "host:5000/ipv6-2001-db8-0-0-0-0-0-1/a:x"),
        ("localhost/a:x", "host:5000/localhost/a:x"),
    ] {
        assert_eq!(name(&naming, reference), expected);
    }
}

#[test]
fn the_name_from_the_allowlist_wins_over_map_and_style() {
    let naming = Naming { style: Style::Scoped, ..mapped("docker.io/ -> mapped/") };
    let named = |rename| naming.target("h", &image("nginx:1.27", Some(rename))).unwrap().to_string();
    assert_eq!(named("base/web"), "h/p/base/web:1.27");
    assert_eq!(named("base/web:stable"), "h/p/base/web:stable");
}

#[test]
fn the_first_rule_that_fits_decides_and_the_style_serves_the_rest() {
    let naming = mapped("# rules\n\ndocker.io/library/ -> base/   # short names\nquay.io/org/app -> tools/app\n");
    assert_eq!(name(&naming, "nginx:1"), "host:5000/p/base/nginx:1");
    assert_eq!(name(&naming, "quay.io/org/app:1"), "host:5000/p/tools/app:1");
    assert_eq!(name(&naming, "quay.io/org/app/sub:1"), "host:5000/p/tools/app/sub:1");
    assert_eq!(name(&naming, "quay.io/org/apple:1"), "host:5000/p/org/apple:1");
    let naming = mapped("~ quay\\.io/([^/]+)/(.*) -> mirror-$1/${2}\nquay.io/ -> late\ngcr.io/ ->\nk8s.io -> k8s");
    assert_eq!(name(&naming, "quay.io/org/a/b:1"), "host:5000/p/mirror-org/a/b:1");
    assert_eq!(name(&naming, "quay.io/single:1"), "host:5000/p/late/single:1");
    assert_eq!(name(&naming, "gcr.io/x/y:1"), "host:5000/p/x/y:1");
    assert_eq!(name(&naming, "k8s.io/pause:1"), "host:5000/p/k8s/pause:1");
    assert_eq!(name(&naming, "x.quay.io/org/a:1"), "host:5000/p/org/a:1");
    let naming = mapped(r"~ ^docker\.io/(?P<ns>[^/]+)(/opt)?/(.+)$ -> ${ns}_$3$2");
    assert_eq!(name(&naming, "nginx:1"), "host:5000/p/library_nginx:1");
    assert_eq!(name(&naming, "a/opt/b:1"), "host:5000/p/a_b/opt:1");
}

#[test]
fn every_wrong_rule_is_reported_with_its_line() {
    let text = "docker.io/a b\nlibrary/ -> base\nquay.io/ -> Base\n~ ( -> x\n~ a -> $1\n~ (a) -> ${n}\n~ a -> $\n~ a ->\n\
                quay.io/A -> x\nquay.io/ -> a b\nquay.io/ -> a:1\nok.io/ -> ok\n~ a -> A\n~ a -> ${";
    let problems = Map::parse(text.as_bytes(), "map.txt").unwrap_err();
    let lines: Vec<String> = problems.iter().map(|problem| problem.at.to_string()).collect();
    let expected: Vec<String> = (1..=14).filter(|line| *line != 12).map(|line| format!("map.txt:{line}")).collect();
    assert_eq!(lines, expected, "{problems:#?}");
    assert_eq!(Map::parse(b"a\n\xff", "m").unwrap_err()[0].to_string(), "m:2: not UTF-8 text");
    // A byte order mark at the start is not part of the text; a second one is.
    assert!(Map::parse("\u{feff}quay.io/ -> x".as_bytes(), "m").is_ok());
    assert!(Map::parse("\u{feff}\u{feff}quay.io/ -> x".as_bytes(), "m").is_err());
}

#[test]
fn a_rule_that_makes_an_illegal_name_is_an_error_naming_the_image() {
    let naming = mapped("~ quay\\.io/(.*) -> a..$1");
    let error = naming.target("h", &image("quay.io/x:1", None)).unwrap_err();
    assert!(error.chain().starts_with("naming quay.io/x:1 at the target: "), "{}", error.chain());
    let long = "x".repeat(250);
    assert!(styled(Style::Default, Some("prefix")).target("h", &image(&format!("q.io/{long}:1"), None)).is_err());
    let empty = Naming { prefix: None, ..mapped("quay.io/x ->") };
    assert!(empty.target("h", &image("quay.io/x:1", None)).is_err());
}

#[test]
fn a_target_is_a_host_and_perhaps_a_prefix() {
    for (text, registry, prefix) in [
        ("harbor", "harbor", None),
        ("harbor:8080/", "harbor:8080", None),
        ("harbor.example/proj/a", "harbor.example", Some("proj/a")),
        ("[::1]:5000/p", "[::1]:5000", Some("p")),
    ] {
        let target = parse_target(text).unwrap();
        assert_eq!((target.registry.as_str(), target.prefix.as_deref()), (registry, prefix));
    }
    for text in ["", "/", "/p", "https://h/p", "h/P", "h//p", "h/p:1", "h:x/p", "h/../p", "h h", "h/p@sha256:0"] {
        let error = parse_target(text).expect_err(text);
        assert_eq!(error.kind(), crate::base::error::Kind::Input);
    }
}

#[test]
fn two_images_on_one_name_are_one_image_or_a_collision() {
    let naming = styled(Style::Flatten, None);
    let mut images = vec![image("a.io/x/app:1", None), image("b.io/y/app:1", None), image("a.io/other:1", None)];
    let land = |images: &[LockedImage]| {
        let names: Vec<_> = images.iter().map(|image| naming.target("h", image).unwrap()).collect();
        find_collisions(names.iter().zip(images))
    };
    let same = land(&images);
    assert_eq!(same.notices, ["a.io/x/app:1 and b.io/y/app:1 are one image and land on h/app:1"]);
    assert!(same.collisions.is_empty());
    images[1].digest = Digest::sha256(b"other");
    let different = land(&images);
    assert!(different.notices.is_empty());
    let expected = "h/app:1 would be a.io/x/app:1 (sha256:e3b0c44298fc) and b.io/y/app:1 (sha256:d9298a10d1b0)";
    assert_eq!(different.collisions.len(), 1);
    assert_eq!(different.collisions[0].to_string(), expected);
}

/// With a companion under cosign's tag, whose bytes are `bytes`.
fn signed(reference: &str, suffix: &str, bytes: &[u8]) -> LockedImage {
    let image = image(reference, None);
    let attached = Attached {
        digest: Digest::sha256(bytes),
        media_type: String::new(),
        size: 0,
        subject: image.digest,
        tag: Some(Tag::cosign(&image.digest, suffix)),
        artifact_type: None,
    };
    LockedImage { attached: Some(vec![attached]), ..image }
}

#[test]
fn lists_of_signatures_share_a_name_and_two_sboms_on_one_name_are_a_collision() {
    let naming = styled(Style::Flatten, None);
    let land = |images: &[LockedImage]| {
        let names: Vec<_> = images.iter().map(|image| naming.target("h", image).unwrap()).collect();
        find_collisions(names.iter().zip(images))
    };
    // Tags of one image share theirs, wherever they come from, and a list of all tags also names the signature itself.
    let itself = format!("a.io/x/app:{}", Tag::cosign(&Digest::sha256(b""), "sig"));
    let itself = LockedImage { digest: Digest::sha256(b"one"), ..image(&itself, None) };
    let same = ["a.io/x/app:1", "a.io/x/app:2", "b.io/y/app:3"].map(|reference| signed(reference, "sig", b"one"));
    assert_eq!(land(&[&same[..], &[itself]].concat()), Collisions::default());
    let keys = [signed("a.io/x/app:1", "sig", b"one"), signed("b.io/y/app:2", "sig", b"two")];
    assert_eq!(land(&keys), Collisions::default(), "the tag gets the signatures of both");
    let different = land(&[signed("a.io/x/app:1", "sbom", b"one"), signed("b.io/y/app:2", "sbom", b"two")]);
    assert_eq!(different.collisions.len(), 1);
    let reported = different.collisions[0].to_string();
    assert!(reported.starts_with("h/app:sha256-e3b0c442"), "{reported}");
    assert!(reported.contains("a.io/x/app:sha256-") && reported.contains("b.io/y/app:sha256-"), "{reported}");
}
