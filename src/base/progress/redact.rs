//! The secrets of this run. Foreign text is searched for them before it is shown.
//!
//! # Threats
//! A registry, a gateway or a helper may repeat the credentials that it received in an error, a header or an address:
//! unchanged, or encoded for where they appear (base64 in `Authorization`, percent signs in a query, JSON, HTML). It may
//! escape more than necessary, escape twice, and break lines anywhere. Every [form](Form) of a secret is therefore searched
//! for in the text itself and in the text with its escapes resolved ([`Reading`]).

use std::borrow::Cow;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Shorter secrets are part of too many words.
const SHORTEST: usize = 4;
/// Fewer characters of base64 occur in other text by chance.
const SHORTEST_BASE64: usize = 6;
/// Of longer secrets, such as tokens and cloud passwords, only the beginning is searched for: what is shown of a response may
/// end within them.
const LONGEST_ENCODED: usize = 512;
const BEGINNING: usize = 64;
const MASK: &str = "***";
/// How often escapes are resolved: for a value that was encoded twice, in a text that was encoded itself.
const DEEPEST: usize = 3;

/// One encoding of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Form {
    text: String,
    /// Whether adjacent characters of the same alphabet belong to it: the user's name, and the rest of its first and last
    /// characters.
    is_base64: bool,
}

#[cfg(not(test))]
mod known {
    use std::sync::{PoisonError, RwLock};

    use super::Form;

    static FORMS: RwLock<Vec<Form>> = RwLock::new(Vec::new());

    pub fn read<R>(read: impl FnOnce(&[Form]) -> R) -> R {
        read(&FORMS.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn change(change: impl FnOnce(&mut Vec<Form>)) {
        change(&mut FORMS.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Tests run in parallel, and the secrets of one are the words of another.
#[cfg(test)]
mod known {
    use std::cell::RefCell;

    use super::Form;

    thread_local!(static FORMS: RefCell<Vec<Form>> = const { RefCell::new(Vec::new()) });

    pub fn read<R>(read: impl FnOnce(&[Form]) -> R) -> R {
        FORMS.with_borrow(|forms| read(forms))
    }

    pub fn change(change: impl FnOnce(&mut Vec<Form>)) {
        FORMS.with_borrow_mut(change);
    }
}

/// From now on, [`redacted`] hides this text in every encoding.
pub fn conceal(secret: &str) {
    if secret.len() < SHORTEST || known::read(|forms| forms.iter().any(|form| form.text == secret)) {
        return;
    }
    let new = forms(secret);
    known::change(|forms| {
        forms.extend(new);
        // One may be part of another.
        forms.sort_by(|one, other| other.text.len().cmp(&one.text.len()).then_with(|| one.text.cmp(&other.text)));
        forms.dedup();
    });
}

/// The text with `***` in place of each secret.
pub fn redacted(text: &str) -> Cow<'_, str> {
    redacted_with(text, &[])
}

/// Does the same with additional secrets that are not remembered, because there are too many of their kind.
pub fn redacted_with<'t>(text: &'t str, secrets: &[String]) -> Cow<'t, str> {
    let more: Vec<Form> = secrets.iter().flat_map(|secret| forms(secret)).collect();
    known::read(|forms| {
        let mut found = Vec::new();
        if !forms.is_empty() || !more.is_empty() {
            for reading in readings(text) {
                found.extend(forms.iter().chain(&more).flat_map(|form| reading.find(form)));
            }
        }
        masked(text, found)
    })
}

/// One reading of a text: unchanged, or with escapes resolved.
struct Reading {
    text: String,
    /// For each byte, the range in the original that it comes from.
    from: Vec<Range<usize>>,
}

/// The text unchanged, and with escapes and line breaks resolved once, twice and so on, as long as something changes.
fn readings(text: &str) -> Vec<Reading> {
    let from = (0..text.len()).map(|at| at..at + 1).collect();
    let mut all = vec![Reading { text: text.to_owned(), from }];
    while all.len() <= DEEPEST
        && let Some(next) = all.last().and_then(Reading::resolved)
    {
        all.push(next);
    }
    all
}

impl Reading {
    /// Where `form` occurs in the original.
    fn find(&self, form: &Form) -> Vec<Range<usize>> {
        let in_alphabet = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '-' | '_' | '=');
        let places = self.text.match_indices(&form.text).filter_map(|(at, found)| {
            let (mut start, mut end) = (at, at + found.len());
            if form.is_base64 {
                start = self.text[..start].trim_end_matches(in_alphabet).len();
                end = self.text.len() - self.text[end..].trim_start_matches(in_alphabet).len();
            }
            Some(self.from.get(start)?.start..self.from.get(end.checked_sub(1)?)?.end)
        });
        places.collect()
    }

    /// Returns `None` if there is nothing to resolve.
    fn resolved(&self) -> Option<Reading> {
        if !self.text.contains(['%', '\\', '&', '\n', '\r']) {
            return None;
        }
        let (mut bytes, mut from) = (Vec::with_capacity(self.text.len()), Vec::with_capacity(self.text.len()));
        let mut at = 0;
        while let Some(c) = self.text[at..].chars().next() {
            let rest = &self.text[at..];
            let length = c.len_utf8();
            let (meant, length) = match c {
                '\n' | '\r' => (Vec::new(), length),
                '%' | '\\' | '&' => escape(rest).unwrap_or_else(|| (vec![c as u8], length)),
                c => (c.to_string().into_bytes(), length),
            };
            let origin = self.from[at].start..self.from[at + length - 1].end;
            from.extend(meant.iter().map(|_| origin.clone()));
            bytes.extend(meant);
            at += length;
        }
        // Bytes that are not text keep their positions.
        let text = String::from_utf8(bytes).unwrap_or_else(|e| with_marks(e.as_bytes()));
        (text != self.text).then_some(Reading { text, from })
    }
}

/// Replaces each byte that is not text with a question mark.
fn with_marks(bytes: &[u8]) -> String {
    bytes.utf8_chunks().flat_map(|chunk| [chunk.valid().to_owned(), "?".repeat(chunk.invalid().len())]).collect()
}

/// The meaning and the length of the escape at the beginning of `text`: `%2D`, `\u002d`, `\x2d`, `\/`, `&#45;`, `&#x2d;`,
/// `&amp;`.
fn escape(text: &str) -> Option<(Vec<u8>, usize)> {
    let number =
        |digits: &str, radix: u32| u32::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+'));
    let character = |number: u32| char::from_u32(number).map(|c| c.to_string().into_bytes());
    if let Some(rest) = text.strip_prefix('%') {
        let byte = number(rest.get(..2)?, 16)?;
        return Some((vec![u8::try_from(byte).ok()?], 3));
    }
    if let Some(rest) = text.strip_prefix('\\') {
        return match rest.chars().next()? {
            'u' => Some((character(number(rest.get(1..5)?, 16)?)?, 6)),
            'x' => Some((character(number(rest.get(1..3)?, 16)?)?, 4)),
            'n' | 'r' => Some((Vec::new(), 2)),
            't' => Some((vec![b'\t'], 2)),
            c if c.is_ascii() => Some((vec![c as u8], 2)),
            _ => None,
        };
    }
    let name = text.strip_prefix('&')?.get(..text.len().min(9) - 1).or_else(|| text.get(1..))?;
    let name = &name[..name.find(';')?];
    let meant = match name {
        "amp" => vec![b'&'],
        "lt" => vec![b'<'],
        "gt" => vec![b'>'],
        "quot" => vec![b'"'],
        "apos" => vec![b'\''],
        _ => {
            let digits = name.strip_prefix('#')?;
            let hex = digits.strip_prefix(['x', 'X']);
            character(hex.map_or_else(|| number(digits, 10), |digits| number(digits, 16))?)?
        }
    };
    Some((meant, name.len() + 2))
}

/// The text with these ranges masked.
fn masked(text: &str, mut places: Vec<Range<usize>>) -> Cow<'_, str> {
    if places.is_empty() {
        return Cow::Borrowed(text);
    }
    places.sort_by_key(|place| (place.start, std::cmp::Reverse(place.end)));
    let (mut left, mut end) = (String::with_capacity(text.len()), 0);
    let mut places = places.into_iter().peekable();
    while let Some(mut place) = places.next() {
        while let Some(next) = places.next_if(|next| next.start <= place.end) {
            place.end = place.end.max(next.end);
        }
        // Never split a character.
        let is_boundary = |at: &usize| text.is_char_boundary(*at);
        let start = (0..=place.start).rev().find(is_boundary).unwrap_or(0).max(end);
        left.push_str(&text[end..start]);
        left.push_str(MASK);
        end = (place.end..=text.len()).find(is_boundary).unwrap_or(text.len()).max(start);
    }
    left.push_str(&text[end..]);
    Cow::Owned(left)
}

/// Every form that is worth searching for, without duplicates.
fn forms(secret: &str) -> Vec<Form> {
    let plain = |text: String| Form { text, is_base64: false };
    let mut forms = vec![plain(secret.to_owned())];
    if secret.len() > LONGEST_ENCODED {
        let beginning: String = secret.chars().take(BEGINNING).collect();
        // What follows it in the alphabet of tokens belongs to it.
        let is_long = |form: &Form| form.text.len() >= BEGINNING;
        forms.extend(self::forms(&beginning).into_iter().filter(is_long).map(|form| Form { is_base64: true, ..form }));
        return forms;
    }
    let encoded = [percent(secret, "%20", false), percent(secret, "+", false), percent(secret, "%20", true)];
    forms.extend(encoded.into_iter().chain([in_json(secret), in_html(secret)]).map(plain));
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    forms.extend([hex.to_uppercase(), hex, secret.replace(' ', "+")].map(plain));
    for base64 in (0..3).map(|offset| in_base64(secret, offset)).filter(|text| text.len() >= SHORTEST_BASE64) {
        let for_urls = base64.replace('+', "-").replace('/', "_");
        forms.extend([base64, for_urls].map(|text| Form { text, is_base64: true }));
    }
    let mut seen = std::collections::HashSet::new();
    forms.retain(|form| seen.insert(form.text.clone()));
    forms
}

/// The secret as it appears in a query or a form; `space` is the encoding of a space.
fn percent(secret: &str, space: &str, is_lower: bool) -> String {
    let mut text = String::with_capacity(secret.len());
    for byte in secret.bytes() {
        match byte {
            b' ' => text.push_str(space),
            b if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') => text.push(char::from(b)),
            b if is_lower => text.push_str(&format!("%{b:02x}")),
            b => text.push_str(&format!("%{b:02X}")),
        }
    }
    text
}

fn in_json(secret: &str) -> String {
    let quoted = serde_json::Value::from(secret).to_string();
    quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().to_owned()
}

fn in_html(secret: &str) -> String {
    let text = secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;").replace('\'', "&#39;")
}

/// The characters of base64 that depend only on `secret` if `offset` bytes (modulo 3), such as a user name, precede it.
fn in_base64(secret: &str, offset: usize) -> String {
    let bytes: Vec<u8> = std::iter::repeat_n(0, offset).chain(secret.bytes()).collect();
    let text = STANDARD.encode(&bytes);
    let first = [0, 2, 3][offset % 3];
    let last = bytes.len() * 8 / 6;
    text.get(first..last).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_hidden_plain_and_in_every_encoding() {
        let secret = "pa ss/\"wörd&1";
        conceal(secret);
        let auth = |user: &str| STANDARD.encode(format!("{user}:{secret}"));
        for text in [
            format!("you sent {secret}!"),
            format!("Basic {} is wrong", auth("me")),
            format!("Basic {} is wrong", auth("you")),
            format!("Basic {} is wrong", auth("them")),
            format!("Basic {}", auth("robot$a").replace('+', "-").replace('/', "_")),
            "https://x/?password=pa%20ss%2F%22w%C3%B6rd%261&n=1".to_owned(),
            "https://x/?password=pa+ss%2F%22w%C3%B6rd%261".to_owned(),
            "https://x/?password=pa%20ss%2f%22w%c3%b6rd%261".to_owned(),
            serde_json::json!({ "detail": secret }).to_string(),
            "<p>pa ss/&quot;wörd&amp;1</p>".to_owned(),
            serde_json::json!({ "detail": secret }).to_string().replace('/', "\\/"),
            "https://x/?password=%70%61%20%73%73%2f%22%77%c3%b6%72%64%26%31".to_owned(),
            "https://x/?password=%70%61%20%73%73%2F%22%77%C3%B6%72%64%26%31".to_owned(),
            "70612073732f2277c3b672642631".to_owned(),
        ] {
            let shown = redacted(&text);
            let leaks = ["pa ss", "pa+ss", "pa%20ss", "B6rd", "b6rd", "wörd"];
            assert!(shown.contains(MASK) && !leaks.iter().any(|leak| shown.contains(leak)), "{text}: {shown}");
            assert!(!shown.contains(&auth("me")[..8]), "{text}: {shown}");
        }
        assert_eq!(redacted("https://x/?password=pa%20ss%2F%22w%C3%B6rd%261&n=1"), "https://x/?password=***&n=1");
        assert!(matches!(redacted("nothing of it"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_secret_is_hidden_behind_repeated_escapes_and_line_breaks() {
        conceal("pw-Top_Secret.1");
        let twice = "pw%252DTop%255fSecret.1";
        for text in [
            "pw%2DTop_Secret.1",
            "pw%2dTop%5fSecret%2e1",
            "pw%2DTop%5fSecret.1",
            twice,
            &twice.replace('%', "%25"),
            r"pw\u002dTop_Secret.1",
            r"pw\u002DTop\x5fSecret\.1",
            r"pw\u002dTop\\u005fSecret.1",
            "pw&#45;Top&#x5F;Secret.1",
            "pw&amp;#45;Top_Secret.1",
            "pw-Top_\nSecret.1",
            "pw-Top_\r\nSecr\net.1",
            r"pw-Top_\nSecret.1",
            "cHctVG9wX1Nl\nY3JldC4x",
        ] {
            for text in [text.to_owned(), format!("caf\u{e9}%C3%A9%ff: {text}!")] {
                let shown = redacted(&text);
                assert!(shown.contains(MASK), "{text}");
                assert!(
                    !["pw", "Top", "Secr", "ecret", "VG9w"].iter().any(|leak| shown.contains(leak)),
                    "{text}: {shown}"
                );
                assert!(
                    !text.ends_with('!') || shown.starts_with("caf\u{e9}%C3%A9%ff: *") && shown.ends_with('!'),
                    "{shown}"
                );
            }
        }
        for text in ["%", "%zz", "100% of it", "\\", "&;", "&#;", "&#x110000;", "&amp", r"\u12", "%+1", "é%é\\é&é"]
        {
            assert_eq!(redacted(text), text);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[%&\\\\#xu0-9a-f;é\n]{0,40}") {
            conceal("0123");
            let _ = redacted(&text);
        }
    }

    #[test]
    fn no_part_of_a_password_is_shown_if_an_answer_ends_within_it() {
        let secret: String = (0..1500_u32).map(|n| char::from(b'A' + (n * n % 26) as u8)).collect();
        conceal(&secret);
        let whole = STANDARD.encode(format!("AWS:{secret}"));
        for shown in [&whole[..], &whole[..300], &secret[..], &secret[..300]] {
            let text = format!("Authorization: Basic {shown}");
            assert_eq!(redacted(&text), "Authorization: Basic ***");
        }
    }

    #[test]
    fn a_secret_within_another_does_not_reveal_it_and_short_ones_hide_nothing() {
        ["hunter", "hunter2-long", "abc", ""].into_iter().for_each(conceal);
        assert_eq!(redacted("hunter2-long and hunter, abc"), "*** and ***, abc");
    }
}
