//! The client side of DICOMweb: one PACS, spoken to by QIDO-RS (`query.rs`), WADO-RS and STOW-RS.
//!
//! Nothing it says holds a credential: errors name a status or the kind of fault, never a header, a body or a query.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Certificate, Identity, Method, RequestBuilder, Response, StatusCode, Url, redirect};

use super::Pacs;
use super::dicom_json::{DataSets, DicomJsonError};

/// Orthanc ends a connection that was idle for one second: ours are given up before.
const IDLE: Duration = Duration::from_millis(500);
/// Most seconds until a connection stands.
const CONNECT_SECONDS: u64 = 10;
/// Most bytes of an answer in JSON. The metadata of a segmentation of two thousand frames has about 8 MB.
pub(super) const MAX_JSON_BYTES: usize = 32 << 20;

/// Why an exchange with a PACS came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Its `[[pacs]]` block cannot be used.
    #[error("the [[pacs]] block cannot be used: {0}")]
    Settings(String),
    /// A UID that is none; it would not be safe in a path.
    #[error("not a UID: {0:?}")]
    Uid(String),
    /// It cannot be reached, or the connection broke.
    #[error("no connection: {0}")]
    Connection(String),
    /// It did not answer within `timeout_seconds`, or nothing more of a series came for so long.
    #[error("no answer in time")]
    Timeout,
    /// It answered, but not with what was asked for.
    #[error("answered {0}")]
    Status(u16),
    /// Its answer has more bytes than it may.
    #[error("an answer of more than {0} bytes")]
    TooLarge(usize),
    /// Its answer cannot be read.
    #[error("an answer that is not as the standard says: {0}")]
    Answer(String),
}

impl ClientError {
    /// Whether the same may well succeed a little later: it is away, too busy or had an accident.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            ClientError::Connection(_) | ClientError::Timeout => true,
            ClientError::Status(status) => *status >= 500 || matches!(status, 408 | 425 | 429),
            ClientError::Settings(_) | ClientError::Uid(_) | ClientError::TooLarge(_) | ClientError::Answer(_) => false,
        }
    }

    /// Whether it says that what was asked for is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, ClientError::Status(404 | 410))
    }
}

impl From<reqwest::Error> for ClientError {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return ClientError::Timeout;
        }
        // The URL may hold what was asked for; the sources say what happened.
        let error = error.without_url();
        let mut said = String::new();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            said = cause.to_string();
            source = cause.source();
        }
        if said.is_empty() {
            said = error.to_string();
        }
        if error.is_builder() {
            ClientError::Settings(said)
        } else {
            ClientError::Connection(said)
        }
    }
}

impl From<DicomJsonError> for ClientError {
    fn from(error: DicomJsonError) -> Self {
        ClientError::Answer(error.to_string())
    }
}

/// A series as it comes from a PACS: multipart/related, not yet taken apart.
pub struct Retrieved {
    /// The value of Content-Type, which holds the boundary.
    pub content_type: String,
    /// The bytes, as they arrive. That they end does not mean that they are whole: the closing boundary says so.
    pub stream: BoxStream<'static, Result<Bytes, ClientError>>,
}

/// What a PACS said to a STOW-RS request.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The status of its answer.
    pub status: u16,
    /// The body of its answer, from which alone it can be told what was stored.
    pub body: Bytes,
}

/// A PACS that can be spoken to. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    name: String,
    base: Url,
    orthanc: Option<Url>,
    /// Most that an exchange may take, but for a series that is fetched.
    total: Duration,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("pacs", &self.name)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client for a PACS. Reads its certificates; speaks to nobody yet.
    ///
    /// # Errors
    /// A URL, a credential or a certificate that cannot be used.
    pub fn new(pacs: &Pacs) -> Result<Client, ClientError> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Another thread may have been faster, which is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let base = root(&pacs.url)?;
        let orthanc = pacs.orthanc_url.as_deref().map(root).transpose()?;
        let total = Duration::from_secs(pacs.timeout_seconds.max(1));
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("hilum/", env!("CARGO_PKG_VERSION")))
            .default_headers(credentials(pacs)?)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .http1_only()
            .pool_idle_timeout(IDLE)
            .connect_timeout(total.min(Duration::from_secs(CONNECT_SECONDS)))
            // Also until the head of an answer.
            .read_timeout(total);
        if let Some(path) = &pacs.certificate_authority {
            let found = Certificate::from_pem_bundle(&pem(path)?)
                .map_err(|_| ClientError::Settings(format!("{} holds no certificate", path.display())))?;
            if found.is_empty() {
                return Err(ClientError::Settings(format!(
                    "{} holds no certificate",
                    path.display()
                )));
            }
            builder = builder.tls_certs_merge(found);
        } else if base.scheme() == "http" && orthanc.as_ref().is_none_or(|url| url.scheme() == "http") {
            // Without TLS the system's certificates need not be there, nor be read.
            builder = builder.tls_certs_only([]);
        }
        if let Some(path) = &pacs.client_certificate {
            let identity = Identity::from_pem(&pem(path)?)
                .map_err(|_| ClientError::Settings(format!("{} holds no certificate with its key", path.display())))?;
            builder = builder.identity(identity);
        }
        Ok(Client {
            http: builder.build()?,
            name: pacs.name.clone(),
            base,
            orthanc,
            total,
        })
    }

    /// The name of its block.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A series by WADO-RS, streamed as it is stored there. It may take as long as it takes, while bytes come: who reads the stream bounds the whole.
    ///
    /// # Errors
    /// No connection, or an answer that is not multipart/related; a series that is not there is `is_not_found`.
    pub async fn retrieve_series(&self, study: &str, series: &str) -> Result<Retrieved, ClientError> {
        let url = self.url(&["studies", uid(study)?, "series", uid(series)?])?;
        let accept = "multipart/related; type=\"application/dicom\"; transfer-syntax=*";
        let response = self.http.get(url).header(ACCEPT, accept).send().await?;
        if response.status() != StatusCode::OK && response.status() != StatusCode::PARTIAL_CONTENT {
            return Err(status_of(&response));
        }
        let content_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        if !content_type.to_ascii_lowercase().starts_with("multipart/related") {
            return Err(ClientError::Answer("a series that is not multipart/related".into()));
        }
        Ok(Retrieved {
            content_type,
            stream: response
                .bytes_stream()
                .map(|chunk| chunk.map_err(ClientError::from))
                .boxed(),
        })
    }

    /// The metadata of a series' instances.
    ///
    /// # Errors
    /// No connection, or an answer that cannot be read.
    pub async fn series_metadata(&self, study: &str, series: &str) -> Result<DataSets, ClientError> {
        let url = self.url(&["studies", uid(study)?, "series", uid(series)?, "metadata"])?;
        self.data_sets(self.request(Method::GET, url)).await
    }

    /// Stores one instance by STOW-RS. The answer is handed back on 2xx and 4xx alike, since what is in it counts and not its status.
    ///
    /// # Errors
    /// No connection; refused credentials (401, 403), too many requests, or a fault of the server (5xx).
    pub async fn store(&self, study: &str, instance: &Bytes, sop_instance_uid: &str) -> Result<Stored, ClientError> {
        let url = self.url(&["studies", uid(study)?])?;
        // 16 random bytes: they stand nowhere in the instance.
        let boundary = format!("hilum-{}", uuid::Uuid::new_v4().simple());
        let head = format!("--{boundary}\r\nContent-Type: application/dicom\r\n\r\n");
        let tail = format!("\r\n--{boundary}--\r\n");
        let mut body = BytesMut::with_capacity(head.len() + instance.len() + tail.len());
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(instance);
        body.extend_from_slice(tail.as_bytes());
        tracing::debug!(pacs = self.name, sop_instance_uid, bytes = instance.len(), "stores");
        let response = self
            .request(Method::POST, url)
            .header(
                CONTENT_TYPE,
                format!("multipart/related; type=\"application/dicom\"; boundary={boundary}"),
            )
            .header(ACCEPT, "application/dicom+json")
            .body(body.freeze())
            .send()
            .await?;
        let status = response.status();
        let readable = status.is_success() || status.is_client_error();
        if !readable || matches!(status.as_u16(), 401 | 403 | 408 | 425 | 429) {
            return Err(status_of(&response));
        }
        Ok(Stored {
            status: status.as_u16(),
            body: bounded(response).await?,
        })
    }

    /// A request to the native REST interface of an Orthanc; `None` where the block names none.
    pub(super) fn orthanc_request(&self, method: Method, path: &[&str]) -> Result<Option<RequestBuilder>, ClientError> {
        let Some(root) = &self.orthanc else {
            return Ok(None);
        };
        Ok(Some(self.request(method, below(root, path)?)))
    }

    /// A request for JSON below the root of its DICOMweb service.
    pub(super) fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<RequestBuilder, ClientError> {
        Ok(self.request(Method::GET, self.url(path)?).query(query))
    }

    /// The data sets that a request is answered with; nothing there (204, 404) is none.
    pub(super) async fn data_sets(&self, request: RequestBuilder) -> Result<DataSets, ClientError> {
        let response = request.header(ACCEPT, "application/dicom+json").send().await?;
        match response.status() {
            StatusCode::NO_CONTENT | StatusCode::NOT_FOUND => Ok(DataSets::default()),
            status if status.is_success() => Ok(DataSets::read(&bounded(response).await?)?),
            _ => Err(status_of(&response)),
        }
    }

    /// A request that may take `total`, its answer included.
    fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.http.request(method, url).timeout(self.total)
    }

    fn url(&self, path: &[&str]) -> Result<Url, ClientError> {
        below(&self.base, path)
    }
}

/// A UID that may stand in a path: digits and dots alone.
pub(super) fn uid(text: &str) -> Result<&str, ClientError> {
    let fits = text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if fits && text.bytes().any(|byte| byte.is_ascii_digit()) {
        Ok(text)
    } else {
        Err(ClientError::Uid(text.chars().take(64).collect()))
    }
}

/// The body of an answer, as long as it is not too long.
pub(super) async fn bounded(response: Response) -> Result<Bytes, ClientError> {
    let mut body = BytesMut::new();
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        if body.len() + chunk.len() > MAX_JSON_BYTES {
            return Err(ClientError::TooLarge(MAX_JSON_BYTES));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

pub(super) fn status_of(response: &Response) -> ClientError {
    ClientError::Status(response.status().as_u16())
}

fn root(url: &str) -> Result<Url, ClientError> {
    let url = Url::parse(url).map_err(|error| ClientError::Settings(format!("url: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() || url.host().is_none() {
        return Err(ClientError::Settings("url: http:// or https:// is needed".into()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(ClientError::Settings(
            "url: credentials belong in `username` and `password`, or in `token`".into(),
        ));
    }
    Ok(url)
}

fn below(root: &Url, path: &[&str]) -> Result<Url, ClientError> {
    let mut url = root.clone();
    url.path_segments_mut()
        .map_err(|()| ClientError::Settings("url: it has no path".into()))?
        .pop_if_empty()
        .extend(path);
    Ok(url)
}

fn credentials(pacs: &Pacs) -> Result<HeaderMap, ClientError> {
    let value = if !pacs.token.is_empty() {
        format!("Bearer {}", pacs.token)
    } else if !pacs.username.is_empty() {
        format!(
            "Basic {}",
            STANDARD.encode(format!("{}:{}", pacs.username, pacs.password))
        )
    } else {
        return Ok(HeaderMap::new());
    };
    let mut value = HeaderValue::try_from(value)
        .map_err(|_| ClientError::Settings("token: it has characters that no header may have".into()))?;
    value.set_sensitive(true);
    Ok(HeaderMap::from_iter([(AUTHORIZATION, value)]))
}

fn pem(path: &std::path::Path) -> Result<Vec<u8>, ClientError> {
    std::fs::read(path).map_err(|error| ClientError::Settings(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::convert::Infallible;

    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use futures_util::stream;

    use super::*;

    fn pacs(text: &str) -> Pacs {
        toml::from_str(&format!("name = \"one\"\n{text}")).unwrap()
    }

    /// An answer of ten bytes, one each 300 ms, and then, where it `ends`, its end.
    fn slow(ends: bool) -> ([(reqwest::header::HeaderName, &'static str); 1], Body) {
        let bytes = stream::unfold(0, move |at| async move {
            if at == 10 && ends {
                return None;
            }
            let pause = if at == 10 { 60_000 } else { 300 };
            tokio::time::sleep(Duration::from_millis(pause)).await;
            Some((Ok::<_, Infallible>(Bytes::from_static(b"-")), at + 1))
        });
        (
            [(CONTENT_TYPE, "multipart/related; boundary=b")],
            Body::from_stream(bytes),
        )
    }

    #[tokio::test]
    async fn a_series_may_take_longer_than_the_time_in_which_nothing_of_it_comes_and_other_answers_may_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let routes = Router::new()
            .route("/studies/1/series/1", get(|| async { slow(true) }))
            .route("/studies/1/series/2", get(|| async { slow(false) }))
            .route("/studies/1/series/1/metadata", get(|| async { slow(true) }));
        let server = tokio::spawn(async move { axum::serve(listener, routes).await });
        let client = Client::new(&pacs(&format!("url = {url:?}\ntimeout_seconds = 2"))).unwrap();
        for (series, ends) in [("1", true), ("2", false)] {
            let mut retrieved = client.retrieve_series("1", series).await.unwrap();
            let mut bytes = 0;
            // Nobody asks for more after an error.
            let error = loop {
                match retrieved.stream.next().await {
                    Some(Ok(some)) => bytes += some.len(),
                    Some(Err(error)) => break Some(error),
                    None => break None,
                }
            };
            assert_eq!(bytes, 10);
            match error {
                None => assert!(ends),
                Some(error) => assert!(!ends && matches!(error, ClientError::Timeout), "{error}"),
            }
        }
        let metadata = client.series_metadata("1", "1").await.err().unwrap();
        assert!(matches!(metadata, ClientError::Timeout), "{metadata}");
        server.abort();
    }

    #[test]
    fn urls_keep_the_path_of_the_root() {
        for root in ["http://127.0.0.1:8042/dicom-web", "http://127.0.0.1:8042/dicom-web/"] {
            let client = Client::new(&pacs(&format!("url = {root:?}"))).unwrap();
            let url = client.url(&["studies", "1.2", "series"]).unwrap();
            assert_eq!(url.as_str(), "http://127.0.0.1:8042/dicom-web/studies/1.2/series");
        }
    }

    #[test]
    fn blocks_that_cannot_be_used_are_told_without_their_secrets() {
        for text in [
            "url = \"ftp://secret\"",
            "url = \"127.0.0.1\"",
            "url = \"http://hilum:secret@127.0.0.1/\"",
            "url = \"http://127.0.0.1/\"\ntoken = \"secret\\n\"",
            "url = \"http://127.0.0.1/\"\nclient_certificate = \"/nowhere.pem\"",
            "url = \"http://127.0.0.1/\"\ncertificate_authority = \"/nowhere.pem\"",
        ] {
            let error = Client::new(&pacs(text)).unwrap_err();
            assert!(matches!(error, ClientError::Settings(_)), "{text}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
            assert!(!error.is_transient());
        }
        let client = Client::new(&pacs(
            "url = \"http://127.0.0.1/\"\nusername = \"u\"\npassword = \"secret\"",
        ))
        .unwrap();
        assert!(!format!("{client:?}").contains("secret"));
    }

    #[test]
    fn what_is_no_uid_never_becomes_a_path() {
        for bad in ["", ".", "..", "1/2", "1.2?x", "%2e", "1.2 ", &"1".repeat(65)] {
            assert!(uid(bad).is_err(), "{bad}");
        }
        // A leading zero is against the standard, and seen.
        for good in ["1.2.840", "1.02.3"] {
            assert!(uid(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn what_may_pass_is_told_from_what_will_not() {
        for (status, transient) in [
            (400, false),
            (401, false),
            (404, false),
            (409, false),
            (408, true),
            (429, true),
            (500, true),
            (503, true),
        ] {
            assert_eq!(ClientError::Status(status).is_transient(), transient, "{status}");
        }
        assert!(ClientError::Timeout.is_transient());
        assert!(ClientError::Connection(String::new()).is_transient());
    }
}
