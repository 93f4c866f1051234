//! Version ranges as in `images-by-semver`: the grammar of Masterminds/semver v3.
//!
//! ```text
//! range      = group *( "||" group )                 any group
//! group      = comparator *( ( space | "," ) comparator )   all of them
//! comparator = [ operator ] version | version " - " version
//! operator   = "=" "!=" ">" "<" ">=" "=>" "<=" "=<" "~" "~>" "^"
//! version    = [ "v" ] number [ "." number [ "." number ] ] [ "-" prerelease ] [ "+" build ]; a number may be x, X or *
//! ```
//! A version with fewer than three numbers, or with a wildcard, stands for every version that starts with it: `=1.2`
//! and `1.2` are `~1.2`, `>11` needs 12, `<=1.2` includes 1.2.9, `!=1.2` excludes every 1.2. `^` keeps the first number
//! that is not zero. Tags are parsed leniently, with a leading `v`, one to three numbers, and leading zeros; so
//! `20240101` is a version, and is in `>=3.12`. A tag with a prerelease (`3.19-alpine`) is in a group only if some
//! comparator of that group has one.
//!
//! Differences from Masterminds: expressions that it accepts and that cannot make sense (`!=*`, `>*`, `<*`, `<=*`) are
//! errors, and `^*` is any version, as its documentation says.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use semver::{BuildMetadata, Prerelease, Version};

/// Maximum length of a range in bytes.
const MAX_LENGTH: usize = 4096;

/// A set of versions. It prints as it was written.
#[derive(Clone, Debug)]
pub struct VersionRange {
    written: String,
    groups: Vec<Group>,
}

/// Comparators that must all match.
#[derive(Clone, Debug)]
struct Group {
    comparators: Vec<Comparator>,
    takes_prereleases: bool,
}

#[derive(Clone, Debug)]
struct Comparator {
    operator: Operator,
    precision: Precision,
    /// Numbers that were not written are 0.
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
    Tilde,
    Caret,
}

/// How many numbers of a version were written before the first wildcard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Precision {
    Any,
    Major,
    Minor,
    Full,
}

/// Why a text is not a version range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid version range {text:?}: {reason}")]
pub struct RangeError {
    text: String,
    reason: String,
}

impl PartialEq for VersionRange {
    fn eq(&self, other: &VersionRange) -> bool {
        self.written == other.written
    }
}

impl Eq for VersionRange {}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl VersionRange {
    /// Whether the tag, parsed leniently, is a version in the range.
    pub fn contains_tag(&self, tag: &str) -> bool {
        parse_tag(tag).is_some_and(|version| self.contains(&version))
    }

    /// Whether the version is in the range. Build metadata does not count.
    pub fn contains(&self, version: &Version) -> bool {
        self.groups.iter().any(|group| group.contains(version))
    }
}

impl Group {
    fn contains(&self, version: &Version) -> bool {
        (version.pre.is_empty() || self.takes_prereleases)
            && self.comparators.iter().all(|comparator| comparator.admits(version))
    }
}

impl Comparator {
    fn admits(&self, other: &Version) -> bool {
        let order = other.cmp_precedence(&self.version);
        match self.operator {
            Operator::Equal if self.precision == Precision::Full => order == Ordering::Equal,
            Operator::Equal | Operator::Tilde => order != Ordering::Less && self.is_near(other),
            Operator::NotEqual => self.differs(other, order),
            Operator::Greater => {
                order == Ordering::Greater && (self.precision == Precision::Full || self.passes(other))
            }
            Operator::Less => order == Ordering::Less,
            Operator::GreaterOrEqual => order != Ordering::Less,
            Operator::LessOrEqual if self.precision == Precision::Full => order != Ordering::Greater,
            Operator::LessOrEqual => !self.passes(other),
            Operator::Caret => order != Ordering::Less && self.is_compatible(other),
        }
    }

    /// Whether the written numbers are equal; the last of three may differ.
    fn is_near(&self, other: &Version) -> bool {
        let own = &self.version;
        // `~0.0.0` is any version: a documented exception of Masterminds.
        let zero = (own.major, own.minor, own.patch) == (0, 0, 0) && self.precision == Precision::Full;
        zero || self.begins(other, self.precision.min(Precision::Minor))
    }

    /// Whether the first numbers are equal.
    fn begins(&self, other: &Version, numbers: Precision) -> bool {
        let own = &self.version;
        (numbers < Precision::Major || own.major == other.major)
            && (numbers < Precision::Minor || own.minor == other.minor)
            && (numbers < Precision::Full || own.patch == other.patch)
    }

    /// Whether `other` is beyond every version that an unfinished version stands for.
    fn passes(&self, other: &Version) -> bool {
        let own = &self.version;
        match self.precision {
            Precision::Any => false,
            Precision::Major => other.major > own.major,
            Precision::Minor | Precision::Full => (other.major, other.minor) > (own.major, own.minor),
        }
    }

    fn differs(&self, other: &Version, order: Ordering) -> bool {
        match self.precision {
            Precision::Full => order != Ordering::Equal,
            // Masterminds compares prereleases here, and not for `!=1`: `!=1.2` includes 1.2.3-rc1 if prereleases are
            // included.
            Precision::Minor => !self.begins(other, Precision::Minor) || self.version.pre != other.pre,
            Precision::Any | Precision::Major => !self.begins(other, self.precision),
        }
    }

    /// Whether the numbers are equal up to the first that is not zero, as far as written.
    fn is_compatible(&self, other: &Version) -> bool {
        let own = &self.version;
        let significant = match (own.major, own.minor) {
            (0, 0) => Precision::Full,
            (0, _) => Precision::Minor,
            _ => Precision::Major,
        };
        self.begins(other, significant.min(self.precision))
    }
}

impl FromStr for VersionRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<VersionRange, RangeError> {
        let fail = |reason: String| RangeError { text: text.chars().take(200).collect(), reason };
        if text.len() > MAX_LENGTH {
            return Err(fail(format!("longer than {MAX_LENGTH} bytes")));
        }
        let groups = text.split("||").map(parse_group).collect::<Result<_, _>>().map_err(fail)?;
        Ok(VersionRange { written: text.trim().to_owned(), groups })
    }
}

fn parse_group(text: &str) -> Result<Group, String> {
    let mut comparators = Vec::new();
    let mut rest = text.trim_start();
    if rest.is_empty() {
        return Err("a version is missing; `*` means any".into());
    }
    loop {
        rest = parse_comparator(rest, &mut comparators)?;
        let after_space = rest.trim_start();
        if after_space.is_empty() {
            break;
        }
        match after_space.strip_prefix(',') {
            Some(after_comma) => rest = after_comma.trim_start(),
            None if after_space.len() < rest.len() => rest = after_space,
            None => return Err(format!("expected a space or a comma before {:?}", excerpt(rest))),
        }
    }
    let takes_prereleases = comparators.iter().any(|comparator| !comparator.version.pre.is_empty());
    Ok(Group { comparators, takes_prereleases })
}

/// Parses one comparator, or the two that a hyphen range stands for. Returns the rest.
fn parse_comparator<'a>(text: &'a str, comparators: &mut Vec<Comparator>) -> Result<&'a str, String> {
    let (operator, rest) = split_operator(text);
    let (first, rest) = parse_version(rest.trim_start())?;
    let upper = rest.strip_prefix(char::is_whitespace).and_then(|rest| {
        rest.trim_start().strip_prefix('-').filter(|rest| rest.starts_with(char::is_whitespace)).map(str::trim_start)
    });
    let Some(upper) = upper else {
        comparators.push(comparator(operator.unwrap_or(Operator::Equal), first)?);
        return Ok(rest);
    };
    if operator.is_some() {
        return Err("a hyphen range takes no operator".into());
    }
    let (last, rest) = parse_version(upper)?;
    comparators.push(comparator(Operator::GreaterOrEqual, first)?);
    comparators.push(comparator(Operator::LessOrEqual, last)?);
    Ok(rest)
}

/// A version as written, perhaps incomplete.
struct Written {
    precision: Precision,
    version: Version,
}

fn comparator(operator: Operator, Written { precision, version }: Written) -> Result<Comparator, String> {
    let meaningless =
        matches!(operator, Operator::NotEqual | Operator::Greater | Operator::Less | Operator::LessOrEqual);
    if precision == Precision::Any && meaningless {
        return Err("this operator needs a number, not a wildcard".into());
    }
    Ok(Comparator { operator, precision, version })
}

fn split_operator(text: &str) -> (Option<Operator>, &str) {
    const OPERATORS: [(&str, Operator); 11] = [
        ("!=", Operator::NotEqual),
        (">=", Operator::GreaterOrEqual),
        ("=>", Operator::GreaterOrEqual),
        ("<=", Operator::LessOrEqual),
        ("=<", Operator::LessOrEqual),
        ("~>", Operator::Tilde),
        ("=", Operator::Equal),
        (">", Operator::Greater),
        ("<", Operator::Less),
        ("~", Operator::Tilde),
        ("^", Operator::Caret),
    ];
    for (written, operator) in OPERATORS {
        if let Some(rest) = text.strip_prefix(written) {
            return (Some(operator), rest);
        }
    }
    (None, text)
}

/// Parses a version of a range at the start of `text`. Returns the rest.
fn parse_version(text: &str) -> Result<(Written, &str), String> {
    let end = text.find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    if word.is_empty() {
        return Err("a version is missing".into());
    }
    let version = parse_word(word, true).ok_or_else(|| format!("{:?} is not a version", excerpt(word)))?;
    Ok((version, rest))
}

/// A tag parsed as a version: `v1.2`, `01.2.3`, `20240101`, `3.19-alpine`.
fn parse_tag(tag: &str) -> Option<Version> {
    parse_word(tag, false).map(|written| written.version)
}

fn parse_word(word: &str, wildcards: bool) -> Option<Written> {
    let word = word.strip_prefix('v').unwrap_or(word);
    let (word, build) = word.split_once('+').map_or((word, None), |(word, build)| (word, Some(build)));
    let (numbers, pre) = word.split_once('-').map_or((word, None), |(word, pre)| (word, Some(pre)));
    if build.is_some_and(|build| build.is_empty() || BuildMetadata::new(build).is_err()) {
        return None;
    }
    let pre = match pre {
        None => Prerelease::EMPTY,
        Some("") => return None,
        Some(pre) => Prerelease::new(pre).ok()?,
    };
    let mut values = [0; 3];
    let mut written = 0;
    let mut open = false;
    for (index, part) in numbers.split('.').enumerate() {
        let place = values.get_mut(index)?;
        if wildcards && matches!(part, "x" | "X" | "*") {
            open = true;
            continue;
        }
        let number = number(part)?;
        if !open {
            *place = number;
            written = index + 1;
        }
    }
    let precision = *[Precision::Any, Precision::Major, Precision::Minor, Precision::Full].get(written)?;
    let [major, minor, patch] = values;
    let version = Version { major, minor, patch, pre, build: BuildMetadata::EMPTY };
    Some(Written { precision, version })
}

fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|c| c.is_ascii_digit()) { None } else { text.parse().ok() }
}

fn excerpt(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests;
