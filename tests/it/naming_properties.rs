//! For any images of a bundle and any map, a target name is legal or an error.

use gapferry::oci::{Digest, Reference};
use gapferry::pipeline::lock::{LockedImage, Rename};
use gapferry::pipeline::naming::{Map, Naming, Style, find_collisions, parse_target};
use proptest::prelude::*;

fn component() -> impl Strategy<Value = String> {
    "[a-z0-9]{1,6}([._-][a-z0-9]{1,3}){0,2}"
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(component(), 1..4).prop_map(|components| components.join("/"))
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9]{1,8}\\.[a-z]{2,4}(:[1-9][0-9]{0,3})?",
        "localhost:[1-9][0-9]{0,3}",
        any::<[u16; 8]>().prop_map(|groups| format!("[{}]:5000", std::net::Ipv6Addr::from(groups))),
    ]
}

fn reference() -> impl Strategy<Value = String> {
    (host(), path(), "[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}").prop_map(|(host, path, tag)| format!("{host}/{path}:{tag}"))
}

fn style() -> impl Strategy<Value = Style> {
    prop::sample::select(vec![Style::Default, Style::Scoped, Style::Flatten])
}

fn image(reference: &str, rename: Option<&str>, content: &[u8]) -> LockedImage {
    LockedImage {
        reference: reference.parse().unwrap(),
        rename: rename.map(|text| Rename::try_from(text.to_owned()).unwrap()),
        source: "source".into(),
        digest: Digest::sha256(content),
        media_type: String::new(),
        size: 0,
        total_size: 0,
        platforms: Vec::new(),
        selection: None,
        absent: Vec::new(),
        attached: None,
        attached_unknown: false,
    }
}

fn map_text() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "docker.io/",
        "quay.io",
        "library/",
        " -> ",
        "->",
        "~ ",
        "^",
        "(",
        ")",
        "(.*)",
        "[^/]+",
        "$1",
        "${1}",
        "${n}",
        "$$",
        "$",
        "(?P<n>a)",
        "/",
        "base",
        "#",
        " ",
        "\n",
        "\r\n",
        "\t",
        "é",
        "\u{feff}",
        "\u{0}",
        "\\.",
        ":1",
        "@",
        "..",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn every_style_gives_a_legal_name_with_the_same_tag(text in reference(), style in style(), prefix in prop::option::of(path())) {
        let image = image(&text, None, b"x");
        let naming = Naming { prefix: prefix.clone(), style, map: Map::default() };
        let target = naming.target("harbor.example:8443", &image).unwrap();
        prop_assert_eq!(target.to_string().parse::<Reference>().unwrap(), target.clone());
        prop_assert_eq!(&target.tag, &image.reference.tag);
        let below = target.repository.path();
        if let Some(prefix) = prefix {
            let expected = format!("{prefix}/");
            prop_assert!(below.starts_with(&expected));
        }
        let last = image.reference.repository.path().rsplit('/').next().unwrap_or_default();
        prop_assert!(below.rsplit('/').next() == Some(last));
    }

    #[test]
    fn scoped_names_keep_images_of_different_hosts_apart(a in host(), b in host(), path in path()) {
        let naming = Naming { style: Style::Scoped, ..Naming::default() };
        let name = |host: &str| naming.target("h", &image(&format!("{host}/{path}:x"), None, b"x")).unwrap();
        // Registry names are case-insensitive, and an address has many spellings. Otherwise one name means one host.
        if !a.eq_ignore_ascii_case(&b) {
            prop_assert_ne!(name(&a), name(&b));
        }
    }

    #[test]
    fn a_map_is_parsed_or_refused_and_never_makes_an_illegal_name(map in map_text(), any in any::<String>(), text in reference()) {
        for text_of_map in [map, any] {
            let Ok(map) = Map::parse(text_of_map.as_bytes(), "map") else { continue };
            for source in [text.as_str(), "nginx:1", "quay.io/a/b:1"] {
                let naming = Naming { map: map.clone(), ..Naming::default() };
                if let Ok(target) = naming.target("h.io", &image(source, None, b"x")) {
                    prop_assert_eq!(target.to_string().parse::<Reference>().ok(), Some(target));
                }
            }
        }
    }

    #[test]
    fn an_explicit_new_name_overrides_map_and_style(text in reference(), rename in path(), style in style()) {
        let map = Map::parse(b"~ .* -> elsewhere", "map").unwrap();
        let naming = Naming { prefix: Some("p".into()), style, map };
        let target = naming.target("h", &image(&text, Some(&rename), b"x")).unwrap();
        prop_assert_eq!(target.repository.path(), format!("p/{rename}"));
    }

    #[test]
    fn a_collision_is_found_exactly_where_one_name_has_two_digests(
        images in prop::collection::vec(("[ab]\\.io/[ab]/[ab]:[12]", 0u8..2), 0..12), style in style(),
    ) {
        let naming = Naming { style, ..Naming::default() };
        let images: Vec<LockedImage> = images.iter().map(|(text, content)| image(text, None, &[*content])).collect();
        let names: Vec<Reference> = images.iter().map(|image| naming.target("h", image).unwrap()).collect();
        let found = find_collisions(names.iter().zip(&images));
        let collides = |name: &Reference| {
            let mut digests: Vec<_> = names.iter().zip(&images).filter(|(n, _)| *n == name).map(|(_, i)| i.digest).collect();
            digests.sort();
            digests.dedup();
            digests.len() > 1
        };
        for name in &names {
            let listed = found.collisions.iter().filter(|collision| collision.target == *name).count();
            prop_assert_eq!(listed, usize::from(collides(name)));
        }
    }

    #[test]
    fn a_target_is_parsed_or_refused(any in any::<String>(), near in "[a-z:/.\\[\\]0-9A@-]{0,20}", host in host(), prefix in path()) {
        for text in [any, near] {
            if let Ok(target) = parse_target(&text) {
                let naming = Naming { prefix: target.prefix, ..Naming::default() };
                prop_assert!(naming.target(&target.registry, &image("nginx:1", None, b"x")).is_ok());
            }
        }
        let target = parse_target(&format!("{host}/{prefix}")).unwrap();
        prop_assert_eq!((target.registry, target.prefix), (host, Some(prefix)));
    }
}
