//! Parses sizes and numbers of volumes.

use crate::base::progress::units::parse_bytes;

/// Help for `--volume-size`.
pub const SIZES: &str = "\
Maximum size of a volume in bytes, including all overhead

SIZE is a number of bytes, a number with kB, MB, GB (powers of 1000) or KiB, MiB, GiB (powers of 1024), or the \
medium that each volume must fit on: fat32 (its largest file, 4294967295 bytes), cd (80 minutes), dvd, bd, bd-dl. On \
discs, 4 MiB are reserved for the file system, which is enough for UDF and ISO 9660. bd and bd-dl assume discs \
formatted with their usual spare area. On ISO 9660, volumes for a dvd or larger need level 3 (mkisofs -iso-level 3).";

/// Largest file on FAT32: its size has 32 bits.
const FAT32: u64 = u32::MAX as u64;
/// Bytes per sector of a disc.
const SECTOR: u64 = 2_048;
/// Sectors reserved for the file system: UDF needs one bit per sector of the disc (1,444 sectors on a bd-dl), ISO 9660 about
/// two hundred with its padding.
const FILE_SYSTEM: u64 = 2_048;

/// Media and the largest file that fits on them. Sectors: of a CD as dvdisaster assumes; of a DVD+R, because a DVD-R has more;
/// of a BD formatted with its default spare area (`READ FORMAT CAPACITIES` of MMC, type 00h), as burning programs do.
const MEDIA: [(&str, u64); 5] = [
    ("fat32", FAT32),
    ("cd", (359_424 - FILE_SYSTEM) * SECTOR),
    ("dvd", (2_295_104 - FILE_SYSTEM) * SECTOR),
    ("bd", (11_826_176 - FILE_SYSTEM) * SECTOR),
    ("bd-dl", (23_652_352 - FILE_SYSTEM) * SECTOR),
];

/// Parses a size in bytes.
///
/// # Errors
/// The text is neither a number of bytes nor a medium.
pub fn parse(text: &str) -> Result<u64, String> {
    match MEDIA.iter().find(|(name, _)| *name == text) {
        Some((_, size)) => Ok(*size),
        None => parse_bytes(text).map_err(|error| format!("{error}; or name a medium: fat32, cd, dvd, bd, bd-dl")),
    }
}

/// Parses the number of a volume.
///
/// # Errors
/// The text is not a number, or it names a recovery volume.
pub fn parse_number(text: &str) -> Result<u32, String> {
    if text.strip_prefix('r').is_some_and(|digits| digits.parse::<u32>().is_ok()) {
        let text = "a recovery volume is made of all the others: beside them, run the same command without --only-volume (what is \
                    there and whole stays), or `gapferry repair` where another recovery volume is left";
        return Err(text.to_owned());
    }
    text.parse().map_err(|_| "it is no number of a volume".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_for_a_medium_fits_on_it() {
        let size = |text| parse(text).unwrap();
        assert_eq!(size("fat32"), 4_294_967_295);
        assert_eq!((size("64KiB"), size("700MB"), size("123456789")), (65_536, 700_000_000, 123_456_789));
        for (medium, capacity) in
            [("cd", 737_280_000), ("dvd", 4_700_372_992), ("bd", 24_220_008_448_u64), ("bd-dl", 48_440_016_896)]
        {
            let left = capacity - size(medium);
            assert!((4 << 20..8 << 20).contains(&left) && size(medium).is_multiple_of(2_048), "{medium}: {left} left");
        }
        assert!(parse("floppy").unwrap_err().contains("or name a medium"));
    }
}
