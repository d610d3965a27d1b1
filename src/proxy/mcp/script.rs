//! An answer that is written by a task of its own: first a head, then pieces, with whatever has to happen between them.
//!
//! The task has no thread and no spawn: it runs where its reader runs, when its reader wants more. A reader that goes drops it, and with it
//! everything that the request holds.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::response::Parts;
use http_body::Frame;

use crate::proxy::body::Broken;

/// What has been said and not yet been taken.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    head: RefCell<Option<Parts>>,
    opened: std::cell::Cell<bool>,
    pieces: RefCell<VecDeque<Frame<Bytes>>>,
    sent: std::cell::Cell<u64>,
}

impl Outbox {
    /// Says the head, once.
    pub(super) fn open(&self, head: Parts) {
        debug_assert!(!self.opened.get(), "an answer has one head");
        self.opened.set(true);
        *self.head.borrow_mut() = Some(head);
    }

    /// Whether the head has been said.
    pub(super) fn is_open(&self) -> bool {
        self.opened.get()
    }

    /// Bytes said so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// Says a piece, for which there must be room.
    pub(super) fn put(&self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.sent.set(self.sent.get() + bytes.len() as u64);
            self.pieces.borrow_mut().push_back(Frame::data(bytes));
        }
    }

    /// Says a frame as it is.
    pub(super) fn put_frame(&self, frame: Frame<Bytes>) {
        self.sent.set(self.sent.get() + frame.data_ref().map_or(0, Bytes::len) as u64);
        self.pieces.borrow_mut().push_back(frame);
    }

    /// Whether everything said has been taken.
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.borrow().is_empty()
    }

    /// Waits until everything said has been taken: the reader asks again only then, so nothing else has to wake us.
    pub(super) async fn taken(&self) {
        poll_fn(|_| if self.is_empty() { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

/// How a script ends.
pub(super) type Ended = Result<(), Broken>;

/// A script and what it has said.
pub struct Script {
    task: Option<Pin<Box<dyn Future<Output = Ended>>>>,
    out: Rc<Outbox>,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").field("out", &self.out).finish_non_exhaustive()
    }
}

impl Script {
    pub(super) fn new(task: impl Future<Output = Ended> + 'static, out: Rc<Outbox>) -> Self {
        Script { task: Some(Box::pin(task)), out }
    }

    /// Runs until the head is there.
    ///
    /// **Errors**: it has ended without one.
    pub(super) async fn opened(&mut self) -> Result<Parts, Broken> {
        poll_fn(|cx| {
            if let Some(task) = &mut self.task
                && let Poll::Ready(ended) = task.as_mut().poll(cx)
            {
                self.task = None;
                ended?;
            }
            match self.out.head.borrow_mut().take() {
                Some(head) => Poll::Ready(Ok(head)),
                None if self.task.is_none() => Poll::Ready(Err(Broken::Unanswered)),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// The next piece.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let next = || self.out.pieces.borrow_mut().pop_front();
        if let Some(frame) = next() {
            return Poll::Ready(Some(Ok(frame)));
        }
        let Some(task) = &mut self.task else { return Poll::Ready(None) };
        let ended = task.as_mut().poll(cx);
        if ended.is_ready() {
            self.task = None;
        }
        let next = self.out.pieces.borrow_mut().pop_front();
        match (next, ended) {
            // An end that is no good one comes first: what is left is worth nothing.
            (_, Poll::Ready(Err(broken))) => Poll::Ready(Some(Err(broken))),
            (Some(frame), _) => Poll::Ready(Some(Ok(frame))),
            (None, Poll::Ready(Ok(()))) => Poll::Ready(None),
            (None, Poll::Pending) => Poll::Pending,
        }
    }

    /// Whether nothing more comes.
    pub(crate) fn is_over(&self) -> bool {
        self.task.is_none() && self.out.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::proxy::body::{Body, Content};

    fn head() -> Parts {
        http::Response::new(()).into_parts().0
    }

    #[tokio::test]
    async fn a_script_runs_no_further_than_its_reader_wants() {
        let out = Rc::new(Outbox::default());
        let steps = Rc::new(std::cell::Cell::new(0));
        let (said, counted) = (out.clone(), steps.clone());
        let task = async move {
            said.open(head());
            for step in 1..=3 {
                said.put(Bytes::from(step.to_string()));
                counted.set(step);
                said.taken().await;
            }
            Ok(())
        };
        let mut script = Script::new(task, out);
        script.opened().await.unwrap();
        assert_eq!(steps.get(), 1);
        let mut body = Body::detached(Content::Script(Box::new(script)));
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "1");
        assert_eq!(steps.get(), 1);
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "2");
        assert_eq!(body.collect().await.unwrap().to_bytes(), "3");
    }

    #[tokio::test]
    async fn a_bad_end_is_no_good_one() {
        let out = Rc::new(Outbox::default());
        let said = out.clone();
        let task = async move {
            said.open(head());
            said.put(Bytes::from_static(b"half"));
            said.taken().await;
            Err(Broken::Drained)
        };
        let mut script = Script::new(task, out);
        script.opened().await.unwrap();
        let mut body = Body::detached(Content::Script(Box::new(script)));
        assert!(body.frame().await.unwrap().is_ok());
        assert!(body.frame().await.unwrap().is_err());
        let silent = Script::new(async { Ok(()) }, Rc::default()).opened().await;
        assert!(silent.is_err(), "no head");
    }
}
