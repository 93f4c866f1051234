use proptest::prelude::*;

use super::*;

/// A list as cosign writes it; each signature is a payload and a key.
fn list(signatures: &[(u8, u8)]) -> Manifest {
    list_with(signatures, "")
}

fn list_with(signatures: &[(u8, u8)], more: &str) -> Manifest {
    let layers: Vec<Value> = signatures
        .iter()
        .map(|(payload, key)| {
            json!({"mediaType": LAYERS[0], "size": 1, "digest": Digest::sha256(&[*payload]), "annotations": {SIGNATURE: format!("by {key}")}})
        })
        .collect();
    manifest(&format!(r#","layers":{}{more}"#, Value::Array(layers)))
}

fn manifest(more: &str) -> Manifest {
    let config = json!({"mediaType": media_type::OCI_CONFIG, "digest": Digest::sha256(b"c"), "size": 1});
    let text = format!(r#"{{"schemaVersion":2,"mediaType":"{}","config":{config}{more}}}"#, media_type::OCI_MANIFEST);
    Manifest::parse(text.into_bytes().into(), None, None).unwrap()
}

fn keys(manifest: &Manifest) -> Vec<Key> {
    List::read(manifest).unwrap().layers.iter().map(|(_, layer)| key(layer)).collect()
}

fn joined(theirs: &Manifest, ours: &Manifest) -> Joined {
    match merge(theirs, ours).unwrap() {
        Merge::Join(joined) => joined,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_list_that_has_all_of_the_other_is_the_one_that_stays() {
    let (one, two) = (list(&[(1, 1)]), list(&[(1, 1), (1, 2)]));
    assert!(matches!(merge(&two, &one).unwrap(), Merge::KeepTheirs));
    assert!(matches!(merge(&one, &two).unwrap(), Merge::TakeOurs { added: 1 }));
    assert!(
        matches!(merge(&list(&[]), &one).unwrap(), Merge::TakeOurs { added: 1 }),
        "all signatures were removed there"
    );
}

#[test]
fn a_list_contains_what_it_was_before_and_no_other() {
    let of = |signatures: &[(u8, u8)]| Signatures::of(&list(signatures));
    let now = of(&[(1, 1), (1, 2)]).unwrap();
    assert!(now.contain(&of(&[(1, 1)]).unwrap()) && !now.contain(&of(&[(1, 1), (1, 3)]).unwrap()));
    assert!(of(&[]).is_none(), "every list would contain it");
    let layer = json!({"mediaType": "a/b", "size": 1, "digest": Digest::sha256(b"l")});
    assert!(Signatures::of(&manifest(&format!(r#","layers":[{layer}]"#))).is_none(), "an image");
}

#[test]
fn the_same_payload_signed_by_another_key_is_another_signature() {
    let both = joined(&list(&[(1, 1)]), &list(&[(1, 2)]));
    assert_eq!((both.kept, both.added), (1, 1));
    assert_eq!(keys(&both.manifest).len(), 2);
}

#[test]
fn a_joined_list_is_written_as_cosign_does() {
    let more = r#","annotations":{"made":"there"}"#;
    let both = joined(&list_with(&[(1, 1)], more), &list(&[(2, 2)]));
    let value: Value = serde_json::from_slice(&both.manifest.bytes().unwrap()).unwrap();
    assert_eq!(value["annotations"]["made"], "there", "what else is in their manifest stays");
    assert_eq!(value["config"]["digest"], Digest::sha256(&both.config).to_string());
    let (one, two) = (Digest::sha256(&[1]), Digest::sha256(&[2]));
    let expected = format!(
        r#"{{"architecture":"","created":"0001-01-01T00:00:00Z","history":[{{"created":"0001-01-01T00:00:00Z"}},{{"created":"0001-01-01T00:00:00Z"}}],"os":"","rootfs":{{"type":"layers","diff_ids":["{one}","{two}"]}},"config":{{}}}}"#
    );
    assert_eq!(both.config, expected);
}

#[test]
fn what_is_no_list_of_signatures_is_neither_joined_nor_replaced() {
    let ours = list(&[(1, 1)]);
    let index = format!(r#"{{"mediaType":"{}","manifests":[]}}"#, media_type::OCI_INDEX);
    let index = Manifest::parse(index.into_bytes().into(), None, None).unwrap();
    assert!(matches!(merge(&index, &ours), Err(NotMerged::Theirs(_))));
    let image =
        manifest(&format!(r#","layers":[{{"mediaType":"a/tar","digest":"{}","size":1}}]"#, Digest::sha256(b"x")));
    assert!(matches!(merge(&image, &ours), Err(NotMerged::Theirs(_))));
    assert!(matches!(merge(&ours, &image), Err(NotMerged::Ours(_))));
    let hidden = format!(r#"{{"mediaType":"{}","layers":[],"Layers":[{{}}]}}"#, media_type::OCI_MANIFEST);
    assert!(Manifest::parse(hidden.into_bytes().into(), None, None).is_err(), "Go would see signatures in it");
    let many = list_with(&[(2, 2)], &format!(r#","x":[{}0]"#, "0,".repeat(MAX_VALUES)));
    assert!(matches!(merge(&many, &ours), Err(NotMerged::Theirs(_))));
    let filled = |length: usize| list_with(&[(2, 2)], &format!(r#","x":"{}""#, "x".repeat(length)));
    let large = filled((MAX_MANIFEST_SIZE - filled(0).size()) as usize);
    assert!(matches!(merge(&large, &ours), Err(NotMerged::TooLarge(_))));
}

fn referrers(entries: &[u8]) -> Manifest {
    let entries = entries
        .iter()
        .map(|entry| json!({"mediaType": media_type::OCI_MANIFEST, "digest": Digest::sha256(&[*entry]), "size": 1}));
    let entries: Vec<Value> = entries.collect();
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries, "annotations": {"made": "x"}});
    Manifest::parse(index.to_string().into_bytes().into(), None, None).unwrap()
}

#[test]
fn a_list_of_referrers_loses_no_entry_either() {
    assert!(matches!(merge(&referrers(&[1, 2]), &referrers(&[1])).unwrap(), Merge::KeepTheirs));
    assert!(matches!(merge(&referrers(&[1]), &referrers(&[2, 1])).unwrap(), Merge::TakeOurs { added: 1 }));
    let both = joined(&referrers(&[1, 2]), &referrers(&[2, 3]));
    assert_eq!((both.kept, both.added), (2, 1));
    assert_eq!(both.manifest.bytes().unwrap(), referrers(&[1, 2, 3]).bytes().unwrap());
    assert!(matches!(merge(&list(&[]), &referrers(&[1])), Err(NotMerged::NoIndex(_))));
}

proptest! {
    #[test]
    fn nothing_is_lost_nothing_is_double_and_merging_again_changes_nothing(
        theirs in prop::collection::vec((0..4_u8, 0..4_u8), 0..8),
        ours in prop::collection::vec((0..4_u8, 0..4_u8), 0..8),
    ) {
        let (theirs, ours) = (list(&theirs), list(&ours));
        let after = match merge(&theirs, &ours).unwrap() {
            Merge::KeepTheirs => theirs.clone(),
            Merge::TakeOurs { .. } => ours.clone(),
            Merge::Join(joined) => {
                let all = keys(&joined.manifest);
                prop_assert_eq!(&all[..joined.kept], &keys(&theirs)[..], "theirs come first, in their order");
                prop_assert_eq!(all.len(), joined.kept + joined.added);
                let added: HashSet<&Key> = all[joined.kept..].iter().collect();
                prop_assert_eq!(added.len(), joined.added);
                prop_assert_eq!(Digest::sha256(&joined.config), joined.manifest.config().unwrap().digest);
                joined.manifest
            }
        };
        let all: HashSet<Key> = keys(&after).into_iter().collect();
        prop_assert!(keys(&theirs).iter().chain(&keys(&ours)).all(|key| all.contains(key)));
        let again = merge(&after, &ours).unwrap();
        prop_assert!(matches!(again, Merge::KeepTheirs), "{again:?}");
        // The other side, once it has the result, has everything too.
        let back = merge(&theirs, &after).unwrap();
        prop_assert!(!matches!(back, Merge::Join(_)), "{back:?}");
    }
}
