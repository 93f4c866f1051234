//! Passwords in the wrong place: people write `user:password@host/name`, as for git. No message repeats the password.

/// The advice for people who do that.
pub const NO_PASSWORD_HERE: &str =
    "a name must not contain a password; give it with --creds, in an --authfile, or by `gapferry login`";

/// `text` with the password of `user:password@host` replaced by `***`; `None` if there is no password.
pub fn without_password(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (&text[..scheme.len() + 3], rest));
    let (before, host) = rest.rsplit_once('@')?;
    let (user, _) = before.split_once(':')?;
    let is_user_info = !scheme.is_empty() || !is_digest(before, host);
    is_user_info.then(|| format!("{scheme}{user}:***@{host}"))
}

/// Whether `name@rest` is a name with its digest: `host:5000/name@sha256:…` also has an @ and a colon.
fn is_digest(name: &str, rest: &str) -> bool {
    let algorithm = rest.split_once(':').map_or("", |(word, _)| word);
    let known = ["sha", "md5", "blake"].iter().any(|start| algorithm.starts_with(start) && !algorithm.contains('.'));
    let begins_with_host = name.split_once('/').is_some_and(|(first, _)| match first.split_once(':') {
        Some((_, port)) => !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()),
        None => true,
    });
    !rest.contains('/') && (known || begins_with_host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_before_a_host_are_masked_and_digests_are_not_passwords() {
        for (text, masked) in [
            ("user:pass@host/a:1", Some("user:***@host/a:1")),
            ("user:pa/ss@host:5000/a", Some("user:***@host:5000/a")),
            ("user:p@ss@host/a", Some("user:***@host/a")),
            ("https://user:pass@host:5000", Some("https://user:***@host:5000")),
            ("user:pass@host", Some("user:***@host")),
            ("user:pass@host:5000", Some("user:***@host:5000")),
            ("user:pass@[::1]:5000", Some("user:***@[::1]:5000")),
            ("user:pass@sha.example:5000", Some("user:***@sha.example:5000")),
            ("user:pa/ss@host", Some("user:***@host")),
            ("host:5000/a@12", None),
            ("a/b:1@12", None),
            ("nginx:1.27", None),
            ("nginx:1@sha256:12", None),
            ("host:5000/a/b:1@sha256:12", None),
            ("host:5000/a@md5:12", None),
            ("user@host/a", None),
            ("https://host:5000/a", None),
        ] {
            assert_eq!(without_password(text).as_deref(), masked, "{text}");
        }
    }
}
