//! A client's session.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;

use super::queue::Queue;
use super::server::Server;
use super::settings::Settings;

/// A client that has been initialized.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) principal: String,
    pub(super) server: Rc<Server>,
    pub(super) abilities: Abilities,
    /// Its GET stream.
    pub(super) stream: RefCell<Option<Rc<Queue>>>,
    /// What came while it had no stream.
    pub(super) waiting: Queue,
    /// The resources whose changes it wants to know.
    pub(super) subscriptions: RefCell<BTreeSet<String>>,
    /// The parameters of its last `logging/setLevel`.
    pub(super) level: RefCell<Option<String>>,
    /// Requests and streams that are open.
    pub(super) open: Cell<usize>,
    /// When the last of them was closed.
    pub(super) used: Cell<Instant>,
}

/// What a server may ask a client for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Abilities {
    sampling: bool,
    elicitation: bool,
    roots: bool,
}

impl Abilities {
    /// Of the parameters of an `initialize`.
    pub(super) fn of(params: &str) -> Abilities {
        let params: serde_json::Value = serde_json::from_str(params).unwrap_or_default();
        let has =
            |name: &str| params.get("capabilities").and_then(|all| all.get(name)).is_some_and(|one| !one.is_null());
        Abilities { sampling: has("sampling"), elicitation: has("elicitation"), roots: has("roots") }
    }

    /// Whether a request of the server's can be answered. What we do not know the client may know.
    pub(super) fn include(self, method: &str) -> bool {
        match method.split('/').next() {
            Some("sampling") => self.sampling,
            Some("elicitation") => self.elicitation,
            Some("roots") => self.roots,
            _ => true,
        }
    }
}

impl Session {
    /// Hands a message to its stream, or keeps it until there is one. Answers whether there was room.
    pub(super) fn push(&self, message: Bytes, settings: &Settings) -> bool {
        let stream = self.stream.borrow().clone();
        let queue = stream.as_deref().unwrap_or(&self.waiting);
        queue.push(message, settings.max_queued, settings.max_body)
    }

    /// Whether it wants to know of a change. A server may name a part of what was subscribed to.
    pub(super) fn subscribes(&self, uri: &str) -> bool {
        self.subscriptions.borrow().iter().any(|subscribed| uri.starts_with(subscribed.as_str()))
    }

    /// Holds it open.
    pub(super) fn hold(self: &Rc<Self>) -> Held {
        self.open.set(self.open.get() + 1);
        Held(self.clone())
    }
}

/// Proof of an open request or stream of a session.
#[derive(Debug)]
pub(super) struct Held(pub(super) Rc<Session>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.used.set(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_client_can_answer_is_asked() {
        let abilities = Abilities::of(r#"{"capabilities":{"sampling":{},"roots":null}}"#);
        assert!(abilities.include("sampling/createMessage") && abilities.include("other/thing"));
        assert!(!abilities.include("roots/list") && !abilities.include("elicitation/create"));
    }
}
