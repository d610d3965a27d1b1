use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use smallvec::SmallVec;

use super::ClientKey;

/// What one client has in use: raised only while its table shard is locked, lowered from anywhere.
#[derive(Debug, Default)]
pub(super) struct Seats {
    requests: AtomicU32,
    connections: AtomicU32,
}

impl Seats {
    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Acquire)
    }

    pub(super) fn connections(&self) -> u32 {
        self.connections.load(Ordering::Acquire)
    }

    pub(super) fn in_use(&self) -> bool {
        self.requests() > 0 || self.connections() > 0
    }

    pub(super) fn enter_request(&self) {
        self.requests.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn enter_connection(&self) {
        self.connections.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn leave_request(&self) {
        self.requests.fetch_sub(1, Ordering::AcqRel);
    }

    pub(super) fn leave_connection(&self) {
        self.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Proof that a request was admitted; gives back what it holds when dropped, so it leaves with the response's body.
///
/// **Cost**: a rate alone holds nothing; more than two rules that count requests or connections need an allocation.
#[derive(Debug, Default)]
#[must_use = "what is admitted counts only as long as its permit is held"]
pub struct Permit {
    holds: SmallVec<[Hold; 2]>,
}

impl Permit {
    /// A permit that holds nothing: of a route without limits.
    pub fn free() -> Self {
        Permit::default()
    }

    pub(super) fn hold(&mut self, hold: Hold) {
        self.holds.push(hold);
    }

    /// Makes two permits one.
    pub fn join(&mut self, mut other: Permit) {
        self.holds.append(&mut other.holds);
    }
}

/// What one rule of a permit has taken.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) seats: Arc<Seats>,
    pub(super) request: bool,
    pub(super) connection: Option<Rc<Seat>>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.request {
            self.seats.leave_request();
        }
        if let Some(seat) = &self.connection {
            seat.running.set(seat.running.get() - 1);
            if seat.running.get() == 0 {
                self.seats.leave_connection();
            }
        }
    }
}

/// A connection's seat with one client of one table: taken by its first running request, given back by its last.
#[derive(Debug)]
pub(super) struct Seat {
    table: u64,
    key: ClientKey,
    running: Cell<u32>,
}

impl Seat {
    pub(super) fn enter(&self) {
        self.running.set(self.running.get() + 1);
    }
}

/// The seats of one downstream connection; each connection owns one and lends it to every [`super::Limiter::admit`].
///
/// A connection counts while it has at least one request in progress, whether it carries one at a time or many (HTTP/2).
///
/// **Cost**: nothing but its 40 bytes until a rule with a connection limit admits a request; then one allocation for the
/// connection's life. **Bounds**: as many seats as requests in progress at once and rules.
#[derive(Debug, Default)]
pub struct ConnectionSeats(RefCell<SmallVec<[Rc<Seat>; 2]>>);

impl ConnectionSeats {
    /// A connection without requests.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether this connection already has its seat, by a request in progress.
    pub(super) fn seated(&self, table: u64, key: ClientKey) -> bool {
        self.0.borrow().iter().any(|seat| seat.table == table && seat.key == key && seat.running.get() > 0)
    }

    /// The seat for this client of this table; the caller has to enter it.
    pub(super) fn seat(&self, table: u64, key: ClientKey) -> Rc<Seat> {
        let mut seats = self.0.borrow_mut();
        if let Some(seat) = seats.iter().find(|seat| seat.table == table && seat.key == key) {
            return seat.clone();
        }
        let fresh = Seat { table, key, running: Cell::new(0) };
        for seat in seats.iter_mut() {
            // Nobody holds it: one whose requests have ended serves the next client.
            if let Some(unused) = Rc::get_mut(seat) {
                *unused = fresh;
                return seat.clone();
            }
        }
        let seat = Rc::new(fresh);
        seats.push(seat.clone());
        seat
    }
}
