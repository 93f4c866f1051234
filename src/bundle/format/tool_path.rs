//! The paths of tools in a bundle.

/// Their directory.
pub const TOOLS: &str = "tools/";
/// The path must fit into a header of its own.
const LONGEST_NAME: usize = 100 - TOOLS.len();

/// Why a tool cannot have this name: not every tar, or not every file system of a medium, could store it.
pub(in crate::bundle) fn problem_of_name(name: &str) -> Option<&'static str> {
    if name.is_empty() || name == "." || name == ".." || name.len() > LONGEST_NAME {
        return Some("its name is empty or longer than 94 bytes, the limit for tools");
    }
    if name.chars().any(|c| c.is_control() || r#"/\:*?"<>|"#.contains(c)) || name.ends_with([' ', '.']) {
        return Some("its name has characters that some media do not support");
    }
    name.ends_with(".partial").then_some("names that end in .partial are reserved for unfinished files")
}

/// The mode of a new file of a bundle: tools are executable.
pub(in crate::bundle) fn mode_of(path: &str) -> u32 {
    if is_tool(path) { 0o777 } else { 0o666 }
}

/// Whether it is the path of a tool.
pub fn is_tool(path: &str) -> bool {
    path.strip_prefix(TOOLS).is_some_and(|name| problem_of_name(name).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_lead_elsewhere_or_fit_no_medium_is_not_a_tool() {
        for name in ["gapferry", "gapferry-arm64", "run me.sh", "ctr", "ä", &"a".repeat(94)] {
            assert!(is_tool(&format!("tools/{name}")), "{name}");
        }
        let bad = ["", ".", "..", "../x", "a/b", r"a\b", "a:b", "a\n", "\u{1b}[2J", "a.", "a ", "x.partial"];
        for name in bad.into_iter().chain([&*"a".repeat(95)]) {
            assert!(!is_tool(&format!("tools/{name}")), "{name:?}");
        }
        assert!(!is_tool("tools") && !is_tool("blobs/sha256/tools/x") && !is_tool("/tools/x"));
    }
}
