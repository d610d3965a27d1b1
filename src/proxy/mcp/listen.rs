//! `subscriptions/listen`: one stream of the client's, fed by every upstream that can.
//!
//! What changes at one upstream only that one tells. So each upstream that speaks the stateless era is asked the client's own question, with its own
//! id, and what they say is merged, event by event. Upstreams that come are attached, those that go detached; the client notices neither.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::FuturesUnordered;
use http::header;
use http_body::Body as _;

use super::exchange::Got;
use super::is_events;
use super::reply::End;
use super::stream::LONGEST;
use super::talk::Talk;
use crate::health::State;
use crate::mcp::Era;
use crate::mcp::answer::{Outcome, outcome};
use crate::mcp::sse::{self, Events, Part};
use crate::proxy::Refusal;
use crate::proxy::pick::{Affinity, Slot};
use crate::proxy::request_body::RequestBody;
use crate::types::{Clock, Moment};
use crate::upstream::UpstreamBody;

/// How often it is looked who has come and gone.
const LOOK: Duration = Duration::from_millis(400);
/// An upstream that could not be reached is asked again after so long.
const AGAIN: Duration = Duration::from_secs(2);
/// And one that has answered without a stream, as older servers do, after so long.
const NOT_A_STREAM: Duration = Duration::from_secs(15);

/// What each upstream says first.
const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";

/// What one upstream says.
struct Leg {
    upstream: u64,
    slot: Slot,
    body: UpstreamBody<RequestBody>,
    events: Events,
}

/// What came of a piece.
#[derive(Default)]
struct Heard {
    /// Something of it went to the client.
    said: bool,
    /// The upstream has ended its part.
    ended: bool,
}

#[expect(clippy::large_enum_variant, reason = "it is taken apart where it is made")]
enum Step {
    Data(usize, Bytes),
    Gone(usize),
    Attached(u64, Result<Leg, Duration>),
    Tick,
    Late,
}

impl Talk {
    /// Opens the stream and keeps it fed.
    pub(super) async fn listen(&mut self) -> Result<(), End> {
        let got = Box::pin(self.exchange()).await?;
        if !got.head.status.is_success() || !is_events(&got.head.headers) {
            return Box::pin(self.deliver(got)).await;
        }
        let Got { mut head, rest, .. } = got;
        self.dress(&mut head);
        self.open(head);
        let (Some(body), Some(slot)) = (rest, self.life.slot.take()) else { return Ok(()) };
        self.merge(Leg::new(slot, body)).await
    }

    async fn merge(&self, first: Leg) -> Result<(), End> {
        let keepalive = self.settings().keepalive;
        let clock = self.life.worker.sweep.deadline();
        // The others are asked at once.
        clock.set(Moment::START);
        let mut legs = vec![first];
        let mut coming = FuturesUnordered::new();
        // Who is on its way, or was of no use: not to be asked before this moment.
        let mut asked: Vec<(u64, Moment)> = Vec::new();
        let mut acknowledged = false;
        let mut quiet_since = Clock::now();
        let mut alone_since: Option<Moment> = None;
        let mut turn = 0usize;
        loop {
            if clock.at() == Moment::NEVER {
                clock.set_after(Some(LOOK));
            }
            turn = turn.wrapping_add(1);
            let step = poll_fn(|cx| {
                for at in 0..legs.len() {
                    // Nobody who says much keeps the others from being heard.
                    let at = (at + turn) % legs.len();
                    match Pin::new(&mut legs[at].body).poll_frame(cx) {
                        Poll::Ready(Some(Ok(frame))) => {
                            return Poll::Ready(frame.into_data().map_or(Step::Tick, |data| Step::Data(at, data)));
                        }
                        Poll::Ready(_) => return Poll::Ready(Step::Gone(at)),
                        Poll::Pending => {}
                    }
                }
                if let Poll::Ready(Some((upstream, leg))) = Pin::new(&mut coming).poll_next(cx) {
                    return Poll::Ready(Step::Attached(upstream, leg));
                }
                if self.life.poll_late(cx) {
                    return Poll::Ready(Step::Late);
                }
                clock.poll_expired(cx).map(|()| Step::Tick)
            })
            .await;
            let now = Clock::now();
            match step {
                Step::Data(at, data) => {
                    let heard = self.hear(&mut legs[at], &data, &mut acknowledged);
                    if heard.said {
                        quiet_since = now;
                    }
                    self.out.taken().await;
                    if heard.ended {
                        self.lose(&mut legs, at, &mut asked, now);
                    }
                }
                Step::Gone(at) => self.lose(&mut legs, at, &mut asked, now),
                Step::Attached(upstream, leg) => {
                    asked.retain(|(known, _)| *known != upstream);
                    match leg {
                        Ok(leg) => legs.push(leg),
                        Err(pause) => asked.push((upstream, now + pause)),
                    }
                }
                Step::Late => return Err(End::Broken(Refusal::RequestTimeout)),
                Step::Tick => {
                    clock.set(Moment::NEVER);
                    legs.retain(|leg| !self.leaves(leg.upstream));
                    let speakers = self.speakers();
                    // Who has been away may be another one now.
                    asked.retain(|(known, until)| *until == Moment::NEVER || *until > now && speakers.contains(known));
                    for upstream in speakers {
                        let known = legs.iter().any(|leg| leg.upstream == upstream)
                            || asked.iter().any(|(known, _)| *known == upstream);
                        if !known {
                            // Once, however long it takes to answer.
                            asked.push((upstream, Moment::NEVER));
                            coming.push(async move { (upstream, self.attach(upstream).await) });
                        }
                    }
                    if now.since(quiet_since) >= keepalive && legs.iter().all(|leg| leg.events.is_between()) {
                        quiet_since = now;
                        self.out.put(sse::comment("keepalive"));
                        self.out.taken().await;
                    }
                }
            }
            match (legs.is_empty(), alone_since) {
                (false, _) => alone_since = None,
                (true, None) => alone_since = Some(now),
                // Nobody is left to say anything: the client shall ask again.
                (true, Some(since)) if now.since(since) > self.hold_until().since(self.life.started) => return Ok(()),
                (true, Some(_)) => {}
            }
        }
    }

    /// Passes on what an upstream says. Each acknowledges, and each may end its own part: to the client it is one stream.
    fn hear(&self, leg: &mut Leg, data: &[u8], acknowledged: &mut bool) -> Heard {
        let mut heard = Heard::default();
        leg.events.push(data);
        while let Some(part) = leg.events.pop() {
            let said = match &part {
                Part::Event(event) if event.data.is_none() => continue,
                Part::Event(event) => event.data.as_ref().and_then(|data| outcome(data)),
                Part::Passed(_) => None,
            };
            said.iter().for_each(|said| self.heed(said));
            heard.ended |= said.as_ref().is_some_and(Outcome::is_response);
            let is_ack = said.as_ref().is_some_and(|said| said.method.as_deref() == Some(ACKNOWLEDGED));
            let again = is_ack && std::mem::replace(acknowledged, true);
            if !heard.ended && !again {
                self.out.put(part.raw().clone());
                heard.said = true;
            }
        }
        heard
    }

    /// An upstream has ended its part, which is no reason to ask it again at once.
    fn lose(&self, legs: &mut Vec<Leg>, at: usize, asked: &mut Vec<(u64, Moment)>, now: Moment) {
        let leg = legs.swap_remove(at);
        asked.push((leg.upstream, now + LOOK));
    }

    /// The upstreams that can be listened to.
    fn speakers(&self) -> Vec<u64> {
        let (view, pool) = self.newest();
        let now = Clock::now();
        let fit = view.pools[pool]
            .members
            .iter()
            .filter(|member| member.effective_weight > 0.0 && member.upstream.spoken.may_speak(Era::Stateless, now));
        fit.map(|member| member.upstream.identity).collect()
    }

    /// Whether an upstream is on its way out, or gone.
    fn leaves(&self, upstream: u64) -> bool {
        let (view, pool) = self.newest();
        let pool = &view.pools[pool];
        pool.by_identity.get(&upstream).is_none_or(|index| {
            let member = &pool.members[*index as usize];
            member.leaving || member.upstream.is_cut() || matches!(member.state, State::Draining | State::Drained)
        })
    }

    /// Asks one more upstream.
    ///
    /// **Errors**: how long it is to be left in peace.
    async fn attach(&self, upstream: u64) -> Result<Leg, Duration> {
        let mut slot = self.place_at(&self.newest(), Affinity::Only(upstream), &[]).map_err(|_| AGAIN)?;
        let mut headers = self.headers().clone();
        headers.remove(header::CONTENT_LENGTH);
        let body = self.message.as_ref().ok_or(AGAIN)?.body.clone();
        let got = self.ask(&mut slot, &http::Method::POST, headers, body).await.map_err(|_| AGAIN)?;
        let streams = got.head.status.is_success() && is_events(&got.head.headers);
        let body = got.rest.filter(|_| streams).ok_or(NOT_A_STREAM)?;
        Ok(Leg::new(slot, body))
    }
}

impl Leg {
    fn new(mut slot: Slot, body: UpstreamBody<RequestBody>) -> Self {
        slot.becomes_stream();
        Leg { upstream: slot.member().upstream.identity, slot, body, events: Events::new(LONGEST) }
    }
}

impl Drop for Leg {
    fn drop(&mut self) {
        self.slot.held_until(Clock::now());
    }
}
