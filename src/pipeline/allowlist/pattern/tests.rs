use super::*;

#[test]
fn a_pattern_matches_the_same_tags_as_in_go() {
    for (pattern, matching, others) in [
        ("1", "1 21 v1.0", "2"),
        (r"^v?1\.2", "1.2 v1.2.3", "11.2 1x2"),
        (r"^1\z", "1", "12"),
        (r"\A1$", "1", "12"),
        (r"^\pN+$", "123", "1a"),
        (r"^\pL+$", "abc", "a1"),
        (r"^\p{Latin}+$", "abc", "1"),
        (r"^\p{^Latin}+$", "12", "a"),
        (r"^\P{^Latin}+$", "ab", "1"),
        (r"^\Q1.2\E$", "1.2", "1x2"),
        (r"^\Q1.2", "1.2 1.2.3", "1x2"),
        (r"^\Qa\b", r"a\b", "a"),
        ("(?P<major>[0-9]+)-(?:alpine|slim)$", "1-alpine 3.2-slim", "1-bookworm"),
        ("(?i)ALPINE", "3-alpine", "3-slim"),
        ("^[[:digit:].]+$", "1.2", "1a"),
        ("^[[:^digit:]]+$", "ab", "a1"),
        ("^[[a]$", "[ a", "b"),
        ("^[a[b]]$", "a] [] b]", "a b"),
        ("^[[-b]$", "[ ^ a b", "c -"),
        ("^[a&&b]$", "a & b", "c"),
        ("^[a~~b]$", "a ~ b", "c"),
        ("^[]a]$", "] a", "b"),
        ("^[^]a]$", "b", "] a"),
        ("^[a-]$", "a -", "b"),
        ("^[-a]$", "a -", "b"),
        ("^[0-9a-f]{3}$", "0af", "0ag 0a"),
        (r"^[\d.-]+$", "1.2-3", "a"),
        (r"^[\w\.]+$", "a_1.b", "a-b"),
        (r"^[\w-.]+$", "a_1.b-c", "a/b"),
        (r"^[\d-a]+$", "1-a", "b"),
        (r"^[\pL--]+$", "a-b", "1"),
        ("^a{$", "a{", "a"),
        ("^a{,2}$", "a{,2}", "aa"),
        ("^a{2}$", "aa", "a a{2}"),
        ("^a{1,}?$", "a aaa", "b"),
        (r"^\x31\x{32}\063$", "123", "124"),
        (r"^a\<b\>$", "a<b>", "ab"),
        (r"^a\b{$", "a{", "a"),
        (r"^a\b{2}-", "a-b", "a ab"),
        ("a|b", "xa b", "c"),
        ("^1.2.*(?U:x+)", "1.2-x", "2"),
    ] {
        let compiled = Pattern::new(pattern).unwrap_or_else(|e| panic!("{e}"));
        for text in matching.split(' ') {
            assert!(compiled.is_match(text), "{pattern} should match {text}");
        }
        for text in others.split(' ') {
            assert!(!compiled.is_match(text), "{pattern} should not match {text}");
        }
    }
}

#[test]
fn a_pattern_that_go_refuses_is_refused_with_a_one_line_error() {
    for pattern in [
        "(",
        ")",
        "[a",
        "[]",
        "a**b\\",
        "*a",
        r"\Z",
        r"\C",
        r"\1",
        r"\8",
        "(?=a)",
        "(?<!a)",
        "(?x) a",
        "(?-u)a",
        "(?R)a",
        "a{1001}",
        "a{2,1}",
        r"\pX",
        r"\p{Nope}",
        "(?P<a",
        r"[a-\d]",
        "[z-a]",
        "[a",
        r"\u0041",
        "(?P=a)",
    ] {
        let error = Pattern::new(pattern).expect_err(pattern).to_string();
        assert!(!error.contains('\n') && error.starts_with("invalid pattern "), "{error}");
    }
    assert!(Pattern::new(&"a".repeat(5000)).is_err());
    assert!(Pattern::new(r"(\pL{1000}){1000}").is_err());
    let big = Pattern::new(r"(\pL{900}){900}").expect_err("big").to_string();
    assert_eq!(big, r#"invalid pattern "(\\pL{900}){900}": too large when compiled"#);
}

#[test]
fn a_whole_pattern_is_anchored_around_its_alternatives() {
    let pattern = Pattern::whole("a|b").unwrap();
    assert!(pattern.is_match("a") && pattern.is_match("b") && !pattern.is_match("ab"));
    assert!(Pattern::whole("a)|(b").is_err());
}
