use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::files::REF_NAME;
use crate::oci::Descriptor;

fn index(named: &[(&str, &[u8])]) -> LayoutIndex {
    let manifests: Vec<Value> = named
        .iter()
        .map(|(name, content)| {
            json!({"mediaType": "m", "digest": Digest::sha256(content), "size": content.len(), "x-kept": [1],
                "annotations": {REF_NAME: name}})
        })
        .collect();
    let index = json!({"schemaVersion": 2, "annotations": {"of": "somebody"}, "manifests": manifests});
    LayoutIndex::parse(index.to_string().as_bytes(), Path::new("/nowhere/Some-Layout.tar")).unwrap()
}

fn tags(names: &LayoutIndex, repository: &str) -> Vec<String> {
    let tags = names.tags(repository, None, "", usize::MAX).unwrap_or_default();
    tags.into_iter().map(|tag| tag.to_string()).collect()
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn json_of(names: &LayoutIndex) -> Vec<u8> {
    let mut json = Vec::new();
    names.write(&mut json).unwrap();
    json
}

fn view(content: &[u8]) -> Descriptor {
    Descriptor::new("m", Digest::sha256(content), 1)
}

fn put(repository: &Repository, name: &str, content: &[u8]) -> Change {
    Change::Tag { repository: repository.clone(), tag: tag(name), manifest: view(content), unlisted: vec![] }
}

#[test]
fn a_mirror_gives_only_what_the_named_registry_has() {
    let names = index(&[
        ("docker.io/org/same:1", b"a"),
        ("quay.io/org/same:1", b"b"),
        ("127.0.0.1:5000/org/same:1", b"c"),
        ("docker.io/library/web:1", b"d"),
    ]);
    let digest = |name: &str, registry: &str| names.digest(name, Some(registry), &tag("1"));
    for (name, registry, content) in [
        ("org/same", "docker.io", b"a"),
        ("org/same", "quay.io", b"b"),
        ("org/same", "127.0.0.1:5000", b"c"),
        ("quay.io/org/same", "quay.io", b"b"),
        ("127.0.0.1-5000/org/same", "127.0.0.1:5000", b"c"),
        ("library/web", "docker.io", b"d"),
    ] {
        assert_eq!(digest(name, registry), Some(Digest::sha256(content)), "{name} of {registry}");
    }
    for (name, registry) in
        [("library/web", "quay.io"), ("org/same", "evil.example"), ("org/same", "no registry"), ("org/same", "")]
    {
        assert_eq!(digest(name, registry), None, "{name} of {registry:?}");
    }
}

#[test]
fn an_image_answers_to_its_full_name_and_to_the_short_ones() {
    let names = index(&[("docker.io/library/nginx:1", b"a"), ("127.0.0.1:5000/team/app:2", b"b"), ("3.0", b"c")]);
    for (spelling, tag) in [
        ("nginx", "1"),
        ("library/nginx", "1"),
        ("docker.io/library/nginx", "1"),
        ("team/app", "2"),
        ("127.0.0.1-5000/team/app", "2"),
        ("127.0.0.1:5000/team/app", "2"),
        ("some-layout", "3.0"),
    ] {
        assert_eq!(tags(&names, spelling), [tag], "{spelling}");
    }
    assert!(!names.has("app", None));
    assert!(names.tags("app", None, "", 1).is_none());
    let listed: Vec<String> = names.repositories().into_iter().collect();
    assert_eq!(listed, ["library/nginx", "library/some-layout", "team/app"]);
}

#[test]
fn a_short_name_never_gives_the_image_of_another_host() {
    let names = index(&[
        ("docker.io/library/nginx:1", b"a"),
        ("quay.io/library/nginx:1", b"b"),
        ("quay.io/org/app:1", b"c"),
        ("ghcr.io/org/app:1", b"d"),
        ("ghcr.io/org/app:2", b"e"),
        ("ghcr.io/org/app:3", b"f"),
        ("quay.io/org/app:3", b"f"),
    ]);
    let digest = |name: &str| names.digest(name, None, &tag("1"));
    assert_eq!(digest("library/nginx"), Some(Digest::sha256(b"a")));
    assert_eq!(digest("quay.io/library/nginx"), Some(Digest::sha256(b"b")));
    assert_eq!(digest("org/app"), None);
    assert_eq!(tags(&names, "org/app"), ["2", "3"], "1 differs between the hosts");
    assert_eq!(tags(&names, "quay.io/org/app"), ["1", "3"]);
    assert!(names.repositories().contains("quay.io/org/app") && !names.repositories().contains("org/app"));
}

#[test]
fn a_name_that_is_no_name_does_not_hide_the_others() {
    let hostile = ["../../etc/passwd:1", "a b", "/", "\n", "docker.io/A:1", "x@sha256:12", ""];
    let named: Vec<(&str, &[u8])> = hostile.iter().map(|name| (*name, name.as_bytes())).collect();
    let names = index(&[&named[..], &[("docker.io/library/nginx:1", b"a")]].concat());
    assert_eq!(names.repositories().into_iter().collect::<Vec<_>>(), ["library/nginx"]);
    for broken in ["", "[]", "{}", r#"{"manifests":{}}"#, r#"{"manifests":[1]}"#, r#"{"manifests":[{"digest":"x"}]}"#] {
        assert!(LayoutIndex::parse(broken.as_bytes(), Path::new("x")).is_err(), "{broken}");
    }
}

#[test]
fn a_push_keeps_what_others_wrote_into_the_index() {
    let mut names = index(&[("docker.io/library/nginx:1", b"a")]);
    let repository = names.recorded("team/app", None).unwrap();
    assert_eq!(repository.to_string(), "docker.io/team/app");
    names.apply(&put(&repository, "1", b"old"));
    names.apply(&put(&repository, "1", b"new"));
    let again = LayoutIndex::parse(&json_of(&names), Path::new("x")).unwrap();
    assert_eq!(tags(&again, "team/app"), ["1"]);
    assert_eq!(again.digest("team/app", None, &tag("1")), Some(Digest::sha256(b"new")));
    assert!(again.listed().any(|digest| digest == Digest::sha256(b"old")), "untagged, not lost");
    let text = String::from_utf8(json_of(&again)).unwrap();
    assert!(text.contains("x-kept") && text.contains("somebody"), "{text}");
    let digest = Digest::sha256(b"new");
    names.apply(&Change::Delete { repository, digest, kept: false });
    assert!(tags(&names, "team/app").is_empty());
}

#[test]
fn a_push_for_one_registry_is_recorded_as_that_ones() {
    let names = index(&[("docker.io/org/app:1", b"a"), ("quay.io/org/app:1", b"b"), ("r.example:5000/org/x:1", b"c")]);
    for (name, registry, expected) in [
        ("org/app", None, "docker.io/org/app"),
        ("org/app", Some("quay.io"), "quay.io/org/app"),
        ("quay.io/org/app", Some("quay.io"), "quay.io/org/app"),
        ("org/app", Some("new.example"), "new.example/org/app"),
        ("new.example/org/app", Some("new.example"), "new.example/org/app"),
        ("org/x", Some("r.example-5000"), "r.example:5000/org/x"),
        ("org/new", Some("registry-1.docker.io"), "docker.io/org/new"),
        ("new", Some("docker.io"), "docker.io/library/new"),
    ] {
        assert_eq!(names.recorded(name, registry).unwrap().to_string(), expected, "{name} of {registry:?}");
    }
}

/// Every descriptor, in no order.
fn content(names: &LayoutIndex) -> BTreeSet<String> {
    names.entries.iter().map(|(_, entry)| entry.raw.to_string()).collect()
}

fn any_change() -> impl proptest::strategy::Strategy<Value = Change> {
    use proptest::prelude::*;
    let digest = (0..4_u8).prop_map(|n| Digest::sha256(&[n]));
    let tag = (0..3_u8).prop_map(|n| tag(&format!("t{n}")));
    let repository = (0..2_u8).prop_map(|n| format!("docker.io/x/r{n}").parse::<Repository>().unwrap());
    (0..5_u8, repository, tag, digest.clone(), proptest::option::of(digest)).prop_map(
        |(kind, repository, tag, digest, other)| {
            let manifest = Descriptor::new("m", digest, 1);
            let unlisted = other.into_iter().filter(|other| *other != digest).collect();
            match kind {
                0 => Change::Tag { repository, tag, manifest, unlisted },
                1 => Change::List { repository, manifest, subject: other, unlisted: vec![] },
                2 => Change::Untag { repository, tag },
                kind => Change::Delete { repository, digest, kept: kind == 3 },
            }
        },
    )
}

proptest::proptest! {
    /// A server that was killed between writing the index and emptying the journal makes all changes again.
    #[test]
    fn changes_that_are_made_twice_are_as_good_as_once(changes in proptest::collection::vec(any_change(), 0..30)) {
        let once = |names: &mut LayoutIndex| changes.iter().for_each(|change| names.apply(change));
        let mut names = LayoutIndex::empty();
        once(&mut names);
        let mut again = LayoutIndex::parse(&json_of(&names), Path::new("x")).unwrap();
        once(&mut again);
        proptest::prop_assert_eq!(content(&again), content(&names));
        proptest::prop_assert_eq!(&again.deleted, &names.deleted);
        let json = json_of(&again);
        let read = LayoutIndex::parse(&json, Path::new("x")).unwrap();
        proptest::prop_assert_eq!(&read.deleted, &names.deleted);
        for name in ["x/r0", "x/r1"] {
            proptest::prop_assert_eq!(tags(&read, name), tags(&names, name));
            proptest::prop_assert_eq!(read.has(name, None), names.has(name, None));
        }
    }
}

#[test]
fn tags_come_in_pages_whatever_registries_have_them() {
    let named: Vec<(String, Vec<u8>)> = (0..20_u8)
        .flat_map(|n| {
            let host = ["quay.io", "ghcr.io"];
            host.map(|host| {
                (format!("{host}/org/app:t{n:02}"), if n.is_multiple_of(5) { host.into() } else { vec![n] })
            })
        })
        .collect();
    let named: Vec<(&str, &[u8])> = named.iter().map(|(name, content)| (name.as_str(), &content[..])).collect();
    let names = index(&named);
    let page = |last: &str, most| {
        let tags = names.tags("org/app", None, last, most).unwrap();
        tags.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(page("", 3), ["t01", "t02", "t03"]);
    assert_eq!(page("t03", 3), ["t04", "t06", "t07"]);
    assert_eq!(page("t17", 3), ["t18", "t19"]);
    assert_eq!(page("t1x", 3), [""; 0]);
    assert_eq!(page("t03!", 1), ["t04"], "what is no tag has its place in the order all the same");
}

#[test]
fn what_is_deleted_leaves_nothing_behind() {
    let mut names = LayoutIndex::empty();
    let repository: Repository = "quay.io/org/app".parse().unwrap();
    names.apply(&put(&repository, "1", b"x"));
    names.apply(&put(&repository, "2", b"x"));
    names.apply(&Change::Delete { repository: repository.clone(), digest: Digest::sha256(b"x"), kept: false });
    assert!(names.repositories.is_empty() && names.spellings.is_empty());
    assert_eq!((names.entries.len(), names.size()), (0, 0));
    let other = Arc::new(repository);
    assert_eq!(names.entries.of(Digest::sha256(b"x"), Some(&other)).count(), 0);
}

#[test]
fn a_referrer_that_an_index_names_stays_a_referrer() {
    let mut names = LayoutIndex::empty();
    let repository: Repository = "docker.io/team/app".parse().unwrap();
    let list = |content: &[u8], subject| {
        let (repository, manifest, unlisted) = (repository.clone(), view(content), vec![]);
        Change::List { repository, manifest, subject, unlisted }
    };
    names.apply(&list(b"plain", None));
    names.apply(&list(b"referrer", Some(Digest::sha256(b"subject"))));
    let children = vec![Digest::sha256(b"plain"), Digest::sha256(b"referrer")];
    let unlisted = names.listed_untagged(&repository, children);
    assert_eq!(unlisted, [Digest::sha256(b"plain")]);
    let (tag, manifest) = (tag("1"), view(b"index"));
    names.apply(&Change::Tag { repository, tag, manifest, unlisted });
    let again = LayoutIndex::parse(&json_of(&names), Path::new("x")).unwrap();
    assert!(again.lists("team/app", None, &Digest::sha256(b"referrer")));
    assert!(!again.lists("team/app", None, &Digest::sha256(b"plain")));
    assert!(!again.lists("team/other", None, &Digest::sha256(b"referrer")));
}

/// Content exists under any name, so a restart must not bring back what was deleted in only one repository.
#[test]
fn what_was_deleted_in_one_repository_alone_is_written_into_the_index() {
    let mut names = index(&[("docker.io/team/one:1", b"x"), ("docker.io/team/two:1", b"x")]);
    let [one, two]: [Repository; 2] = ["docker.io/team/one", "docker.io/team/two"].map(|name| name.parse().unwrap());
    let digest = Digest::sha256(b"x");
    let delete = |repository: &Repository, kept| Change::Delete { repository: repository.clone(), digest, kept };
    names.apply(&delete(&one, true));
    let mut again = LayoutIndex::parse(&json_of(&names), Path::new("x")).unwrap();
    assert!(again.is_deleted(&one, &digest) && !again.is_deleted(&two, &digest));
    again.apply(&put(&one, "2", b"x"));
    assert!(!again.is_deleted(&one, &digest));
    again.apply(&delete(&one, true));
    again.apply(&delete(&two, false));
    let text = String::from_utf8(json_of(&again)).unwrap();
    assert!(!text.contains(DELETED) && text.contains("somebody"), "{text}");
}

/// The annotations of an index may be anything; a deletion is remembered anyway.
#[test]
fn a_deletion_is_written_beside_broken_annotations() {
    for annotations in [json!(null), json!("text"), json!([1])] {
        let text = json!({"schemaVersion": 2, "annotations": annotations, "manifests": []}).to_string();
        let mut names = LayoutIndex::parse(text.as_bytes(), Path::new("x")).unwrap();
        let [one, two]: [Repository; 2] =
            ["docker.io/team/one", "docker.io/team/two"].map(|name| name.parse().unwrap());
        [&one, &two].iter().for_each(|repository| names.apply(&put(repository, "1", b"x")));
        let digest = Digest::sha256(b"x");
        names.apply(&Change::Delete { repository: one.clone(), digest, kept: true });
        let again = LayoutIndex::parse(&json_of(&names), Path::new("x")).unwrap();
        assert!(again.is_deleted(&one, &digest), "{annotations}");
    }
}
