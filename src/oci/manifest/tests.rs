use super::*;

fn parse(json: &str, served_as: Option<&str>) -> Result<Manifest, ManifestError> {
    Manifest::parse(Bytes::copy_from_slice(json.as_bytes()), served_as, None)
}

const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn config_then_layers_in_their_own_order() {
    let json = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"{}","digest":"{D}","size":0}},
        "layers":[{{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"{D}","size":0,"urls":["https://x/"]}},
        {{"mediaType":"x/y","digest":"{D}","size":7}}]}}"#,
        media_type::DOCKER_CONFIG
    );
    let manifest = parse(&json, None).unwrap();
    assert_eq!(manifest.media_type(), media_type::DOCKER_MANIFEST);
    let roles: Vec<Role> = manifest.children().iter().map(|c| c.role).collect();
    assert_eq!(roles, [Role::Config, Role::ForeignLayer, Role::Layer]);
}

#[test]
fn a_descriptor_says_the_type_of_a_manifest_that_does_not_say_it_itself() {
    let config = |t: &str| format!(r#""config":{{"mediaType":"{t}","digest":"{D}","size":0}},"layers":[]"#);
    let plain = format!("{{{}}}", config("x/y"));
    let says = format!(r#"{{"mediaType":"{}",{}}}"#, media_type::OCI_MANIFEST, config("x/y"));
    let described = |json: &str, t: &str| parse(json, None).unwrap().described_as(t).unwrap();
    assert_eq!(described(&plain, media_type::DOCKER_MANIFEST).media_type(), media_type::DOCKER_MANIFEST);
    assert_eq!(described(&plain, media_type::DOCKER_MANIFEST).digest(), Digest::sha256(plain.as_bytes()));
    assert_eq!(described(&says, media_type::DOCKER_MANIFEST).media_type(), media_type::OCI_MANIFEST);
    let of_oci = format!("{{{}}}", config(media_type::OCI_CONFIG));
    assert_eq!(described(&of_oci, media_type::DOCKER_MANIFEST).media_type(), media_type::OCI_MANIFEST);
    for other in [media_type::OCI_INDEX, media_type::OCI_ARTIFACT, "x/y", ""] {
        assert_eq!(described(&plain, other).media_type(), media_type::OCI_MANIFEST, "{other}");
    }
}

#[test]
fn a_manifest_listed_as_a_layer_is_refused_because_its_content_would_be_lost() {
    let descriptor = |t: &str| format!(r#"{{"mediaType":"{t}","digest":"{D}","size":7}}"#);
    for kind in [media_type::OCI_MANIFEST, media_type::OCI_INDEX, media_type::DOCKER_MANIFEST, media_type::DOCKER_LIST]
    {
        let (blob, manifest) = (descriptor("x/y"), descriptor(kind));
        for json in [
            format!(r#"{{"config":{blob},"layers":[{blob},{manifest}]}}"#),
            format!(r#"{{"config":{manifest},"layers":[]}}"#),
            format!(r#"{{"mediaType":"{}","blobs":[{manifest}]}}"#, media_type::OCI_ARTIFACT),
        ] {
            let message = parse(&json, None).unwrap_err().to_string();
            assert!(message.contains(&format!("it lists the manifest {D} as a layer")), "{json}: {message}");
        }
    }
}

#[test]
fn what_one_manifest_may_hold_is_limited_and_the_error_says_which_limit() {
    let one = format!(r#"{{"mediaType":"x/y","digest":"{D}","size":0}}"#);
    let layers = |number: usize| {
        let layers = vec![one.as_str(); number].join(",");
        parse(&format!(r#"{{"config":{one},"layers":[{layers}]}}"#), None)
    };
    assert_eq!(layers(MOST_CHILDREN - 1).unwrap().children().len(), MOST_CHILDREN);
    let message = layers(MOST_CHILDREN).unwrap_err().to_string();
    assert!(message.contains("20001 layers or manifests; the limit is 20000"), "{message}");

    let with = |field: &str, length: usize| {
        let long = "x".repeat(length);
        let field = field.replace('$', &long);
        parse(&format!(r#"{{"config":{{"digest":"{D}","size":0,{field}}},"layers":[]}}"#), None)
    };
    for (field, most, what) in [
        (r#""mediaType":"$""#, 255, "media type"),
        (r#""artifactType":"$""#, 255, "artifact type"),
        (r#""platform":{"os":"$","architecture":""}"#, 255, "platform"),
        (r#""urls":["$"]"#, 4096, "URL"),
        (r#""annotations":{"dev.cosignproject.cosign/signature":"$"}"#, 16384, "annotation"),
    ] {
        assert!(with(field, most).is_ok(), "{field}");
        let message = with(field, most + 1).unwrap_err().to_string();
        assert!(message.contains(&format!("the {what} that starts with")), "{message}");
        assert!(message.contains(&format!("{} bytes; the limit is {most}", most + 1)), "{message}");
    }
    assert!(with(r#""annotations":{"other":"$"}"#, 100_000).is_ok(), "what is not read is not limited");
}

#[test]
fn an_error_does_not_repeat_all_that_a_manifest_says() {
    let long = "x".repeat(100_000);
    let config = format!(r#""config":{{"digest":"{D}","size":0}},"layers":[]"#);
    for json in [
        format!(r#"{{"mediaType":"{long}",{config}}}"#),
        format!(r#"{{"schemaVersion":"{long}",{config}}}"#),
        format!(r#"{{"config":{{"digest":"{long}","size":0}},"layers":[]}}"#),
        format!(r#"{{"config":{{"digest":"{D}","size":"{long}"}},"layers":[]}}"#),
        format!(r#"{{"config":{{"mediaType":"{long}","digest":"{D}","size":0}},"layers":[]}}"#),
    ] {
        let message = parse(&json, None).unwrap_err().to_string();
        assert!(message.len() < 1000, "{} bytes: {}", message.len(), &message[..200]);
    }
}

#[test]
fn an_html_page_with_status_200_is_not_a_manifest() {
    let error = parse("<html>Bad gateway</html>", Some("text/html")).unwrap_err();
    assert!(matches!(&error, ManifestError::Malformed { start, .. } if start == "<html>Bad gateway</html>"), "{error}");
}

#[test]
fn what_a_manifest_says_of_itself_counts_more_than_what_it_was_served_as() {
    let json = format!(r#"{{"mediaType":"{}","manifests":[]}}"#, media_type::OCI_INDEX);
    for served_as in [media_type::OCI_INDEX, media_type::DOCKER_LIST, "application/octet-stream"] {
        assert_eq!(parse(&json, Some(served_as)).unwrap().media_type(), media_type::OCI_INDEX, "{served_as}");
    }
    // A reader that uses the served type would read something else.
    let served_as = Some(media_type::OCI_MANIFEST);
    assert!(matches!(parse(&json, served_as), Err(ManifestError::MediaTypeConflict { .. })));
}

#[test]
fn an_image_that_is_an_index_to_others_is_refused() {
    let one = format!(r#"{{"mediaType":"x/y","digest":"{D}","size":0}}"#);
    let json = format!(r#"{{"config":{one},"layers":[],"manifests":[{one}]}}"#);
    for served_as in [None, Some(media_type::OCI_MANIFEST), Some(media_type::OCI_INDEX)] {
        assert!(matches!(parse(&json, served_as), Err(ManifestError::Ambiguous(_))), "{served_as:?}");
    }
    let message = parse(&format!(r#"{{"config":{one},"layers":[],"Manifests":[]}}"#), None).unwrap_err().to_string();
    assert!(message.contains("\"Manifests\" differs from \"manifests\" only in case"), "{message}");
}

#[test]
fn null_lists_are_empty_lists() {
    let one = format!(r#"{{"mediaType":"x/y","digest":"{D}","size":0}}"#);
    let image = parse(&format!(r#"{{"config":{one},"layers":null,"annotations":null}}"#), None).unwrap();
    assert_eq!(image.children().len(), 1);
    let index = parse(r#"{"manifests":null}"#, Some(media_type::OCI_INDEX)).unwrap();
    assert!(index.children().is_empty());
}

#[test]
fn schema1_and_empty_objects_are_refused() {
    assert!(matches!(parse(r#"{"schemaVersion":1}"#, None), Err(ManifestError::Schema1)));
    assert!(matches!(parse("{}", None), Err(ManifestError::Malformed { .. })));
    assert!(matches!(parse("{}", Some(media_type::OCI_MANIFEST)), Err(ManifestError::Malformed { .. })));
}

#[test]
fn a_flipped_bit_is_found() {
    let wrong = Digest::sha256(b"other");
    let error = Manifest::parse(Bytes::from_static(b"{}"), None, Some(&wrong)).unwrap_err();
    assert!(matches!(error, ManifestError::Digest { .. }));
}
