use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn read(files: &[(&str, &str)]) -> Result<Allowlist, Vec<String>> {
    let files: Vec<_> = files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect();
    Allowlist::parse_sources(&[], &files).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// Each rule as `line select [platforms] as`.
fn rules(name: &str, text: &str) -> Vec<String> {
    let list = read(&[(name, text)]).unwrap_or_else(|problems| panic!("{problems:#?}"));
    list.rules.iter().map(shown).collect()
}

fn shown(rule: &Rule) -> String {
    let line = rule.at.to_string().rsplit(':').next().unwrap_or_default().to_owned();
    let platforms: Vec<String> = rule.platforms.iter().map(ToString::to_string).collect();
    let mut text = format!("{line} {}", rule.select);
    if !platforms.is_empty() {
        text.push_str(&format!(" [{}]", platforms.join(",")));
    }
    if let Some(rename) = &rule.rename {
        text.push_str(&format!(" as {rename}"));
    }
    text
}

fn problems(name: &str, text: &str) -> Vec<String> {
    read(&[(name, text)]).map(|list| list.rules).expect_err("it should have been refused")
}

#[test]
fn text_takes_comments_blank_lines_crlf_and_a_byte_order_mark() {
    let text = format!(
        "\u{feff}# images\r\n\r\nnginx:1.27\t# web\r\n  quay.io/a/b platform=linux/amd64,linux/arm64 as=base/b\r\n\
         ghcr.io/x/y:v1@{DIGEST}\r\nghcr.io/x/z@{DIGEST} #pinned"
    );
    let expected = [
        "3 docker.io/library/nginx:1.27".to_owned(),
        "4 quay.io/a/b, all tags [linux/amd64,linux/arm64] as base/b".to_owned(),
        format!("5 ghcr.io/x/y:v1@{DIGEST}"),
        format!("6 ghcr.io/x/z@{DIGEST}"),
    ];
    assert_eq!(rules("list.txt", &text), expected);
}

#[test]
fn every_error_of_every_file_is_reported_at_once_with_its_line() {
    let first = "nginx:1.27 plat=linux/amd64\n\nquay.io/A/b\nok:1 platform=linux\nok:2 extra\nok:3 as=a as=b\nok:4 as=";
    let second = "- ref: a:b:c\n- ref: x\n  tag: y\n- [1]\n";
    let all = read(&[("a.txt", first), ("b.yaml", second)]).unwrap_err();
    let expected = [
        "a.txt:1: unknown key \"plat\"; known keys: platform, as",
        "a.txt:3: invalid reference \"quay.io/A/b\": repository names are lower case, \"A\" is not",
        "a.txt:4: invalid platform \"linux\": expected os/architecture or os/architecture/variant, such as linux/amd64",
        "a.txt:5: expected key=value after the reference, found \"extra\"; known keys: platform, as",
        "a.txt:6: as= is given twice",
        "a.txt:7: as= has no value",
        "b.yaml:1: invalid reference \"a:b:c\"",
        "b.yaml:3: unknown key \"tag\"; known keys: ref, platform, as",
        "b.yaml:4: expected a reference or a mapping with ref, platform, as, found a sequence",
    ];
    assert_eq!(all.len(), expected.len(), "{all:#?}");
    for (found, expected) in all.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
}

#[test]
fn one_new_name_for_several_images_is_refused_before_they_overwrite_each_other() {
    assert_eq!(rules("l", "quay.io/a/b as=c/d"), ["1 quay.io/a/b, all tags as c/d"]);
    assert_eq!(rules("l", "quay.io/a/b:1 as=c/d:2"), ["1 quay.io/a/b:1 as c/d:2"]);
    let refused = problems("l", "quay.io/a/b as=c/d:1");
    assert!(refused[0].contains("l:1: as=c/d:1 would give one name to several images"), "{refused:?}");
    assert!(problems("l", "quay.io/a/b:1 as=C/d")[0].starts_with("l:1: as=C/d: "));
    assert!(problems("l", &format!("a:1 as=b@{DIGEST}"))[0].contains("takes a tag, not a digest"));
}

#[test]
fn the_yaml_list_keeps_unquoted_tags_as_they_are_written() {
    let text = "# list\n- nginx:1.10\n- ref: 'quay.io/a/b:2.0'\n  platform: linux/amd64, linux/arm64\n\
                - ref: quay.io/c/d\n  platform:\n    - linux/arm/v7\n  as: e/f\n- {ref: \"x/y:1\", as: z:1.10}\n";
    let expected = [
        "2 docker.io/library/nginx:1.10",
        "3 quay.io/a/b:2.0 [linux/amd64,linux/arm64]",
        "5 quay.io/c/d, all tags [linux/arm/v7] as e/f",
        "9 docker.io/x/y:1 as z:1.10",
    ];
    assert_eq!(rules("list.yml", text), expected);
    let nested = format!("images:\n{}", text.replace("# list\n", ""));
    assert_eq!(rules("list.yml", &nested), expected);
}

const SKOPEO: &str = "\
registry.example.com:
  images:
    busybox: []
    redis:
      - 1.10
      - 0x10
      - 1e3
      - on
      - 007
      - 1_000
      - \"2.0\"
      - sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
    all:
  images-by-tag-regex:
    nginx: ^1\\.13\\.[12]-alpine-perl$
  images-by-semver:
    alpine: >= 3.12, < 4 || ~5
  credentials:
    username: john
    password: 0123
  tls-verify: false
  cert-dir: /etc/certs
quay.io:
  images:
    coreos/etcd: [latest]
library:
  images: {a: [x]}
docker.io:
  images: {a: [y]}
localhost:5000:
  images: {a: [z]}
";

#[test]
fn the_skopeo_file_is_read_as_it_is() {
    // A plain scalar cannot start with `>`, although the manual of skopeo quotes it so.
    let text = SKOPEO.replace(">= 3.12, < 4 || ~5", "\">= 3.12, < 4 || ~5\"");
    let list = read(&[("sync.yaml", &text)]).unwrap();
    let shown: Vec<String> = list.rules.iter().map(shown).collect();
    let expected = [
        "3 registry.example.com/busybox, all tags",
        "5 registry.example.com/redis:1.10",
        "6 registry.example.com/redis:0x10",
        "7 registry.example.com/redis:1e3",
        "8 registry.example.com/redis:on",
        "9 registry.example.com/redis:007",
        "10 registry.example.com/redis:1_000",
        "11 registry.example.com/redis:2.0",
        &format!("12 registry.example.com/redis@{DIGEST}"),
        "13 registry.example.com/all, all tags",
        "15 registry.example.com/nginx, tags matching ^1\\.13\\.[12]-alpine-perl$",
        "17 registry.example.com/alpine, versions >= 3.12, < 4 || ~5",
        "25 quay.io/coreos/etcd:latest",
        "27 docker.io/library/a:x",
        "29 docker.io/library/a:y",
        "31 localhost:5000/a:z",
    ];
    assert_eq!(shown, expected);
    let settings = &list.registries["registry.example.com"];
    assert_eq!(settings.tls_verify, Some(false));
    assert_eq!(settings.cert_dir.as_deref(), Some(std::path::Path::new("/etc/certs")));
    let credentials = settings.credentials.as_ref().unwrap();
    assert_eq!((credentials.username.as_str(), credentials.password.expose()), ("john", "0123"));
    assert!(!format!("{list:?}").contains("0123"));
    assert_eq!(list.registries.len(), 1);
}

#[test]
fn what_skopeo_would_skip_and_call_success_is_an_error_here() {
    let text = "\
reg.io:
  images:
    a: [\"-x\", \"sha256:12\", [b], ~]
    B: [x]
    c: latest
    \"d:1\": [x]
  images-by-tag-regex:
    a: \"(\"
    b: [x]
  images-by-semver:
    a: new
  tls_verify: true
  tls-verify: perhaps
  credentials: {user: secret-one, password: secret-two}
\"bad host\":
  images: {}
";
    let all = problems("s.yaml", text);
    let lines: Vec<&str> = all.iter().map(|p| p.split(": ").next().unwrap()).collect();
    let expected = [3, 3, 3, 3, 4, 5, 6, 8, 9, 11, 12, 13, 14, 15].map(|line| format!("s.yaml:{line}"));
    assert_eq!(lines, expected, "{all:#?}");
    assert!(!all.concat().contains("secret"), "{all:#?}");
}

#[test]
fn a_yaml_error_shows_its_line_and_no_secret() {
    let text = "reg.io:\n  credentials:\n    username: u\n    password: hunter2\n   bad: [\n";
    let all = problems("s.yaml", text);
    assert_eq!(all.len(), 1);
    assert!(all[0].starts_with("s.yaml:5: YAML: ") || all[0].starts_with("s.yaml:6: YAML: "), "{all:?}");
    assert!(!all[0].contains("hunter2") && !all[0].contains('\n'), "{all:?}");
}

#[test]
fn a_key_given_twice_is_an_error_because_one_of_them_would_be_lost() {
    let all = problems("s.yaml", "reg.io:\n  images:\n    a: [x]\n    a: [y]\n");
    assert!(all[0].starts_with("s.yaml:4: "), "{all:?}");
    assert!(!problems("s.yaml", "- a:1\n---\n- b:1\n").is_empty());
}

#[test]
fn aliases_and_merge_keys_work_and_a_bomb_does_not() {
    let text = "a.io: &a\n  images: {x: [\"1\"]}\nb.io: *a\nc.io:\n  <<: *a\n  tls-verify: true\n";
    let list = read(&[("s.yaml", text)]).unwrap();
    let shown: Vec<String> = list.rules.iter().map(|rule| rule.select.to_string()).collect();
    assert_eq!(shown, ["a.io/x:1", "b.io/x:1", "c.io/x:1"]);
    let shared: String = (0..1000).map(|i| format!("- {{ref: a.io/x:{i}, platform: *p}}\n")).collect();
    let list = read(&[("l.yaml", &format!("- {{ref: a.io/y, platform: &p [linux/amd64]}}\n{shared}"))]).unwrap();
    assert_eq!(list.rules.len(), 1001);
    let level = |n: usize, inner: &str| format!("a{n}: &a{n} {inner}\n");
    let grown: String = (1..12).map(|n| level(n, &format!("[{}]", format!("*a{},", n - 1).repeat(10)))).collect();
    let nested: String = (1..200).map(|n| level(n, &format!("[*a{}]", n - 1))).collect();
    for growth in [grown, nested] {
        assert!(problems("s.yaml", &(level(0, "[x]") + &growth))[0].contains("YAML: "));
    }
}

#[test]
fn nesting_that_would_exhaust_the_stack_is_refused() {
    for opening in ["[", "{", "- ", "? ", "[{", "{a: ", "- ? "] {
        for levels in [17, 100, 100_000] {
            assert!(!problems("s.yaml", &opening.repeat(levels)).is_empty());
        }
    }
}

#[test]
fn the_notation_is_chosen_by_name_or_content_and_not_by_order() {
    use Notation::{Text, Yaml};
    for (name, text, expected) in [
        ("a.yaml", "nginx:1.27", Yaml),
        ("a.YML", "", Yaml),
        ("a.txt", "quay.io:", Text),
        ("-", "", Text),
        ("-", "# x\n\nnginx:1.27 # a: b", Text),
        ("-", "nginx:1.27 platform=linux/amd64", Text),
        ("-", "[::1]:5000/a:x", Text),
        ("-", "localhost:5000/a", Text),
        ("-", "[nginx, redis]", Yaml),
        ("-", "# x\n---\nnginx", Yaml),
        ("-", "- nginx", Yaml),
        ("list", "quay.io: # registry\n  images:", Yaml),
        ("list", "localhost:5000:\n", Yaml),
        ("list", "images: [a]", Yaml),
        ("list", "{quay.io: {}}", Yaml),
        ("list", "-\n  ref: a", Yaml),
    ] {
        assert_eq!(Notation::of(name, text), expected, "{name} {text:?}");
    }
    let (a, b) = (("-", "nginx:1"), ("-", "- redis:1"));
    let shown = |list: Allowlist| -> Vec<String> { list.rules.iter().map(|rule| rule.select.to_string()).collect() };
    let one = shown(read(&[a, b]).unwrap());
    let mut other = shown(read(&[b, a]).unwrap());
    other.reverse();
    assert_eq!(one, other);
}

#[test]
fn duplicates_are_merged_with_a_notice_and_contradictions_name_both_lines() {
    let list = read(&[("a", "nginx:1\nquay.io/a/b"), ("b", "- docker.io/library/nginx:1\n- quay.io/a/b\n")]).unwrap();
    assert_eq!(list.rules.len(), 2);
    let expected = [
        "a:1: nginx:1 is docker.io/library/nginx:1",
        "b:1: docker.io/library/nginx:1 is already listed at a:1; merged",
        "b:2: quay.io/a/b, all tags is already listed at a:2; merged",
    ];
    assert_eq!(list.notices, expected);
    assert_eq!(rules("a", "x.io/a:1 platform=linux/amd64,linux/386\nx.io/a:1 platform=linux/386,linux/amd64").len(), 1);
    let refused = problems("a", "x.io/a:1 platform=linux/amd64\nx.io/a:1\nx.io/a:1 as=b platform=linux/amd64");
    let expected = [
        "a:2: x.io/a:1 is already listed at a:1 with other platforms; keep one of the two",
        "a:3: x.io/a:1 is already listed at a:1 with another as=; keep one of the two",
    ];
    assert_eq!(refused, expected);
    let settings = ("s.yaml", "a.io:\n  tls-verify: true\n");
    let others = ("t.yaml", "a.io:\n  tls-verify: false\n");
    assert!(read(&[settings, settings]).is_ok());
    assert!(
        read(&[settings, others]).unwrap_err()[0].contains("t.yaml:1: the settings of a.io differ from those at s")
    );
}

#[test]
fn arguments_are_rules_too_and_their_errors_say_which() {
    let args = ["nginx:1.27".to_owned(), "quay.io/a".to_owned()];
    let list = Allowlist::parse_sources(&args, &[]).unwrap();
    assert_eq!(list.rules[1].at.to_string(), "command line, reference 2");
    assert_eq!(list.rules[0].written, "nginx:1.27");
    let problems = Allowlist::parse_sources(&["a b".to_owned(), "https://x/y".to_owned()], &[]).unwrap_err();
    assert_eq!(problems.len(), 2);
    let error = refused("the allowlist", &problems);
    assert_eq!(error.kind(), crate::base::error::Kind::Input);
    assert!(error.lines()[2].starts_with("command line, reference 2: invalid reference"), "{error:?}");
}

#[test]
fn a_file_that_is_no_text_is_refused_with_its_line() {
    for (bytes, expected) in [
        (&b"nginx:1\n\xff\n"[..], "f:2: not UTF-8 text"),
        (b"nginx:1\n\n\0", "f:3: a NUL byte; this is not a text file"),
        (b"\xff\xfen\0g\0", "f:1: the file is UTF-16; save it as UTF-8"),
    ] {
        let problems = Allowlist::parse_sources(&[], &[("f".to_owned(), bytes.to_vec())]).unwrap_err();
        assert_eq!(problems[0].to_string(), expected);
    }
    let list = read(&[("empty", "# nothing\n"), ("empty.yaml", "")]).unwrap();
    assert_eq!(list.notices, ["empty: it contains no image", "empty.yaml: it contains no image"]);
}

#[test]
fn selections_match_the_tags_that_skopeo_would_take() {
    let text = "r.io:\n  images-by-tag-regex: {a: \"1\\\\.2\"}\n  images-by-semver: {b: \">=3.12\"}\n  images: {c: }\n";
    let list = read(&[("s.yaml", text)]).unwrap();
    let chosen = |index: usize| -> Vec<&str> {
        let tags = ["1.2", "v1.2-x", "latest", "3.12", "v3.13.0", "20240101", "3.19-alpine"];
        tags.into_iter().filter(|tag| list.rules[index].select.matches(&tag.parse().unwrap())).collect()
    };
    assert_eq!(chosen(0), ["1.2", "v1.2-x"]);
    assert_eq!(chosen(1), ["3.12", "v3.13.0", "20240101"]);
    assert_eq!(chosen(2).len(), 7);
}

fn locked(reference: &str, platforms: &[&str]) -> crate::pipeline::lock::LockedImage {
    let digest = crate::oci::Digest::sha256(b"");
    crate::pipeline::lock::LockedImage {
        reference: reference.parse().unwrap(),
        rename: None,
        source: "x".into(),
        digest,
        media_type: String::new(),
        size: 0,
        total_size: 0,
        platforms: platforms.iter().map(|p| p.parse().unwrap()).collect(),
        selection: None,
        absent: Vec::new(),
        attached: None,
        attached_unknown: false,
    }
}

#[test]
fn the_isolated_side_lets_in_what_its_list_covers_and_says_why_not() {
    let other = crate::oci::Digest::sha256(b"other");
    let text = format!(
        "q.io/all\nq.io/a:1\nq.io/pin@{DIGEST}\nq.io/both:1@{DIGEST}\nq.io/wrong:1@{other}\nq.io/p:1 platform=linux/amd64"
    );
    let list = read(&[("allow", &text)]).unwrap();
    for covered in ["q.io/all:x", "q.io/a:1", "q.io/pin:any", "q.io/both:1", "q.io/p:1"] {
        assert_eq!(list.refusal(&locked(covered, &["linux/amd64"])), None, "{covered}");
    }
    assert!(list.permits(&locked(&format!("q.io/pin@{DIGEST}"), &[])));
    assert!(list.permits(&locked(&format!("q.io/all@{DIGEST}"), &[])));
    for (refused, why) in [
        ("q.io/a:2", "q.io/a:2 is not on the allowlist"),
        ("q.io/both:2", "q.io/both:2 is not on the allowlist"),
        ("other.io/a:1", "other.io/a:1 is not on the allowlist"),
        ("q.io/wrong:1", &format!("q.io/wrong:1 is {DIGEST}, and allow:5 pins another digest")),
        ("q.io/p:1", "q.io/p:1 carries linux/arm64, which allow:6 does not allow"),
    ] {
        let image = locked(refused, &["linux/amd64", "linux/arm64"]);
        assert_eq!(list.refusal(&image).as_deref(), Some(why));
    }
    // The bundle only claims that it was made from the pinned digest, and does not prove it.
    let mut forged = locked("q.io/wrong:1", &["linux/amd64"]);
    forged.selection = Some(crate::pipeline::lock::Selection {
        platforms: forged.platforms.clone(),
        index: crate::pipeline::lock::IndexMode::Trim,
        original: crate::oci::Descriptor::new("x", other, 1),
    });
    assert!(!list.permits(&forged));
}
