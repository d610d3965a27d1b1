//! hyper, asked what it reads of some bytes: the judge of what we read ourselves. For tests and the fuzzer alone.
//!
//! Driven by hand over a slice: no socket, no runtime, no clock, so that thousands of cases take a second and each of them can be done
//! again.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;

/// Names and values, in a header map's order.
pub(crate) type Fields = Vec<(String, Vec<u8>)>;

/// A message's body as its reader saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) data: Vec<u8>,
    pub(crate) trailers: Fields,
    /// Whether it came to its end.
    pub(crate) whole: bool,
}

/// A request as its reader saw it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) version: Version,
    pub(crate) headers: Fields,
    /// Nothing where it was broken off: how much of it was seen by then is a matter of pieces.
    pub(crate) body: Option<(Vec<u8>, Fields)>,
}

/// What hyper's server makes of a client's bytes.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) requests: Vec<Asked>,
    /// How it has answered: [`ANSWER`] to each request, anything else by itself.
    pub(crate) statuses: Vec<u16>,
    /// Whether it has said that it closes the connection.
    pub(crate) closes: bool,
}

/// The answer to all requests; not a success, because that would make a tunnel of a `CONNECT`.
pub(crate) const ANSWER: StatusCode = StatusCode::NOT_FOUND;

/// An answer as its reader saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: Fields,
    pub(crate) body: Content,
}

/// What hyper's server reads of `bytes`, which are all that a client sends.
pub(crate) fn requests(bytes: &[u8]) -> Heard {
    let heard = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: http::Request<Incoming>| {
        let heard = heard.clone();
        async move {
            let (head, body) = request.into_parts();
            let at = heard.borrow().len();
            heard.borrow_mut().push(Asked {
                method: head.method.to_string(),
                target: head.uri.to_string(),
                version: head.version,
                headers: fields(&head.headers),
                body: None,
            });
            let content = content(body).await;
            heard.borrow_mut()[at].body = content.whole.then_some((content.data, content.trailers));
            let mut answer = Response::new(Empty::<Bytes>::new());
            *answer.status_mut() = ANSWER;
            Ok::<_, Infallible>(answer)
        }
    });
    let (slice, written) = Slice::new(bytes, false);
    let mut builder = hyper::server::conn::http1::Builder::new();
    // Its error is not asked for: what was read until then counts, and what was answered.
    let _ = finish(bytes.len(), builder.half_close(true).serve_connection(slice, service));
    let text = String::from_utf8_lossy(&written.borrow()).into_owned();
    let lines = text.lines().filter_map(|line| line.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok());
    let statuses = lines.collect();
    let requests = heard.take();
    // The old version closes unless something else is said.
    let old = requests.last().is_some_and(|request| request.version == Version::HTTP_10);
    let last = text.rfind("HTTP/1.").map_or("", |last| &text[last..]);
    let closes = text.contains("connection: close\r\n") || old && !last.contains("connection: keep-alive\r\n");
    Heard { requests, statuses, closes }
}

/// What hyper's client reads of `bytes`, which are all that an upstream answers to such a request.
pub(crate) fn answer(method: &Method, bytes: &[u8]) -> Option<Answered> {
    let (slice, _) = Slice::new(bytes, true);
    let asked = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(slice).await.ok()?;
        let request = http::Request::builder().method(method).uri("/").header("host", "shop.test");
        let request = request.body(Empty::<Bytes>::new()).ok()?;
        let mut driver = pin!(connection);
        let mut asked = pin!(async {
            let (head, body) = sender.send_request(request).await.ok()?.into_parts();
            let (status, headers) = (head.status.as_u16(), fields(&head.headers));
            Some(Answered { status, headers, body: content(body).await })
        });
        let mut driving = true;
        poll_fn(|cx| {
            driving = driving && driver.as_mut().poll(cx).is_pending();
            asked.as_mut().poll(cx)
        })
        .await
    };
    finish(bytes.len(), asked)
}

/// Reads a body to its end.
pub(crate) async fn content<B: Body<Data = Bytes> + Unpin>(mut body: B) -> Content {
    let mut content = Content::default();
    loop {
        match body.frame().await.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => content.data.extend_from_slice(&data),
            Some(Ok(Err(frame))) => content.trailers = fields(&frame.into_trailers().unwrap_or_default()),
            Some(Err(_)) => return content,
            None => return Content { whole: true, ..content },
        }
    }
}

pub(crate) fn fields(headers: &HeaderMap) -> Fields {
    headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect()
}

/// Polls until it is ready. Nobody wakes us: there is always something to read.
fn finish<T>(size: usize, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..1000 + 8 * size {
        if let Poll::Ready(done) = future.as_mut().poll(&mut cx) {
            return done;
        }
    }
    panic!("hyper waits for something");
}

/// A connection on which some bytes come in, and then its end.
struct Slice<'a> {
    rest: &'a [u8],
    /// They come when a head has gone out.
    waits: bool,
    written: Rc<RefCell<Vec<u8>>>,
}

impl<'a> Slice<'a> {
    fn new(rest: &'a [u8], waits: bool) -> (Self, Rc<RefCell<Vec<u8>>>) {
        let written = Rc::default();
        (Slice { rest, waits, written: Rc::clone(&written) }, written)
    }
}

impl Read for Slice<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if self.waits && !self.written.borrow().ends_with(b"\r\n\r\n") {
            return Poll::Pending;
        }
        let (here, rest) = self.rest.split_at(self.rest.len().min(buf.remaining()));
        buf.put_slice(here);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

impl Write for Slice<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.written.borrow_mut().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Where `bytes` are cut for a law that holds wherever they are: everywhere, or at some 256 places of many.
pub(crate) fn cuts(bytes: &[u8]) -> impl Iterator<Item = usize> + use<> {
    (0..=bytes.len()).step_by(1 + bytes.len() / 256)
}
