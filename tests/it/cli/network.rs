//! The network between a machine and a registry: web proxies in the environment, IPv6 addresses.

use super::*;
use crate::support::images;
use crate::support::network::{WebProxy, ipv6_relay};
use crate::support::registry::{Options, Registry};

/// A name that only a proxy can resolve.
const ELSEWHERE: &str = "registry.invalid/team/app:1.0";

fn registry(tls: bool) -> Registry {
    let registry = Registry::with(Options { tls, ..Options::default() });
    images::oci("team/app", "1.0", &["content"]).push(&registry);
    registry
}

fn lock(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = gapferry();
    command.args(["lock", "--retries", "0"]).args(arguments).envs(environment.iter().copied());
    command.output().unwrap()
}

#[test]
fn https_proxy_is_honoured_in_either_case() {
    let registry = registry(true);
    let ca_file = registry.ca_file().display().to_string();
    for variable in ["HTTPS_PROXY", "https_proxy"] {
        let proxy = WebProxy::to(registry.host(), None);
        let output = lock(&[ELSEWHERE, "--ca-file", &ca_file], &[(variable, &proxy.url())]);
        assert!(output.status.success(), "{variable}: {}", stderr(&output));
        let heads = proxy.heads();
        assert!(heads.iter().all(|head| head.starts_with("CONNECT registry.invalid:443 ")), "{heads:?}");
        assert!(!heads.is_empty());
    }
}

#[test]
fn plain_http_uses_http_proxy() {
    let registry = registry(false);
    for variable in ["HTTP_PROXY", "http_proxy"] {
        let proxy = WebProxy::to(registry.host(), None);
        let output = lock(&[ELSEWHERE, "--plain-http"], &[(variable, &proxy.url())]);
        assert!(output.status.success(), "{variable}: {}", stderr(&output));
        assert!(
            proxy.heads().iter().any(|head| head.starts_with("GET http://registry.invalid/v2/ ")),
            "{:?}",
            proxy.heads()
        );
    }
}

#[test]
fn no_proxy_hosts_and_loopback_are_reached_directly() {
    let registry = registry(false);
    for variable in ["NO_PROXY", "no_proxy"] {
        for names in ["registry.invalid", "other.example,.invalid", "*.invalid", "registry.invalid:80", "*"] {
            let proxy = WebProxy::to(registry.host(), None);
            let environment = [("HTTP_PROXY", proxy.url()), (variable, names.to_owned())];
            let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
            let output = lock(&[ELSEWHERE, "--plain-http"], &environment);
            assert_eq!(output.status.code(), Some(5), "{variable}={names}: {}", stderr(&output));
            assert!(proxy.heads().is_empty(), "{variable}={names}: {:?}", proxy.heads());
        }
    }
    let proxy = WebProxy::to("127.0.0.1:1", None);
    let output = lock(&[&format!("{}/team/app:1.0", registry.host())], &[("HTTP_PROXY", &proxy.url())]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(proxy.heads().is_empty());
}

#[test]
fn a_proxys_refusal_is_reported_and_its_password_goes_only_to_the_proxy() {
    let registry = registry(true);
    let proxy = WebProxy::to(registry.host(), Some("407 Proxy Authentication Required"));
    let url = format!("http://me:hunter2@{}", proxy.address);
    let output = lock(&[ELSEWHERE, "-vv", "--log-http"], &[("HTTPS_PROXY", &url)]);
    assert_eq!(output.status.code(), Some(5));
    let message = stderr(&output);
    let refusal = format!("the proxy requires valid credentials (through the proxy {})", proxy.address);
    assert!(message.contains(&refusal), "{message}");
    assert!(!message.contains("hunter2") && !message.contains("bWU6aHVudGVyMg"), "{message}");
    let heads = proxy.heads();
    let sent = |head: &String| head.to_ascii_lowercase().contains("proxy-authorization: basic bwu6ahvudgvymg==");
    assert!(!heads.is_empty() && heads.iter().all(sent), "{heads:?}");
}

/// A request that bypasses the proxy because of a typo reveals itself, and its password, to the wrong network.
#[test]
fn an_invalid_proxy_url_is_an_error_naming_its_variable() {
    for (variable, value) in [("http_proxy", "http://me:hunter2@:::bad"), ("ALL_PROXY", "gopher://me:hunter2@proxy:70")]
    {
        let output = lock(&[ELSEWHERE, "--plain-http"], &[(variable, value)]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(variable) && !message.contains("hunter2"), "{message}");
    }
}

#[test]
fn a_registry_at_an_ipv6_address_can_be_pulled_from_and_pushed_to() {
    let (from, to) = (registry(false), Registry::start());
    let (Some(from_6), Some(to_6)) = (ipv6_relay(from.host()), ipv6_relay(to.host())) else { return };
    let out = tempdir();
    let bundle = out.path().join("bundle").display().to_string();
    succeed(&["export", &format!("{from_6}/team/app:1.0"), "-q", "-o", &bundle]);
    succeed(&["import", &bundle, "--to", &format!("{to_6}/mirror")]);
    assert_eq!(names(&to), ["mirror/team/app:1.0"]);
}
