use super::*;

#[test]
fn short_names_mean_the_same_as_in_docker() {
    for (short, full) in [
        ("nginx", "docker.io/library/nginx"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("bitnami/redis:7", "docker.io/bitnami/redis:7"),
        ("docker.io/nginx", "docker.io/library/nginx"),
        ("index.docker.io/nginx", "docker.io/library/nginx"),
        ("localhost/a", "localhost/a"),
        ("localhost:5000/a/b/c:x", "localhost:5000/a/b/c:x"),
        ("[::1]:5000/a:x", "[::1]:5000/a:x"),
        ("[2001:db8::1]/a:x", "[2001:db8::1]/a:x"),
        ("ghcr.io/org/app__x:v1", "ghcr.io/org/app__x:v1"),
        ("x/a--b.c_d/e:_x", "docker.io/x/a--b.c_d/e:_x"),
    ] {
        let reference: Reference = short.parse().unwrap();
        assert_eq!(reference.to_string(), full);
        assert_eq!(reference.was_normalized_from(short), short != full);
    }
}

#[test]
fn tag_and_digest_may_be_combined() {
    let digest = Digest::sha256(b"x");
    let reference: Reference = format!("quay.io/a/b:v1@{digest}").parse().unwrap();
    assert_eq!(reference.tag.as_ref().unwrap().as_str(), "v1");
    assert_eq!(reference.digest, Some(digest));
    assert_eq!(reference.target(), Some(digest.to_string()));
}

#[test]
fn a_name_that_no_registry_accepts_is_refused_before_any_request() {
    for text in [
        "",
        ":",
        "/",
        "a/",
        "/a",
        "a//b",
        "A",
        "host.io/A/b",
        "a:b:c",
        "a@sha256:12",
        "a b",
        "a..b",
        "a___b",
        "a_-b",
        "../a",
        "a/../b",
        "host.io:99999/a",
        "host.io:/a",
        "[::1/a",
        "[x]:5/a",
        "-a",
        "a-",
        ".a",
        "a:.x",
        "https://quay.io/a",
        "a:é",
        "_a/b",
        "host..io/a",
        "[::1]5000/a",
    ] {
        assert!(text.parse::<Reference>().is_err(), "{text:?}");
    }
    assert!(format!("a:{}", "x".repeat(129)).parse::<Reference>().is_err());
    assert!("x".repeat(256).parse::<Reference>().is_err());
}

#[test]
fn the_error_about_a_wrong_name_is_one_short_line_without_control_characters() {
    let (control, long) = ("\u{1b}[2J\n\u{202e}x", "x".repeat(100_000));
    let places = [
        format!("{control}://host/a"),
        format!("{control}.io/a"),
        format!("[{control}]/a"),
        format!("host.io:{control}/a"),
        format!("host.io/{control}"),
        format!("host.io/a:{control}"),
        format!("host.io/a@{control}"),
        format!("{long}://host/a"),
        format!("{long}_.io/a"),
        format!("[{long}]/a"),
        format!("host.io:{long}/a"),
        format!("host.io/{long}"),
        format!("host.io/a:{long}"),
        format!("host.io/a@{long}"),
        format!("host.io/a@{long}:{long}"),
    ];
    for text in places {
        let message = text.parse::<Reference>().unwrap_err().to_string();
        assert!(!message.chars().any(|c| c.is_control() || c == '\u{202e}'), "{message:?}");
        assert!(message.len() < 1000, "{} bytes: {message}", message.len());
    }
}

#[test]
fn tags_beside_an_image_are_named_as_the_specification_and_cosign_name_them() {
    let digest = Digest::sha256(b"");
    assert_eq!(Tag::referrers(&digest).as_str(), format!("sha256-{}", digest.hex()));
    assert_eq!(Tag::cosign(&digest, "sig").as_str(), format!("sha256-{}.sig", digest.hex()));
    let long = Digest::of(crate::oci::Algorithm::Sha512, b"");
    assert!(Tag::referrers(&long).as_str().parse::<Tag>().is_ok());
}

#[test]
fn only_the_exact_tag_of_a_companion_names_a_subject() {
    let digest = Digest::sha256(b"");
    let tag = |suffix: &str| format!("sha256-{}{suffix}", digest.hex()).parse::<Tag>().unwrap();
    for suffix in ["", ".sig", ".att", ".sbom"] {
        assert_eq!(tag(suffix).companion_subject(), Some(digest), "{suffix}");
    }
    assert_eq!((tag("").cosign_subject(), tag(".sig").referrers_subject()), (None, None));
    for other in [tag(".sig.old").as_str(), tag("-1").as_str(), "sha256-12.sig", "sha256-12", "1.0.sig", "latest"] {
        assert_eq!(other.parse::<Tag>().unwrap().companion_subject(), None, "{other}");
    }
}

#[test]
fn signatures_attestations_and_referrers_of_any_subject_are_lists() {
    for subject in [Digest::sha256(b"m"), Digest::of(crate::oci::Algorithm::Sha512, b"m")] {
        let is = |suffix: &str| Tag::cosign(&subject, suffix).is_signature_list();
        assert!(is("sig") && is("att") && !is("sbom"));
        assert!(Tag::referrers(&subject).is_referrers_list() && !Tag::referrers(&subject).is_signature_list());
    }
    for other in ["1.0.sig", "sha256-12.sig", "sha256-12", "latest", "1.0"] {
        assert!(!other.parse::<Tag>().unwrap().is_list(), "{other}");
    }
}
