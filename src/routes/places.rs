//! Finds `registries.conf` and its drop-ins (containers/image `pkg/sysregistriesv2`).

use std::path::{Path, PathBuf};

use super::Routes;
use super::file::MAX_SIZE;
use crate::base::bounded::read_all;
use crate::base::error::{Error, Result};
use crate::base::position::refused;

const SYSTEM: &str = "/etc/containers";

impl Routes {
    /// Reads the files that apply: only the one given by `named` or `CONTAINERS_REGISTRIES_CONF`; otherwise
    /// `~/.config/containers/registries.conf` with the `registries.conf.d/*.conf` next to it; otherwise those of
    /// `/etc/containers` and the user's drop-ins. Drop-ins follow in order of their names and take precedence.
    ///
    /// # Errors
    /// Lists everything that is wrong in these files; or a named file does not exist.
    pub fn load(named: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> Result<Routes> {
        Routes::load_below(Path::new(SYSTEM), named, env)
    }

    pub(super) fn load_below(
        system: &Path,
        named: Option<&Path>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Routes> {
        let env = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let files = match named.map(Path::to_owned).or_else(|| env("CONTAINERS_REGISTRIES_CONF")) {
            Some(path) => vec![read(&path)?],
            None => defaults(system, env("HOME"))?.iter().map(|path| read(path)).collect::<Result<_>>()?,
        };
        Routes::parse(&files).map_err(|problems| refused("registries.conf", &problems))
    }
}

/// The existing files, in order.
fn defaults(system: &Path, home: Option<PathBuf>) -> Result<Vec<PathBuf>> {
    let own = home.map(|home| home.join(".config/containers"));
    let main = |directory: &Path| directory.join("registries.conf");
    let own_drop_ins = own.as_deref().map(drop_ins).transpose()?.unwrap_or_default();
    if let Some(path) = own.as_deref().map(main).filter(|path| path.exists()) {
        return Ok([vec![path], own_drop_ins].concat());
    }
    let main = main(system);
    let main = if main.exists() { vec![main] } else { Vec::new() };
    Ok([main, drop_ins(system)?, own_drop_ins].concat())
}

fn drop_ins(directory: &Path) -> Result<Vec<PathBuf>> {
    use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    let directory = directory.join("registries.conf.d");
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), NotFound | NotADirectory | PermissionDenied) => return Ok(Vec::new()),
        Err(e) => return Err(Error::disk("looking into", &directory, e)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| Error::disk("looking into", &directory, e))?.path();
        if path.extension().is_some_and(|extension| extension == "conf") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Name and content.
fn read(path: &Path) -> Result<(String, Vec<u8>)> {
    let fail = |e| Error::disk("reading", path, e);
    let shown = path.display().to_string();
    match std::fs::File::open(path).and_then(|file| read_all(file, MAX_SIZE)).map_err(fail)? {
        Some(bytes) => Ok((shown, bytes)),
        None => Err(Error::input(format!(
            "reading {shown}: it has more than {MAX_SIZE} bytes, too many for a \
             registries.conf"
        ))),
    }
}
