//! From names to addresses, again and again.
//!
//! Runs beside the requests, never in front of one: a request sees only addresses. A name that does not resolve keeps nobody
//! waiting; a name that no longer resolves keeps the addresses it had last, since a resolver that fails says nothing about the
//! upstreams.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::proto::rr::{RData, Record};

use crate::types::Address;

/// An address that a name leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resolved {
    /// Where.
    pub address: SocketAddr,
    /// The host name it was found under: for `Host` and certificates.
    pub host: String,
    /// Its weight among the others, where the records give one (SRV); at least 1.
    pub weight: Option<u32>,
    /// Whether it is to be used only while no other is fit: an SRV record of lower priority.
    pub backup: bool,
}

/// News of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// It leads to these, sorted; told when they are others than before.
    Found(Vec<Resolved>),
    /// It does not resolve, for this reason; told when it begins to fail. What was found before still stands.
    Failed(LookupError),
}

/// Why a name has no addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LookupError(pub String);

/// Records and how long they hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<T> {
    /// The records.
    pub records: Vec<T>,
    /// How long they may be used.
    pub ttl: Duration,
}

/// One SRV record (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Lower goes first.
    pub priority: u16,
    /// Relative to the others of its priority.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// The host.
    pub target: String,
}

/// Somebody who knows names.
pub trait Lookup {
    /// All IPv4 and IPv6 addresses of a name.
    fn addresses(&self, name: &str) -> impl Future<Output = Result<Found<IpAddr>, LookupError>>;
    /// All SRV records of a name.
    fn services(&self, name: &str) -> impl Future<Output = Result<Found<Service>, LookupError>>;
}

/// Asked at least so often, and at most.
const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// The first pause behind a failure, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Looks a name up whenever its records run out, and tells what it leads to. Never ends; drop it to stop.
///
/// Addresses that need no resolving are told once.
pub async fn watch<L: Lookup>(lookup: &L, address: &Address, mut tell: impl FnMut(Resolution)) {
    let mut name = Watched::default();
    loop {
        let (news, pause) = name.learn(resolve(lookup, address).await);
        news.into_iter().for_each(&mut tell);
        tokio::time::sleep(pause).await;
    }
}

/// What is known of a name; decides what is news, and when to ask again.
#[derive(Default)]
struct Watched {
    known: Option<Vec<Resolved>>,
    failures: u32,
}

impl Watched {
    fn learn(&mut self, answer: Result<Found<Resolved>, LookupError>) -> (Option<Resolution>, Duration) {
        match answer {
            Ok(Found { mut records, ttl }) => {
                records.sort();
                records.dedup_by(|one, other| one.address == other.address);
                let news = self.failures > 0 || self.known.as_ref() != Some(&records);
                self.failures = 0;
                self.known = Some(records.clone());
                (news.then_some(Resolution::Found(records)), ttl.clamp(TTL.0, TTL.1))
            }
            Err(error) => {
                let news = self.failures == 0;
                let pause = (PAUSE.0 * (1 << self.failures.min(5))).min(PAUSE.1);
                self.failures += 1;
                (news.then_some(Resolution::Failed(error)), pause)
            }
        }
    }
}

/// Looks an address up once.
pub async fn resolve<L: Lookup>(lookup: &L, address: &Address) -> Result<Found<Resolved>, LookupError> {
    match address {
        Address::Ip(address) => {
            let host = address.ip().to_string();
            Ok(Found { records: vec![Resolved { address: *address, host, weight: None, backup: false }], ttl: TTL.1 })
        }
        Address::Unix(_) => Err(LookupError("a Unix socket has no addresses".to_owned())),
        Address::Host { name, port } => {
            let found = lookup.addresses(name).await?;
            let resolved = |ip: &IpAddr| Resolved {
                address: SocketAddr::new(*ip, *port),
                host: name.clone(),
                weight: None,
                backup: false,
            };
            filled(Found { records: found.records.iter().map(resolved).collect(), ttl: found.ttl })
        }
        Address::Srv(name) => resolve_services(lookup, name).await,
    }
}

async fn resolve_services<L: Lookup>(lookup: &L, name: &str) -> Result<Found<Resolved>, LookupError> {
    let found = lookup.services(name).await?;
    let first = found.records.iter().map(|service| service.priority).min();
    let mut ttl = found.ttl;
    let mut records = Vec::new();
    let mut failed = None;
    for service in &found.records {
        // A lone "." says that there is no such service (RFC 2782).
        if service.target.is_empty() || service.port == 0 {
            continue;
        }
        match lookup.addresses(&service.target).await {
            Ok(addresses) => {
                ttl = ttl.min(addresses.ttl);
                records.extend(addresses.records.iter().map(|ip| Resolved {
                    address: SocketAddr::new(*ip, service.port),
                    host: service.target.clone(),
                    weight: Some(u32::from(service.weight).max(1)),
                    backup: Some(service.priority) != first,
                }));
            }
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        // Half an answer would drop upstreams that are well.
        Some(error) => Err(error),
        None => filled(Found { records, ttl }),
    }
}

fn filled(found: Found<Resolved>) -> Result<Found<Resolved>, LookupError> {
    if found.records.is_empty() { Err(LookupError("no addresses".to_owned())) } else { Ok(found) }
}

/// Names as the system knows them: `/etc/hosts`, and the name servers of `/etc/resolv.conf` with its search list.
///
/// Both files are read again when they change.
#[derive(Default)]
pub struct SystemLookup {
    current: Mutex<Option<Current>>,
}

struct Current {
    resolver: Arc<TokioResolver>,
    read: [Option<SystemTime>; 2],
}

impl SystemLookup {
    /// Reads nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn resolver(&self) -> Result<Arc<TokioResolver>, LookupError> {
        let read = ["/etc/resolv.conf", "/etc/hosts"]
            .map(|file| Path::new(file).metadata().and_then(|file| file.modified()).ok());
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(current) = current.as_ref().filter(|current| current.read == read) {
            return Ok(current.resolver.clone());
        }
        let mut builder = TokioResolver::builder_tokio().map_err(failed)?;
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        // Each name is asked for when its records have run out, so there is nothing to find in a cache.
        options.cache_size = 0;
        let resolver = Arc::new(builder.build().map_err(failed)?);
        *current = Some(Current { resolver: resolver.clone(), read });
        Ok(resolver)
    }
}

impl Lookup for SystemLookup {
    async fn addresses(&self, name: &str) -> Result<Found<IpAddr>, LookupError> {
        addresses(&*self.resolver()?, name).await
    }

    async fn services(&self, name: &str) -> Result<Found<Service>, LookupError> {
        services(&*self.resolver()?, name).await
    }
}

async fn addresses(resolver: &TokioResolver, name: &str) -> Result<Found<IpAddr>, LookupError> {
    let found = resolver.lookup_ip(name).await.map_err(failed)?;
    Ok(Found { records: found.iter().collect(), ttl: ttl(found.as_lookup().answers()) })
}

async fn services(resolver: &TokioResolver, name: &str) -> Result<Found<Service>, LookupError> {
    let found = resolver.srv_lookup(name).await.map_err(failed)?;
    let service = |record: &Record| match &record.data {
        RData::SRV(srv) => {
            let target = srv.target.to_ascii();
            let target = target.strip_suffix('.').unwrap_or(&target).to_ascii_lowercase();
            Some(Service { priority: srv.priority, weight: srv.weight, port: srv.port, target })
        }
        _ => None,
    };
    Ok(Found { records: found.answers().iter().filter_map(service).collect(), ttl: ttl(found.answers()) })
}

fn ttl(records: &[Record]) -> Duration {
    Duration::from_secs(records.iter().map(|record| record.ttl).min().unwrap_or(0).into())
}

fn failed(error: hickory_resolver::net::NetError) -> LookupError {
    if error.is_nx_domain() {
        LookupError("no such name".to_owned())
    } else if error.is_no_records_found() {
        LookupError("no addresses".to_owned())
    } else {
        LookupError(error.to_string())
    }
}

#[cfg(test)]
mod tests;
