//! Reading an allowlist ends with rules or with problems and never with a panic, whatever the file contains.

use gapferry::pipeline::allowlist::{Allowlist, Pattern, semver::VersionRange};
use proptest::prelude::*;

fn parse(name: &str, bytes: &[u8]) {
    let files = [(name.to_owned(), bytes.to_vec())];
    match Allowlist::parse_sources(&[String::from_utf8_lossy(bytes).into_owned()], &files) {
        Ok(list) => list.rules.iter().for_each(|rule| drop((rule.select.to_string(), rule.at.to_string()))),
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in problems {
                assert!(!problem.to_string().contains('\n'), "a problem is one line: {problem:?}");
            }
        }
    }
}

/// Fragments that almost match what the notations expect.
fn near_miss() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "nginx",
        "quay.io/a/b",
        ":1.27",
        "@sha256:",
        "e3b0c44298fc1c14",
        " platform=",
        "linux/amd64",
        ",",
        " as=",
        "=",
        "#",
        "\n",
        "\r\n",
        "\n  ",
        "\n    ",
        "- ",
        ": ",
        ":",
        "images",
        "images-by-tag-regex",
        "images-by-semver",
        "credentials",
        "password",
        "tls-verify",
        "ref",
        "[",
        "]",
        "{",
        "}",
        "&a ",
        "*a",
        "<<: ",
        "!!int ",
        "\"",
        "'",
        "|",
        ">",
        "~",
        "1.10",
        "0x1",
        ".nan",
        "on",
        "---",
        "%",
        "\\",
        "é",
        "\u{feff}",
        "\t",
        "? ",
        "!",
        "\u{0}",
        "\u{85}",
        "\u{2028}",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn range_text() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "1", "0", "22", "x", "*", ".", ".", "-", "-rc.1", "+b", "v", ">", "<", "=", "!", "~", "^", " ", " ", ",", "||",
        " - ", "é",
    ]);
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

fn pattern_text() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a", "1", ".", "*", "+", "?", "(", ")", "[", "]", "[^", "-", "&&", "~~", "--", "{", "}", "{2}", "{,3}", "{1,",
        "\\", "\\Q", "\\E", "\\p", "\\p{^", "L", "}", "\\x", "\\<", "\\b", "\\1", "\\0", "(?", "(?P<n>", "i", "x", ":",
        "[:", "alpha", ":]", "^", "$", "|", "é",
    ]);
    prop::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for name in ["-", "a.txt", "a.yaml"] {
            parse(name, &bytes);
        }
    }

    #[test]
    fn text_is_read_or_refused(text in any::<String>()) {
        for name in ["-", "a.txt", "a.yaml"] {
            parse(name, text.as_bytes());
        }
    }

    #[test]
    fn near_misses_are_read_or_refused(text in near_miss()) {
        for name in ["-", "a.txt", "a.yaml"] {
            parse(name, text.as_bytes());
        }
    }

    #[test]
    fn ranges_and_tags_are_read_or_refused(range in range_text(), tag in range_text(), any in any::<String>()) {
        if let Ok(range) = range.parse::<VersionRange>() {
            range.contains_tag(&tag);
            range.contains_tag(&any);
        }
        let _ = any.parse::<VersionRange>();
    }

    #[test]
    fn patterns_are_compiled_or_refused(pattern in pattern_text(), any in any::<String>(), tag in "[a-z0-9._-]{0,20}") {
        for text in [pattern, any] {
            match Pattern::new(&text) {
                Ok(pattern) => drop(pattern.is_match(&tag)),
                Err(e) => assert!(!e.to_string().contains('\n'), "{e}"),
            }
        }
    }

    #[test]
    fn a_written_rule_reads_back_the_same_in_every_notation(
        path in "[a-z0-9]{1,8}(/[a-z0-9]{1,8}){0,3}", tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}",
    ) {
        let reference = format!("reg.example:5000/{path}:{tag}");
        let texts = [
            ("-", reference.clone()),
            ("l.yaml", format!("- {reference}\n")),
            ("m.yaml", format!("- ref: {reference}\n")),
            ("s.yaml", format!("reg.example:5000:\n  images:\n    {path}:\n    - '{tag}'\n")),
        ];
        for (name, text) in texts {
            let list = Allowlist::parse_sources(&[], &[(name.to_owned(), text.into_bytes())]).unwrap();
            prop_assert_eq!(list.rules.len(), 1);
            prop_assert_eq!(list.rules[0].select.to_string(), reference.clone());
        }
    }

    #[test]
    fn an_unquoted_tag_keeps_its_text(tag in prop_oneof![
        "[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", "[0-9_][0-9._ex-]{0,8}", "0[xob][0-9a-f_]{1,6}", "[0-9]{1,4}-[0-9]{2}-[0-9]{2}", "[0-9a-f]{7}",
        prop::sample::select(vec!["true", "False", "yes", "No", "ON", "off", "y", "N", "nan", "inf", "NULL", "null", "Null"])
            .prop_map(str::to_owned),
    ]) {
        prop_assume!(tag.parse::<gapferry::oci::Tag>().is_ok());
        let yaml = format!("reg.io:\n  images:\n    app:\n    - {tag}\n    other: [{tag}]\n");
        let read = Allowlist::parse_sources(&[], &[("s.yaml".to_owned(), yaml.into_bytes())]);
        if tag.eq_ignore_ascii_case("null") {
            prop_assert_eq!(read.unwrap_err().len(), 2);
        } else {
            let found: Vec<String> = read.unwrap().rules.iter().map(|rule| rule.select.to_string()).collect();
            prop_assert_eq!(found, [format!("reg.io/app:{tag}"), format!("reg.io/other:{tag}")]);
        }
    }

    #[test]
    fn the_order_of_files_changes_only_the_order_of_rules(
        a in prop::collection::vec("[abc]\\.io/[xy]:[12]", 0..6), b in prop::collection::vec("[abc]\\.io/[xy]:[12]", 0..6),
    ) {
        let files = [("a".to_owned(), a.join("\n").into_bytes()), ("-".to_owned(), yaml_list(&b).into_bytes())];
        let mut reversed = files.clone();
        reversed.reverse();
        let selections = |files: &[(String, Vec<u8>)]| {
            let list = Allowlist::parse_sources(&[], files).unwrap();
            let mut found: Vec<String> = list.rules.iter().map(|rule| rule.select.to_string()).collect();
            found.sort();
            found
        };
        let expected: std::collections::BTreeSet<&String> = a.iter().chain(&b).collect();
        prop_assert_eq!(selections(&files), selections(&reversed));
        let found = selections(&files);
        prop_assert_eq!(found.iter().collect::<std::collections::BTreeSet<_>>(), expected);
    }

    #[test]
    fn operators_keep_their_relations(own in version(), other in version()) {
        let holds = |range: String| range.parse::<VersionRange>().unwrap().contains_tag(&other);
        let (less, equal, more) = (holds(format!("<{own}")), holds(format!("={own}")), holds(format!(">{own}")));
        prop_assert_eq!([less, equal, more].iter().filter(|held| **held).count(), 1);
        prop_assert_eq!(holds(format!("!={own}")), !equal);
        prop_assert_eq!(holds(format!(">={own}")), !less);
        prop_assert_eq!(holds(format!("<={own}")), !more);
        prop_assert_eq!(holds(format!("{own} - {own}")), equal);
        prop_assert_eq!(holds(format!("<{own} || >{own}")), !equal);
        let between = holds(format!("<{own}, >{own}"));
        prop_assert!(!between);
        let (tilde, caret) = (holds(format!("~{own}")), holds(format!("^{own}")));
        prop_assert!(!(tilde || caret) || !less);
        prop_assert!(!equal || (tilde && caret));
    }

    #[test]
    fn a_prerelease_matches_only_a_constraint_that_names_one(own in version(), pre in "[a-z]{1,5}(\\.[1-9][0-9]?)?") {
        let tag = format!("{own}-{pre}");
        for operator in ["", "=", "!=", ">", "<", ">=", "<=", "~", "^"] {
            let range: VersionRange = format!("{operator}{own}").parse().unwrap();
            prop_assert!(!range.contains_tag(&tag), "{} {}", range, tag);
        }
        let range: VersionRange = format!(">={tag} || >=0").parse().unwrap();
        prop_assert!(range.contains_tag(&tag));
    }

    #[test]
    fn a_quoted_tag_matches_only_itself(tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,12}", other in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,12}") {
        let pattern = Pattern::new(&format!("^\\Q{tag}\\E$")).unwrap();
        prop_assert!(pattern.is_match(&tag));
        prop_assert_eq!(pattern.is_match(&other), tag == other);
        let class = Pattern::new(&format!("^[{}]+$", tag.replace('-', "\\-"))).unwrap();
        prop_assert!(class.is_match(&tag));
    }
}

fn yaml_list(references: &[String]) -> String {
    references.iter().map(|reference| format!("- {reference}\n")).collect()
}

fn version() -> impl Strategy<Value = String> {
    (0u8..3, 0u8..3, 0u8..3).prop_map(|(major, minor, patch)| format!("{major}.{minor}.{patch}"))
}
