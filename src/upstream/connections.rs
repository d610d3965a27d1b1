use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Response};

use super::answer;
use super::body::{Source, UpstreamBody};
use super::error::{SendError, SendErrorKind};
use super::http1::{self, Reply, Shelf, Upgraded};
use super::http2::{self, Bundle};
use super::outflow::RequestBody;
use super::target::Target;
use crate::config::model::Protocol;
use crate::sweep::Sweep;
use crate::telemetry::Lane;
use crate::types::Moment;

/// The head of an answer, in bytes; more is a bad response.
pub(super) const HEAD_SIZE: usize = 64 << 10;

/// One worker's connections to all upstreams.
///
/// Never leaves its thread. Needs a runtime that can `spawn_local`, and somebody who calls [`Connections::sweep`] now and then.
pub struct Connections<B: RequestBody> {
    sweep: Rc<Sweep>,
    lane: Lane,
    nests: RefCell<HashMap<u64, Rc<Nest<B>>, BuildHasherDefault<Given>>>,
}

/// The connections to one target.
struct Nest<B: RequestBody> {
    lanes: Lanes<B>,
    idle_timeout: std::cell::Cell<Duration>,
}

enum Lanes<B: RequestBody> {
    Http1(Rc<Shelf<B>>),
    Http2(Bundle<B>),
}

/// A request as it goes to an upstream. Borrowed, so that it can be sent again.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The method.
    pub method: &'a Method,
    /// Path and query, or `*`.
    pub target: &'a PathAndQuery,
    /// The headers, `Host` among them, without hop-by-hop ones; with `Connection` and `Upgrade` where it asks for an upgrade.
    /// Framing is made here: `Transfer-Encoding` is dropped and `Content-Length` made to agree with the body. A `Trailer` lets
    /// the trailers that it names through to an HTTP/1.1 upstream.
    pub headers: &'a HeaderMap,
    /// More headers, as text that is made already: `name: value` and CR LF each, no framing but `content-length: 0` and no hop-by-hop ones
    /// among them. For HTTP/1.1 alone.
    pub lines: Option<&'a [u8]>,
    /// Whether the answer's headers may stay text too where its head is plain: see [`UpstreamBody::take_lines`]. For HTTP/1.1 alone.
    pub answer_in_lines: bool,
    /// Whether it asks for an upgrade: only then a 101 is an answer.
    pub upgrade: bool,
    /// From the whole request sent to the answer's head; also how long the upstream may take nothing of the request's body.
    pub first_byte: Option<Duration>,
    /// Between two pieces of the answer's body.
    pub idle: Option<Duration>,
}

/// An upstream's answer.
#[derive(Debug)]
pub struct Answer<B: RequestBody> {
    /// Its head, checked, and its body. Hop-by-hop headers are still there but for `Transfer-Encoding`.
    pub response: Response<UpstreamBody<B>>,
    /// The tunnel behind a 101.
    pub upgraded: Option<Upgraded>,
}

impl<B: RequestBody> Connections<B> {
    /// No connections yet; deadlines are kept by `sweep`, and connections are counted in `lane`.
    pub fn new(sweep: Rc<Sweep>, lane: Lane) -> Rc<Self> {
        Rc::new(Connections { sweep, lane, nests: RefCell::default() })
    }

    /// Sends one request to `target` and waits for the head of its answer.
    ///
    /// A stale idle connection is replaced without anybody noticing, as long as nothing of the request went out on it. Dropping
    /// the future cancels the request and closes its connection (HTTP/2: resets its stream).
    ///
    /// **Errors**: the reason, and whether the upstream may have seen the request.
    /// **Cost**: no allocation of our own but those of the answer's headers.
    pub async fn send(&self, target: &Arc<Target>, outgoing: Outgoing<'_>, body: B) -> Result<Answer<B>, SendError> {
        let clock = self.sweep.deadline();
        let nest = self.nest(target);
        match &nest.lanes {
            Lanes::Http1(shelf) => Ok(match http1::send(shelf, target, &outgoing, body, &clock).await? {
                Reply::Answer(head, lines, reading) => {
                    let body = UpstreamBody::new(Source::Http1(reading), clock, outgoing.idle).behind(lines);
                    Answer { response: Response::from_parts(head, body), upgraded: None }
                }
                Reply::Switched(head, upgraded) => {
                    let response = Response::from_parts(head, UpstreamBody::empty());
                    Answer { response, upgraded: Some(upgraded) }
                }
            }),
            Lanes::Http2(bundle) => {
                let (response, stream) = http2::send(bundle, target, &outgoing, body, &clock).await?;
                let (mut head, incoming) = response.into_parts();
                answer::check(&mut head, None).map_err(|bad| SendError::new(SendErrorKind::BadResponse(bad), true))?;
                let body = UpstreamBody::new(Source::Http2(incoming, stream), clock, outgoing.idle);
                Ok(Answer { response: Response::from_parts(head, body), upgraded: None })
            }
        }
    }

    /// Closes connections that have been idle for too long or were closed by their upstreams.
    ///
    /// **Cost**: a few nanoseconds for each idle connection; meant for each tick of the worker.
    pub fn sweep(&self, now: Moment) {
        for nest in self.nests.borrow().values() {
            let until = now - nest.idle_timeout.get();
            match &nest.lanes {
                Lanes::Http1(shelf) => shelf.expire(until),
                Lanes::Http2(bundle) => bundle.expire(until),
            }
        }
    }

    /// Closes the idle connections of targets that `wanted` does not want, by id; requests under way finish first.
    pub fn retain(&self, wanted: impl Fn(u64) -> bool) {
        self.nests.borrow_mut().retain(|id, nest| {
            let keep = wanted(*id);
            match &nest.lanes {
                Lanes::Http1(shelf) if !keep => shelf.set_room(0),
                Lanes::Http2(bundle) if !keep => bundle.clear(),
                _ => {}
            }
            keep
        });
    }

    /// Connections kept for the next request (HTTP/2: open ones), over all targets.
    pub fn len(&self) -> usize {
        let nests = self.nests.borrow();
        let lengths = nests.values().map(|nest| match &nest.lanes {
            Lanes::Http1(shelf) => shelf.len(),
            Lanes::Http2(bundle) => bundle.len(),
        });
        lengths.sum()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn nest(&self, target: &Target) -> Rc<Nest<B>> {
        let mut nests = self.nests.borrow_mut();
        let nest = nests.entry(target.id).or_insert_with(|| {
            let lanes = match target.protocol {
                Protocol::Http1 => Lanes::Http1(Rc::new(Shelf::new(self.sweep.clone(), self.lane))),
                Protocol::Http2 => Lanes::Http2(Bundle::new(self.sweep.clone(), self.lane)),
            };
            Rc::new(Nest { lanes, idle_timeout: target.idle_timeout.into() })
        });
        // A reload may change these without changing the target's id.
        nest.idle_timeout.set(target.idle_timeout);
        if let Lanes::Http1(shelf) = &nest.lanes {
            shelf.set_room(target.idle_connections);
        }
        nest.clone()
    }
}

/// A target's id is a hash already.
#[derive(Default)]
struct Given(u64);

impl Hasher for Given {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only ids are looked up")
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
