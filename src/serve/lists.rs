//! Lists of repositories, tags and referrers, sorted, and in pages on request (distribution-spec 1.1, "Listing Tags").

use std::sync::Arc;

use axum::http::HeaderValue;
use axum::response::Response;
use serde_json::json;

use crate::base::progress::units::count;
use crate::oci::media_type;

use super::answer::{RequestRefusal, json};
use super::blocking;
use super::catalog::{Catalog, ReferrerPage, ReferrerQuery, find_some};
use super::request::{Query, percent_encode};

pub fn repositories(catalog: &Catalog, query: &Query) -> Result<Response, RequestRefusal> {
    let page = Page::of(query)?;
    let behind = |name: &String| name.as_str() > page.last;
    let items = catalog.names().repositories().into_iter().filter(behind).take(page.enough()).collect();
    page.answer("/v2/_catalog", query, items, |items| json!({"repositories": items}))
}

pub fn tags(catalog: &Catalog, name: &str, query: &Query) -> Result<Response, RequestRefusal> {
    let page = Page::of(query)?;
    let tags = catalog.names().tags(name, query.registry()?, page.last, page.enough());
    let items = tags.ok_or_else(|| RequestRefusal::unknown_name(name))?.iter().map(ToString::to_string).collect();
    page.answer(&format!("/v2/{name}/tags/list"), query, items, |items| json!({"name": name, "tags": items}))
}

/// An index of the manifests of this repository that refer to `subject`, a valid digest; empty for unknown content, as the
/// spec requires. A list that exceeds the size of a manifest comes in pages. If a manifest that belongs to it cannot be read,
/// the response is 500. If the subject of an unreadable manifest is unknown, the response has a warning (distribution-spec
/// 1.1, "Warnings"), so that no other image loses its signatures.
pub async fn referrers(
    catalog: &Arc<Catalog>,
    name: String,
    subject: String,
    query: &Query,
) -> Result<Response, RequestRefusal> {
    let owned = |text: &str| text.to_owned();
    let wanted = ReferrerQuery {
        subject,
        name,
        registry: query.registry()?.map(owned),
        artifact_type: query.get("artifactType").filter(|text| !text.is_empty()).map(owned),
        last: query.digest_text("last")?.map(owned),
    };
    let own = Arc::clone(catalog);
    let found = blocking(move || Ok((find_some(&own, &wanted), wanted)));
    let (found, ReferrerQuery { subject, name, artifact_type, .. }) = found.await?;
    let ReferrerPage { manifests, more, unreadable } = found?;
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests});
    let mut response = json(&index);
    response.headers_mut().insert("content-type", HeaderValue::from_static(media_type::OCI_INDEX));
    if artifact_type.is_some() {
        response.headers_mut().insert("oci-filters-applied", HeaderValue::from_static("artifactType"));
    }
    if let Some(one) = unreadable.first() {
        let unreadable = count(unreadable.len(), "manifest");
        let text = format!("{unreadable} cannot be read and may be missing here, such as {one}");
        header(&mut response, "warning", &format!("299 - \"{text}\""))?;
    }
    if let Some(last) = more {
        let mut next = format!("/v2/{name}/referrers/{subject}?last={}", percent_encode(&last.to_string()));
        for (key, value) in [("artifactType", artifact_type.as_deref()), ("ns", query.get("ns"))] {
            next += &value.map(|value| format!("&{key}={}", percent_encode(value))).unwrap_or_default();
        }
        link(&mut response, &next)?;
    }
    Ok(response)
}

/// `n` items after `last`.
struct Page<'a> {
    last: &'a str,
    size: Option<usize>,
}

impl<'a> Page<'a> {
    fn of(query: &'a Query) -> Result<Page<'a>, RequestRefusal> {
        let bad = |_| RequestRefusal::new(400, "PAGINATION_NUMBER_INVALID", "n must be a number");
        let size: Option<usize> = query.get("n").map(str::parse).transpose().map_err(bad)?;
        Ok(Page { last: query.get("last").unwrap_or_default(), size })
    }

    /// How many items are needed: one more than the page shows whether others follow.
    fn enough(&self) -> usize {
        self.size.unwrap_or(usize::MAX).saturating_add(1)
    }

    fn answer(
        &self,
        path: &str,
        query: &Query,
        mut items: Vec<String>,
        body: impl Fn(&[String]) -> serde_json::Value,
    ) -> Result<Response, RequestRefusal> {
        let more = self.size.filter(|size| *size > 0 && *size < items.len());
        items.truncate(self.size.unwrap_or(usize::MAX));
        let mut response = json(&body(&items));
        if let (Some(size), Some(last)) = (more, items.last()) {
            let ns = query.get("ns").map(|ns| format!("&ns={}", percent_encode(ns))).unwrap_or_default();
            link(&mut response, &format!("{path}?n={size}&last={}{ns}", percent_encode(last)))?;
        }
        Ok(response)
    }
}

/// Says where the list continues (RFC 5988).
fn link(response: &mut Response, next: &str) -> Result<(), RequestRefusal> {
    header(response, "link", &format!("<{next}>; rel=\"next\""))
}

fn header(response: &mut Response, name: &'static str, value: &str) -> Result<(), RequestRefusal> {
    let value = HeaderValue::try_from(value).map_err(|e| RequestRefusal::new(500, "UNKNOWN", e.to_string()))?;
    response.headers_mut().insert(name, value);
    Ok(())
}
