//! Real TLS listeners with certificates as sites use them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use gapferry::base::error::{Kind, Result};
use gapferry::content::{Need, Source};
use gapferry::credentials::{Credentials, Store};
use gapferry::transport::registry::{Config, Proxies, RegistryConfig, TlsConfig};

use crate::registry::memory_source::{self, MemorySource, read, repository, tag};
use crate::registry::{client, config};
use crate::support::faulty::{Answer, Seen, Server};
use crate::support::registry::{Options, Registry};

fn trusting(ca_files: &[&Path]) -> Config {
    let ca_files = ca_files.iter().map(|path| path.to_path_buf()).collect();
    Config { tls: TlsConfig { ca_files, ..TlsConfig::default() }, ..config() }
}

fn unverified() -> Config {
    Config { tls: TlsConfig { verify: Some(false), ..TlsConfig::default() }, ..config() }
}

/// Checks that the registry can be reached.
pub async fn reach(host: &str, config: Config) -> Result<()> {
    client(config)
        .manifest(&tag(&repository(host, "a"), "v1"), Need::Required)
        .await
        .map(|found| assert!(found.is_none()))
}

async fn refused(host: &str, config: Config) -> String {
    let error = reach(host, config).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Network);
    assert!(error.to_string().contains(host), "{error}");
    error.chain()
}

#[tokio::test]
async fn a_private_ca_is_trusted_if_its_file_is_given() {
    let server =
        Registry::with(Options { tls: true, credentials: Some(("me".into(), "secret".into())), ..Options::default() });
    let mut credentials = Store::anonymous();
    credentials.set(server.host(), Credentials::basic("me", "secret"));
    let registries = client(Config { credentials, ..trusting(&[&server.ca_file()]) });
    let repo = repository(server.host(), "a");
    let memory = MemorySource::default();
    let blob = memory.add(memory_source::noise(1_000_000));
    memory_source::push(&registries, &repo, &memory, &[&blob]).await.unwrap();
    assert_eq!(read(&registries, &repo, &blob).await.unwrap().len(), 1_000_000);

    let reason = refused(server.host(), config()).await;
    assert!(reason.contains("certificate"), "{reason}");
}

#[tokio::test]
async fn tls_verification_can_be_disabled_globally_or_per_registry() {
    let server = Registry::with(Options { tls: true, ..Options::default() });
    reach(server.host(), unverified()).await.unwrap();
    let one = |verify| {
        let own = RegistryConfig { tls_verify: Some(verify), ..RegistryConfig::default() };
        [(server.host().to_owned(), own)].into_iter().collect()
    };
    reach(server.host(), Config { per_registry: one(false), ..config() }).await.unwrap();
    refused(server.host(), Config { per_registry: one(true), ..unverified() }).await;
}

#[tokio::test]
async fn access_checks_use_the_same_tls_settings_as_transfers() {
    let server = Registry::with(Options { tls: true, ..Options::default() });
    let text = format!("[[registry]]\nlocation = '{}/team'\ninsecure = true\n", server.host());
    let routes = gapferry::routes::Routes::parse(&[("registries.conf".into(), text.into())]).unwrap();
    let registries = client(Config { routes, ..config() });
    let (lax, strict) = (repository(server.host(), "team/app"), repository(server.host(), "other/app"));
    registries.check_auth(server.host(), "team/app").await.unwrap();
    registries.may_pull(&lax).await.unwrap();
    registries.may_push(&lax).await.unwrap();
    assert!(registries.may_pull(&strict).await.is_err() && registries.may_push(&strict).await.is_err());
    assert!(registries.check_auth(server.host(), "").await.is_err());
}

#[tokio::test]
async fn a_self_signed_server_certificate_is_trusted_if_that_certificate_is_given() {
    let directory = tempfile::tempdir().unwrap();
    let [own, other] = ["own", "other"].map(|name| self_signed(directory.path(), name, "IP:127.0.0.1"));
    let server = Listener::start(directory.path(), &own, None);
    reach(&server.host, trusting(&[&own.certificate])).await.unwrap();
    reach(&server.host, trusting(&[&other.certificate, &own.certificate])).await.unwrap();
    refused(&server.host, trusting(&[&other.certificate])).await;
    refused(&server.host, config()).await;
}

#[tokio::test]
async fn a_given_server_certificate_must_still_match_the_name_and_be_valid() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = self_signed(directory.path(), "elsewhere", "DNS:registry.example.com");
    let expired = self_signed(directory.path(), "expired", "IP:127.0.0.1").expire();
    for (pair, says) in [(elsewhere, "only for registry.example.com"), (expired, "it has expired")] {
        let server = Listener::start(directory.path(), &pair, None);
        let reason = refused(&server.host, trusting(&[&pair.certificate])).await;
        assert!(reason.contains(says), "{reason}");
    }
}

#[tokio::test]
async fn a_server_that_asks_for_a_client_certificate_gets_it() {
    let directory = tempfile::tempdir().unwrap();
    let [server_pair, us] = ["server", "us"].map(|name| self_signed(directory.path(), name, "IP:127.0.0.1"));
    let server = Listener::start(directory.path(), &server_pair, Some(&us.certificate));
    let certs_d = directory.path().join("certs.d");
    std::fs::create_dir(&certs_d).unwrap();
    std::fs::copy(&server_pair.certificate, certs_d.join("ca.crt")).unwrap();
    std::fs::copy(&us.certificate, certs_d.join("client.cert")).unwrap();
    let with_directory = || {
        let own = RegistryConfig { cert_dir: Some(certs_d.clone()), ..RegistryConfig::default() };
        Config { per_registry: [(server.host.clone(), own)].into_iter().collect(), ..config() }
    };
    let recorder = std::sync::Arc::new(gapferry::base::progress::Recorder::default());
    let half = gapferry::transport::registry::Registries::new(with_directory(), recorder).err().unwrap();
    assert!(half.to_string().contains("client.cert: client.key is missing"), "{half}");

    std::fs::copy(&us.key, certs_d.join("client.key")).unwrap();
    reach(&server.host, with_directory()).await.unwrap();
    refused(&server.host, trusting(&[&server_pair.certificate])).await;
}

#[tokio::test]
async fn a_file_without_certificates_is_refused_before_any_request() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty.pem");
    std::fs::write(&empty, "nothing here").unwrap();
    for path in [empty, directory.path().join("missing.pem")] {
        let recorder = std::sync::Arc::new(gapferry::base::progress::Recorder::default());
        let error = gapferry::transport::registry::Registries::new(trusting(&[&path]), recorder).err().unwrap();
        assert_eq!(error.kind(), Kind::Input);
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}

#[tokio::test]
async fn plain_http_to_another_machine_needs_an_option() {
    // Simulates another machine: a name that is not local, reached through a local proxy.
    let answer = |request: &Seen, _| match request.target.ends_with("/v2/") {
        true => Answer::new(200),
        false => Answer::new(404),
    };
    let server = Server::start(answer).await;
    let proxies = Proxies::of_environment(&|name| (name == "ALL_PROXY").then(|| server.address.clone())).unwrap();
    let quick = |config: Config| client(Config { retries: 0, proxies: proxies.clone(), ..config });
    let repo = repository("registry.invalid", "a");
    assert!(quick(config()).manifest(&tag(&repo, "tls"), Need::Required).await.is_err());
    quick(Config { plain_http: true, ..config() }).manifest(&tag(&repo, "plain"), Need::Required).await.unwrap();
    quick(unverified()).manifest(&tag(&repo, "unverified"), Need::Required).await.unwrap();
    let asked = server.seen();
    let was_asked = |end: &str| asked.iter().any(|request| request.target.ends_with(end));
    assert!(was_asked("http://registry.invalid/v2/a/manifests/plain"), "{asked:?}");
    assert!(was_asked("http://registry.invalid/v2/a/manifests/unverified"), "{asked:?}");
    assert!(!was_asked("/tls"), "{asked:?}");
}

#[tokio::test]
async fn plain_http_works_without_a_certificate_store() {
    let plain = Server::registry(|_, _| Answer::new(404)).await;
    let secure = Registry::with(Options { tls: true, ..Options::default() });
    let hosts = [("PLAIN_HOST", plain.address.as_str()), ("TLS_HOST", secure.host())];
    let store = [("SSL_CERT_FILE", "/nonexistent"), ("SSL_CERT_DIR", "/nonexistent")];
    run_in_environment("registry::tls::without_certificate_store", &[hosts, store].concat()).await;
}

/// Run by the test above in an environment without trusted certificates.
#[tokio::test]
#[ignore = "the other half of plain_http_works_without_a_certificate_store"]
async fn without_certificate_store() {
    reach(&std::env::var("PLAIN_HOST").unwrap(), config()).await.unwrap();
    let reason = refused(&std::env::var("TLS_HOST").unwrap(), config()).await;
    assert!(reason.contains("has no CA certificates"), "{reason}");
}

#[tokio::test]
async fn a_push_stays_on_tls_if_the_registry_behind_it_answers_with_http_locations() {
    let directory = tempfile::tempdir().unwrap();
    let own = self_signed(directory.path(), "own", "IP:127.0.0.1");
    // Simulates a registry that does not know about the TLS proxy before it: its Locations start with http:// and have
    // another port.
    let server = Listener::saying(directory.path(), &own, None, "  host: http://127.0.0.1\n");
    let registries = client(trusting(&[&own.certificate]));
    let (memory, repo) = (MemorySource::default(), repository(&server.host, "a"));
    let blob = memory.add(memory_source::noise(100_000));
    memory_source::push(&registries, &repo, &memory, &[&blob]).await.unwrap();
    assert_eq!(read(&registries, &repo, &blob).await.unwrap().len(), 100_000);
}

#[tokio::test]
async fn no_cookie_is_ever_sent_back() {
    let answer = |_: &Seen, _| Answer::new(404).with("Set-Cookie", "sid=a1b2; Path=/");
    let server = Server::registry(answer).await;
    let registries = client(config());
    for name in ["v1", "v2"] {
        assert!(
            registries.manifest(&tag(&repository(&server.address, "a"), name), Need::Required).await.unwrap().is_none()
        );
    }
    assert_eq!(server.seen().len(), 2);
    assert!(server.seen().iter().all(|request| request.header("cookie").is_empty()), "{:?}", server.seen());
}

/// Runs an ignored test of this file in its own process, because other tests share this process's environment.
async fn run_in_environment(test: &str, variables: &[(&str, &str)]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", test, "--test-threads=1"]);
    command.envs(variables.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let message = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && message.contains("1 passed"), "{message}");
}

/// A certificate and its key.
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Pair {
    /// The same certificate, valid until yesterday.
    fn expire(self) -> Pair {
        let mut command = Command::new("openssl");
        command.args(["x509", "-days", "-1", "-in"]).arg(&self.certificate).arg("-signkey").arg(&self.key);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::write(&self.certificate, output.stdout).unwrap();
        self
    }
}

/// As `openssl req -x509` makes them: self-signed and, by default, a certificate authority.
fn self_signed(directory: &Path, name: &str, subject_alternative: &str) -> Pair {
    let (certificate, key) = (directory.join(format!("{name}.pem")), directory.join(format!("{name}.key")));
    let extension = format!("subjectAltName={subject_alternative}");
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-subj", &format!("/CN={name}"), "-addext", &extension, "-days", "2"])
        .arg("-out")
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Pair { certificate, key }
}

/// `docker-registry` with a given certificate.
pub struct Listener {
    process: Child,
    pub host: String,
}

impl Listener {
    pub fn start(directory: &Path, pair: &Pair, client_authority: Option<&Path>) -> Listener {
        Listener::saying(directory, pair, client_authority, "")
    }

    /// Adds lines to its `http` section.
    fn saying(directory: &Path, pair: &Pair, client_authority: Option<&Path>, more: &str) -> Listener {
        let clients = client_authority.map(|path| format!(", clientcas: [{}]", path.display())).unwrap_or_default();
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{inmemory: {{}}}}\nhttp:\n  addr: 127.0.0.1:0\n  \
             secret: test\n  tls: {{certificate: {}, key: {}{clients}}}\n{more}",
            pair.certificate.display(),
            pair.key.display()
        );
        let file = directory.join("config.yml");
        std::fs::write(&file, config).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry must be installed: scripts/test does it");
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(|line| line.ok());
        let host = lines
            .find_map(|line| line.split_once("listening on ").map(|(_, rest)| rest.to_owned()))
            .map(|rest| rest.chars().take_while(|c| !matches!(c, '"' | ',')).collect())
            .expect("docker-registry listens");
        // Later output is read and dropped, because a full pipe would block the process.
        std::thread::spawn(move || lines.for_each(drop));
        Listener { process, host }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
