//! A real registry that wants a password.

use gapferry::base::error::Kind;
use gapferry::content::{Account, Api, ApiRequest, Need, Source};
use gapferry::credentials::{Credentials, Store};
use gapferry::transport::registry::{Config, RegistryConfig};

use crate::registry::memory_source::{self, MemorySource, read, repository, tag};
use crate::registry::{client, config};
use crate::support::registry::{Options, Registry};

fn with_password() -> Registry {
    Registry::with(Options { credentials: Some(("pusher".into(), "secret".into())), ..Options::default() })
}

fn config_with(registry: &str, password: &str) -> Config {
    let mut credentials = Store::anonymous();
    credentials.set(registry, Credentials::basic("pusher", password));
    Config { credentials, ..config() }
}

#[tokio::test]
async fn the_right_password_is_accepted() {
    let server = with_password();
    let registries = client(config_with(server.host(), "secret"));
    let repo = repository(server.host(), "a");
    let memory = MemorySource::default();
    let blob = memory.add("content");
    memory_source::push(&registries, &repo, &memory, &[&blob]).await.unwrap();
    assert_eq!(read(&registries, &repo, &blob).await.unwrap(), "content");
    let request = ApiRequest { method: "GET", path: "/v2/_catalog".into(), ..ApiRequest::default() };
    let answer = registries.call(Account { registry: server.host(), path: "" }, request).await.unwrap();
    assert_eq!((answer.status, answer.body.as_ref()), (200, &b"{\"repositories\":[\"a\"]}\n"[..]));
}

#[tokio::test]
async fn a_registrys_own_password_overrides_the_general_one() {
    let server = with_password();
    let mut config = config_with(server.host(), "not-the-password");
    let own = RegistryConfig { credentials: Some(Credentials::basic("pusher", "secret")), ..Default::default() };
    config.per_registry.insert(server.host().to_owned(), own);
    let reference = tag(&repository(server.host(), "a"), "v1");
    assert!(client(config).manifest(&reference, Need::Required).await.unwrap().is_none());
}

#[tokio::test]
async fn a_wrong_or_missing_password_is_reported_as_unauthorized_and_never_shown() {
    let server = with_password();
    let repo = repository(server.host(), "a");
    let memory = MemorySource::default();
    let blob = memory.add("content");
    for config in [config_with(server.host(), "hunter2"), config()] {
        let registries = client(config);
        let pulled = registries.manifest(&tag(&repo, "v1"), Need::Required).await.unwrap_err();
        let pushed = memory_source::push(&registries, &repo, &memory, &[&blob]).await.unwrap_err();
        for error in [pulled, pushed] {
            assert_eq!(error.kind(), Kind::Unauthorized, "{error:?}");
            assert!(error.to_string().contains(server.host()), "{error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
