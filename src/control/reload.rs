//! A new configuration: whole, or not at all.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::derive::derive;
use super::event::Cause;
use super::handle::ENDING;
use super::pool::PoolState;
use super::state::{Control, tell};
use super::systemd;
use crate::admin::model::Verdict;
use crate::config::{self, Config};
use crate::snapshot::Snapshot;
use crate::telemetry;
use crate::types::{Clock, Moment};

impl Control {
    /// The same as [`Control::reload`], and the service manager hears of it.
    pub(super) async fn reload_as_service(&mut self, cause: Cause) -> Verdict {
        if !self.options.signals || self.stopping.load(std::sync::atomic::Ordering::Relaxed) {
            return self.reload(cause).await;
        }
        systemd::reloading();
        let verdict = self.reload(cause).await;
        systemd::ready();
        verdict
    }

    /// Reads the configuration again and puts it in force, or says why not.
    ///
    /// Everything that can fail is done before anything is changed: reading, checking, building TLS, opening the log, binding new listeners.
    async fn reload(&mut self, cause: Cause) -> Verdict {
        let began = Instant::now();
        if self.stopping.load(std::sync::atomic::Ordering::Relaxed) {
            return verdict(false, self.current.generation, cause, &[ENDING.to_owned()]);
        }
        // Before they are read: what changes meanwhile is another edit.
        let _ = self.watched.changed();
        let Ok(outcome) = catch_unwind(AssertUnwindSafe(|| config::from_disk(&self.options.file))) else {
            // A bug that an odd text brings out ends nothing that runs.
            return self.refused(cause, vec!["reading it has panicked, which is a bug of Tidegate's".to_owned()]);
        };
        // Also after an error: the file that would mend it is among them.
        self.watched.watch(&watched_files(&outcome));
        let applied = self.apply(&outcome);
        if let Err(problems) = applied {
            self.listeners.forget_unused();
            return self.refused(cause, problems);
        }
        let warnings: Vec<String> = outcome.warnings().map(|problem| problem.render(false)).collect();
        let generation = self.current.generation;
        self.keep.registry.control.reloaded(telemetry::Outcome::Ok, generation);
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        tracing::info!(generation, took = ?began.elapsed(), "configuration reloaded ({})", cause.word());
        self.last_verdict = verdict(true, generation, cause, &warnings);
        self.last_verdict.clone()
    }

    /// Says why a configuration is not taken.
    fn refused(&mut self, cause: Cause, problems: Vec<String>) -> Verdict {
        let generation = self.current.generation;
        self.keep.registry.control.reloaded(telemetry::Outcome::Failed, generation);
        problems.iter().for_each(|problem| tracing::error!("{problem}"));
        tracing::error!(generation, "configuration refused ({}); the one before stays in force", cause.word());
        self.last_verdict = verdict(false, generation, cause, &problems);
        self.last_verdict.clone()
    }

    fn apply(&mut self, outcome: &config::Outcome) -> Result<(), Vec<String>> {
        let Some(config) = &outcome.config else {
            return Err(outcome.errors().map(|problem| problem.render(false)).collect());
        };
        let now = Clock::now();
        let mut derived = derive(config, &self.keep, &mut self.listeners, now)?;
        let bound = self.listeners.bind(config).map_err(|problem| vec![problem])?;
        let api = self.prepare_admin(config).map_err(|problem| vec![problem])?;
        self.keep.adopt(&mut derived).map_err(|problem| vec![problem])?;
        // From here on nothing can fail.
        if config.workers != self.current.config.workers {
            tracing::warn!("`workers` is read at start only: restart to change it");
        }
        if config.user != self.current.config.user {
            tracing::warn!("`user` is read at start only: restart to change it");
        }
        super::log::apply(&config.log);
        self.adopt_admin(config, api);
        self.keep.registry.set_max_series(config.admin.max_series);
        self.adopt_pools(config, derived.far, now);
        let pools = self.derive_pools(now);
        self.publish(Snapshot {
            generation: 0,
            config: config.clone(),
            listeners: derived.listeners,
            table: derived.table,
            routes: derived.routes,
            pools,
            targets: Default::default(),
            pages: derived.pages,
            access_log: derived.access_log,
            keys: derived.keys,
        });
        let steps = self.listeners.commit(bound, &self.current.listeners, &self.keep.registry);
        self.take_steps(steps);
        self.start_scalers(config);
        Ok(())
    }

    /// Makes the pools those of the configuration; those that are gone dissolve.
    pub(super) fn adopt_pools(
        &mut self,
        config: &Config,
        mut far: BTreeMap<String, crate::upstream::Settings>,
        now: Moment,
    ) {
        let mut before = std::mem::take(&mut self.pools);
        for (name, settings) in &config.pool {
            let Some(far) = far.remove(name) else { continue };
            let name: Arc<str> = name.as_str().into();
            let settings = Arc::new(settings.clone());
            // One that comes back while its members still drain is the same pool.
            let returned =
                self.leaving.iter().position(|pool| pool.name() == &name).map(|at| self.leaving.swap_remove(at));
            let mut pool = before.remove(&name).or(returned).unwrap_or_else(|| {
                PoolState::new(
                    name.clone(),
                    settings.clone(),
                    far.clone(),
                    self.keep.registry.clone(),
                    self.sender.clone(),
                )
            });
            tell(pool.adopt(settings, far, now));
            for address in pool.names() {
                self.names.want(&name, address, &self.sender);
            }
            self.pools.insert(name, pool);
        }
        for (_, mut gone) in before {
            tell(gone.dissolve(now));
            self.leaving.push(gone);
        }
        self.keep_names();
    }
}

/// What is told of an attempt to read the configuration.
pub(super) fn verdict(accepted: bool, generation: u64, cause: Cause, problems: &[String]) -> Verdict {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Verdict {
        accepted,
        generation,
        at: since_epoch.as_secs_f64(),
        cause: cause.word().to_owned(),
        problems: problems.join("\n\n"),
        changes: Vec::new(),
    }
}

/// What a reload depends on: files, and directories in which new files would be included.
pub(super) fn watched_files(outcome: &config::Outcome) -> Vec<std::path::PathBuf> {
    outcome.files.iter().chain(&outcome.folders).cloned().collect()
}
