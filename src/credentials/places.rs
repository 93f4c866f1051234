//! Which files contain credentials: those to read, and the one to write (containers/image `pkg/docker/config`,
//! `getAuthFilePaths` and `getPathToAuth`).

use std::path::{Path, PathBuf};

use crate::base::error::{Error, Result};

/// Looks up an environment variable.
type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The file that was named, if any; then no other is read.
pub(super) fn named(authfile: Option<&Path>, env: Env) -> Option<PathBuf> {
    authfile.map(Path::to_path_buf).or_else(|| variable(env, "REGISTRY_AUTH_FILE"))
}

/// Files to read if none was named, in order. Some may not exist.
pub(super) fn to_read(env: Env) -> Vec<PathBuf> {
    if let Some(directory) = variable(env, "DOCKER_CONFIG") {
        return vec![directory.join("config.json")];
    }
    let home = variable(env, "HOME");
    let config = variable(env, "XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
    let others = [config.map(|config| config.join(CONTAINERS)), home.map(|home| home.join(".docker/config.json"))];
    let mut places: Vec<PathBuf> = std::iter::once(of_this_login(env)).chain(others).flatten().collect();
    places.dedup();
    places
}

/// The file that logins are written to; it need not exist.
///
/// # Errors
/// The environment names a directory that does not exist, or nothing says where the file should be.
pub(super) fn to_write(authfile: Option<&Path>, env: Env) -> Result<PathBuf> {
    if let Some(path) = named(authfile, env) {
        return Ok(path);
    }
    if let Some(directory) = variable(env, "DOCKER_CONFIG") {
        return Ok(directory.join("config.json"));
    }
    // A directory created here would not vanish with the login, nor have the right owner.
    if let Some(directory) =
        variable(env, "XDG_RUNTIME_DIR").filter(|directory| cfg!(target_os = "linux") && !directory.is_dir())
    {
        let text = format!(
            "finding where credentials are kept: XDG_RUNTIME_DIR is {}, which is not a directory",
            directory.display()
        );
        return Err(Error::input(text));
    }
    of_this_login(env).ok_or_else(|| Error::input("finding where credentials are kept: HOME is not set"))
}

const CONTAINERS: &str = "containers/auth.json";

/// The file that exists as long as the user is logged in, or its replacement.
fn of_this_login(env: Env) -> Option<PathBuf> {
    if !cfg!(target_os = "linux") {
        return variable(env, "HOME").map(|home| home.join(".config").join(CONTAINERS));
    }
    let user = rustix::process::getuid().as_raw();
    let runtime = variable(env, "XDG_RUNTIME_DIR").map(|directory| directory.join(CONTAINERS));
    Some(runtime.unwrap_or_else(|| PathBuf::from(format!("/run/containers/{user}/auth.json"))))
}

fn variable(env: Env, name: &str) -> Option<PathBuf> {
    env(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
