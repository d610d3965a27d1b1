//! One request's work at the application: the answer in the making, then its body. And what a worker keeps so that the next request
//! finds it there.
//!
//! The answer's future is large. It does not lie in the connection's task, so that an idle connection has no room for one, and its
//! room is not allocated for each request. Nor does it pass through hyper, which moves the future of an HTTP/2 stream many times:
//! 73 KB copied for each request (measured). Its type has no name, so it is used through [`Job`], at the price of an indirect call.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::response::Parts;
use http::{HeaderMap, Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;

use super::application::Application;
use super::client_body::ClientBody;
use super::connection::Connection;
use super::lane::{Date, Size};
use super::service;
use crate::types::Lines;

/// Room for one request's work.
pub(super) trait Job<A: Application> {
    /// Begins with a request.
    fn begin(self: Pin<&mut Self>, app: Rc<A>, connection: Rc<Connection<A::State>>, request: Request<ClientBody>);

    /// The whole answer, whose body is the caller's affair; asked until it is there.
    fn poll_response(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response<A::Body>>;

    /// Or its head, with its lines where they are still text, and how long its body is, which stays here.
    fn poll_answer(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<(Parts, Option<Lines>, Size)>;

    /// The next piece of the answer's body.
    fn poll_piece(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Piece>;

    /// The rest of the answer's body, for whoever has to wait for it: it is small, and the room is large.
    fn take_body(self: Pin<&mut Self>) -> Option<A::Body>;

    /// Drops whatever there is.
    fn clear(self: Pin<&mut Self>);
}

/// What comes of an answer's body.
#[derive(Debug)]
pub(super) enum Piece {
    /// Some of it, and whether that was the last.
    Data(Bytes, bool),
    /// Nothing more.
    End,
    /// It broke off.
    Broken,
}

type AnyJob<A> = Pin<Box<dyn Job<A>>>;

pin_project! {
    struct Room<M, F, B> {
        make: M,
        #[pin]
        state: State<F, B>,
    }
}

pin_project! {
    #[project = StateNow]
    enum State<F, B> {
        Empty,
        Answering { #[pin] future: F },
        Sending { body: Option<B> },
    }
}

impl<A, M, F> Job<A> for Room<M, F, A::Body>
where
    A: Application,
    M: Fn(Rc<A>, Rc<Connection<A::State>>, Request<ClientBody>) -> F,
    F: Future<Output = Response<A::Body>>,
{
    fn begin(self: Pin<&mut Self>, app: Rc<A>, connection: Rc<Connection<A::State>>, request: Request<ClientBody>) {
        let mut room = self.project();
        room.state.set(State::Answering { future: (room.make)(app, connection, request) });
    }

    fn poll_response(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response<A::Body>> {
        let StateNow::Answering { future } = self.project().state.project() else { return Poll::Pending };
        future.poll(cx)
    }

    fn poll_answer(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<(Parts, Option<Lines>, Size)> {
        let mut state = self.project().state;
        let StateNow::Answering { future } = state.as_mut().project() else { return Poll::Pending };
        let (parts, mut body) = ready!(future.poll(cx)).into_parts();
        let lines = A::take_lines(&mut body);
        let size = match (body.is_end_stream(), body.size_hint().exact()) {
            (true, _) => Size::None,
            (false, Some(length)) => Size::Known(length),
            (false, None) => Size::Unknown,
        };
        state.set(State::Sending { body: Some(body) });
        Poll::Ready((parts, lines, size))
    }

    fn poll_piece(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Piece> {
        match self.project().state.project() {
            StateNow::Sending { body: Some(body) } => poll_piece(body, cx),
            _ => Poll::Ready(Piece::End),
        }
    }

    fn take_body(self: Pin<&mut Self>) -> Option<A::Body> {
        match self.project().state.project() {
            StateNow::Sending { body } => body.take(),
            _ => None,
        }
    }

    fn clear(self: Pin<&mut Self>) {
        self.project().state.set(State::Empty);
    }
}

/// The next piece of a body.
pub(super) fn poll_piece<B: Body<Data = Bytes> + Unpin>(body: &mut B, cx: &mut Context<'_>) -> Poll<Piece> {
    Poll::Ready(match ready!(Pin::new(&mut *body).poll_frame(cx)) {
        Some(Ok(frame)) => match frame.into_data() {
            Ok(data) => Piece::Data(data, body.is_end_stream()),
            // Trailers are for clients that have asked for them, by `TE`, and those are not here.
            Err(_) => Piece::End,
        },
        Some(Err(_)) => Piece::Broken,
        None => Piece::End,
    })
}

fn room<A, M, F>(make: M) -> AnyJob<A>
where
    A: Application,
    M: Fn(Rc<A>, Rc<Connection<A::State>>, Request<ClientBody>) -> F + 'static,
    F: Future<Output = Response<A::Body>> + 'static,
{
    Box::pin(Room { make, state: State::Empty })
}

/// A request's work for whoever awaits the whole answer. Its room is free again as soon as the answer is there, or nobody waits any more.
pub(super) struct Work<A: Application> {
    stock: Rc<Stock<A>>,
    job: Option<AnyJob<A>>,
}

impl<A: Application> Work<A> {
    fn end(&mut self) {
        if let Some(job) = self.job.take() {
            self.stock.put_job(job);
        }
    }
}

impl<A: Application> Future for Work<A> {
    type Output = Response<A::Body>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response<A::Body>> {
        let Some(job) = &mut self.job else { return Poll::Pending };
        let response = ready!(job.as_mut().poll_response(cx));
        self.end();
        Poll::Ready(response)
    }
}

impl<A: Application> Drop for Work<A> {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the connections of one door leave for each other.
pub(super) struct Stock<A: Application> {
    jobs: RefCell<Vec<AnyJob<A>>>,
    texts: RefCell<Vec<Vec<u8>>>,
    headers: RefCell<Vec<HeaderMap>>,
    /// Where the next heads are copied to, one behind the other.
    heads: RefCell<BytesMut>,
    pub(super) date: RefCell<Date>,
}

impl<A: Application> Stock<A> {
    /// So much of each is kept. More is in use at once only in bursts.
    const MOST_JOBS: usize = 256;
    const MOST_TEXTS: usize = 16;
    const MOST_HEADERS: usize = 64;
    /// So much memory is taken at once for heads. A request that lasts holds all of it, so it is not much.
    const HEADS: usize = 8 << 10;
    /// What has grown larger than this is not kept.
    const LARGEST_TEXT: usize = 64 << 10;
    const LARGEST_HEADERS: usize = 64;

    pub(super) fn new() -> Rc<Self> {
        Rc::new(Stock {
            jobs: RefCell::default(),
            texts: RefCell::default(),
            headers: RefCell::default(),
            heads: RefCell::default(),
            date: RefCell::default(),
        })
    }

    pub(super) fn job(&self) -> AnyJob<A> {
        let job = self.jobs.borrow_mut().pop();
        job.unwrap_or_else(|| room(service::guarded::<A>))
    }

    /// Begins with a request.
    pub(super) fn work(
        self: &Rc<Self>,
        app: &Rc<A>,
        connection: &Rc<Connection<A::State>>,
        request: Request<ClientBody>,
    ) -> Work<A> {
        let mut job = self.job();
        job.as_mut().begin(app.clone(), connection.clone(), request);
        Work { stock: self.clone(), job: Some(job) }
    }

    /// Takes room back.
    pub(super) fn put_job(&self, mut job: AnyJob<A>) {
        // Before anything is borrowed: what is dropped here may do anything.
        job.as_mut().clear();
        put(&self.jobs, job, Self::MOST_JOBS);
    }

    pub(super) fn text(&self) -> Vec<u8> {
        self.texts.borrow_mut().pop().unwrap_or_default()
    }

    pub(super) fn put_text(&self, mut text: Vec<u8>) {
        if (1..=Self::LARGEST_TEXT).contains(&text.capacity()) {
            text.clear();
            put(&self.texts, text, Self::MOST_TEXTS);
        }
    }

    /// A copy of a head and what was read with it, after `edit`.
    pub(super) fn copy(&self, bytes: &[u8], edit: impl FnOnce(&mut [u8])) -> Bytes {
        if bytes.len() > Self::HEADS / 4 {
            let mut copy = bytes.to_vec();
            edit(&mut copy);
            return copy.into();
        }
        let mut heads = self.heads.borrow_mut();
        if heads.capacity() < bytes.len() {
            *heads = BytesMut::with_capacity(Self::HEADS);
        }
        heads.extend_from_slice(bytes);
        edit(&mut heads);
        heads.split().freeze()
    }

    pub(super) fn headers(&self) -> HeaderMap {
        self.headers.borrow_mut().pop().unwrap_or_default()
    }

    pub(super) fn put_headers(&self, mut headers: HeaderMap) {
        if (1..=Self::LARGEST_HEADERS).contains(&headers.capacity()) {
            headers.clear();
            put(&self.headers, headers, Self::MOST_HEADERS);
        }
    }
}

fn put<T>(pile: &RefCell<Vec<T>>, one: T, most: usize) {
    let mut pile = pile.borrow_mut();
    if pile.len() < most {
        pile.push(one);
    }
}
