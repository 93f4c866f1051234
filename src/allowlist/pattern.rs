//! Tag patterns in Go's dialect (RE2), found anywhere in the tag unless anchored, as `images-by-tag-regex` has them.
//!
//! The engine below is the `regex` crate: linear in the text like Go's, with a nearly equal syntax. Where one text means
//! two things, or only Go takes it, the pattern is rewritten first:
//!
//! | Go | the crate | rewritten to |
//! |---|---|---|
//! | `\Q.+\E` is literal text | no such escape | `\.\+` |
//! | `[a[b]`, `[a&&b]`, `[a~~b]`: the brackets and signs are characters | nested classes and set operations | escaped signs |
//! | `{`, `a{`, `a{,3}`: no repetition, a character | an error, or a repetition | `\{` |
//! | `\<`, `\>`: characters | word boundaries | `<`, `>` |
//! | `\b{`: a boundary, then `{` | special boundaries | `\b\{` |
//! | `\p{^Greek}` | no such negation | `\P{Greek}` |
//! | `\101` octal | an error | `\x41` |
//! | `\d`, `\w`, `\s`, `\b` are ASCII | Unicode | nothing: a tag is ASCII |
//!
//! What only the crate takes is refused where it would mean something else in Go or nothing: the flags `x`, `R` and `u`.
//! Equal in both and therefore left alone: `\A \z \pN \pL \x{41} (?P<name>…) (?i) [[:alpha:]] *?`; `\Z`, `\C`, back
//! references and look-around are errors in both.

use std::fmt;
use std::iter::Peekable;
use std::str::Chars;

use regex::{Regex, RegexBuilder};

/// Longest accepted pattern, in bytes.
const MAX_LENGTH: usize = 4096;
/// Memory a compiled pattern may take, in bytes.
const MAX_COMPILED: usize = 4 << 20;

/// A compiled pattern; prints as it was written.
#[derive(Clone, Debug)]
pub struct Pattern {
    written: String,
    regex: Regex,
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid pattern {text:?}: {reason}")]
pub struct PatternError {
    text: String,
    reason: String,
}

impl Pattern {
    /// Compiles a pattern that is found anywhere in a text.
    pub fn new(written: &str) -> Result<Pattern, PatternError> {
        Pattern::compile(written, |body| body)
    }

    /// Compiles a pattern that has to match a text from its first to its last character.
    pub(crate) fn whole(written: &str) -> Result<Pattern, PatternError> {
        Pattern::compile(written, |body| format!(r"\A(?:{body})\z"))
    }

    fn compile(written: &str, wrap: impl Fn(String) -> String) -> Result<Pattern, PatternError> {
        let fail = |reason: String| PatternError { text: written.chars().take(200).collect(), reason };
        if written.len() > MAX_LENGTH {
            return Err(fail(format!("longer than {MAX_LENGTH} bytes")));
        }
        let body = from_go(written).map_err(fail)?;
        // Alone first: a pattern with a stray parenthesis must not become valid inside the wrapping.
        let build = |text: &str| RegexBuilder::new(text).size_limit(MAX_COMPILED).build();
        let regex = build(&body).and_then(|_| build(&wrap(body))).map_err(|e| fail(one_line(&e)))?;
        Ok(Pattern { written: written.to_owned(), regex })
    }

    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// The compiled form, for callers that need its groups.
    pub(crate) fn regex(&self) -> &Regex {
        &self.regex
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.written == other.written
    }
}

impl Eq for Pattern {}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// The crate draws the pattern with a pointer below; a problem is one line.
fn one_line(error: &regex::Error) -> String {
    let text = match error {
        regex::Error::CompiledTooBig(_) => return "too large when compiled".into(),
        other => other.to_string(),
    };
    let last = text.lines().last().unwrap_or_default().trim();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

/// The pattern in the crate's dialect; an error for what Go would not take and the crate would.
fn from_go(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' => escape(&mut rest, &mut out, false)?,
            '[' => class(&mut rest, &mut out)?,
            '{' => out.push_str(if is_repetition(&rest)? { "{" } else { r"\{" }),
            '(' if rest.peek() == Some(&'?') => check_flags(&rest).map(|()| out.push('('))?,
            _ => out.push(c),
        }
    }
    Ok(out)
}

type Rest<'a> = Peekable<Chars<'a>>;

/// After a backslash.
fn escape(rest: &mut Rest<'_>, out: &mut String, in_class: bool) -> Result<(), String> {
    let Some(c) = rest.next() else { return Err("a backslash at the end".into()) };
    match c {
        'Q' if !in_class => quoted(rest, out),
        '<' | '>' => out.push(c),
        'b' if rest.peek() == Some(&'{') => {
            rest.next();
            out.push_str(r"\b\{");
        }
        'p' | 'P' if rest.peek() == Some(&'{') => property(c, rest, out),
        '0'..='7' => return octal(c, rest, out),
        'u' | 'U' => return Err(format!(r"\{c} is no escape; write \x{{…}}")),
        _ => {
            out.push('\\');
            out.push(c);
        }
    }
    Ok(())
}

/// `\Q…\E`, to the end of the pattern where `\E` is missing.
fn quoted(rest: &mut Rest<'_>, out: &mut String) {
    while let Some(c) = rest.next() {
        if c == '\\' && rest.peek() == Some(&'E') {
            rest.next();
            return;
        }
        out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
    }
}

/// `\p{…}`, at its opening brace.
fn property(letter: char, rest: &mut Rest<'_>, out: &mut String) {
    rest.next();
    let negated = rest.next_if_eq(&'^').is_some();
    let letter = match (letter, negated) {
        ('p', true) => 'P',
        ('P', true) => 'p',
        (letter, _) => letter,
    };
    out.extend(['\\', letter, '{']);
    for c in rest.by_ref() {
        out.push(c);
        if c == '}' {
            break;
        }
    }
}

/// `\0` to `\777`; `\1` to `\7` alone would be a back reference.
fn octal(first: char, rest: &mut Rest<'_>, out: &mut String) -> Result<(), String> {
    let mut value = first.to_digit(8).unwrap_or(0);
    let mut digits = 1;
    while digits < 3 {
        let Some(digit) = rest.peek().and_then(|c| c.to_digit(8)) else { break };
        value = value * 8 + digit;
        digits += 1;
        rest.next();
    }
    if first != '0' && digits == 1 {
        return Err(format!(r"\{first}: back references are not supported"));
    }
    out.push_str(&format!(r"\x{{{value:x}}}"));
    Ok(())
}

/// Whether what follows an opening brace makes it a repetition: `3}`, `3,}` or `3,5}`.
fn is_repetition(rest: &Rest<'_>) -> Result<bool, String> {
    let mut ahead = rest.clone();
    let mut number = || {
        let mut digits = String::new();
        while let Some(c) = ahead.next_if(char::is_ascii_digit) {
            digits.push(c);
        }
        (digits, ahead.next())
    };
    let (low, end) = number();
    let (high, end) = if end == Some(',') { number() } else { (low.clone(), end) };
    if low.is_empty() || end != Some('}') {
        return Ok(false);
    }
    let too_many = |digits: &str| !digits.is_empty() && digits.parse::<u32>().map_or(true, |n| n > 1000);
    if too_many(&low) || too_many(&high) {
        return Err("a repetition of more than 1000".into());
    }
    Ok(true)
}

/// At the question mark of `(?…`: flags that Go does not have.
fn check_flags(rest: &Rest<'_>) -> Result<(), String> {
    let strange =
        rest.clone().skip(1).take_while(|c| c.is_ascii_alphabetic() || *c == '-').find(|c| "xRu".contains(*c));
    let is_name = matches!(rest.clone().nth(1), Some('P' | '<'));
    match strange {
        Some(flag) if !is_name => Err(format!("no such flag: {flag}")),
        _ => Ok(()),
    }
}

/// A class, after its opening bracket. A `]` in the first place is a character, and every `[` is one unless it begins a
/// name such as `[:alpha:]`.
fn class(rest: &mut Rest<'_>, out: &mut String) -> Result<(), String> {
    out.push('[');
    if rest.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let mut first = true;
    // A hyphen is itself where no range can begin or end; elsewhere it makes a range, in both dialects.
    loop {
        let Some(c) = rest.next() else { return Err("a class without its closing bracket".into()) };
        match c {
            ']' if !first => break,
            '[' => match class_name(rest) {
                Some(name) => out.push_str(&name),
                None => out.push_str(r"\["),
            },
            '\\' => {
                escape(rest, out, true)?;
                class_range(rest, out)?;
            }
            _ => {
                class_char(c, out);
                class_range(rest, out)?;
            }
        }
        first = false;
    }
    out.push(']');
    Ok(())
}

/// `-x` after the first end of a range, if it is one.
fn class_range(rest: &mut Rest<'_>, out: &mut String) -> Result<(), String> {
    let mut ahead = rest.clone();
    if ahead.next() != Some('-') || matches!(ahead.peek(), None | Some(']')) {
        return Ok(());
    }
    rest.next();
    out.push('-');
    match rest.next() {
        Some('\\') => escape(rest, out, true),
        Some(c) => {
            class_char(c, out);
            Ok(())
        }
        None => Err("a class without its closing bracket".into()),
    }
}

fn class_char(c: char, out: &mut String) {
    if matches!(c, '[' | ']' | '&' | '~' | '-' | '^') {
        out.push('\\');
    }
    out.push(c);
}

/// `[:name:]` or `[:^name:]` after its first bracket; takes it from `rest` only then.
fn class_name(rest: &mut Rest<'_>) -> Option<String> {
    const NAMES: [&str; 14] = [
        "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper",
        "word", "xdigit",
    ];
    let text: String = rest.clone().take(12).collect();
    let end = text.find(":]")?;
    let name = text.get(..end)?.strip_prefix(':')?;
    if !NAMES.contains(&name.strip_prefix('^').unwrap_or(name)) {
        return None;
    }
    let whole = format!("[:{name}:]");
    for _ in 1..whole.len() {
        rest.next();
    }
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_go_means_by_them() {
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
            ("^[a&&b]$", "a & b", "c"),
            ("^[a~~b]$", "a ~ b", "c"),
            ("^[]a]$", "] a", "b"),
            ("^[^]a]$", "b", "] a"),
            ("^[a-]$", "a -", "b"),
            ("^[-a]$", "a -", "b"),
            ("^[0-9a-f]{3}$", "0af", "0ag 0a"),
            (r"^[\d.-]+$", "1.2-3", "a"),
            (r"^[\w\.]+$", "a_1.b", "a-b"),
            ("^a{$", "a{", "a"),
            ("^a{,2}$", "a{,2}", "aa"),
            ("^a{2}$", "aa", "a a{2}"),
            ("^a{1,}?$", "a aaa", "b"),
            (r"^\x31\x{32}\063$", "123", "124"),
            (r"^a\<b\>$", "a<b>", "ab"),
            (r"^a\b{$", "a{", "a"),
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
    fn what_go_refuses_is_refused_on_one_line() {
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
        assert!(Pattern::new(r"(\pL{900}){900}").expect_err("big").to_string().contains("too large"));
    }

    #[test]
    fn a_whole_pattern_is_anchored_around_its_alternatives() {
        let pattern = Pattern::whole("a|b").unwrap();
        assert!(pattern.is_match("a") && pattern.is_match("b") && !pattern.is_match("ab"));
        assert!(Pattern::whole("a)|(b").is_err());
    }
}
