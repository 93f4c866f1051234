//! Makes foreign text safe for a terminal.
//!
//! # Threats
//! A bundle or a registry may send escape sequences that move the cursor, rename the window or hide a line, and characters
//! that reverse the writing direction. They are shown as `\u001b`, which keeps its meaning inside JSON.

use std::borrow::Cow;

use serde_json::Value;

use super::redact::redacted;

/// Escapes every control character except line ends, in text of our own with one or more lines.
pub fn plain(text: &str) -> Cow<'_, str> {
    shown(text, |c| c != '\n' && speaks_to_terminal(c))
}

/// Escapes foreign text for use within a line: it cannot end the line either.
pub fn plain_piece(text: &str) -> Cow<'_, str> {
    shown(text, speaks_to_terminal)
}

/// Prepares one message for standard error: one line, no control characters, no secrets. Every message passes through here.
pub fn shown_line(text: &str) -> String {
    plain_piece(&redacted(text)).into_owned()
}

/// Does the same for a JSON object. Secrets are masked in its strings before rendering: in the finished line, a numeric
/// password could be part of a number.
pub fn shown_json(mut object: Value) -> String {
    mask(&mut object);
    plain_piece(&object.to_string()).into_owned()
}

fn mask(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(masked) = redacted(text) {
                *text = masked;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(mask),
        Value::Object(fields) => fields.values_mut().for_each(mask),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Whether a terminal may act on the character: controls (including 8-bit ones), marks that change the writing direction, and
/// characters that some terminals treat as a line end.
fn speaks_to_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn shown(text: &str, hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&hidden) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if hidden(c) {
            plain.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            plain.push(c);
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_text_direction_marks_are_made_visible_and_foreign_line_breaks_too() {
        let text = "a\u{1b}[2J\u{7}\u{9b}\u{202e}é\nb";
        assert_eq!(plain(text), "a\\u001b[2J\\u0007\\u009b\\u202eé\nb");
        assert_eq!(plain_piece("x\ny\rz"), "x\\u000ay\\u000dz");
        assert_eq!(plain_piece("x\u{2028}y\u{61c}"), "x\\u2028y\\u061c");
        assert!(matches!(plain("well\nand good"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_password_of_digits_is_masked_in_words_and_leaves_numbers_alone() {
        crate::base::progress::conceal("1234");
        let line = shown_json(serde_json::json!({ "bytes": 12345, "texts": ["user:1234@host"] }));
        assert_eq!(line, r#"{"bytes":12345,"texts":["user:***@host"]}"#);
    }
}
