//! Keeping a client's connection alive while its call waits: for room, for an upstream, for the first byte of the answer.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::script::Outbox;
use http::response::Parts;

use crate::mcp::sse;
use crate::sweep::{Deadline, Sweep};

/// Runs `work`. Where that takes longer than `every`, the answer is opened as an event stream with this head, and gets a comment each time.
/// Without a head only a stream that is open already gets them.
pub(super) async fn hold<T>(
    out: &Outbox,
    sweep: &Rc<Sweep>,
    every: Duration,
    mut head: Option<Parts>,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    let may = head.is_some() || out.is_open();
    let mut clock: Option<Deadline> = None;
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(done);
        }
        if may {
            let clock = clock.get_or_insert_with(|| armed(sweep, every));
            while clock.poll_expired(cx).is_ready() {
                if let Some(head) = head.take() {
                    out.open(head);
                }
                if out.is_empty() {
                    out.put(sse::comment("keepalive"));
                }
                clock.set_after(Some(every));
            }
        }
        Poll::Pending
    })
    .await
}

fn armed(sweep: &Rc<Sweep>, every: Duration) -> Deadline {
    let deadline = sweep.deadline();
    deadline.set_after(Some(every));
    deadline
}
