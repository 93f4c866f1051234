//! A real registry: Debian's `docker-registry` (distribution 2.8, which Harbor 2.x embeds) on a loopback port.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use super::http::{self, Answer, Request};

/// The setup of the registry; by default it is open, plain HTTP, with deletion.
#[derive(Default, Clone)]
pub struct Options {
    /// User and password (htpasswd, Basic).
    pub credentials: Option<(String, String)>,
    /// HTTPS with a certificate for 127.0.0.1, localhost and registry.invalid of a test CA: see [`Registry::ca_file`].
    pub tls: bool,
    /// An existing root directory to serve, instead of a new one. It is not removed.
    pub storage: Option<PathBuf>,
    /// Refuses every write, as in maintenance mode.
    pub read_only: bool,
    /// Disables deletion.
    pub no_deletion: bool,
    /// Refuses foreign layers, which is a registry's default if its configuration does not mention them.
    pub no_foreign_layers: bool,
}

/// A running registry; killed and removed when dropped.
pub struct Registry {
    process: Child,
    host: String,
    options: Options,
    directory: tempfile::TempDir,
    marks: AtomicU64,
}

/// One line of the registry's access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    pub method: String,
    /// With the query.
    pub path: String,
    pub status: u16,
}

impl Registry {
    pub fn start() -> Registry {
        Registry::with(Options::default())
    }

    pub fn with(options: Options) -> Registry {
        let directory = super::tempdir();
        let configuration = directory.path().join("config.yml");
        std::fs::write(&configuration, configure(&options, directory.path())).expect("the configuration");
        let access_log = File::create(directory.path().join("access.log")).expect("the access log");
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&configuration)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(access_log)
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry must be installed: scripts/test does it");
        let host = listening(&mut process);
        let registry = Registry { process, host, options, directory, marks: AtomicU64::new(0) };
        registry.request("GET", "/v2/").send().expect(200);
        registry
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `http://127.0.0.1:PORT` or `https://…`
    pub fn url(&self) -> String {
        format!("{}://{}", if self.options.tls { "https" } else { "http" }, self.host)
    }

    /// The root directory: `docker/registry/v2/…` is below it.
    pub fn storage(&self) -> PathBuf {
        self.options.storage.clone().unwrap_or_else(|| self.directory.path().join("storage"))
    }

    /// The CA that signed the certificate of a registry with TLS.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.crt")
    }

    pub fn credentials(&self) -> Option<(&str, &str)> {
        self.options.credentials.as_ref().map(|(user, password)| (user.as_str(), password.as_str()))
    }

    /// A request to the registry, with its credentials; `path` starts with `/`.
    pub fn request(&self, method: &'static str, path: &str) -> Request {
        let ca_file = self.options.tls.then(|| self.ca_file());
        http::request(method, format!("{}{path}", self.url())).basic(self.credentials()).ca_file(ca_file)
    }

    /// The manifest of `reference` (a tag or digest) as stored.
    pub fn manifest(&self, repository: &str, reference: &str) -> Answer {
        self.request("GET", &format!("/v2/{repository}/manifests/{reference}"))
            .header("Accept", gapferry::oci::media_type::ACCEPT_MANIFESTS)
            .send()
    }

    /// The digest of a tag or digest here, or `None`.
    pub fn digest(&self, repository: &str, reference: &str) -> Option<String> {
        let answer = self.manifest(repository, reference);
        (answer.status == 200).then(|| super::sha256(&answer.body))
    }

    pub fn tags(&self, repository: &str) -> Vec<String> {
        let answer = self.request("GET", &format!("/v2/{repository}/tags/list")).send();
        let tags = answer.json()["tags"].as_array().cloned().unwrap_or_default();
        tags.iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect()
    }

    /// Every answered request so far, oldest first, without this function's own and the first ping.
    pub fn requests(&self) -> Vec<Logged> {
        // The log may lag behind the answers of large bodies; once the mark appears, everything before it is there.
        let mark = format!("/v2/?mark={}", self.marks.fetch_add(1, Ordering::Relaxed));
        self.request("GET", &mark).send();
        loop {
            let text = std::fs::read_to_string(self.directory.path().join("access.log")).expect("the access log");
            let lines: Vec<Logged> = text.lines().filter_map(parse_line).collect();
            if lines.iter().any(|line| line.path == mark) {
                return lines.into_iter().skip(1).filter(|line| !line.path.starts_with("/v2/?mark=")).collect();
            }
            std::thread::yield_now();
        }
    }

    /// The number of requests with this method, this text in the path, and this status.
    pub fn count(&self, method: &str, part: &str, status: u16) -> usize {
        let fits = |r: &&Logged| r.method == method && r.path.contains(part) && r.status == status;
        self.requests().iter().filter(fits).count()
    }

    /// Completed uploads with content of their own (mounts do not count).
    pub fn uploads(&self) -> usize {
        self.count("PUT", "/blobs/uploads/", 201)
    }
}

impl super::images::Host for Registry {
    fn host(&self) -> &str {
        Registry::host(self)
    }

    fn request(&self, method: &'static str, path: &str) -> Request {
        Registry::request(self, method, path)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn configure(options: &Options, directory: &Path) -> String {
    let storage = options.storage.clone().unwrap_or_else(|| directory.join("storage"));
    let validation = match options.no_foreign_layers {
        true => "",
        false => "validation: {manifests: {urls: {allow: ['.*']}}}\n",
    };
    let mut text = format!(
        "version: 0.1\nlog: {{level: info, accesslog: {{disabled: false}}}}\n\
         {validation}storage:\n  filesystem: {{rootdirectory: {:?}}}\n  delete: {{enabled: {}}}\n  \
         maintenance: {{uploadpurging: {{enabled: false}}, readonly: {{enabled: {}}}}}\n",
        storage.display().to_string(),
        !options.no_deletion,
        options.read_only
    );
    if let Some((user, password)) = &options.credentials {
        let file = directory.join("htpasswd");
        std::fs::write(&file, format!("{user}:{}\n", bcrypt(password))).expect("htpasswd");
        text += &format!("auth: {{htpasswd: {{realm: test, path: {:?}}}}}\n", file.display().to_string());
    }
    text += "http:\n  addr: 127.0.0.1:0\n  secret: test\n";
    if options.tls {
        certify(directory);
        let file = |name: &str| directory.join(name).display().to_string();
        text += &format!("  tls: {{certificate: {:?}, key: {:?}}}\n", file("server.crt"), file("server.key"));
    }
    text
}

/// Debian's crypt(3) supports bcrypt, and perl, which is always installed, gives access to it.
fn bcrypt(password: &str) -> String {
    let script = "print crypt($ARGV[0], '$2y$04$abcdefghijklmnopqrstuu')";
    let output = Command::new("perl").args(["-e", script, password]).output().expect("perl");
    let hash = String::from_utf8(output.stdout).expect("a hash");
    assert!(hash.starts_with("$2y$"), "crypt(3) without bcrypt: {hash:?}");
    hash
}

/// `ca.crt`, and `server.crt` with `server.key` signed by it.
fn certify(directory: &Path) {
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(directory).output().expect("openssl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let ca = ["req", "-x509", "-days", "2", "-subj", "/CN=test CA", "-keyout", "ca.key", "-out", "ca.crt"];
    openssl(&[&ca[..], &key[..]].concat());
    let server = ["req", "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr"];
    openssl(&[&server[..], &key[..]].concat());
    let mut extensions = File::create(directory.join("server.ext")).expect("server.ext");
    writeln!(extensions, "basicConstraints=CA:FALSE\nsubjectAltName=IP:127.0.0.1,DNS:localhost,DNS:registry.invalid")
        .expect("server.ext");
    let sign = ["x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"];
    openssl(&[&sign[..], &["-days", "2", "-extfile", "server.ext", "-out", "server.crt"]].concat());
}

/// Waits for the log line that names the port chosen by the kernel: from then on connections are accepted. The rest is
/// read so that the registry never blocks on a full pipe.
fn listening(process: &mut Child) -> String {
    let mut lines = BufReader::new(process.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    let mut log = String::new();
    for line in lines.by_ref() {
        if let Some((_, rest)) = line.split_once("listening on ") {
            let host = rest.chars().take_while(|c| !matches!(c, '"' | ',')).collect();
            std::thread::spawn(move || lines.for_each(drop));
            return host;
        }
        log.push_str(&line);
        log.push('\n');
    }
    panic!("docker-registry ended: {log}");
}

/// `127.0.0.1 - - [time] "GET /v2/ HTTP/1.1" 200 2 "" "agent"`
fn parse_line(line: &str) -> Option<Logged> {
    let mut quoted = line.split('"');
    let request = quoted.nth(1)?;
    let status = quoted.next()?.split_whitespace().next()?.parse().ok()?;
    let mut words = request.split(' ');
    Some(Logged { method: words.next()?.to_owned(), path: words.next()?.to_owned(), status })
}
