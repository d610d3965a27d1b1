//! All sessions and servers of a bridge.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};

use super::backoff::Backoff;
use super::guard::Guard;
use super::message::{INTERNAL_ERROR, cancelled, error};
use super::queue::Queue;
use super::server::{Key, Server, own_params};
use super::session::{Abilities, Session};
use super::settings::{Settings, Share};

/// What a bridge has at the moment, for status pages and metrics.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) sessions: AtomicUsize,
    pub(super) processes: AtomicUsize,
    /// Since the bridge was opened.
    pub(super) starts: AtomicUsize,
}

#[derive(Debug)]
pub(super) struct Room {
    settings: RefCell<Rc<Settings>>,
    pub(super) counts: Arc<Counts>,
    pub(super) guard: Rc<Guard>,
    sessions: RefCell<HashMap<String, Rc<Session>>>,
    /// Those that new sessions and requests go to.
    servers: RefCell<HashMap<Key, Rc<Server>>>,
    /// Also those that only old sessions use.
    all: RefCell<Vec<Rc<Server>>>,
    /// Failures of the command to start, whoever it is for.
    pub(super) starts: RefCell<Backoff>,
    /// Until then the servers are taken for such that do not speak the stateless revision.
    pub(super) legacy_until: Cell<Option<Instant>>,
    swept: Cell<Instant>,
    closed: Cell<bool>,
}

impl Room {
    pub(super) fn new(settings: &Settings, counts: &Arc<Counts>) -> Rc<Room> {
        Rc::new(Room {
            settings: RefCell::new(Rc::new(settings.clone())),
            counts: counts.clone(),
            guard: Rc::default(),
            sessions: RefCell::default(),
            servers: RefCell::default(),
            all: RefCell::default(),
            starts: RefCell::default(),
            legacy_until: Cell::new(None),
            swept: Cell::new(Instant::now()),
            closed: Cell::new(false),
        })
    }

    pub(super) fn settings(&self) -> Rc<Settings> {
        self.settings.borrow().clone()
    }

    /// Other settings: they hold for what is started from now on.
    pub(super) fn update(&self, settings: &Settings) {
        let earlier = self.settings.replace(Rc::new(settings.clone()));
        if !earlier.runs_the_same(settings) {
            // What has failed was something else.
            self.starts.borrow_mut().succeeded();
            self.legacy_until.set(None);
        }
    }

    /// Whether one more process may be started.
    pub(super) fn may_start(&self, settings: &Settings) -> Result<(), String> {
        let most = settings.max_processes;
        if self.closed.get() {
            return Err("the bridge to the MCP server is ending".to_owned());
        }
        if self.counts.processes.load(Relaxed) >= most {
            return Err(format!("{most} MCP servers run already (`max_processes`); try again when one has ended"));
        }
        Ok(())
    }

    pub(super) fn started(&self) {
        self.counts.processes.fetch_add(1, Relaxed);
        self.counts.starts.fetch_add(1, Relaxed);
    }

    pub(super) fn ended(&self) {
        self.counts.processes.fetch_sub(1, Relaxed);
    }

    pub(super) fn is_legacy(&self) -> bool {
        self.legacy_until.get().is_some_and(|until| Instant::now() < until)
    }

    /// The server that a key's requests go to.
    pub(super) fn server(self: &Rc<Self>, key: Key) -> Rc<Server> {
        let settings = self.settings();
        let found = self.servers.borrow().get(&key).cloned();
        if let Some(found) = found.filter(|found| found.settings.runs_the_same(&settings)) {
            return found;
        }
        let params = own_params(&key);
        let server = self.add(key.clone(), params);
        self.servers.borrow_mut().insert(key, server.clone());
        server
    }

    fn add(self: &Rc<Self>, key: Key, params: String) -> Rc<Server> {
        let server = Server::new(key, self, params);
        self.all.borrow_mut().push(server.clone());
        server
    }

    /// The server for a session that is to be, with the id that the session will have.
    pub(super) fn server_of(self: &Rc<Self>, principal: &str, params: &str) -> Result<(String, Rc<Server>), String> {
        let id = session_id()?;
        let server = match self.settings().share {
            Share::Session => self.add(Key::Session(id.clone()), params.to_owned()),
            Share::Principal => self.server(Key::Principal(principal.to_owned())),
            Share::All => self.server(Key::All),
        };
        Ok((id, server))
    }

    /// A client has been initialized.
    ///
    /// **Errors**: where there are as many as there may be, and all are in use.
    pub(super) fn admit(
        &self,
        id: String,
        server: &Rc<Server>,
        principal: &str,
        params: &str,
    ) -> Result<Rc<Session>, String> {
        let most = self.settings().max_sessions;
        while self.sessions.borrow().len() >= most {
            let all = self.sessions.borrow();
            let oldest = all.values().filter(|one| one.open.get() == 0).min_by_key(|one| one.used.get()).cloned();
            drop(all);
            let Some(oldest) = oldest else {
                return Err(format!("{most} sessions are in use already; try again later"));
            };
            self.dismiss(&oldest);
        }
        let session = Rc::new(Session {
            id: id.clone(),
            principal: principal.to_owned(),
            server: server.clone(),
            abilities: Abilities::of(params),
            stream: RefCell::default(),
            waiting: Queue::default(),
            subscriptions: RefCell::default(),
            level: RefCell::default(),
            open: Cell::new(0),
            used: Cell::new(Instant::now()),
        });
        server.sessions.borrow_mut().insert(id.clone(), Rc::downgrade(&session));
        self.sessions.borrow_mut().insert(id, session.clone());
        self.counts.sessions.store(self.sessions.borrow().len(), Relaxed);
        Ok(session)
    }

    /// A session, for the principal that it was made for.
    pub(super) fn session(&self, id: &str, principal: &str) -> Option<Rc<Session>> {
        self.sessions.borrow().get(id).filter(|session| session.principal == principal).cloned()
    }

    /// Ends a session.
    pub(super) fn dismiss(&self, session: &Rc<Session>) {
        self.sessions.borrow_mut().remove(&session.id);
        self.counts.sessions.store(self.sessions.borrow().len(), Relaxed);
        let server = &session.server;
        server.sessions.borrow_mut().remove(&session.id);
        if let Some(stream) = session.stream.borrow_mut().take() {
            stream.end();
        }
        if server.is_dedicated() {
            return server.stop("its session has ended");
        }
        server.leaves(session);
    }

    /// Does so unless it has just been done.
    pub(super) fn sweep_if_due(&self, pace: Duration) {
        if self.swept.get().elapsed() >= pace {
            self.sweep();
            self.swept.set(Instant::now());
        }
    }

    /// Stops what is idle and forgets who has gone.
    fn sweep(&self) {
        let (now, settings) = (Instant::now(), self.settings());
        let sessions: Vec<Rc<Session>> = self.sessions.borrow().values().cloned().collect();
        for session in sessions.iter().filter(|session| session.open.get() == 0) {
            let span = now.saturating_duration_since(session.used.get());
            if span >= settings.session_idle {
                self.dismiss(session);
            } else if span >= settings.abandoned && session.server.is_dedicated() {
                session.server.stop("its client is not there");
            }
        }
        for server in self.all.borrow().iter() {
            // The client of a session that never came to be has left while it was made.
            let nobodys = server.is_dedicated() && server.sessions().is_empty();
            let span = if nobodys { settings.abandoned.min(settings.idle_timeout) } else { settings.idle_timeout };
            if server.is_idle(now, span) {
                server.stop("it is idle");
            }
        }
        self.all.borrow_mut().retain(|server| !server.is_done());
        self.servers.borrow_mut().retain(|_, server| !server.is_done());
    }

    /// Lets go of all; what still runs is killed with the tasks that attend it.
    pub(super) fn abandon(&self) {
        self.closed.set(true);
        for server in std::mem::take(&mut *self.all.borrow_mut()) {
            if let Some(child) = server.child() {
                child.kill();
            }
        }
        self.servers.borrow_mut().clear();
        self.sessions.borrow_mut().clear();
    }

    /// Stops all processes; nothing is started any more.
    pub(super) async fn close(&self) {
        self.closed.set(true);
        let all = std::mem::take(&mut *self.all.borrow_mut());
        self.servers.borrow_mut().clear();
        for session in std::mem::take(&mut *self.sessions.borrow_mut()).values() {
            if let Some(stream) = session.stream.borrow_mut().take() {
                stream.end();
            }
        }
        let children: Vec<_> = all.iter().filter_map(|server| server.child()).collect();
        children.iter().for_each(|child| child.stop());
        for child in children {
            child.gone().await;
        }
    }
}

impl Server {
    /// A session that shares it has ended: what is in progress for it is cancelled, what was asked of it is answered.
    fn leaves(&self, session: &Rc<Session>) {
        let is_its = |other: Option<&Rc<Session>>| other.is_some_and(|other| Rc::ptr_eq(other, session));
        let pending: Vec<u64> =
            self.pending.borrow().iter().filter(|(_, one)| is_its(one.session())).map(|(number, _)| *number).collect();
        for number in pending {
            let pending = self.pending.borrow_mut().remove(&number);
            self.tell(cancelled(number));
            if let Some((pending, exchange)) = pending.as_ref().and_then(|one| Some((one, one.exchange()?))) {
                exchange.queue.finish(error(&pending.id, INTERNAL_ERROR, "the session has ended", None));
            }
        }
        let mut gone = Vec::new();
        self.asked.borrow_mut().retain(|_, asked| {
            let is_its = is_its(asked.session.upgrade().as_ref());
            gone.extend(is_its.then(|| error(&asked.id, INTERNAL_ERROR, "the client has gone", None)));
            !is_its
        });
        gone.into_iter().for_each(|answer| self.tell(answer));
    }
}

/// As nobody can guess it: 128 random bits.
fn session_id() -> Result<String, String> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "the system gives no random numbers".to_owned())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
