//! Debian's `docker-registry` on a free port of this machine, with its storage in a temporary directory.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub struct DockerRegistry {
    child: Child,
    /// `127.0.0.1:port`
    pub address: String,
    _storage: TempDir,
}

/// bcrypt of `secret`.
pub const HTPASSWD: &str = "pusher:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

impl DockerRegistry {
    pub fn start() -> DockerRegistry {
        DockerRegistry::with("", |_| {})
    }

    /// Lets in `pusher` with the password `secret`.
    pub fn with_password() -> DockerRegistry {
        DockerRegistry::with("auth: {htpasswd: {realm: test, path: DIR/htpasswd}}\n", |directory| {
            std::fs::write(directory.join("htpasswd"), HTPASSWD).unwrap();
        })
    }

    pub fn with_tls(certificate: &Path, key: &Path) -> DockerRegistry {
        let (certificate, key) = (certificate.display(), key.display());
        let extra = format!("  tls: {{certificate: {certificate}, key: {key}}}\n");
        DockerRegistry::with(&extra, |_| {})
    }

    /// `extra` goes behind the `http` section of the configuration; `DIR` in it is the temporary directory.
    fn with(extra: &str, prepare: impl Fn(&Path)) -> DockerRegistry {
        let storage = tempfile::tempdir().unwrap();
        prepare(storage.path());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let directory = storage.path().display().to_string();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {directory}/data}}, \
             delete: {{enabled: true}}}}\nhttp:\n  addr: {address}\n{}",
            extra.replace("DIR", &directory)
        );
        let file = storage.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry (Debian package docker-registry) is needed for this test");
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&address).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "docker-registry ended at once");
            assert!(Instant::now() < deadline, "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        DockerRegistry { child, address, _storage: storage }
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
