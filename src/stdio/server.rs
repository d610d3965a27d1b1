//! The MCP server behind one or many sessions: at most one process at a time, started when it is needed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::backoff::Permit;
use super::call::{Exchange, Owner, Pending};
use super::child::Child;
use super::message::{self, INTERNAL_ERROR, LEGACY, MODERN, Message};
use super::room::Room;
use super::session::Session;
use super::settings::Settings;
use super::{backoff::Backoff, explain};

/// Who a server is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Session(String),
    Principal(String),
    All,
    /// Requests of the stateless revision. A process that speaks both is bound to what it is spoken to first.
    Modern(String),
}

/// A server that ends at the probe has shown that it is an old one, or that it cannot run: it is soon tried again.
const DOUBT: Duration = Duration::from_secs(60);
const CERTAIN: Duration = Duration::from_secs(3600);
/// A legacy server may leave the probe unanswered.
const PROBE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Server {
    pub(super) key: Key,
    pub(super) room: Rc<Room>,
    /// As they were when it was made.
    pub(super) settings: Rc<Settings>,
    /// What its process is initialized with: JSON.
    params: String,
    child: RefCell<Option<Rc<Child>>>,
    starting: tokio::sync::Mutex<()>,
    pub(super) pending: RefCell<BTreeMap<u64, Pending>>,
    pub(super) asked: RefCell<BTreeMap<u64, Asked>>,
    last: Cell<u64>,
    crashes: RefCell<Backoff>,
    agreed: RefCell<Option<Message>>,
    pub(super) sessions: RefCell<BTreeMap<String, Weak<Session>>>,
    /// When the last message came or went.
    pub(super) used: Cell<Instant>,
}

/// What the server has asked a client for.
#[derive(Debug)]
pub(super) struct Asked {
    /// As the server has written it.
    pub(super) id: String,
    pub(super) session: Weak<Session>,
}

/// Why there is no process that could be spoken to.
#[derive(Debug, Clone)]
pub(super) enum Unready {
    /// For people.
    Failed(String),
    /// It has answered `initialize` with an error.
    Declined(Box<Message>),
    /// It does not speak the stateless revision.
    Legacy,
}

impl Server {
    pub(super) fn new(key: Key, room: &Rc<Room>, params: String) -> Rc<Server> {
        Rc::new(Server {
            key,
            room: room.clone(),
            settings: room.settings(),
            params,
            child: RefCell::default(),
            starting: tokio::sync::Mutex::default(),
            pending: RefCell::default(),
            asked: RefCell::default(),
            last: Cell::new(0),
            crashes: RefCell::default(),
            agreed: RefCell::default(),
            sessions: RefCell::default(),
            used: Cell::new(Instant::now()),
        })
    }

    pub(super) fn is_dedicated(&self) -> bool {
        matches!(self.key, Key::Session(_))
    }

    fn number(&self) -> u64 {
        self.last.set(self.last.get() + 1);
        self.last.get()
    }

    /// What the process has last answered to `initialize`.
    pub(super) fn agreed(&self) -> Option<Message> {
        self.agreed.borrow().clone()
    }

    pub(super) fn child(&self) -> Option<Rc<Child>> {
        self.child.borrow().clone()
    }

    /// The process, where it can be spoken to at once.
    pub(super) fn live(&self) -> Option<Rc<Child>> {
        self.child().filter(|child| child.ready.get() && child.is_open())
    }

    pub(super) fn sessions(&self) -> Vec<Rc<Session>> {
        self.sessions.borrow().values().filter_map(Weak::upgrade).collect()
    }

    /// The process, started and greeted if it is not there. `first`: the client says itself that it is initialized.
    pub(super) async fn ready(self: &Rc<Self>, first: bool) -> Result<Rc<Child>, Unready> {
        self.used.set(Instant::now());
        if let Some(child) = self.live() {
            return Ok(child);
        }
        // It goes on where whoever wants it leaves: others may wait for the same.
        let started = tokio::task::spawn_local(self.clone().start(first)).await;
        started.unwrap_or_else(|error| Err(Unready::Failed(format!("the MCP server could not be started: {error}"))))
    }

    async fn start(self: Rc<Self>, first: bool) -> Result<Rc<Child>, Unready> {
        let _alone = self.starting.lock().await;
        if let Some(child) = self.live() {
            return Ok(child);
        }
        if let Some(earlier) = self.child() {
            earlier.stop();
            earlier.gone().await;
        }
        self.permitted().await?;
        let settings = self.room.settings();
        self.room.may_start(&settings).map_err(Unready::Failed)?;
        let child = Child::start(&settings, &self.room.guard, &self).map_err(|error| {
            let why = explain(&settings, &error);
            self.room.starts.borrow_mut().failed(Instant::now(), Duration::ZERO, &why, fastrand::f64());
            Unready::Failed(why)
        })?;
        tracing::info!(target: "tidegate::stdio", pool = %settings.pool, pid = child.pid, "started an MCP server");
        self.room.started();
        *self.child.borrow_mut() = Some(child.clone());
        let greeted = match self.key {
            Key::Modern(_) => self.probe(&child).await,
            _ => self.initialize(&child, first, settings.start_timeout).await,
        };
        match greeted {
            Ok(()) => {
                child.ready.set(true);
                self.room.starts.borrow_mut().succeeded();
                Ok(child)
            }
            Err(unready) => {
                child.stop();
                let why = match &unready {
                    Unready::Failed(why) => why.as_str(),
                    // What others are told does not depend on who asks.
                    Unready::Declined(_) if !self.is_dedicated() => "the MCP server does not let itself be initialized",
                    Unready::Declined(_) | Unready::Legacy => return Err(unready),
                };
                tracing::warn!(target: "tidegate::stdio", pool = %settings.pool, pid = child.pid, "{why}");
                self.room.starts.borrow_mut().failed(Instant::now(), Duration::ZERO, why, fastrand::f64());
                Err(unready)
            }
        }
    }

    /// Waits until it may be started.
    async fn permitted(&self) -> Result<(), Unready> {
        for _ in 0..64 {
            let now = Instant::now();
            let (starts, crashes) = (self.room.starts.borrow().permit(now), self.crashes.borrow().permit(now));
            match (starts, crashes) {
                (Permit::Start, Permit::Start) => return Ok(()),
                (Permit::Refused(why), _) | (_, Permit::Refused(why)) => return Err(Unready::Failed(why)),
                (Permit::Wait(one), Permit::Wait(other)) => tokio::time::sleep(one.max(other)).await,
                (Permit::Wait(one), _) | (_, Permit::Wait(one)) => tokio::time::sleep(one).await,
            }
        }
        Err(Unready::Failed("the MCP server cannot be started".to_owned()))
    }

    /// Sends a request of our own.
    async fn ask(&self, child: &Child, method: &str, params: &str, within: Duration) -> Result<Message, String> {
        let (number, (owner, answer)) = (self.number(), oneshot::channel());
        let pending = Pending { owner: Owner::Bridge(owner), id: number.to_string(), token: None };
        self.pending.borrow_mut().insert(number, pending);
        child.send(message::request(number, method, params))?;
        match tokio::time::timeout(within, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => {
                child.gone().await;
                Err(format!("the MCP server ended before it answered {method}: {}", child.how()))
            }
            Err(_) => {
                self.forget(number);
                let last = child.words.last();
                let said = if last.is_empty() { String::new() } else { format!("; its last line: {last}") };
                Err(format!("the MCP server has not answered {method} within {} s{said}", within.as_secs_f64()))
            }
        }
    }

    async fn initialize(self: &Rc<Self>, child: &Rc<Child>, first: bool, within: Duration) -> Result<(), Unready> {
        let answer = self.ask(child, "initialize", &self.params, within).await.map_err(Unready::Failed)?;
        match (answer.result(), first) {
            (Some(_), _) => {}
            (None, true) => return Err(Unready::Declined(Box::new(answer))),
            (None, false) => {
                let code = answer.error_code().unwrap_or(INTERNAL_ERROR);
                return Err(Unready::Failed(format!(
                    "the MCP server does not let itself be initialized again (code {code})"
                )));
            }
        }
        let version = answer.version();
        let earlier = self.agreed.borrow_mut().replace(answer).and_then(|earlier| earlier.version());
        if earlier.is_some() && earlier != version {
            tracing::warn!(target: "tidegate::stdio", pool = %self.settings.pool, pid = child.pid, ?version, ?earlier, "the MCP server speaks another version than the process before it");
        }
        if !(first && self.is_dedicated()) {
            let _ = child.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.into());
            self.restore(child);
        }
        Ok(())
    }

    /// Tells a new process what the sessions had told the one before it.
    fn restore(self: &Rc<Self>, child: &Rc<Child>) {
        let sessions = self.sessions();
        let mut levels = sessions.iter().filter_map(|session| session.level.borrow().clone());
        let mut soft: Vec<(&str, String)> =
            levels.next_back().map(|level| ("logging/setLevel", level)).into_iter().collect();
        let mut uris: Vec<String> =
            sessions.iter().flat_map(|session| session.subscriptions.borrow().clone()).collect();
        uris.sort_unstable();
        uris.dedup();
        soft.extend(uris.iter().map(|uri| ("resources/subscribe", format!(r#"{{"uri":{}}}"#, message::quoted(uri)))));
        for (method, params) in soft {
            let (server, child) = (self.clone(), child.clone());
            tokio::task::spawn_local(async move { server.ask(&child, method, &params, DOUBT).await });
        }
    }

    /// Finds out whether it speaks the stateless revision.
    async fn probe(&self, child: &Child) -> Result<(), Unready> {
        let params = format!(
            r#"{{"_meta":{{"io.modelcontextprotocol/protocolVersion":"{MODERN}","io.modelcontextprotocol/clientInfo":{{"name":"tidegate","version":"{}"}},"io.modelcontextprotocol/clientCapabilities":{{}}}}}}"#,
            env!("CARGO_PKG_VERSION")
        );
        let answer = self.ask(child, "server/discover", &params, PROBE).await;
        let supports = |result: &str| {
            let result: serde_json::Value = serde_json::from_str(result).unwrap_or_default();
            let versions = result.get("supportedVersions").and_then(|versions| versions.as_array().cloned());
            versions.is_some_and(|versions| versions.iter().any(|version| version == MODERN))
        };
        if answer.as_ref().is_ok_and(|answer| answer.result().is_some_and(supports)) {
            return Ok(());
        }
        let span = if answer.is_ok() { CERTAIN } else { DOUBT };
        self.room.legacy_until.set(Some(Instant::now() + span));
        Err(Unready::Legacy)
    }

    /// Sends a client's request, once there is a process to send it to. Whatever comes of it, the exchange is answered.
    pub(super) async fn call(self: Rc<Self>, message: Message, exchange: Rc<Exchange>, session: Option<Rc<Session>>) {
        let failed = match self.ready(false).await {
            // Nobody is there any more who would want it.
            Ok(_) if exchange.left.get() => return,
            Ok(child) => self.send(&child, &message, &exchange, session).err(),
            Err(Unready::Failed(why)) => Some(why),
            Err(Unready::Declined(_)) => Some("the MCP server does not let itself be initialized again".to_owned()),
            Err(Unready::Legacy) => Some(format!("the MCP server does not speak {MODERN} any more")),
        };
        if let Some(why) = failed {
            exchange.queue.finish(message::error(message.id(), INTERNAL_ERROR, &why, None));
        }
    }

    fn send(
        &self,
        child: &Child,
        message: &Message,
        exchange: &Rc<Exchange>,
        session: Option<Rc<Session>>,
    ) -> Result<(), String> {
        if self.pending.borrow().len() >= self.settings.max_pending {
            let most = self.settings.max_pending;
            return Err(format!("{most} requests are in progress at the MCP server already; try again later"));
        }
        let number = self.number();
        let (id, token) = (message.id().to_owned(), message.token().map(str::to_owned));
        let owner = Owner::Client { exchange: exchange.clone(), session };
        self.pending.borrow_mut().insert(number, Pending { owner, id, token });
        self.used.set(Instant::now());
        exchange.number.set(Some(number));
        child.send(message.renumbered(&number.to_string())).inspect_err(|_| {
            self.forget(number);
        })
    }

    /// Nobody waits for it any more. Answers whether it was in progress.
    pub(super) fn forget(&self, number: u64) -> bool {
        self.pending.borrow_mut().remove(&number).is_some()
    }

    /// Sends something that is not answered, if there is a process.
    pub(super) fn tell(&self, line: Bytes) {
        self.used.set(Instant::now());
        if let Some(child) = self.live() {
            let _ = child.send(line);
        }
    }

    /// A number for what the server asks a client.
    pub(super) fn asks_as(&self, asked: Asked) -> u64 {
        let number = self.number();
        self.asked.borrow_mut().insert(number, asked);
        number
    }

    /// Stops its process, to be started again when it is needed.
    pub(super) fn stop(&self, why: &str) {
        if let Some(child) = self.child().filter(|child| child.is_open()) {
            tracing::info!(target: "tidegate::stdio", pool = %self.settings.pool, pid = child.pid, why, "stopping an MCP server");
            child.stop();
        }
    }

    /// Whether its process is one that nobody has used for so long.
    pub(super) fn is_idle(&self, now: Instant, span: Duration) -> bool {
        let rests = self.pending.borrow().is_empty();
        rests && self.starting.try_lock().is_ok() && now.saturating_duration_since(self.used.get()) >= span
    }

    /// Whether it can be forgotten.
    pub(super) fn is_done(&self) -> bool {
        self.child.borrow().is_none() && self.starting.try_lock().is_ok() && self.sessions().is_empty()
    }

    /// Its process has ended, and nothing is left of it.
    pub(super) fn ended(&self, child: &Rc<Child>) {
        let how = child.how();
        let by_itself = !child.was_asked_to_end();
        self.room.ended();
        if by_itself {
            tracing::warn!(target: "tidegate::stdio", pool = %self.settings.pool, pid = child.pid, "the MCP server ended: {how}");
        } else {
            tracing::info!(target: "tidegate::stdio", pool = %self.settings.pool, pid = child.pid, "the MCP server has been stopped");
        }
        if child.ready.get() && by_itself {
            let lived = child.started.elapsed();
            let why = format!("the MCP server ended: {how}");
            self.crashes.borrow_mut().failed(Instant::now(), lived, &why, fastrand::f64());
        }
        *self.child.borrow_mut() = None;
        self.asked.borrow_mut().clear();
        // What is ours learns of it by its sender's end.
        let pending = std::mem::take(&mut *self.pending.borrow_mut());
        for pending in pending.values() {
            if let Some(exchange) = pending.exchange() {
                let what = format!("the MCP server ended: {how}; whether the call had an effect is not known");
                exchange.queue.finish(message::error(&pending.id, INTERNAL_ERROR, &what, None));
            }
        }
    }
}

/// What a shared process is initialized with, whoever comes first: the newest version, and all that some client may be able to answer.
/// The folders of one principal are nothing to another.
pub(super) fn own_params(key: &Key) -> String {
    let roots = if *key == Key::All { "" } else { r#","roots":{}"# };
    format!(
        r#"{{"protocolVersion":"{}","capabilities":{{"sampling":{{}},"elicitation":{{}}{roots}}},"clientInfo":{{"name":"tidegate","version":"{}"}}}}"#,
        LEGACY[0],
        env!("CARGO_PKG_VERSION")
    )
}
