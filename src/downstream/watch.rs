//! What a connection may take its time for, and for how long: the one deadline of each connection, moved as it goes along.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::pulse::Pulse;
use super::roster::Entry;
use super::terms::Terms;
use crate::sweep::{Deadline, Sweep};
use crate::telemetry::Closed;
use crate::types::Moment;

/// Watches over one connection's time.
#[derive(Debug)]
pub(super) struct Watch {
    sweep: Rc<Sweep>,
    deadline: Deadline,
    state: State,
    draining: bool,
}

/// What a connection is doing. Two that are equal are one and the same wait, so the clock is not set anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Its first request has not begun.
    Fresh,
    /// Its TLS handshake is under way.
    Handshake,
    /// A head is coming in; so many requests were before it.
    Head(u64),
    /// Requests are in progress.
    Busy,
    /// Idle after so many requests.
    Idle(u64),
    /// The client takes nothing; it has taken so many bytes.
    Sending(u64),
    /// Our side is closed.
    Lingering,
    /// It has been asked to end.
    Closing,
}

/// What is to be done about a wait that took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// Close it softly.
    Close(Closed),
    /// Refuse the head that does not end.
    Refuse,
    /// Cut it.
    Cut(Closed),
}

impl Watch {
    /// How long our closed side waits for the client's.
    const LINGER: Duration = Duration::from_secs(3);
    /// How long a connection that has not sent anything yet may take for it once it is to end. Its request may be on its way.
    const FRESH: Duration = Duration::from_secs(1);

    pub(super) fn new(sweep: &Rc<Sweep>, terms: &Terms) -> Self {
        let deadline = sweep.deadline();
        deadline.set_after(Some(terms.header_timeout));
        Watch { sweep: sweep.clone(), deadline, state: State::Fresh, draining: false }
    }

    pub(super) fn sweep(&self) -> &Rc<Sweep> {
        &self.sweep
    }

    /// Looks at the clock. `state` is what the connection does now; `Ready` where it has done so for too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, state: State, entry: &Entry, terms: &Terms) -> Poll<Overdue> {
        let until = entry.roster().until();
        if state != self.state || self.draining != until.is_some() {
            self.draining = until.is_some();
            self.turn(state, until, terms);
        }
        if self.deadline.poll_expired(cx).is_pending() {
            let unwanted = entry.activity().asked_for_room() && matches!(state, State::Idle(_));
            return if unwanted { Poll::Ready(Overdue::Close(Closed::Idle)) } else { Poll::Pending };
        }
        let drained = until.is_some_and(|until| self.deadline.at() >= until);
        Poll::Ready(match self.state {
            _ if drained => Overdue::Cut(Closed::Drained),
            State::Fresh | State::Idle(_) if self.draining => Overdue::Close(Closed::Drained),
            State::Fresh => Overdue::Close(Closed::Timeout),
            State::Handshake => Overdue::Cut(Closed::Tls),
            State::Idle(_) => Overdue::Close(Closed::Idle),
            State::Head(_) => Overdue::Refuse,
            State::Sending(_) | State::Busy => Overdue::Cut(Closed::Timeout),
            State::Lingering | State::Closing => Overdue::Cut(Closed::Client),
        })
    }

    /// Waits for what comes before the first request, which is all there is to the connection until then.
    pub(super) async fn bound<F: Future>(
        &mut self,
        state: State,
        entry: &Entry,
        terms: &Terms,
        future: F,
    ) -> Result<F::Output, Overdue> {
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll(cx, state, entry, terms).map(Err),
        })
        .await
    }

    /// Another wait begins.
    fn turn(&mut self, state: State, until: Option<Moment>, terms: &Terms) {
        let draining = until.is_some();
        let before = std::mem::replace(&mut self.state, state);
        let span = match state {
            // One wait with that for the first byte.
            State::Head(0) if before == State::Fresh && !draining => return,
            State::Fresh if draining => Some(Self::FRESH.min(terms.header_timeout)),
            State::Fresh | State::Head(_) => Some(terms.header_timeout),
            State::Handshake => terms.tls.as_ref().map(|tls| tls.handshake_timeout()),
            State::Busy => None,
            // A request that is on its way already has until the next tick to be seen.
            State::Idle(_) if draining => Some(Duration::ZERO),
            State::Idle(_) => Some(terms.keepalive_timeout),
            State::Sending(_) => Some(terms.send_timeout),
            State::Lingering | State::Closing => Some(Self::LINGER),
        };
        self.deadline.set_after(span);
        if let Some(until) = until {
            self.deadline.set(self.deadline.at().min(until));
        }
    }
}

impl State {
    /// What is between two requests and has been `asked` to end only closes.
    pub(super) fn or_closing(self, asked: bool) -> State {
        match self {
            State::Idle(_) | State::Fresh if asked => State::Closing,
            state => state,
        }
    }

    /// What an HTTP connection does, as its socket and its requests show it.
    pub(super) fn of(entry: &Entry, pulse: &Pulse) -> State {
        let activity = entry.activity();
        if pulse.lingering() {
            State::Lingering
        } else if pulse.blocked() {
            State::Sending(pulse.bytes_written())
        } else if activity.busy() {
            State::Busy
        } else if pulse.partial() {
            State::Head(activity.begun())
        } else if activity.begun() == 0 {
            State::Fresh
        } else {
            State::Idle(activity.begun())
        }
    }
}
