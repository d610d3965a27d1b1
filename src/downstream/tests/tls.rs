use super::*;
use crate::config::model::{ClientAuth, TlsVersion};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// An authority that everybody in these tests trusts.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pair(&self, names: &[&str]) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).unwrap();
        params.distinguished_name.push(DnType::CommonName, names[0].clone());
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Pair {
            certificate_file: format!("{}.pem", names[0]),
            certificate: certificate.pem().into_bytes(),
            key_file: format!("{}.key", names[0]),
            key: key.serialize_pem().into_bytes(),
        }
    }

    fn settings(&self, names: &[&[&str]]) -> TlsSettings {
        TlsSettings {
            certificates: names.iter().map(|names| self.pair(names)).collect(),
            min_version: TlsVersion::Tls12,
            client_ca: None,
            client_auth: ClientAuth::Require,
            handshake_timeout: Duration::from_millis(400),
            protocols: vec![Protocol::Http2, Protocol::Http1],
        }
    }

    fn asking(&self, names: &[&[&str]], client_auth: ClientAuth) -> TlsSettings {
        let client_ca = Some(("ca.pem".to_owned(), self.0.pem().into_bytes()));
        TlsSettings { client_ca, client_auth, ..self.settings(names) }
    }

    fn client(&self, alpn: &[&str], own: Option<&Pair>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        use rustls::pki_types::pem::PemObject;
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = CertificateDer::pem_slice_iter(&pair.certificate).map(Result::unwrap).collect();
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&pair.key).unwrap()).unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

async fn connect(site: &Site, config: &Arc<ClientConfig>, name: &str) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(config.clone()).connect(name, site.connect().await).await
}

const FACTS: &[u8] = b"GET /facts HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

async fn facts(site: &Site, config: &Arc<ClientConfig>, name: &str) -> String {
    let mut stream = connect(site, config, name).await.unwrap();
    stream.write_all(FACTS).await.unwrap();
    read_all(&mut stream).await
}

/// The name of the certificate that was shown.
fn shown(connection: &ClientConnection) -> String {
    let leaf = &connection.peer_certificates().unwrap()[0];
    x509_parser::parse_x509_certificate(leaf).unwrap().1.subject().to_string()
}

#[tokio::test(flavor = "local")]
async fn certificates_are_chosen_by_name_exact_before_wildcard_and_the_first_for_the_rest() {
    let authority = Authority::new();
    let tls = authority.settings(&[&["first.test", "127.0.0.1"], &["*.example.test"], &["api.example.test", "b.test"]]);
    let site = site_with(&settings(), Some(TlsTerms::build(&tls, None).unwrap()));
    let config = Arc::new(authority.client(&[], None));
    for (name, expected) in [
        ("first.test", "CN=first.test"),
        ("127.0.0.1", "CN=first.test"),
        ("www.example.test", "CN=*.example.test"),
        ("api.example.test", "CN=api.example.test"),
        ("API.example.test", "CN=api.example.test"),
        ("b.test", "CN=api.example.test"),
    ] {
        let stream = connect(&site, &config, name).await.unwrap();
        assert_eq!(shown(stream.get_ref().1), expected, "{name}");
    }
    // A wildcard is one label; who is unknown is shown the first, and does not like it.
    for name in ["a.b.example.test", "example.test", "unknown.test"] {
        let error = connect(&site, &config, name).await.unwrap_err();
        assert!(error.to_string().contains("first.test"), "{error}");
    }
}

#[tokio::test(flavor = "local")]
async fn a_connection_knows_its_handshake() {
    let authority = Authority::new();
    let tls = authority.settings(&[&["first.test"]]);
    let site = site_with(&settings(), Some(TlsTerms::build(&tls, None).unwrap()));
    let config = Arc::new(authority.client(&["http/1.1"], None));
    let all = facts(&site, &config, "first.test").await;
    assert!(all.contains("7 https 127.0.0.1"), "{all}");
    assert!(all.contains(r#"version: "TLSv1.3", server_name: Some("first.test"), http2: false"#), "{all}");
    site.closed(&[Closed::Client]).await;
    assert_eq!(site.heard(), ["handshake"]);

    let config = Arc::new(authority.client(&["h2", "http/1.1"], None));
    let stream = connect(&site, &config, "first.test").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .unwrap();
    spawn_local(connection);
    let request = Request::get("https://first.test/facts").body(Full::<Bytes>::default()).unwrap();
    let body = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("http2: true"));
}

#[tokio::test(flavor = "local")]
async fn clients_without_a_certificate_are_turned_away_where_one_is_required() {
    let authority = Authority::new();
    let tls = TlsTerms::build(&authority.asking(&[&["first.test"]], ClientAuth::Require), None).unwrap();
    let site = site_with(&settings(), Some(tls));
    let mine = authority.pair(&["service-a"]);
    let all = facts(&site, &Arc::new(authority.client(&[], Some(&mine))), "first.test").await;
    assert!(all.contains(r#"client_subject: Some("CN=service-a")"#), "{all}");
    // In TLS 1.3 a client hears of it only with its first read.
    assert_eq!(statuses(&facts(&site, &Arc::new(authority.client(&[], None)), "first.test").await), [""; 0]);
    let stranger = Authority::new().pair(&["service-a"]);
    assert_eq!(statuses(&facts(&site, &Arc::new(authority.client(&[], Some(&stranger))), "first.test").await), [""; 0]);
    site.closed(&[Closed::Client, Closed::Tls, Closed::Tls]).await;

    let tls = TlsTerms::build(&authority.asking(&[&["first.test"]], ClientAuth::Optional), None).unwrap();
    let site = site_with(&settings(), Some(tls));
    let all = facts(&site, &Arc::new(authority.client(&[], None)), "first.test").await;
    assert!(all.contains("client_subject: None"), "{all}");
}

#[tokio::test(flavor = "local")]
async fn sessions_resume_over_a_reload_but_never_past_a_new_question() {
    let authority = Authority::new();
    let before = TlsTerms::build(&authority.settings(&[&["first.test"]]), None).unwrap();
    let renewed = TlsTerms::build(&authority.settings(&[&["first.test"]]), Some(&before)).unwrap();
    let asking = TlsTerms::build(&authority.asking(&[&["first.test"]], ClientAuth::Require), Some(&renewed)).unwrap();
    let site = site_with(&settings(), Some(before));
    let config = Arc::new(authority.client(&[], None));
    assert!(facts(&site, &config, "first.test").await.contains("resumed: false"));
    *site.app.terms.borrow_mut() = Arc::new(Terms::new(7, "web", &settings(), Some(Arc::new(renewed))));
    assert!(facts(&site, &config, "first.test").await.contains("resumed: true"));
    *site.app.terms.borrow_mut() = Arc::new(Terms::new(7, "web", &settings(), Some(Arc::new(asking))));
    assert_eq!(statuses(&facts(&site, &config, "first.test").await), [""; 0]);
}

#[tokio::test(flavor = "local")]
async fn a_handshake_that_does_not_end_or_is_none_is_closed() {
    let authority = Authority::new();
    let mut tls = authority.settings(&[&["first.test"]]);
    tls.min_version = TlsVersion::Tls13;
    let site = site_with(&settings(), Some(TlsTerms::build(&tls, None).unwrap()));
    let mut silent = site.connect().await;
    assert_eq!(read_all(&mut silent).await, "");
    let all = site.exchange("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(statuses(&all), [""; 0], "{all}");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let old = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    assert!(connect(&site, &Arc::new(old), "first.test").await.is_err());
    site.closed(&[Closed::Tls, Closed::Tls, Closed::Tls]).await;
    let heard = site.heard();
    assert!(heard.iter().any(|text| text.contains("longer than handshake_timeout")), "{heard:?}");
}

#[tokio::test(flavor = "local")]
async fn everything_else_works_over_tls_as_well() {
    let authority = Authority::new();
    let tls = authority.settings(&[&["first.test"]]);
    let site = site_with(&settings(), Some(TlsTerms::build(&tls, None).unwrap()));
    let config = Arc::new(authority.client(&[], None));
    let mut stream = connect(&site, &config, "first.test").await.unwrap();
    stream.write_all(b"GET /big/40 HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\n\r\n").await.unwrap();
    let all = read_all(&mut stream).await;
    assert_eq!((statuses(&all), all.matches('x').count()), (vec!["200", "400"], 40 << 16), "{}", all.len());

    drop(stream);
    let mut stuck = connect(&site, &config, "first.test").await.unwrap();
    stuck.write_all(b"GET /big/400 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    site.closed(&[Closed::Error, Closed::Timeout]).await;

    let mut slow = connect(&site, &config, "first.test").await.unwrap();
    slow.write_all(b"GET /a HTTP/1.1\r\nho").await.unwrap();
    assert_eq!(statuses(&read_all(&mut slow).await), ["408"]);
}

#[tokio::test(flavor = "local")]
async fn a_proxy_header_may_come_first() {
    let authority = Authority::new();
    let tls = authority.settings(&[&["first.test"]]);
    let mut settings = settings();
    settings.proxy_protocol = crate::config::model::ProxyProtocol::Accept;
    let site = site_with(&settings, Some(TlsTerms::build(&tls, None).unwrap()));
    let connector = TlsConnector::from(Arc::new(authority.client(&[], None)));
    for (header, expected) in
        [("PROXY TCP4 192.0.2.7 198.51.100.1 1 443\r\n", "https 192.0.2.7 "), ("", "https 127.0.0.1 ")]
    {
        let mut stream = site.connect().await;
        stream.write_all(header.as_bytes()).await.unwrap();
        let mut stream = connector.connect(ServerName::try_from("first.test").unwrap(), stream).await.unwrap();
        stream.write_all(FACTS).await.unwrap();
        let all = read_all(&mut stream).await;
        assert!(all.contains(expected), "{all}");
    }
}

#[test]
fn what_cannot_work_is_said_all_at_once() {
    let authority = Authority::new();
    let mut tls = authority.asking(&[&["a.test"], &["b.test"], &["c.test"]], ClientAuth::Require);
    tls.certificates[0].key = authority.pair(&["x.test"]).key;
    tls.certificates[1].certificate = b"words".to_vec();
    tls.certificates[2].key = b"words".to_vec();
    tls.client_ca = Some(("ca.pem".to_owned(), b"words".to_vec()));
    let errors = TlsTerms::build(&tls, None).unwrap_err();
    let said: Vec<_> = errors.iter().map(|error| (error.key(), error.to_string())).collect();
    assert_eq!(said[0], ("key", "a.test.key is not the key of the certificate in a.test.pem".to_owned()));
    assert_eq!(said[1], ("certificate", "b.test.pem holds no certificate in PEM form".to_owned()));
    assert!(said[2].0 == "key" && said[2].1.starts_with("c.test.key holds no private key in PEM form"), "{said:?}");
    assert_eq!(said[3], ("client_ca", "ca.pem holds no certificate in PEM form".to_owned()));
    assert_eq!(said.len(), 4);

    tls = authority.settings(&[]);
    assert_eq!(TlsTerms::build(&tls, None).unwrap_err(), [TlsError::NoCertificate]);
    let terms = TlsTerms::build(&authority.settings(&[&["a.test", "*.b.test"]]), None).unwrap();
    let shown = &terms.certificates().shown()[0];
    assert_eq!((shown.file.as_str(), shown.names.join(" ")), ("a.test.pem", "a.test *.b.test".to_owned()));
    assert!(shown.not_after > std::time::SystemTime::now());
}

#[tokio::test(flavor = "local")]
async fn of_many_handshakes_a_few_run_between_two_looks_at_the_sockets() {
    let authority = Authority::new();
    let tls = TlsSettings { handshake_timeout: Duration::from_secs(60), ..authority.settings(&[&["a.test"]]) };
    let site = Rc::new(site_with(&settings(), Some(TlsTerms::build(&tls, None).unwrap())));
    let config = Arc::new(authority.client(&[], None));
    let clients: Vec<_> = (0..60)
        .map(|_| {
            let (site, config) = (site.clone(), config.clone());
            spawn_local(async move { connect(&site, &config, "a.test").await.map(drop) })
        })
        .collect();
    let count = || site.heard().iter().filter(|text| *text == "handshake").count();
    let (mut most, mut before) = (0, 0);
    while clients.iter().any(|client| !client.is_finished()) || before < 60 {
        tokio::task::yield_now().await;
        let now = count();
        (most, before) = (most.max(now - before), now);
    }
    // Eight in a turn, and this task may look in the middle of one and of the next.
    assert!(most <= 16, "{most} at once");
}
