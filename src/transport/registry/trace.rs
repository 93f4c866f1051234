//! URLs as logs and errors may show them.

use reqwest::Url;

/// Query keys of the distribution protocol whose values are no secrets; every other value is masked, since storage URLs
/// are signed in many ways.
const OPEN: [&str; 8] = ["digest", "mount", "from", "n", "last", "scope", "service", "artifactType"];

/// The URL with the values of its query masked.
pub(super) fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    let _ = shown.set_password(None);
    shown.set_fragment(None);
    let Some(query) = url.query() else { return shown.to_string() };
    let masked: Vec<String> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if OPEN.contains(&key) => format!("{key}={value}"),
            Some((key, _)) => format!("{key}=***"),
            None => "***".to_owned(),
        })
        .collect();
    shown.set_query(Some(&masked.join("&")));
    shown.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signed_url_does_not_show_its_signature() {
        let url = "https://s3/x?X-Amz-Signature=abc&digest=sha256:00&token=def&ghi".parse().unwrap();
        assert_eq!(shown(&url), "https://s3/x?X-Amz-Signature=***&digest=sha256:00&token=***&***");
    }
}
