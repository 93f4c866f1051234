//! Responses, and errors in the form of distribution-spec 1.1, "Error Codes".

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::base::error::{Error, Kind};

/// Why a request is refused: a status, one of the spec's codes, and a text.
#[derive(Debug)]
pub struct RequestRefusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    headers: Vec<(&'static str, String)>,
    /// Whether the operator has seen it already.
    is_reported: bool,
}

impl RequestRefusal {
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> RequestRefusal {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        RequestRefusal { status, code, message: message.into(), headers: vec![], is_reported: false }
    }

    /// The refusal, not to be logged again.
    pub fn reported(self) -> RequestRefusal {
        RequestRefusal { is_reported: true, ..self }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> RequestRefusal {
        self.headers.push((name, value.into()));
        self
    }

    /// What went wrong, if it was not the client's fault and is not reported yet.
    pub fn own_problem(&self) -> Option<&str> {
        (self.status.is_server_error() && !self.is_reported).then_some(self.message.as_str())
    }

    pub fn read_only() -> RequestRefusal {
        RequestRefusal::new(
            405,
            "UNSUPPORTED",
            "this registry is read-only; serve a directory with --writable to push into it",
        )
        .with("allow", "GET, HEAD")
    }

    pub fn not_allowed(allowed: &str) -> RequestRefusal {
        RequestRefusal::new(405, "UNSUPPORTED", "this registry does not support this method here")
            .with("allow", allowed)
    }

    pub fn unknown_manifest(what: &dyn std::fmt::Display) -> RequestRefusal {
        RequestRefusal::new(404, "MANIFEST_UNKNOWN", format!("there is no manifest {what}"))
    }

    pub fn unknown_name(name: &str) -> RequestRefusal {
        RequestRefusal::new(404, "NAME_UNKNOWN", format!("there is no repository {name}"))
    }

    pub fn unknown_blob(digest: &dyn std::fmt::Display) -> RequestRefusal {
        RequestRefusal::new(404, "BLOB_UNKNOWN", format!("there is no blob {digest}"))
    }
}

/// Internal failures are the server's fault, not the client's, unless the quota refuses the request.
impl From<Error> for RequestRefusal {
    fn from(error: Error) -> RequestRefusal {
        let (status, code) = match error.kind() {
            Kind::Refused => (403, "DENIED"),
            Kind::Interrupted => (503, "UNKNOWN"),
            _ => (500, "UNKNOWN"),
        };
        RequestRefusal::new(status, code, error.chain())
    }
}

impl IntoResponse for RequestRefusal {
    fn into_response(self) -> Response {
        let body = json!({"errors": [{"code": self.code, "message": self.message, "detail": null}]});
        let mut response = json(&body);
        *response.status_mut() = self.status;
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

/// 200 with a JSON body.
pub fn json(body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Builds a response. A header that HTTP cannot carry is our own mistake, and answered as such.
pub fn build(status: u16, headers: &[(&'static str, &str)], body: Body) -> Result<Response, RequestRefusal> {
    let mut builder = Response::builder().status(status);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(body).map_err(|e| RequestRefusal::new(500, "UNKNOWN", format!("building the response: {e}")))
}

/// Adds what every response has, and removes what a response to HEAD must not have.
pub fn finish(response: &mut Response, head: bool) {
    let version = HeaderValue::from_static("registry/2.0");
    response.headers_mut().insert("docker-distribution-api-version", version);
    if !head {
        return;
    }
    let length = axum::body::HttpBody::size_hint(response.body()).exact();
    if let Some(length) = length.filter(|_| !response.headers().contains_key(header::CONTENT_LENGTH)) {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    *response.body_mut() = Body::empty();
}
