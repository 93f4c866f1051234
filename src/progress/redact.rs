//! The secrets of this run, so that none of them is printed: what others say is searched for them before it is shown.
//!
//! # Threats
//! A registry, a gateway or a helper may repeat the credentials that it was sent, in an error, a header or an address: as they
//! are, or encoded for the place where they stand (base64 in `Authorization`, percent signs in a query, JSON, HTML).

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Shorter secrets are part of too many words.
const SHORTEST: usize = 4;
/// Fewer characters of base64 stand in other text by chance.
const SHORTEST_BASE64: usize = 6;
/// Of longer ones, such as tokens and the passwords of clouds, the beginning is searched for: what is shown of an answer may end
/// within them.
const LONGEST_ENCODED: usize = 512;
const BEGINNING: usize = 64;
const MASK: &str = "***";

/// One way in which a secret may stand in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Form {
    text: String,
    /// What is around it in the same alphabet belongs to it: the user's name, the rest of its first and last characters.
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

/// Tests run beside each other, and the secrets of one are the words of another.
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

/// From now on, [`redacted`] hides this text, whatever it is encoded in.
pub fn conceal(secret: &str) {
    if secret.len() < SHORTEST || known::read(|forms| forms.iter().any(|form| form.text == secret)) {
        return;
    }
    let new = forms(secret);
    known::change(|forms| {
        forms.extend(new);
        // One may be part of another.
        forms.sort_by_key(|form| std::cmp::Reverse(form.text.len()));
        forms.dedup();
    });
}

/// The text, with `***` where a secret stands in it.
pub fn redacted(text: &str) -> Cow<'_, str> {
    known::read(|forms| {
        let mut hidden = Cow::Borrowed(text);
        for form in forms.iter().filter(|form| text.contains(&form.text)) {
            hidden = Cow::Owned(without(&hidden, form));
        }
        hidden
    })
}

fn without(text: &str, form: &Form) -> String {
    let in_alphabet = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '-' | '_' | '=');
    let (mut left, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find(&form.text) {
        let (before, after) = (&rest[..at], &rest[at + form.text.len()..]);
        let (before, after) = match form.is_base64 {
            true => (before.trim_end_matches(in_alphabet), after.trim_start_matches(in_alphabet)),
            false => (before, after),
        };
        left.push_str(before);
        left.push_str(MASK);
        rest = after;
    }
    left + rest
}

/// Every form that is worth looking for, each once.
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
    // Some programs escape what they need not: PHP the slashes in JSON, others every character.
    let bytes = |before: &str| secret.bytes().map(|byte| format!("{before}{byte:02x}")).collect::<String>();
    let escaped = [bytes("%"), bytes("")].into_iter().flat_map(|text| [text.to_uppercase(), text]);
    forms.extend(escaped.chain([in_json(secret).replace('/', "\\/")]).map(plain));
    for base64 in (0..3).map(|offset| in_base64(secret, offset)).filter(|text| text.len() >= SHORTEST_BASE64) {
        let for_urls = base64.replace('+', "-").replace('/', "_");
        forms.extend([base64, for_urls].map(|text| Form { text, is_base64: true }));
    }
    let mut seen = std::collections::HashSet::new();
    forms.retain(|form| seen.insert(form.text.clone()));
    forms
}

/// As it stands in a query or a form; `space` as there.
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

/// The characters of base64 that `secret` alone decides when `offset` bytes (modulo 3) stand before it, such as a user's name.
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
    fn a_secret_is_hidden_as_it_is_and_in_every_encoding_it_may_be_repeated_in() {
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
    fn of_a_long_password_nothing_is_shown_where_an_answer_ends_within_it() {
        let secret: String = (0..1500_u32).map(|n| char::from(b'A' + (n * n % 26) as u8)).collect();
        conceal(&secret);
        let whole = STANDARD.encode(format!("AWS:{secret}"));
        for shown in [&whole[..], &whole[..300], &secret[..], &secret[..300]] {
            let text = format!("Authorization: Basic {shown}");
            assert_eq!(redacted(&text), "Authorization: Basic ***");
        }
    }

    #[test]
    fn a_secret_that_is_part_of_another_does_not_uncover_it_and_too_short_ones_hide_nothing() {
        ["hunter", "hunter2-long", "abc", ""].into_iter().for_each(conceal);
        assert_eq!(redacted("hunter2-long and hunter, abc"), "*** and ***, abc");
    }
}
