use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::guard::HeadLimits;
use super::tls::TlsTerms;
use crate::config::model::{Listener, Protocol, ProxyProtocol};

/// On what terms a listener takes connections: its settings, as of one snapshot.
///
/// Immutable and shared by all workers. A connection keeps the terms it came in under; the next one gets the next ones.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The number by which the application knows the listener.
    pub listener: usize,
    /// Its name.
    pub name: Arc<str>,
    /// TLS, if it is spoken here.
    pub tls: Option<Arc<TlsTerms>>,
    /// Whether HTTP/1 is spoken.
    pub http1: bool,
    /// Whether HTTP/2 is spoken.
    pub http2: bool,
    /// Whether connections start with a PROXY protocol header.
    pub proxy_protocol: ProxyProtocol,
    /// Who is believed there; everybody where none is named.
    pub trusted: Vec<IpNet>,
    /// Connections open at once.
    pub max_connections: u32,
    /// What a request's head may be at most.
    pub head: HeadLimits,
    /// Requests open at once on one HTTP/2 connection.
    pub max_streams: u32,
    /// From a connection's start, or a request's first byte, to the end of its head.
    pub header_timeout: Duration,
    /// How long a client may take nothing of what is to be sent.
    pub send_timeout: Duration,
    /// How long a connection may be idle between requests.
    pub keepalive_timeout: Duration,
    /// Whether a client that has closed its sending side is still there.
    pub half_close: bool,
    /// Whether plain HTTP/1.1 requests are served without hyper.
    pub fast_lane: bool,
}

impl Terms {
    /// The terms that `settings` ask for.
    pub fn new(listener: usize, name: &str, settings: &Listener, tls: Option<Arc<TlsTerms>>) -> Self {
        Terms {
            listener,
            name: name.into(),
            tls,
            http1: settings.protocols.contains(&Protocol::Http1),
            http2: settings.protocols.contains(&Protocol::Http2),
            proxy_protocol: settings.proxy_protocol,
            trusted: settings.trusted_proxies.clone(),
            max_connections: settings.max_connections,
            head: HeadLimits {
                size: bytes(settings.max_header_size.0),
                headers: settings.max_headers as usize,
                uri: bytes(settings.max_uri.0),
            },
            max_streams: settings.max_streams,
            header_timeout: settings.header_timeout,
            send_timeout: settings.send_timeout,
            keepalive_timeout: settings.keepalive_timeout,
            half_close: settings.half_close,
            fast_lane: settings.fast_lane,
        }
    }

    /// Whether what this peer says about others is believed.
    pub(super) fn trusts(&self, peer: std::net::IpAddr) -> bool {
        self.trusted.is_empty() || self.trusted.iter().any(|network| network.contains(&peer))
    }
}

fn bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}
