//! A directory of certificates for one registry, as `certs.d/<host>` and `--cert-dir` name it (containers-certs.d(5)): `*.crt`
//! are trusted authorities, `x.cert` with `x.key` is a client certificate.
//!
//! The directory belongs to the user or the administrator and is trusted. A mistake in it is an error that names the file,
//! because a failing connection would not.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::base::bounded::read_all;
use crate::base::error::{Error, Result};
use crate::base::fsops::open_plain;

/// Maximum size of a file with certificates or a key in bytes. All authorities that a system trusts have less than one MiB.
const MAX_SIZE: u64 = 16 * 1024 * 1024;

/// The files of a directory, by name.
#[derive(Debug, Default)]
pub(super) struct CertDir {
    pub authorities: Vec<PathBuf>,
    /// Certificate and key.
    pub pairs: Vec<(PathBuf, PathBuf)>,
}

impl CertDir {
    /// Lists the files of a directory.
    ///
    /// # Errors
    /// Half of a pair is missing; both files are named.
    pub fn read(path: &Path) -> Result<CertDir> {
        let fail = |e| Error::disk("reading certificates in", path, e);
        let mut files = Vec::new();
        for entry in std::fs::read_dir(path).map_err(fail)? {
            files.push(entry.map_err(fail)?.path());
        }
        files.sort();
        let mut found = CertDir::default();
        for file in &files {
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => found.authorities.push(file.clone()),
                Some("cert") => found.pairs.push((file.clone(), other_half(file, "key", &files)?)),
                Some("key") => drop(other_half(file, "cert", &files)?),
                _ => {}
            }
        }
        Ok(found)
    }
}

fn other_half(file: &Path, extension: &str, files: &[PathBuf]) -> Result<PathBuf> {
    let other = file.with_extension(extension);
    if files.contains(&other) {
        return Ok(other);
    }
    let (half, missing) = (file.display(), other.file_name().unwrap_or_default().display());
    let text =
        format!("reading client certificate {half}: {missing} is missing beside it (an authority is called *.crt)");
    Err(Error::input(text))
}

/// The certificates in a file, which is read more than once and therefore must not be a pipe.
///
/// # Errors
/// The file cannot be opened or read, or contains no certificate; it is named.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    let list = list.map_err(|e| unreadable(path, e))?;
    if list.is_empty() {
        return Err(Error::input(format!("reading certificates from {}: it holds none in PEM form", path.display())));
    }
    Ok(list)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = open_plain(path).and_then(|file| read_all(file, MAX_SIZE)).map_err(|e| unreadable(path, e))?;
    let too_large = || format!("reading certificates from {}: it has more than {MAX_SIZE} bytes", path.display());
    bytes.ok_or_else(|| Error::input(too_large()))
}

fn unreadable(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::input(format!("reading certificates from {}", path.display())).because(error)
}

/// Our certificates for one registry.
#[derive(Debug)]
pub(super) struct Identities(Vec<Arc<CertifiedKey>>);

impl Identities {
    /// Reads certificates and keys.
    ///
    /// # Errors
    /// A file is not a certificate or a key, or a key does not belong to its certificate.
    pub fn read(pairs: &[(PathBuf, PathBuf)], provider: &CryptoProvider) -> Result<Identities> {
        let read = |(certificate, key): &(PathBuf, PathBuf)| {
            let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|e| unreadable(key, e))?;
            let pair = CertifiedKey::from_der(certificates(certificate)?, private, provider);
            let attempt = || format!("reading client certificate {} with {}", certificate.display(), key.display());
            pair.map(Arc::new).map_err(|e| Error::input(attempt()).because(e))
        };
        pairs.iter().map(read).collect::<Result<_>>().map(Identities)
    }
}

impl ResolvesClientCert for Identities {
    /// The first certificate from an authority that the server names; otherwise the first that can sign, and the server's
    /// error will explain.
    fn resolve(&self, authorities: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let usable = || self.0.iter().filter(|own| own.key.choose_scheme(schemes).is_some());
        usable().find(|own| is_from(own, authorities)).or_else(|| usable().next()).cloned()
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

fn is_from(own: &CertifiedKey, authorities: &[&[u8]]) -> bool {
    own.cert.iter().filter_map(|link| webpki::EndEntityCert::try_from(link).ok()).any(|link| {
        let issuer = rustls::DistinguishedName::in_sequence(link.issuer());
        authorities.contains(&issuer.as_ref())
    })
}
