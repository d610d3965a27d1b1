//! A connection's way from its accepted socket to HTTP: PROXY protocol, admission, TLS, choice of the protocol.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::application::{Application, Event};
use super::connection::{Connection, Facts, Peer, next_id};
use super::gate::Gate;
use super::lane;
use super::proxy_header::{self, ProxyHeaderError, Start};
use super::pulse::Pulse;
use super::roster::Entry;
use super::share::Accepted;
use super::socket::{Link, Wire};
use super::stock::Stock;
use super::terms::Terms;
use super::tls::{HandshakeError, TlsFacts, TlsTerms};
use super::turnstile::HANDSHAKES;
use super::watch::{Overdue, State, Watch};
use super::{http1, http2};
use crate::config::model::ProxyProtocol;
use crate::sweep::Sweep;
use crate::telemetry::Closed;

/// How an HTTP/2 connection begins (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An accepted connection, with what it counts in.
pub(super) struct Arrival {
    pub(super) accepted: Accepted,
    pub(super) local: Option<SocketAddr>,
    pub(super) terms: Arc<Terms>,
    pub(super) entry: Entry,
}

/// Serves a connection from its first byte to its end.
pub(super) async fn attend<A: Application>(app: Rc<A>, stock: Rc<Stock<A>>, sweep: Rc<Sweep>, arrival: Arrival) {
    let Arrival { accepted: Accepted { socket, peer, seat, place }, local, terms, entry } = arrival;
    let pulse = Arc::new(Pulse::new());
    let watch = Watch::new(&sweep, &terms);
    poll_fn(|cx| {
        entry.activity().attend(cx);
        Poll::Ready(())
    })
    .await;
    app.observe(Event::Accepted);
    let mut end = End { app: &*app, pulse: &pulse, why: Closed::Error };
    let mut opening = Opening {
        app: &app,
        pulse: &pulse,
        terms: &terms,
        entry: &entry,
        watch,
        peer,
        client: peer.ip(),
        client_port: peer.port(),
        local,
    };
    end.why = match opening.open(Wire::new(socket, pulse.clone())).await {
        Ok((link, connection)) => speak(link, connection, &app, &stock, &entry, opening.watch).await,
        Err(why) => why,
    };
    drop((end, entry, seat, place));
}

/// Tells of a connection's end, however it comes: also by a panic of ours.
struct End<'a, A: Application> {
    app: &'a A,
    pulse: &'a Pulse,
    why: Closed,
}

impl<A: Application> Drop for End<'_, A> {
    fn drop(&mut self) {
        let (received, sent) = (self.pulse.bytes_read(), self.pulse.bytes_written());
        self.app.observe(Event::Closed { why: self.why, received, sent });
    }
}

/// Speaks HTTP. hyper's part is boxed, as it is large, and most connections have none.
async fn speak<A: Application>(
    link: Link,
    connection: Rc<Connection<A::State>>,
    app: &Rc<A>,
    stock: &Rc<Stock<A>>,
    entry: &Entry,
    mut watch: Watch,
) -> Closed {
    let pulse = connection.pulse.clone();
    if connection.is_http2() {
        let gate = Gate::new(link, pulse, None);
        return Box::pin(http2::serve(gate, connection, app.clone(), stock, entry, watch)).await;
    }
    let gate = if connection.terms().fast_lane {
        match lane::serve(link, &connection, app, stock, entry, &mut watch).await {
            Ok(gate) => gate,
            Err(why) => return why,
        }
    } else {
        Gate::new(link, pulse, Some(connection.terms().head))
    };
    Box::pin(http1::serve(gate, connection, app.clone(), stock, entry, watch)).await
}

/// A connection before its first request.
struct Opening<'a, A> {
    app: &'a Rc<A>,
    pulse: &'a Arc<Pulse>,
    terms: &'a Arc<Terms>,
    entry: &'a Entry,
    watch: Watch,
    peer: Peer,
    client: IpAddr,
    client_port: u16,
    local: Option<SocketAddr>,
}

impl<A: Application> Opening<'_, A> {
    async fn open(&mut self, mut wire: Wire) -> Result<(Link, Rc<Connection<A::State>>), Closed> {
        if self.terms.proxy_protocol != ProxyProtocol::Off {
            self.read_proxy_header(&mut wire).await?;
        }
        let state = self.app.admit(self.terms, self.client).ok_or(Closed::Limit)?;
        let (link, tls, http2) = match &self.terms.tls {
            Some(tls) => {
                let stream = Box::pin(self.shake_hands(tls, wire)).await?;
                let facts = TlsFacts::of(stream.get_ref().1);
                let http2 = facts.http2 || !self.terms.http1;
                (Link::Tls(Box::new(stream)), Some(facts), http2)
            }
            None => {
                let http2 = self.choose(&mut wire).await?;
                (Link::Plain(wire), None, http2)
            }
        };
        let facts = Facts {
            id: next_id(),
            terms: self.terms.clone(),
            peer: self.peer,
            client: self.client,
            client_port: self.client_port,
            local: self.local,
            tls,
            http2,
        };
        Ok((link, Rc::new(Connection::new(state, facts, self.pulse.clone(), self.entry))))
    }

    async fn read_proxy_header(&mut self, wire: &mut Wire) -> Result<(), Closed> {
        let required = self.terms.proxy_protocol == ProxyProtocol::Require;
        let header = poll_fn(|cx| poll_proxy_header(wire, required, cx));
        let read = self.watch.bound(State::Fresh, self.entry, self.terms, header).await;
        let behind = match read {
            Ok(Ok(behind)) => behind,
            Ok(Err(error)) => {
                tracing::debug!(peer = ?self.peer, "{error}");
                return Err(Closed::ProxyHeader);
            }
            Err(overdue) => return Err(why(overdue)),
        };
        if let Some((client, local)) = behind.filter(|_| self.terms.trusts(self.peer.ip())) {
            (self.client, self.client_port) = (client.ip().to_canonical(), client.port());
            self.local = Some(local);
        }
        Ok(())
    }

    async fn shake_hands(&mut self, tls: &TlsTerms, mut wire: Wire) -> Result<TlsStream<Wire>, Closed> {
        let accept = async {
            // Who says nothing yet takes nobody's turn.
            poll_fn(|cx| if wire.ahead().is_empty() { wire.poll_more(cx) } else { Poll::Ready(Ok(1)) }).await?;
            let turnstile = HANDSHAKES.with(Rc::clone);
            turnstile.lead(TlsAcceptor::from(tls.config().clone()).accept(wire)).await
        };
        let error = match self.watch.bound(State::Handshake, self.entry, self.terms, accept).await {
            Ok(Ok(stream)) => {
                self.app.observe(Event::Handshake);
                return Ok(stream);
            }
            Ok(Err(error)) => HandshakeError::Failed(error),
            Err(Overdue::Cut(Closed::Drained)) => return Err(Closed::Drained),
            Err(_) => HandshakeError::Timeout,
        };
        self.app.observe(Event::HandshakeFailed(&error));
        Err(Closed::Tls)
    }

    /// Whether a client without TLS speaks HTTP/2, by its first bytes. They are read once, and replayed.
    async fn choose(&mut self, wire: &mut Wire) -> Result<bool, Closed> {
        let (http1, http2) = (self.terms.http1, self.terms.http2);
        if !http2 {
            return Ok(false);
        }
        let seen = poll_fn(|cx| poll_preface(wire, http1, cx));
        match self.watch.bound(State::Fresh, self.entry, self.terms, seen).await {
            Ok(Ok(http2)) => Ok(http2),
            Ok(Err(_)) => Err(Closed::Client),
            Err(overdue) => Err(why(overdue)),
        }
    }
}

fn why(overdue: Overdue) -> Closed {
    match overdue {
        Overdue::Close(why) | Overdue::Cut(why) => why,
        Overdue::Refuse => Closed::Timeout,
    }
}

/// A PROXY header's word on who is behind the peer.
type Behind = Option<(SocketAddr, SocketAddr)>;

fn poll_proxy_header(wire: &mut Wire, required: bool, cx: &mut Context<'_>) -> Poll<Result<Behind, ProxyHeaderError>> {
    loop {
        match proxy_header::read(wire.ahead()) {
            Ok(Start::Header { length, behind }) => {
                wire.consume(length);
                return Poll::Ready(Ok(behind));
            }
            Ok(Start::Absent) if required => return Poll::Ready(Err(ProxyHeaderError::Missing)),
            Ok(Start::Absent) => return Poll::Ready(Ok(None)),
            Ok(Start::Partial) => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
        match wire.poll_more(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(1..)) => {}
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(ProxyHeaderError::Ended)),
        }
    }
}

fn poll_preface(wire: &mut Wire, http1: bool, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
    loop {
        let ahead = wire.ahead();
        let same = ahead.iter().zip(PREFACE).take_while(|(byte, expected)| byte == expected).count();
        if same == PREFACE.len() {
            return Poll::Ready(Ok(true));
        }
        if same < ahead.len() {
            // Where only HTTP/2 is spoken, its own side says what is wrong.
            return Poll::Ready(Ok(!http1));
        }
        match wire.poll_more(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
        }
    }
}
