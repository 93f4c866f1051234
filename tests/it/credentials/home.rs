//! A home directory that gives gapferry and skopeo the same environment, with a working credential helper.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::{gapferry, tempdir};

/// Follows the protocol of docker-credential-helpers. Each server's credentials are a file beside the script, and each
/// request is a line of `asked`. With a file `broken` the helper repeats its input and fails.
const HELPER: &str = r#"#!/bin/sh
here=$(dirname "$0")/$(basename "$0").kept
mkdir -p "$here"
input=$(cat)
server=$input
[ "$1" = store ] && server=$(printf %s "$input" | sed 's/.*"ServerURL":"\([^"]*\)".*/\1/')
kept=$here/$(printf %s "$server" | tr / _)
echo "$1 $server" >> "$here.asked"
[ -e "$here.broken" ] && { echo "the keyring is locked: $input"; exit 1; }
case $1 in
store) printf %s "$input" > "$kept" ;;
get) [ -e "$kept" ] && cat "$kept" || { echo "credentials not found in native keychain"; exit 1; } ;;
erase) rm "$kept" ;;
list) cat "$here"/* | sed 's/.*"ServerURL":\("[^"]*"\).*"Username":\("[^"]*"\).*/\1:\2/' | paste -sd, | sed 's/.*/{&}/' ;;
esac
"#;

pub struct Home {
    directory: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl Home {
    /// `HOME` and `XDG_RUNTIME_DIR` exist and are empty.
    pub fn new() -> Home {
        let home = Home { directory: tempdir(), variables: Vec::new() };
        ["run", "bin"].iter().for_each(|name| std::fs::create_dir(home.path(name)).unwrap());
        let value = |name: &str| home.path(name).display().to_string();
        let path = format!("{}:{}", value("bin"), std::env::var("PATH").unwrap_or_default());
        let own = [("HOME", value("")), ("XDG_RUNTIME_DIR", value("run")), ("PATH", path)];
        home.with(own.iter().map(|(name, value)| (*name, value.as_str())))
    }

    /// Sets these variables; an empty value removes one.
    pub fn with<'a>(mut self, variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Home {
        for (name, value) in variables {
            self.variables.retain(|(known, _)| known != name);
            if !value.is_empty() {
                self.variables.push((name.to_owned(), value.to_owned()));
            }
        }
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The file that logins are written to by default.
    pub fn authfile(&self) -> PathBuf {
        self.path("run/containers/auth.json")
    }

    pub fn write(&self, name: &str, content: &str) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    pub fn gapferry(&self, arguments: &[&str], stdin: &str) -> Output {
        let mut command = gapferry();
        command.env_remove("XDG_RUNTIME_DIR").envs(self.environment()).args(arguments);
        command.write_stdin(stdin).output().unwrap()
    }

    pub fn skopeo(&self, arguments: &[&str], stdin: &str) -> Output {
        self.other("skopeo", arguments, stdin)
    }

    /// Runs another program in this environment.
    pub fn other(&self, program: &str, arguments: &[&str], stdin: &str) -> Output {
        use std::io::Write;
        let mut command = Command::new(program);
        command.env_clear().envs(self.environment()).args(arguments);
        let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = streams.spawn().unwrap_or_else(|e| panic!("{program}: {e}"));
        // The program may end without reading its input.
        let _ = process.stdin.take().unwrap().write_all(stdin.as_bytes());
        process.wait_with_output().unwrap()
    }

    pub fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The user skopeo is logged in as at `registry`; `None` if it is not logged in.
    pub fn skopeo_user(&self, registry: &str, options: &[&str]) -> Option<String> {
        let output = self.skopeo(&[&["login", "--get-login", registry], options].concat(), "");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// A working `docker-credential-NAME` on `PATH`.
    pub fn install_helper(&self, name: &str) {
        let path = self.write(&format!("bin/docker-credential-{name}"), HELPER);
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// Makes the helper fail from now on.
    pub fn break_helper(&self, name: &str) {
        self.write(&format!("bin/docker-credential-{name}.kept.broken"), "");
    }

    /// The requests to the helper, oldest first.
    pub fn asked(&self, name: &str) -> Vec<String> {
        let log = std::fs::read_to_string(self.path(&format!("bin/docker-credential-{name}.kept.asked")));
        log.unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// The helper's stored entries: server and JSON.
    pub fn kept(&self, name: &str) -> Vec<(String, Value)> {
        let Ok(files) = std::fs::read_dir(self.path(&format!("bin/docker-credential-{name}.kept"))) else {
            return vec![];
        };
        let kept = files.map(|file| read_json(&file.unwrap().path()));
        let mut kept: Vec<_> = kept.map(|json| (json["ServerURL"].as_str().unwrap().to_owned(), json)).collect();
        kept.sort_by(|(one, _), (other, _)| one.cmp(other));
        kept
    }
}

pub fn read_json(path: &Path) -> Value {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
