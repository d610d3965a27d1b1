//! Bodies of answers: a message, or events.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Frame, SizeHint};

use super::call::Call;
use super::queue::Queue;
use super::session::Held;

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Body {
    Whole(Option<Bytes>),
    /// Ends with the answer to a request; dropped earlier, the client has left.
    Answers {
        first: Option<Bytes>,
        call: Call,
    },
    /// A session's own stream.
    Streams {
        queue: Rc<Queue>,
        held: Held,
    },
}

impl From<Bytes> for Body {
    fn from(text: Bytes) -> Body {
        Body::Whole(Some(text).filter(|text| !text.is_empty()))
    }
}

impl Body {
    pub(super) fn answers(first: Option<Bytes>, call: Call) -> Body {
        Body::Answers { first, call }
    }

    /// One message, as the only event.
    pub(super) fn event(message: &Bytes) -> Body {
        Body::Whole(Some(event(message)))
    }

    pub(super) fn streams(queue: Rc<Queue>, held: Held) -> Body {
        Body::Streams { queue, held }
    }

    /// The message, where it is only one.
    pub(super) fn whole(&self) -> Option<&Bytes> {
        match self {
            Body::Whole(text) => text.as_ref(),
            _ => None,
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let message = match &mut *self {
            Body::Whole(text) => return Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Body::Answers { first: first @ Some(_), .. } => first.take(),
            Body::Answers { call, .. } => ready!(call.exchange.queue.poll(cx)),
            Body::Streams { queue, .. } => ready!(queue.poll(cx)),
        };
        Poll::Ready(message.map(|message| Ok(Frame::data(event(&message)))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            _ => SizeHint::default(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Body::Streams { queue, held } = self {
            let mut stream = held.0.stream.borrow_mut();
            if stream.as_ref().is_some_and(|other| Rc::ptr_eq(other, queue)) {
                *stream = None;
            }
        }
    }
}

/// A message is one line, and so is its event's data.
fn event(message: &Bytes) -> Bytes {
    const BEFORE: &[u8] = b"event: message\ndata: ";
    let mut event = BytesMut::with_capacity(BEFORE.len() + message.len() + 2);
    event.put_slice(BEFORE);
    event.put_slice(message);
    event.put_slice(b"\n\n");
    event.freeze()
}
