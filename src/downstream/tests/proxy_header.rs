use super::*;
use crate::config::model::ProxyProtocol;

const REQUEST: &str = "GET /facts HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
const LINE: &str = "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";

fn with(proxy_protocol: ProxyProtocol, trusted: &[&str]) -> Site {
    let mut settings = settings();
    settings.proxy_protocol = proxy_protocol;
    settings.trusted_proxies = trusted.iter().map(|network| network.parse().unwrap()).collect();
    site(&settings)
}

#[tokio::test(flavor = "local")]
async fn a_header_tells_the_client_and_what_follows_is_its_request() {
    let site = with(ProxyProtocol::Require, &[]);
    let all = site.exchange(&format!("{LINE}{REQUEST}")).await;
    assert!(all.ends_with("7 http 192.0.2.7 198.51.100.1:443 false "), "{all}");

    let mut stream = site.connect().await;
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0f".to_vec();
    header.extend([203, 0, 113, 9, 198, 51, 100, 1, 1, 0, 2, 0, 4, 0, 0]);
    for byte in header.iter().chain(REQUEST.as_bytes()) {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let all = read_all(&mut stream).await;
    assert!(all.ends_with("7 http 203.0.113.9 198.51.100.1:512 false "), "{all}");
    assert_eq!(site.heard(), ["client 192.0.2.7", "client 203.0.113.9"]);
}

#[tokio::test(flavor = "local")]
async fn where_it_is_required_a_connection_without_one_is_closed() {
    let site = with(ProxyProtocol::Require, &[]);
    assert_eq!(statuses(&site.exchange(REQUEST).await), [""; 0]);
    assert_eq!(statuses(&site.exchange("PROXY TCP4 nonsense\r\n").await), [""; 0]);
    // One that only begins is bounded in time.
    assert_eq!(site.exchange("PROXY TC").await, "");
    site.closed(&[Closed::ProxyHeader, Closed::ProxyHeader, Closed::Timeout]).await;
}

#[tokio::test(flavor = "local")]
async fn where_it_is_accepted_both_are_served() {
    let site = with(ProxyProtocol::Accept, &[]);
    assert!(site.exchange(&format!("{LINE}{REQUEST}")).await.contains("192.0.2.7"));
    assert!(site.exchange(REQUEST).await.contains("7 http 127.0.0.1 "));
    assert!(site.exchange(&format!("PROXY UNKNOWN\r\n{REQUEST}")).await.contains("7 http 127.0.0.1 "));
}

#[tokio::test(flavor = "local")]
async fn only_trusted_peers_are_believed_where_any_are_named() {
    let site = with(ProxyProtocol::Accept, &["10.0.0.0/8"]);
    assert!(site.exchange(&format!("{LINE}{REQUEST}")).await.contains("7 http 127.0.0.1 "));
    let site = with(ProxyProtocol::Accept, &["10.0.0.0/8", "127.0.0.0/8"]);
    assert!(site.exchange(&format!("{LINE}{REQUEST}")).await.contains("7 http 192.0.2.7 "));
}

#[tokio::test(flavor = "local")]
async fn where_it_is_off_it_is_no_request() {
    let site = with(ProxyProtocol::Off, &[]);
    assert_eq!(statuses(&site.exchange(&format!("{LINE}{REQUEST}")).await), ["400"]);
}
