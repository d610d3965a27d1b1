//! A request in progress at a server, and the HTTP request that waits for its answer.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::oneshot;

use super::message::{Message, cancelled};
use super::queue::Queue;
use super::server::Server;
use super::session::{Held, Session};

/// What an answer with one of our ids belongs to.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) owner: Owner,
    /// As its client has written it.
    pub(super) id: String,
    /// By what its client knows its progress.
    pub(super) token: Option<String>,
}

#[derive(Debug)]
pub(super) enum Owner {
    Client {
        exchange: Rc<Exchange>,
        session: Option<Rc<Session>>,
    },
    /// Ours.
    Bridge(oneshot::Sender<Message>),
}

impl Pending {
    pub(super) fn session(&self) -> Option<&Rc<Session>> {
        match &self.owner {
            Owner::Client { session, .. } => session.as_ref(),
            Owner::Bridge(_) => None,
        }
    }

    pub(super) fn exchange(&self) -> Option<&Rc<Exchange>> {
        match &self.owner {
            Owner::Client { exchange, .. } => Some(exchange),
            Owner::Bridge(_) => None,
        }
    }
}

/// Where the answer to a POST, and what comes before it, goes.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) queue: Queue,
    /// The client accepts an event stream.
    pub(super) events: bool,
    /// The client has gone.
    pub(super) left: Cell<bool>,
    /// Our id for its request, once the server has got it.
    pub(super) number: Cell<Option<u64>>,
}

impl Exchange {
    pub(super) fn new(events: bool) -> Rc<Exchange> {
        Rc::new(Exchange { queue: Queue::default(), events, left: Cell::new(false), number: Cell::new(None) })
    }

    /// Whether it can take a message before its answer.
    pub(super) fn is_open(&self) -> bool {
        self.events && !self.left.get() && !self.queue.has_ended()
    }
}

/// Held by whoever waits for an answer.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) exchange: Rc<Exchange>,
    pub(super) server: Rc<Server>,
    /// Who leaves cancels: the stateless revision.
    pub(super) cancels: bool,
    /// Its session is in use as long as it waits.
    pub(super) _held: Option<Held>,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.exchange.left.set(true);
        let number = self.exchange.number.get().filter(|_| self.cancels);
        if let Some(number) = number.filter(|number| self.server.forget(*number)) {
            self.server.tell(cancelled(number));
        }
    }
}
