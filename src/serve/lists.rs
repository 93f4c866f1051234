//! Lists: repositories, tags, referrers. Sorted, and in pages where a page is asked for (distribution-spec 1.1, "Listing
//! Tags").

use std::sync::Arc;

use axum::http::HeaderValue;
use axum::response::Response;
use serde_json::json;

use crate::oci::{Digest, media_type};

use super::answer::{Refusal, json};
use super::blocking;
use super::request::{Query, percent_encode};
use super::shelf::Shelf;

pub fn catalog(shelf: &Shelf, query: &Query) -> Result<Response, Refusal> {
    let page = Page::of(shelf.names().catalog().into_iter().collect(), query)?;
    page.answer("/v2/_catalog", query, |items| json!({"repositories": items}))
}

pub fn tags(shelf: &Shelf, name: &str, query: &Query) -> Result<Response, Refusal> {
    let tags = shelf.names().tags(name, query.registry()?).ok_or_else(|| Refusal::unknown_name(name))?;
    let page = Page::of(tags.into_keys().map(|tag| tag.to_string()).collect(), query)?;
    page.answer(&format!("/v2/{name}/tags/list"), query, |items| json!({"name": name, "tags": items}))
}

/// An index of the manifests of this repository that speak of `digest`; empty for content nobody knows, as the spec has it.
pub async fn referrers(shelf: &Arc<Shelf>, name: &str, digest: Digest, query: &Query) -> Result<Response, Refusal> {
    let own = Arc::clone(shelf);
    let mut manifests = blocking(move || own.referrers(&digest)).await?;
    let (names, registry) = (shelf.names(), query.registry()?);
    manifests.retain(|view| names.lists(name, registry, &view.digest));
    let filter = query.get("artifactType").filter(|text| !text.is_empty());
    if let Some(artifact_type) = filter {
        manifests.retain(|view| view.artifact_type.as_deref() == Some(artifact_type));
    }
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests});
    let mut response = json(&index);
    response.headers_mut().insert("content-type", HeaderValue::from_static(media_type::OCI_INDEX));
    if filter.is_some() {
        response.headers_mut().insert("oci-filters-applied", HeaderValue::from_static("artifactType"));
    }
    Ok(response)
}

/// `n` items after `last`.
struct Page {
    items: Vec<String>,
    /// The size asked for, when more follow.
    more: Option<usize>,
}

impl Page {
    fn of(sorted: Vec<String>, query: &Query) -> Result<Page, Refusal> {
        let bad = |_| Refusal::new(400, "PAGINATION_NUMBER_INVALID", "n is to be a number of items");
        let size: Option<usize> = query.get("n").map(str::parse).transpose().map_err(bad)?;
        let last = query.get("last").unwrap_or_default();
        let mut items: Vec<String> =
            sorted.into_iter().filter(|item| last.is_empty() || item.as_str() > last).collect();
        let more = size.filter(|size| *size > 0 && *size < items.len());
        items.truncate(size.unwrap_or(usize::MAX));
        Ok(Page { items, more })
    }

    fn answer(
        self,
        path: &str,
        query: &Query,
        body: impl Fn(&[String]) -> serde_json::Value,
    ) -> Result<Response, Refusal> {
        let mut response = json(&body(&self.items));
        if let (Some(size), Some(last)) = (self.more, self.items.last()) {
            let ns = query.get("ns").map(|ns| format!("&ns={}", percent_encode(ns))).unwrap_or_default();
            let link = format!("<{path}?n={size}&last={}{ns}>; rel=\"next\"", percent_encode(last));
            let link = HeaderValue::try_from(link).map_err(|e| Refusal::new(500, "UNKNOWN", e.to_string()))?;
            response.headers_mut().insert("link", link);
        }
        Ok(response)
    }
}
