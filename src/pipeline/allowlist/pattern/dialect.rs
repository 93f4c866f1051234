//! Translates Go's regular expressions (package `regexp/syntax`) to those of the `regex` crate.
//!
//! The two dialects are almost equal. A text that means different things in them, or that only Go accepts, is
//! rewritten:
//!
//! | Go | the crate | rewritten to |
//! |---|---|---|
//! | `\Q.+\E` is literal text | no such escape | `\.\+` |
//! | `[a[b]`, `[a&&b]`, `[a~~b]`: the brackets and signs are characters | nested classes and set operations | escaped signs |
//! | `{`, `a{`, `a{,3}`: no repetition, a character | an error, or a repetition | `\{` |
//! | `\<`, `\>`: characters | word boundaries | `<`, `>` |
//! | `\b{`: a boundary, then `{` or a repetition | special boundaries | `(?:\b)\{` |
//! | `\p{^Greek}` | no such negation | `\P{Greek}` |
//! | `\101` octal | an error | `\x41` |
//! | `\d`, `\w`, `\s`, `\b` are ASCII | Unicode | nothing: a tag is ASCII |
//!
//! What only the crate accepts is rejected if it would mean something else, or nothing, in Go: the flags `x`, `R` and
//! `u`. More property names, `a**` and `(?<name>…)`, which newer versions of Go accept too, are allowed. These are
//! equal in both and left alone: `\A \z \pN \pL \x{41} (?P<name>…) (?i) [[:alpha:]] *?`. `\Z`, `\C`, back references
//! and look-around are errors in both.

use std::iter::Peekable;
use std::str::Chars;

/// Returns the pattern in the crate's dialect, or an error for what the crate accepts and Go does not.
pub(super) fn from_go(pattern: &str) -> Result<String, String> {
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

/// Called after a backslash.
fn escape(rest: &mut Rest<'_>, out: &mut String, in_class: bool) -> Result<(), String> {
    let Some(c) = rest.next() else { return Err("a backslash at the end".into()) };
    match c {
        'Q' if !in_class => quoted(rest, out),
        '<' | '>' => out.push(c),
        // The crate reads `\b{…}` as one escape; treat the brace like any other.
        'b' if !in_class && rest.peek() == Some(&'{') => out.push_str(r"(?:\b)"),
        'p' | 'P' if rest.peek() == Some(&'{') => property(c, rest, out),
        'p' | 'P' => {
            out.extend(['\\', c]);
            out.extend(rest.next());
        }
        '0'..='7' => return octal(c, rest, out),
        'u' | 'U' => return Err(format!(r"\{c} is not an escape; write \x{{…}}")),
        _ => {
            out.push('\\');
            out.push(c);
        }
    }
    Ok(())
}

/// `\Q…\E`, up to the end of the pattern if `\E` is missing.
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

/// Whether the text after an opening brace makes it a repetition: `3}`, `3,}` or `3,5}`.
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

/// Called at the question mark of `(?…`. Rejects flags that Go does not have.
fn check_flags(rest: &Rest<'_>) -> Result<(), String> {
    let strange =
        rest.clone().skip(1).take_while(|c| c.is_ascii_alphabetic() || *c == '-').find(|c| "xRu".contains(*c));
    let is_name = matches!(rest.clone().nth(1), Some('P' | '<'));
    match strange {
        Some(flag) if !is_name => Err(format!("no such flag: {flag}")),
        _ => Ok(()),
    }
}

/// A class, after its opening bracket. A `]` in the first position is a character, and so is every `[` that does not
/// start a name such as `[:alpha:]`.
fn class(rest: &mut Rest<'_>, out: &mut String) -> Result<(), String> {
    out.push('[');
    if rest.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let mut first = true;
    loop {
        let Some(c) = rest.next() else { return Err("a class without a closing bracket".into()) };
        match c {
            ']' if !first => break,
            '[' => match class_name(rest)? {
                Some(name) => out.push_str(&name),
                None => {
                    class_char(c, out);
                    class_range(rest, out)?;
                }
            },
            '\\' => {
                // A range cannot start with a set: in `[\w-.]` the hyphen is a character.
                let is_set = rest.peek().is_some_and(|c| "dDwWsSpP".contains(*c));
                escape(rest, out, true)?;
                if !is_set {
                    class_range(rest, out)?;
                }
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
        None => Err("a class without a closing bracket".into()),
    }
}

fn class_char(c: char, out: &mut String) {
    if matches!(c, '[' | ']' | '&' | '~' | '-' | '^') {
        out.push('\\');
    }
    out.push(c);
}

/// `[:name:]` or `[:^name:]` after its first bracket; only then consumes it from `rest`. As in Go, a `:]` anywhere
/// later makes it a name, and an unknown name is an error.
fn class_name(rest: &mut Rest<'_>) -> Result<Option<String>, String> {
    const NAMES: [&str; 14] = [
        "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper",
        "word", "xdigit",
    ];
    let text: String = rest.clone().collect();
    let Some((name, _)) = text.strip_prefix(':').and_then(|text| text.split_once(":]")) else { return Ok(None) };
    if !NAMES.contains(&name.strip_prefix('^').unwrap_or(name)) {
        return Err(format!("no such class: [:{name}:]"));
    }
    let whole = format!("[:{name}:]");
    for _ in 1..whole.len() {
        rest.next();
    }
    Ok(Some(whole))
}
