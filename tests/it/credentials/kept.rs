//! Docker Hub, which these tests cannot reach: the keys under which a login is stored and found again.

use gapferry::credentials::{CredentialFile, CredentialOrigin, Credentials, Store};
use serde_json::json;

use super::base64_of;
use super::home::{Home, read_json};

/// The key that docker itself looks for.
const HUB: &str = "https://index.docker.io/v1/";

fn kept(path: &str) -> CredentialFile {
    CredentialFile::to_write(Some(path.as_ref()), &|_| None).unwrap()
}

fn user(path: &str) -> String {
    let store = Store::load(Some(path.as_ref()), &|_| None).unwrap();
    store.find("docker.io", "library/nginx").unwrap().unwrap().username
}

#[test]
fn a_docker_hub_login_is_found_under_the_key_each_program_uses() {
    let home = Home::new();
    for (name, key) in [("config.json", HUB), ("auth.json", "docker.io")] {
        let file = home.write(name, "{}");
        for alias in ["docker.io", "index.docker.io"] {
            kept(&file).log_in(alias, "", &Credentials::basic("me", "x")).unwrap();
            assert_eq!(read_json(&home.path(name)), json!({ "auths": { key: { "auth": base64_of("me", "x") } } }));
        }
        assert_eq!(user(&file), "me");
        assert_eq!(home.skopeo_user("docker.io", &["--authfile", &file]).as_deref(), Some("me"));
        kept(&file).log_out("docker.io", "", false).unwrap();
        assert_eq!(read_json(&home.path(name)), json!({ "auths": {} }));
    }
    // As skopeo removes it.
    let file = home.write("auth.json", "{}");
    kept(&file).log_in("docker.io", "", &Credentials::basic("me", "x")).unwrap();
    assert!(home.skopeo(&["logout", "--authfile", &file, "docker.io"], "").status.success());
    assert_eq!(kept(&file).log_out("docker.io", "", false).unwrap(), []);
}

#[test]
fn a_new_docker_hub_login_replaces_the_old_one_under_every_key() {
    let home = Home::new();
    let old = json!({ "auth": base64_of("old", "x") });
    let file = json!({ "auths": { HUB: &old, "docker.io": &old, "index.docker.io": &old, "docker.io/team": &old } });
    let file = home.write("auth.json", &file.to_string());
    kept(&file).log_in("docker.io", "", &Credentials::basic("me", "x")).unwrap();
    let new = json!({ "auth": base64_of("me", "x") });
    let expected = json!({ HUB: &new, "docker.io": &new, "index.docker.io": &new, "docker.io/team": &old });
    assert_eq!(read_json(&home.path("auth.json"))["auths"], expected);
    let forgotten = kept(&file).log_out("docker.io", "", false).unwrap();
    assert_eq!(forgotten.len(), 3);
    assert_eq!(read_json(&home.path("auth.json"))["auths"], json!({ "docker.io/team": &old }));
}

#[test]
fn helpers_get_docker_hub_by_its_old_url() {
    let home = Home::new();
    home.install_helper("vault");
    let file = home.write("config.json", &json!({ "credsStore": "vault" }).to_string());
    let path = home.environment().find(|(name, _)| *name == "PATH").unwrap().1;
    let env = |name: &str| (name == "PATH").then(|| path.to_owned());
    let kept = CredentialFile::to_write(Some(file.as_ref()), &env).unwrap();
    let origin = kept.log_in("docker.io", "", &Credentials::basic("me", "x")).unwrap();
    let program = "docker-credential-vault".to_owned();
    assert_eq!(origin, CredentialOrigin::Helper { program, server: HUB.to_owned(), path: file.as_str().into() });
    assert_eq!(home.kept("vault")[0].0, HUB);
    let found = Store::load(Some(file.as_ref()), &env).unwrap().find("docker.io", "").unwrap().unwrap();
    assert_eq!(found.username, "me");
    kept.log_out("docker.io", "", false).unwrap();
    assert_eq!(home.kept("vault"), []);
}
