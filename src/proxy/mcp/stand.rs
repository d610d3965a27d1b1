//! The standing GET stream of a session, and the session's end.
//!
//! The stream is the proxy's: its upstream can change between two events, and the client does not notice.

use std::time::Duration;

use http::{Response, StatusCode};

use super::exchange::Got;
use super::reply::End;
use super::stream::{LONGEST, Stop};
use super::talk::Talk;
use super::{LAST_EVENT, is_events};
use crate::mcp::answer::outcome;
use crate::mcp::sse::Events;
use crate::mcp::{Era, Live};
use crate::proxy::Refusal;
use crate::proxy::refusal::Fault;
use crate::types::Clock;

/// A stream that ends sooner than this is not opened again: its upstream does not want one.
const SHORT: Duration = Duration::from_secs(1);

impl Talk {
    /// Opens the stream and keeps it open.
    pub(super) async fn stand(&mut self) -> Result<(), End> {
        self.errand.exchange.repeatable = true;
        if self.era == Era::Sessions {
            self.find_session()?;
            if self.session.is_none() {
                return Box::pin(self.first_transport()).await;
            }
        }
        loop {
            if self.out.is_open() && self.live().is_some_and(Live::is_ended) {
                return Ok(());
            }
            let got = Box::pin(self.exchange()).await?;
            if self.session.is_none() || !got.head.status.is_success() || !is_events(&got.head.headers) {
                return match self.out.is_open() {
                    // What it had was a stream, and there is none to be had any more: it ends, and the client may ask again.
                    true => Ok(()),
                    false => Box::pin(self.deliver(got)).await,
                };
            }
            let opened = Clock::now();
            let Got { mut head, rest, .. } = got;
            if let Some(slot) = &mut self.life.slot {
                slot.becomes_stream();
            }
            if !self.out.is_open() {
                self.dress(&mut head);
                self.open(head);
            }
            let Some(body) = rest else { return Ok(()) };
            let stop = self
                .pass_events(body, Events::new(LONGEST), true, |talk, data| {
                    outcome(data).iter().for_each(|said| talk.heed(said))
                })
                .await;
            match stop {
                Stop::Late => return Err(End::Broken(Refusal::RequestTimeout)),
                // A server that ends a stream soon, or one whose events can be asked for again, has its reasons.
                Stop::Over if Clock::now().since(opened) < SHORT => return Ok(()),
                _ => {}
            }
            // What it was last told by one upstream means nothing to another.
            self.errand.exchange.head.headers.remove(LAST_EVENT);
            self.life.attempts = 0;
        }
    }

    /// Ends the session at its upstream; where that is gone it has ended already.
    pub(super) async fn end_session(&mut self) -> Result<(), End> {
        self.find_session()?;
        let Some(session) = self.session.as_ref().map(|session| session.0.clone()) else {
            return Err(Refusal::NoSession.into());
        };
        // Before its server ends it, so that nobody who notices begins it again.
        session.set_ended(true);
        let sent = self.send_once(&session.place()).await?;
        match sent {
            Ok(got) if got.head.status == StatusCode::METHOD_NOT_ALLOWED => {
                // It does not let clients end sessions.
                session.set_ended(false);
                Box::pin(self.deliver(got)).await
            }
            Ok(got) => Box::pin(self.deliver(got)).await,
            Err(refused) => {
                let refusal = refused.refusal();
                let gone = refusal.row().fault == Fault::Upstream
                    || matches!(refusal, Refusal::NoUpstream | Refusal::DrainDeadline);
                if !gone {
                    return Err(refused.into());
                }
                let mut head = Response::new(()).into_parts().0;
                head.status = StatusCode::NO_CONTENT;
                self.life.status = Some(head.status);
                self.life.refusal = None;
                self.open(head);
                Ok(())
            }
        }
    }
}
