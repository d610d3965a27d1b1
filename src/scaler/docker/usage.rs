use std::cell::RefCell;
use std::collections::HashMap;

use bollard::models::{ContainerMemoryStats, ContainerStatsResponse};
use bollard::query_parameters::StatsOptionsBuilder;
use futures_util::stream::{StreamExt, iter};

use super::containers::{AT_ONCE, Containers};
use super::mine::{Mine, State, seconds};
use super::trouble::Trouble;
use crate::scaler::{InstanceId, Usage};

/// What containers had used at the last look, by their id.
#[derive(Default)]
pub(super) struct Meter(RefCell<HashMap<String, Reading>>);

/// A container's CPU clock, read.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Reading {
    /// Nanoseconds of CPU since it was started.
    cpu: u64,
    /// Seconds since 1970.
    at: f64,
}

impl Meter {
    pub(super) async fn read(&self, containers: &Containers) -> Result<Vec<(InstanceId, Usage)>, Trouble> {
        let running: Vec<Mine> = containers.mine().await?.into_iter().filter(|it| it.state == State::Runs).collect();
        self.0.borrow_mut().retain(|id, _| running.iter().any(|it| it.container == *id));
        let mut answers = iter(running).map(|it| self.of(containers, it)).buffer_unordered(AT_ONCE);
        let mut usage = Vec::new();
        while let Some(answer) = answers.next().await {
            usage.extend(answer?);
        }
        Ok(usage)
    }

    async fn of(&self, containers: &Containers, it: Mine) -> Result<Option<(InstanceId, Usage)>, Trouble> {
        let options = StatsOptionsBuilder::default().stream(false).one_shot(true).build();
        let answer = containers.engine.client().stats(&it.container, Some(options)).next().await;
        match answer.transpose().map_err(Trouble::from) {
            Ok(Some(stats)) => {
                let last = self.0.borrow().get(&it.container).copied();
                let now = reading(&stats);
                if let Some(now) = now {
                    self.0.borrow_mut().insert(it.container, now);
                }
                let cpus = last.zip(now).and_then(|(last, now)| since(last, now));
                Ok(Some((it.instance, used(cpus, stats.memory_stats.as_ref(), containers.settings.cpus))))
            }
            Ok(None) => Ok(None),
            // It has ended in between.
            Err(trouble) if matches!(trouble.status(), Some(404 | 409)) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }
}

fn reading(stats: &ContainerStatsResponse) -> Option<Reading> {
    let cpu = stats.cpu_stats.as_ref()?.cpu_usage.as_ref()?.total_usage?;
    Some(Reading { cpu, at: seconds(stats.read.as_ref()?)? })
}

/// CPUs in use between two readings; none where the clock stood still or was put back.
fn since(last: Reading, now: Reading) -> Option<f64> {
    let span = now.at - last.at;
    let nanos = now.cpu.checked_sub(last.cpu)?;
    (span > 0.0).then(|| nanos as f64 / 1e9 / span)
}

fn used(cpus: Option<f64>, memory: Option<&ContainerMemoryStats>, limit: Option<f64>) -> Usage {
    let bytes = memory.and_then(resident);
    let room = memory.and_then(|memory| memory.limit).filter(|limit| *limit > 0);
    Usage {
        cpus,
        cpu_share: cpus.map(|cpus| cpus / limit.unwrap_or(1.0)),
        memory: bytes,
        memory_share: bytes.zip(room).map(|(bytes, room)| bytes as f64 / room as f64),
    }
}

/// What is used without what the kernel can take back at once, as `docker stats` counts it: cgroups v2 and v1 name that differently.
fn resident(memory: &ContainerMemoryStats) -> Option<u64> {
    let usage = memory.usage?;
    let stats = memory.stats.as_ref();
    let cache = stats.and_then(|stats| stats.get("total_inactive_file").or_else(|| stats.get("inactive_file")));
    Some(usage.saturating_sub(cache.copied().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_what_was_used_since_the_last_look() {
        let at = |cpu: u64, at: f64| Reading { cpu, at };
        assert_eq!(since(at(1_000_000_000, 10.0), at(2_500_000_000, 12.0)), Some(0.75));
        assert_eq!(since(at(5, 10.0), at(5, 10.0)), None);
        // Another container's clock, or a restart.
        assert_eq!(since(at(5, 10.0), at(4, 11.0)), None);
    }

    #[test]
    fn shares_are_of_the_limit_or_of_one_cpu() {
        assert_eq!(used(Some(0.4), None, Some(0.5)).cpu_share, Some(0.8));
        assert_eq!(used(Some(0.4), None, None).cpu_share, Some(0.4));
        assert_eq!(used(None, None, None), Usage::default());
    }

    #[test]
    fn the_file_cache_is_not_counted() {
        for name in ["inactive_file", "total_inactive_file"] {
            let stats = Some(HashMap::from([(name.to_owned(), 30)]));
            let memory = ContainerMemoryStats { usage: Some(100), limit: Some(700), stats, ..Default::default() };
            let usage = used(None, Some(&memory), None);
            assert_eq!((usage.memory, usage.memory_share), (Some(70), Some(0.1)));
        }
    }
}
