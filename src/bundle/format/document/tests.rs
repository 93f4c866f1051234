use super::*;

/// A document with these parents, files and time, as the program writes it.
fn written(version: u32, parents: &str, files: &[(&str, Digest)], created: &str) -> String {
    let sum = Digest::sha256(b"1");
    let all = [OCI_LAYOUT, INDEX_JSON, DOCKER_JSON].map(|path| (path, sum));
    let entry = |(path, digest): &(&str, Digest)| {
        format!("    {{\n      \"path\": \"{path}\",\n      \"size\": 1,\n      \"digest\": \"{digest}\"\n    }}")
    };
    let files = all.iter().chain(files).map(entry).collect::<Vec<String>>().join(",\n");
    format!(
        r#"{{
  "gapferryBundle": {version},
  "parents": {parents},
  "assumed": [],
  "removed": [],
  "lock": {{
    "version": 1,
    "created": "{created}",
    "images": []
  }},
  "files": [
{files}
  ]
}}
"#
    )
}

const TIME: &str = "2026-11-21T00:00:00Z";

fn parse(text: &str) -> std::result::Result<BundleJson, String> {
    BundleJson::parse(text.as_bytes(), "bundle.json").map_err(|error| error.chain())
}

#[test]
fn another_format_is_refused_and_so_is_a_parent_nobody_knows_the_meaning_of() {
    let parents = |parent: &str| written(1, &format!("[\n    {{\n      {parent}\n    }}\n  ]"), &[], TIME);
    assert!(parse(&written(1, "[]", &[], TIME)).is_ok());
    assert!(parse(&parents("\"kind\": \"inventory\",\n      \"target\": \"r.io/mirror\"")).is_ok());
    assert!(parse(&parents("\"kind\": \"rumour\"")).unwrap_err().contains("unknown variant"));
    let error = parse(&parents("\"kind\": \"receipt\",\n      \"more\": 1")).unwrap_err();
    assert!(error.contains("unknown field `more`"), "{error}");
    assert!(parse(&written(2, "[]", &[], TIME)).unwrap_err().contains("format 2"));
}

/// Otherwise two programs could read one bundle differently, and two writers of the same contents would produce two
/// identities.
#[test]
fn only_the_bytes_that_the_values_give_are_a_bundle_json() {
    let good = written(1, "[]", &[], TIME);
    for (from, to) in [
        ("  \"removed\"", " \"removed\""),
        ("\n}\n", "\n}"),
        ("\n}\n", "\n}\n\n"),
        ("\"removed\": [],\n", ""),
        ("00:00Z", "00:00+00:00"),
        ("\"gapferryBundle\": 1", "\"gapferryBundle\": 1.0"),
        ("\"version\"", "\"\\u0076ersion\""),
        ("manifest.json", "other.json"),
        ("\"index.json\"", "\"tools/x\""),
    ] {
        assert_ne!(good.replace(from, to), good, "{from}");
        assert!(parse(&good.replace(from, to)).is_err(), "{from} as {to}");
    }
    let moved = good.replace("  \"parents\": [],\n  \"assumed\": [],\n", "  \"assumed\": [],\n  \"parents\": [],\n");
    assert!(parse(&moved).unwrap_err().contains("not in the exact form of format 1"));
    // An unknown key is named, also in the OCI types, which have other keys.
    let image = |platform: &str| {
        let (digest, media_type) = (Digest::sha256(b"1"), crate::oci::media_type::OCI_MANIFEST);
        let keys = [
            r#""reference": "registry.test/a:1""#.to_owned(),
            r#""source": "registry.test""#.to_owned(),
            format!(r#""digest": "{digest}""#),
            format!(r#""mediaType": "{media_type}""#),
            r#""size": 1"#.to_owned(),
            r#""totalSize": 1"#.to_owned(),
            format!("\"platforms\": [\n          {{\n            {platform}\n          }}\n        ]"),
            r#""attached": []"#.to_owned(),
        ];
        let keys = keys.join(",\n        ");
        good.replace("\"images\": []", &format!("\"images\": [\n      {{\n        {keys}\n      }}\n    ]"))
    };
    let known = "\"os\": \"linux\",\n            \"architecture\": \"amd64\"";
    assert_eq!(parse(&image(known)).map(drop), Ok(()));
    let error = parse(&image(&format!("{known},\n            \"encoding\": \"zstd\""))).unwrap_err();
    assert!(error.contains("\\\"encoding\\\""), "{error}");
    let error = parse(&written(1, "[]", &[], "2026-11-21T00:00:00.5Z")).unwrap_err();
    assert!(error.contains("whole second"), "{error}");
    assert!(parse(&written(1, "[]", &[], "2242-03-16T12:56:31Z")).is_ok());
    assert!(parse(&written(1, "[]", &[], "2242-03-16T12:56:32Z")).unwrap_err().contains("between 1970 and 2242"));
}

#[test]
fn a_digest_that_is_not_that_of_the_path_is_refused_and_so_are_other_sums_of_sha512() {
    let message = |path: &str, digest| parse(&written(1, "[]", &[(path, digest)], TIME)).map(drop);
    let (one, long) = (Digest::sha256(b"1"), Digest::of(Algorithm::Sha512, b"1"));
    assert_eq!(message(&one.blob_path(), one), Ok(()));
    assert_eq!(message("tools/x", one), Ok(()));
    let twice = parse(&written(1, "[]", &[(&*one.blob_path(), one); 2], TIME));
    assert!(twice.unwrap_err().contains("is listed twice"));
    for path in ["index.json", "../x", "tools/../x", "/blobs/x", "chunks.b3", "SHA256SUMS", "x"] {
        let error = message(path, one).unwrap_err();
        assert!(error.contains("cannot be a file of a bundle") || error.contains("out of order"), "{path}: {error}");
    }
    for (path, digest) in
        [(one.blob_path(), Digest::sha256(b"2")), ("blobs/sha256/x".to_owned(), one), ("tools/x".to_owned(), long)]
    {
        assert!(message(&path, digest).unwrap_err().contains("cannot have the digest"), "{path}");
    }
    assert!(message(&long.blob_path(), long).unwrap_err().contains("SHA512SUMS does not match its files"));
    assert!(message("SHA512SUMS", one).unwrap_err().contains("SHA512SUMS does not match its files"));
}

#[test]
fn what_a_version_before_0_2_has_written_is_named_as_such() {
    let good = written(1, "[]", &[], TIME);
    let file = format!("{{\"path\":\"a\",\"size\":1,\"sha256\":\"{0}\",\"blake3\":\"{0}\"}}", "0".repeat(64));
    for old in [
        good.replace("  \"parents\"", "  \"tool\": \"gapferry 0.1.0\",\n  \"parents\""),
        good.replace("  \"parents\"", "  \"created\": \"2026-11-21T00:00:00Z\",\n  \"parents\""),
        good.replace(
            "    {\n      \"path\": \"oci-layout\"",
            &format!("    {file},\n    {{\n      \"path\": \"oci-layout\""),
        ),
    ] {
        let error = BundleJson::parse(old.as_bytes(), "bundle.json").unwrap_err();
        assert_eq!(error.kind(), crate::base::error::Kind::Input);
        assert_eq!(error.find(), Some(&OtherVersion { found: 0, known: FORMAT_VERSION }));
        assert!(error.chain().contains("written by a version before 0.2: export it again"), "{}", error.chain());
    }
}

/// It comes across the gap: a forged one must not use up the memory of the machine that reads it.
#[test]
fn platforms_that_an_image_was_asked_for_are_counted_too() {
    let check = |number| {
        let platforms = vec!["{}"; number].join(",");
        let json = format!(
            r#"{{"gapferryBundle":1,"lock":{{"images":[{{"selection":{{"platforms":[{platforms}]}}}}]}},"files":[]}}"#
        );
        BundleJson::check(json.as_bytes(), "bundle.json").map_err(|error| error.chain())
    };
    assert_eq!(check(5), Ok(()));
    assert!(check(1_900_000).unwrap_err().contains("more entries than a bundle can have"));
}

#[test]
fn a_few_images_of_many_layers_are_not_a_bundle_and_many_ordinary_images_are() {
    assert!(check_number(150_000, 5_000, 0).is_ok() && check_number(1_500_000, 50_000, 0).is_ok());
    let why = check_number(500_000, 5_000, 1 << 30).unwrap_err();
    assert!(why.contains("500000 files, more than 150000") && why.contains("make several bundles"), "{why}");
    // Each for six platforms, with ten layers, attestations and signatures: 110 files of 100 kB.
    assert!(check_number(5_000 * 110, 5_000, 5_000 * 110 * 100_000).is_ok());
    let file = format!(r#"{{"path":"blobs/x","size":0,"digest":"{}"}}"#, Digest::ZEROS);
    let json = format!(
        r#"{{"gapferryBundle":1,"parents":[],"assumed":[],"removed":[],
            "lock":{{"version":1,"created":"2026-11-21T00:00:00Z","images":[]}},"files":[{}]}}"#,
        vec![file; 151_001].join(",")
    );
    let error = BundleJson::parse(json.as_bytes(), "bundle.json").unwrap_err();
    assert!(error.chain().contains("more than 150000"), "{}", error.chain());
}
