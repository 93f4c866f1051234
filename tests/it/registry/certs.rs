//! Certificate directories as sites lay them out for docker and podman, against real TLS listeners that ask for a
//! client certificate.

use std::path::{Path, PathBuf};
use std::process::Command;

use gapferry::base::error::{Error, Kind};
use gapferry::content::{Need, Source};
use gapferry::transport::registry::{Config, RegistryConfig, TlsConfig};

use crate::registry::memory_source::{repository, tag};
use crate::registry::tls::{Listener, Pair, reach};
use crate::registry::{client, config};
use crate::support::faulty::{Answer, Server};

/// A site's private certificate authority.
struct Authority {
    directory: PathBuf,
    name: &'static str,
}

impl Authority {
    fn new(directory: &Path, name: &'static str) -> Authority {
        let subject = format!("/CN={name}");
        openssl(directory, &["req", "-x509", "-days", "2", "-subj", &subject], &format!("{name}-ca"));
        Authority { directory: directory.to_owned(), name }
    }

    fn certificate(&self) -> PathBuf {
        self.directory.join(format!("{}-ca.pem", self.name))
    }

    /// Issues a certificate for 127.0.0.1, or for a client.
    fn sign(&self, name: &str) -> Pair {
        let ca = |extension: &str| format!("{}-ca.{extension}", self.name);
        let (subject, file) = (format!("/CN={name}"), format!("{}-{name}", self.name));
        std::fs::write(self.directory.join("ext"), "basicConstraints=CA:FALSE\nsubjectAltName=IP:127.0.0.1\n").unwrap();
        openssl(&self.directory, &["req", "-subj", &subject], &file);
        let request = format!("{file}.pem");
        let sign =
            ["x509", "-req", "-days", "2", "-extfile", "ext", "-CAcreateserial", "-in", &request, "-out", &request];
        run(&self.directory, &[&sign[..], &["-CA", &ca("pem"), "-CAkey", &ca("key")]].concat());
        Pair { certificate: self.directory.join(request), key: self.directory.join(format!("{file}.key")) }
    }
}

/// Runs openssl with a new key `NAME.key`; the certificate goes to `NAME.pem`.
fn openssl(directory: &Path, arguments: &[&str], name: &str) {
    let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
    let made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-out", &certificate];
    run(directory, &[arguments, &made[..], &["-keyout", &key]].concat());
}

fn run(directory: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The directories where a machine keeps certificates, highest precedence first.
struct Places(tempfile::TempDir);

impl Places {
    fn new() -> Places {
        Places(tempfile::tempdir().unwrap())
    }

    /// Creates the directory `host` in one of the places.
    fn of(&self, place: &str, host: &str) -> PathBuf {
        let directory = self.0.path().join(place).join(host);
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }

    fn config(&self) -> Config {
        let certs_d = ["home", "etc", "docker"].map(|place| self.0.path().join(place)).to_vec();
        Config { tls: TlsConfig { certs_d, ..TlsConfig::default() }, ..config() }
    }
}

fn put(directory: &Path, name: &str, file: &Path) {
    std::fs::copy(file, directory.join(name)).unwrap();
}

fn put_pair(directory: &Path, name: &str, pair: &Pair) {
    put(directory, &format!("{name}.cert"), &pair.certificate);
    put(directory, &format!("{name}.key"), &pair.key);
}

/// A registry that accepts only clients certified by `clients`.
fn listener(directory: &Path, server: &Pair, clients: &Authority) -> Listener {
    Listener::start(directory, server, Some(&clients.certificate()))
}

async fn fails(host: &str, config: Config) -> Error {
    client(config).manifest(&tag(&repository(host, "a"), "v1"), Need::Required).await.unwrap_err()
}

#[tokio::test]
async fn certificates_set_up_for_docker_and_podman_work_here_client_certificates_included() {
    let fixture = tempfile::tempdir().unwrap();
    let site = Authority::new(fixture.path(), "site");
    let server = listener(fixture.path(), &site.sign("server"), &site);
    let places = Places::new();
    assert_eq!(fails(&server.host, places.config()).await.kind(), Kind::Network);

    let directory = places.of("docker", &server.host);
    put(&directory, "ca.crt", &site.certificate());
    assert_eq!(fails(&server.host, places.config()).await.kind(), Kind::Network, "without a client certificate");
    put_pair(&directory, "client", &site.sign("us"));
    std::fs::write(directory.join("README"), "not a certificate").unwrap();
    reach(&server.host, places.config()).await.unwrap();
}

#[tokio::test]
async fn the_first_directory_with_the_registry_counts_and_ports_are_distinct() {
    let fixture = tempfile::tempdir().unwrap();
    let [site, other] = ["site", "other"].map(|name| Authority::new(fixture.path(), name));
    let server = Listener::start(fixture.path(), &site.sign("server"), None);
    let places = Places::new();
    put(&places.of("etc", "127.0.0.1"), "ca.crt", &site.certificate());
    put(&places.of("etc", "127.0.0.1:1"), "ca.crt", &site.certificate());
    assert_eq!(fails(&server.host, places.config()).await.kind(), Kind::Network);
    put(&places.of("docker", &server.host), "ca.crt", &site.certificate());
    reach(&server.host, places.config()).await.unwrap();
    put(&places.of("home", &server.host), "ca.crt", &other.certificate());
    assert_eq!(fails(&server.host, places.config()).await.kind(), Kind::Network, "the user's own directory is first");
}

#[tokio::test]
async fn half_a_certificate_pair_is_refused_naming_the_missing_file_before_any_request() {
    let fixture = tempfile::tempdir().unwrap();
    let pair = Authority::new(fixture.path(), "site").sign("us");
    for (half, file, missing) in [("us.cert", &pair.certificate, "us.key"), ("us.key", &pair.key, "us.cert")] {
        let places = Places::new();
        put(&places.of("etc", "registry.invalid"), half, file);
        let error = fails("registry.invalid", places.config()).await;
        assert_eq!(error.kind(), Kind::Input, "{error:?}");
        let message = error.to_string();
        assert!(message.contains(&format!("registry.invalid/{half}: {missing} is missing")), "{message}");
    }
}

#[tokio::test]
async fn a_key_that_does_not_match_its_certificate_is_reported_with_both_files() {
    let fixture = tempfile::tempdir().unwrap();
    let site = Authority::new(fixture.path(), "site");
    let places = Places::new();
    let directory = places.of("etc", "registry.invalid");
    put(&directory, "us.cert", &site.sign("us").certificate);
    put(&directory, "us.key", &site.sign("them").key);
    let message = fails("registry.invalid", places.config()).await.to_string();
    assert!(message.contains("us.cert") && message.contains("us.key"), "{message}");
}

#[tokio::test]
async fn the_client_certificate_the_server_asks_for_is_sent() {
    let fixture = tempfile::tempdir().unwrap();
    let [site, old, partner] = ["site", "old", "partner"].map(|name| Authority::new(fixture.path(), name));
    let server = listener(fixture.path(), &site.sign("server"), &partner);
    let places = Places::new();
    let directory = places.of("etc", &server.host);
    put(&directory, "ca.crt", &site.certificate());
    put_pair(&directory, "a-old", &old.sign("us"));
    put_pair(&directory, "b-partner", &partner.sign("us"));
    reach(&server.host, places.config()).await.unwrap();
}

#[tokio::test]
async fn a_given_certificate_directory_replaces_the_defaults_and_an_allowlists_overrides_it() {
    let fixture = tempfile::tempdir().unwrap();
    let [site, other] = ["site", "other"].map(|name| Authority::new(fixture.path(), name));
    let server = Listener::start(fixture.path(), &site.sign("server"), None);
    let places = Places::new();
    put(&places.of("etc", &server.host), "ca.crt", &site.certificate());
    let (right, wrong) = (places.of("named", "right"), places.of("named", "wrong"));
    put(&right, "ca.crt", &site.certificate());
    put(&wrong, "ca.crt", &other.certificate());
    let named = |cert_dir: &Path| {
        let mut config = places.config();
        config.tls.cert_dir = Some(cert_dir.to_owned());
        config
    };
    reach(&server.host, named(&right)).await.unwrap();
    assert_eq!(fails(&server.host, named(&wrong)).await.kind(), Kind::Network);
    let own = RegistryConfig { cert_dir: Some(right), ..RegistryConfig::default() };
    let per_registry = [(server.host.clone(), own)].into_iter().collect();
    reach(&server.host, Config { per_registry, ..named(&wrong) }).await.unwrap();
}

#[tokio::test]
async fn redirected_storage_is_trusted_by_the_given_directory_but_gets_no_client_certificate() {
    let fixture = tempfile::tempdir().unwrap();
    let site = Authority::new(fixture.path(), "site");
    let server_pair = site.sign("server");
    let open = Listener::start(fixture.path(), &server_pair, None);
    let asking = listener(fixture.path(), &server_pair, &site);
    let named = fixture.path().join("named");
    std::fs::create_dir(&named).unwrap();
    put(&named, "ca.crt", &site.certificate());
    put_pair(&named, "client", &site.sign("us"));
    // The first serves any client; the second requires a client certificate.
    for (storage, reached) in [(&open, true), (&asking, false)] {
        let places = Places::new();
        // Having certificates for the storage's own host makes no difference.
        for known in [false, true] {
            let mut config = places.config();
            config.tls.cert_dir = Some(named.clone());
            if known {
                put(&places.of("etc", &storage.host), "ca.crt", &site.certificate());
                let own = RegistryConfig { tls_verify: Some(true), ..RegistryConfig::default() };
                config.per_registry = [(storage.host.clone(), own)].into_iter().collect();
            }
            reach(&storage.host, config.clone()).await.unwrap();
            let location = format!("https://{}/v2/a/manifests/v1", storage.host);
            let registry = Server::registry(move |_, _| Answer::new(307).with("Location", location.clone())).await;
            assert_eq!(reach(&registry.address, config).await.is_ok(), reached, "known: {known}");
        }
    }
}
