//! An answer's body, read from its connection by whoever wants it.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::decode::Piece;
use super::link::{Link, PieceError};
use super::shelf::Shelf;
use super::upload::Broke;
use crate::sweep::Deadline;
use crate::upstream::body::{BodyError, BodyErrorKind};
use crate::upstream::outflow::RequestBody;
use crate::upstream::wire::Flow;

/// How long an upstream that has answered may take nothing of the rest of its request.
const LINGER: Duration = Duration::from_secs(30);

/// The rest of an answer. Dropped before its end it closes the connection, which is how a request is cancelled.
pub(in crate::upstream) struct Reading<B: RequestBody> {
    link: Option<Rc<Link<B>>>,
    shelf: Rc<Shelf<B>>,
}

impl<B: RequestBody> Reading<B> {
    pub(super) fn new(link: Rc<Link<B>>, shelf: Rc<Shelf<B>>) -> Self {
        let sent = link.inner.borrow().upload.is_sent();
        if !sent {
            let task = tokio::task::spawn_local(send_rest(link.clone(), shelf.clone()));
            *link.sender.borrow_mut() = Some(task.abort_handle());
        }
        link.answered.set(false);
        let mut reading = Reading { link: Some(link), shelf };
        reading.finish_if_over();
        reading
    }

    pub(in crate::upstream) fn is_over(&self) -> bool {
        self.link.is_none()
    }

    /// What is still to come, where that is known.
    pub(in crate::upstream) fn left(&self) -> Option<u64> {
        self.link.as_ref().map_or(Some(0), |link| link.inner.borrow().left())
    }

    pub(in crate::upstream) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, BodyError>>> {
        let Some(link) = &self.link else { return Poll::Ready(None) };
        let polled = {
            let inner = &mut *link.inner.borrow_mut();
            if inner.upload.flow == Flow::Broken {
                return Poll::Ready(Some(Err(BodyError { kind: BodyErrorKind::RequestBody, source: None })));
            }
            inner.poll_piece(cx)
        };
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(piece))) => {
                self.finish_if_over();
                Poll::Ready(Some(Ok(piece)))
            }
            Poll::Ready(Some(Err(error))) => {
                let (kind, source) = match error {
                    PieceError::Malformed => (BodyErrorKind::Malformed, None),
                    PieceError::Cut(source) => (BodyErrorKind::Cut, source.map(Into::into)),
                };
                Poll::Ready(Some(Err(BodyError { kind, source })))
            }
        }
    }

    fn finish_if_over(&mut self) {
        if self.link.as_ref().is_some_and(|link| link.inner.borrow().is_over()) {
            self.finish();
        }
    }

    /// All has come: the connection is free for the next request, or will be when the present one has gone out.
    fn finish(&mut self) {
        let Some(link) = self.link.take() else { return };
        link.answered.set(true);
        let sending = link.sender.borrow().is_some();
        if !sending {
            self.shelf.keep(link);
        }
    }
}

impl<B: RequestBody> Drop for Reading<B> {
    fn drop(&mut self) {
        if let Some(link) = &self.link
            && let Some(sender) = link.sender.borrow_mut().take()
        {
            sender.abort();
        }
    }
}

/// Sends the rest of a request whose answer has begun.
async fn send_rest<B: RequestBody>(link: Rc<Link<B>>, shelf: Rc<Shelf<B>>) {
    let clock = shelf.sweep.deadline();
    clock.set_after(Some(LINGER));
    let mut before = link.inner.borrow().upload.progress();
    poll_fn(|cx| poll_rest(cx, &link, &shelf, &clock, &mut before)).await;
    link.sender.borrow_mut().take();
    if link.answered.get() {
        shelf.keep(link);
    }
}

fn poll_rest<B: RequestBody>(
    cx: &mut Context<'_>,
    link: &Link<B>,
    shelf: &Shelf<B>,
    clock: &Deadline,
    before: &mut u64,
) -> Poll<()> {
    let inner = &mut *link.inner.borrow_mut();
    match inner.upload.poll(cx, &mut inner.stream, || shelf.sweep.now()) {
        // A connection that takes nothing more may still have something to say.
        Poll::Ready(Ok(()) | Err(Broke::Connection(_))) => return Poll::Ready(()),
        Poll::Ready(Err(Broke::Body(_))) => {
            inner.wake_reader();
            return Poll::Ready(());
        }
        Poll::Pending => {}
    }
    if !link.answered.get() {
        // While the answer comes, its own clock bounds both ways.
        while clock.poll_expired(cx).is_ready() {
            *before = inner.upload.progress();
            clock.set_after(Some(LINGER));
        }
        return Poll::Pending;
    }
    if inner.poll_noise(cx).is_ready() {
        return Poll::Ready(());
    }
    while clock.poll_expired(cx).is_ready() {
        let progress = inner.upload.progress();
        if progress == std::mem::replace(before, progress) {
            return Poll::Ready(());
        }
        clock.set_after(Some(LINGER));
    }
    Poll::Pending
}
