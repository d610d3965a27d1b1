use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::lane::Inflow;

/// A request's body on its way from the client, whoever reads its connection.
#[derive(Debug)]
pub struct ClientBody(Source);

#[derive(Debug)]
enum Source {
    Empty,
    Hyper(Incoming),
    Lane(Inflow),
}

/// Why a request's body broke off.
#[derive(Debug, thiserror::Error)]
pub enum ClientBodyError {
    /// As hyper saw it.
    #[error(transparent)]
    Hyper(#[from] hyper::Error),
    /// The client has left in the middle, or its connection was closed.
    #[error("the connection ended in the middle of the request's body: {0}")]
    Io(#[from] io::Error),
}

impl ClientBody {
    /// No body.
    pub fn empty() -> Self {
        ClientBody(Source::Empty)
    }
}

impl From<Incoming> for ClientBody {
    fn from(body: Incoming) -> Self {
        ClientBody(Source::Hyper(body))
    }
}

impl From<Inflow> for ClientBody {
    fn from(body: Inflow) -> Self {
        ClientBody(Source::Lane(body))
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = ClientBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientBodyError>>> {
        match &mut self.0 {
            Source::Empty => Poll::Ready(None),
            Source::Hyper(body) => Pin::new(body).poll_frame(cx).map_err(ClientBodyError::Hyper),
            Source::Lane(body) => {
                body.poll_piece(cx).map(|piece| piece.map(|piece| piece.map(Frame::data).map_err(ClientBodyError::Io)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Empty => true,
            Source::Hyper(body) => body.is_end_stream(),
            Source::Lane(body) => body.left() == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Empty => SizeHint::with_exact(0),
            Source::Hyper(body) => body.size_hint(),
            Source::Lane(body) => SizeHint::with_exact(body.left()),
        }
    }
}
