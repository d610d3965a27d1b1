use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::upgrade::OnUpgrade;

use super::activity::{Activity, Busy};
use super::objection::Objection;
use super::pulse::Pulse;
use super::roster::{Entry, Roster};
use super::terms::Terms;
use super::tls::TlsFacts;

/// A client's connection: what is known about it, and the application's own `S` for it.
#[derive(Debug)]
pub struct Connection<S = ()> {
    /// The application's.
    pub state: S,
    pub(super) facts: Facts,
    pub(super) activity: Rc<Activity>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) roster: Rc<Roster>,
    /// The last refusal, for the connection's own end.
    pub(super) objection: Cell<Option<Objection>>,
    /// Where hyper will leave the socket when the connection ends, if a request asked for an upgrade that it did not get.
    pub(super) untaken: RefCell<Option<OnUpgrade>>,
}

/// What is known about a connection once it is ready for HTTP.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) id: u64,
    pub(super) terms: Arc<Terms>,
    pub(super) peer: Peer,
    pub(super) client: IpAddr,
    pub(super) client_port: u16,
    pub(super) local: Option<SocketAddr>,
    pub(super) tls: Option<TlsFacts>,
    pub(super) http2: bool,
}

/// Who is at the other end of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A TCP peer.
    Tcp(SocketAddr),
    /// A process on this machine, through a Unix socket.
    Unix,
}

impl Peer {
    /// Its address; a Unix socket's peer is on this machine, so it is the loopback address.
    pub fn ip(self) -> IpAddr {
        match self {
            // On a dual-stack socket an IPv4 peer looks like ::ffff:10.0.0.1; it is the same client as on an IPv4 one.
            Peer::Tcp(address) => address.ip().to_canonical(),
            Peer::Unix => IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }

    /// Its port; 0 for Unix sockets.
    pub fn port(self) -> u16 {
        match self {
            Peer::Tcp(address) => address.port(),
            Peer::Unix => 0,
        }
    }
}

impl<S> Connection<S> {
    pub(super) fn new(state: S, facts: Facts, pulse: Arc<Pulse>, entry: &Entry) -> Self {
        let (activity, roster) = (entry.activity().clone(), entry.roster().clone());
        Connection { state, facts, activity, pulse, roster, objection: Cell::new(None), untaken: RefCell::default() }
    }

    /// Its number, unique in this process.
    pub fn id(&self) -> u64 {
        self.facts.id
    }

    /// The number by which the application knows its listener.
    pub fn listener(&self) -> usize {
        self.facts.terms.listener
    }

    /// The terms it came in under.
    pub fn terms(&self) -> &Arc<Terms> {
        &self.facts.terms
    }

    /// Who is at the other end of the socket.
    pub fn peer(&self) -> Peer {
        self.facts.peer
    }

    /// The client's address: the peer's, or what a trusted peer's PROXY protocol header says.
    pub fn client(&self) -> IpAddr {
        self.facts.client
    }

    /// The client's port, from where its address is; 0 for Unix sockets.
    pub fn client_port(&self) -> u16 {
        self.facts.client_port
    }

    /// The address it was accepted on, or was made to according to a trusted PROXY protocol header; none for Unix sockets.
    pub fn local(&self) -> Option<SocketAddr> {
        self.facts.local
    }

    /// Whether it is encrypted.
    pub fn is_tls(&self) -> bool {
        self.facts.tls.is_some()
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.is_tls() { "https" } else { "http" }
    }

    /// What its TLS handshake has shown.
    pub fn tls(&self) -> Option<&TlsFacts> {
        self.facts.tls.as_ref()
    }

    /// `TLSv1.2`, `TLSv1.3`, or empty without TLS.
    pub fn tls_version(&self) -> &'static str {
        self.tls().map_or("", |tls| tls.version)
    }

    /// Whether it speaks HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.facts.http2
    }

    /// Bytes read from its socket so far, TLS and all.
    pub fn received(&self) -> u64 {
        self.pulse.bytes_read()
    }

    /// Bytes written to its socket so far, TLS and all.
    pub fn sent(&self) -> u64 {
        self.pulse.bytes_written()
    }

    /// Requests begun on it so far.
    pub fn requests(&self) -> u64 {
        self.activity.begun()
    }

    /// Whether it is to end soon: its listener has gone, or the process is going.
    pub fn is_draining(&self) -> bool {
        self.roster.until().is_some()
    }

    /// Keeps it from counting as idle. Requests do this by themselves until their answer's last byte; a tunnel through an HTTP/2
    /// stream must hold one.
    pub fn enter(&self) -> Busy {
        self.activity.enter()
    }
}

/// The next connection's number.
pub(super) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
