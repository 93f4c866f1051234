//! The file of `skopeo sync --src yaml`: skopeo's dry run and gapferry's rules select the same images of a real
//! registry.

use gapferry::oci::Tag;
use gapferry::pipeline::allowlist::{Allowlist, Select};

use crate::support::registry::Registry;
use crate::support::{images, skopeo, tempdir};

const TAGS: [(&str, &[&str]); 4] = [
    ("app", &["1.10", "1.1", "2.0", "007", "0x10", "1e3", "on", "null", "1_000", "v3", "latest"]),
    ("org/deep/app", &["1.2", "1.2-alpine", "1x2", "11.2", "v1.2.3", "edge", "a-b", "a.b"]),
    ("base", &["3.11", "3.12", "3.12.9", "v3.13", "4", "20240101", "3.19-alpine", "latest"]),
    ("all", &["x", "y"]),
];

fn filled_registry() -> Registry {
    let registry = Registry::start();
    for (repository, tags) in TAGS {
        for tag in tags {
            images::oci(repository, tag, &["content"]).push(&registry);
        }
    }
    registry
}

/// The images skopeo would copy, sorted; it logs one line for each.
fn by_skopeo(yaml: &str) -> Vec<String> {
    let directory = tempdir();
    let file = directory.path().join("sync.yaml");
    std::fs::write(&file, yaml).unwrap();
    let target = directory.path().join("out");
    let arguments = ["sync", "--scoped", "--dry-run", "--src", "yaml", "--dest", "dir"];
    let paths = [file.to_str().unwrap(), target.to_str().unwrap()];
    let output = skopeo::try_run(&[&arguments[..], &paths[..]].concat());
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    let from = |line: &str| Some(line.split_once("from=\"docker://")?.1.split_once('"')?.0.to_owned());
    let mut references: Vec<String> = log.lines().filter_map(from).collect();
    references.sort();
    references
}

/// The images gapferry's rules select from the registry's tags, sorted.
fn by_us(registry: &Registry, yaml: &str) -> Vec<String> {
    let list = Allowlist::parse_sources(&[], &[("sync.yaml".to_owned(), yaml.as_bytes().to_vec())])
        .unwrap_or_else(|problems| panic!("{problems:#?}"));
    let mut references = Vec::new();
    for rule in &list.rules {
        if let Select::One(reference) = &rule.select {
            references.push(reference.to_string());
            continue;
        }
        let repository = rule.select.repository();
        let tags = registry.tags(repository.path()).into_iter().map(|tag| tag.parse::<Tag>().unwrap());
        references.extend(tags.filter(|tag| rule.select.matches(tag)).map(|tag| repository.with_tag(tag).to_string()));
    }
    references.sort();
    references
}

/// `body` is the part of the file below the registry's key; `expected` is the number of images it selects.
#[track_caller]
fn assert_same(registry: &Registry, body: &str, expected: usize) {
    let yaml = format!("{}:\n  tls-verify: false\n{body}", registry.host());
    let ours = by_us(registry, &yaml);
    assert_eq!(ours, by_skopeo(&yaml), "{yaml}");
    assert_eq!(ours.len(), expected, "{yaml}\n{ours:#?}");
}

#[test]
fn tags_and_digests_select_the_same_images_in_every_notation() {
    let registry = filled_registry();
    let digest = registry.digest("base", "4").unwrap();
    let body = format!(
        "  images:\n    app: [1.10, 1.1, \"2.0\", '007', 0x10, 1e3, on, 1_000, v3]\n    base:\n    - {digest}\n    - 3.12\n    \
         all: []\n    org/deep/app:\n"
    );
    assert_same(&registry, &body, 9 + 2 + 2 + 8);
    assert_same(&registry, "  images: {app: [007, \"on\", \"null\"], all: ~}\n", 5);
    assert_same(&registry, "  images:\n    base: &t [3.12, latest]\n    app: [latest]\n    all: []\n", 5);
}

#[test]
fn yaml_tags_that_look_like_numbers_dates_or_booleans_keep_their_text() {
    let registry = Registry::start();
    let tags = "[2024-01-01, 2024-01-01T00, 0o17, 0b1, 1., 12e03, 0.10, 00, 1_0, 1__0, 685_230.15, 9999999999999999999999, 1e400, true, Yes, \
                OFF, y, N, nan, inf, 0x_1, 1-2, 4.0.0, True, TRUE]";
    assert_same(&registry, &format!("  images: {{app: {tags}}}\n"), 25);
    assert_same(
        &registry,
        &format!("  images:\n    app: {}\n", tags.replace('[', "\n    - ").replace(", ", "\n    - ").replace(']', "")),
        25,
    );
    assert_same(
        &registry,
        "  images:\n    1.10: [a]\n    007/x: [a]\n    on: [a]\n    1e3: [a]\n    0x1f: [a]\n    2024-01-01: [a]\n",
        6,
    );
    assert_same(
        &registry,
        "  images:\n    app:\n    - !!str 1.10\n    - !!str on\n    - |-\n      2.0\n    - >-\n      7\n    - '1.0' # x\n    - &a 1.20\n    x: [*a]\n",
        7,
    );
}

#[test]
fn patterns_select_the_same_tags_as_skopeo() {
    let registry = filled_registry();
    for (pattern, expected) in [
        (r"^1\.2", 2),
        ("1.2", 5),
        (r"\d$", 4),
        (r"^\pL", 4),
        (r"\A\Q1.2\E", 2),
        (r"^[[:digit:]]+\.[[:digit:]]+$", 2),
        (r"^a[-.]b$", 2),
        (r"^a[]&&.[-]b$", 2),
        (r"(?i)ALPINE|EDGE", 2),
        (r"^v?1\.2(?P<rest>[.-].*)?\z", 3),
        ("x{,2}", 0),
        (r"^\x31", 4),
    ] {
        let body = format!("  images-by-tag-regex:\n    org/deep/app: '{pattern}'\n  images: {{all: [x]}}\n");
        assert_same(&registry, &body, expected + 1);
    }
}

#[test]
fn version_ranges_select_the_same_tags_as_skopeo() {
    let registry = filled_registry();
    let program = std::fs::read("/usr/bin/skopeo").unwrap_or_default();
    let knows = program.windows(16).any(|window| window == b"images-by-semver");
    for (range, expected) in
        [(">=3.12", 5), ("~3.12", 2), ("^3", 4), ("3.12 - 4", 4), (">=3.12-0 <4", 4), ("<3.12 || 4", 2)]
    {
        let body = format!("  images-by-semver:\n    base: '{range}'\n");
        let yaml = format!("{}:\n  tls-verify: false\n{body}", registry.host());
        assert_eq!(by_us(&registry, &yaml).len(), expected, "{range}: {:?}", by_us(&registry, &yaml));
        if knows {
            assert_same(&registry, &body, expected);
        }
    }
}

#[test]
fn an_entry_that_skopeo_silently_skips_is_an_error() {
    let registry = filled_registry();
    let yaml = format!(
        "{}:\n  tls-verify: false\n  images:\n    all: [x, \"-y\"]\n    BAD: [x]\n  image: {{}}\n",
        registry.host()
    );
    assert_eq!(by_skopeo(&yaml), [format!("{}/all:x", registry.host())]);
    let problems = Allowlist::parse_sources(&[], &[("s.yaml".to_owned(), yaml.into_bytes())]).unwrap_err();
    let places: Vec<String> = problems.iter().map(|problem| problem.at.to_string()).collect();
    assert_eq!(places, ["s.yaml:4", "s.yaml:5", "s.yaml:6"]);
}
