use super::*;

fn volume() -> VolumeJson {
    let blob = |text: &[u8]| Digest::sha256(text).blob_path();
    let segment = Segment { number: 2, of: 3, first: 512, size: 1_024, sha256: Digest::ZEROS };
    VolumeJson {
        gapferry_volume: 1,
        identity: Digest::sha256(b"bundle"),
        number: 3,
        of: 7,
        recovery: 2,
        limit: 1 << 20,
        files: vec![
            VolumeFile { path: blob(b"a"), blake3: [0; 32].into(), segment: Some(Box::new(segment)) },
            VolumeFile { path: blob(b"b"), blake3: [0; 32].into(), segment: None },
            VolumeFile { path: "tools/x".to_owned(), blake3: [0; 32].into(), segment: None },
        ],
    }
}

fn refused(json: &VolumeJson) -> String {
    VolumeJson::parse(&json.to_bytes().unwrap(), "volumes/003.json", 3).unwrap_err().chain()
}

#[test]
fn what_a_volume_says_of_itself_is_read_as_it_was_written() {
    let volume = volume();
    let bytes = volume.to_bytes().unwrap();
    assert_eq!(VolumeJson::parse(&bytes, "volumes/003.json", 3).unwrap(), volume);
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains("\"segment\": 2,") && text.contains("\"segments\": 3,") && text.ends_with("}\n"), "{text}");
    assert_eq!(text.matches("\"size\"").count(), 1, "of a whole file bundle.json says it: {text}");
}

#[test]
fn a_volume_that_lists_far_more_than_it_has_is_refused_before_it_is_read() {
    let message = |file: &str, number: usize, entries: usize| {
        let files = vec![file; number].join(",");
        let json = serde_json::to_string(&VolumeJson { files: Vec::new(), ..volume() }).unwrap();
        let json = json.replace("\"files\":[]", &format!("\"files\":[{files}]"));
        VolumeJson::parse(json.as_bytes(), "volumes/003.json", entries).unwrap_err().chain()
    };
    let (file, segment) = (r#"{"path":"","blake3":""}"#, r#"{"path":"","blake3":"","segment":1}"#);
    for (file, number) in [(file, 220_000), (segment, 70_000)] {
        assert!(message(file, number, 3).contains(&format!("lists {number} files in ")), "{file}");
        assert!(!message(file, number, number).contains("more than"), "{file}");
    }
    assert!(!message(file, 150_000, 3).contains("more than"), "as many files as a bundle may have");
    let long = format!(r#"{{"path":"{}","blake3":""}}"#, "x".repeat(90 << 20));
    assert!(message(&long, 1, 3).contains("more than"));
}

#[test]
fn a_forged_volume_is_refused_before_it_is_used() {
    type Forge = fn(&mut VolumeJson);
    let forged: [(Forge, &str); 13] = [
        (|v| v.gapferry_volume = 2, "version 2"),
        (|v| v.number = 0, "is impossible"),
        (|v| v.number = 8, "is impossible"),
        (|v| v.of = 10_000, "is impossible"),
        (|v| v.recovery = u32::MAX, "is impossible"),
        (|v| v.limit = u64::MAX, "is impossible"),
        (|v| v.files[1].path = "blobs/sha256/../../etc/passwd".to_owned(), "cannot be a file of a volume"),
        (|v| v.files[1].path = "index.json".to_owned(), "cannot be a file of a volume"),
        (|v| v.files[1].path = "tools/../../etc/passwd".to_owned(), "cannot be a file of a volume"),
        (|v| v.files[1].path = v.files[0].path.clone(), "comes twice"),
        (|v| v.files[0].segment.as_mut().unwrap().number = 4, "is an impossible segment"),
        (|v| v.files[0].segment.as_mut().unwrap().first = 0, "impossible range of bytes"),
        (|v| v.files[0].segment.as_mut().unwrap().first = u64::MAX, "impossible range of bytes"),
    ];
    for (forge, says) in forged {
        let mut volume = volume();
        forge(&mut volume);
        let message = refused(&volume);
        assert!(message.contains(says), "{says}: {message}");
    }
    let text = String::from_utf8(volume().to_bytes().unwrap()).unwrap();
    for key in ["blake3", "sha256"] {
        for digits in ["A".repeat(64), "0".repeat(63)] {
            let forged =
                text.replace(&format!("\"{key}\": \"{}\"", "0".repeat(64)), &format!("\"{key}\": \"{digits}\""));
            let message = VolumeJson::parse(forged.as_bytes(), "x", 3).unwrap_err().chain();
            assert!(
                message.contains("expected 64 lower-case hexadecimal digits at line "),
                "{key} {digits}: {message}"
            );
        }
    }
    for (from, to) in [("\"segments\": 3,", ""), ("\"limit\"", "\"more\": 1, \"limit\""), ("{", "[")] {
        let parsed = VolumeJson::parse(text.replacen(from, to, 1).as_bytes(), "x", 3);
        assert!(parsed.is_err_and(|error| error.kind() == crate::base::error::Kind::Damaged), "{from}");
    }
}

#[test]
fn a_forged_recovery_volume_is_refused_before_it_is_used() {
    let whole = WholeVolume { size: 1_000, sha256: Digest::ZEROS };
    let good = RecoveryJson {
        gapferry_recovery: 1,
        identity: Digest::sha256(b"bundle"),
        created: Timestamp::UNIX_EPOCH,
        number: 1,
        of: 2,
        limit: 4_096,
        shard: 1_024,
        volumes: vec![whole.clone(); 3],
    };
    let parse = |json: &RecoveryJson| RecoveryJson::parse(&json.to_bytes().unwrap(), "volumes/r01.json");
    assert_eq!(parse(&good).unwrap(), good);
    type Forge = fn(&mut RecoveryJson);
    let forged: [Forge; 8] = [
        |r| r.gapferry_recovery = 9,
        |r| r.number = 3,
        |r| r.shard = 1_000,
        |r| r.shard = 1_088,
        |r| r.limit = 1_023,
        |r| r.volumes[1].size = u64::MAX,
        |r| r.volumes.clear(),
        |r| r.volumes[1].size = 1_025,
    ];
    for (at, forge) in forged.into_iter().enumerate() {
        let mut json = good.clone();
        forge(&mut json);
        assert!(parse(&json).is_err(), "{at}");
    }
    // The BLAKE3 of all volumes are kept in memory.
    let of_size = |size: u64| RecoveryJson {
        limit: size,
        shard: size,
        volumes: vec![WholeVolume { size, ..whole }; 1],
        ..good.clone()
    };
    assert!(parse(&of_size(4 << 40)).is_ok() && parse(&of_size(5 << 40)).is_err());
    let text = String::from_utf8(good.to_bytes().unwrap()).unwrap();
    let forged = text.replacen(&"0".repeat(64), "", 1);
    assert!(
        RecoveryJson::parse(forged.as_bytes(), "x").unwrap_err().chain().contains("64 lower-case hexadecimal digits")
    );
}

proptest::proptest! {
    #[test]
    fn nothing_that_a_medium_can_hold_makes_the_readers_fall_over(text: String) {
        let _ = VolumeJson::parse(text.as_bytes(), "x", 3);
        let _ = RecoveryJson::parse(text.as_bytes(), "x");
    }
}
