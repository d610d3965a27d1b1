//! What scalers remember over restarts: each pool's state, its decisions, and what was seen.
//!
//! ```text
//! FOLDER/lock                          one process at a time
//! FOLDER/POOL/state.json               replaced whole: written beside, synced, renamed
//! FOLDER/POOL/2026-11-26.history.jsonl a line for each record, and for each outcome that became known later
//! FOLDER/POOL/2026-11-26.10s.jsonl     samples of 10 s, kept for a day
//! FOLDER/POOL/2026-11-26.5m.jsonl      samples of 5 min, kept as long as the history
//! ```
//!
//! All writing happens on a thread of its own. Whoever records only puts a line into a bounded inbox, so a disk that is full, slow or gone holds
//! nobody up: what was recorded last stays readable from memory, a [`Finding`] says what is wrong, and what waits is written once there is room.
//!
//! Why not a database: records are only ever appended and read by time, a torn line costs that line and nothing else, and people can read the
//! files with the tools they have.

mod folder;
mod inbox;
mod line;
mod memory;
mod read;
mod segment;
mod series;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use self::folder::{Folder, TakeError, pool_folder};
use self::inbox::{Inbox, Line};
use self::memory::Memory;
use self::segment::{Kind, day_of};
use self::writer::Writer;
use crate::admin::scaling::{Finding, History, Outcome, Record, Sample, Series};

/// [`Store::keep_pool`] writes no more often than this.
const KEEP_EVERY: Duration = Duration::from_secs(5);
/// How long the end of a process waits for the disk.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The scalers' state and history in a folder of this machine.
///
/// **Cost**: everything that writes only queues, a few microseconds. [`Store::history`], [`Store::at`] and [`Store::series`] answer what is recent
/// from memory and read files for what is older: milliseconds for each day. The first call for a pool reads what the last process has left.
///
/// Can be shared between threads. Dropping it writes what waits, for five seconds at most.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    inbox: Arc<Inbox>,
    pools: Mutex<BTreeMap<String, Memory>>,
    writer: Option<JoinHandle<()>>,
}

/// Why a folder cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process uses it.
    #[error("the scaler's folder {} is in use by another process ({by}); stop that one, or give each its own `scaler.state`", folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// Who: `process 4711`.
        by: String,
    },
    /// The system gives us no thread to write with.
    #[error(
        "cannot start the thread that writes the scaler's history: {0}; raise the limit of threads of this process"
    )]
    Thread(std::io::Error),
}

impl Store {
    /// Opens a folder, making it where it is missing. Decisions are kept for `retention`.
    ///
    /// A folder that cannot be written is no error: it is tried again, and told by [`Store::findings`] meanwhile.
    ///
    /// **Errors**: another process uses the folder, or there is no thread to be had.
    pub fn open(folder: &Path, retention: Duration) -> Result<Store, StoreError> {
        let inbox = Arc::new(Inbox::default());
        let taken = match Folder::take(folder) {
            Ok(taken) => Some(taken),
            Err(TakeError::InUse(by)) => return Err(StoreError::InUse { folder: folder.to_owned(), by }),
            Err(TakeError::Io(error)) => {
                inbox.failed(folder, &error);
                None
            }
        };
        let writer = Writer::new(folder.to_owned(), retention, taken, inbox.clone());
        let builder = std::thread::Builder::new().name("scaler-store".to_owned());
        let writer = builder.spawn(move || writer.run()).map_err(StoreError::Thread)?;
        Ok(Store { folder: folder.to_owned(), inbox, pools: Mutex::default(), writer: Some(writer) })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A pool's state as it was saved last; none where there is none, or none that can be read.
    ///
    /// **Cost**: reads a file, where this process has not saved that pool yet.
    pub fn load_pool(&self, pool: &str) -> Option<serde_json::Value> {
        let saved = self.inbox.saved(pool);
        let text =
            saved.or_else(|| std::fs::read_to_string(pool_folder(&self.folder, pool).join("state.json")).ok())?;
        let read = serde_json::from_str(&text);
        if let Err(error) = &read {
            let folder = self.folder.display();
            tracing::warn!(pool, %error, "the state of this pool's scaler in {folder} cannot be read; it starts without a memory");
        }
        read.ok()
    }

    /// Saves a pool's state at once, in place of the one before: for when something has changed.
    pub fn save_pool(&self, pool: &str, state: &impl Serialize) {
        match serde_json::to_string(state) {
            Ok(text) => self.inbox.state(pool, text),
            Err(error) => tracing::warn!(pool, %error, "the state of this pool's scaler cannot be put into words"),
        }
        self.memory(pool, |memory| memory.saved = Some(Instant::now()));
    }

    /// Saves a pool's state, unless that was done within the last five seconds: for every time it is looked at.
    pub fn keep_pool(&self, pool: &str, state: &impl Serialize) {
        let due = |memory: &mut Memory| memory.saved.is_none_or(|saved| saved.elapsed() >= KEEP_EVERY);
        if self.memory(pool, due) {
            self.save_pool(pool, state);
        }
    }

    /// Adds a decision to its pool's history.
    pub fn record(&self, record: Record) {
        let text = line::of_record(&record);
        self.append(&record.pool, Kind::History, record.decision.at, text);
        self.memory(&record.pool.clone(), |memory| memory.remember(record));
    }

    /// Adds what became of an earlier decision.
    pub fn outcome(&self, pool: &str, id: &str, outcome: Outcome) {
        let now = now();
        let text = line::of_outcome(now, id, &outcome);
        let at = self.memory(pool, |memory| memory.complete(id, outcome));
        // Beside its record, where one who reads that day finds it.
        self.append(pool, Kind::History, at.unwrap_or(now), text);
    }

    /// The decisions from `since` to `until`, both included; those that changed the number of instances, or `all` that are kept. Where there are more
    /// than `limit`, the last ones.
    pub fn history(&self, pool: &str, since: Option<f64>, until: Option<f64>, limit: usize, all: bool) -> History {
        let span = (since.unwrap_or(f64::NEG_INFINITY), until.unwrap_or(f64::INFINITY));
        let (mut records, border) = self.memory(pool, |memory| memory.records(span, all));
        // One more than asked for tells whether there are more.
        let wanted = limit.saturating_add(1);
        if records.len() < wanted && span.0 < border {
            let older = read::records(&pool_folder(&self.folder, pool), span, border, wanted - records.len(), all);
            records.splice(0..0, older);
        }
        let surplus = records.len().saturating_sub(limit);
        records.drain(..surplus);
        History { pool: pool.to_owned(), records, more: surplus > 0 }
    }

    /// The last decision at or before a time.
    pub fn at(&self, pool: &str, at: f64) -> Option<Record> {
        self.history(pool, None, Some(at), 1, true).records.pop()
    }

    /// Adds what was seen in the second (or so) before `sample.at`. Those of a pool have to come in their order.
    pub fn sample(&self, pool: &str, sample: Sample) {
        for (kind, done) in self.memory(pool, |memory| memory.series.add(sample)) {
            self.append(pool, kind, done.at, line::of_sample(&done));
        }
    }

    /// What was seen from `since` to `until`, at the finest step that is kept.
    pub fn series(&self, pool: &str, since: Option<f64>, until: Option<f64>) -> Series {
        let span = (since.unwrap_or(f64::NEG_INFINITY), until.unwrap_or(f64::INFINITY));
        let (recent, border) = self.memory(pool, |memory| memory.series.within(span));
        let mut samples = Vec::new();
        if span.0 < border {
            samples = read::samples(&pool_folder(&self.folder, pool), Kind::Minutes, span, border);
        }
        samples.extend(recent);
        Series { pool: pool.to_owned(), samples }
    }

    /// Whether the history is being written, and if not why.
    pub fn findings(&self) -> Vec<Finding> {
        self.inbox.finding(&self.folder).into_iter().collect()
    }

    /// Waits until all that was handed in is on the disk, at most for so long; whether it is.
    pub fn flush(&self, patience: Duration) -> bool {
        self.inbox.settled(patience)
    }

    fn append(&self, pool: &str, kind: Kind, at: f64, text: String) {
        self.inbox.line(Line { pool: pool.to_owned(), kind, day: day_of(at), text });
    }

    fn memory<T>(&self, pool: &str, act: impl FnOnce(&mut Memory) -> T) -> T {
        let mut pools = lock(&self.pools);
        match pools.get_mut(pool) {
            Some(memory) => act(memory),
            None => {
                let recalled = Memory::recall(&pool_folder(&self.folder, pool), now());
                act(pools.entry(pool.to_owned()).or_insert(recalled))
            }
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let open: Vec<_> =
            lock(&self.pools).iter_mut().map(|(pool, memory)| (pool.clone(), memory.series.close())).collect();
        for (pool, done) in open {
            for (kind, sample) in done {
                self.append(&pool, kind, sample.at, line::of_sample(&sample));
            }
        }
        self.inbox.stop();
        // A disk that hangs would hang us too: then the thread is left behind.
        if self.inbox.ended(LAST_WORDS)
            && let Some(writer) = self.writer.take()
        {
            let _ = writer.join();
        }
    }
}

/// A lock that goes on after a panic elsewhere: what it guards is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
