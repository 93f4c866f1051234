//! Keeps browsers on the same machine out.
//!
//! # Threats
//! A web page can make a browser send requests to a server on loopback. With DNS rebinding it can even read the responses: the
//! page's own name then resolves to 127.0.0.1, so `Host` is a name that does not belong to this server. Every cross-origin
//! request from a page carries `Origin`. Registry clients send neither a foreign `Host` nor an `Origin`.

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, header};

use super::answer::RequestRefusal;

/// The names that the server answers to, besides addresses and those of this machine.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    hosts: Vec<String>,
}

impl Guard {
    /// `hosts` are names without port, in any case.
    pub fn new(hosts: &[String]) -> Guard {
        Guard { hosts: hosts.iter().map(|host| host.trim_end_matches('.').to_ascii_lowercase()).collect() }
    }

    /// Refuses requests that a foreign web page may have sent.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), RequestRefusal> {
        let mut named: Vec<&str> = uri.authority().map(Authority::as_str).into_iter().collect();
        for value in headers.get_all(header::HOST) {
            named.push(value.to_str().map_err(|_| foreign("a Host that is not text"))?);
        }
        for authority in &named {
            if !self.answers_to(authority) {
                let shown: String = authority.chars().take(100).collect();
                return Err(foreign(&format!(
                    "the name {shown:?}: it answers only to addresses, localhost, and names given by --host"
                )));
            }
        }
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        if text("sec-fetch-site").is_some_and(|site| matches!(site, "cross-site" | "same-site")) {
            return Err(foreign("a web page of another site"));
        }
        let own = |origin: &str| {
            let authority = origin.split_once("://").map(|(_, authority)| authority);
            authority.is_some_and(|authority| named.contains(&authority))
        };
        match headers.get_all(header::ORIGIN).iter().all(|origin| origin.to_str().is_ok_and(own)) {
            true => Ok(()),
            false => Err(foreign("a web page of another origin")),
        }
    }

    fn answers_to(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else { return false };
        let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        address.parse::<std::net::IpAddr>().is_ok()
            || host == "localhost"
            || host.ends_with(".localhost")
            || self.hosts.contains(&host)
    }
}

fn foreign(what: &str) -> RequestRefusal {
    RequestRefusal::new(403, "DENIED", format!("this registry rejects requests for {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(host: &str, others: &[(&'static str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert("host", host.parse().unwrap());
        for (name, value) in others {
            headers.append(*name, value.parse().unwrap());
        }
        Guard::new(&["mirror.internal".to_owned()]).check(&Uri::from_static("/v2/"), &headers).is_ok()
    }

    #[test]
    fn programs_are_let_in_by_address_and_by_the_names_that_were_given() {
        for host in [
            "127.0.0.1:5000",
            "[::1]:5000",
            "10.0.0.7",
            "localhost",
            "LOCALHOST:1",
            "a.localhost",
            "Mirror.Internal:5000",
            "localhost.",
        ] {
            assert!(verdict(host, &[]), "{host}");
        }
    }

    #[test]
    fn a_page_that_gave_its_own_name_our_address_is_rejected() {
        for host in [
            "evil.example",
            "evil.example:5000",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "",
            "a b",
            "mirror.internal.evil.example",
        ] {
            assert!(!verdict(host, &[]), "{host:?}");
        }
    }

    #[test]
    fn a_page_of_another_origin_is_rejected() {
        let host = "127.0.0.1:5000";
        assert!(verdict(host, &[("origin", "http://127.0.0.1:5000")]));
        for origin in
            ["https://evil.example", "null", "http://127.0.0.1:5001", "http://127.0.0.1:5000.evil.example", ""]
        {
            assert!(!verdict(host, &[("origin", origin)]), "{origin}");
        }
        assert!(!verdict(host, &[("origin", "http://127.0.0.1:5000"), ("origin", "https://evil.example")]));
        assert!(!verdict(host, &[("sec-fetch-site", "cross-site")]));
        assert!(verdict(host, &[("sec-fetch-site", "none")]));
    }
}
