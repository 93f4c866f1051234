//! Which servers to trust: system roots, additional authorities, one pinned certificate, or any server.
//!
//! The system's certificates are read at the first TLS connection, so that a machine without a CA store can still use
//! plain HTTP. rustls rejects a server whose own certificate is marked as an authority, as `openssl req -x509` creates
//! it. curl and Go accept it if it is exactly the certificate that they were told to trust. So does this module, if the
//! bytes are identical and name and dates are right.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};

use super::certs::{CertDir, Identities, certificates};
use crate::base::error::{Error, Kind, Result};

/// Everything that decides which servers are trusted. Equal settings share connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TlsSettings {
    pub verify: bool,
    pub ca_files: Vec<PathBuf>,
    pub cert_dir: Option<PathBuf>,
    /// Whether to present our certificate to a server that asks for one.
    pub identify: bool,
}

/// # Errors
/// A file cannot be read or contains no certificate, or one half of the client certificate pair is missing. The error
/// names the file.
pub(super) fn client_config(settings: &TlsSettings) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let directory = settings.cert_dir.as_deref().map(CertDir::read).transpose()?.unwrap_or_default();
    let mut added = Vec::new();
    for path in settings.ca_files.iter().chain(&directory.authorities) {
        added.extend(certificates(path)?);
    }
    let verifier: Arc<dyn ServerCertVerifier> = match settings.verify {
        true => Arc::new(Verifier { provider: provider.clone(), added, inner: OnceLock::new() }),
        false => Arc::new(Anyone { provider: provider.clone() }),
    };
    let setup = |e| Error::new(Kind::Network, "setting up TLS").because(e);
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(setup)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    if directory.pairs.is_empty() || !settings.identify {
        return Ok(builder.with_no_client_auth());
    }
    let identities = Identities::read(&directory.pairs, builder.crypto_provider())?;
    Ok(builder.with_client_cert_resolver(Arc::new(identities)))
}

/// Whether a TLS server failed: its certificate failed our checks, or ours failed its checks.
pub(super) fn spoke_tls(fault: &rustls::Error) -> bool {
    use rustls::Error::{AlertReceived, InvalidCertificate, Other, PeerIncompatible};
    matches!(fault, InvalidCertificate(_) | Other(_) | AlertReceived(_) | PeerIncompatible(_))
}

/// Returns the TLS error, if that is why a connection failed. Another try would not help.
pub(super) fn fault<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(fault) = error.downcast_ref::<rustls::Error>() {
            return Some(fault);
        }
        // The source() of an io::Error skips the error that it wraps.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

/// The usual checks against system roots and additional authorities.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    added: Vec<CertificateDer<'static>>,
    inner: OnceLock<Result<Arc<WebPkiServerVerifier>, String>>,
}

impl Verifier {
    fn inner(&self) -> Result<&WebPkiServerVerifier, rustls::Error> {
        let inner = self.inner.get_or_init(|| {
            let mut roots = RootCertStore::empty();
            let system = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(system.certs);
            for certificate in &self.added {
                roots.add(certificate.clone()).map_err(|e| format!("a certificate that was added: {e}"))?;
            }
            if roots.is_empty() {
                let why: Vec<String> = system.errors.iter().map(ToString::to_string).collect();
                let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join("; ")) };
                return Err(format!("this machine has no CA certificates{why}"));
            }
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
                .build()
                .map_err(|e| e.to_string())
        });
        inner.as_deref().map_err(|reason| rustls::Error::Other(OtherError(Arc::new(NoRoots(reason.clone())))))
    }
}

/// There is nothing to verify certificates with; the reason.
#[derive(Debug, thiserror::Error)]
#[error("its certificate cannot be verified: {0}")]
pub(super) struct NoRoots(pub String);

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict = self.inner()?.verify_server_cert(server, intermediates, name, ocsp, now);
        let pinned = || self.added.iter().any(|added| added.as_ref() == server.as_ref());
        match verdict {
            // webpki checks the dates before it gets here, so they are right.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(other)))
                if is_authority_as_server(&other) && pinned() =>
            {
                verify_server_name(&ParsedCertificate::try_from(server)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn is_authority_as_server(error: &OtherError) -> bool {
    matches!(error.0.downcast_ref::<webpki::Error>(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// `tls verify = false`: the connection is encrypted, the peer unknown.
#[derive(Debug)]
struct Anyone {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
