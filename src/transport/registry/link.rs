//! `Link: <…>; rel="next"`: where a list continues (RFC 8288, as far as registries use it).

/// What the `Link` headers of a page say about the next page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextPage<'a> {
    /// There is no next page.
    Nowhere,
    /// The target of the next page, relative or absolute.
    At(&'a str),
    /// There seems to be a next page, but this header cannot be parsed.
    Unreadable(&'a str),
}

/// What may separate links.
const SEPARATORS: [char; 3] = [' ', '\t', ','];

pub(super) fn next<'a>(headers: impl Iterator<Item = &'a str>) -> NextPage<'a> {
    let mut unreadable = None;
    for header in headers {
        let (links, rest) = links(header);
        if let Some((target, _)) = links.iter().find(|(_, parameters)| is_next(parameters)) {
            return NextPage::At(target);
        }
        if is_damaged(rest) || links.iter().any(|(_, parameters)| !says_relation(parameters)) {
            unreadable = Some(header);
        }
    }
    unreadable.map_or(NextPage::Nowhere, NextPage::Unreadable)
}

/// `(target, parameters)` of each link of a header, and the remainder that is not a link. A target may contain commas,
/// so the header is not split at them first.
fn links(header: &str) -> (Vec<(&str, &str)>, &str) {
    let mut found = Vec::new();
    let mut rest = header;
    while let Some((_, after)) = rest.split_once('<') {
        let Some((target, after)) = after.split_once('>') else { break };
        let end = end_of_link(after);
        found.push((target, &after[..end]));
        rest = &after[end..];
    }
    (found, rest)
}

/// Where the parameters of a link end: at a comma that another link or nothing follows, outside of quoted strings.
fn end_of_link(parameters: &str) -> usize {
    let mut is_quoted = false;
    let mut commas = parameters.char_indices().filter(|(_, c)| {
        is_quoted ^= *c == '"';
        *c == ',' && !is_quoted
    });
    let ends = |after: &str| {
        let after = after.trim_start_matches(SEPARATORS);
        after.is_empty() || after.starts_with('<')
    };
    commas.find(|(at, _)| ends(&parameters[*at..])).map_or(parameters.len(), |(at, _)| at)
}

/// Whether the remainder of a header contains a link that could not be parsed.
fn is_damaged(rest: &str) -> bool {
    !rest.trim_matches(SEPARATORS).is_empty()
}

fn is_next(parameters: &str) -> bool {
    relations(parameters).any(|relation| relation.eq_ignore_ascii_case("next"))
}

fn says_relation(parameters: &str) -> bool {
    relations(parameters).any(|relation| relation.bytes().any(|c| c.is_ascii_alphanumeric()))
}

fn relations(parameters: &str) -> impl Iterator<Item = &str> {
    let parameters = parameters.split(';').filter_map(|parameter| parameter.split_once('='));
    let values = parameters.filter(|(name, _)| name.trim().eq_ignore_ascii_case("rel")).map(|(_, value)| value);
    values.flat_map(|value| value.trim().trim_matches(['"', '\'']).split(' ')).filter(|relation| !relation.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_in_the_forms_registries_send() {
        for (header, target) in [
            (r#"</v2/a/tags/list?last=b&n=1>; rel="next""#, NextPage::At("/v2/a/tags/list?last=b&n=1")),
            ("<https://h/x?a=1,2>;rel=next", NextPage::At("https://h/x?a=1,2")),
            (r#"</p>; rel="prev", </n>; rel="next""#, NextPage::At("/n")),
            (r#"</n>; title="x"; REL="last Next""#, NextPage::At("/n")),
            ("</n>; rel='next'", NextPage::At("/n")),
            (r#"</n>; rel="next","#, NextPage::At("/n")),
            (r#"</p>; rel="prev", "#, NextPage::Nowhere),
            (r#"</p>; rel="prev",  </n>; rel="next""#, NextPage::At("/n")),
            ("</p>; rel=prev,\t</n>; rel=next", NextPage::At("/n")),
            ("</p>; rel=prev, </n>; rel=next,</l>; rel=last", NextPage::At("/n")),
            ("</p>; rel=prev,</n>; rel=next , , </l>; rel=last", NextPage::At("/n")),
            (r#"</n>; title="one, <two>"; rel="next""#, NextPage::At("/n")),
            (r#"</p>; rel="prev""#, NextPage::Nowhere),
            ("", NextPage::Nowhere),
        ] {
            assert_eq!(next([header].into_iter()), target, "{header}");
        }
    }

    #[test]
    fn a_malformed_link_does_not_end_the_list_early() {
        for header in [
            "</n; rel=next",
            r#"/n; rel="next""#,
            "https://h/v2/a/tags/list?last=b",
            "</p>; rel=prev, </n",
            "</n>",
            "</n>; rel=\"»\"",
        ] {
            assert_eq!(next([header].into_iter()), NextPage::Unreadable(header), "{header}");
        }
        assert_eq!(next(["</broken", "</n>; rel=next"].into_iter()), NextPage::At("/n"));
    }

    proptest::proptest! {
        #[test]
        fn no_header_causes_a_panic(header in "[<>;,=\" a-zé/]{0,60}") {
            let _ = next([header.as_str()].into_iter());
        }
    }
}
