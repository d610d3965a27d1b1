//! Upgrades: WebSocket and whatever else a client and an upstream agree to speak (RFC 9110 §7.8, RFC 8441).
//!
//! The handshake is an ordinary request; after a 101 the two connections are joined, and the request lives on in the tunnel with all that it
//! holds. h2c upgrades are ignored, as RFC 9113 §3.1 wants.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::Refusal;
use super::body::Content;
use super::life::Life;
use super::normalize::Normal;
use super::refuse::Refused;
use super::respond::Exchange;
use crate::upstream::{Traffic, TunnelEnd, Upgraded, tunnel};

const SEC_WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const SEC_WEBSOCKET_VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");
const SEC_WEBSOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// A client's wish to switch protocols.
#[derive(Debug)]
pub(super) struct Switching {
    client: OnUpgrade,
    /// Asked for over HTTP/2 (RFC 8441), where the answer to success is 200.
    extended: bool,
}

/// Two connections that are to be joined.
#[derive(Debug)]
pub struct Joint {
    client: OnUpgrade,
    upstream: Upgraded,
}

impl Switching {
    /// What the request asks for, written into its headers as an HTTP/1.1 upstream wants it.
    pub(super) fn asked(parts: &mut Parts, normal: &Normal<'_>, random: u128) -> Option<Switching> {
        if let Some(protocol) = parts.extensions.remove::<hyper::ext::Protocol>() {
            parts.method = Method::GET;
            let protocol = HeaderValue::from_str(protocol.as_str()).ok()?;
            parts.headers.insert(SEC_WEBSOCKET_KEY, websocket_key(random));
            parts.headers.entry(SEC_WEBSOCKET_VERSION).or_insert(HeaderValue::from_static("13"));
            return Switching::to(parts, protocol, true);
        }
        let protocol = normal.upgrade.clone()?;
        if offers_h2c(&protocol) {
            return None;
        }
        Switching::to(parts, protocol, false)
    }

    fn to(parts: &mut Parts, protocol: HeaderValue, extended: bool) -> Option<Switching> {
        let client = parts.extensions.remove::<OnUpgrade>()?;
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(header::UPGRADE, protocol);
        Some(Switching { client, extended })
    }
}

/// Whether HTTP/2 is among the protocols offered, wherever: an upstream that took it would be asked things that no route has seen.
fn offers_h2c(protocols: &HeaderValue) -> bool {
    protocols.as_bytes().split(|byte| *byte == b',').any(|protocol| {
        let protocol = protocol.trim_ascii().to_ascii_lowercase();
        protocol.starts_with(b"h2") || protocol.starts_with(b"http/2")
    })
}

/// The answer to a handshake that has succeeded: `head`, whose hop-by-hop headers have been taken out. The tunnel begins when it has been
/// sent; until then it waits in `life`.
pub(super) fn switch(
    life: &mut Life,
    exchange: Exchange,
    mut head: http::response::Parts,
    protocol: HeaderValue,
    upstream: Option<Upgraded>,
) -> Result<Response<Content>, Refused> {
    let (Some(switching), Some(upstream)) = (exchange.upgrade, upstream) else {
        return Err(Refusal::BadResponse.into());
    };
    life.joint = Some(Box::new(Joint { client: switching.client, upstream }));
    if switching.extended {
        head.headers.remove(SEC_WEBSOCKET_ACCEPT);
        head.status = StatusCode::OK;
    } else {
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(header::UPGRADE, protocol);
    }
    life.status = Some(head.status);
    Ok(Response::from_parts(head, Content::Empty))
}

/// Joins the connections until both sides have ended, or one of the reasons not to go on comes up.
pub(super) async fn run(joint: Joint, mut life: Box<Life>) {
    let client = match joint.client.await {
        Ok(client) => TokioIo::new(client),
        // The client left before it had its 101.
        Err(_) => return,
    };
    // An HTTP/1 connection is the tunnel; an HTTP/2 connection only carries it and would else count as idle.
    let _busy = life.connection.is_http2().then(|| life.connection.enter());
    let idle = life.idle_timeout();
    let traffic = Traffic::default();
    let end = {
        let mut joined = pin!(tunnel(client, joint.upstream, &life.worker.sweep, idle, &traffic));
        // The end of a drain wakes everybody who waits for a deadline; whoever is cut looks up here.
        poll_fn(|cx| {
            if life.is_cut() {
                return Poll::Ready(Err(Refusal::DrainDeadline));
            }
            if life.poll_late(cx) {
                return Poll::Ready(Err(Refusal::RequestTimeout));
            }
            joined.as_mut().poll(cx).map(Ok)
        })
        .await
    };
    life.sent = traffic.down.get();
    life.tunnelled = traffic.up.get();
    match end {
        Ok(TunnelEnd::Closed | TunnelEnd::Idle) => life.ended = true,
        Ok(TunnelEnd::ClientBroke(_)) => {}
        Ok(TunnelEnd::UpstreamBroke(_)) => life.broken = Some(Refusal::UpstreamClosed),
        Err(why) => life.broken = Some(why),
    }
}

/// 16 bytes in Base64, RFC 6455 §4.1; over HTTP/2 the client sends none (RFC 8441 §5).
fn websocket_key(random: u128) -> HeaderValue {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes = random.to_be_bytes();
    let mut key = Vec::with_capacity(24);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63];
            key.push(if place <= chunk.len() { digit } else { b'=' });
        }
    }
    HeaderValue::from_bytes(&key).unwrap_or(HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA=="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h2c_is_not_offered_to_upstreams_wherever_it_stands() {
        for protocols in ["h2c", "H2C", "websocket, h2c", "websocket,h2", "HTTP/2.0"] {
            assert!(offers_h2c(&HeaderValue::from_static(protocols)), "{protocols}");
        }
        assert!(!offers_h2c(&HeaderValue::from_static("websocket, foo/2")));
    }

    #[test]
    fn a_websocket_key_is_16_bytes_in_base64() {
        let key = websocket_key(u128::from_be_bytes(*b"the sample nonce"));
        assert_eq!(key, "dGhlIHNhbXBsZSBub25jZQ==");
    }
}
