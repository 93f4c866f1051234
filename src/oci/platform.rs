//! Platforms: `os[(version)]/architecture[/variant]`, matched as containerd does (containerd `platforms`: `database.go`,
//! `compare.go`, `defaults_windows.go`).

use std::fmt;
use std::str::FromStr;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::object::{self, or_default};

/// The platform of an image, as in a descriptor of an index or in an image config.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Only for Windows: two children of an index may differ in nothing else.
    #[serde(rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid platform {0:?}: expected os/architecture or os/architecture/variant, such as linux/amd64, or a Windows \
     version such as windows(10.0.20348)/amd64"
)]
pub struct PlatformError(pub String);

/// The version of an architecture, comparable: `v8.2` is `(8, 2)`.
type Version = (u32, u32);

impl Platform {
    /// The most common platform of nodes.
    pub fn linux_amd64() -> Platform {
        Platform { os: "linux".to_owned(), architecture: "amd64".to_owned(), variant: None, os_version: None }
    }

    /// Whether it is `unknown/unknown`, as in Buildkit's attestations and some artifacts.
    pub fn is_unknown(&self) -> bool {
        let unknown = |text: &str| text.is_empty() || text == "unknown";
        unknown(&self.os) && unknown(&self.architecture)
    }

    /// Whether `offered`, in an index or a config, runs where `self` is requested.
    pub fn selects(&self, offered: &Platform) -> bool {
        self.fitness(offered).is_some()
    }

    /// How well `offered` fits where `self` is requested: higher is better, `None` means that it does not fit.
    ///
    /// A machine runs what was built for its own version of the architecture and for earlier ones: `linux/arm/v7` accepts v7,
    /// otherwise v6, otherwise v5. Without a variant `arm` means v7, `arm64` v8 and `amd64` v1. A requested `os.version` must
    /// be a prefix of the offered one: `10.0.20348` accepts every revision of that build.
    ///
    /// Unlike containerd (`platformVector`), `arm64` accepts nothing for `arm`, and `amd64` nothing for `386`: many arm64
    /// servers cannot run 32-bit programs, and it is better to report a missing platform here than to find out on a node. Both
    /// can be requested by name.
    pub fn fitness(&self, offered: &Platform) -> Option<Version> {
        let (asked, offered) = (self.normalized(), offered.normalized());
        let same = asked.os == offered.os && asked.architecture == offered.architecture;
        if !same || !version_fits(asked.os_version.as_deref(), offered.os_version.as_deref()) {
            return None;
        }
        let version = |platform: &Platform| version_of(&platform.architecture, platform.variant.as_deref());
        match (version(&asked), version(&offered)) {
            (Some(asked), Some(offered)) => (offered <= asked).then_some(offered),
            _ if asked.variant.is_none() || asked.variant == offered.variant => Some((0, 0)),
            _ => None,
        }
    }

    /// The items in `offered` that fit best where `self` is requested. Windows has several, one for each version of the
    /// system.
    pub fn best<'p, T: Copy>(&self, offered: impl Iterator<Item = (T, &'p Platform)>) -> Vec<T> {
        let fitting: Vec<(Version, T)> = offered.filter_map(|(it, has)| Some((self.fitness(has)?, it))).collect();
        let best = fitting.iter().map(|(fitness, _)| *fitness).max();
        fitting.into_iter().filter(|(fitness, _)| Some(*fitness) == best).map(|(_, it)| it).collect()
    }

    /// Its texts.
    pub(super) fn parts(&self) -> impl Iterator<Item = &str> {
        let optional = [&self.variant, &self.os_version].into_iter().flatten();
        [&self.os, &self.architecture].into_iter().chain(optional).map(String::as_str)
    }

    /// Normalizes other spellings of a platform (containerd `platforms/database.go`).
    fn normalized(&self) -> Platform {
        let lower = |text: &str| text.to_ascii_lowercase();
        let os = match lower(&self.os).as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let variant = self.variant.as_deref().map(lower).filter(|v| !v.is_empty());
        let (architecture, variant) = match (lower(&self.architecture).as_str(), variant.as_deref()) {
            ("x86_64" | "x86-64" | "amd64", v) => ("amd64", v.filter(|v| *v != "v1").map(str::to_owned)),
            ("i386" | "386", _) => ("386", None),
            ("aarch64" | "arm64", v) => ("arm64", v.filter(|v| !matches!(*v, "8" | "v8")).map(str::to_owned)),
            ("armhf", _) => ("arm", Some("v7".to_owned())),
            ("armel", _) => ("arm", Some("v6".to_owned())),
            ("arm", Some(v)) => ("arm", Some(if v.starts_with('v') { v.to_owned() } else { format!("v{v}") })),
            (other, v) => {
                return Platform {
                    os,
                    architecture: other.to_owned(),
                    variant: v.map(str::to_owned),
                    os_version: self.os_version.clone(),
                };
            }
        };
        Platform { os, architecture: architecture.to_owned(), variant, os_version: self.os_version.clone() }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.os)?;
        if let Some(version) = self.os_version.as_deref().filter(|version| !version.is_empty()) {
            write!(f, "({version})")?;
        }
        write!(f, "/{}", self.architecture)?;
        match self.variant.as_deref() {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

/// The version, for architectures whose versions each run what earlier ones run.
fn version_of(architecture: &str, variant: Option<&str>) -> Option<Version> {
    let usual = match architecture {
        "arm" => "v7",
        "arm64" => "v8",
        "amd64" => "v1",
        _ => return None,
    };
    let (major, minor) = match variant.unwrap_or(usual).strip_prefix('v')?.split_once('.') {
        Some((major, minor)) => (major, minor.parse().ok()?),
        None => (variant.unwrap_or(usual).strip_prefix('v')?, 0),
    };
    Some((major.parse().ok()?, minor))
}

fn version_fits(asked: Option<&str>, offered: Option<&str>) -> bool {
    let Some(asked) = asked.filter(|asked| !asked.is_empty()) else { return true };
    let rest = offered.and_then(|offered| offered.strip_prefix(asked));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

const KEYS: &[&str] = &["os", "architecture", "variant", "os.version"];

impl<'de> Deserialize<'de> for Platform {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Platform, D::Error> {
        deserializer.deserialize_map(PlatformVisitor)
    }
}

struct PlatformVisitor;

impl<'de> Visitor<'de> for PlatformVisitor {
    type Value = Platform;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a platform")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Platform, A::Error> {
        let mut platform = Platform { os: String::new(), architecture: String::new(), variant: None, os_version: None };
        object::read(map, KEYS, |key, map| {
            match KEYS.get(key).copied() {
                Some("os") => platform.os = or_default(map)?,
                Some("architecture") => platform.architecture = or_default(map)?,
                Some("variant") => platform.variant = map.next_value()?,
                _ => platform.os_version = map.next_value()?,
            }
            Ok(())
        })?;
        Ok(platform)
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    /// Parses `os/architecture[/variant]`. The version of the system is written as in containerd, `os(version)/architecture`,
    /// or after a colon at the end.
    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        let fail = || PlatformError(text.to_owned());
        let (rest, behind) = text.rsplit_once(':').map_or((text, None), |(rest, version)| (rest, Some(version)));
        let parts: Vec<&str> = rest.split('/').collect();
        let (os, within) = match parts.first().and_then(|os| os.strip_suffix(')')) {
            Some(os) => os.split_once('(').map(|(os, version)| (os, Some(version))).ok_or_else(fail)?,
            None => (parts.first().copied().unwrap_or_default(), None),
        };
        if !(2..=3).contains(&parts.len()) || (within.is_some() && behind.is_some()) {
            return Err(fail());
        }
        let version = within.or(behind);
        if !std::iter::once(os).chain(parts.iter().skip(1).copied()).chain(version).all(is_word) {
            return Err(fail());
        }
        Ok(Platform {
            os: os.to_owned(),
            architecture: parts.get(1).copied().unwrap_or_default().to_owned(),
            variant: parts.get(2).map(|v| (*v).to_owned()),
            os_version: version.map(str::to_owned),
        }
        .normalized())
    }
}

fn is_word(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn spellings_of_one_machine_select_each_other() {
        for (asked, offered) in [
            ("linux/amd64", "linux/x86_64"),
            ("linux/arm64", "linux/arm64/v8"),
            ("linux/arm64/v8", "linux/aarch64"),
            ("linux/arm/7", "linux/arm/v7"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/v7", "linux/arm"),
            ("linux/amd64", "linux/amd64/v1"),
        ] {
            assert!(platform(asked).selects(&platform(offered)), "{asked} {offered}");
        }
        for (asked, offered) in [
            ("linux/arm64", "linux/arm"),
            ("linux/arm/v6", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm"),
            ("linux/arm64", "linux/arm64/v9"),
            ("linux/amd64", "linux/amd64/v3"),
            ("linux/amd64", "windows/amd64"),
        ] {
            assert!(!platform(asked).selects(&platform(offered)), "{asked} {offered}");
        }
    }

    #[test]
    fn a_machine_takes_the_best_of_what_it_runs() {
        for (asked, offered, best) in [
            ("linux/arm", &["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"][..], &["linux/arm/v7"][..]),
            ("linux/arm/v7", &["linux/arm/v5", "linux/arm/v6"], &["linux/arm/v6"]),
            ("linux/arm/v6", &["linux/arm/v5", "linux/arm"], &["linux/arm/v5"]),
            ("linux/arm64/v9", &["linux/arm64", "linux/arm64/v8.2"], &["linux/arm64/v8.2"]),
            ("linux/amd64", &["linux/amd64", "linux/amd64/v3"], &["linux/amd64"]),
            ("linux/amd64/v3", &["linux/amd64", "linux/amd64/v2"], &["linux/amd64/v2"]),
            ("linux/riscv64", &["linux/riscv64"], &["linux/riscv64"]),
            ("linux/s390x", &["linux/amd64"], &[]),
            (
                "windows/amd64",
                &["windows(10.0.17763.1)/amd64", "windows(10.0.20348.1)/amd64"],
                &["windows(10.0.17763.1)/amd64", "windows(10.0.20348.1)/amd64"],
            ),
        ] {
            let offered: Vec<Platform> = offered.iter().map(|text| platform(text)).collect();
            let taken = platform(asked).best(offered.iter().map(|has| (has, has)));
            assert_eq!(taken.iter().map(ToString::to_string).collect::<Vec<_>>(), best, "{asked}");
        }
    }

    #[test]
    fn a_version_of_windows_is_chosen_in_either_spelling() {
        let offered = platform("windows(10.0.17763.7919)/amd64");
        for asked in ["windows(10.0.17763)/amd64", "windows/amd64:10.0.17763", "windows/amd64:10.0.17763.7919"] {
            assert!(platform(asked).selects(&offered), "{asked}");
        }
        for asked in ["windows(10.0.1776)/amd64", "windows/amd64:10.0.20348", "windows(10.0.17763.79)/amd64"] {
            assert!(!platform(asked).selects(&offered), "{asked}");
        }
        assert_eq!(platform("windows/amd64:10.0.17763").to_string(), "windows(10.0.17763)/amd64");
    }

    #[test]
    fn null_is_absent() {
        let nulls = r#"{"os":null,"architecture":"amd64","variant":null,"os.version":null,"os.features":null}"#;
        assert_eq!(serde_json::from_str::<Platform>(nulls).unwrap().to_string(), "/amd64");
    }

    #[test]
    fn a_mistyped_platform_is_an_error_not_an_empty_bundle() {
        for text in [
            "",
            "linux",
            "amd64",
            "linux/",
            "linux/amd64/",
            "linux/amd64/v1/x",
            "linux amd64",
            "*/*",
            "windows()/amd64",
            "windows(1/amd64",
            "w(1)/amd64:1",
            "linux/amd64:",
        ] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
