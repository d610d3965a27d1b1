//! Messages on their way to one client.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

/// Written by whoever has a message, read by one: a response's body, or who waits for its first message.
#[derive(Debug, Default)]
pub(super) struct Queue {
    messages: RefCell<VecDeque<Bytes>>,
    bytes: Cell<usize>,
    ended: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Queue {
    /// Adds one, unless as many are there or it has ended. Answers whether it was added.
    pub(super) fn push(&self, message: Bytes, most: usize, most_bytes: usize) -> bool {
        let bytes = self.bytes.get();
        let full = self.messages.borrow().len() >= most || (bytes > 0 && bytes + message.len() > most_bytes);
        if full || self.ended.get() {
            return false;
        }
        self.bytes.set(bytes + message.len());
        self.messages.borrow_mut().push_back(message);
        self.wake();
        true
    }

    /// Adds the last one, for which there is always room.
    pub(super) fn finish(&self, message: Bytes) {
        self.push(message, usize::MAX, usize::MAX);
        self.end();
    }

    /// Nothing comes any more.
    pub(super) fn end(&self) {
        self.ended.set(true);
        self.wake();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Whether the last one has been taken.
    pub(super) fn is_over(&self) -> bool {
        self.ended.get() && self.messages.borrow().is_empty()
    }

    /// The next one; none at the end.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(message) = self.messages.borrow_mut().pop_front() {
            self.bytes.set(self.bytes.get() - message.len());
            return Poll::Ready(Some(message));
        }
        if self.ended.get() {
            return Poll::Ready(None);
        }
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) async fn next(&self) -> Option<Bytes> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Takes all that wait in another one.
    pub(super) fn take(&self, other: &Queue) {
        for message in other.messages.borrow_mut().drain(..) {
            self.push(message, usize::MAX, usize::MAX);
        }
        other.bytes.set(0);
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}
