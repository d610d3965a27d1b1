//! What a server says, and to whom it is passed on.

use std::rc::Rc;

use bytes::Bytes;

use super::batch;
use super::call::{Exchange, Owner, Pending};
use super::child::Child;
use super::message::{self, INTERNAL_ERROR, Kind, METHOD_NOT_FOUND, Message};
use super::server::{Asked, Key, Server};
use super::session::Session;

/// So much of what the server has asked is kept in mind until it is answered.
const MOST_ASKED: usize = 1000;

impl Server {
    /// A line of its output.
    pub(super) fn hears(self: &Rc<Self>, child: &Rc<Child>, line: Bytes) {
        if line.trim_ascii().is_empty() {
            return;
        }
        self.used.set(std::time::Instant::now());
        if let Some(Ok(members)) = batch::members(&line) {
            // Of a server of the 2025-03-26 revision. Their members are objects: a list in a list is no message.
            return members.into_iter().for_each(|member| self.hears_one(child, member));
        }
        self.hears_one(child, line);
    }

    fn hears_one(self: &Rc<Self>, child: &Rc<Child>, line: Bytes) {
        let message = match Message::parse(line.clone()) {
            Ok(message) => message,
            Err(fault) => return child.words.strayed(&line, &fault.what),
        };
        match message.kind {
            Kind::Response => self.answers(&message),
            Kind::Request => self.asks(child, &message),
            Kind::Notification => self.notifies(&message),
        }
    }

    fn answers(&self, message: &Message) {
        let pending = message.number().and_then(|number| self.pending.borrow_mut().remove(&number));
        match pending {
            Some(Pending { owner: Owner::Client { exchange, .. }, id, .. }) => {
                exchange.queue.finish(message.answered(&id))
            }
            Some(Pending { owner: Owner::Bridge(owner), .. }) => {
                let _ = owner.send(message.clone());
            }
            None => {
                tracing::debug!(target: "tidegate::stdio", pool = %self.settings.pool, id = message.id(), "the MCP server has answered what nobody asked, or what was cancelled");
            }
        }
    }

    /// A request of the server's: to whoever has the most recent call in progress and can answer it.
    fn asks(&self, child: &Child, message: &Message) {
        let refuse = |code: i64, what: &str| {
            let _ = child.send(message::error(message.id(), code, what, None));
        };
        if message.method == "ping" {
            let _ = child.send(message::result(message.id(), "{}"));
            return;
        }
        let session = match &self.key {
            Key::Session(_) => self.sessions().into_iter().next(),
            Key::Modern(_) => None,
            Key::Principal(_) | Key::All => self.caller(|session| session.abilities.include(&message.method)),
        };
        let Some(session) = session else {
            return refuse(METHOD_NOT_FOUND, "no client that is calling could answer this");
        };
        let is_full = self.asked.borrow().len() >= MOST_ASKED;
        let oldest = if is_full { self.asked.borrow_mut().pop_first() } else { None };
        if let Some((_, oldest)) = oldest {
            let _ = child.send(message::error(&oldest.id, INTERNAL_ERROR, "the client has not answered", None));
        }
        let asked = Asked { id: message.id().to_owned(), session: Rc::downgrade(&session) };
        let number = self.asks_as(asked);
        if !self.pass(&session, message.with_id(&number.to_string()), true) {
            self.asked.borrow_mut().remove(&number);
            refuse(INTERNAL_ERROR, "the client does not read what it is sent");
        }
    }

    /// The session with the most recent call in progress of which this holds.
    fn caller(&self, holds: impl Fn(&Session) -> bool) -> Option<Rc<Session>> {
        let pending = self.pending.borrow();
        let mut sessions = pending.values().rev().filter_map(Pending::session);
        sessions.find(|session| holds(session)).cloned()
    }

    fn notifies(&self, message: &Message) {
        if let Some(token) = message.progress() {
            return self.progresses(message, token);
        }
        if let Some(subscription) = message.subscription() {
            let pending = self.pending.borrow();
            let owner = subscription.parse().ok().and_then(|number: u64| pending.get(&number));
            if let Some((owner, exchange)) = owner.and_then(|owner| Some((owner, owner.exchange()?))) {
                self.push(exchange, message.with_subscription(&owner.id));
            }
            return;
        }
        match (message.method.as_str(), &self.key) {
            ("notifications/cancelled", _) => self.withdraws(message),
            (_, Key::Modern(_)) => {
                if let Some(exchange) = self.open_call(None) {
                    self.push(&exchange, message.text.clone());
                }
            }
            (method, Key::Session(_)) => {
                let is_of_call = method == "notifications/message";
                for session in self.sessions() {
                    self.pass(&session, message.text.clone(), is_of_call);
                }
            }
            ("notifications/resources/updated", _) => {
                let uri = message.uri().unwrap_or_default();
                for session in self.sessions().iter().filter(|session| session.subscribes(&uri)) {
                    self.pass(session, message.text.clone(), false);
                }
            }
            _ => {
                for session in self.sessions().iter().filter(|session| session.stream.borrow().is_some()) {
                    session.push(message.text.clone(), &self.settings);
                }
            }
        }
    }

    /// Progress of a call goes where its answer will.
    fn progresses(&self, message: &Message, token: &str) {
        let pending = self.pending.borrow();
        let owner = token.parse().ok().and_then(|number: u64| pending.get(&number));
        let Some((owner, exchange)) = owner.and_then(|owner| Some((owner, owner.exchange()?))) else { return };
        let Some(token) = owner.token.as_deref() else { return };
        let text = message.with_progress(token);
        if exchange.is_open() {
            self.push(exchange, text);
        } else if let Some(session) = owner.session() {
            session.push(text, &self.settings);
        }
    }

    /// The server does not want to know any more what it has asked.
    fn withdraws(&self, message: &Message) {
        let Some(id) = message.request() else { return };
        let mut all = self.asked.borrow_mut();
        let number = all.iter().find(|(_, asked)| asked.id == id).map(|(number, _)| *number);
        let Some((number, asked)) = number.and_then(|number| Some((number, all.remove(&number)?))) else { return };
        drop(all);
        if let Some(session) = asked.session.upgrade() {
            self.pass(&session, message.with_request(&number.to_string()), true);
        }
    }

    /// The most recent call in progress, of a session or of all, that can take a message.
    fn open_call(&self, session: Option<&Rc<Session>>) -> Option<Rc<Exchange>> {
        let pending = self.pending.borrow();
        let of = |pending: &&Pending| {
            session.is_none_or(|one| pending.session().is_some_and(|other| Rc::ptr_eq(one, other)))
        };
        let mut exchanges = pending.values().rev().filter(of).filter_map(Pending::exchange);
        exchanges.find(|exchange| exchange.is_open()).cloned()
    }

    /// Passes a message to a client. `of_call`: it belongs to what is in progress, and goes there first.
    fn pass(&self, session: &Rc<Session>, text: Bytes, of_call: bool) -> bool {
        let has_stream = session.stream.borrow().is_some();
        let call = if of_call || !has_stream { self.open_call(Some(session)) } else { None };
        match call {
            Some(exchange) => self.push(&exchange, text),
            None => session.push(text, &self.settings),
        }
    }

    fn push(&self, exchange: &Exchange, text: Bytes) -> bool {
        exchange.is_open() && exchange.queue.push(text, self.settings.max_queued, self.settings.max_body)
    }
}
