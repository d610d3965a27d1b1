//! TLS from clients and to upstreams.

use std::sync::Arc;

use rustls::ProtocolVersion;
use rustls::version::{TLS12, TLS13};

use crate::support::*;

const TWO_NAMES: &str = r#"
    [listener.web]
    bind = "127.0.0.1:0"
    tls = { certificate = "a.pem", key = "a.key", certificates = [{ certificate = "b.pem", key = "b.key" }] }
    [[route]]
    respond = { body = "{scheme}" }
"#;

fn with_pair(builder: ProxyBuilder, name: &str, pair: &Signed) -> ProxyBuilder {
    builder.file(&format!("{name}.pem"), &pair.certificate).file(&format!("{name}.key"), &pair.key)
}

async fn two_names(authority: &Authority) -> (Proxy, Signed, Signed) {
    let (a, b) = (authority.signs("a.test"), authority.signs("b.test"));
    let proxy = with_pair(with_pair(proxy(TWO_NAMES), "a", &a), "b", &b).start().await;
    (proxy, a, b)
}

#[tokio::test]
async fn a_client_gets_the_certificate_of_the_name_it_asks_for() {
    let authority = Authority::new();
    let (proxy, a, b) = two_names(&authority).await;
    let config = authority.client(&[]);
    let web = proxy.address("web");
    assert_eq!(handshake(web, &config, "a.test").await.unwrap().certificate, a.der().as_ref());
    assert_eq!(handshake(web, &config, "b.test").await.unwrap().certificate, b.der().as_ref());
    // An unknown name gets the first, which that client does not believe.
    let error = handshake(web, &config, "c.test").await.unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn alpn_chooses_between_http2_and_http1() {
    let authority = Authority::new();
    let (proxy, ..) = two_names(&authority).await;
    for (offer, expected) in [
        (&["h2", "http/1.1"][..], http::Version::HTTP_2),
        (&["http/1.1"], http::Version::HTTP_11),
        (&[], http::Version::HTTP_11),
    ] {
        let client = client(proxy.address("web")).tls(authority.client(offer), "a.test");
        let answer = client.get("/").header("Host", "a.test").await;
        assert_eq!((answer.version, answer.text().as_str()), (expected, "https"), "{offer:?}");
    }
}

#[tokio::test]
async fn both_versions_of_tls_are_spoken_and_the_older_one_can_be_ruled_out() {
    let authority = Authority::new();
    let (loose, a, _) = two_names(&authority).await;
    let text = TWO_NAMES.replace("tls = {", "tls = { min_version = \"1.3\",");
    let strict = with_pair(with_pair(proxy(&text), "a", &a), "b", &a).start().await;
    for (versions, name, strictly) in
        [(&[&TLS12][..], ProtocolVersion::TLSv1_2, false), (&[&TLS13], ProtocolVersion::TLSv1_3, true)]
    {
        let config = authority.client_of(&[], versions, None);
        assert_eq!(handshake(loose.address("web"), &config, "a.test").await.unwrap().version, name);
        assert_eq!(handshake(strict.address("web"), &config, "a.test").await.is_ok(), strictly);
    }
    let failed = "tidegate_listener_tls_handshakes_total{listener=\"web\",outcome=\"failed\"}";
    until("the failed handshake is counted", async || strict.metric(failed).await.filter(|count| *count == 1.0)).await;
}

#[tokio::test]
async fn clients_must_or_may_show_a_certificate() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let own = authority.signs("a.test");
    for (auth, bare_passes) in [("require", false), ("optional", true)] {
        let ask = format!("tls = {{ client_ca = \"ca.pem\", client_auth = \"{auth}\",");
        let text = TWO_NAMES.replace("tls = {", &ask);
        let builder = proxy(&text).file("ca.pem", &authority.pem);
        let proxy = with_pair(with_pair(builder, "a", &own), "b", &own).start().await;
        for versions in [&[&TLS12][..], &[&TLS13]] {
            let connect = async |shown: Option<&Signed>| {
                let config = authority.client_of(&[], versions, shown);
                handshake(proxy.address("web"), &config, "a.test").await.is_ok()
            };
            assert!(connect(Some(&authority.signs("client"))).await, "{auth}");
            assert_eq!(connect(None).await, bare_passes, "{auth}");
            assert!(!connect(Some(&stranger.signs("client"))).await, "{auth}");
        }
    }
}

#[tokio::test]
async fn certificates_swapped_on_the_disk_are_taken_without_a_word() {
    let authority = Authority::new();
    let (proxy, a, _) = two_names(&authority).await;
    let web = proxy.address("web");
    let http = client(web).tls(authority.client(&["http/1.1"]), "a.test");
    assert_eq!(http.get("/").await.status, 200);
    let next = authority.signs("a.test");
    assert_ne!(next.der(), a.der());
    std::fs::write(proxy.folder().join("a.key"), &next.key).unwrap();
    std::fs::write(proxy.folder().join("a.pem"), &next.certificate).unwrap();
    until("the new certificate is shown", async || {
        let shown = handshake(web, &authority.client(&[]), "a.test").await.expect("there is always a good one");
        (shown.certificate == next.der().as_ref()).then_some(())
    })
    .await;
    // A connection from before goes on, and a broken file changes nothing.
    assert_eq!(http.get("/").await.status, 200);
    std::fs::write(proxy.folder().join("a.pem"), "rubbish").unwrap();
    until("the rubbish is refused", async || (!proxy.status().await.last_reload.accepted).then_some(())).await;
    let shown = handshake(web, &authority.client(&[]), "a.test").await.unwrap();
    assert_eq!(shown.certificate, next.der().as_ref());
}

#[tokio::test]
async fn sessions_are_resumed_on_every_worker_and_over_reloads() {
    let authority = Authority::new();
    let (proxy, ..) = two_names(&authority).await;
    for version in [&TLS12, &TLS13] {
        let config = authority.client_of(&[], &[version], None);
        assert!(!handshake(proxy.address("web"), &config, "a.test").await.unwrap().resumed);
        for _ in 0..8 {
            assert!(handshake(proxy.address("web"), &config, "a.test").await.unwrap().resumed, "{version:?}");
        }
        assert!(proxy.reload().await.accepted);
        assert!(handshake(proxy.address("web"), &config, "a.test").await.unwrap().resumed, "{version:?}");
    }
}

#[tokio::test]
async fn a_client_that_speaks_no_tls_breaks_nothing() {
    let authority = Authority::new();
    let (proxy, ..) = two_names(&authority).await;
    let mut raw = raw_client(proxy.address("web")).await;
    raw.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let _alert = raw.rest().await;
    assert!(handshake(proxy.address("web"), &authority.client(&[]), "a.test").await.is_ok());
}

/// A pool with one TLS upstream.
fn to_tls(tls: &str) -> String {
    format!(
        "[listener.web]\nbind = \"127.0.0.1:0\"\n[pool.app]\nupstreams = [\"{{a}}\"]\ntls = {tls}\n[[route]]\npool = \"app\"\n"
    )
}

#[tokio::test]
async fn upstreams_are_verified_unless_told_otherwise() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = |name: &str| upstream().tls(authority.server(name, &[])).start();
    let (here, inner) = (server("127.0.0.1").await, server("inner.test").await);
    for (a, tls, expected) in [
        (&here, "{}", 502),
        (&here, "{ ca = \"ca.pem\" }", 200),
        (&here, "{ ca = \"other.pem\" }", 502),
        (&here, "{ verify = false }", 200),
        (&inner, "{ ca = \"ca.pem\" }", 502),
        (&inner, "{ ca = \"ca.pem\", server_name = \"inner.test\" }", 200),
        (&inner, "{ ca = \"ca.pem\", server_name = \"outer.test\" }", 502),
        (&inner, "{ verify = false }", 200),
    ] {
        let builder = proxy(&to_tls(tls)).with("a", a).file("ca.pem", &authority.pem);
        let proxy = builder.file("other.pem", &stranger.pem).start().await;
        let answer = proxy.client().get("/").await;
        assert_eq!(answer.status, expected, "{tls}: {}", answer.text());
        if expected == 502 {
            assert_eq!(answer.header("proxy-status"), Some("tidegate; error=tls_protocol_error"), "{tls}");
        }
    }
}

#[tokio::test]
async fn an_upstream_that_asks_gets_our_certificate() {
    let authority = Authority::new();
    let a = upstream().tls(authority.server_that_asks("127.0.0.1")).start().await;
    let own = authority.signs("tidegate");
    for (tls, expected) in
        [("{ ca = \"ca.pem\", certificate = \"own.pem\", key = \"own.key\" }", 200), ("{ ca = \"ca.pem\" }", 502)]
    {
        let builder = with_pair(proxy(&to_tls(tls)).with("a", &a), "own", &own);
        let proxy = builder.file("ca.pem", &authority.pem).start().await;
        assert_eq!(proxy.client().get("/").await.status, expected, "{tls}");
    }
}

#[tokio::test]
async fn http2_is_spoken_to_upstreams_plain_and_over_tls() {
    let authority = Authority::new();
    let plain = upstream().start().await;
    let secret = upstream().tls(authority.server("127.0.0.1", &["h2", "http/1.1"])).start().await;
    for (a, tls) in [(&plain, None), (&secret, Some("{ ca = \"ca.pem\" }"))] {
        let text = match tls {
            Some(tls) => to_tls(tls),
            None => to_tls("{}").replace("tls = {}\n", ""),
        };
        let text = text.replace("[[route]]", "protocol = \"h2\"\n[[route]]");
        let proxy = proxy(&text).with("a", a).file("ca.pem", &authority.pem).start().await;
        for client in [proxy.client(), proxy.client().http2()] {
            let answer = client.get("/x").header("Host", "app.test").await;
            assert_eq!(answer.json()["version"], "HTTP/2.0");
            assert_eq!(answer.json()["authority"], "app.test");
        }
    }
}

#[tokio::test]
async fn an_upstream_that_does_not_agree_to_http2_is_not_spoken_to() {
    let authority = Authority::new();
    let a = upstream().tls(authority.server("127.0.0.1", &["http/1.1"])).start().await;
    let text = to_tls("{ ca = \"ca.pem\" }").replace("[[route]]", "protocol = \"h2\"\n[[route]]");
    let proxy = proxy(&text).with("a", &a).file("ca.pem", &authority.pem).start().await;
    assert_eq!(proxy.client().get("/").await.status, 502);
    assert_eq!(a.requests(), 0);
}

#[tokio::test]
async fn a_certificate_is_not_shared_between_configurations_of_a_client() {
    // What clients are given must not depend on who came before: an `Arc`ed configuration with a session of one name is not used for another.
    let authority = Authority::new();
    let (proxy, a, b) = two_names(&authority).await;
    let config: Arc<_> = authority.client(&[]);
    for _ in 0..2 {
        for (name, own) in [("a.test", &a), ("b.test", &b)] {
            let shown = handshake(proxy.address("web"), &config, name).await.unwrap();
            assert_eq!(shown.certificate, own.der().as_ref());
        }
    }
}
