//! A blocking plain-HTTP client for tests, callable from synchronous and asynchronous tests alike.

use std::path::PathBuf;

/// One request; build it, then [`Request::send`].
pub struct Request {
    method: &'static str,
    url: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    basic: Option<(String, String)>,
    ca_file: Option<PathBuf>,
}

/// Status, headers and the whole body. Redirects are not followed.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Vec<u8>,
}

pub fn request(method: &'static str, url: impl Into<String>) -> Request {
    Request { method, url: url.into(), headers: vec![], body: vec![], basic: None, ca_file: None }
}

pub fn get(url: impl Into<String>) -> Answer {
    request("GET", url).send()
}

impl Request {
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Request {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn body(mut self, bytes: impl Into<Vec<u8>>) -> Request {
        self.body = bytes.into();
        self
    }

    pub fn basic(mut self, credentials: Option<(&str, &str)>) -> Request {
        self.basic = credentials.map(|(user, password)| (user.to_owned(), password.to_owned()));
        self
    }

    pub fn ca_file(mut self, path: Option<PathBuf>) -> Request {
        self.ca_file = path;
        self
    }

    /// Panics if there is no answer.
    pub fn send(self) -> Answer {
        let (method, url) = (self.method, self.url.clone());
        self.try_send().unwrap_or_else(|e| panic!("{method} {url}: {e:?}"))
    }

    /// For servers that are expected to break connections.
    pub fn try_send(self) -> Result<Answer, reqwest::Error> {
        // Uses a separate thread, because the caller may already be inside a runtime.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(self.exchange())
        })
        .join()
        .expect("the request's thread")
    }

    async fn exchange(self) -> Result<Answer, reqwest::Error> {
        let authorities = self.ca_file.iter().map(|path| {
            let pem = std::fs::read(path).expect("the CA file");
            reqwest::Certificate::from_pem(&pem).expect("a CA certificate")
        });
        let client = reqwest::Client::builder()
            .tls_certs_only(authorities)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let method = reqwest::Method::from_bytes(self.method.as_bytes()).expect("a method");
        let mut request = client.request(method, &self.url).body(self.body);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some((user, password)) = &self.basic {
            request = request.basic_auth(user, Some(password));
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, body: response.bytes().await?.to_vec() })
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {}", self.text()))
    }

    /// Fails the test unless the status is `status`.
    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}
