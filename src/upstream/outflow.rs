use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::wire::{Flow, Wire};

/// The body of a request: any body of `Bytes` that can be moved, also one that cannot leave its thread.
pub trait RequestBody:
    Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + 'static
{
}

impl<B> RequestBody for B where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + 'static
{
}

/// A request's body on its way out; tells the [`Wire`] how far it is.
pub(super) struct Outflow<B> {
    body: B,
    wire: Rc<Wire>,
    /// Bytes still to come, where that is known.
    left: Option<u64>,
}

impl<B: Body> Outflow<B> {
    pub(super) fn new(body: B, wire: Rc<Wire>) -> Self {
        let mut outflow = Outflow { left: body.size_hint().exact(), body, wire };
        outflow.restart();
        outflow
    }

    /// Moves to another connection; only before any of it was taken.
    pub(super) fn attach(&mut self, wire: Rc<Wire>) {
        self.wire = wire;
        self.restart();
    }

    fn restart(&mut self) {
        // Until hyper asks for the body it is the upstream that is waited for.
        self.wire.set_flow(Flow::Sending);
        if self.body.is_end_stream() {
            self.wire.sent();
        }
    }

    fn note(&mut self, frame: &Frame<Bytes>) {
        self.wire.set_flow(Flow::Sending);
        let Some(bytes) = frame.data_ref() else {
            self.wire.sent();
            return;
        };
        self.wire.took(bytes.len());
        self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
        if self.left == Some(0) || self.body.is_end_stream() {
            self.wire.sent();
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Outflow<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => self.note(frame),
            Poll::Ready(Some(Err(_))) => self.wire.set_flow(Flow::Broken),
            Poll::Ready(None) => self.wire.sent(),
            Poll::Pending => self.wire.set_flow(Flow::Starved),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
