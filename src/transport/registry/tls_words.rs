//! Describes TLS errors in words. rustls names its own types and the alerts of the protocol.

use jiff::Timestamp;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::facts::TlsProblem;
use super::tls::NoRoots;

/// Maximum number of names of a certificate in a message; it may have thousands.
const MOST_NAMES: usize = 5;
/// Maximum characters of such a name in a message.
const LONGEST_NAME: usize = 100;

/// Classifies the error.
pub(super) fn fault(error: &Error) -> TlsProblem {
    match error {
        Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. })
            if presented.is_empty() =>
        {
            TlsProblem::Outdated
        }
        Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. }) => TlsProblem::WrongName,
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            TlsProblem::Expired
        }
        Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            TlsProblem::NotYetValid
        }
        Error::InvalidCertificate(CertificateError::Other(other))
            if matches!(other.0.downcast_ref(), Some(webpki::Error::UnsupportedCertVersion)) =>
        {
            TlsProblem::Outdated
        }
        Error::InvalidCertificate(_) => TlsProblem::Untrusted,
        error if no_roots(error).is_some() => TlsProblem::Untrusted,
        Error::AlertReceived(
            AlertDescription::HandshakeFailure
            | AlertDescription::InsufficientSecurity
            | AlertDescription::ProtocolVersion,
        )
        | Error::PeerIncompatible(
            PeerIncompatible::NoCipherSuitesInCommon
            | PeerIncompatible::NoKxGroupsInCommon
            | PeerIncompatible::ServerDoesNotSupportTls12Or13,
        ) => TlsProblem::Outdated,
        Error::AlertReceived(AlertDescription::CertificateRequired) => TlsProblem::ClientCertificateDemanded,
        _ => TlsProblem::Other,
    }
}

fn no_roots(error: &Error) -> Option<&NoRoots> {
    match error {
        Error::Other(other) => other.0.downcast_ref(),
        _ => None,
    }
}

/// Describes the error. `None` if the text of rustls is good enough.
pub(super) fn words(fault: &Error) -> Option<String> {
    if let Some(no_roots) = no_roots(fault) {
        return Some(no_roots.to_string());
    }
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
        Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented }) => {
            return Some(format!(
                "invalid peer certificate: it is not valid for name {}, only for {}",
                expected.to_str(),
                names(presented)
            ));
        }
        Error::InvalidCertificate(CertificateError::ExpiredContext { time, not_after }) => {
            return Some(format!(
                "invalid peer certificate: it has expired: it was valid until {}, and this machine's clock says {}",
                date(*not_after)?,
                date(*time)?
            ));
        }
        Error::InvalidCertificate(CertificateError::NotValidYetContext { time, not_before }) => {
            return Some(format!(
                "invalid peer certificate: it is not valid yet: it is valid from {} on, and this machine's clock says {}",
                date(*not_before)?,
                date(*time)?
            ));
        }
        // Also for a certificate that ends before it begins.
        Error::InvalidCertificate(CertificateError::Expired) => "invalid peer certificate: it has expired",
        Error::InvalidCertificate(CertificateError::NotValidYet) => "invalid peer certificate: it is not valid yet",
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
            "the server requires a client certificate, and none was sent"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// As RFC 3339 writes it.
fn date(time: UnixTime) -> Option<Timestamp> {
    Timestamp::from_second(i64::try_from(time.as_secs()).ok()?).ok()
}

/// The hosts of a certificate. webpki shows each as `DnsName("host")` or `IpAddress(address)`.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
        inner.trim_matches('"').chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect::<String>()
    };
    let shown: Vec<String> = presented.iter().take(MOST_NAMES).map(bare).collect();
    match presented.len().saturating_sub(MOST_NAMES) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;

    use super::*;

    /// An operator with a wrong clock would look for a CA in vain.
    #[test]
    fn each_fault_that_has_a_remedy_of_its_own_is_distinguished() {
        let name = ServerName::try_from("registry.example").unwrap();
        let presented = |names: &[&str]| CertificateError::NotValidForNameContext {
            expected: name.to_owned(),
            presented: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let now = UnixTime::since_unix_epoch(std::time::Duration::ZERO);
        for (error, expected) in [
            (CertificateError::Expired, TlsProblem::Expired),
            (CertificateError::ExpiredContext { time: now, not_after: now }, TlsProblem::Expired),
            (CertificateError::NotValidYet, TlsProblem::NotYetValid),
            (CertificateError::NotValidYetContext { time: now, not_before: now }, TlsProblem::NotYetValid),
            (presented(&[]), TlsProblem::Outdated),
            (presented(&["a.example"]), TlsProblem::WrongName),
            (CertificateError::UnknownIssuer, TlsProblem::Untrusted),
            (CertificateError::BadSignature, TlsProblem::Untrusted),
        ] {
            assert_eq!(fault(&Error::InvalidCertificate(error.clone())), expected, "{error:?}");
        }
        for (error, expected) in [
            (Error::AlertReceived(AlertDescription::HandshakeFailure), TlsProblem::Outdated),
            (Error::AlertReceived(AlertDescription::ProtocolVersion), TlsProblem::Outdated),
            (Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13), TlsProblem::Outdated),
            (Error::AlertReceived(AlertDescription::CertificateRequired), TlsProblem::ClientCertificateDemanded),
            (Error::AlertReceived(AlertDescription::InternalError), TlsProblem::Other),
        ] {
            assert_eq!(fault(&error), expected, "{error:?}");
        }
    }

    /// In a container without CA certificates, an operator would look for a wrong name or proxy.
    #[test]
    fn a_machine_without_ca_certificates_gets_the_advice_about_them() {
        let why = "this machine has no CA certificates".to_owned();
        let error = Error::Other(rustls::OtherError(std::sync::Arc::new(NoRoots(why))));
        assert_eq!(fault(&error), TlsProblem::Untrusted);
        let expected = "its certificate cannot be verified: this machine has no CA certificates";
        assert_eq!(words(&error).as_deref(), Some(expected));
    }

    /// Seconds since 1970 and names of Rust types do not tell an operator what to do.
    #[test]
    fn dates_and_names_of_a_certificate_are_those_that_people_know() {
        let at = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let presented = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let other = |names: &[&str]| CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("registry.example").unwrap().to_owned(),
            presented: presented(names),
        };
        for (error, message) in [
            (
                CertificateError::ExpiredContext { time: at(1_764_499_867), not_after: at(1_732_963_867) },
                "it has expired: it was valid until 2024-11-30T10:51:07Z, and this machine's clock says 2025-11-30T10:51:07Z",
            ),
            (
                CertificateError::NotValidYetContext { time: at(0), not_before: at(1_732_963_867) },
                "it is not valid yet: it is valid from 2024-11-30T10:51:07Z on, and this machine's clock says 1970-01-01T00:00:00Z",
            ),
            (
                other(&[r#"DnsName("a.example")"#, "IpAddress(10.0.0.1)"]),
                "it is not valid for name registry.example, only for a.example, 10.0.0.1",
            ),
            (other(&[r#"DnsName("x")"#; 7]), "only for x, x, x, x, x and 2 more"),
        ] {
            let reported = words(&Error::InvalidCertificate(error)).unwrap();
            assert!(reported.ends_with(message), "{reported}");
        }
    }
}
