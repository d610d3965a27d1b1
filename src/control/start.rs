//! Starting and stopping: threads, their runtimes, and who owns what.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::derive::{Keep, derive};
use super::event::{Cause, Event};
use super::handle::Handle;
use super::listeners::Listeners;
use super::names::Names;
use super::reload::{verdict, watched_files};
use super::signal;
use super::state::Control;
use super::systemd;
use super::watch::Watched;
use crate::admin;
use crate::config::model::{Config, Workers};
use crate::config::{self, Problem};
use crate::proxy::Refusal;
use crate::snapshot::{Cell, Snapshot};
use crate::telemetry::access::{AccessLog, Target};
use crate::telemetry::{self, Registry};
use crate::types::{Bind, Clock, Moment};

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The configuration's file.
    pub file: PathBuf,
    /// Read it again whenever it changes.
    pub watch: bool,
    /// Heed SIGTERM, SIGINT, SIGHUP and SIGUSR1, and tell the service manager how things are. For the one Tidegate of a process.
    pub signals: bool,
}

impl Options {
    /// As a service runs: watching its file, heeding signals.
    pub fn service(file: impl Into<PathBuf>) -> Self {
        Options { file: file.into(), watch: true, signals: true }
    }

    /// As a part of another program: watching its file.
    pub fn embedded(file: impl Into<PathBuf>) -> Self {
        Options { signals: false, ..Self::service(file) }
    }
}

/// Why Tidegate did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong; all that is wrong with it.
    #[error("the configuration has {} error(s)", .0.iter().filter(|problem| problem.is_error()).count())]
    Config(Vec<Problem>),
    /// The machine did not give what is needed.
    #[error("{0}")]
    Machine(String),
}

/// A running Tidegate. Dropping it does not stop it; [`Running::stop`] does.
#[derive(Debug)]
pub struct Running {
    handle: Handle,
    addresses: Vec<(String, SocketAddr)>,
    admin: Option<Bind>,
    thread: JoinHandle<()>,
}

impl Running {
    /// Where a listener accepts; of several addresses the first.
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        self.addresses.iter().find(|(name, _)| name == listener).map(|(_, address)| *address)
    }

    /// All addresses that are listened on, with their listeners' names.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.addresses.iter().map(|(name, address)| (name.as_str(), *address))
    }

    /// Where the admin API listens.
    pub fn admin_address(&self) -> Option<&Bind> {
        self.admin.as_ref()
    }

    /// The way to ask it for something.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Finishes what runs, within the configuration's `shutdown_timeout`, and ends.
    pub fn stop(self) {
        // Where control has ended already there is nothing to stop.
        let _ = self.handle.events.send(Event::Shutdown);
        let _ = self.wait();
    }

    /// Waits until it ends by itself: by a signal.
    ///
    /// **Errors**: control has panicked; requests may still be answered, but nothing would ever change again.
    pub fn wait(self) -> std::thread::Result<()> {
        self.thread.join()
    }
}

/// What the starting thread is told: how to reach what runs, and where it listens.
type Started = (Handle, Vec<(String, SocketAddr)>, Option<Bind>);

/// Starts: reads the configuration, binds, starts the threads. Connections are accepted when this returns.
///
/// **Errors**: whatever keeps it from starting; nothing is left behind then.
pub fn start(options: Options) -> Result<Running, StartError> {
    let (ready, answer) = std::sync::mpsc::channel();
    let builder = std::thread::Builder::new().name("control".to_owned());
    let thread = builder
        .spawn(move || control_thread(options, &ready))
        .map_err(|error| StartError::Machine(format!("cannot start a thread: {error}")))?;
    let ended = |_| StartError::Machine("the control thread ended at its start".to_owned());
    let (handle, addresses, admin) = answer.recv().map_err(ended)??;
    Ok(Running { handle, addresses, admin, thread })
}

/// The control thread, from its start to its end.
fn control_thread(options: Options, ready: &Sender<Result<Started, StartError>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(StartError::Machine(format!("cannot start a runtime: {error}"))));
            return;
        }
    };
    runtime.block_on(async {
        match prepare(options) {
            Ok((mut control, events, api)) => {
                let handle = control.handle();
                let address = api.as_ref().map(|api| api.address().clone());
                control.serve_admin(api);
                if control.options.signals {
                    // Before anybody is told that we are ready: a signal that nobody heeds yet ends the process.
                    match signal::Signals::heeded() {
                        Ok(signals) => drop(tokio::task::spawn_local(signals.pass_on(control.sender.clone()))),
                        Err(error) => tracing::error!(%error, "signals cannot be heeded"),
                    }
                }
                if control.options.signals {
                    systemd::ready();
                }
                let _ = ready.send(Ok((handle, control.addresses(), address)));
                control.run(events).await;
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
    });
}

/// Everything up to the point where requests are answered.
fn prepare(options: Options) -> Result<(Control, UnboundedReceiver<Event>, Option<admin::Bound>), StartError> {
    let outcome = config::from_disk(&options.file);
    let Some(config) = outcome.config.clone() else { return Err(StartError::Config(outcome.problems)) };
    super::log::apply(&config.log);
    outcome.warnings().for_each(|warning| tracing::warn!("{}", warning.render(false)));
    // A program that embeds us is whoever it wants to be.
    if let Some(user) = config.user.as_deref().filter(|_| options.signals) {
        super::user::go_on_as(user, &outcome).map_err(StartError::Machine)?;
    }
    let workers = worker_count(&config);
    let registry = Registry::new(workers, config.admin.max_series, Refusal::LABELS);
    let log = AccessLog::start(Target::Off, registry.log.clone())
        .map_err(|error| StartError::Machine(format!("cannot start the access log: {error}")))?;
    let mut keep = Keep::new(registry.clone(), log, options.file.parent().map(PathBuf::from).unwrap_or_default());
    let mut listeners = Listeners::new(workers);
    let now = Clock::now();
    let refused = |problems: Vec<String>| StartError::Machine(problems.join("\n"));
    let mut derived = derive(&config, &keep, &mut listeners, now).map_err(refused)?;
    let bound = listeners.bind(&config).map_err(StartError::Machine)?;
    let api = bind_admin(&config)?;
    keep.adopt(&mut derived).map_err(StartError::Machine)?;

    let (sender, events) = unbounded_channel();
    let first = Arc::new(Snapshot {
        generation: 0,
        config: config.clone(),
        listeners: derived.listeners,
        table: derived.table,
        routes: derived.routes,
        pools: Vec::new(),
        targets: Default::default(),
        pages: derived.pages,
        access_log: derived.access_log,
        keys: derived.keys,
    });
    let mut watched = Watched::new();
    if options.watch {
        watched.watch(&watched_files(&outcome));
    }
    let mut control = Control {
        cell: Cell::new(first.clone()),
        current: first,
        keep,
        pools: Default::default(),
        leaving: Vec::new(),
        listeners,
        names: Names::default(),
        watched,
        sender,
        cut_epoch: Arc::new(AtomicU64::new(0)),
        look_at: Moment::NEVER,
        look_by: Moment::NEVER,
        keep_house_at: now,
        started: now,
        last_verdict: verdict(true, 1, Cause::Start, &[]),
        stopping: Arc::new(AtomicBool::new(false)),
        api: None,
        unsettled: false,
        workers: Vec::new(),
        scalers: None,
        line: Arc::default(),
        options,
    };
    control.adopt_pools(&config, derived.far, now);
    let pools = control.derive_pools(now);
    control.publish(Snapshot { pools, ..(*control.current).clone() });
    registry.control.reloaded(telemetry::Outcome::Ok, control.current.generation);
    control.start_workers(workers).map_err(StartError::Machine)?;
    let steps = control.listeners.commit(bound, &control.current.listeners, &control.keep.registry);
    control.take_steps(steps);
    control.start_scalers(&config);
    Ok((control, events, api))
}

/// The admin API. Where nobody has chosen its address and it is taken, by another Tidegate most likely, we go without it.
fn bind_admin(config: &Config) -> Result<Option<admin::Bound>, StartError> {
    match admin::Bound::bind(&config.admin) {
        Ok(bound) => Ok(bound),
        Err(error) if config.admin.bind == crate::config::model::Admin::default().bind => {
            tracing::warn!("{error}: going on without it; set admin.bind to another address, or to \"off\"");
            Ok(None)
        }
        Err(error) => Err(StartError::Machine(error.to_string())),
    }
}

/// How many workers there are to be: one for each CPU that this process may use, where nobody says otherwise.
fn worker_count(config: &Config) -> usize {
    match config.workers {
        Workers::Count(count) => usize::from(count).max(1),
        // Honours affinity and cgroup quotas.
        Workers::Auto => std::thread::available_parallelism().map_or(1, usize::from),
    }
}
