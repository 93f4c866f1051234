//! The names of volumes and of the files in them.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::base::error::{Error, Result};
use crate::bundle::format::VOLUMES;

/// Minimum digits of a volume's number; all volumes of a set have as many as the last one needs.
const DIGITS: usize = 3;
/// Minimum digits of a recovery volume's number, after the `r`.
pub const RECOVERY_DIGITS: usize = 2;
/// Maximum digits of a number in a name.
const MOST_DIGITS: usize = 5;

/// A file of a set, by its number from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    Volume(u32),
    Recovery(u32),
}

impl Part {
    /// `003` or `r01`, for a set with `of` of its kind.
    pub fn label(self, of: u32) -> String {
        match self {
            Part::Volume(number) => padded(number, of, DIGITS),
            Part::Recovery(number) => format!("r{}", padded(number, of, RECOVERY_DIGITS)),
        }
    }

    /// `volumes/003.json`: its description.
    pub fn json(self, of: u32) -> String {
        format!("{VOLUMES}{}.json", self.label(of))
    }

    /// `volumes/003.b3`: BLAKE3 of every mebibyte of its content.
    pub fn chunks(self, of: u32) -> String {
        format!("{VOLUMES}{}.b3", self.label(of))
    }

    /// `volumes/003.sha256`: for `sha256sum -c`.
    pub fn sums(self, of: u32) -> String {
        format!("{VOLUMES}{}.sha256", self.label(of))
    }

    /// `volumes/r01.parity`.
    pub fn parity(self, of: u32) -> String {
        format!("{VOLUMES}{}.parity", self.label(of))
    }

    /// Parses a label.
    pub fn parse(label: &[u8]) -> Option<Part> {
        let (digits, least) = match label.strip_prefix(b"r") {
            Some(digits) => (digits, RECOVERY_DIGITS),
            None => (label, DIGITS),
        };
        if digits.len() < least || digits.len() > MOST_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let number = std::str::from_utf8(digits).ok()?.parse().ok().filter(|number| *number > 0)?;
        Some(if digits.len() == label.len() { Part::Volume(number) } else { Part::Recovery(number) })
    }
}

fn padded(number: u32, of: u32, least: usize) -> String {
    let digits = of.max(1).ilog10() as usize + 1;
    format!("{number:0width$}", width = digits.max(least))
}

/// The path in a tar of a file or segment: `blobs/…`, or `segments/…` for a segment. `None` for the whole file.
pub fn stored_path(path: &str, segment: Option<SegmentNumber>) -> String {
    let Some(SegmentNumber { number, of }) = segment else { return path.to_owned() };
    let name = path.strip_prefix("blobs/").unwrap_or(path);
    format!("segments/{name}.{}", padded(number, of, DIGITS))
}

/// The number of a segment, from 1, and the number of segments of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentNumber {
    pub number: u32,
    pub of: u32,
}

/// The common name of the files of a set: `DIR/NAME` of `DIR/NAME.003.tar`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SetName(PathBuf);

impl SetName {
    /// From an output name: `NAME.tar`, or `NAME` for short.
    pub fn of(out: &Path) -> SetName {
        let is_tar = out.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tar"));
        SetName(if is_tar { out.with_extension("") } else { out.to_owned() })
    }

    /// From one of the files; `None` if it does not have such a name.
    pub fn of_part(path: &Path) -> Option<(SetName, Part)> {
        let name = path.file_name()?.as_bytes();
        let stem = name.strip_suffix(b".tar")?;
        let dot = stem.iter().rposition(|byte| *byte == b'.').filter(|dot| *dot > 0)?;
        let part = Part::parse(&stem[dot + 1..])?;
        let base = OsString::from_vec(stem[..dot].to_vec());
        Some((SetName(path.with_file_name(base)), part))
    }

    /// Whether `path` has the name of a part of this set, in any directory.
    pub(super) fn has_part(&self, path: &Path) -> bool {
        SetName::of_part(path).is_some_and(|(found, _)| found.0.file_name() == self.0.file_name())
    }

    /// `NAME`, with its directory.
    pub fn base(&self) -> &Path {
        &self.0
    }

    /// `NAME.tar`: the name of the whole bundle.
    pub fn whole(&self) -> PathBuf {
        self.with(".tar")
    }

    /// `NAME.003.tar`, for a set with `of` of its kind.
    ///
    pub fn part(&self, part: Part, of: u32) -> PathBuf {
        self.with(&format!(".{}.tar", part.label(of)))
    }

    fn in_directory(&self, directory: &Path) -> SetName {
        SetName(directory.join(self.0.file_name().unwrap_or_default()))
    }

    /// The same name in the directory `out`, if given.
    ///
    /// # Errors
    /// It is not a directory.
    pub fn moved_to(self, out: Option<&Path>) -> Result<SetName> {
        match out {
            Some(out) if !out.is_dir() => Err(Error::input(format!("{} is not a directory", out.display()))),
            Some(out) => Ok(self.in_directory(out)),
            None => Ok(self),
        }
    }

    fn with(&self, suffix: &str) -> PathBuf {
        let mut name = self.0.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    }
}

/// A volume under its final name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WrittenVolume {
    #[serde(rename = "volume")]
    pub path: PathBuf,
    /// From 1.
    pub number: u32,
    #[serde(rename = "bytes")]
    pub size: u64,
    /// Whether it existed already and is unchanged.
    pub unchanged: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_sort_by_their_names_and_their_names_lead_back_to_the_set() {
        let set = SetName::of(Path::new("usb/images.v1.tar"));
        assert_eq!(set, SetName::of(Path::new("usb/images.v1.TAR")));
        for (part, of, name) in [
            (Part::Volume(3), 7, "usb/images.v1.003.tar"),
            (Part::Volume(3), 1_000, "usb/images.v1.0003.tar"),
            (Part::Volume(999), 999, "usb/images.v1.999.tar"),
            (Part::Recovery(1), 2, "usb/images.v1.r01.tar"),
            (Part::Recovery(100), 100, "usb/images.v1.r100.tar"),
        ] {
            assert_eq!(set.part(part, of), Path::new(name));
            assert_eq!(SetName::of_part(Path::new(name)), Some((set.clone(), part)));
        }
        assert_eq!(set.whole(), Path::new("usb/images.v1.tar"));
        assert_eq!(SetName::of(Path::new("disc")).part(Part::Volume(1), 1), Path::new("disc.001.tar"));
        for other in ["a.tar", "a.01.tar", "a.r1.tar", "a.000.tar", ".001.tar", "a.+01.tar", "a.001", "a.r001x.tar"] {
            assert_eq!(SetName::of_part(Path::new(other)), None, "{other}");
        }
    }

    #[test]
    fn what_is_in_a_volume_is_called_after_it_and_pieces_sort_by_their_names() {
        assert_eq!(Part::Volume(3).json(7), "volumes/003.json");
        assert_eq!(Part::Volume(3).chunks(7), "volumes/003.b3");
        assert_eq!(Part::Volume(3).sums(1_234), "volumes/0003.sha256");
        assert_eq!(Part::Recovery(3).parity(12), "volumes/r03.parity");
        let segment = SegmentNumber { number: 2, of: 11 };
        assert_eq!(stored_path("blobs/sha256/ab", Some(segment)), "segments/sha256/ab.002");
        assert_eq!(stored_path("tools/x", Some(segment)), "segments/tools/x.002");
        assert_eq!(stored_path("blobs/sha256/ab", None), "blobs/sha256/ab");
    }
}
