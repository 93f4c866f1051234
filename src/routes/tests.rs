use super::*;
use std::path::Path;

fn parse(text: &str) -> Routes {
    Routes::parse(&[("r.conf".into(), text.into())]).unwrap()
}

fn problems(text: &str) -> Vec<String> {
    let problems = Routes::parse(&[("r.conf".into(), text.into())]).unwrap_err();
    problems.iter().map(ToString::to_string).collect()
}

fn repository(name: &str) -> Repository {
    name.parse().unwrap()
}

/// `name`, followed by `!` if any certificate is accepted.
fn places(routes: &Routes, name: &str) -> Vec<String> {
    let shown = |place: PullSource| format!("{}{}", place.repository, if place.insecure { "!" } else { "" });
    routes.pull(&repository(name)).unwrap().into_iter().map(shown).collect()
}

#[test]
fn mirrors_come_in_their_order_and_the_registry_last() {
    let routes = parse(
        "unqualified-search-registries = ['docker.io']\n\
         [[registry]]\nprefix = 'docker.io'\nlocation = 'registry.internal:5000/hub'\n\
         [[registry.mirror]]\nlocation = 'near.internal:5000'\ninsecure = true\n\
         [[registry.mirror]]\nlocation = '[::1]:5000/cache/'\n",
    );
    assert_eq!(
        places(&routes, "docker.io/library/nginx"),
        [
            "near.internal:5000/library/nginx!",
            "[::1]:5000/cache/library/nginx",
            "registry.internal:5000/hub/library/nginx"
        ]
    );
    assert_eq!(places(&routes, "quay.io/a/b"), ["quay.io/a/b"]);
    assert!(routes.warnings.is_empty(), "{:?}", routes.warnings);
}

#[test]
fn the_longest_prefix_counts_and_ends_where_a_component_ends() {
    let table = |prefix: &str, to: &str| format!("[[registry]]\nprefix = '{prefix}'\nlocation = '{to}'\n");
    let routes = parse(
        &[
            table("h.io", "one.io"),
            table("h.io/a", "two.io"),
            table("h.io/a/b/c", "three.io/x"),
            table("*.h.io", "any.io"),
        ]
        .concat(),
    );
    for (name, place) in [
        ("h.io/x", "one.io/x"),
        ("h.io/ab/x", "one.io/ab/x"),
        ("h.io/a/x", "two.io/x"),
        ("h.io/a/b/cd", "two.io/b/cd"),
        ("h.io/a/b/c", "three.io/x"),
        ("h.io/a/b/c/d", "three.io/x/d"),
        ("h.io:5000/a/x", "h.io:5000/a/x"),
        ("eu.h.io/a", "any.io/a"),
        ("a.eu.h.io/h.io/a", "any.io/h.io/a"),
        ("xh.io/a", "xh.io/a"),
        ("eu.h.io:5000/a", "eu.h.io:5000/a"),
        ("other.io/eu.h.io/a", "other.io/eu.h.io/a"),
    ] {
        assert_eq!(places(&routes, name), [place], "{name}");
    }
    let whole = routes.pull(&repository("h.io/a")).unwrap_err();
    let message = "following r.conf:4: h.io/a would be read as two.io, no repository";
    assert_eq!(whole.to_string(), message, "nothing is left of it but a host");
}

#[test]
fn a_domain_without_location_keeps_its_names_and_may_have_mirrors_and_a_path() {
    let routes =
        parse("[[registry]]\nprefix = '*.h.io/team'\ninsecure = true\n[[registry.mirror]]\nlocation = 'm.io'\n");
    assert_eq!(places(&routes, "eu.h.io/team/app"), ["m.io/app", "eu.h.io/team/app!"]);
    assert_eq!(places(&routes, "eu.h.io/teams/app"), ["eu.h.io/teams/app"]);
}

#[test]
fn what_a_mirror_is_for_is_kept() {
    let serves = |text: &str| -> Vec<Serves> {
        let routes = parse(&format!("[[registry]]\nlocation = 'h.io'\n{text}"));
        routes.pull(&repository("h.io/a")).unwrap().iter().map(|place| place.serves).collect()
    };
    let mirror = |more: &str| format!("[[registry.mirror]]\nlocation = 'm.io'\n{more}\n");
    let three = ["", "pull-from-mirror = 'digest-only'", "pull-from-mirror = 'tag-only'"].map(mirror).concat();
    assert_eq!(serves(&three), [Serves::All, Serves::Digests, Serves::Tags, Serves::All]);
    let old = format!("mirror-by-digest-only = true\n{}", mirror(""));
    assert_eq!(serves(&old), [Serves::Digests, Serves::All]);
}

#[test]
fn a_blocked_registry_is_neither_read_nor_written_and_the_line_is_named() {
    let routes = parse(
        "# no tags from there\n[[registry]]\nlocation = 'h.io'\nblocked = true\n[[registry]]\nlocation = 'h.io/ok'",
    );
    let (pull, push) =
        (routes.pull(&repository("h.io/a")).unwrap_err(), routes.push(&repository("h.io/a")).unwrap_err());
    for error in [pull, push] {
        assert_eq!(error.kind(), Kind::Refused);
        assert_eq!(error.to_string(), "reaching h.io/a: h.io is blocked (r.conf:2)");
    }
    assert_eq!(places(&routes, "h.io/ok/a"), ["h.io/ok/a"]);
}

#[test]
fn what_is_written_goes_where_it_was_told_to() {
    let routes = parse(
        "[[registry]]\nprefix = 'h.io'\nlocation = 'other.io'\ninsecure = true\n[[registry.mirror]]\nlocation = 'm.io'",
    );
    let place = routes.push(&repository("h.io/a")).unwrap();
    assert_eq!((place.repository, place.insecure), (repository("h.io/a"), true));
}

#[test]
fn everything_that_is_wrong_is_reported_at_once_with_its_line() {
    let reported = problems(
        "[[registry]]\n\
         insecure = 'yes'\n\
         location = 'https://h.io'\n\
         [[registry]]\n\
         [[registry]]\n\
         prefix = 'h.io'\n\
         [[registry]]\n\
         location = 'h.io/a'\n\
         mirror-by-digest-only = true\n\
         [[registry.mirror]]\n\
         location = 'm.io'\n\
         pull-from-mirror = 'all'\n\
         [[registry.mirror]]\n\
         pull-from-mirror = 'sometimes'\n\
         [[registry]]\n\
         prefix = 'h.io/a:1'\n\
         location = 'h io'\n",
    );
    for (line, word) in [
        (2, "insecure"),
        (3, "https://"),
        (4, "neither"),
        (5, "no `location`"),
        (10, "exclude each other"),
        (13, "no `location`"),
        (14, "sometimes"),
        (16, "tag"),
        (17, "h io"),
    ] {
        let at = format!("r.conf:{line}: ");
        assert!(
            reported.iter().any(|text| text.starts_with(&at) && text.contains(word)),
            "{line} {word}: {reported:#?}"
        );
    }
}

#[test]
fn version_1_and_what_is_no_toml_are_refused_and_never_taken_for_nothing() {
    let reported =
        problems("# old\n[registries.search]\nregistries = ['docker.io']\n[registries.block]\nregistries = ['x']\n");
    assert!(reported[0].starts_with("r.conf:2: ") && reported[0].contains("version 1"), "{reported:?}");
    assert!(problems("[[registry]\nlocation = 'h.io'\n")[0].starts_with("r.conf:1: "));
    assert!(problems("{\"registry\": []}")[0].starts_with("r.conf:1: "));
    assert!(problems("[registry]\nlocation = 'h.io'\n")[0].contains("[[registry]]"));
    let bytes = Routes::parse(&[("r.conf".into(), b"a = 1\nb = '\xff'\n".to_vec())]).unwrap_err();
    assert_eq!(bytes[0].to_string(), "r.conf:2: it is not UTF-8");
}

#[test]
fn a_misspelt_key_does_not_pass_unseen() {
    let routes = parse("credential-helpers = ['secretservice']\n[[registry]]\nlocation = 'h.io'\nblokced = true\n");
    let all = routes.warnings.join("\n");
    assert!(all.contains("r.conf:4: `blokced`") && all.contains("r.conf:1: `credential-helpers`"), "{all}");
}

fn write(directory: &Path, name: &str, location: &str) {
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, format!("[[registry]]\nprefix = 'h.io'\nlocation = '{location}'\n")).unwrap();
}

#[test]
fn files_are_found_where_podman_finds_them_and_a_named_one_stands_alone() {
    let ground = tempfile::tempdir().unwrap();
    let (system, home, named) =
        (ground.path().join("etc"), ground.path().join("home"), ground.path().join("named.conf"));
    let own = home.join(".config/containers");
    let location = |named: Option<&Path>, variable: Option<&Path>| {
        let env = |name: &str| match name {
            "HOME" => Some(home.display().to_string()),
            "CONTAINERS_REGISTRIES_CONF" => variable.map(|path| path.display().to_string()),
            _ => None,
        };
        let routes = Routes::load_below(&system, named, &env).unwrap();
        places(&routes, "h.io/a").concat()
    };
    assert_eq!(location(None, None), "h.io/a");
    write(&system, "registries.conf", "system.io");
    assert_eq!(location(None, None), "system.io/a");
    write(&system, "registries.conf.d/10-b.conf", "b.io");
    write(&system, "registries.conf.d/09-a.conf", "a.io");
    write(&system, "registries.conf.d/99-z.conf.off", "off.io");
    assert_eq!(location(None, None), "b.io/a");
    write(&own, "registries.conf.d/01.conf", "own-drop-in.io");
    assert_eq!(location(None, None), "own-drop-in.io/a");
    std::fs::remove_dir_all(own.join("registries.conf.d")).unwrap();
    write(&own, "registries.conf", "own.io");
    assert_eq!(location(None, None), "own.io/a", "the machine's drop-ins do not change a user's own file");
    write(ground.path(), "named.conf", "named.io");
    assert_eq!(location(None, Some(&named)), "named.io/a");
    assert_eq!(location(Some(&named), Some(Path::new("/nowhere"))), "named.io/a");
    assert_eq!(location(Some(Path::new("/dev/null")), None), "h.io/a");
    let missing = Routes::load_below(&system, Some(Path::new("/nowhere")), &|_| None).unwrap_err();
    assert_eq!(missing.to_string(), "reading /nowhere");
}

proptest::proptest! {
    #[test]
    fn no_file_makes_it_panic(text in "(\\[\\[registry(\\.mirror)?\\]\\]\n|(prefix|location|insecure) = ['a-z.*/:@\\[\\]]{0,12}\n|[ -~\n]{0,8}){0,8}") {
        if let Ok(routes) = Routes::parse(&[("r.conf".into(), text.into())]) {
            let _ = routes.pull(&repository("a.h.io:5000/b/c"));
        }
    }
}
