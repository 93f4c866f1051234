//! What is wrong with a TLS server, in words: rustls names its own types, and the alerts of the protocol.

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

/// `None`: what rustls says will do.
pub(super) fn words(fault: &Error) -> Option<String> {
    let text = match fault {
        Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented })
            if presented.is_empty() =>
        {
            return Some(format!(
                "invalid peer certificate: it names no host in a subjectAltName, and its common name does not count: not \
                 valid for {}",
                expected.to_str()
            ));
        }
        Error::InvalidCertificate(CertificateError::Other(other)) => match other.0.downcast_ref::<webpki::Error>()? {
            webpki::Error::UnsupportedCertVersion => {
                "invalid peer certificate: it is of an old version of X.509; only version 3 is accepted"
            }
            webpki::Error::CaUsedAsEndEntity => {
                "invalid peer certificate: it is the certificate of an authority, not of a server"
            }
            _ => return None,
        },
        Error::AlertReceived(AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity)
        | Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon | PeerIncompatible::NoKxGroupsInCommon) => {
            "the TLS handshake failed: the server has no cipher suite or key exchange in common with this program, which \
             needs TLS 1.3, or TLS 1.2 with ECDHE and AES-GCM or ChaCha20"
        }
        Error::AlertReceived(AlertDescription::ProtocolVersion)
        | Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
            "the TLS handshake failed: the server offers neither TLS 1.2 nor TLS 1.3"
        }
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the server demands a client certificate, and none was shown"
        }
        _ => return None,
    };
    Some(text.to_owned())
}
