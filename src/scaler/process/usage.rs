//! What instances use.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use super::{Shared, cgroup, lock, proc};
use crate::scaler::{InstanceId, Life, Usage};

impl Shared {
    /// What each uses, its whole group together. Blocking: one small file for each process of the machine.
    pub(super) fn usage(&self) -> Vec<(InstanceId, Usage)> {
        let settings = lock(&self.settings).clone();
        let living: Vec<(InstanceId, u32, Option<PathBuf>)> = {
            let instances = lock(&self.instances);
            let living = instances.iter().filter(|(_, instance)| !matches!(instance.life, Life::Ended { .. }));
            let named = living.filter_map(|(id, instance)| {
                let record = &instance.record;
                Some((id.clone(), record.process.as_ref()?.pid, record.cgroup.clone()))
            });
            named.collect()
        };
        if living.is_empty() {
            return Vec::new();
        }
        let groups = groups();
        let now = Instant::now();
        let (cpus, memory) = (settings.cpus.unwrap_or_else(cpus), settings.memory.map(|size| size.0).or_else(memory));
        let mut all = Vec::with_capacity(living.len());
        let mut instances = lock(&self.instances);
        for (id, pid, cgroup) in living {
            let used = cgroup.as_deref().and_then(cgroup::used).or_else(|| groups.get(&pid).copied());
            let (Some((seconds, bytes)), Some(instance)) = (used, instances.get_mut(&id)) else { continue };
            let before = instance.sample.replace((now, seconds));
            let rate = before.and_then(|(then, before)| {
                let span = (now - then).as_secs_f64();
                (span > 0.0).then(|| ((seconds - before) / span).max(0.0))
            });
            let usage = Usage {
                cpus: rate,
                cpu_share: rate.map(|rate| rate / cpus),
                memory: Some(bytes),
                memory_share: memory.map(|limit| bytes as f64 / limit as f64),
            };
            all.push((id, usage));
        }
        all
    }
}

/// CPU seconds and bytes of memory by process group.
fn groups() -> BTreeMap<u32, (f64, u64)> {
    let (ticks, page) = (proc::ticks_per_second(), rustix::param::page_size() as u64);
    let mut groups: BTreeMap<u32, (f64, u64)> = BTreeMap::new();
    for stat in proc::pids().filter_map(proc::stat).filter(proc::Stat::is_alive) {
        let (seconds, bytes) = groups.entry(stat.group).or_default();
        *seconds += stat.ticks as f64 / ticks;
        *bytes += stat.pages * page;
    }
    groups
}

fn cpus() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64)
}

/// All of the machine's memory.
fn memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}
