//! A request on its way out: its head, then its body as it comes.

use std::cell::Cell;
use std::error::Error;
use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::TRAILER;
use http::{HeaderMap, HeaderValue};
use tokio::io::AsyncWrite;

use super::request::{Framing, write_head};
use crate::types::Moment;
use crate::upstream::connections::Outgoing;
use crate::upstream::outflow::RequestBody;
use crate::upstream::wire::Flow;

thread_local! {
    /// Where heads are put together. It goes out with the request and comes back, so that no connection keeps one.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What is still to be sent of a request.
pub(super) struct Upload<B> {
    /// The rest of the body; nothing once all of it has been taken.
    body: Option<B>,
    framing: Framing,
    /// Goes out in this order: framing, a piece of the body, framing.
    head: Vec<u8>,
    start: usize,
    piece: Bytes,
    tail: &'static [u8],
    /// The names of the trailers that may go out, as the request says.
    trailer: Option<HeaderValue>,
    pub(super) flow: Flow,
    /// Bytes that the upstream's socket has taken, and that we have taken of the body.
    pub(super) written: u64,
    taken: u64,
    unflushed: bool,
}

/// Why a request does not go out.
pub(super) enum Broke {
    /// Its body failed: the client's side.
    Body(Box<dyn Error + Send + Sync>),
    /// The connection did.
    Connection(io::Error),
}

const END: &[u8] = b"0\r\n\r\n";

impl<B: RequestBody> Upload<B> {
    /// Nothing to be sent.
    pub(super) fn none() -> Self {
        Upload {
            body: None,
            framing: Framing::Sized(0),
            head: Vec::new(),
            start: 0,
            piece: Bytes::new(),
            tail: b"",
            trailer: None,
            flow: Flow::Sending,
            written: 0,
            taken: 0,
            unflushed: false,
        }
    }

    /// The whole of a request.
    pub(super) fn new(outgoing: &Outgoing<'_>, body: B) -> Self {
        let ended = body.is_end_stream();
        let framing = Framing::of(outgoing.headers, if ended { Some(0) } else { body.size_hint().exact() });
        let mut head = SCRATCH.take();
        write_head(&mut head, outgoing, framing);
        let trailer = match framing {
            Framing::Chunked => outgoing.headers.get(TRAILER).cloned(),
            Framing::Sized(_) => None,
        };
        let mut upload = Upload::none();
        upload.body = (!ended).then_some(body);
        upload.framing = framing;
        upload.head = head;
        upload.trailer = trailer;
        upload
    }

    /// Grows with everything the upstream takes.
    pub(super) fn progress(&self) -> u64 {
        self.written + self.taken
    }

    pub(super) fn is_sent(&self) -> bool {
        matches!(self.flow, Flow::Sent(_))
    }

    /// Sends as much as there is and as the upstream takes; `Ready` once all of it has been taken, as of `now`.
    pub(super) fn poll<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        now: impl Fn() -> Moment,
    ) -> Poll<Result<(), Broke>> {
        loop {
            self.flow = Flow::Sending;
            // Before anything is written: the head and what is there of the body go out together.
            let mut starved = false;
            if self.piece.is_empty() && self.tail.is_empty() && self.body.is_some() {
                match self.poll_body(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => {
                        self.flow = Flow::Broken;
                        return Poll::Ready(Err(Broke::Body(error)));
                    }
                    Poll::Pending => starved = true,
                }
            }
            ready!(self.poll_write(cx, stream))?;
            if starved {
                self.flow = Flow::Starved;
                ready!(self.poll_flush(cx, stream))?;
                return Poll::Pending;
            }
            if self.body.is_none() {
                ready!(self.poll_flush(cx, stream))?;
                self.flow = Flow::Sent(now());
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Writes what waits.
    fn poll_write<S: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, stream: &mut S) -> Poll<Result<(), Broke>> {
        loop {
            let head = &self.head[self.start..];
            let written = match (head.is_empty(), self.piece.is_empty() && self.tail.is_empty()) {
                (true, true) => return Poll::Ready(Ok(())),
                (false, true) => Pin::new(&mut *stream).poll_write(cx, head),
                _ => {
                    let pieces = [IoSlice::new(head), IoSlice::new(&self.piece), IoSlice::new(self.tail)];
                    Pin::new(&mut *stream).poll_write_vectored(cx, &pieces)
                }
            };
            match ready!(written) {
                Ok(0) => return Poll::Ready(Err(Broke::Connection(io::ErrorKind::WriteZero.into()))),
                Ok(written) => self.wrote(written),
                Err(error) => return Poll::Ready(Err(Broke::Connection(error))),
            }
        }
    }

    fn wrote(&mut self, mut bytes: usize) {
        self.written += bytes as u64;
        self.unflushed = true;
        let of_head = bytes.min(self.head.len() - self.start);
        self.start += of_head;
        bytes -= of_head;
        if self.start == self.head.len() && self.start > 0 {
            self.start = 0;
            self.head.clear();
            SCRATCH.set(std::mem::take(&mut self.head));
        }
        let of_piece = bytes.min(self.piece.len());
        self.piece.advance(of_piece);
        self.tail = &self.tail[bytes - of_piece..];
    }

    fn poll_flush<S: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, stream: &mut S) -> Poll<Result<(), Broke>> {
        if self.unflushed {
            ready!(Pin::new(stream).poll_flush(cx)).map_err(Broke::Connection)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Takes the next piece of the body.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Box<dyn Error + Send + Sync>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
        let frame = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            Some(frame) => Some(frame.map_err(Into::into)?),
            None => None,
        };
        let ends = frame.is_none() || body.is_end_stream();
        match (frame.map(http_body::Frame::into_data), &mut self.framing) {
            (None, Framing::Sized(0)) => self.body = None,
            (None, Framing::Sized(left)) => return Poll::Ready(Err(format!("{left} bytes short").into())),
            (None, Framing::Chunked) => self.end_with(END),
            (Some(Ok(piece)), Framing::Sized(left)) => {
                self.taken += piece.len() as u64;
                *left = match left.checked_sub(piece.len() as u64) {
                    Some(left) => left,
                    None => return Poll::Ready(Err("longer than announced".into())),
                };
                self.piece = piece;
                if *left == 0 {
                    self.body = None;
                } else if ends {
                    return Poll::Ready(Err(format!("{left} bytes short").into()));
                }
            }
            (Some(Ok(piece)), Framing::Chunked) => {
                self.taken += piece.len() as u64;
                if !piece.is_empty() {
                    self.chunk(piece);
                }
                if ends {
                    self.end_with(if self.piece.is_empty() { END } else { b"\r\n0\r\n\r\n" });
                }
            }
            (Some(Err(frame)), Framing::Chunked) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                self.write_trailers(&trailers);
                self.body = None;
            }
            // Behind a body of known length there is no place for trailers.
            (Some(Err(_)), Framing::Sized(_)) => {}
        }
        Poll::Ready(Ok(()))
    }

    fn chunk(&mut self, piece: Bytes) {
        self.borrow_head();
        // Writing to a vector does not fail.
        let _ = write!(self.head, "{:x}\r\n", piece.len());
        self.piece = piece;
        self.tail = b"\r\n";
    }

    fn end_with(&mut self, tail: &'static [u8]) {
        self.tail = tail;
        self.body = None;
    }

    /// Only those that the request has announced: whoever reads this has been told of them (RFC 9110 §6.6.2).
    fn write_trailers(&mut self, trailers: &HeaderMap) {
        let announced = self.trailer.take();
        let announced = announced.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
        let names: Vec<&[u8]> = announced.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).collect();
        self.borrow_head();
        let lines = &mut self.head;
        lines.extend_from_slice(b"0\r\n");
        for (name, value) in trailers {
            if names.iter().any(|announced| announced.eq_ignore_ascii_case(name.as_str().as_bytes())) {
                lines.extend_from_slice(name.as_str().as_bytes());
                lines.extend_from_slice(b": ");
                lines.extend_from_slice(value.as_bytes());
                lines.extend_from_slice(b"\r\n");
            }
        }
        lines.extend_from_slice(b"\r\n");
    }

    /// Framing goes behind what waits there.
    fn borrow_head(&mut self) {
        if self.head.capacity() == 0 {
            self.head = SCRATCH.take();
        }
    }
}

impl<B> Drop for Upload<B> {
    fn drop(&mut self) {
        if self.head.capacity() > 0 {
            self.head.clear();
            SCRATCH.set(std::mem::take(&mut self.head));
        }
    }
}
