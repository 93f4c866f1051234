//! Web proxies from the environment, and what is reached without one.
//!
//! `NO_PROXY` follows Go's rules (`golang.org/x/net/http/httpproxy`), as skopeo, podman and containerd read it. A
//! request that these tools send directly would show a proxy its path and, over plain HTTP, a password. In addition to
//! Go's rules, `[address]` needs no port, and a network may have one.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use reqwest::Url;

use super::loopback::is_loopback;
use crate::base::error::{Error, Result};

const SCHEMES: [&str; 6] = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"];

/// The proxies of a run. By default there are none.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    no_proxy: String,
}

/// One proxy. Its user and password are never shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Proxy(Url);

impl Proxies {
    /// Reads `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`. If one is empty, its lower-case form counts.
    ///
    /// # Errors
    /// A variable is not the URL of a proxy. The error names the variable and leaves out its value, which may contain a
    /// password.
    pub fn of_environment(env: &dyn Fn(&str) -> Option<String>) -> Result<Proxies> {
        let read = |name: &str| {
            let names = [name.to_owned(), name.to_ascii_lowercase()];
            names.into_iter().find_map(|name| {
                let value = env(&name)?.trim().to_owned();
                (!value.is_empty()).then_some((name, value))
            })
        };
        let proxy = |name: &str| read(name).map(|(name, value)| Proxy::parse(&name, &value)).transpose();
        let (mut http, mut https) = (proxy("HTTP_PROXY")?, proxy("HTTPS_PROXY")?);
        if http.is_none() || https.is_none() {
            let all = proxy("ALL_PROXY")?;
            (http, https) = (http.or_else(|| all.clone()), https.or(all));
        }
        Ok(Proxies { http, https, no_proxy: read("NO_PROXY").map(|(_, value)| value).unwrap_or_default() })
    }

    /// Returns the proxy for `url`, or `None` if it is reached directly.
    pub(super) fn for_url(&self, url: &Url) -> Option<&Proxy> {
        let proxy = match url.scheme() {
            "https" => self.https.as_ref(),
            _ => self.http.as_ref(),
        };
        proxy.filter(|_| !is_loopback(url) && !is_direct(&self.no_proxy, url))
    }
}

impl Proxy {
    /// `value` may lack the scheme `http://`.
    fn parse(variable: &str, value: &str) -> Result<Proxy> {
        let whole = match value.split_once("://") {
            // The spelling of desktop environments.
            Some(("socks", rest)) => format!("socks5://{rest}"),
            Some(_) => value.to_owned(),
            None => format!("http://{value}"),
        };
        let url = Url::parse(&whole).ok().filter(|url| SCHEMES.contains(&url.scheme()));
        // The HTTP library does not accept escapes in a host, and would bypass such a proxy.
        let url = url.filter(|url| url.host_str().is_some_and(|host| !host.is_empty() && !host.contains('%')));
        // An unescaped `#` in a password: the intended host follows it.
        let url = url.filter(|url| url.fragment().is_none());
        url.map(Proxy).ok_or_else(|| {
            Error::input(format!(
                "reading {variable}: it is not the URL of a proxy, such as http://HOST:PORT or socks5h://HOST:PORT \
                 (its value is not shown, because it may contain a password)"
            ))
        })
    }

    /// The URL with user and password.
    pub fn url(&self) -> &Url {
        &self.0
    }
}

/// `host:port`.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.host_str().unwrap_or_default())?;
        self.0.port_or_known_default().map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The end of an error's text: the proxy that the request went through, if there is one.
pub(super) fn by_way_of(proxy: Option<&Proxy>) -> String {
    proxy.map(|proxy| format!(" (through the proxy {proxy})")).unwrap_or_default()
}

/// Whether `no_proxy` matches the host of `url`.
fn is_direct(no_proxy: &str, url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
    let port = url.port_or_known_default();
    no_proxy.split(',').map(|entry| entry.trim().to_ascii_lowercase()).any(|entry| {
        let (name, only) = split_port(&entry);
        entry == "*"
            || (names(name, &host) && only.is_none_or(|only| port.is_some_and(|port| only == port.to_string())))
    })
}

/// `host[:port]`, where the host may be an IPv6 address with or without brackets.
fn split_port(entry: &str) -> (&str, Option<&str>) {
    let inner = entry.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    match inner {
        Some((host, rest)) if rest.is_empty() || rest.starts_with(':') => {
            (host, rest.get(1..).filter(|port| !port.is_empty()))
        }
        _ => match entry.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port).filter(|port| !port.is_empty())),
            _ => (entry, None),
        },
    }
}

/// Whether an entry without its port matches `host`, as it appears in a URL.
fn names(entry: &str, host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>().ok().map(|address| address.to_canonical());
    if let Some((network, bits)) = entry.split_once('/') {
        return address.is_some_and(|address| is_in(network.parse().ok(), bits.parse().ok(), address));
    }
    if let Ok(named) = entry.parse::<IpAddr>() {
        return address == Some(named.to_canonical());
    }
    // Go compares an entry that is not an address as a domain, even with a host that is an address.
    let suffix = entry.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(entry);
    let (domain, is_below) = suffix.strip_prefix('.').map_or((suffix, false), |domain| (domain, true));
    let domain = in_ascii(domain);
    !domain.is_empty()
        && host.strip_suffix(&*domain).is_some_and(|rest| rest.ends_with('.') || rest.is_empty() && !is_below)
}

/// Returns a name as it appears in a URL: in punycode if it is not ASCII.
fn in_ascii(name: &str) -> Cow<'_, str> {
    let host = |url: Url| url.host_str().map(str::to_owned);
    match name.is_ascii() {
        true => Cow::Borrowed(name),
        false => Url::parse(&format!("http://{name}")).ok().and_then(host).map_or(Cow::Borrowed(name), Cow::Owned),
    }
}

/// Whether `address`, in its canonical form, has the first `bits` bits of `network`.
fn is_in(network: Option<IpAddr>, bits: Option<u32>, address: IpAddr) -> bool {
    // `::ffff:10.0.0.0/104` is `10.0.0.0/8`.
    let (network, bits) = match (network, network.map(|network| network.to_canonical())) {
        (Some(IpAddr::V6(_)), Some(mapped @ IpAddr::V4(_))) => {
            (Some(mapped), bits.and_then(|bits| bits.checked_sub(96)))
        }
        (network, _) => (network, bits),
    };
    match (network, bits, address) {
        (Some(IpAddr::V4(network)), Some(bits @ 0..=32), IpAddr::V4(address)) => {
            (network.to_bits() ^ address.to_bits()).checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (Some(IpAddr::V6(network)), Some(bits @ 0..=128), IpAddr::V6(address)) => {
            (network.to_bits() ^ address.to_bits()).checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies> {
        let env = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Proxies::of_environment(&env)
    }

    /// Every wrong row sends a password to a proxy that must not see it, or a request to a dead end.
    #[test]
    fn no_proxy_is_read_as_go_programs_read_it() {
        const NAMED: &str = "http://reg.corp.example:5000/v2/";
        const V4: &str = "http://10.9.9.9:5000/v2/";
        const V6: &str = "http://[fd00::9]:5000/v2/";
        const MAPPED: &str = "http://[::ffff:10.9.9.9]:5000/v2/";
        const IDN: &str = "http://reg.bücher.example:5000/v2/";
        for (no_proxy, url, direct) in [
            ("", NAMED, false),
            ("*", NAMED, true),
            ("*", V6, true),
            ("reg.corp.example", NAMED, true),
            (" other.example , REG.Corp.Example ,", NAMED, true),
            ("corp.example", NAMED, true),
            (".corp.example", NAMED, true),
            ("*.corp.example", NAMED, true),
            ("reg.corp.example:5000", NAMED, true),
            ("corp.example:5000", NAMED, true),
            (".corp.example:5000", NAMED, true),
            ("*.corp.example:5000", NAMED, true),
            ("reg.corp.example:5001", NAMED, false),
            ("*.corp.example:5001", NAMED, false),
            ("corp.example:443", "https://reg.corp.example/v2/", true),
            ("corp.example:80", "http://reg.corp.example/v2/", true),
            ("corp.example:80", "https://reg.corp.example/v2/", false),
            ("rp.example", NAMED, false),
            (".reg.corp.example", NAMED, false),
            ("*.reg.corp.example", NAMED, false),
            ("*corp.example", NAMED, false),
            (".", NAMED, false),
            ("*.", NAMED, false),
            (":5000", NAMED, false),
            ("reg.corp.example:", NAMED, true),
            ("10.9.9.9", V4, true),
            ("10.9.9.9:5000", V4, true),
            ("10.9.9.9:5001", V4, false),
            ("10.9.9.0/24", V4, true),
            ("10.9.9.0/24:5000", V4, true),
            ("10.9.9.0/24:80", V4, false),
            ("10.9.8.0/24", V4, false),
            ("0.0.0.0/0", V4, true),
            ("10.9.9.9/32", V4, true),
            ("10.9.9.8/32", V4, false),
            ("10.9.9.0/33", V4, false),
            ("9.9.9", V4, true),
            (".9.9", V4, true),
            ("9.9.9:80", V4, false),
            ("0.9.9.9", V4, false),
            ("10.9.9.9", MAPPED, true),
            ("10.9.9.0/24", MAPPED, true),
            ("::ffff:10.9.9.9", V4, true),
            ("::ffff:10.0.0.0/104", V4, true),
            ("::ffff:11.0.0.0/104", V4, false),
            ("bücher.example", IDN, true),
            ("Reg.BÜCHER.example:5000", IDN, true),
            ("*.bücher.example", IDN, true),
            (".bücher.example", IDN, true),
            (".reg.bücher.example", IDN, false),
            ("xn--bcher-kva.example", IDN, true),
            ("cher.example", IDN, false),
            ("::/0", V4, false),
            ("10.0.0.0/8", NAMED, false),
            ("fd00::9", V6, true),
            ("[fd00::9]", V6, true),
            ("[fd00::9]:5000", V6, true),
            ("[fd00::9]:80", V6, false),
            ("fd00::/8", V6, true),
            ("fe80::/10", V6, false),
            ("[fd00::9", V6, false),
            ("x.example", "http://localhost:5000/", true),
            ("", "http://127.3.2.1/", true),
            ("", "http://[::1]:5000/", true),
        ] {
            let set = proxies(&[("HTTP_PROXY", "p:1"), ("HTTPS_PROXY", "p:2"), ("NO_PROXY", no_proxy)]).unwrap();
            assert_eq!(set.for_url(&url.parse().unwrap()).is_none(), direct, "{no_proxy}: {url}");
        }
    }

    #[test]
    fn each_scheme_has_the_proxy_of_its_variable() {
        for (variables, http, https) in [
            (vec![("http_proxy", "10.9.9.8:3128")], "10.9.9.8:3128", ""),
            (vec![("HTTPS_PROXY", "http://me:x@proxy.example")], "", "proxy.example:80"),
            (
                vec![("HTTP_PROXY", ""), ("http_proxy", "https://low/"), ("all_proxy", "socks5h://all:1080")],
                "low:443",
                "all:1080",
            ),
            (vec![("HTTP_PROXY", "up:1"), ("http_proxy", "low:2"), ("no_proxy", "reg")], "up:1", ""),
        ] {
            let proxies = proxies(&variables).unwrap();
            for (url, expected) in [("http://registry.example/", http), ("https://registry.example/", https)] {
                let proxy = proxies.for_url(&url.parse().unwrap()).map(ToString::to_string).unwrap_or_default();
                assert_eq!(proxy, expected, "{variables:?}: {url}");
            }
        }
    }

    #[test]
    fn what_is_no_proxy_is_an_error_without_its_password() {
        for value in [
            "http://me:hunter2@:::bad",
            "gopher://me:hunter2@p",
            "http://",
            "socks5://me:hunter2@%41:1",
            "me:hunter2#@p:1",
            "me:1#hunter2@p:1",
        ] {
            let reported = proxies(&[("https_proxy", value)]).unwrap_err().chain();
            assert!(reported.contains("https_proxy") && !reported.contains("hunter2"), "{reported}");
        }
        let set = proxies(&[("https_proxy", "http://me:hunter2@p:1")]).unwrap();
        assert!(!format!("{set:?}").contains("hunter2"), "{set:?}");
    }
}
