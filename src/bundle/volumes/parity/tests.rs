use std::fs;

use proptest::prelude::*;

use super::*;

/// Files of these sizes, and their parities.
struct Fixture {
    directory: tempfile::TempDir,
    sizes: Vec<u64>,
    parities: usize,
    length: u64,
}

fn noise(seed: u64, size: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..size).map(|_| next()).collect()
}

impl Fixture {
    fn new(sizes: &[u64], parities: usize) -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let length = sizes.iter().max().unwrap().next_multiple_of(UNIT).max(UNIT);
        let fixture = Fixture { directory, sizes: sizes.to_vec(), parities, length };
        for (k, size) in sizes.iter().enumerate() {
            fs::write(fixture.path(ShardId::Original(k)), noise(k as u64 + 1, *size)).unwrap();
        }
        let originals = fixture.originals(&[]);
        let parities = (0..fixture.parities).map(|_| Shard { size: length, place: None }).collect();
        let targets: Vec<ShardTarget> = (0..fixture.parities).map(|n| fixture.target(ShardId::Parity(n), "")).collect();
        let shards = Shards::new(originals, parities, length).unwrap();
        let computed = shards.compute(&targets, &|_| ()).unwrap();
        for (which, digests) in (0..sizes.len()).map(ShardId::Original).zip(&computed.originals) {
            assert_eq!(digests.as_ref(), Some(&print(&fixture.bytes(which))), "{which:?}");
        }
        for (which, digests) in (0..fixture.parities).map(ShardId::Parity).zip(&computed.parities) {
            assert_eq!(digests.as_ref(), Some(&print(&fixture.bytes(which))), "{which:?}");
        }
        fixture
    }

    fn path(&self, which: ShardId) -> PathBuf {
        self.directory.path().join(format!("{which:?}"))
    }

    fn bytes(&self, which: ShardId) -> Vec<u8> {
        fs::read(self.path(which)).unwrap()
    }

    fn place(&self, which: ShardId) -> ShardPlace {
        ShardPlace::new(&self.path(which), 0, None)
    }

    fn target(&self, which: ShardId, suffix: &str) -> ShardTarget {
        let mut path = self.path(which).into_os_string();
        path.push(suffix);
        let path = PathBuf::from(path);
        ShardTarget { which, file: File::create(&path).unwrap().into(), path, offset: 0 }
    }

    /// All originals except the lost ones.
    fn originals(&self, lost: &[ShardId]) -> Vec<Shard> {
        let place = |which| (!lost.contains(&which)).then(|| self.place(which));
        let shard = |(k, size): (usize, &u64)| Shard { size: *size, place: place(ShardId::Original(k)) };
        self.sizes.iter().enumerate().map(shard).collect()
    }

    fn shards(&self, lost: &[ShardId]) -> Shards {
        let place = |which| (!lost.contains(&which)).then(|| self.place(which));
        let parities = (0..self.parities).map(|n| Shard { size: self.length, place: place(ShardId::Parity(n)) });
        Shards::new(self.originals(lost), parities.collect(), self.length).unwrap()
    }

    fn is_restored(&self, shards: &Shards, lost: &[ShardId]) {
        let targets: Vec<ShardTarget> = lost.iter().map(|which| self.target(*which, ".new")).collect();
        let computed = shards.compute(&targets, &|_| ()).unwrap();
        for target in targets {
            let (found, whole) = (fs::read(&target.path).unwrap(), self.bytes(target.which));
            assert!(found == whole, "{:?} is not what it was", target.which);
            let digests = match target.which {
                ShardId::Original(k) => &computed.originals[k],
                ShardId::Parity(n) => &computed.parities[n],
            };
            assert_eq!(digests.as_ref(), Some(&print(&whole)));
        }
    }
}

fn print(bytes: &[u8]) -> VolumeDigests {
    let mebibytes = bytes.chunks(MEBIBYTE as usize).map(|bytes| *blake3::hash(bytes).as_bytes()).collect();
    VolumeDigests { sha256: Digest::sha256(bytes), mebibytes }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn lost_volumes_are_restored_bit_for_bit_if_enough_parity_is_left(
        sizes in proptest::collection::vec(0_u64..5_000, 1..12),
        parities in 1_usize..8,
        order in proptest::collection::vec(any::<proptest::sample::Index>(), 8),
    ) {
        let fixture = Fixture::new(&sizes, parities);
        let mut all: Vec<ShardId> = (0..sizes.len()).map(ShardId::Original).chain((0..parities).map(ShardId::Parity)).collect();
        let mut lost = Vec::new();
        for index in order.iter().take(parities.min(all.len())) {
            let at = index.index(all.len());
            lost.push(all.swap_remove(at));
            fixture.is_restored(&fixture.shards(&lost), &lost);
        }
    }
}

#[test]
fn volumes_longer_than_a_stripe_and_a_mebibyte_are_restored() {
    let mebibyte = MEBIBYTE;
    let fixture = Fixture::new(&[3 * mebibyte + 7, 2 * mebibyte, 5, 3 * mebibyte + 64], 2);
    for lost in [[ShardId::Original(0), ShardId::Original(1)], [ShardId::Original(3), ShardId::Parity(0)]] {
        fixture.is_restored(&fixture.shards(&lost), &lost);
    }
}

#[test]
fn many_small_files_take_little_memory_and_are_restored() {
    let sizes: Vec<u64> = (0..600).map(|at| at * 3).collect();
    let fixture = Fixture::new(&sizes, 3);
    let lost = [ShardId::Original(599), ShardId::Original(300), ShardId::Parity(1)];
    fixture.is_restored(&fixture.shards(&lost), &lost);
}

#[test]
fn one_loss_more_than_parity_covers_is_refused_and_nothing_is_written() {
    let fixture = Fixture::new(&[1_000, 2_000, 3_000], 2);
    let lost = [ShardId::Original(0), ShardId::Original(1), ShardId::Original(2)];
    let shards = fixture.shards(&lost);
    assert_eq!(shards.lacking(), 1);
    let target = fixture.target(ShardId::Original(0), ".new");
    let error = shards.compute(&[target], &|_| ()).unwrap_err();
    assert_eq!(error.kind(), crate::base::error::Kind::Damaged);
    assert_eq!(fs::read(fixture.path(ShardId::Original(0)).with_extension("new")).unwrap(), b"");
}

#[test]
fn every_disc_may_have_a_scratch_if_the_scratches_do_not_overlap() {
    let fixture = Fixture::new(&[4 * MEBIBYTE, 4 * MEBIBYTE - 9, 3 * MEBIBYTE + 1], 1);
    let scratched = |which, size: u64, bad: u64| {
        let mut bytes = fixture.bytes(which);
        bytes[usize::try_from(bad * MEBIBYTE).unwrap()] ^= 1;
        let path = fixture.path(which).with_extension("bad");
        fs::write(&path, bytes).unwrap();
        let good = (0..size.div_ceil(MEBIBYTE)).map(|at| at != bad).collect();
        Shard { size, place: Some(ShardPlace::new(&path, 0, Some(good))) }
    };
    let all = [ShardId::Original(0), ShardId::Original(1), ShardId::Original(2), ShardId::Parity(0)];
    let originals = |bad: [u64; 3]| -> Vec<Shard> {
        (0..3).map(|k| scratched(ShardId::Original(k), fixture.sizes[k], bad[k])).collect()
    };
    let parity = || vec![scratched(ShardId::Parity(0), fixture.length, 3)];
    let shards = Shards::new(originals([0, 1, 2]), parity(), fixture.length).unwrap();
    fixture.is_restored(&shards, &all);
    let shards = Shards::new(originals([0, 1, 3]), parity(), fixture.length).unwrap();
    assert_eq!(shards.lacking(), 1);
}
