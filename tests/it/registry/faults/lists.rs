//! Lists of tags and referrers whose pages end too early, too late or in the wrong place: they are read to their end,
//! or never taken for complete.

use gapferry::base::error::{Error, Kind};
use gapferry::content::{Need, Source, TagList};
use gapferry::oci::{Digest, Tag, media_type};

use super::{manifest, repo};
use crate::registry::memory_source::repository;
use crate::registry::memory_source::tag;
use crate::registry::{client, config};
use crate::support::faulty::{Answer, Seen, Server};

/// One parameter of the request's query.
fn parameter(request: &Seen, name: &str) -> Option<String> {
    let query = request.target.split_once('?')?.1;
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, v)| v.to_owned())
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("v{number:05}")).collect()
}

fn page(tags: &[String]) -> Answer {
    Answer::new(200).body(serde_json::json!({ "name": "a/b", "tags": tags }).to_string())
}

/// The tags after the request's `last`.
fn behind(request: &Seen, tags: &[String]) -> Vec<String> {
    let last = parameter(request, "last").unwrap_or_default();
    tags.iter().filter(|tag| **tag > last).cloned().collect()
}

async fn tags(server: &Server) -> Result<TagList, Error> {
    client(config()).tags(&repo(server), Need::Required).await
}

fn names(list: &TagList) -> Vec<String> {
    list.tags.iter().map(Tag::to_string).collect()
}

#[track_caller]
fn assert_whole(found: &TagList, expected: &[String], case: &str) {
    assert_eq!(names(found), expected, "{case}");
    assert!(found.doubts.is_empty(), "{case}: {:?}", found.doubts);
}

#[tokio::test]
async fn a_list_cut_without_a_link_is_read_to_its_end() {
    // (tags, the server's page limit, whether it supports `last`)
    let limits = [
        (2500, 1000, true),
        (1000, 1000, true),
        (250, 100, true),
        (1234, 10_000, false),
        (300, 64, true),
        (25, 7, true),
    ];
    for (count, most, knows_last) in limits {
        let all = numbered(count);
        let expected = all.clone();
        let server = Server::registry(move |request, _| {
            let mut rest = if knows_last { behind(request, &all) } else { all.clone() };
            rest.truncate(parameter(request, "n").unwrap().parse::<usize>().unwrap().min(most));
            page(&rest)
        });
        let server = server.await;
        assert_whole(&tags(&server).await.unwrap(), &expected, &format!("{count} tags, at most {most}"));
    }
}

#[tokio::test]
async fn a_registry_that_sends_the_whole_list_at_once_is_trusted() {
    // distribution 2.8 supports neither `n` nor `last`.
    for count in [0, 1, 10, 1200, 2000] {
        let all = numbered(count);
        let expected = all.clone();
        let server = Server::registry(move |_, _| page(&all)).await;
        assert_whole(&tags(&server).await.unwrap(), &expected, &format!("{count} tags"));
        assert!(server.seen().len() <= 3, "{count} tags cost {} requests", server.seen().len());
    }
    let server =
        Server::registry(|request, _| page(&numbered(if request.target.contains("/long/") { 9 } else { 7 }))).await;
    let registries = client(config());
    for name in ["long", "a", "b", "c"] {
        registries.tags(&repository(&server.address, name), Need::Required).await.unwrap();
    }
    assert_eq!(server.seen().len(), 2 + 3, "a list that is shorter than another costs one request");
}

#[tokio::test]
async fn a_possibly_cut_list_is_never_taken_for_complete() {
    // Exactly the requested length every time: there may be more, and the registry does not tell.
    let server = Server::registry(|_, _| page(&numbered(1000))).await;
    let found = tags(&server).await.unwrap();
    assert_eq!(found.tags.len(), 1000);
    assert!(found.doubts[0].contains("ends after 1000"), "{:?}", found.doubts);
    // A server that cuts at 100 and fails when asked for the next page.
    for status in [500, 502] {
        let server = Server::registry(move |request, _| match parameter(request, "last") {
            None => page(&numbered(100)),
            Some(_) => Answer::new(status),
        });
        assert_eq!(tags(&server.await).await.unwrap_err().kind(), Kind::Network, "{status}");
    }
}

#[tokio::test]
async fn a_list_that_ends_at_a_common_page_size_is_doubted_unless_shown_complete() {
    /// How a server without `last` answers a request for the next page, or for one entry.
    type Script = fn(&Seen, &[String]) -> Answer;
    let repeats: Script = |_, all| page(all);
    let refuses: Script = |r, all| if parameter(r, "last").is_some() { Answer::new(400) } else { page(all) };
    let cuts: Script = |r, all| if parameter(r, "n").unwrap() == "1" { page(&all[..1]) } else { page(all) };
    let says_so: Script = |r, all| match parameter(r, "n").unwrap() == "1" {
        true => page(&all[..1]).with("Link", "</v2/a/b/tags/list?n=1&last=v00000>; rel=next"),
        false => page(all),
    };
    // Pages of 50 by the server's own page number; it does not support `last`.
    let pages: Script = |r, all| match parameter(r, "page") {
        Some(_) => page(&all[50..]),
        None => page(&all[..50]).with("Link", "</v2/a/b/tags/list?page=2>; rel=next"),
    };
    let cases: [(&str, usize, Script, bool); 12] = [
        ("it says which page is the last", 100, pages, true),
        ("it repeats itself", 100, repeats, false),
        ("it repeats itself", 250, repeats, false),
        ("it repeats itself", 64, repeats, false),
        ("it repeats itself", 512, repeats, false),
        ("it repeats itself", 300, repeats, false),
        ("it refuses", 100, refuses, false),
        ("it cuts without a word", 50, cuts, false),
        ("it says where it cuts", 100, says_so, true),
        ("no usual number", 110, repeats, true),
        ("no usual number", 37, repeats, true),
        ("more than were asked for", 1200, repeats, true),
    ];
    for (case, count, script, is_whole) in cases {
        let server = Server::registry(move |request, _| script(request, &numbered(count))).await;
        let found = tags(&server).await.unwrap();
        assert_eq!(names(&found), numbered(count), "{case}: {count}");
        assert_eq!(found.doubts.is_empty(), is_whole, "{case}, {count}: {:?}", found.doubts);
        assert!(server.seen().len() <= 3, "{case}, {count}: {} requests", server.seen().len());
    }
    // A registry that sent a longer list does not cut where this one ends.
    let server = Server::registry(|r, _| page(&numbered(if r.target.contains("/long/") { 230 } else { 100 }))).await;
    let registries = client(config());
    for (name, count) in [("long", 230), ("a", 100)] {
        let found = registries.tags(&repository(&server.address, name), Need::Required).await.unwrap();
        assert_whole(&found, &numbered(count), name);
    }
}

#[tokio::test]
async fn the_next_page_is_found_whatever_form_a_gateway_gives_its_link() {
    type Link = fn(&Seen) -> String;
    let links: [(&str, Link); 9] = [
        ("relative to the host", |_| "</v2/a/b/tags/list?last=v00001>; rel=\"next\"".to_owned()),
        ("absolute", |r| format!("<http://{}/v2/a/b/tags/list?last=v00001>; rel=next", r.header("host"))),
        ("relative to the page", |_| "<list?last=v00001>; rel=\"next\"".to_owned()),
        ("relative to something else", |_| "<tags/list?last=v00001>; rel=\"next\"".to_owned()),
        ("a query alone", |_| "<?last=v00001>; rel=\"next\"".to_owned()),
        ("with the gateway's own path", |_| "</repository/hub/v2/a/b/tags/list?last=v00001>; rel=\"next\"".to_owned()),
        ("with a host of the inside", |_| "<http://inside.invalid/v2/a/b/tags/list?last=v00001>; rel=next".to_owned()),
        ("cut off", |_| "</v2/a/b/tags/list?last=v0".to_owned()),
        ("without brackets", |_| "/v2/a/b/tags/list?last=v00001; rel=\"next\"".to_owned()),
    ];
    for (case, link) in links {
        let all = numbered(4);
        let server = Server::registry(move |request, _| match request.target.starts_with("/v2/a/b/tags/list?") {
            false => Answer::new(404),
            true => {
                let rest = behind(request, &all);
                let answer = page(&rest[..rest.len().min(2)]);
                if rest.len() > 2 { answer.with("Link", link(request)) } else { answer }
            }
        });
        let server = server.await;
        assert_whole(&tags(&server).await.unwrap(), &numbered(4), case);
    }
}

/// Otherwise `import --prune` would delete the tags missing from a shortened list.
#[tokio::test]
async fn a_link_to_an_empty_page_or_to_another_repository_does_not_shorten_a_list() {
    type Script = fn(&Seen, &[String]) -> Answer;
    /// At most five of a repository's tags, with a Link of this path and these parameters.
    fn five(request: &Seen, tags: &[String], link: impl Fn(&str) -> String) -> Answer {
        let rest = behind(request, tags);
        let n: usize = parameter(request, "n").map_or(5, |n| n.parse().unwrap());
        let shown = &rest[..rest.len().min(n.min(5))];
        match shown.last() {
            Some(last) if shown.len() < rest.len() => page(shown).with("Link", format!("<{}>; rel=next", link(last))),
            _ => page(shown),
        }
    }
    let is_ours = |request: &Seen| request.target.starts_with("/v2/a/b/");
    let other: [String; 3] = ["v00001", "v00007", "w"].map(str::to_owned);
    let cases: [(&str, Script); 4] = [
        ("n=0 in the link", |r, all| five(r, all, |last| format!("/v2/a/b/tags/list?last={last}&n=0"))),
        ("the path of another repository", |r, all| match r.target.starts_with("/v2/a/b/") {
            true => five(r, all, |last| format!("/v2/b/tags/list?last={last}&n=5")),
            false => page(&["v00001", "v00007", "w"].map(str::to_owned)),
        }),
        ("a path with nothing", |r, all| match r.target.starts_with("/v2/a/b/") {
            true => five(r, all, |last| format!("/v2/b/tags/list?last={last}&n=5")),
            false => Answer::new(200).body(r#"{"name":"b","tags":null}"#),
        }),
        ("an empty page by a number of its own", |r, all| match parameter(r, "page") {
            Some(_) => page(&[]),
            None => five(r, all, |_| "/v2/a/b/tags/list?page=2".to_owned()),
        }),
    ];
    for (case, script) in cases {
        for count in [12, 10, 5] {
            let server = Server::registry(move |request, _| script(request, &numbered(count))).await;
            assert_whole(&tags(&server).await.unwrap(), &numbered(count), &format!("{case}, {count}"));
        }
    }
    // The last page is empty, and the page before it has a Link to it.
    let server = Server::registry(move |request, _| match behind(request, &numbered(4)) {
        rest if rest.is_empty() => page(&[]),
        rest if is_ours(request) => page(&rest).with("Link", "</v2/b/tags/list?last=v00003&n=4>; rel=next"),
        _ => page(&other),
    });
    let server = server.await;
    assert_whole(&tags(&server).await.unwrap(), &numbered(4), "an empty last page");
    assert!(server.seen().len() <= 3, "{} requests", server.seen().len());
}

#[tokio::test]
async fn a_page_that_cannot_be_fetched_is_named_and_fails_the_list() {
    let server = Server::registry(|request, _| match request.target.contains("last=") {
        false => page(&numbered(3)).with("Link", r#"</elsewhere/v2/a/b/tags/list?last=v00002>; rel="next""#),
        true => Answer::new(400).body(r#"{"errors":[{"code":"UNSUPPORTED","message":"not here"}]}"#),
    });
    let server = server.await;
    let error = tags(&server).await.unwrap_err().chain();
    assert!(error.contains("/v2/a/b/tags/list?last=v00002") && error.contains("not here"), "{error}");
}

#[tokio::test]
async fn a_list_whose_pages_loop_ends_soon_and_is_not_taken_for_complete() {
    type Script = fn(&Seen) -> Answer;
    let scripts: [(&str, Script); 4] = [
        ("a page that leads to itself", |r| page(&numbered(2)).with("Link", format!("<{}>; rel=next", r.target))),
        ("a link that grows", |r| page(&numbered(2)).with("Link", format!("<{}&n=50>; rel=next", r.target))),
        ("a second page like the first", |r| match r.target.contains("page=2") {
            false => page(&numbered(2)).with("Link", "<?page=2>; rel=next"),
            true => page(&numbered(2)),
        }),
        ("empty pages without end", |r| page(&[]).with("Link", format!("<{}&x=1>; rel=next", r.target))),
    ];
    for (case, script) in scripts {
        let server = Server::registry(move |request, _| script(request)).await;
        let error = tags(&server).await.expect_err(case);
        assert_eq!(error.kind(), Kind::Network, "{case}: {error:?}");
        assert!(server.seen().len() < 20, "{case}: {} requests", server.seen().len());
    }
}

#[tokio::test]
async fn an_endless_list_is_stopped_before_memory_runs_out() {
    // Each page has new entries.
    let server = Server::registry(|_, at| {
        let tags: Vec<String> = (0..40_000).map(|number| format!("a-tag-of-some-length-{at}-{number}")).collect();
        page(&tags).with("Link", format!("</v2/a/b/tags/list?page={at}>; rel=next"))
    });
    let server = server.await;
    let error = tags(&server).await.unwrap_err().chain();
    assert!(error.contains("more than 250000 tags; name the images"), "{error}");
    assert!(server.seen().len() < 10, "{} pages of 40,000 tags were read", server.seen().len());
    let server =
        Server::registry(|_, _| Answer::new(200).body(format!(r#"{{"tags":[{}""]}}"#, "0,".repeat(2_000_000))));
    let error = tags(&server.await).await.unwrap_err();
    assert!(error.chain().contains("more than 250000 tags; name the images"), "{error:?}");
    assert_eq!(error.kind(), Kind::Refused, "this is a limit and not a network problem");

    let server = Server::registry(|_, at| {
        let link = format!("</v2/a/b/referrers/x?page={at}>; rel=next");
        let index =
            format!(r#"{{"schemaVersion":2,"manifests":[],"annotations":{{"a":"{}"}}}}"#, "x".repeat(3_000_000));
        Answer::new(200).with("Content-Type", media_type::OCI_INDEX).with("Link", link).body(index)
    });
    let server = server.await;
    let error = client(config()).referrers(&repo(&server), &Digest::sha256(b"x")).await.unwrap_err().chain();
    assert!(error.contains("does not end"), "{error}");
    assert!(server.seen().len() < 40, "{} pages of 3 MB were read", server.seen().len());
}

#[tokio::test]
async fn invalid_entries_make_a_list_doubtful_and_lose_no_others() {
    let server = Server::registry(|_, _| Answer::new(200).body(r#"{"tags":["1",null,"not a tag",7,"2"]}"#)).await;
    let found = tags(&server).await.unwrap();
    assert_eq!(names(&found), ["1", "2"]);
    assert_eq!(found.doubts.len(), 3, "{:?}", found.doubts);
    assert!(found.doubts[1].contains("not a tag"), "{:?}", found.doubts);
    for other in ["{}", r#"{"errors":[]}"#, r#"{"name":"a/b","errors":[{"code":"UNKNOWN"}]}"#, "<html>Sign in</html>"] {
        let server = Server::registry(move |_, _| Answer::new(200).body(other)).await;
        assert!(tags(&server).await.is_err(), "{other} is not taken for an empty list");
    }
}

#[tokio::test]
async fn a_list_with_errors_is_not_complete() {
    let body = r#"{"tags":["1","2"],"errors":[{"code":"UNKNOWN","message":"a backend did not answer"}]}"#;
    let server = Server::registry(move |_, _| Answer::new(200).body(body)).await;
    let found = tags(&server).await.unwrap();
    assert_eq!(names(&found), ["1", "2"]);
    assert!(found.doubts[0].contains("comes with errors"), "{:?}", found.doubts);
}

#[tokio::test]
async fn a_list_that_lacks_a_tag_the_registry_has_is_not_complete() {
    let server = Server::registry(|request, _| match request.target.contains("/tags/list") {
        true => page(&numbered(3)),
        false => manifest(),
    });
    let server = server.await;
    let registries = client(config());
    registries.manifest(&tag(&repo(&server), "hidden"), Need::Required).await.unwrap().unwrap();
    let found = registries.tags(&repo(&server), Need::Required).await.unwrap();
    assert!(found.doubts[0].contains("lacks hidden"), "{:?}", found.doubts);
}

#[tokio::test]
async fn referrers_are_read_through_links_with_a_gateways_own_path() {
    let entry = |of: &str| {
        format!(
            r#"{{"mediaType":"{}","digest":"{}","size":2}}"#,
            media_type::OCI_MANIFEST,
            Digest::sha256(of.as_bytes())
        )
    };
    let index = move |of: &str| {
        let body =
            format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{}]}}"#, media_type::OCI_INDEX, entry(of));
        Answer::new(200).with("Content-Type", media_type::OCI_INDEX).body(body)
    };
    let server = Server::registry(move |request, _| match request.target.as_str() {
        target if target.starts_with("/hub/") => Answer::new(404),
        target if target.contains("page=2") => index("second"),
        target => index("first").with("Link", format!("</hub{target}?page=2>; rel=\"next\"")),
    });
    // The server with the next page, of the two possible ones.
    let here = server.await;
    let server = Server::registry(move |request, _| match request.target.as_str() {
        target if target.starts_with("/hub/") => index("second"),
        target if target.contains("page=2") => manifest(),
        target => index("first").with("Link", format!("</hub{target}?page=2>; rel=\"next\"")),
    });
    let there = server.await;
    for server in [here, there] {
        let found = client(config()).referrers(&repo(&server), &Digest::sha256(b"x")).await.unwrap().found;
        let digests: Vec<Digest> = found.iter().map(|descriptor| descriptor.digest).collect();
        assert_eq!(digests, [Digest::sha256(b"first"), Digest::sha256(b"second")]);
    }
}
