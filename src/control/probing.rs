//! The active checks of one upstream: a task that asks, tells control, and waits.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use super::event::Event;
use crate::config::model;
use crate::snapshot::Upstream;
use crate::upstream::{Probe, Target, probe};

/// A running series of checks; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Probing {
    settings: model::HealthCheck,
    target: u64,
    task: JoinHandle<()>,
}

impl Drop for Probing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Probing {
    /// The series that is wanted: the one that runs, if it is the same; a new one; or none.
    pub(super) fn keep_or_start(
        running: Option<Probing>,
        pool: &model::Pool,
        upstream: &Arc<Upstream>,
        target: &Arc<Target>,
        events: &UnboundedSender<Event>,
    ) -> Option<Probing> {
        let settings = pool.health.as_ref()?;
        if let Some(running) = running
            && running.settings == *settings
            && running.target == target.id
        {
            return Some(running);
        }
        let question = match Probe::new(settings) {
            Ok(question) => question,
            Err(error) => {
                tracing::error!(pool = %upstream.pool, %error, "health checks cannot be made");
                return None;
            }
        };
        let series = ask_for_ever(question, settings.interval, upstream.clone(), target.clone(), events.clone());
        Some(Probing { settings: settings.clone(), target: target.id, task: tokio::task::spawn_local(series) })
    }
}

/// Checks at once, of all upstreams: ten thousand that start together must not use up the process's sockets.
static AT_ONCE: Semaphore = Semaphore::const_new(512);

async fn ask_for_ever(
    question: Probe,
    interval: Duration,
    upstream: Arc<Upstream>,
    target: Arc<Target>,
    events: UnboundedSender<Event>,
) {
    loop {
        // It is never closed.
        let permit = AT_ONCE.acquire().await;
        let result = probe(&target, &question).await.map_err(|failure| failure.to_string());
        drop(permit);
        if events.send(Event::Checked { upstream: upstream.clone(), result }).is_err() {
            return;
        }
        tokio::time::sleep(jittered(interval, fastrand::f64())).await;
    }
}

/// The interval, a tenth shorter or longer: upstreams that came together are not asked together for ever.
fn jittered(interval: Duration, random: f64) -> Duration {
    interval.mul_f64(0.9 + 0.2 * random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_spread_by_a_tenth_each_way() {
        let second = Duration::from_secs(1);
        assert_eq!(jittered(second, 0.0), Duration::from_millis(900));
        assert_eq!(jittered(second, 0.5), second);
        assert!(jittered(second, 1.0) <= Duration::from_millis(1101));
    }
}
