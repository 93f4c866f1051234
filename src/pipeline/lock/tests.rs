use super::*;

#[test]
fn a_lock_survives_its_file() {
    let lock = Lock {
        version: Lock::VERSION,
        created: "2026-11-21T04:00:00Z".parse().unwrap(),
        load_platform: Some("linux/arm64".parse().unwrap()),
        images: vec![LockedImage {
            reference: "nginx:1.27".parse().unwrap(),
            rename: Some(Rename::try_from("base/nginx:1.27".to_owned()).unwrap()),
            source: "docker.io".into(),
            digest: Digest::sha256(b"m"),
            media_type: crate::oci::media_type::OCI_INDEX.into(),
            size: 1,
            total_size: 3,
            platforms: vec!["linux/amd64".parse().unwrap()],
            selection: None,
            absent: vec![],
            attached: Some(vec![]),
            attached_unknown: false,
        }],
        missing: vec![],
    };
    assert!(!lock.to_json().contains("missing"), "the bytes of a lock that has all are as ever");
    assert_eq!(Lock::parse(lock.to_json().as_bytes(), "x").unwrap(), lock);
    let newer = lock.to_json().replace("\"version\": 1", "\"version\": 2");
    let message = Lock::parse(newer.as_bytes(), "x.lock").unwrap_err().to_string();
    assert_eq!(message, "reading the lock x.lock: version 2; this program reads version 1");
}

#[test]
fn an_image_of_a_lock_is_found_by_its_line_however_the_file_is_laid_out() {
    let entry = |name: &str| format!(r#"{{"reference" : "{name}", "source":"r.io"}}"#);
    let (a, b) = (entry("r.io/a:1"), entry(r"r.io\/b:1"));
    let shown = |text: &str, name: &str| written(text.as_bytes(), "l.lock").shown(&name.parse().unwrap());
    for (text, line) in [(format!("[{a},{b}]"), 1), (format!("[\n{a},\r\n{b}\n]"), 3), (format!("[{a},\n\n\n{b}]"), 4)]
    {
        assert_eq!(shown(&text, "r.io/b:1"), format!("r.io/b:1 (l.lock:{line})"), "{text}");
    }
    for odd in [r#"{"reference":1}"#, r#"{"reference""#, r#"{"x":"\"reference\":\"r.io/b:1\""}"#, ""] {
        assert_eq!(shown(odd, "r.io/b:1"), "r.io/b:1", "{odd}");
    }
}

#[test]
fn a_lock_tells_images_that_have_no_signature_from_those_that_were_not_looked_up() {
    let lock = |attached: &str| {
        let digest = Digest::sha256(b"m");
        let image = format!(
            r#"{{"reference":"r.io/a:1","source":"r.io","digest":"{digest}","mediaType":"x","size":1,"totalSize":1{attached}}}"#
        );
        let text = format!(r#"{{"version":1,"created":"2026-11-21T04:00:00Z","images":[{image}]}}"#);
        Lock::parse(text.as_bytes(), "x").unwrap()
    };
    let (none, unknown) = (lock(r#","attached":[]"#), lock(""));
    assert!(none.images[0].attached.is_some() && unknown.images[0].attached.is_none());
    assert!(none.to_json().contains("attached") && !unknown.to_json().contains("attached"));
    assert_eq!(none.images[0].companions(), unknown.images[0].companions());
}

/// A lock that `lock` writes today must be readable by `export --locked` tomorrow.
#[test]
fn a_lock_that_could_not_be_read_again_is_not_written() {
    let digest = Digest::sha256(b"x");
    let image = format!(
        r#"{{"reference":"r.io/a:1","source":"r.io","digest":"{digest}","mediaType":"x","size":1,"totalSize":1}}"#
    );
    let text = format!(r#"{{"version":1,"created":"2026-11-21T04:00:00Z","images":[{image}]}}"#);
    let mut lock = Lock::parse(text.as_bytes(), "x").unwrap();
    assert_eq!(lock.to_file().unwrap(), lock.to_json());
    lock.images[0].source = "s".repeat(usize::try_from(MAX_LOCK).unwrap());
    let message = lock.to_file().unwrap_err().to_string();
    assert!(message.contains("the lock has at most") && message.contains("split the allowlist"), "{message}");
    assert!(Lock::parse(lock.to_json().as_bytes(), "x").is_err());
}

#[test]
fn a_lock_that_would_take_all_memory_is_refused_before_it_is_read() {
    let refused = |text: &[u8]| Lock::parse(text, "x.lock").unwrap_err().to_string();
    let start = br#"{"version":1,"created":"2026-11-21T04:00:00Z","images":["#;
    // Many short values, and one long value: each limit counts alone.
    let many = [&start[..], "1,".repeat(Lock::MAX_VALUES + 1).as_bytes(), b"1]}"].concat();
    let large = [&start[..], b"\"", &vec![b'x'; usize::try_from(MAX_LOCK).unwrap()], b"\"]}"].concat();
    for text in [many, large] {
        let message = refused(&text);
        assert!(message.contains("the lock has at most") && message.contains("split the allowlist"), "{message}");
    }
    assert!(!refused(&[&start[..], b"1]}"].concat()).contains("at most"));
}

#[test]
fn a_companion_refers_to_the_subject_that_its_manifest_names() {
    let (image, other) = (Digest::sha256(b"image"), Digest::sha256(b"other"));
    let companion = |tag: Option<Tag>| Attached {
        digest: Digest::sha256(b"signature"),
        media_type: crate::oci::media_type::OCI_MANIFEST.into(),
        size: 1,
        subject: image,
        tag,
        artifact_type: None,
    };
    let (tagged, untagged) = (companion(Some(Tag::cosign(&image, "sig"))), companion(None));
    for one in [&tagged, &untagged] {
        assert!(one.fault(true, Some(image)).is_none());
        assert!(one.fault(true, Some(other)).is_some(), "a registry would list it for the other image");
        assert!(one.fault(false, Some(image)).is_some());
    }
    assert!(tagged.fault(true, None).is_none() && untagged.fault(true, None).is_some());
}

#[test]
fn a_lock_that_gives_two_companions_of_an_image_one_tag_is_refused() {
    let image = Digest::sha256(b"image");
    let companion = |content: &[u8]| {
        let (digest, tag) = (Digest::sha256(content), Tag::cosign(&image, "sig"));
        format!(r#"{{"digest":"{digest}","mediaType":"x","size":1,"subject":"{image}","tag":"{tag}"}}"#)
    };
    let lock = |two: [&[u8]; 2]| {
        let attached = two.map(companion).join(",");
        let images = format!(
            r#"{{"reference":"r.io/a:1","source":"r.io","digest":"{image}","mediaType":"x","size":1,"totalSize":1,"attached":[{attached}]}}"#
        );
        Lock::parse(format!(r#"{{"version":1,"created":"2026-11-21T04:00:00Z","images":[{images}]}}"#).as_bytes(), "x")
    };
    let (new, old, tag) = (Digest::sha256(b"new"), Digest::sha256(b"old"), Tag::cosign(&image, "sig"));
    let message = format!("reading the lock x: r.io/a:1 (x:1): its companions {new} and {old} both have the tag {tag}");
    assert_eq!(lock([b"new", b"old"]).unwrap_err().to_string(), message);
    assert!(lock([b"new", b"new"]).is_ok());
}

#[test]
fn a_new_name_that_is_no_name_is_refused() {
    assert!(Rename::try_from("Base/nginx".to_owned()).is_err());
    assert!(Rename::try_from("a@sha256:00".to_owned()).is_err());
    assert!(Rename::try_from("../x".to_owned()).is_err());
}
