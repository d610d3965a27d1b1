//! What is known about one HTTP/2 request while hyper drives its connection: bytes, and the request's progress.
//!
//! Shared by the socket wrapper, the request body and the sender, all on one thread. hyper tells a sender only that a request
//! failed; these few cells tell when, and whose fault it was.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::error::SendErrorKind;
use crate::sweep::Sweep;
use crate::types::Moment;

pub(super) struct Wire {
    sweep: Rc<Sweep>,
    written: Cell<u64>,
    flow: Cell<Flow>,
    /// Bytes of the request's body that hyper has taken.
    taken: Cell<u64>,
}

/// Where the request's body is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flow {
    /// More is to be sent, and it is the upstream that is waited for.
    Sending,
    /// More is to be sent, and it is the client that is waited for.
    Starved,
    /// All of it has been taken, as of then.
    Sent(Moment),
    /// It broke off.
    Broken,
}

impl Wire {
    pub(super) fn new(sweep: Rc<Sweep>) -> Rc<Self> {
        Rc::new(Wire { sweep, written: Cell::new(0), flow: Cell::new(Flow::Sending), taken: Cell::new(0) })
    }

    pub(super) fn wrote(&self, bytes: usize) {
        self.written.set(self.written.get() + bytes as u64);
    }

    pub(super) fn flow(&self) -> Flow {
        self.flow.get()
    }

    pub(super) fn set_flow(&self, flow: Flow) {
        self.flow.set(flow);
    }

    pub(super) fn took(&self, bytes: usize) {
        self.taken.set(self.taken.get() + bytes as u64);
    }

    /// The whole request has been taken.
    pub(super) fn sent(&self) {
        if !matches!(self.flow.get(), Flow::Sent(_)) {
            self.flow.set(Flow::Sent(self.sweep.now()));
        }
    }

    /// Grows with everything the upstream takes.
    pub(super) fn progress(&self) -> u64 {
        self.written.get() + self.taken.get()
    }

    /// What a first byte clock that ran out means, see [`overdue`].
    pub(super) fn overdue(&self, limit: Duration, before: &mut u64) -> Result<Moment, SendErrorKind> {
        overdue(self.sweep.now(), limit, self.flow.get(), self.progress(), before)
    }
}

/// What a first byte clock that ran out means: until when to go on waiting, or that it is over.
///
/// The clock runs from the moment in which the whole request was taken. Before that, only an upstream that takes nothing
/// for so long is late; a client that sends nothing is not the upstream's business. `before` is the progress when the clock was set.
pub(super) fn overdue(
    now: Moment,
    limit: Duration,
    flow: Flow,
    progress: u64,
    before: &mut u64,
) -> Result<Moment, SendErrorKind> {
    let patience = limit + Sweep::TICK;
    match flow {
        Flow::Sent(at) if at + patience <= now => Err(SendErrorKind::FirstByteTimeout),
        Flow::Sent(at) => Ok(at + patience),
        Flow::Sending if progress == *before => Err(SendErrorKind::SendTimeout),
        Flow::Sending | Flow::Starved | Flow::Broken => {
            *before = progress;
            Ok(now + patience)
        }
    }
}
