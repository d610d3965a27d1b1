use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::lane::Inflow;
use crate::types::Lines;

/// A request's body on its way from the client, whoever reads its connection.
#[derive(Debug)]
pub struct ClientBody {
    source: Source,
    lines: Option<Lines>,
}

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
        Source::Empty.into()
    }

    /// Whether all that is left of it has been read from the connection, so that another request can follow it even if nobody takes it.
    pub fn is_here(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            // It does not tell.
            Source::Hyper(body) => body.is_end_stream(),
            Source::Lane(body) => body.is_here(),
        }
    }

    /// The body of a request whose headers are still text.
    pub(super) fn behind(mut self, lines: Lines) -> Self {
        self.lines = Some(lines);
        self
    }

    /// The request's headers, where they are still text: then the request itself has none.
    /// See [`Application::READS_LINES`](super::Application::READS_LINES).
    pub fn take_lines(&mut self) -> Option<Lines> {
        self.lines.take()
    }
}

impl From<Incoming> for ClientBody {
    fn from(body: Incoming) -> Self {
        Source::Hyper(body).into()
    }
}

impl From<Inflow> for ClientBody {
    fn from(body: Inflow) -> Self {
        Source::Lane(body).into()
    }
}

impl From<Source> for ClientBody {
    fn from(source: Source) -> Self {
        ClientBody { source, lines: None }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = ClientBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientBodyError>>> {
        match &mut self.source {
            Source::Empty => Poll::Ready(None),
            Source::Hyper(body) => Pin::new(body).poll_frame(cx).map_err(ClientBodyError::Hyper),
            Source::Lane(body) => {
                body.poll_piece(cx).map(|piece| piece.map(|piece| piece.map(Frame::data).map_err(ClientBodyError::Io)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Hyper(body) => body.is_end_stream(),
            Source::Lane(body) => body.left() == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Hyper(body) => body.size_hint(),
            Source::Lane(body) => SizeHint::with_exact(body.left()),
        }
    }
}
