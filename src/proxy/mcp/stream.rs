//! Passing an event stream on, event by event.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;

use super::talk::Talk;
use crate::mcp::sse::{self, Events, Part};
use crate::proxy::request_body::RequestBody;
use crate::types::{Clock, Moment};
use crate::upstream::UpstreamBody;

/// Longer events are passed on unread, in pieces.
pub(super) const LONGEST: usize = 256 << 10;
/// How often a stream looks whether it should be elsewhere.
const LOOK: Duration = Duration::from_secs(1);

/// Why a stream is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Its upstream has ended it.
    Over,
    /// It broke off.
    Broken,
    /// Its upstream's drain is over, or it is better off elsewhere.
    Moved,
    /// The request has taken too long.
    Late,
}

/// What has come.
enum Step {
    Data(Bytes),
    Tick,
    Stop(Stop),
}

impl Talk {
    /// Passes events on until there are no more. `look` sees the data of each before the client does; `moves`: whether it looks out for a reason
    /// to go elsewhere. An event that breaks off in the middle is not passed on.
    pub(super) async fn pass_events(
        &mut self,
        mut body: UpstreamBody<RequestBody>,
        mut events: Events,
        moves: bool,
        mut look: impl FnMut(&mut Self, &Bytes),
    ) -> Stop {
        let keepalive = self.settings().keepalive;
        let clock = self.life.worker.sweep.deadline();
        let every = keepalive.min(LOOK);
        let mut quiet_since = Clock::now();
        loop {
            if clock.at() == Moment::NEVER {
                clock.set_after(Some(every));
            }
            let step = poll_fn(|cx| {
                if self.life.is_cut() {
                    return Poll::Ready(Step::Stop(Stop::Moved));
                }
                match Pin::new(&mut body).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        return Poll::Ready(frame.into_data().map_or(Step::Tick, Step::Data));
                    }
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(Step::Stop(Stop::Broken)),
                    Poll::Ready(None) => return Poll::Ready(Step::Stop(Stop::Over)),
                    Poll::Pending => {}
                }
                if self.life.poll_late(cx) {
                    return Poll::Ready(Step::Stop(Stop::Late));
                }
                clock.poll_expired(cx).map(|()| Step::Tick)
            })
            .await;
            match step {
                Step::Data(data) => {
                    events.push(&data);
                    while let Some(part) = events.pop() {
                        if let Part::Event(event) = &part
                            && let Some(data) = &event.data
                        {
                            look(self, data);
                        }
                        self.out.put(part.raw().clone());
                    }
                    quiet_since = Clock::now();
                    self.out.taken().await;
                }
                Step::Tick => {
                    clock.set(Moment::NEVER);
                    let now = Clock::now();
                    if now.since(quiet_since) >= keepalive && events.is_between() {
                        quiet_since = now;
                        self.out.put(sse::comment("keepalive"));
                        self.out.taken().await;
                    }
                    if moves && self.session.as_ref().is_some_and(|session| self.is_to_move(&session.place())) {
                        return Stop::Moved;
                    }
                }
                Step::Stop(stop) => return stop,
            }
        }
    }
}
