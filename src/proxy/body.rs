//! An answer's body on its way to the client, with everything the request holds.
//!
//! The guards leave with the body: the slot at the upstream, the permits of the limits, the place in the counters. They are given back when the last
//! byte has been handed on, or when the client leaves and the body is dropped. An enum, never a boxed trait object.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};

use super::Refusal;
use super::life::Life;
use super::mcp::Script;
use super::request_body::RequestBody;
use crate::telemetry::Fault;
use crate::types::Lines;
use crate::upstream::{BodyError, BodyErrorKind, UpstreamBody};

/// What an answer's body is made of.
#[derive(Debug)]
pub enum Content {
    /// Nothing.
    Empty,
    /// One piece of our own.
    Whole(Bytes),
    /// What the upstream sends, as it comes.
    Upstream(UpstreamBody<RequestBody>),
    /// What a script says; it holds the life of its request itself.
    Script(Box<Script>),
}

/// A body with the life of its request.
#[derive(Debug)]
pub struct Body {
    content: Content,
    life: Option<Box<Life>>,
}

/// The answer broke off: its sender failed, or it was cut at the end of a drain. The client must see a broken message.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The upstream failed in the middle.
    #[error(transparent)]
    Upstream(#[from] BodyError),
    /// The whole request has taken longer than `timeout.request`.
    #[error("longer than the whole request may take")]
    Late,
    /// The upstream's drain has ended.
    #[error("cut at the end of its upstream's drain")]
    Drained,
    /// The request ended without an answer.
    #[error("no answer")]
    Unanswered,
}

impl Body {
    /// The body of `life`'s answer.
    pub fn new(content: Content, mut life: Box<Life>) -> Self {
        let mut body = Body { content, life: None };
        if body.content_ended() {
            life.ended = true;
            drop(life);
        } else {
            body.life = Some(life);
        }
        body
    }

    /// A body that belongs to no request, for answers to requests that never became one.
    pub fn detached(content: Content) -> Self {
        Body { content, life: None }
    }

    /// The answer's headers, where they have stayed text.
    pub(super) fn take_lines(&mut self) -> Option<Lines> {
        match &mut self.content {
            Content::Upstream(body) => body.take_lines(),
            _ => None,
        }
    }

    fn content_ended(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Whole(piece) => piece.is_empty(),
            Content::Upstream(body) => body.is_end_stream(),
            Content::Script(script) => script.is_over(),
        }
    }

    /// The answer broke off: whose fault that is.
    fn end_by(&mut self, kind: BodyErrorKind) {
        let Some(life) = &self.life else { return };
        let (refusal, fault) = match kind {
            BodyErrorKind::Cut => (Refusal::UpstreamClosed, Fault::Reset),
            BodyErrorKind::Malformed => (Refusal::BadResponse, Fault::Malformed),
            BodyErrorKind::IdleTimeout => (Refusal::FirstByteTimeout, Fault::Stalled),
            BodyErrorKind::RequestBody => {
                let fault = life.inbound.as_ref().and_then(|inbound| inbound.fault());
                return self.end(Some(fault.unwrap_or(Refusal::ClientClosed)));
            }
        };
        if let Some(slot) = &life.slot {
            slot.member().upstream.stats.at(life.worker.lane).faults.up(fault);
        }
        self.end(Some(refusal));
    }

    /// The request is over: everything it holds is given back.
    fn end(&mut self, broken: Option<Refusal>) {
        if let Some(mut life) = self.life.take() {
            life.ended = broken.is_none();
            life.broken = broken;
        }
    }
}

/// A HEAD's answer says how long its body would be and has none; 204 and 304 have none either (RFC 9110 §6.4.1).
pub(crate) fn without_body_where_there_is_none(mut response: Response<Content>, head: bool) -> Response<Content> {
    let bodiless = matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if head
        && !bodiless
        && let Content::Whole(body) = response.body()
    {
        let length = HeaderValue::from(body.len());
        response.headers_mut().insert(header::CONTENT_LENGTH, length);
    }
    if bodiless {
        response.headers_mut().remove(header::CONTENT_TYPE);
    }
    if head || bodiless {
        *response.body_mut() = Content::Empty;
    }
    response
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        let polled = match &mut this.content {
            Content::Empty => Poll::Ready(None),
            Content::Whole(piece) => {
                let piece = std::mem::take(piece);
                this.content = Content::Empty;
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Content::Script(script) => return script.poll_frame(cx),
            Content::Upstream(body) => {
                if this.life.as_ref().is_some_and(|life| life.is_cut()) {
                    this.end(Some(Refusal::DrainDeadline));
                    this.content = Content::Empty;
                    return Poll::Ready(Some(Err(Broken::Drained)));
                }
                let polled = Pin::new(&mut *body).poll_frame(cx);
                let late = this.life.as_ref().is_some_and(|life| match &polled {
                    Poll::Pending => life.poll_late(cx),
                    // An answer that flows without a pause is late too, but not with its last piece.
                    Poll::Ready(Some(Ok(_))) => life.is_late() && !body.is_end_stream(),
                    Poll::Ready(_) => false,
                });
                if late {
                    this.end(Some(Refusal::RequestTimeout));
                    this.content = Content::Empty;
                    return Poll::Ready(Some(Err(Broken::Late)));
                }
                polled
            }
        };
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                this.end(None);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(life) = this.life.as_mut() {
                    life.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
                }
                if this.content_ended() {
                    this.end(None);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.end_by(error.kind);
                Poll::Ready(Some(Err(Broken::Upstream(error))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.content_ended()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Whole(piece) => SizeHint::with_exact(piece.len() as u64),
            Content::Upstream(body) => body.size_hint(),
            Content::Script(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heads_answer_says_the_length_and_has_no_body() {
        let whole = || Response::new(Content::Whole(Bytes::from_static(b"hello")));
        let response = without_body_where_there_is_none(whole(), true);
        assert_eq!(response.headers()[header::CONTENT_LENGTH], "5");
        assert!(matches!(response.body(), Content::Empty));
        let mut none = whole();
        *none.status_mut() = StatusCode::NO_CONTENT;
        assert!(matches!(without_body_where_there_is_none(none, false).body(), Content::Empty));
    }
}
