//! `Link: <…>; rel="next"`: where a list goes on (RFC 8288, as far as registries use it).

/// The target of the next page, relative or absolute.
pub(super) fn next<'a>(headers: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    headers.flat_map(links).find(|(_, parameters)| is_next(parameters)).map(|(target, _)| target)
}

/// `(target, parameters)` of each link of one header; a target may hold commas, so it is not split at them first.
fn links(header: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut rest = header;
    while let Some((_, after)) = rest.split_once('<') {
        let Some((target, after)) = after.split_once('>') else { break };
        let end = after.find(",<").or_else(|| after.find(", <")).unwrap_or(after.len());
        found.push((target, &after[..end]));
        rest = &after[end..];
    }
    found
}

fn is_next(parameters: &str) -> bool {
    parameters.split(';').filter_map(|parameter| parameter.split_once('=')).any(|(name, value)| {
        let relations = value.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case("rel") && relations.split(' ').any(|r| r.eq_ignore_ascii_case("next"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_in_the_forms_registries_send() {
        for (header, target) in [
            (r#"</v2/a/tags/list?last=b&n=1>; rel="next""#, Some("/v2/a/tags/list?last=b&n=1")),
            ("<https://h/x?a=1,2>;rel=next", Some("https://h/x?a=1,2")),
            (r#"</p>; rel="prev", </n>; rel="next""#, Some("/n")),
            (r#"</n>; title="x"; REL="last Next""#, Some("/n")),
            (r#"</p>; rel="prev""#, None),
            ("</n; rel=next", None),
            ("", None),
        ] {
            assert_eq!(next([header].into_iter()), target, "{header}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_it_panic(header in "[<>;,=\" a-zé/]{0,60}") {
            let _ = next([header.as_str()].into_iter());
        }
    }
}
