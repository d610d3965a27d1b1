//! The way to ask control for something, from any thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::event::{Cause, Event};
use super::reload::verdict;
use crate::admin::model::{Status, UpstreamStatus, Verdict};
use crate::admin::scaling::{Answer, Ask, AskError};
use crate::admin::{self, Change, ChangeError};
use crate::config::{self, Secrets};
use crate::scaler::engine::ScalerLine;
use crate::snapshot::{Cell, Replica, Snapshot};
use crate::telemetry::Registry;

/// Asks control. Cheap to clone; what is asked is answered by control's own loop, one thing after the other.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) events: UnboundedSender<Event>,
    pub(super) cell: Arc<Cell>,
    pub(super) registry: Arc<Registry>,
    pub(super) stopping: Arc<AtomicBool>,
    /// The way to the scalers, once there are any.
    pub(super) line: Arc<OnceLock<ScalerLine>>,
}

impl Handle {
    /// The tables in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.cell.load()
    }

    /// All counters.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Says which replicas a pool has, all of them each time, and what a member takes at once where that is learned. The same again changes
    /// nothing; a pool that is not in the configuration gets none.
    pub fn replicas(&self, pool: &Arc<str>, replicas: Vec<Replica>, learned: Option<u32>) {
        // Control ends last; without it there is nobody to tell.
        let _ = self.events.send(Event::Replicas { pool: pool.clone(), replicas, max_concurrency: learned });
    }

    async fn ask<T>(&self, event: impl FnOnce(oneshot::Sender<T>) -> Event) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.events.send(event(reply)).ok()?;
        answer.await.ok()
    }
}

/// The answer to whoever asks too late.
pub(super) const ENDING: &str = "Tidegate is shutting down";

impl admin::Control for Handle {
    async fn status(&self) -> Option<Status> {
        self.ask(|reply| Event::Status { reply }).await
    }

    async fn change(&self, pool: &str, upstream: &str, change: Change) -> Result<UpstreamStatus, ChangeError> {
        let (pool, upstream) = (pool.to_owned(), upstream.to_owned());
        let answer = self.ask(|reply| Event::Operate { pool, upstream, change, reply }).await;
        answer.unwrap_or(Err(ChangeError::Impossible(ENDING.to_owned())))
    }

    async fn scaler(&self, ask: Ask) -> Result<Answer, AskError> {
        match self.line.get() {
            Some(line) => line.ask(ask).await,
            None => Err(AskError::NoScaler),
        }
    }

    async fn reload(&self) -> Verdict {
        let answer = self.ask(|reply| Event::Reload { cause: Cause::Admin, reply: Some(reply) }).await;
        answer.unwrap_or_else(|| verdict(false, self.cell.generation(), Cause::Admin, &[ENDING.to_owned()]))
    }

    async fn config(&self) -> String {
        config::show(&self.cell.load().config, Secrets::Hidden)
    }

    async fn metrics(&self) -> Bytes {
        self.registry.page().into()
    }

    fn ready(&self) -> bool {
        !self.stopping.load(Ordering::Relaxed)
    }
}
