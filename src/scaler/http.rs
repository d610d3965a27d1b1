use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use ring::hmac;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::model::{Protocol, Secret, UpstreamTls};
use crate::types::format_duration;
use crate::upstream::{ClientTls, TlsError};

/// The most of an answer that is read.
const BODY: usize = 1 << 20;

/// Asks others over HTTP/1.1, with TLS for `https`, trusting the authorities that the system trusts.
///
/// Each call has a connection of its own. No redirects are followed, no proxies used, nothing is sent a second time.
/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct HttpClient {
    tls: Arc<OnceLock<Result<ClientTls, String>>>,
}

/// A question.
#[derive(Debug, Clone)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) url: &'a str,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Bytes,
    pub(super) timeout: Duration,
}

/// An answer, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

/// Why there is no answer; its text is one clause for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("{url:?} is no URL that can be asked: {why}")]
    Url { url: String, why: &'static str },
    #[error("cannot connect to {0}: {1}")]
    Connect(String, String),
    #[error("TLS with {0} failed: {1}")]
    Tls(String, String),
    #[error("no answer from {0} within {1}")]
    Timeout(String, String),
    #[error("the answer of {0} is longer than 1 MiB")]
    TooLong(String),
    #[error("the connection to {0} broke: {1}")]
    Broken(String, String),
}

impl HttpClient {
    /// Asks once.
    pub(super) async fn call(&self, call: Call<'_>) -> Result<Answer, HttpError> {
        let place = Place::of(call.url)?;
        let (timeout, name) = (call.timeout, place.authority.clone());
        let answer = tokio::time::timeout(timeout, self.exchange(place, call)).await;
        answer.unwrap_or_else(|_| Err(HttpError::Timeout(name, format_duration(timeout))))
    }

    /// GET.
    pub(crate) async fn get(&self, url: &str, timeout: Duration) -> Result<Answer, HttpError> {
        self.call(Call { method: Method::GET, url, headers: Vec::new(), body: Bytes::new(), timeout }).await
    }

    async fn exchange(&self, place: Place, call: Call<'_>) -> Result<Answer, HttpError> {
        let connect = |error: &io::Error| HttpError::Connect(place.authority.clone(), innermost(error));
        let plain = TcpStream::connect((place.host.as_str(), place.port)).await.map_err(|error| connect(&error))?;
        let _ = plain.set_nodelay(true);
        if !place.tls {
            return talk(plain, &place, call).await;
        }
        let failed = |why: String| HttpError::Tls(place.authority.clone(), why);
        let tls = self.tls.get_or_init(|| trust(&UpstreamTls::default()).map_err(|error| error.to_string()));
        let tls = tls.as_ref().map_err(|why| failed(why.clone()))?;
        let name = tls.server_name(&place.host).map_err(|error| failed(error.to_string()))?;
        let config: Arc<ClientConfig> = tls.config().clone();
        let stream =
            TlsConnector::from(config).connect(name, plain).await.map_err(|error| failed(innermost(&error)))?;
        talk(stream, &place, call).await
    }
}

fn trust(settings: &UpstreamTls) -> Result<ClientTls, TlsError> {
    ClientTls::build(settings, Protocol::Http1, |path| std::fs::read(path))
}

async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin, place: &Place, call: Call<'_>) -> Result<Answer, HttpError> {
    let broken = |error: hyper::Error| HttpError::Broken(place.authority.clone(), innermost(&error));
    let mut request = Request::new(Full::new(call.body));
    *request.method_mut() = call.method;
    *request.uri_mut() = Uri::from(place.path.clone());
    let headers = request.headers_mut();
    let host = HeaderValue::from_str(&place.authority);
    headers.insert(HOST, host.unwrap_or(HeaderValue::from_static("localhost")));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(USER_AGENT, HeaderValue::from_static("tidegate"));
    headers.extend(call.headers);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), BODY).collect().await;
        let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => broken(*error),
            Err(_) => HttpError::TooLong(place.authority.clone()),
        })?;
        Ok(Answer { status, body: body.to_bytes() })
    };
    let (mut connection, mut exchange) = (std::pin::pin!(connection), std::pin::pin!(exchange));
    let mut ended = false;
    std::future::poll_fn(|cx| {
        // What the connection ends with it has told the exchange before.
        ended = ended || connection.as_mut().poll(cx).is_ready();
        exchange.as_mut().poll(cx)
    })
    .await
}

/// Where a URL leads.
#[derive(Debug)]
struct Place {
    tls: bool,
    /// Without brackets.
    host: String,
    port: u16,
    /// As in the URL: for `Host`, and for people.
    authority: String,
    path: PathAndQuery,
}

impl Place {
    fn of(url: &str) -> Result<Place, HttpError> {
        let wrong = |why| HttpError::Url { url: without_credentials(url), why };
        let uri: Uri = url.parse().map_err(|_| wrong("expected one such as \"https://host:9090/path\""))?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(wrong("it has to begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or(wrong("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("names and passwords in URLs are not sent; take them out"));
        }
        let bare = authority.host().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        Ok(Place {
            tls,
            host: bare.unwrap_or(authority.host()).to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authority: authority.to_string(),
            path: uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")),
        })
    }
}

/// A URL as it may be shown.
fn without_credentials(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}://…{}", &url[..scheme], &url[at..]),
        _ => url.to_owned(),
    }
}

/// The cause that says most; the layers above only repeat that something failed.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match cause.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => "connection refused".to_owned(),
        _ => cause.to_string(),
    }
}

/// How a body is signed: `sha256=HEX` (HMAC-SHA256), as GitHub's webhooks have it.
pub(super) fn signature(secret: &Secret, body: &[u8]) -> HeaderValue {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    let text = format!("sha256={}", Hex(hmac::sign(&key, body).as_ref()));
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

/// The header that a signature is sent in.
pub(super) const SIGNATURE: HeaderName = HeaderName::from_static("x-tidegate-signature");

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The first line of a text from elsewhere, short enough to be shown.
pub(super) fn first_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(4096)]);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request with these bytes and tells what it was asked.
    async fn answers(listener: TcpListener, answer: Vec<u8>) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        serve(&mut stream, &answer).await
    }

    async fn serve(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), answer: &[u8]) -> String {
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") && !asked.ends_with(b"}") {
            if stream.read_buf(&mut asked).await.unwrap_or(0) == 0 {
                break;
            }
        }
        // A client that has enough may be gone.
        let _ = stream.write_all(answer).await;
        let _ = stream.shutdown().await;
        String::from_utf8(asked).unwrap()
    }

    async fn listening() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_question_and_its_answer() {
        let (listener, address) = listening().await;
        let url = format!("http://{address}/a?b=c");
        let client = HttpClient::default();
        let reply = b"HTTP/1.1 301 Moved\r\nlocation: /there\r\ncontent-length: 5\r\n\r\nhello".to_vec();
        let headers = vec![(SIGNATURE, signature(&Secret::new("key".into()), b"{}"))];
        let call = Call { method: Method::POST, url: &url, headers, body: Bytes::from_static(b"{}"), timeout: LONG };
        let (answer, asked) = tokio::join!(client.call(call), answers(listener, reply));
        assert_eq!(answer, Ok(Answer { status: 301, body: Bytes::from_static(b"hello") }));
        assert!(asked.starts_with("POST /a?b=c HTTP/1.1\r\n") && asked.ends_with("\r\n\r\n{}"), "{asked}");
        // Computed with `printf '{}' | openssl dgst -sha256 -hmac key`.
        assert!(
            asked.contains(
                "x-tidegate-signature: sha256=a777724d943eb48dc69bca8a4a6d57a04db3f9ec7e1de4e581e860265bdf3032\r\n"
            ),
            "{asked}"
        );
        assert!(asked.to_ascii_lowercase().contains(&format!("host: {address}\r\n")), "{asked}");
    }

    #[tokio::test]
    async fn what_goes_wrong_is_said_in_words() {
        let client = HttpClient::default();
        let (listener, address) = listening().await;
        let url = format!("http://{address}/");
        let slow = client.get(&url, Duration::from_millis(20)).await.unwrap_err().to_string();
        assert_eq!(slow, format!("no answer from {address} within 20ms"));
        drop(listener);
        let gone = client.get(&url, LONG).await.unwrap_err().to_string();
        assert_eq!(gone, format!("cannot connect to {address}: connection refused"));
        for (answer, expected) in [
            ([b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; BODY + 1]].concat(), "longer than 1 MiB"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_vec(), "broke"),
            (b"no http\r\n\r\n".to_vec(), "broke"),
        ] {
            let (listener, address) = listening().await;
            let url = format!("http://{address}/");
            let (error, _) = tokio::join!(client.get(&url, LONG), answers(listener, answer));
            let error = error.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        for url in ["", "nothing", "/path", "ftp://a/", "unix:/run/x", "http://"] {
            assert!(matches!(client.get(url, LONG).await, Err(HttpError::Url { .. })), "{url}");
        }
        let hidden = client.get("http://me:word@host/", LONG).await.unwrap_err().to_string();
        assert!(!hidden.contains("me:word"), "{hidden}");
    }

    #[tokio::test]
    async fn https_is_verified() {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![pair.cert.der().clone()], key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, pair.cert.pem()).unwrap();
        let trusting = trust(&UpstreamTls { ca: Some(ca), ..UpstreamTls::default() }).unwrap();
        let client = HttpClient { tls: Arc::new(OnceLock::from(Ok(trusting))) };
        for (name, good) in [("localhost", true), ("127.0.0.1", false)] {
            let (listener, address) = listening().await;
            let url = format!("https://{name}:{}/", address.port());
            let server = async {
                let (stream, _) = listener.accept().await.unwrap();
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    serve(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                }
            };
            let (answer, ()) = tokio::join!(client.get(&url, LONG), server);
            match answer {
                Ok(answer) => assert!(good && answer.status == 200),
                Err(error) => assert!(!good && error.to_string().starts_with("TLS with"), "{error}"),
            }
        }
    }
}
