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
        let pace = Pace { interval: settings.interval, eager: pool.scaler.is_some() };
        let series = ask_for_ever(question, pace, upstream.clone(), target.clone(), events.clone());
        Some(Probing { settings: settings.clone(), target: target.id, task: tokio::task::spawn_local(series) })
    }
}

/// Checks at once, of all upstreams: ten thousand that start together must not use up the process's sockets.
static AT_ONCE: Semaphore = Semaphore::const_new(512);

/// How often to ask.
#[derive(Debug, Clone, Copy)]
struct Pace {
    interval: Duration,
    /// Ask more often until the first good answer: somebody may be waiting for it, and how long a start takes is to be known well.
    eager: bool,
}

impl Pace {
    /// The first wait of an eager one; each further one is a quarter longer.
    const FIRST: Duration = Duration::from_millis(50);
    /// Its longest.
    const LONGEST: Duration = Duration::from_millis(250);
    /// It is eager so many times: about five minutes.
    const EAGER: u32 = 1200;

    /// How long to wait after so many bad answers at the start, or none if there has been a good one.
    fn wait(self, bad: Option<u32>) -> Duration {
        match bad.filter(|bad| self.eager && *bad < Pace::EAGER) {
            Some(bad) => Pace::FIRST.mul_f64(1.25f64.powi(bad.min(16) as i32)).min(Pace::LONGEST).min(self.interval),
            None => self.interval,
        }
    }
}

async fn ask_for_ever(
    question: Probe,
    pace: Pace,
    upstream: Arc<Upstream>,
    target: Arc<Target>,
    events: UnboundedSender<Event>,
) {
    let mut bad = Some(0);
    loop {
        // It is never closed.
        let permit = AT_ONCE.acquire().await;
        let result = probe(&target, &question).await.map_err(|failure| failure.to_string());
        drop(permit);
        bad = bad.filter(|_| result.is_err()).map(|bad: u32| bad.saturating_add(1));
        if events.send(Event::Checked { upstream: upstream.clone(), result }).is_err() {
            return;
        }
        tokio::time::sleep(jittered(pace.wait(bad), fastrand::f64())).await;
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
    fn an_instance_that_starts_is_asked_often_until_its_first_good_answer() {
        let interval = Duration::from_secs(2);
        let (eager, calm) = (Pace { interval, eager: true }, Pace { interval, eager: false });
        assert!(eager.wait(Some(1)) < Duration::from_millis(65) && eager.wait(Some(2)) > eager.wait(Some(1)));
        assert_eq!(eager.wait(Some(100)), Duration::from_millis(250));
        assert_eq!([eager.wait(None), eager.wait(Some(5000)), calm.wait(Some(1))], [interval; 3]);
        let quick = Pace { interval: Duration::from_millis(20), eager: true };
        assert_eq!(quick.wait(Some(9)), Duration::from_millis(20), "never less often than configured");
    }

    #[test]
    fn checks_are_spread_by_a_tenth_each_way() {
        let second = Duration::from_secs(1);
        assert_eq!(jittered(second, 0.0), Duration::from_millis(900));
        assert_eq!(jittered(second, 0.5), second);
        assert!(jittered(second, 1.0) <= Duration::from_millis(1101));
    }
}
