//! The precedence of the places that may contain credentials, compared with skopeo in the same environment.

use serde_json::json;

use super::home::Home;
use super::{PASSWORD, base64_of, closed, ended, shown};

/// The user gapferry would use at `host`, which need not exist.
fn user(home: &Home, host: &str, options: &[&str]) -> Option<String> {
    let output = home.gapferry(&[&["auth", "check", host, "--json", "--retries", "0"], options].concat(), "");
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", shown(&output)));
    report["user"].as_str().map(str::to_owned)
}

/// A registry that does not exist.
fn nobody() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn auth_files_are_searched_in_skopeos_order() {
    let (home, host) = (Home::new(), nobody());
    let write = |home: &Home, name: &str, user: &str| {
        home.write(name, &json!({ "auths": { &host: { "auth": base64_of(user, "x") } } }).to_string())
    };
    let flag = write(&home, "flag.json", "flag");
    let named = write(&home, "named.json", "named");
    write(&home, "docker/config.json", "docker");
    write(&home, "run/containers/auth.json", "run");
    write(&home, "xdg/containers/auth.json", "xdg");
    write(&home, ".config/containers/auth.json", "config");
    write(&home, ".docker/config.json", "dot-docker");
    let (docker, xdg) = (home.path("docker").display().to_string(), home.path("xdg").display().to_string());
    let all = [("REGISTRY_AUTH_FILE", named.as_str()), ("DOCKER_CONFIG", &docker), ("XDG_CONFIG_HOME", &xdg)];
    let mut home = home.with(all);
    let mut seen = Vec::new();
    let both = |home: &Home, options: &[&str]| {
        let ours = user(home, &host, options);
        assert_eq!(ours, home.skopeo_user(&host, options));
        ours.unwrap_or_default()
    };
    seen.push(both(&home, &["--authfile", &flag]));
    seen.push(both(&home, &[]));
    for gone in ["REGISTRY_AUTH_FILE", "DOCKER_CONFIG"] {
        home = home.with([(gone, "")]);
        seen.push(both(&home, &[]));
    }
    std::fs::remove_file(home.path("run/containers/auth.json")).unwrap();
    seen.push(both(&home, &[]));
    home = home.with([("XDG_CONFIG_HOME", "")]);
    seen.push(both(&home, &[]));
    std::fs::remove_dir_all(home.path(".config")).unwrap();
    seen.push(both(&home, &[]));
    std::fs::remove_dir_all(home.path(".docker")).unwrap();
    seen.push(both(&home, &[]));
    assert_eq!(seen, ["flag", "named", "docker", "run", "xdg", "config", "dot-docker", ""]);
}

#[test]
fn docker_config_is_exclusive_and_default_files_fall_through() {
    let (home, host) = (Home::new(), nobody());
    let of = |user: &str, host: &str| json!({ "auths": { host: { "auth": base64_of(user, "x") } } }).to_string();
    home.write("run/containers/auth.json", &of("run", "other.io"));
    home.write(".docker/config.json", &of("dot-docker", &host));
    assert_eq!(user(&home, &host, &[]).as_deref(), Some("dot-docker"), "the first file has no entry for it");
    home.write("docker/config.json", &of("docker", "other.io"));
    let docker = home.path("docker").display().to_string();
    let home = home.with([("DOCKER_CONFIG", docker.as_str())]);
    assert_eq!(user(&home, &host, &[]), None);
    assert_eq!(home.skopeo_user(&host, &[]), None);
}

#[test]
fn a_file_from_the_environment_may_be_missing_a_file_from_an_option_may_not() {
    let registry = crate::support::registry::Registry::start();
    crate::support::images::oci("a", "1", &["x"]).push(&registry);
    let image = format!("{}/a:1", registry.host());
    let home = Home::new().with([("REGISTRY_AUTH_FILE", "/nowhere/at/all.json")]);
    ended(0, &home.gapferry(&["lock", &image], ""));
    let text = ended(0, &home.gapferry(&["auth", "check", registry.host()], ""));
    assert!(text.contains("none; looked in\n") && text.contains("/nowhere/at/all.json"), "{text}");
    let text = ended(2, &home.gapferry(&["lock", &image, "--authfile", "/nowhere/else.json"], ""));
    assert!(text.contains("/nowhere/else.json: there is no such file"), "{text}");
}

#[test]
fn in_one_file_helpers_beat_namespaces_then_the_host_then_creds_store() {
    let home = Home::new();
    let host = nobody();
    ["line", "all"].iter().for_each(|name| home.install_helper(name));
    let keep = |helper: &str, user: &str| {
        let json = json!({ "ServerURL": host, "Username": user, "Secret": "x" });
        home.write(&format!("bin/docker-credential-{helper}.kept/{host}"), &json.to_string());
    };
    keep("line", "helper-of-the-line");
    keep("all", "helper-for-all");
    let mut file = json!({
        "auths": {
            &host: { "auth": base64_of("host", "x") },
            format!("{host}/team"): { "auth": base64_of("team", "x") },
            format!("{host}/team/app"): { "auth": base64_of("app", "x") },
        },
        "credHelpers": { &host: "line" },
        "credsStore": "all",
    });
    let at = |file: &serde_json::Value, path: &str| {
        home.write("run/containers/auth.json", &file.to_string());
        user(&home, &format!("{host}{path}"), &[]).unwrap_or_default()
    };
    for path in ["", "/team", "/team/app"] {
        assert_eq!(at(&file, path), "helper-of-the-line");
    }
    file["credHelpers"] = json!({});
    let paths = ["/team/app/deep", "/team/app", "/team/other", "/teams", ""];
    assert_eq!(paths.map(|path| at(&file, path)), ["app", "app", "team", "host", "host"]);
    file["auths"] = json!({ &host: {} });
    assert_eq!(at(&file, "/team/app"), "helper-for-all");
    file["auths"] = json!(null);
    file["credHelpers"] = json!(null);
    assert_eq!(at(&file, ""), "helper-for-all");
}

#[test]
fn login_writes_to_the_same_file_as_skopeo() {
    let registry = closed();
    type Set = fn(&Home) -> Vec<(&'static str, String)>;
    let text = |home: &Home, name: &str| home.path(name).display().to_string();
    let rows: [(Set, &str); 4] = [
        (|_| vec![], "run/containers/auth.json"),
        (|home| vec![("DOCKER_CONFIG", home.path("docker").display().to_string())], "docker/config.json"),
        (|home| vec![("REGISTRY_AUTH_FILE", home.path("named.json").display().to_string())], "named.json"),
        (
            |home| {
                let at = |name: &str| home.path(name).display().to_string();
                vec![("REGISTRY_AUTH_FILE", at("named.json")), ("DOCKER_CONFIG", at("docker"))]
            },
            "named.json",
        ),
    ];
    for (variables, place) in rows {
        let written = |log_in: &dyn Fn(&Home)| {
            let home = Home::new();
            let variables = variables(&home);
            let home = home.with(variables.iter().map(|(name, value)| (*name, value.as_str())));
            // An existing entry elsewhere does not attract the login.
            home.write(".docker/config.json", &json!({ "auths": { registry.host(): { "auth": "eDp5" } } }).to_string());
            log_in(&home);
            let files = crate::support::files_below(&home.path(""));
            files.into_iter().map(|(name, _)| name).filter(|name| name != ".docker/config.json").collect::<Vec<_>>()
        };
        let ours = written(&|home| drop(super::login::log_in(home, registry.host(), &[])));
        let skopeos = written(&|home| {
            let arguments = ["login", "--tls-verify=false", "-u", "me", "--password-stdin", registry.host()];
            let output = home.skopeo(&arguments, PASSWORD);
            assert!(output.status.success(), "{}", shown(&output));
        });
        assert_eq!((&ours, &ours), (&skopeos, &vec![place.to_owned()]));
    }
    let home = Home::new();
    let flag = text(&home, "new/flag.json");
    let text =
        ended(0, &home.gapferry(&["login", registry.host(), "--authfile", &flag, "-u", "me", "-p", PASSWORD], ""));
    assert!(text.contains(&flag) && home.path("new/flag.json").exists(), "{text}");
}
