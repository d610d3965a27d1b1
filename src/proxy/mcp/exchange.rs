//! Sending a message until an upstream that is of use to it has answered.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::response::Parts;
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt;

use super::reply::End;
use super::talk::Talk;
use super::{SESSION, is_events, is_json};
use crate::mcp::answer::{self, outcome};
use crate::mcp::{Era, Place, era};
use crate::proxy::pick::Affinity;
use crate::proxy::request_body::RequestBody;
use crate::proxy::{Refusal, attempt};
use crate::types::Clock;
use crate::upstream::UpstreamBody;

/// An upstream's answer.
pub(super) struct Got {
    /// Its head as it came.
    pub head: Parts,
    /// What of its body has been read already.
    pub read: Bytes,
    /// What comes behind it; none where all of it was read.
    pub rest: Option<UpstreamBody<RequestBody>>,
    /// What was read of it broke off.
    pub broken: bool,
}

/// So much of an answer is read before it is judged.
pub(super) const LOOK: usize = 64 << 10;
/// How soon a call that found nobody looks again.
const AGAIN: Duration = Duration::from_millis(150);
/// JSON-RPC: there is no such method.
const METHOD_NOT_FOUND: i64 = -32601;
/// So often a session is moved for one request.
const MOVES: u32 = 3;

impl Talk {
    /// Sends it, moving its session where that is gone, and waiting where nobody is there.
    pub(super) async fn exchange(&mut self) -> Result<Got, End> {
        let until = self.hold_until();
        let mut moves = 0;
        loop {
            let place = self.session.as_ref().map(|session| session.place());
            if let Some(place) = &place {
                if self.is_to_move(place) {
                    self.recover(place).await?;
                    continue;
                }
                self.address(place)?;
            }
            self.shun();
            let refusal = match self.send().await {
                Ok(got) => match self.judge(got, place.as_deref()).await? {
                    Verdict::Good(got) => return Ok(got),
                    Verdict::Elsewhere => continue,
                    Verdict::Lost => Refusal::NoSession,
                },
                Err(refused) => {
                    let refusal = refused.refusal();
                    if !refusal.is_upstream_gone() {
                        return Err(refused.into());
                    }
                    self.forget_era();
                    let safe = refusal.is_undelivered() || self.errand.exchange.repeatable;
                    if !safe || !self.is_replayable() {
                        return Err(if self.is_call() { Refusal::OutcomeUnknown.into() } else { refused.into() });
                    }
                    if place.is_none() && (!refusal.is_undelivered() || Clock::now() >= until) {
                        return Err(refused.into());
                    }
                    refusal
                }
            };
            self.leave();
            match &place {
                Some(place) if moves < MOVES => {
                    if !self.is_replayable() {
                        return Err(Refusal::OutcomeUnknown.into());
                    }
                    moves += 1;
                    self.recover(place).await?;
                }
                Some(_) => return Err(refusal.into()),
                None if self.belongs_nowhere_else() => return Err(Refusal::NoSession.into()),
                None => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    /// Leaves the upstream that has failed it, so that whoever waits for room, also its own recovery, finds it; the next attempt is a first.
    pub(super) fn leave(&mut self) {
        if let Some(slot) = self.life.slot.take() {
            slot.held_until(Clock::now());
        }
        self.life.attempts = 0;
    }

    /// One attempt after another, as for any request.
    async fn send(&mut self) -> Result<Got, crate::proxy::refuse::Refused> {
        let (view, pool) = self.newest();
        let request_view = self.view.clone();
        let route = &request_view.routes[self.errand.route];
        let sent = attempt::run_in(&mut self.life, view, route, pool, &mut self.errand.exchange).await;
        // However often it is sent, it was asked for once.
        self.errand.exchange.counts = false;
        let (head, body) = sent?.response.into_parts();
        Ok(Got { head, read: Bytes::new(), rest: Some(body), broken: false })
    }

    /// Sends it to where its session is, once.
    pub(super) async fn send_once(&mut self, place: &Place) -> Result<Result<Got, crate::proxy::refuse::Refused>, End> {
        self.address(place)?;
        Ok(self.send().await)
    }

    /// Directs it to where its session is.
    fn address(&mut self, place: &Place) -> Result<(), End> {
        let headers = &mut self.errand.exchange.head.headers;
        if place.id.is_empty() {
            headers.remove(SESSION);
        } else {
            headers.insert(SESSION, HeaderValue::from_str(&place.id).map_err(|_| Refusal::NoSession)?);
        }
        self.errand.exchange.affinity = Affinity::Only(place.upstream);
        Ok(())
    }

    /// Leaves out the upstreams that do not speak its era.
    fn shun(&mut self) {
        let Some(era) = self.asks_for() else { return };
        let (view, pool) = self.newest();
        let now = Clock::now();
        let deaf = view.pools[pool].members.iter().map(|member| &member.upstream);
        let mut deaf: smallvec::SmallVec<[u64; 2]> =
            deaf.filter(|upstream| !upstream.spoken.may_speak(era, now)).map(|upstream| upstream.identity).collect();
        if deaf.len() >= view.pools[pool].members.iter().filter(|member| member.effective_weight > 0.0).count() {
            // Where nobody speaks it somebody may say so.
            deaf.clear();
        }
        self.errand.exchange.shun = deaf;
    }

    /// The era that its upstream has to speak; none where it does not matter.
    fn asks_for(&self) -> Option<Era> {
        let begins = self.message.as_ref().is_some_and(|message| message.begins());
        match self.era {
            Era::Stateless => Some(Era::Stateless),
            Era::Sessions if begins => Some(Era::Sessions),
            Era::Sessions => None,
        }
    }

    /// What is behind the address may be another server by now.
    fn forget_era(&self) {
        if let Some(slot) = &self.life.slot {
            slot.member().upstream.spoken.forget();
        }
    }

    /// Whether all of the message can be sent once more.
    pub(super) fn is_replayable(&self) -> bool {
        self.life.inbound.as_ref().is_none_or(|inbound| inbound.replayable())
    }

    /// Whether somebody waits for what it does.
    fn is_call(&self) -> bool {
        self.message.as_ref().is_some_and(|message| message.wants_answer())
    }

    fn belongs_nowhere_else(&self) -> bool {
        matches!(self.errand.exchange.affinity, Affinity::Only(_))
    }

    /// Whether an answer is one, or says that the session is gone or the era is not spoken.
    async fn judge(&mut self, got: Got, place: Option<&Place>) -> Result<Verdict, End> {
        let status = got.head.status;
        if status.is_success() {
            return Ok(Verdict::Good(got));
        }
        let at_home = place.is_some_and(|place| !place.id.is_empty()) && self.era == Era::Sessions;
        if at_home && status == StatusCode::NOT_FOUND && self.recovers() {
            let got = read(got).await;
            // A method that is not found says nothing of the session.
            let method = outcome(&got.read).is_some_and(|said| said.error_code == Some(METHOD_NOT_FOUND));
            return Ok(if method { Verdict::Good(got) } else { Verdict::Lost });
        }
        let Some(era) = self.asks_for().filter(|_| is_json(&got.head.headers)) else { return Ok(Verdict::Good(got)) };
        let got = read(got).await;
        let Some(said) = outcome(&got.read) else { return Ok(Verdict::Good(got)) };
        if !era::refuses(era, status.as_u16(), said.error_code, &said.supported_versions) {
            return Ok(Verdict::Good(got));
        }
        let Some(upstream) = self.life.slot.as_ref().map(|slot| slot.member().upstream.clone()) else {
            return Ok(Verdict::Good(got));
        };
        let now = Clock::now();
        upstream.spoken.refused(era, now);
        let (view, pool) = self.newest();
        let others = view.pools[pool]
            .members
            .iter()
            .any(|member| member.effective_weight > 0.0 && member.upstream.spoken.may_speak(era, now));
        Ok(if others && self.is_replayable() { Verdict::Elsewhere } else { Verdict::Good(got) })
    }
}

/// What an answer is worth.
#[expect(clippy::large_enum_variant, reason = "it is nearly always the large one, and taken apart at once")]
enum Verdict {
    Good(Got),
    /// Another upstream may be of use to it.
    Elsewhere,
    /// The session is gone.
    Lost,
}

/// Reads an answer's body, as far as it is looked at. One that breaks off stays what was read of it.
pub(super) async fn read(mut got: Got) -> Got {
    let Some(mut body) = got.rest.take() else { return got };
    let mut seen = BytesMut::new();
    loop {
        match body.frame().await {
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                if seen.is_empty() && got.read.is_empty() && http_body::Body::is_end_stream(&body) {
                    got.read = data;
                    return got;
                }
                seen.extend_from_slice(&data);
            }
            Some(Err(_)) => {
                got.broken = true;
                break;
            }
            None => break,
        }
        if seen.len() >= LOOK {
            got.rest = Some(body);
            break;
        }
    }
    got.read = [&got.read[..], &seen[..]].concat().into();
    got
}

/// The one JSON-RPC message of an answer to a request of ours, whether it came as JSON or as an event.
pub(super) async fn only_message(got: Got) -> Option<Bytes> {
    if !is_events(&got.head.headers) {
        return Some(read(got).await.read);
    }
    let mut events = crate::mcp::sse::Events::new(1 << 20);
    let mut body = got.rest?;
    loop {
        while let Some(part) = events.pop() {
            if let crate::mcp::sse::Part::Event(event) = part
                && let Some(data) = event.data
                && outcome(&data).is_some_and(|said: answer::Outcome<'_>| said.method.is_none())
            {
                return Some(data);
            }
        }
        if let Ok(data) = body.frame().await?.ok()?.into_data() {
            events.push(&data);
        }
    }
}
