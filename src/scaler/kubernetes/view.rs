//! What is known of the workload without asking: written by those who follow it, read by the driver.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::pods::Seen;
use super::{DriverError, Found};

/// Shared by the driver and its two tasks.
#[derive(Debug, Default)]
pub(super) struct View {
    known: Mutex<Known>,
    /// Something has changed.
    news: Notify,
    /// The first answer of a kind has come, good or bad.
    settled: Notify,
    /// The workload is worth a look before its time.
    look: Notify,
}

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// By name; nothing before the first list.
    pub(super) pods: Option<BTreeMap<String, Seen>>,
    /// Why the pods may have changed without our knowing.
    pub(super) blind: Option<DriverError>,
    /// How many there are to be, by the scale subresource.
    pub(super) replicas: Option<i32>,
    /// Whether it has been asked who else scales.
    pub(super) asked_for_rivals: bool,
    /// Who else scales the same workload.
    pub(super) rival: Option<DriverError>,
    /// Why there are fewer pods than there are to be.
    pub(super) full: Option<DriverError>,
    /// The nodes' zones; none where a node has none.
    pub(super) zones: HashMap<String, Option<String>>,
}

impl Known {
    /// How many pods the workload's controller counts.
    pub(super) fn active(&self) -> usize {
        self.pods.iter().flatten().filter(|(_, pod)| pod.active).count()
    }

    /// Whether pods are missing that the controller should have made.
    pub(super) fn is_short(&self) -> bool {
        self.replicas.is_some_and(|replicas| i64::from(replicas) > self.active() as i64)
    }

    fn found(&self) -> Vec<Found> {
        let zone = |pod: &Seen| pod.node.as_ref().and_then(|node| self.zones.get(node)).cloned().flatten();
        let found = |pod: &Seen| Found { zone: pod.found.zone.clone().or_else(|| zone(pod)), ..pod.found.clone() };
        self.pods.iter().flatten().map(|(_, pod)| found(pod)).collect()
    }
}

impl View {
    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing that holds it can panic half way through a change.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known, and tells those who wait for it.
    pub(super) fn learn<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        let answer = change(&mut self.known());
        self.news.notify_one();
        self.settled.notify_waiters();
        answer
    }

    /// Ready when something has been learnt since the last time.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    pub(super) fn look_soon(&self) {
        self.look.notify_one();
    }

    pub(super) async fn look_wanted(&self) {
        self.look.notified().await;
    }

    /// The pods, once they are known; why not, if they are not within `patience`.
    pub(super) async fn found(
        &self,
        patience: Duration,
        never: impl FnOnce() -> DriverError,
    ) -> Result<Vec<Found>, DriverError> {
        let known = |known: &Known| match &known.blind {
            Some(error) => Some(Err(error.clone())),
            None => known.pods.is_some().then(|| Ok(known.found())),
        };
        self.once(patience, known).await.unwrap_or_else(|| Err(never()))
    }

    /// What `look` sees, as soon as it sees something; none if that takes longer than `patience`.
    pub(super) async fn once<T>(&self, patience: Duration, look: impl Fn(&Known) -> Option<T>) -> Option<T> {
        let seen = async {
            loop {
                let mut settled = std::pin::pin!(self.settled.notified());
                settled.as_mut().enable();
                if let Some(seen) = look(&self.known()) {
                    return seen;
                }
                settled.await;
            }
        };
        tokio::time::timeout(patience, seen).await.ok()
    }
}
