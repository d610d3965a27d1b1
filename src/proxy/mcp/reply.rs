//! Answers of our own, in JSON-RPC's words.
//!
//! A client of the SDKs takes an HTTP error for the end of its session, so what a later call may get over is said with status 200. Where a
//! session begins it is an HTTP error all the same: a client that gets a JSON-RPC error there takes the server for an older one.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode, Version};

use super::talk::Talk;
use super::{EVENTS, JSON};
use crate::mcp::peek::Shape;
use crate::mcp::{INVALID_REQUEST, answer, sse};
use crate::proxy::refusal::Fault;
use crate::proxy::refuse::{Refused, sign};
use crate::proxy::{Refusal, body::Broken};
use crate::telemetry::McpError;

/// How an exchange ends that is not answered by an upstream.
#[derive(Debug)]
pub(super) enum End {
    /// We answer.
    Refused(Box<Reason>),
    /// The answer breaks off.
    Broken(Refusal),
}

/// Why we answer.
#[derive(Debug)]
pub(super) struct Reason {
    pub refused: Refused,
    pub code: i64,
    pub text: Cow<'static, str>,
    pub data: Option<String>,
    /// The answer is to be a tool's result that a model can read.
    pub readable: bool,
}

/// JSON-RPC: an error of ours.
const SERVER_ERROR: i64 = -32000;
/// Session not found, as the SDKs have it.
const NO_SESSION: i64 = -32001;

impl<R: Into<Refused>> From<R> for End {
    fn from(refused: R) -> Self {
        let refused = refused.into();
        let refusal = refused.refusal();
        let text = match (refusal, refused.retry_after()) {
            (Refusal::OutcomeUnknown, _) => {
                "the server went away during the call, so whether it was carried out is not known; look before you try again"
                    .into()
            }
            (Refusal::NoUpstream | Refusal::ConnectFailed, None) => "no server is available at the moment".into(),
            (_, Some(seconds)) => format!("{}; try again in {seconds} s", refusal.row().text).into(),
            (_, None) => refusal.row().text.into(),
        };
        let code = match refusal {
            Refusal::NoSession => NO_SESSION,
            Refusal::BadMessage => INVALID_REQUEST,
            _ => SERVER_ERROR,
        };
        End::Refused(Box::new(Reason { refused, code, text, data: None, readable: false }))
    }
}

impl End {
    /// The message is wrong.
    pub(super) fn bad(code: i64, text: impl Into<Cow<'static, str>>, data: Option<String>) -> Self {
        let refused = Refusal::BadMessage.into();
        End::Refused(Box::new(Reason { refused, code, text: text.into(), data, readable: false }))
    }
}

impl End {
    /// A limit refuses it; `text` says for how long, and `readable` whether that is a tool's result.
    pub(super) fn limited(refusal: Refusal, after: Duration, text: String, readable: bool) -> Self {
        let data = format!(r#"{{"retryAfterSeconds":{}}}"#, after.as_secs_f64().ceil().max(1.0) as u64);
        let refused = Refused::until_room(refusal, Some(after));
        let reason = Reason { refused, code: SERVER_ERROR, text: text.into(), data: Some(data), readable };
        End::Refused(Box::new(reason))
    }
}

impl Talk {
    /// Says it, in whatever way the answer has been begun.
    pub(super) fn refuse(&mut self, reason: &Reason) -> Result<(), Broken> {
        let refusal = reason.refused.refusal();
        let row = refusal.row();
        self.life.refusal = Some(refusal);
        let id = self.message.as_ref().and_then(|message| message.id.as_deref());
        let body = match id.filter(|_| reason.readable) {
            Some(id) => answer::tool_error(id, &reason.text),
            None => answer::error(id, reason.code, &reason.text, reason.data.as_deref()),
        };
        self.ended.set(Some(if id.is_some() && reason.readable {
            McpError::Tool
        } else {
            McpError::Code(reason.code)
        }));
        if self.out.is_open() {
            self.out.put(sse::event(Some("message"), &body, None));
            return Ok(());
        }
        let begins =
            self.message.as_ref().is_none_or(|message| message.begins() || &*message.method == "server/discover");
        let passing = matches!(row.fault, Fault::Limit | Fault::Config | Fault::Upstream | Fault::Proxy);
        let asks = id.is_some() || self.message.as_ref().is_some_and(|message| message.shape == Shape::Batch);
        let status = if passing && asks && !begins { StatusCode::OK } else { refusal.status() };
        self.life.status = Some(status);
        let mut head = Response::new(()).into_parts().0;
        head.status = status;
        head.headers.insert(header::CONTENT_TYPE, JSON);
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        sign(&mut head.headers, row.proxy_status);
        if let Some(seconds) = reason.refused.retry_after() {
            head.headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if row.close && self.life.version <= Version::HTTP_11 {
            head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        self.say(head, body);
        Ok(())
    }

    /// Says a whole answer.
    pub(super) fn say(&self, head: http::response::Parts, body: Bytes) {
        self.open(head);
        self.out.put(body);
    }
}

/// The head of an event stream that we open before there is an answer.
pub(super) fn events_head() -> http::response::Parts {
    let mut head = Response::new(()).into_parts().0;
    head.headers.insert(header::CONTENT_TYPE, EVENTS);
    head.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    head.headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    head
}
