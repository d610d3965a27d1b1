//! TLS to upstreams: whom we trust, what we show, what we speak.

use std::cell::Cell;
use std::io;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::model::{Protocol, UpstreamTls};

/// An authority of our own and what it signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    fn signs(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn server(&self, name: &str, alpn: &[&[u8]], asks_client: bool) -> ServerConfig {
        let (certificate, key) = self.signs(name);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let builder = if asks_client {
            use rustls_pki_types::pem::PemObject;
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config
    }
}

/// An HTTP/1.1 upstream behind TLS that serves one request for each connection; the cell counts resumed sessions.
async fn tls_upstream(config: ServerConfig) -> (SocketAddr, Rc<Cell<usize>>) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let resumed = Rc::new(Cell::new(0));
    let count = resumed.clone();
    let plain = upstream(move |stream, _| {
        let (acceptor, count) = (acceptor.clone(), count.clone());
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
                count.set(count.get() + 1);
            }
            let mut seen = [0; 1000];
            while stream.read(&mut seen).await.is_ok_and(|bytes| bytes > 0) {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await.unwrap();
                stream.shutdown().await.unwrap();
            }
        }
    })
    .await;
    (address(&plain), resumed)
}

fn trusting(authority: &Authority, protocol: Protocol, edit: impl FnOnce(&mut UpstreamTls)) -> Settings {
    let mut settings = UpstreamTls { ca: Some("ca".into()), ..UpstreamTls::default() };
    edit(&mut settings);
    let (certificate, key) = authority.signs("client.test");
    let read = |path: &Path| match path.to_str().unwrap() {
        "ca" => Ok(authority.pem.clone().into_bytes()),
        "certificate" => Ok(certificate.pem().into_bytes()),
        "key" => Ok(key.serialize_pem().into_bytes()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let tls = ClientTls::build(&settings, protocol, read).unwrap();
    Settings::of(&Pool { protocol, ..Pool::default() }, Some(Arc::new(tls)))
}

fn at(address: SocketAddr, host: &str, settings: &Settings) -> Arc<Target> {
    Arc::new(Target::new("pool", host, Place::Tcp(address), host, settings).unwrap())
}

#[tokio::test(flavor = "local")]
async fn an_upstream_is_verified_by_its_name_and_authority() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (address, _) = tls_upstream(ours.server("shop.test", &[], false)).await;
    let side = side();
    let ask =
        async |host: &str, settings: &Settings| outcome(get("/").over(&side, &at(address, host, settings)).await).await;
    let failed = Err("TLS handshake failed".to_owned());
    let trusted = trusting(&ours, Protocol::Http1, |_| {});
    assert_eq!(ask("shop.test", &trusted).await, ok());
    assert_eq!(ask("other.test", &trusted).await, failed);
    assert_eq!(ask("shop.test", &trusting(&theirs, Protocol::Http1, |_| {})).await, failed);
    let named = trusting(&ours, Protocol::Http1, |tls| tls.server_name = Some("shop.test".to_owned()));
    assert_eq!(ask("other.test", &named).await, ok());
    let careless = trusting(&theirs, Protocol::Http1, |tls| tls.verify = false);
    assert_eq!(ask("other.test", &careless).await, ok());
}

#[tokio::test(flavor = "local")]
async fn a_failed_handshake_says_why_and_delivers_nothing() {
    let authority = Authority::new();
    let (address, _) = tls_upstream(authority.server("shop.test", &[], false)).await;
    let target = at(address, "other.test", &trusting(&authority, Protocol::Http1, |_| {}));
    let failure = post("/", Sent::of("hello")).over(&side(), &target).await.unwrap_err();
    assert!(!failure.delivered);
    assert!(failure.to_string().contains("not valid for name"), "{}", failure);
}

#[tokio::test(flavor = "local")]
async fn we_show_our_certificate_where_it_is_asked_for() {
    let authority = Authority::new();
    let (address, _) = tls_upstream(authority.server("shop.test", &[b"http/1.1"], true)).await;
    let side = side();
    let pair = trusting(&authority, Protocol::Http1, |tls| {
        (tls.certificate, tls.key) = (Some("certificate".into()), Some("key".into()));
    });
    assert_eq!(outcome(get("/").over(&side, &at(address, "shop.test", &pair)).await).await, ok());
    let none = trusting(&authority, Protocol::Http1, |_| {});
    assert!(outcome(get("/").over(&side, &at(address, "shop.test", &none)).await).await.is_err());
}

#[tokio::test(flavor = "local")]
async fn sessions_are_resumed() {
    let authority = Authority::new();
    let (address, resumed) = tls_upstream(authority.server("shop.test", &[], false)).await;
    let target = at(address, "shop.test", &trusting(&authority, Protocol::Http1, |_| {}));
    let side = side();
    for _ in 0..3 {
        assert_eq!(outcome(get("/").over(&side, &target).await).await, ok());
        settle().await;
    }
    assert_eq!(resumed.get(), 2);
}

#[tokio::test(flavor = "local")]
async fn the_protocol_must_be_agreed_upon() {
    let authority = Authority::new();
    let side = side();
    let settings = trusting(&authority, Protocol::Http2, |_| {});
    let (silent, _) = tls_upstream(authority.server("shop.test", &[], false)).await;
    let error = get("/").over(&side, &at(silent, "shop.test", &settings)).await.unwrap_err();
    assert_eq!(error.kind, SendErrorKind::TlsFailed);
    assert!(error.to_string().contains("ALPN"), "{error}");

    let acceptor = TlsAcceptor::from(Arc::new(authority.server("shop.test", &[b"h2", b"http/1.1"], false)));
    let plain = upstream(move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            let mut connection = h2::server::handshake(acceptor.accept(stream).await.unwrap()).await.unwrap();
            while let Some(Ok((request, mut answer))) = connection.accept().await {
                assert_eq!(request.uri(), "https://shop.test/");
                let mut stream = answer.send_response(http::Response::new(()), false).unwrap();
                stream.send_data("ok".into(), true).unwrap();
            }
        }
    })
    .await;
    assert_eq!(outcome(get("/").over(&side, &at(address(&plain), "shop.test", &settings)).await).await, ok());
}

#[tokio::test(flavor = "local")]
async fn a_handshake_that_never_ends_is_given_up() {
    let authority = Authority::new();
    let silent = upstream(|stream, _| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let settings =
        Settings { tls_timeout: Some(Duration::from_millis(50)), ..trusting(&authority, Protocol::Http1, |_| {}) };
    let error = get("/").over(&side(), &at(address(&silent), "shop.test", &settings)).await.unwrap_err();
    assert_eq!((error.kind, error.delivered), (SendErrorKind::TlsTimeout, false));
}

#[tokio::test(flavor = "local")]
async fn a_body_cut_without_a_goodbye_is_cut() {
    let authority = Authority::new();
    let acceptor = TlsAcceptor::from(Arc::new(authority.server("shop.test", &[], false)));
    let plain = upstream(move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(stream).await.unwrap();
            let _ = stream.read(&mut [0; 1000]).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nlooks complete").await.unwrap();
        }
    })
    .await;
    let target = at(address(&plain), "shop.test", &trusting(&authority, Protocol::Http1, |_| {}));
    let outcome = outcome(get("/").over(&side(), &target).await).await;
    assert_eq!(outcome, Err("the answer's body was cut".to_owned()));
}
