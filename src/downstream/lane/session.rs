//! A connection in the fast lane, as a state machine: a request's head, its answer, the answer's body, and again.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Uri};

use super::answer::{Asked, Framing, Out, write_head};
use super::channel::Channel;
use super::plain::{self, Head, Seen};
use crate::downstream::activity::Busy;
use crate::downstream::application::Application;
use crate::downstream::client_body::ClientBody;
use crate::downstream::connection::Connection;
use crate::downstream::stock::{Job, Piece, Stock, poll_piece};
use crate::sweep::Sweep;

/// One connection's requests, as long as they are plain.
pub(super) struct Session<A: Application> {
    app: Rc<A>,
    connection: Rc<Connection<A::State>>,
    stock: Rc<Stock<A>>,
    sweep: Rc<Sweep>,
    channel: Rc<Channel>,
    step: Step,
    /// How often the head that is coming in has been looked at.
    looks: u8,
    /// What was read already has not been looked at yet.
    unseen: bool,
    job: Option<Pin<Box<dyn Job<A>>>>,
    /// The answer's body, where it has been waited for.
    rest: Option<Box<A::Body>>,
    /// From a request's head to its answer's last byte.
    busy: Option<Busy>,
    asked: Asked,
    framing: Framing,
    out: Out,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A head comes in.
    Head,
    /// The application is asked.
    Answer,
    /// Its answer goes out.
    Body,
    /// All of it has been put in; it is written.
    Rest,
    /// The answer is out. The request may still be coming in.
    Behind,
    /// Our side closes.
    Close,
    /// We wait until the client has closed its side.
    Linger,
}

/// How the fast lane ends.
#[derive(Debug)]
pub(super) enum End {
    /// The connection is closed.
    Closed,
    /// What follows is for hyper.
    Onward,
    /// The client has left, or cannot be read or written; nothing more can be said to it.
    Lost(io::Error),
    /// An answer broke off, and what the client has of it does not look whole.
    Broken,
}

/// What was found where a request's head should be.
enum Next {
    /// A request, which has been handed to the application.
    Begun,
    /// The client has closed its side.
    Nothing,
    Other,
}

impl<A: Application> Session<A> {
    /// A head that has not come whole by then is read by hyper, which reads on from where it was instead of again.
    const LOOKS: u8 = 3;

    pub(super) fn new(
        app: Rc<A>,
        connection: Rc<Connection<A::State>>,
        stock: Rc<Stock<A>>,
        sweep: Rc<Sweep>,
        channel: Rc<Channel>,
    ) -> Self {
        Session {
            app,
            connection,
            stock,
            sweep,
            channel,
            step: Step::Head,
            looks: 0,
            unseen: false,
            job: None,
            rest: None,
            busy: None,
            asked: Asked { head: false, close: false },
            framing: Framing::None,
            out: Out::default(),
        }
    }

    /// Closes it where it is between two requests, else behind the answer.
    pub(super) fn close(&mut self) {
        self.asked.close = true;
        if self.step == Step::Head {
            self.step = Step::Close;
        }
    }

    /// Serves requests until the connection ends or one of them is not plain.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            let end = match self.step {
                Step::Head => match ready!(self.poll_head(cx)) {
                    Ok(Next::Begun) => continue,
                    Ok(Next::Nothing) => {
                        self.step = Step::Close;
                        continue;
                    }
                    Ok(Next::Other) => End::Onward,
                    Err(error) => End::Lost(error),
                },
                Step::Answer => match ready!(self.poll_answer(cx)) {
                    Ok(()) => continue,
                    Err(end) => end,
                },
                Step::Body => match ready!(self.poll_body(cx)) {
                    Ok(()) => continue,
                    Err(end) => end,
                },
                Step::Rest => match self.poll_out(cx) {
                    Poll::Pending => ready!(self.poll_client(cx)),
                    Poll::Ready(Err(error)) => End::Lost(error),
                    Poll::Ready(Ok(())) => {
                        self.step = Step::Behind;
                        continue;
                    }
                },
                Step::Behind => {
                    ready!(self.poll_behind(cx));
                    continue;
                }
                Step::Close => match ready!(self.channel.poll_shutdown(cx)) {
                    Err(error) => End::Lost(error),
                    Ok(()) if self.channel.left() == 0 => End::Closed,
                    Ok(()) => {
                        self.connection.pulse.linger();
                        self.channel.keep(Bytes::new());
                        self.step = Step::Linger;
                        continue;
                    }
                },
                // Closing a socket with unread bytes resets it, and a reset can take the answer away before it was read.
                Step::Linger => match ready!(self.channel.poll_read(cx, usize::MAX, |_| ())) {
                    Ok(Some(())) => continue,
                    Ok(None) | Err(_) => End::Closed,
                },
            };
            return Poll::Ready(end);
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Next>> {
        let limits = self.connection.terms().head;
        loop {
            let (seen, bytes) = if std::mem::take(&mut self.unseen) {
                let kept = self.channel.kept();
                match plain::read(&kept, limits) {
                    Seen::Plain(head) => {
                        let copy = self.stock.copy(&kept, |copy| head.lower(copy));
                        (Seen::Plain(head), copy)
                    }
                    other => (other, kept),
                }
            } else {
                let look = |bytes: &[u8]| {
                    let seen = plain::read(bytes, limits);
                    let copy = self.stock.copy(bytes, |copy| {
                        if let Seen::Plain(head) = &seen {
                            head.lower(copy)
                        }
                    });
                    (seen, copy)
                };
                match ready!(self.channel.poll_read(cx, usize::MAX, look))? {
                    Some(found) => found,
                    None => return Poll::Ready(Ok(Next::Nothing)),
                }
            };
            self.looks += 1;
            match seen {
                Seen::Plain(head) => return Poll::Ready(Ok(self.take(&head, bytes))),
                Seen::Partial if self.looks < Self::LOOKS => {
                    // A copy: the rest of what it was read with is not to be held for it.
                    self.channel.keep(Bytes::copy_from_slice(&bytes));
                    self.connection.pulse.set_head(true, false);
                }
                Seen::Partial | Seen::Other => {
                    self.channel.keep(bytes);
                    return Poll::Ready(Ok(Next::Other));
                }
            }
        }
    }

    /// Begins with the request of `head`, which `bytes` begin with; what follows it is kept.
    fn take(&mut self, head: &Head, bytes: Bytes) -> Next {
        let Some(request) = self.request(head, &bytes) else {
            // Never seen; but what the `http` crate does not take hyper shall refuse.
            self.channel.keep(bytes);
            return Next::Other;
        };
        self.channel.keep(bytes.slice(head.length..));
        self.connection.pulse.set_head(false, false);
        self.asked = Asked { head: *request.method() == Method::HEAD, close: head.close };
        self.begin(request);
        Next::Begun
    }

    fn request(&self, head: &Head, text: &Bytes) -> Option<Request<ClientBody>> {
        let method = Method::from_bytes(&text[head.method.range()]).ok()?;
        let uri = Uri::from_maybe_shared(text.slice(head.target.range())).ok()?;
        let headers = if A::READS_LINES { HeaderMap::new() } else { self.headers(head, text)? };
        let body = if head.body > 0 { self.channel.body(head.body).into() } else { ClientBody::empty() };
        let body = if A::READS_LINES { body.behind(head.lines(text)) } else { body };
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Some(request)
    }

    fn headers(&self, head: &Head, text: &Bytes) -> Option<HeaderMap> {
        let mut headers = self.stock.headers();
        headers.reserve(head.fields.len());
        for (name, value) in &head.fields {
            let name = HeaderName::from_bytes(&text[name.range()]).ok()?;
            headers.append(name, HeaderValue::from_maybe_shared(text.slice(value.range())).ok()?);
        }
        Some(headers)
    }

    fn begin(&mut self, request: Request<ClientBody>) {
        let activity = &self.connection.activity;
        activity.begin();
        self.busy = Some(activity.enter());
        let job = self.job.insert(self.stock.job());
        job.as_mut().begin(self.app.clone(), self.connection.clone(), request);
        self.step = Step::Answer;
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let Some(job) = &mut self.job else { return Poll::Ready(Err(End::Broken)) };
        let Poll::Ready((mut parts, lines, size)) = job.as_mut().poll_answer(cx) else {
            return self.poll_client(cx).map(Err);
        };
        if self.connection.is_draining() {
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if self.channel.left() > 0 && !self.channel.is_body_awaited() && !self.channel.skip_body(cx) {
            // Nobody will read the rest of the request, so no other one can follow it.
            self.asked.close = true;
        }
        let text = self.out.text(&self.stock);
        let written = {
            let mut date = self.stock.date.borrow_mut();
            write_head(text, &parts, lines.as_ref(), size, self.asked, date.at(self.sweep.now()))
        };
        let Ok((framing, closes)) = written else { return Poll::Ready(Err(End::Broken)) };
        self.stock.put_headers(parts.headers);
        self.asked.close = closes;
        self.framing = framing;
        self.step = Step::Body;
        if framing == Framing::None {
            self.finish();
        }
        Poll::Ready(Ok(()))
    }

    /// Sends the answer's body as it comes, and as the client takes it.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        loop {
            let filled = self.fill(cx);
            match self.poll_out(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(End::Lost(error))),
                // What was put in is bounded. When it has been taken, more is.
                Poll::Pending => {
                    if filled == Filled::Broken {
                        return Poll::Ready(Err(End::Broken));
                    }
                    return match self.step {
                        Step::Body => self.poll_client(cx).map(Err),
                        _ => Poll::Ready(Ok(())),
                    };
                }
            }
            match filled {
                Filled::Full => {}
                Filled::Waits => return self.poll_client(cx).map(Err),
                Filled::Ended => return Poll::Ready(Ok(())),
                Filled::Broken => return Poll::Ready(Err(End::Broken)),
            }
        }
    }

    /// Puts into `out` what there is of the answer's body, as far as there is room.
    fn fill(&mut self, cx: &mut Context<'_>) -> Filled {
        while self.out.has_room() {
            let polled = match (&mut self.rest, &mut self.job) {
                (Some(rest), _) => poll_piece(&mut **rest, cx),
                (None, Some(job)) => job.as_mut().poll_piece(cx),
                (None, None) => return Filled::Ended,
            };
            let piece = match polled {
                Poll::Ready(piece) => piece,
                // Whatever may still come is none of what the client waits for.
                Poll::Pending if self.framing == Framing::Length(0) => Piece::End,
                Poll::Pending => {
                    self.leave_room();
                    return Filled::Waits;
                }
            };
            let last = match piece {
                Piece::Data(data, last) => {
                    self.out.text(&self.stock);
                    if !self.out.put(&mut self.framing, data) {
                        return Filled::Broken;
                    }
                    last
                }
                Piece::End => true,
                Piece::Broken => return Filled::Broken,
            };
            if last {
                self.out.text(&self.stock);
                if !self.out.end(self.framing) {
                    return Filled::Broken;
                }
                self.finish();
                return Filled::Ended;
            }
        }
        Filled::Full
    }

    /// The application's part is over.
    fn finish(&mut self) {
        self.step = Step::Rest;
        if let Some(job) = self.job.take() {
            self.stock.put_job(job);
        }
        self.rest = None;
        self.busy = None;
    }

    /// An answer that is waited for may last for hours, as streams of events do: it keeps no room for the making of one.
    fn leave_room(&mut self) {
        if let Some(mut job) = self.job.take() {
            self.rest = job.as_mut().take_body().map(Box::new);
            self.stock.put_job(job);
        }
    }

    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.out.poll_write(&self.channel, cx))?;
        // Nothing may come for a long time: whoever waits has no buffer.
        self.out.give_text(&self.stock);
        Poll::Ready(Ok(()))
    }

    /// Notices that a client leaves while it waits. What it sends meanwhile is kept, and is not read on before that has been served.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if self.connection.terms().half_close || self.channel.left() > 0 || self.channel.keeps() {
            return Poll::Pending;
        }
        match ready!(self.channel.poll_read(cx, usize::MAX, Bytes::copy_from_slice)) {
            Ok(Some(bytes)) => {
                self.channel.keep(bytes);
                Poll::Pending
            }
            Ok(None) => Poll::Ready(End::Lost(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => Poll::Ready(End::Lost(error)),
        }
    }

    /// What follows an answer that is out.
    fn poll_behind(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.channel.is_body_awaited() {
            // An upstream has answered early and takes the rest. Whoever holds the body wakes us.
            return Poll::Pending;
        }
        let skipped = self.channel.left() == 0 || self.channel.skip_body(cx);
        if self.asked.close || !skipped {
            self.step = Step::Close;
        } else {
            self.step = Step::Head;
            self.looks = 0;
            self.unseen = self.channel.keeps();
        }
        Poll::Ready(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filled {
    /// There may be more.
    Full,
    /// More comes later.
    Waits,
    Ended,
    Broken,
}

impl<A: Application> Drop for Session<A> {
    fn drop(&mut self) {
        if let Some(job) = self.job.take() {
            self.stock.put_job(job);
        }
    }
}
