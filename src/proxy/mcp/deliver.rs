//! Passing an answer on, and what is learned from it.

use http::header::HeaderValue;
use http::response::Parts;
use http::{StatusCode, Version};
use http_body_util::BodyExt;
use ring::rand::{SecureRandom, SystemRandom};

use super::exchange::{Got, read};
use super::reply::End;
use super::stream::{LONGEST, Stop};
use super::talk::{Talk, state_key, task_key, unix_now};
use super::{SESSION, is_events, is_json};
use crate::mcp::answer::{Outcome, outcome, tool_names};
use crate::mcp::sse::{self, Events};
use crate::mcp::{Era, Session, Soft};
use crate::proxy::Refusal;
use crate::proxy::normalize::strip;
use crate::proxy::respond;
use crate::snapshot::McpKept;
use crate::telemetry::McpError;
use crate::types::Clock;

impl Talk {
    /// Makes an upstream's head fit for the client.
    pub(super) fn dress(&mut self, head: &mut Parts) {
        let Talk { life, errand, view, .. } = self;
        life.upstream_status = head.status.as_u16();
        // What broke an earlier attempt is history: this one was answered.
        life.refusal = None;
        life.status = Some(head.status);
        head.version = Version::HTTP_11;
        // What an upstream nominates in `Connection` is its own affair; nothing of it can smuggle a request.
        let _ = strip(&mut head.headers, true);
        respond::edit(life, &view.routes[errand.route], &errand.exchange.head.headers, &errand.named, head);
    }

    /// Passes an answer on.
    pub(super) async fn deliver(&mut self, mut got: Got) -> Result<(), End> {
        if is_events(&got.head.headers) && got.rest.is_some() {
            return Box::pin(self.deliver_events(got)).await;
        }
        if got.rest.is_some() && (self.out.is_open() || is_json(&got.head.headers)) {
            got = read(got).await;
        }
        if got.broken {
            return Err(Refusal::OutcomeUnknown.into());
        }
        if self.out.is_open() {
            return self.deliver_late(got).await;
        }
        self.dress(&mut got.head);
        let Got { mut head, read, rest, .. } = got;
        let said = outcome(&read);
        self.learn(said.as_ref(), &read);
        self.seal(&mut head, said.as_ref());
        if rest.is_none() && head.status == StatusCode::OK {
            self.keep_list(&read);
        }
        self.open(head);
        self.out.put(read);
        let Some(mut rest) = rest else { return Ok(()) };
        // Longer than anybody looks: it passes as it comes.
        loop {
            self.out.taken().await;
            let frame = std::future::poll_fn(|cx| {
                if self.life.is_cut() {
                    return std::task::Poll::Ready(Err(Refusal::DrainDeadline));
                }
                match std::pin::pin!(rest.frame()).poll(cx) {
                    std::task::Poll::Pending if self.life.poll_late(cx) => {
                        std::task::Poll::Ready(Err(Refusal::RequestTimeout))
                    }
                    std::task::Poll::Pending => std::task::Poll::Pending,
                    std::task::Poll::Ready(None) => std::task::Poll::Ready(Ok(None)),
                    std::task::Poll::Ready(Some(frame)) => {
                        std::task::Poll::Ready(frame.map(Some).map_err(|_| Refusal::UpstreamClosed))
                    }
                }
            })
            .await
            .map_err(End::Broken)?;
            let Some(frame) = frame else { return Ok(()) };
            self.out.put_frame(frame);
            if http_body::Body::is_end_stream(&rest) {
                return Ok(());
            }
        }
    }

    /// The client has an event stream already, because the answer has taken long: it becomes an event.
    async fn deliver_late(&mut self, got: Got) -> Result<(), End> {
        self.life.upstream_status = got.head.status.as_u16();
        self.life.refusal = None;
        self.life.status = Some(StatusCode::OK);
        let mut body = got.read.to_vec();
        if let Some(rest) = got.rest {
            let rest = rest.collect().await.map_err(|_| Refusal::OutcomeUnknown)?;
            body.extend_from_slice(&rest.to_bytes());
        }
        let said = outcome(&body);
        let is_answer = said.as_ref().is_some_and(Outcome::is_response);
        self.learn(said.as_ref(), &body);
        if !is_answer {
            let text = format!("the server has answered {} without a message", got.head.status);
            return Err(End::bad(-32603, text, None));
        }
        self.out.put(sse::event(Some("message"), &body, None));
        Ok(())
    }

    async fn deliver_events(&mut self, got: Got) -> Result<(), End> {
        let Got { mut head, rest, .. } = got;
        if self.out.is_open() {
            self.life.upstream_status = head.status.as_u16();
            self.life.refusal = None;
            self.life.status = Some(StatusCode::OK);
        } else {
            self.dress(&mut head);
            self.seal(&mut head, None);
            self.open(head);
        }
        let Some(body) = rest else { return Ok(()) };
        let answered = std::cell::Cell::new(!self.message.as_ref().is_some_and(|message| message.wants_answer()));
        let stop = self
            .pass_events(body, Events::new(LONGEST), false, |talk, data| {
                let said = outcome(data);
                said.iter().for_each(|said| talk.heed(said));
                if said.as_ref().is_some_and(Outcome::is_response) {
                    talk.learn(said.as_ref(), data);
                    answered.set(true);
                }
            })
            .await;
        match stop {
            Stop::Over => Ok(()),
            Stop::Late => Err(End::Broken(Refusal::RequestTimeout)),
            // Nobody waits for anything more.
            _ if answered.get() => Ok(()),
            _ => Err(Refusal::OutcomeUnknown.into()),
        }
    }

    /// A session has begun: its client gets an id that says where it is.
    fn seal(&self, head: &mut Parts, said: Option<&Outcome<'_>>) {
        let (Some(message), Some(id)) = (&self.message, head.headers.get(SESSION)) else { return };
        if !message.begins() || self.era != Era::Sessions {
            // A server repeats the id; the client knows it by another.
            match &self.sealed {
                Some(sealed) => drop(head.headers.insert(SESSION, sealed.clone())),
                None => drop(head.headers.remove(SESSION)),
            }
            return;
        }
        let Some(upstream) = self.life.slot.as_ref().map(|slot| slot.member().upstream.identity) else { return };
        let agreed = said.and_then(|said| said.protocol_version.as_deref());
        let params = message.params.as_ref().and_then(|params| std::str::from_utf8(params).ok()).unwrap_or_default();
        let session = Session {
            upstream,
            id: id.to_str().unwrap_or_default().into(),
            version: agreed.or(message.version.as_deref()).unwrap_or_default().into(),
            params: params.into(),
            born: unix_now(),
        };
        let sealed = self.view.keys.seal(&session, &self.bound(), nonce());
        let Some(sealed) = sealed.and_then(|sealed| HeaderValue::from_str(&sealed).ok()) else { return };
        let max = self.view.config.mcp.max_sessions as usize;
        drop(self.kept().sessions.open(sealed.as_bytes(), || Some(session), max, Clock::now()));
        head.headers.insert(SESSION, sealed);
    }

    /// Keeps what an answer says about later requests.
    pub(super) fn learn(&self, said: Option<&Outcome<'_>>, text: &[u8]) {
        let Some(said) = said else { return };
        if said.is_response() {
            self.ended.set(Some(match said.error_code {
                Some(code) => McpError::Code(code),
                None if said.is_error => McpError::Tool,
                None => McpError::None,
            }));
        }
        if said.error_code.is_none() && self.message.as_ref().is_some_and(|message| &*message.method == "tools/list") {
            let tools: Vec<_> = tool_names(text).collect();
            self.pool().kept.stats.control.mcp().listed(&tools);
        }
        let now = Clock::now();
        if let Some(upstream) = self.life.slot.as_ref().map(|slot| slot.member().upstream.identity) {
            let keys = [said.request_state.as_deref().map(state_key), said.task_id.as_deref().map(task_key)];
            for key in keys.into_iter().flatten() {
                self.kept().affinity.learn(key.as_bytes(), upstream, McpKept::STATES, now);
            }
        }
        if said.error_code.is_none() {
            self.keep_setting();
        }
    }

    /// Keeps what a session has set, so that it can be set again elsewhere.
    fn keep_setting(&self) {
        let (Some(live), Some(message)) = (self.live(), &self.message) else { return };
        let Some(params) = message.params.clone() else { return };
        let about = message.name.as_deref().unwrap_or_default();
        match &*message.method {
            "logging/setLevel" => live.keep(Soft { key: "level".into(), method: "logging/setLevel", params }),
            "resources/subscribe" => live.keep(Soft { key: about.into(), method: "resources/subscribe", params }),
            "resources/unsubscribe" => live.unset(about),
            _ => {}
        }
    }
}

/// A nonce that nobody has drawn before.
///
/// **Panics**: where the system has no randomness.
pub(super) fn nonce() -> [u8; 12] {
    let mut nonce = [0; 12];
    SystemRandom::new().fill(&mut nonce).expect("the system's randomness");
    nonce
}
