use std::collections::HashMap;

use proptest::prelude::*;

use super::super::layout::HeldDigests;
use super::super::volume_metadata::own_files;
use super::*;
use crate::bundle::SUMS;
use crate::bundle::fileset::KnownFile;
use crate::bundle::volumes::VolumeJson;

fn blob(number: usize) -> String {
    Digest::sha256(&number.to_be_bytes()).blob_path()
}

/// A bundle with blobs of these sizes.
fn wanted(sizes: &[u64], limit: u64, recovery: u32) -> SetRequest {
    let metadata = [("oci-layout", 30), ("bundle.json", 2_000), ("index.json", 700), (SUMS, 500)];
    let files = sizes.iter().enumerate().map(|(at, size)| (blob(at), *size));
    SetRequest {
        metadata: metadata.map(|(path, size)| (path.to_owned(), size)).to_vec(),
        manifests: vec![(blob(1_000_000), 900)],
        files: std::iter::once(("tools/x".to_owned(), 640)).chain(files).collect(),
        limit,
        recovery,
    }
}

/// Every byte of every file is in exactly one volume, and what is cut is cut for a reason.
fn check(wanted: &SetRequest, set: &SetPlan) {
    let mut pieces: HashMap<&str, Vec<(u32, &Held)>> = HashMap::new();
    for volume in &set.volumes {
        assert!(volume.length <= wanted.limit, "{} bytes in {}", volume.length, wanted.limit);
        assert_eq!(volume.of as usize, set.volumes.len());
        let tar = volume.tar().unwrap();
        assert_eq!(tar.length, volume.length);
        for held in &volume.files {
            pieces.entry(&held.path).or_default().push((volume.number, held));
            let placed = tar.files.iter().find(|file| file.path == held.stored_path());
            assert_eq!(placed.map(|file| file.size), Some(held.size));
        }
        for (path, size) in wanted.metadata.iter().chain(&wanted.manifests) {
            assert!(tar.files.iter().any(|file| file.path == *path && file.size == *size));
        }
    }
    for (path, size) in &wanted.files {
        let pieces = &pieces[path.as_str()];
        if let [(_, whole)] = pieces[..] {
            assert_eq!((whole.size, whole.cut), (*size, None));
            continue;
        }
        let mut at = 0;
        for (order, (volume, held)) in pieces.iter().enumerate() {
            let cut = held.cut.unwrap();
            assert_eq!((cut.number as usize, cut.of as usize, cut.first), (order + 1, pieces.len(), at));
            assert_eq!(*volume, pieces[0].0 + order as u32, "one volume after the other");
            let is_last = order + 1 == pieces.len();
            assert!(held.size > 0 && (is_last || held.size.is_multiple_of(512)));
            at += held.size;
        }
        assert_eq!(at, *size);
        let alone = SetRequest { files: vec![(path.clone(), *size)], recovery: 0, ..wanted.clone() };
        assert!(
            set.recovery > 0 || SetPlan::new(&alone).unwrap().volumes.len() > 1,
            "{path} would have fitted into one"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_volume_exceeds_its_size_and_every_byte_is_in_one(
        sizes in prop::collection::vec(prop_oneof![0..2_000_u64, 0..200_000_u64, 0..1_000_000_u64], 0..30),
        limit in 40_000..1_000_000_u64,
        recovery in 0..3_u32,
    ) {
        let wanted = wanted(&sizes, limit, recovery);
        match SetPlan::new(&wanted) {
            Ok(set) => {
                check(&wanted, &set);
                prop_assert_eq!(SetPlan::new(&wanted).unwrap(), set);
            }
            // The description of a thousand volumes does not fit into a small recovery volume.
            Err(_) => prop_assert!(limit < 300_000 && recovery > 0, "{} bytes are enough", limit),
        }
    }
}

#[test]
fn a_size_that_is_too_small_is_refused_with_the_smallest_that_is_not() {
    for recovery in [0, 2] {
        for sizes in [&[10, 5_000_000, 300][..], &[1; 40], &[]] {
            let refused = SetPlan::new(&wanted(sizes, 600, recovery)).unwrap_err().to_string();
            let least = refused.split("size is ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
            let smallest = wanted(sizes, least, recovery);
            check(&smallest, &SetPlan::new(&smallest).unwrap());
            assert!(SetPlan::new(&wanted(sizes, least - 1, recovery)).is_err(), "{sizes:?}: {refused}");
        }
    }
}

#[test]
fn a_file_that_fills_a_volume_to_its_last_byte_is_not_cut_and_one_byte_more_is() {
    let length = |size| SetPlan::new(&wanted(&[size], u64::MAX / 4, 0)).unwrap().volumes[0].length;
    let fat32 = 4_294_967_295_u64;
    // Whole blocks: the largest tar on FAT32 is 511 bytes smaller than the largest file.
    let largest = (1..).map(|step| fat32 - step * 512).find(|size| length(*size) <= fat32).unwrap();
    let plan = |size, limit| SetPlan::new(&wanted(&[size], limit, 0)).unwrap();
    let most = (largest..largest + 2_048).take_while(|size| length(*size) <= fat32).last().unwrap();
    assert_eq!(plan(most, fat32).volumes.len(), 1);
    for more in [1, 512, fat32, 10 * fat32] {
        let set = plan(most + more, fat32);
        check(&wanted(&[most + more], fat32, 0), &set);
        assert!(set.volumes.len() > 1);
    }
    // Numbers that are not known yet leave little slack.
    assert!(fat32 - plan(10 * fat32, fat32).volumes[1].length < 4_096);
}

#[test]
fn small_files_fill_the_gaps_that_large_ones_left_and_a_cut_one_does_not_begin_in_a_gap() {
    let set = SetPlan::new(&wanted(&[600_000, 600_000, 300_000, 100, 2_000_000, 50], 1_000_000, 0)).unwrap();
    let held: Vec<Vec<u64>> =
        set.volumes.iter().map(|volume| volume.files.iter().map(|held| held.size).collect()).collect();
    assert_eq!(held[0][..], [640, 600_000, 300_000, 100, 50]);
    assert_eq!(held[1][0], 600_000);
    assert!(held[1].len() == 2 && held[1][1] < 400_000, "a third of a volume is worth beginning in: {held:?}");
    let set = SetPlan::new(&wanted(&[950_000, 2_000_000], 1_000_000, 0)).unwrap();
    assert_eq!(set.volumes[0].files.len(), 2, "a twentieth is not: {set:?}");
}

#[test]
fn there_are_never_more_volumes_than_a_name_can_number() {
    let refused = SetPlan::new(&wanted(&[1 << 40], 64 << 10, 0)).unwrap_err().to_string();
    assert!(refused.contains("there can be at most 9999"), "{refused}");
    let set = SetPlan::new(&wanted(&[1 << 32], 600_000, 0)).unwrap();
    assert!(set.volumes.len() > 999);
    assert!(set.volumes[0].tar().unwrap().files.iter().any(|file| file.path == "volumes/0001.json"));
    assert!(set.volumes[0].files[1].stored_path().ends_with(".0001"));
}

#[test]
fn what_a_volume_says_of_itself_has_the_length_that_was_planned() {
    let wanted = wanted(&[3_000_000, 10], 1_500_000, 1);
    let set = SetPlan::new(&wanted).unwrap();
    let known = |held: &Held| {
        let bytes = vec![7; usize::try_from(held.size).unwrap()];
        let chunks = crate::content::chunks::Chunks::of(&bytes);
        HeldDigests { sha256: Digest::sha256(&bytes), chunks }
    };
    let common: Vec<KnownFile> = wanted
        .metadata
        .iter()
        .chain(&wanted.manifests)
        .map(|(path, size)| KnownFile { path: path.clone(), bytes: crate::spool::Kept::new(&vec![1; *size as usize]) })
        .collect();
    for volume in &set.volumes {
        let known: Vec<_> = volume.files.iter().map(known).collect();
        let own = own_files(&set, volume, Digest::sha256(b"x"), &common, &known).unwrap();
        let json = VolumeJson::parse(&own[0].1, &own[0].0, 1_000).unwrap();
        assert_eq!((json.number, json.of, json.recovery, json.limit), (volume.number, volume.of, 1, 1_500_000));
        let lines = String::from_utf8(own[2].1.clone()).unwrap();
        assert_eq!(
            lines.lines().count(),
            volume.tar().unwrap().files.len() - 1,
            "every file but the sums themselves: {lines}"
        );
    }
}

#[test]
fn a_set_with_more_volumes_than_it_says_or_one_that_takes_too_long_is_given_up() {
    let wanted = wanted(&[900_000; 40], 1_000_000, 1);
    let number = u32::try_from(SetPlan::new(&wanted).unwrap().volumes.len()).unwrap();
    let held = |volumes, steps| SetPlan::held(&wanted, &mut Effort { volumes, steps });
    assert_eq!(held(number, 100_000).map(|held| held.len()), Some(number as usize));
    assert_eq!(held(number - 1, u64::MAX), None);
    assert_eq!(held(number, 4_000), None);
}
