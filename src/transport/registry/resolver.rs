//! Resolves names with the system's resolver. A name without an address fails with an error of its own type.

use std::io;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The system's resolver.
pub(super) struct SystemResolver;

/// No address was found for a host name.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotResolved(io::Error);

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The port is taken from the URL.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(NotResolved)?;
            Ok(Box::new(found.collect::<Vec<_>>().into_iter()) as Addrs)
        })
    }
}
