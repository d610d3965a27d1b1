//! What answers on one listener, on one worker: the border between the near side and the life of a request.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{Request, Response};

use super::client::Introduction;
use super::normalize::LastHost;
use super::worker::Worker;
use super::{Body, Connection, Refusal, handle, refuse};
use crate::downstream::{Application, ClientBody, Event, Objection, Terms};
use crate::limit::{ConnectionPermit, ConnectionSeats};
use crate::telemetry::Outcome;
use crate::types::{Clock, Lines};

/// A listener's application on one worker.
#[derive(Debug)]
pub struct Site {
    worker: Rc<Worker>,
    listener: usize,
}

/// What is kept for each connection.
#[derive(Debug, Default)]
pub struct Kept {
    /// Its seats in limits of connections.
    pub seats: ConnectionSeats,
    /// Its place among its client's connections, given back when it closes.
    _permit: Option<ConnectionPermit>,
    introduction: OnceCell<Introduction>,
    /// The host of its last plain request.
    pub last_host: LastHost,
}

impl Kept {
    /// What upstreams are told about the connection's peer.
    pub fn introduction(&self, connection: &Connection) -> &Introduction {
        let terms = connection.terms();
        self.introduction.get_or_init(|| Introduction::new(connection.client(), connection.is_tls(), &terms.trusted))
    }
}

impl Site {
    /// The site of the listener with this index.
    pub fn new(worker: Rc<Worker>, listener: usize) -> Rc<Self> {
        Rc::new(Site { worker, listener })
    }
}

impl Application for Site {
    type Body = Body;
    type State = Kept;

    const READS_LINES: bool = true;

    fn terms(&self) -> Arc<Terms> {
        self.worker.view().listeners[self.listener].terms.clone()
    }

    fn admit(&self, _: &Terms, client: IpAddr) -> Option<Kept> {
        let view = self.worker.view();
        let permit = match &view.listeners[self.listener].per_client {
            Some(limiter) => Some(limiter.admit(client, Clock::now())?),
            None => None,
        };
        Some(Kept { _permit: permit, ..Kept::default() })
    }

    async fn answer(self: Rc<Self>, connection: Rc<Connection>, request: Request<ClientBody>) -> Response<Body> {
        handle(self.worker.clone(), connection, request).await
    }

    fn take_lines(body: &mut Body) -> Option<Lines> {
        body.take_lines()
    }

    fn refuse(&self, connection: &Rc<Connection>, objection: Objection) -> Response<Body> {
        tracing::debug!(client = %connection.client(), "request refused: {objection}");
        let refusal = match objection {
            Objection::UriTooLong => Refusal::UriTooLong,
            Objection::HeadTooLarge | Objection::TooManyHeaders => Refusal::HeadTooLarge,
            Objection::HeaderTimeout => Refusal::HeaderTimeout,
            Objection::Panicked => return refuse::panicked(),
            _ => Refusal::BadRequest,
        };
        refuse::unread(&self.worker, connection, refusal)
    }

    fn observe(&self, event: Event<'_>) {
        let view = self.worker.view();
        let lane = view.listeners[self.listener].stats.at(self.worker.lane);
        match event {
            Event::Accepted => {
                lane.accepted.up();
                lane.open.up();
                self.worker.registry.at(self.worker.lane).open.up();
            }
            Event::Handshake => lane.handshakes.up(Outcome::Ok),
            Event::HandshakeFailed(error) => {
                lane.handshakes.up(Outcome::Failed);
                tracing::debug!(listener = %view.listeners[self.listener].name, "TLS handshake failed: {error}");
            }
            Event::Unparsable(error) => {
                self.worker.registry.at(self.worker.lane).refusals.up(Refusal::BadRequest.index());
                tracing::debug!(listener = %view.listeners[self.listener].name, "not HTTP: {error}");
            }
            Event::Panicked(message) => tracing::error!("a request panicked, which is a bug of Tidegate: {message}"),
            Event::Closed { why, .. } => {
                lane.closed.up(why);
                lane.open.down();
                self.worker.registry.at(self.worker.lane).open.down();
            }
            Event::AcceptFailed(_) => {}
        }
    }
}
