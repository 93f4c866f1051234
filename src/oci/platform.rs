//! Platforms: `os/architecture[/variant]`, normalized as containerd and skopeo do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The platform of an image, as in a descriptor of an index or in an image config.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Windows only: two children of one index may differ in nothing else.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid platform {0:?}: expected os/architecture or os/architecture/variant, such as linux/amd64")]
pub struct PlatformError(pub String);

impl Platform {
    /// Buildkit's attestation children and some artifacts say `unknown/unknown`.
    pub fn is_unknown(&self) -> bool {
        let unknown = |text: &str| text.is_empty() || text == "unknown";
        unknown(&self.os) && unknown(&self.architecture)
    }

    /// Whether `self`, as asked for on the command line, selects `offered`, as found in an index.
    ///
    /// A variant that was not asked for matches any (`linux/arm` takes v6 and v7); `arm64` and `arm64/v8` are the same.
    pub fn selects(&self, offered: &Platform) -> bool {
        let (asked, offered) = (self.normalized(), offered.normalized());
        asked.os == offered.os
            && asked.architecture == offered.architecture
            && (asked.variant.is_none() || asked.variant == offered.variant)
    }

    /// Other spellings of one machine brought to one (containerd `platforms/database.go`).
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
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        let valid = |part: &str| {
            !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(|part| valid(part)) {
            return Err(PlatformError(text.to_owned()));
        }
        Ok(Platform {
            os: parts[0].to_owned(),
            architecture: parts[1].to_owned(),
            variant: parts.get(2).map(|v| (*v).to_owned()),
            os_version: None,
        }
        .normalized())
    }
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
            ("linux/arm", "linux/arm/v6"),
        ] {
            assert!(platform(asked).selects(&platform(offered)), "{asked} {offered}");
        }
        assert!(!platform("linux/arm/v7").selects(&platform("linux/arm/v6")));
        assert!(!platform("linux/arm64").selects(&platform("linux/arm")));
    }

    #[test]
    fn a_mistyped_platform_is_an_error_not_an_empty_bundle() {
        for text in ["", "linux", "amd64", "linux/", "linux/amd64/", "linux/amd64/v1/x", "linux amd64", "*/*"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
