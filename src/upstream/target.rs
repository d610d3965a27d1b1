use std::fmt;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderValue;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::tls::{ClientTls, TlsError};
use crate::config::model::{Pool, Protocol};
use crate::telemetry::UpstreamStats;

/// A place a connection can be made to: an address that needs no resolving.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// A Unix stream socket.
    Unix(Arc<Path>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tcp(address) => address.fmt(f),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How a pool's upstreams are connected to; the same for all of its targets.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What they speak.
    pub protocol: Protocol,
    /// TLS, if they speak it.
    pub tls: Option<Arc<ClientTls>>,
    /// For a connection.
    pub connect_timeout: Option<Duration>,
    /// For the TLS handshake.
    pub tls_timeout: Option<Duration>,
    /// Idle connections kept for each target and worker.
    pub idle_connections: usize,
    /// How long such a connection is kept.
    pub idle_timeout: Duration,
}

impl Settings {
    /// The settings of a configured pool, with the TLS client that was built for it.
    pub fn of(pool: &Pool, tls: Option<Arc<ClientTls>>) -> Self {
        Settings {
            protocol: pool.protocol,
            tls,
            connect_timeout: pool.timeout.connect,
            tls_timeout: pool.timeout.tls,
            idle_connections: pool.idle_connections as usize,
            idle_timeout: pool.idle_timeout,
        }
    }
}

/// One upstream as the far side sees it: where it is and how it is spoken to.
///
/// Immutable, shared by all workers through the snapshot.
#[derive(Debug)]
pub struct Target {
    /// The same for the same pool, place and connection settings, however often the configuration is read: connections
    /// belong to an id, so a reload that changes none of these keeps them, and one that changes any of them lets them go.
    pub id: u64,
    /// Where it is.
    pub place: Place,
    /// Its name for people, logs and metrics.
    pub name: Arc<str>,
    /// The `Host` of its own: for health checks, and where the pool does not preserve the client's.
    pub authority: HeaderValue,
    /// What it speaks.
    pub protocol: Protocol,
    /// TLS and the name to verify, if it speaks TLS.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// For a connection.
    pub connect_timeout: Option<Duration>,
    /// For the TLS handshake.
    pub tls_timeout: Option<Duration>,
    /// Idle connections kept by each worker.
    pub idle_connections: usize,
    /// How long such a connection is kept.
    pub idle_timeout: Duration,
    /// Where connections for requests are counted, if anywhere.
    pub stats: Option<Arc<UpstreamStats>>,
}

impl Target {
    /// The target at `place`, a member of `pool` called `name`; `host` is the name or IP address that leads there, which its
    /// certificate must carry where the pool's settings name nothing else.
    ///
    /// **Errors**: with TLS, where `host` cannot stand in a certificate.
    pub fn new(pool: &str, name: &str, place: Place, host: &str, settings: &Settings) -> Result<Self, TlsError> {
        let tls = match &settings.tls {
            Some(tls) => Some((tls.config().clone(), tls.server_name(host)?)),
            None => None,
        };
        let mut hasher = hasher();
        (pool, &place, settings.protocol).hash(&mut hasher);
        settings.tls.as_ref().map(|tls| tls.fingerprint()).hash(&mut hasher);
        tls.as_ref().map(|(_, name)| name).hash(&mut hasher);
        Ok(Target {
            id: hasher.finish(),
            authority: authority(&place, host, tls.is_some()),
            place,
            name: name.into(),
            protocol: settings.protocol,
            tls,
            connect_timeout: settings.connect_timeout,
            tls_timeout: settings.tls_timeout,
            idle_connections: settings.idle_connections,
            idle_timeout: settings.idle_timeout,
            stats: None,
        })
    }

    /// The same target, whose connections are counted there.
    pub fn counted_by(self, stats: Arc<UpstreamStats>) -> Self {
        Target { stats: Some(stats), ..self }
    }
}

/// Host and port as a URI would have them (RFC 9110 §4.2): without a port that goes without saying.
fn authority(place: &Place, host: &str, tls: bool) -> HeaderValue {
    let bracketed = host.contains(':') && !host.starts_with('[');
    let host = if bracketed { format!("[{host}]") } else { host.to_owned() };
    let text = match place {
        Place::Tcp(address) if address.port() == if tls { 443 } else { 80 } => host,
        Place::Tcp(address) => format!("{host}:{}", address.port()),
        Place::Unix(_) => host,
    };
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("localhost"))
}

/// Hashes with a key of this process's own: nobody who controls DNS can make two targets share their connections.
pub(super) fn hasher() -> DefaultHasher {
    static KEY: OnceLock<RandomState> = OnceLock::new();
    KEY.get_or_init(RandomState::new).build_hasher()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::UpstreamTls;

    fn target(pool: &str, place: &str, settings: &Settings) -> u64 {
        Target::new(pool, place, Place::Tcp(place.parse().unwrap()), "localhost", settings).unwrap().id
    }

    #[test]
    fn an_id_lasts_as_long_as_what_a_connection_depends_on() {
        let settings = Settings::of(&Pool::default(), None);
        let id = target("a", "127.0.0.1:1", &settings);
        let patient = Settings { connect_timeout: None, idle_connections: 1, ..settings.clone() };
        assert_eq!(target("a", "127.0.0.1:1", &patient), id, "a timeout is not part of a connection");
        assert_ne!(target("b", "127.0.0.1:1", &settings), id);
        assert_ne!(target("a", "127.0.0.1:2", &settings), id);
        assert_ne!(target("a", "127.0.0.1:1", &Settings { protocol: Protocol::Http2, ..settings.clone() }), id);
        let unverified = UpstreamTls { verify: false, ..UpstreamTls::default() };
        let tls = ClientTls::build(&unverified, Protocol::Http1, |_| unreachable!()).unwrap();
        assert_ne!(target("a", "127.0.0.1:1", &Settings { tls: Some(Arc::new(tls)), ..settings }), id);
    }

    #[test]
    fn a_target_has_a_host_of_its_own() {
        let settings = Settings::of(&Pool::default(), None);
        let host = |place: &str, host: &str| {
            let place = match place.parse() {
                Ok(address) => Place::Tcp(address),
                Err(_) => Place::Unix(Path::new(place).into()),
            };
            Target::new("a", "a", place, host, &settings).unwrap().authority
        };
        assert_eq!(host("10.0.0.7:9001", "api.internal"), "api.internal:9001");
        assert_eq!(host("10.0.0.7:80", "api.internal"), "api.internal");
        assert_eq!(host("[::1]:9001", "::1"), "[::1]:9001");
        assert_eq!(host("/run/app.sock", "localhost"), "localhost");
    }

    #[test]
    fn targets_can_be_shared_by_workers() {
        fn shared<T: Send + Sync>() {}
        shared::<Target>();
    }
}
