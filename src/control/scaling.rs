//! The scalers' thread: started with the first configuration that has a scaler, ended with the process.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;

use super::event::Event;
use super::handle::Handle;
use super::state::Control;
use crate::config::Config;
use crate::scaler::engine::{self, Host};
use crate::snapshot::{Replica, Snapshot};
use crate::types::Clock;

/// How long the scalers may take to write down what they know.
const LAST_WORDS: Duration = Duration::from_secs(8);

impl Host for Handle {
    fn snapshot(&self) -> Arc<Snapshot> {
        Handle::snapshot(self)
    }

    fn replicas(&self, pool: &Arc<str>, replicas: Vec<Replica>, learned: Option<u32>) {
        Handle::replicas(self, pool, replicas, learned);
    }
}

impl Control {
    /// Starts the scalers' thread where a pool has a scaler and it does not run yet. What it does it reads from the tables in force.
    pub(super) fn start_scalers(&mut self, config: &Config) {
        if self.scalers.is_some() || config.pool.values().all(|pool| pool.scaler.is_none()) {
            return;
        }
        let folder = self.options.file.parent().map(std::path::Path::to_owned).unwrap_or_default();
        let parts = engine::Parts { host: Box::new(self.handle()), registry: self.keep.registry.clone(), folder };
        match engine::start(parts) {
            Ok(scalers) => {
                // There is only ever one: it was none until now.
                let _ = self.line.set(scalers.line());
                self.scalers = Some(scalers);
            }
            Err(error) => tracing::error!("cannot start a thread for the scalers, so pools stay as they are: {error}"),
        }
    }

    /// Has the scalers write down what they know, and waits for those whose instances are to end with us.
    pub(super) async fn end_scalers(&mut self, events: &mut UnboundedReceiver<Event>) {
        let Some(scalers) = self.scalers.take() else { return };
        scalers.end();
        let pools = self.current.config.pool.values();
        let stopping = pools.filter(|pool| pool.scaler.as_ref().is_some_and(|scaler| scaler.stop_on_exit));
        let grace = stopping.filter_map(crate::scaler::FleetSettings::of).map(|settings| settings.grace).max();
        let until = Clock::now() + LAST_WORDS + grace.unwrap_or_default();
        while !scalers.has_ended() && Clock::now() < until {
            tokio::select! {
                Some(event) = events.recv() => self.take(event).await,
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
    }
}
