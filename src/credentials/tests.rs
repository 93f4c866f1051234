//! Finding credentials.

use std::path::Path;

use super::*;

fn write(directory: &Path, name: &str, json: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, json).unwrap();
    path
}

/// base64 of `user:user-secret` for every name used here.
fn auth(user: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(format!("{user}:{user}-secret"))
}

fn user_for(store: &Store, registry: &str, path: &str) -> Option<String> {
    store.find(registry, path).unwrap().map(|found| found.username)
}

#[test]
fn a_file_that_was_named_is_the_only_one_read() {
    let home = tempfile::tempdir().unwrap();
    let json = |user: &str| format!(r#"{{"auths":{{"r.io":{{"auth":"{}"}}}}}}"#, auth(user));
    let flag = write(home.path(), "flag.json", &json("flag"));
    let named = write(home.path(), "named.json", &json("named"));
    write(home.path(), "docker/config.json", &json("docker"));
    write(home.path(), "run/containers/auth.json", &json("run"));
    write(home.path(), ".config/containers/auth.json", &json("config"));
    write(home.path(), ".docker/config.json", &json("home"));

    let vars = |names: &'static [&'static str]| {
        let home = home.path().to_path_buf();
        let named = named.clone();
        move |name: &str| {
            let value = match name {
                "HOME" => home.clone(),
                "REGISTRY_AUTH_FILE" => named.clone(),
                "DOCKER_CONFIG" => home.join("docker"),
                "XDG_RUNTIME_DIR" => home.join("run"),
                _ => return None,
            };
            names.contains(&name).then(|| value.display().to_string())
        }
    };
    let found = |authfile: Option<&Path>, names| user_for(&Store::load(authfile, &vars(names)).unwrap(), "r.io", "a");
    let all: &[&str] = &["HOME", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"];
    assert_eq!(found(Some(&flag), all).as_deref(), Some("flag"));
    assert_eq!(found(None, all).as_deref(), Some("named"));
    assert_eq!(found(None, &["HOME", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"]).as_deref(), Some("docker"));
    assert_eq!(found(None, &["HOME", "XDG_RUNTIME_DIR"]).as_deref(), Some("run"));
    assert_eq!(found(None, &["HOME"]).as_deref(), Some("config"));
    std::fs::remove_dir_all(home.path().join(".config")).unwrap();
    assert_eq!(found(None, &["HOME"]).as_deref(), Some("home"));
    assert_eq!(found(None, &[]), None);
}

#[test]
fn the_longest_matching_namespace_decides() {
    let home = tempfile::tempdir().unwrap();
    let json = format!(
        r#"{{"auths":{{"r.io":{{"auth":"{}"}},"r.io/team":{{"auth":"{}"}},"r.io/team/app":{{"auth":"{}"}}}}}}"#,
        auth("host"),
        auth("team"),
        auth("app")
    );
    let store = Store::load(Some(&write(home.path(), "a.json", &json)), &|_| None).unwrap();
    assert_eq!(user_for(&store, "r.io", "team/app").as_deref(), Some("app"));
    assert_eq!(user_for(&store, "r.io", "team/other").as_deref(), Some("team"));
    assert_eq!(user_for(&store, "r.io", "teams/app").as_deref(), Some("host"));
    assert_eq!(user_for(&store, "r.io", "").as_deref(), Some("host"));
    assert_eq!(user_for(&store, "r.io:5000", "team/app"), None);
}

#[test]
fn docker_hub_is_found_under_its_old_key() {
    let home = tempfile::tempdir().unwrap();
    let json = format!(
        r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{}"}},"https://old.io/v2/":{{"auth":"{}"}}}}}}"#,
        auth("hub"),
        auth("old")
    );
    let store = Store::load(Some(&write(home.path(), "a.json", &json)), &|_| None).unwrap();
    assert_eq!(user_for(&store, "docker.io", "library/nginx").as_deref(), Some("hub"));
    assert_eq!(user_for(&store, "old.io", "x").as_deref(), Some("old"));
}

#[test]
fn an_explicit_credential_is_stronger_than_a_file_and_never_printed() {
    let home = tempfile::tempdir().unwrap();
    let json = format!(r#"{{"auths":{{"r.io":{{"auth":"{}"}}}}}}"#, auth("file"));
    let mut store = Store::load(Some(&write(home.path(), "a.json", &json)), &|_| None).unwrap();
    store.set("r.io", Credentials::parse("me:top:secret").unwrap());
    let found = store.find("r.io", "a").unwrap().unwrap();
    assert_eq!((found.username.as_str(), found.password.expose()), ("me", "top:secret"));
    let printed = format!("{store:?} {:?}", Credentials::identity("top:secret"));
    assert!(!printed.contains("top") && !printed.contains("file-secret"), "{printed}");
    assert!(!printed.contains(&auth("file")), "{printed}");
}

#[test]
fn identity_tokens_and_empty_entries_are_understood() {
    let home = tempfile::tempdir().unwrap();
    let json = r#"{"auths":{"a.io":{"auth":"MDA6","identitytoken":"tok"},"b.io":{}},"unknown":[1]}"#;
    let store = Store::load(Some(&write(home.path(), "a.json", json)), &|_| None).unwrap();
    let found = store.find("a.io", "x").unwrap().unwrap();
    assert_eq!(found.identity_token.unwrap().expose(), "tok");
    assert_eq!(store.find("b.io", "x").unwrap(), None);
}

#[test]
fn every_broken_file_is_named() {
    let home = tempfile::tempdir().unwrap();
    for json in ["", "[]", r#"{"auths":{"r.io":{"auth":"!!!"}}}"#, r#"{"auths":{"r.io":{"auth":"bm9jb2xvbg=="}}}"#] {
        let path = write(home.path(), "broken.json", json);
        let error = Store::load(Some(&path), &|_| None).and_then(|store| store.find("r.io", "a")).unwrap_err();
        let named = format!("reading credentials from {}", path.display());
        assert_eq!(error.to_string().split(": ").next(), Some(&*named), "{error:?}");
        assert!(!error.chain().contains("nocolon"), "{error:?}");
    }
    let missing = Store::load(Some(Path::new("/nowhere/auth.json")), &|_| None).unwrap_err();
    assert_eq!(missing.to_string(), "reading credentials from /nowhere/auth.json: there is no such file");
}

/// An environment with helpers in this directory.
fn on_path(directory: &Path) -> impl Fn(&str) -> Option<String> {
    let path = format!("{}:/usr/bin:/bin", directory.display());
    move |name| (name == "PATH").then(|| path.clone())
}

#[test]
fn a_credential_helper_that_is_a_path_is_not_run() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let ran = home.path().join("ran");
    let helper = write(home.path(), "docker-credential-test", &format!("#!/bin/sh\ntouch {}\n", ran.display()));
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    for name in [helper.display().to_string(), "../x".to_owned(), "x/".to_owned()] {
        let json = serde_json::json!({ "credsStore": name }).to_string();
        let store = Store::load(Some(&write(home.path(), "a.json", &json)), &on_path(home.path())).unwrap();
        let error = store.find("x.io", "a").unwrap_err().chain();
        assert!(error.contains("a.json") && error.contains("has no slash"), "{error}");
    }
    assert!(!ran.exists());
}

#[test]
fn a_credential_helper_is_asked_and_its_no_is_not_an_error() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let script = "#!/bin/sh\nread server\ncase \"$server\" in\n\
        r.io) echo '{\"ServerURL\":\"r.io\",\"Username\":\"helped\",\"Secret\":\"of-the-helper\"}';;\n\
        t.io) echo '{\"Username\":\"<token>\",\"Secret\":\"tok\"}';;\n\
        x.io) echo 'the keyring is locked' >&2; exit 1;;\n\
        *) echo 'credentials not found in native keychain'; exit 1;;\nesac\n";
    let helper = write(home.path(), "docker-credential-test", script);
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let json = r#"{"credHelpers":{"x.io":"test"},"credsStore":"test"}"#;
    let store = Store::load(Some(&write(home.path(), "a.json", json)), &on_path(home.path())).unwrap();
    assert_eq!(user_for(&store, "r.io", "a").as_deref(), Some("helped"));
    assert_eq!(store.find("t.io", "a").unwrap().unwrap().identity_token.unwrap().expose(), "tok");
    assert_eq!(store.find("none.io", "a").unwrap(), None);
    let error = store.find("x.io", "a").unwrap_err();
    assert!(error.chain().contains("the keyring is locked"), "{error:?}");
}

#[test]
fn a_helper_asks_its_user_once_for_all_repositories_and_not_again_when_the_user_says_no() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let script = "#!/bin/sh\nread server\necho \"$server\" >> \"$0.asked\"\n\
        [ \"$server\" = no.io ] && { echo 'user cancelled'; exit 1; }\n\
        echo '{\"Username\":\"helped\",\"Secret\":\"of-the-helper\"}'\n";
    let helper = write(home.path(), "docker-credential-test", script);
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let json = r#"{"credsStore":"test"}"#;
    let store = Store::load(Some(&write(home.path(), "a.json", json)), &on_path(home.path())).unwrap();
    std::thread::scope(|scope| {
        for at in 0..8 {
            let store = if at % 2 == 0 { store.clone() } else { store.looked_up() };
            scope.spawn(move || {
                assert_eq!(user_for(&store, "yes.io", &format!("team/{at}")).as_deref(), Some("helped"));
                let error = store.find("no.io", &format!("team/{at}")).unwrap_err();
                assert!(error.chain().contains("a.json") && error.chain().contains("user cancelled"), "{error:?}");
            });
        }
    });
    let asked = std::fs::read_to_string(home.path().join("docker-credential-test.asked")).unwrap();
    let mut asked: Vec<&str> = asked.lines().collect();
    asked.sort_unstable();
    assert_eq!(asked, ["no.io", "yes.io"]);
    assert!(!format!("{store:?}").contains("of-the-helper"), "{store:?}");
    // In another run the user may decide differently.
    let another = Store::load(Some(&home.path().join("a.json")), &on_path(home.path())).unwrap();
    assert!(another.find("no.io", "team/0").is_err());
    let asked = std::fs::read_to_string(home.path().join("docker-credential-test.asked")).unwrap();
    assert_eq!(asked.lines().count(), 3);
}
