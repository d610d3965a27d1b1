//! Instances that are processes of this machine: started from a command, each on a port or socket of its own.
//!
//! They belong to themselves: a process group of their own, output to a file, no death signal, so that they outlive Tidegate however it
//! ends. What is known of each is in a record beside its output in the state folder, written before the process is made and again when its
//! number is known; it is found again by process number, start time and boot. Where the record is lost too, by the marks in its
//! environment ([`marks`]). Whatever was left in an ended one's group, or carries its marks, is ended with it.
//!
//! It never retries, never decides, and never blocks its thread: files and `/proc` are read on the runtime's blocking threads.
//!
//! Why not a crate for process groups: they tie children to the parent's life, which is what must not be. Why not `setsid`: it needs code
//! between fork and exec; a group of its own is what a terminal's Ctrl-C does not reach and what one signal ends.

mod attend;
mod cgroup;
mod launch;
mod marks;
mod output;
mod port;
pub(crate) mod proc;
mod record;
mod spec;
mod takeover;
mod usage;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::LocalBoxFuture;
use tokio::sync::{Notify, watch};

pub(crate) use launch::OURS_ALONE;
pub(crate) use output::clean;
pub use port::ports;
pub use spec::spec;

use super::{Driver, DriverError, ErrorKind, Found, InstanceId, Life, Order, Usage};
use crate::balance::stable_hash;
use crate::config::model;
use crate::types::Address;
use cgroup::Cgroups;
use record::Record;

/// An ended instance that nobody clears away is forgotten after so long.
const FORGET_AFTER: f64 = 600.0;

/// Makes instances of one pool as processes of this machine.
#[derive(Debug)]
pub struct ProcessDriver {
    shared: Arc<Shared>,
    /// What follows the output ends with this driver, and not with the instances.
    here: Arc<()>,
}

/// What the driver shares with the tasks that attend its instances.
#[derive(Debug)]
struct Shared {
    pool: String,
    proxy: String,
    /// The pool's own folder.
    folder: PathBuf,
    /// Tells this state folder's processes from those of another Tidegate.
    state: String,
    settings: Mutex<Arc<model::Process>>,
    instances: Mutex<BTreeMap<InstanceId, Instance>>,
    changed: Notify,
    /// What was there before this driver has been looked for.
    looked: AtomicBool,
    /// Nothing is found twice.
    looking: tokio::sync::Mutex<()>,
    cgroups: OnceLock<Option<Cgroups>>,
}

#[derive(Debug)]
struct Instance {
    record: Record,
    life: Life,
    /// By when it has to have stopped, once it was asked to.
    stop: watch::Sender<Option<Instant>>,
    /// How far its output has been read.
    read: u64,
    /// CPU seconds at the last look.
    sample: Option<(Instant, f64)>,
}

impl ProcessDriver {
    /// One for a pool. `folder` is where state is kept (below `process/POOL`); `proxy` is this proxy's name, for people.
    ///
    /// Another one on the same folder finds the same processes.
    pub fn new(pool: &str, settings: &model::Process, folder: &Path, proxy: &str) -> ProcessDriver {
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let shared = Shared {
            pool: pool.to_owned(),
            proxy: proxy.to_owned(),
            state: format!("{:016x}", stable_hash(folder.as_os_str().as_encoded_bytes())),
            folder: folder.join("process").join(pool),
            settings: Mutex::new(Arc::new(settings.clone())),
            instances: Mutex::default(),
            changed: Notify::new(),
            looked: AtomicBool::new(false),
            looking: tokio::sync::Mutex::default(),
            cgroups: OnceLock::new(),
        };
        ProcessDriver { shared: Arc::new(shared), here: Arc::new(()) }
    }

    /// Other settings, after a reload: they hold for what is started and stopped from now on.
    pub fn configure(&self, settings: &model::Process) {
        *lock(&self.shared.settings) = Arc::new(settings.clone());
    }

    /// Finds what is there already; what that takes is done once, later only what other proxies on the same folder have started is.
    async fn look(&self) -> Result<(), DriverError> {
        let _looking = self.shared.looking.lock().await;
        let shared = self.shared.clone();
        let first = !self.shared.looked.load(Ordering::Acquire);
        blocking(move || shared.take_over(first)).await?;
        if first {
            self.shared.looked.store(true, Ordering::Release);
            output::follow(&self.shared, &self.here);
        }
        Ok(())
    }

    async fn launch(&self, order: &Order) -> Result<(), DriverError> {
        if !self.shared.looked.load(Ordering::Acquire) {
            self.look().await?;
        }
        let (shared, order) = (self.shared.clone(), order.clone());
        blocking(move || shared.launch(&order)).await?
    }
}

impl Driver for ProcessDriver {
    fn kind(&self) -> &'static str {
        "process"
    }

    fn list(&self) -> LocalBoxFuture<'_, Result<Vec<Found>, DriverError>> {
        Box::pin(async move {
            self.look().await?;
            let instances = lock(&self.shared.instances);
            Ok(instances.values().map(found).collect())
        })
    }

    fn start<'a>(&'a self, order: &'a Order) -> LocalBoxFuture<'a, Result<(), DriverError>> {
        Box::pin(self.launch(order))
    }

    fn stop<'a>(&'a self, id: &'a InstanceId, grace: Duration) -> LocalBoxFuture<'a, Result<(), DriverError>> {
        let (shared, id) = (self.shared.clone(), id.clone());
        Box::pin(async move { blocking(move || shared.stop(&id, grace)).await? })
    }

    fn usage(&self) -> LocalBoxFuture<'_, Result<Vec<(InstanceId, Usage)>, DriverError>> {
        let shared = self.shared.clone();
        Box::pin(async move { blocking(move || shared.usage()).await })
    }

    fn changed(&self) -> LocalBoxFuture<'_, ()> {
        Box::pin(self.shared.changed.notified())
    }
}

fn found(instance: &Instance) -> Found {
    let record = &instance.record;
    let pid = record.process.as_ref().map(|process| format!("pid {}", process.pid));
    Found {
        id: record.id.clone(),
        address: address(record),
        life: instance.life.clone(),
        spec: Some(record.spec.clone()),
        started: Some(record.started),
        generation: record.generation,
        detail: pid.unwrap_or_default(),
        zone: None,
    }
}

fn address(record: &Record) -> Option<Address> {
    match (&record.socket, record.port) {
        (Some(socket), _) => Some(Address::Unix(socket.clone())),
        (None, Some(port)) => Some(Address::Ip(([127, 0, 0, 1], port).into())),
        (None, None) => None,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, DriverError> {
    let failed = |error: tokio::task::JoinError| DriverError {
        what: format!("the process driver failed: {error}"),
        advice: "this is a fault of Tidegate: please report it with the log".to_owned(),
        kind: ErrorKind::Unreachable,
    };
    tokio::task::spawn_blocking(work).await.map_err(failed)
}

/// Nothing is ever left half done under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds since 1970.
fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
