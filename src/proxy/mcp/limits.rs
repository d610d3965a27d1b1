//! Limits of what clients may ask, and what is counted of it.

use std::time::Duration;

use bytes::Bytes;
use http::header;
use smallvec::SmallVec;

use super::message::Message;
use super::reply::End;
use super::talk::{Talk, unreadable};
use super::{claims, is_json};
use crate::limit::{Admission, ClientKey, Decision, Limiter, Reason, admit_keys};
use crate::mcp;
use crate::mcp::limits::Limit;
use crate::mcp::peek::{Malformed, Shape};
use crate::proxy::Refusal;
use crate::telemetry::{McpError, method_number};
use crate::types::Clock;

/// How soon one that waits for another to end looks again.
const AGAIN: Duration = Duration::from_millis(50);

/// A limit that has a say, and what it counts.
type Asked<'a> = (&'a Limit, ClientKey, Option<&'a str>);

impl Talk {
    /// The message: what of it was read ahead, and all of it where limits have to know what comes behind that. None where it is none: a
    /// document, or a question about something else than the protocol.
    pub(super) async fn read_message(&self) -> Result<Option<Message>, End> {
        let Some(inbound) = &self.life.inbound else { return self.readable(Message::read(&Bytes::new(), true)) };
        if self.headers().get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return Err(End::bad(mcp::INVALID_REQUEST, "the message is compressed; send it as it is", None));
        }
        let (bytes, whole) = inbound.gather().await?;
        let Some(mut message) = self.readable(Message::read(&bytes, whole))? else { return Ok(None) };
        if message.is_unclear() && !self.pool().limits.is_empty() {
            drop(bytes);
            inbound.gather_all();
            let (bytes, whole) = inbound.gather().await?;
            message = Message::read(&bytes, whole).map_err(unreadable)?;
            if message.is_unclear() {
                return Err(Refusal::BodyTooLarge.into());
            }
        }
        if !message.whole {
            inbound.follow();
        }
        Ok(Some(message))
    }

    /// What cannot be read is refused where it says that it is a message, or might be taken for one behind our back.
    fn readable(&self, read: Result<Message, Malformed>) -> Result<Option<Message>, End> {
        let headers = self.headers();
        match read {
            Ok(message) => Ok(Some(message)),
            Err(malformed) if claims(headers, self.errand.exchange.target.query()) => Err(unreadable(malformed)),
            Err(Malformed::NotAMessage | Malformed::Empty) => Ok(None),
            Err(malformed) if is_json(headers) && !self.pool().limits.is_empty() => Err(unreadable(malformed)),
            Err(_) => Ok(None),
        }
    }

    /// Asks the pool's limits. What begins a conversation waits for its turn, as long as a call waits for room; others are told to.
    pub(super) async fn admit(&mut self) -> Result<(), End> {
        let view = self.view.clone();
        let limits = &view.pools[self.errand.pool].limits;
        let Some(message) = self.message.as_ref().filter(|_| !limits.is_empty()) else { return Ok(()) };
        let talk = &*self;
        let asked: SmallVec<[Asked<'_>; 4]> = message
            .asks()
            .flat_map(|(method, name)| {
                let tool = name.filter(|_| method == "tools/call");
                let counting = limits.iter().filter(move |limit| limit.counts(method, tool));
                counting.map(move |limit| (limit, talk.key(limit, tool), tool))
            })
            .collect();
        if asked.is_empty() {
            return Ok(());
        }
        let keys: SmallVec<[(&Limiter, ClientKey); 4]> =
            asked.iter().map(|(limit, key, _)| (&*limit.limiter, *key)).collect();
        let patient = message.begins() || &*message.method == "server/discover";
        let (lane, until) = (self.life.worker.lane, self.hold_until());
        let mut waited = false;
        loop {
            let now = Clock::now();
            let mut decided: SmallVec<[(usize, Decision); 4]> = SmallVec::new();
            let admission =
                admit_keys(&keys, &self.life.connection.state.seats, now, |at, what| decided.push((at, what)));
            let left = until.since(now);
            if let Admission::Refuse(refusal) = &admission
                && patient
                && !left.is_zero()
            {
                let wait = if refusal.reason == Reason::Rate { refusal.retry_after } else { AGAIN };
                if refusal.reason != Reason::Rate || wait <= left {
                    waited = true;
                    tokio::time::sleep(wait.min(left)).await;
                    continue;
                }
            }
            for (at, decision) in decided {
                let decision = if waited && decision == Decision::Admitted { Decision::Delayed } else { decision };
                asked[at].0.stats.at(lane).decided(decision);
            }
            match admission {
                Admission::Proceed(permit, _) | Admission::Wait(_, permit, _) => {
                    self.life.permit.join(permit);
                    return Ok(());
                }
                Admission::Refuse(refusal) => {
                    let (limit, _, tool) = asked[refusal.limiter];
                    let rate = refusal.reason == Reason::Rate;
                    let label = if rate { Refusal::RateLimited } else { Refusal::RequestsLimited };
                    let readable = &*message.method == "tools/call";
                    return Err(End::limited(label, refusal.retry_after, limit.words(&refusal, tool), readable));
                }
            }
        }
    }

    fn key(&self, limit: &Limit, tool: Option<&str>) -> ClientKey {
        let client = limit.limiter.rule().per.key(self.life.client, self.headers(), self.life.principal());
        match tool.filter(|_| limit.is_by_tool()) {
            Some(tool) => client.with(tool.as_bytes()),
            None => client,
        }
    }

    /// Counts it, when it is over.
    fn count(&self) {
        let Some(message) = self.message.as_ref().filter(|message| message.shape == Shape::Request) else { return };
        let stats = &self.pool().kept.stats;
        let failed = self.life.status.is_some_and(|status| status.is_client_error() || status.is_server_error());
        let error = match self.ended.get() {
            Some(ended) => ended,
            None if failed => McpError::Http,
            None if self.life.ended => McpError::None,
            None => McpError::Cancelled,
        };
        let method = method_number(&message.method);
        let tool = (&*message.method == "tools/call").then(|| {
            let tool = message.name.as_deref().unwrap_or_default();
            stats.control.mcp().tools.load().number(tool)
        });
        let span = Clock::now().since(self.life.started);
        stats.at(self.life.worker.lane).mcp().ended(method, tool, error, span);
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.count();
    }
}
