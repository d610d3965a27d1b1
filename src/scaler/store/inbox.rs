use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use super::segment::Kind;
use super::{lock, now};
use crate::admin::scaling::Finding;

/// What may wait while nothing can be written; then the oldest lines are dropped.
const BYTES: usize = 8 << 20;
/// The pause behind a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// A line for a segment.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) pool: String,
    pub(super) kind: Kind,
    pub(super) day: String,
    /// Without its end.
    pub(super) text: String,
}

/// What is taken out at once.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// By pool.
    pub(super) states: BTreeMap<String, String>,
    /// In their order.
    pub(super) lines: VecDeque<Line>,
}

/// What waits to be written. Its lock is never held while anything is written.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    /// Something came, or the end.
    news: Condvar,
    /// The writer is through with a batch, or ended.
    done: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    batch: Batch,
    bytes: usize,
    /// The last state of each pool, written or not.
    saved: BTreeMap<String, String>,
    /// The writer has taken something out and is not through with it.
    busy: bool,
    stop: bool,
    ended: bool,
    /// Lines that there was no room for since writing began to fail.
    dropped: u64,
    failure: Option<Failure>,
}

#[derive(Debug)]
struct Failure {
    what: String,
    advice: &'static str,
    since: f64,
    again: Instant,
}

impl Inbox {
    /// Queues a state in place of the one that waits.
    pub(super) fn state(&self, pool: &str, text: String) {
        let mut waiting = lock(&self.waiting);
        waiting.saved.insert(pool.to_owned(), text.clone());
        waiting.batch.states.insert(pool.to_owned(), text);
        self.news.notify_one();
    }

    /// The state that was queued last.
    pub(super) fn saved(&self, pool: &str) -> Option<String> {
        lock(&self.waiting).saved.get(pool).cloned()
    }

    /// Queues a line.
    pub(super) fn line(&self, line: Line) {
        let mut waiting = lock(&self.waiting);
        waiting.bytes += line.text.len();
        waiting.batch.lines.push_back(line);
        waiting.bound();
        self.news.notify_one();
    }

    /// Takes all that waits, as soon as there is something and the pause behind a failure has passed; none at the end.
    pub(super) fn take(&self) -> Option<Batch> {
        let mut waiting = lock(&self.waiting);
        loop {
            let pause = waiting.failure.as_ref().map(|failure| failure.again.saturating_duration_since(Instant::now()));
            let paused = pause.is_some_and(|pause| !pause.is_zero()) && !waiting.stop;
            // A failure is looked into also while nothing waits, so that it is not told for longer than it lasts.
            let something = !waiting.batch.is_empty() || (waiting.failure.is_some() && !waiting.stop);
            if something && !paused {
                waiting.busy = true;
                waiting.bytes = 0;
                return Some(std::mem::take(&mut waiting.batch));
            }
            if waiting.stop {
                return None;
            }
            let pause = pause.filter(|_| paused).unwrap_or(Duration::from_secs(3600));
            waiting = self.news.wait_timeout(waiting, pause).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// All that was taken is written.
    pub(super) fn written(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.busy = false;
        if let Some(failure) = waiting.failure.take() {
            let seconds = (now() - failure.since).max(0.0);
            tracing::info!("the scaler's history is being written again, after {seconds:.0} s");
        }
        waiting.dropped = 0;
        self.done.notify_all();
    }

    /// What was taken could not be written: it waits again, in front of what has come since.
    pub(super) fn give_back(&self, batch: Batch, folder: &Path, error: &io::Error) {
        let mut waiting = lock(&self.waiting);
        for (pool, text) in batch.states {
            waiting.batch.states.entry(pool).or_insert(text);
        }
        for line in batch.lines.into_iter().rev() {
            waiting.bytes += line.text.len();
            waiting.batch.lines.push_front(line);
        }
        waiting.bound();
        drop(waiting);
        self.failed(folder, error);
    }

    /// Writing does not work, for this reason.
    pub(super) fn failed(&self, folder: &Path, error: &io::Error) {
        let mut waiting = lock(&self.waiting);
        waiting.busy = false;
        let (what, advice) = (error.to_string(), advice(error));
        if waiting.failure.as_ref().is_none_or(|failure| failure.what != what) {
            tracing::warn!("cannot write the scaler's history to {}: {what}; {advice}", folder.display());
        }
        let since = waiting.failure.as_ref().map_or_else(now, |failure| failure.since);
        waiting.failure = Some(Failure { what, advice, since, again: Instant::now() + PAUSE });
        self.done.notify_all();
    }

    /// The failure in words, while there is one.
    pub(super) fn finding(&self, folder: &Path) -> Option<Finding> {
        let waiting = lock(&self.waiting);
        let failure = waiting.failure.as_ref()?;
        let (count, dropped) = (waiting.batch.lines.len(), waiting.dropped);
        let seconds = (now() - failure.since).max(0.0);
        let mut text = format!(
            "state and history have not been written to {} for {seconds:.0} s: {}; {count} lines wait in memory",
            folder.display(),
            failure.what
        );
        if dropped > 0 {
            text.push_str(&format!(", {dropped} older ones were dropped"));
        }
        Some(Finding {
            code: "HISTORY_NOT_WRITTEN".to_owned(),
            severity: "warning".to_owned(),
            pool: None,
            text,
            advice: format!("{}; it is tried again each second, and scaling goes on meanwhile", failure.advice),
        })
    }

    /// Waits until nothing waits, or writing fails, or the time is over; whether nothing waits.
    pub(super) fn settled(&self, patience: Duration) -> bool {
        self.until(patience, |waiting| waiting.failure.is_some() || (waiting.batch.is_empty() && !waiting.busy));
        let waiting = lock(&self.waiting);
        waiting.batch.is_empty() && !waiting.busy
    }

    /// Asks the writer to write what is left and end.
    pub(super) fn stop(&self) {
        lock(&self.waiting).stop = true;
        self.news.notify_one();
    }

    /// Says that the writer has ended.
    pub(super) fn end(&self) {
        lock(&self.waiting).ended = true;
        self.done.notify_all();
    }

    /// Whether the writer has been asked to end.
    pub(super) fn is_stopped(&self) -> bool {
        lock(&self.waiting).stop
    }

    /// Waits for the writer's end.
    pub(super) fn ended(&self, patience: Duration) -> bool {
        self.until(patience, |waiting| waiting.ended)
    }

    fn until(&self, patience: Duration, holds: impl Fn(&Waiting) -> bool) -> bool {
        let waiting = lock(&self.waiting);
        let waited = self.done.wait_timeout_while(waiting, patience, |waiting| !holds(waiting));
        !waited.unwrap_or_else(std::sync::PoisonError::into_inner).1.timed_out()
    }
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.states.is_empty() && self.lines.is_empty()
    }
}

impl Waiting {
    fn bound(&mut self) {
        while self.bytes > BYTES
            && let Some(line) = self.batch.lines.pop_front()
        {
            self.bytes -= line.text.len();
            self.dropped += 1;
        }
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "make room on that disk, or shorten `scaler.retention`"
        }
        io::ErrorKind::PermissionDenied => {
            "let this process's user write to the folder, or name another one in `scaler.state`"
        }
        io::ErrorKind::ReadOnlyFilesystem => "mount it writable, or name another folder in `scaler.state`",
        io::ErrorKind::ResourceBusy => "stop the other process, or give each its own `scaler.state`",
        _ => "see to the folder, or name another one in `scaler.state`",
    }
}
