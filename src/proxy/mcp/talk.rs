//! One exchange with an MCP server, from its message to the last piece of its answer.

use std::borrow::Cow;
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::response::Parts;
use http::{HeaderMap, Method};

use super::exchange::Got;
use super::hold::hold;
use super::lists::Asked;
use super::message::Message;
use super::reply::{End, events_head};
use super::script::{Ended, Outbox};
use super::{Errand, METHOD, NAME, SESSION, VERSION, sse2024};
use crate::config::model;
use crate::mcp::peek::{Malformed, Shape};
use crate::mcp::{self, Era, Live, Open};
use crate::proxy::Refusal;
use crate::proxy::access;
use crate::proxy::body::Broken;
use crate::proxy::life::Life;
use crate::proxy::pick::Affinity;
use crate::snapshot::{McpKept, Pool, Route, View};
use crate::telemetry::McpError;
use crate::types::{Clock, Moment};

/// An exchange under way.
pub(super) struct Talk {
    pub(super) life: Box<Life>,
    pub(super) errand: Errand,
    pub(super) out: Rc<Outbox>,
    /// The view that the request came in; [`Life`] holds it too, but cannot be borrowed while it is changed.
    pub(super) view: Rc<View>,
    pub(super) era: Era,
    pub(super) message: Option<Message>,
    pub(super) session: Option<Open>,
    /// The list it asks for, where that may be kept.
    pub(super) list: Option<Asked>,
    /// The client's own session id, as it was sealed.
    pub(super) sealed: Option<http::HeaderValue>,
    /// How it has ended, once that was seen.
    pub(super) ended: Cell<Option<McpError>>,
}

/// How long a call may wait for an upstream where the pool has no `queue`.
const HOLD: Duration = Duration::from_secs(30);
/// How often a question is asked again whose answer has broken off.
const REPEATS: u32 = 2;

impl Talk {
    pub(super) fn new(life: Box<Life>, errand: Errand, out: Rc<Outbox>) -> Self {
        let view = life.view.clone();
        let era = Era::of(errand.exchange.head.headers.get(VERSION).map(http::HeaderValue::as_bytes));
        Talk {
            life,
            errand,
            out,
            view,
            era,
            message: None,
            session: None,
            list: None,
            sealed: None,
            ended: Cell::new(None),
        }
    }

    /// Its pool, as of the request's arrival.
    pub(super) fn pool(&self) -> &Pool {
        &self.view.pools[self.errand.pool]
    }

    /// Its pool's settings.
    pub(super) fn settings(&self) -> &model::Pool {
        &self.pool().settings
    }

    /// What the pool remembers.
    pub(super) fn kept(&self) -> &McpKept {
        self.pool().kept.mcp()
    }

    /// Its route.
    pub(super) fn route(&self) -> &Route {
        &self.view.routes[self.errand.route]
    }

    /// Its headers, as they go upstream.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.errand.exchange.head.headers
    }

    /// What session ids are bound to: their pool, and who has begun the session, where that is known.
    pub(super) fn bound(&self) -> Cow<'_, str> {
        match self.life.principal() {
            None => Cow::Borrowed(&self.pool().name),
            Some(principal) => Cow::Owned(format!("{}\n{principal}", self.pool().name)),
        }
    }

    /// Opens the answer.
    pub(super) fn open(&self, mut head: Parts) {
        access::dress(&self.life, &mut head.headers);
        self.out.open(head);
    }

    /// Until when it may wait for an upstream.
    pub(super) fn hold_until(&self) -> Moment {
        self.life.started + self.settings().queue.as_ref().map_or(HOLD, |queue| queue.timeout)
    }

    /// The pool in the newest snapshot.
    pub(super) fn newest(&self) -> (Rc<View>, usize) {
        let view = self.life.worker.view();
        let pool = self.pool();
        let found = view.pools.binary_search_by(|other| other.name.cmp(&pool.name)).ok();
        match found.filter(|index| std::sync::Arc::ptr_eq(&view.pools[*index].kept, &pool.kept)) {
            Some(index) => (view, index),
            // A reload has taken it away: what was there serves what is left.
            None => (self.view.clone(), self.errand.pool),
        }
    }

    /// The whole of it.
    pub(super) async fn run(mut self) -> Ended {
        let ended = match self.answer().await {
            Ok(()) => Ok(()),
            Err(End::Refused(reason)) => self.refuse(&reason),
            Err(End::Broken(refusal)) => {
                self.life.broken = Some(refusal);
                Err(Broken::Drained)
            }
        };
        self.life.sent = self.out.sent();
        self.life.ended = ended.is_ok();
        ended
    }

    async fn answer(&mut self) -> Result<(), End> {
        // Boxed one by one, so that a stream that stands for an hour does not hold the room that a call would need.
        match self.errand.exchange.head.method {
            Method::GET => Box::pin(self.stand()).await,
            Method::DELETE => Box::pin(self.end_session()).await,
            _ => Box::pin(self.post()).await,
        }
    }

    async fn post(&mut self) -> Result<(), End> {
        let Some(message) = self.read_message().await? else {
            let got = self.exchange().await?;
            return self.deliver(got).await;
        };
        let message = self.message.insert(message);
        self.errand.exchange.repeatable = message.is_repeatable();
        self.agrees()?;
        if self.era == Era::Sessions {
            self.find_session()?;
        }
        if self.session.is_none() {
            self.find_mark()?;
        }
        self.admit().await?;
        self.prefer();
        if self
            .message
            .as_ref()
            .is_some_and(|message| self.era == Era::Stateless && &*message.method == "subscriptions/listen")
        {
            return Box::pin(self.listen()).await;
        }
        if self.answer_kept() {
            return Ok(());
        }
        let mut repeats = REPEATS;
        loop {
            let got = self.exchange_held().await?;
            match self.deliver(got).await {
                // Its server was lost while it answered.
                Err(End::Refused(reason)) if reason.refused.refusal() == Refusal::OutcomeUnknown => {
                    if repeats == 0 || !self.is_to_repeat() {
                        return Err(End::Refused(reason));
                    }
                    repeats -= 1;
                    self.leave();
                }
                delivered => return delivered,
            }
        }
    }

    /// Sends it, with comments to the client while that takes long.
    async fn exchange_held(&mut self) -> Result<Got, End> {
        // An answer that begins a session has to say so in its head.
        let may = self.message.as_ref().is_some_and(|message| message.shape == Shape::Request && !message.begins())
            && super::accepts_events(self.headers());
        let (out, sweep, every) = (self.out.clone(), self.life.worker.sweep.clone(), self.settings().keepalive);
        let mut head = (may && !out.is_open()).then(events_head);
        head.iter_mut().for_each(|head| access::dress(&self.life, &mut head.headers));
        hold(&out, &sweep, every, head, self.exchange()).await
    }

    /// Whether it only asks, and can be asked once more.
    fn is_to_repeat(&self) -> bool {
        self.errand.exchange.repeatable && self.is_replayable()
    }

    /// Whether headers and message say the same; a proxy that goes by one and a server that goes by the other could be played off against
    /// each other.
    fn agrees(&self) -> Result<(), End> {
        let Some(message) = &self.message else { return Ok(()) };
        if self.era == Era::Sessions || message.shape != Shape::Request {
            return Ok(());
        }
        // A message that names no version is none of this era, which its server will say better than we can. What was not read can not be
        // compared; the server will.
        let Some(version) = message.version.as_deref() else { return Ok(()) };
        let said = |name| {
            let mut lines = self.headers().get_all(name).iter();
            match (lines.next(), lines.next()) {
                (Some(value), None) => mcp::era::header_text(value.as_bytes()),
                _ => None,
            }
        };
        let differs = |header: &'static str, text: &'static str| {
            End::bad(mcp::HEADER_MISMATCH, format!("the {header} header does not match the message's {text}"), None)
        };
        if said(VERSION).as_deref() != Some(version) {
            return Err(differs("MCP-Protocol-Version", "protocol version"));
        }
        if said(METHOD).as_deref() != Some(&message.method) {
            return Err(differs("Mcp-Method", "method"));
        }
        let named = matches!(&*message.method, "tools/call" | "prompts/get" | "resources/read");
        match message.name.as_deref() {
            Some(name) if named && said(NAME).as_deref() != Some(name) => Err(differs("Mcp-Name", "name")),
            _ => Ok(()),
        }
    }

    /// Finds the session that the request names.
    pub(super) fn find_session(&mut self) -> Result<(), End> {
        let Some(id) = self.headers().get(SESSION).cloned() else { return Ok(()) };
        let mcp = &self.view.config.mcp;
        let unseal = || {
            let sealed = self.view.keys.open(id.as_bytes(), &self.bound())?;
            (unix_now().saturating_sub(sealed.born) <= mcp.session_ttl.as_secs()).then_some(sealed)
        };
        let max = mcp.max_sessions as usize;
        let session = self.kept().sessions.open(id.as_bytes(), unseal, max, Clock::now());
        self.session = Some(session.ok_or(Refusal::NoSession)?);
        self.sealed = Some(id);
        Ok(())
    }

    /// Finds the upstream that a mark of the first transport names.
    fn find_mark(&mut self) -> Result<(), End> {
        let target = &self.errand.exchange.target;
        let Some((target, mark)) = sse2024::unmark(target) else { return Ok(()) };
        let sealed = self.view.keys.open(mark.as_bytes(), &self.bound()).ok_or(Refusal::NoSession)?;
        self.errand.exchange.target = target;
        self.errand.exchange.affinity = Affinity::Only(sealed.upstream);
        Ok(())
    }

    /// Prefers the upstream that has given out what the request brings back.
    fn prefer(&mut self) {
        let Some(message) = &self.message else { return };
        if self.session.is_some() || self.errand.exchange.affinity != Affinity::Free {
            return;
        }
        let key: Option<Cow<'_, str>> = match &message.request_state {
            Some(state) => Some(state_key(state).into()),
            None if message.method.starts_with("tasks/") => message.name.as_deref().map(|task| task_key(task).into()),
            None => None,
        };
        let found = key.and_then(|key| self.kept().affinity.find(key.as_bytes(), McpKept::AFFINITY, Clock::now()));
        if let Some(upstream) = found {
            self.errand.exchange.affinity = Affinity::Prefer(upstream);
        }
    }

    /// The session's entry, where it has one.
    pub(super) fn live(&self) -> Option<&Live> {
        self.session.as_ref().map(|session| &***session)
    }
}

/// What a `requestState` is remembered by.
pub(super) fn state_key(state: &str) -> String {
    format!("state:{state}")
}

/// What a task is remembered by.
pub(super) fn task_key(task: &str) -> String {
    format!("task:{task}")
}

/// Seconds since 1970.
pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Why a message is refused that cannot be read.
pub(super) fn unreadable(malformed: Malformed) -> End {
    let code = match malformed {
        Malformed::Json | Malformed::TooDeep => mcp::PARSE_ERROR,
        _ => mcp::INVALID_REQUEST,
    };
    End::bad(code, malformed.to_string(), None)
}
