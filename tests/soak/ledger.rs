//! What the clients know: each request they sent, and what came of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::support::until;

/// What a kill can do to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: it can be sent again, and its answer comes in one piece.
    Safe,
    /// It may be refused or cut, because it must not be sent twice.
    Once,
    /// It must begin, but may be cut later.
    Stream,
}

/// How a request has ended for its client. A status of 0: no answer had begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// With a whole answer of this status.
    Whole(u16),
    /// In the middle, and why.
    Broken(u16, String),
    /// With the client's leaving.
    Left(u16),
}

impl Outcome {
    pub fn status(&self) -> u16 {
        match self {
            Outcome::Whole(status) | Outcome::Broken(status, _) | Outcome::Left(status) => *status,
        }
    }
}

/// One request.
#[derive(Debug)]
pub struct Record {
    pub kind: Kind,
    pub begun: Instant,
    pub ended: Option<(Instant, Outcome)>,
}

/// Everybody's requests, by their numbers.
#[derive(Debug, Default)]
pub struct Ledger {
    records: Mutex<Vec<Record>>,
    ended: AtomicU64,
    over: AtomicBool,
}

impl Ledger {
    /// Takes down a request that is about to be sent.
    pub fn ask(self: &Arc<Self>, kind: Kind) -> Asked {
        let mut records = self.records.lock().unwrap();
        records.push(Record { kind, begun: Instant::now(), ended: None });
        Asked { ledger: self.clone(), number: records.len() - 1 }
    }

    /// Whether more is to be sent.
    pub fn goes_on(&self) -> bool {
        !self.over.load(Relaxed)
    }

    /// No more is to be sent.
    pub fn end(&self) {
        self.over.store(true, Relaxed);
    }

    /// Returns once so many more requests have ended, or when no more are sent.
    pub async fn another(&self, count: u64) {
        let goal = self.ended.load(Relaxed) + count;
        until("more requests have ended", async || (self.ended.load(Relaxed) >= goal || !self.goes_on()).then_some(()))
            .await;
    }

    pub fn take(&self) -> Vec<Record> {
        std::mem::take(&mut self.records.lock().unwrap())
    }
}

/// A request that is under way.
#[derive(Debug)]
pub struct Asked {
    ledger: Arc<Ledger>,
    number: usize,
}

impl Asked {
    /// Its target at this path, which may have a query.
    pub fn target(&self, path: &str) -> String {
        let joint = if path.contains('?') { '&' } else { '?' };
        format!("{path}{joint}id={}", self.number)
    }

    /// The number in a target of [`Asked::target`].
    pub fn number_in(target: &str) -> Option<usize> {
        target.rsplit_once("id=")?.1.parse().ok()
    }

    pub fn whole(self, status: u16) {
        self.ended(Outcome::Whole(status));
    }

    pub fn broke(self, status: u16, why: impl ToString) {
        self.ended(Outcome::Broken(status, why.to_string()));
    }

    pub fn left(self, status: u16) {
        self.ended(Outcome::Left(status));
    }

    fn ended(self, outcome: Outcome) {
        self.ledger.records.lock().unwrap()[self.number].ended = Some((Instant::now(), outcome));
        self.ledger.ended.fetch_add(1, Relaxed);
    }
}
