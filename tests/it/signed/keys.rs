//! Keys made by openssl, and openssl's view of a signature.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::images;
use crate::support::ran::Ran;
use crate::support::registry::Registry;
use crate::support::{gapferry, tempdir};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    P256,
    Ed25519,
}

/// A pair of key files.
pub struct Key {
    pub private: PathBuf,
    pub public: PathBuf,
    pub kind: Kind,
}

/// Runs openssl successfully; returns its output.
#[track_caller]
pub fn openssl(directory: &Path, args: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").current_dir(directory).args(args).output().expect("running openssl");
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

impl Key {
    pub fn new(directory: &Path, name: &str, kind: Kind) -> Key {
        let (private, public) = (format!("{name}.pem"), format!("{name}.pub"));
        match kind {
            Kind::P256 => {
                let args = ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &private];
                openssl(directory, &args);
            }
            Kind::Ed25519 => drop(openssl(directory, &["genpkey", "-algorithm", "ed25519", "-out", &private])),
        }
        openssl(directory, &["pkey", "-in", &private, "-pubout", "-out", &public]);
        Key { private: directory.join(private), public: directory.join(public), kind }
    }

    /// The sha256 of the key, according to `openssl`.
    pub fn fingerprint(&self) -> String {
        let der = openssl(Path::new("/"), &["pkey", "-pubin", "-in", text(&self.public), "-outform", "DER"]);
        crate::support::sha256(&der)
    }

    /// Verifies as a user without gapferry would: in the directory of the two files.
    #[track_caller]
    pub fn is_verified_by_openssl(&self, directory: &Path) {
        let public = text(&self.public);
        let args: &[&str] = match self.kind {
            Kind::P256 => &["dgst", "-sha256", "-verify", public, "-signature", "SHA256SUMS.sig", "SHA256SUMS"],
            Kind::Ed25519 => &[
                "pkeyutl",
                "-verify",
                "-pubin",
                "-inkey",
                public,
                "-rawin",
                "-in",
                "SHA256SUMS",
                "-sigfile",
                "SHA256SUMS.sig",
            ],
        };
        openssl(directory, args);
    }

    /// Signs the `SHA256SUMS` of a directory with openssl.
    #[track_caller]
    pub fn signs_by_openssl(&self, directory: &Path) {
        let private = text(&self.private);
        let args: &[&str] = match self.kind {
            Kind::P256 => &["dgst", "-sha256", "-sign", private, "-out", "SHA256SUMS.sig", "SHA256SUMS"],
            Kind::Ed25519 => {
                &["pkeyutl", "-sign", "-inkey", private, "-rawin", "-in", "SHA256SUMS", "-out", "SHA256SUMS.sig"]
            }
        };
        openssl(directory, args);
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}

/// A registry with one image, and a working directory.
pub struct Fixture {
    pub registry: Registry,
    pub directory: tempfile::TempDir,
}

impl Fixture {
    pub fn new() -> Fixture {
        let registry = Registry::start();
        images::oci("team/app", "1", &["content of the only layer"]).push(&registry);
        Fixture { registry, directory: tempdir() }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn key(&self, name: &str, kind: Kind) -> Key {
        Key::new(self.path(), name, kind)
    }

    /// Exports the image to `out` with further arguments.
    pub fn export(&self, out: &str, more: &[&str]) -> Ran {
        let reference = format!("{}/team/app:1", self.registry.host());
        let mut command = gapferry();
        // Two exports differ only in their arguments.
        command.env("SOURCE_DATE_EPOCH", "1700000000").current_dir(self.path());
        Ran::of(command.args(["export", &reference, "-o", out]).args(more))
    }

    pub fn signed(&self, out: &str, key: &Key) -> PathBuf {
        self.export(out, &["--sign-key", text(&key.private)]).ended(0);
        self.path().join(out)
    }

    /// Runs any command in the working directory.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(gapferry().current_dir(self.path()).args(args))
    }

    pub fn verify(&self, bundle: &Path, key: &Key) -> Ran {
        self.run(&["verify", text(bundle), "--key", text(&key.public)])
    }
}

/// Copies a directory's only signature until no more signatures fit.
pub fn take_all_signatures(bundle: &Path) {
    for number in 1..16 {
        let copy = bundle.join(format!("SHA256SUMS.{number:016x}.sig"));
        std::fs::copy(bundle.join("SHA256SUMS.sig"), copy).expect("copying a signature");
    }
}

/// A bundle of either form as a directory, for openssl and sha256sum.
pub fn unpacked(bundle: &Path) -> tempfile::TempDir {
    let directory = tempdir();
    let from = if bundle.is_dir() { format!("{}/.", text(bundle)) } else { text(bundle).to_owned() };
    let (program, args) = match bundle.is_dir() {
        true => ("cp", vec!["-r", &from, text(directory.path())]),
        false => ("tar", vec!["-xf", &from, "-C", text(directory.path())]),
    };
    assert!(Command::new(program).args(args).status().unwrap().success());
    directory
}
