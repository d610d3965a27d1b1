//! What an instance's environment says of it, so that it is known without any file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::proc::{self, Stat};
use super::record::{Process, Record};

pub(super) const INSTANCE: &str = "TIDEGATE_INSTANCE";
pub(super) const POOL: &str = "TIDEGATE_POOL";
pub(super) const STATE: &str = "TIDEGATE_STATE";
const SPEC: &str = "TIDEGATE_SPEC";
const GENERATION: &str = "TIDEGATE_GENERATION";
const STARTED: &str = "TIDEGATE_STARTED";
const PORT: &str = "TIDEGATE_PORT";
const SOCKET: &str = "TIDEGATE_SOCKET";

/// The marks that an instance is started with.
pub(super) fn marks(record: &Record, state: &str) -> Vec<(&'static str, String)> {
    let mut marks = vec![
        (INSTANCE, record.id.clone()),
        (POOL, record.pool.clone()),
        (STATE, state.to_owned()),
        (SPEC, record.spec.clone()),
        (GENERATION, record.generation.to_string()),
        (STARTED, record.started.to_string()),
    ];
    marks.extend(record.port.map(|port| (PORT, port.to_string())));
    marks.extend(record.socket.as_ref().map(|socket| (SOCKET, socket.display().to_string())));
    marks
}

/// A process that carries our marks.
#[derive(Debug)]
pub(super) struct Marked {
    pub(super) stat: Stat,
    environment: BTreeMap<String, String>,
}

/// Every living process with marks of this state folder and pool, by instance. Whoever is started by an instance inherits its marks.
///
/// **Cost**: two small files for each process of the machine.
pub(super) fn marked(state: &str, pool: &str) -> BTreeMap<String, Vec<Marked>> {
    let mut found: BTreeMap<String, Vec<Marked>> = BTreeMap::new();
    for pid in proc::pids() {
        let environment = proc::environment(pid, "TIDEGATE_");
        let is = |key: &str, value: &str| environment.get(key).is_some_and(|found| found == value);
        if !is(STATE, state) || !is(POOL, pool) {
            continue;
        }
        let Some(id) = environment.get(INSTANCE).cloned() else { continue };
        if let Some(stat) = proc::stat(pid).filter(Stat::is_alive) {
            found.entry(id).or_default().push(Marked { stat, environment });
        }
    }
    found
}

/// The one that we started, of those that carry an instance's marks: the oldest that leads its group.
pub(super) fn leader(marked: &[Marked]) -> Option<&Marked> {
    marked.iter().filter(|one| one.stat.pid == one.stat.group).min_by_key(|one| one.stat.start)
}

impl Marked {
    /// The record as it must have been.
    pub(super) fn record(&self, id: &str, pool: &str) -> Record {
        let of = |key: &str| self.environment.get(key).cloned();
        Record {
            id: id.to_owned(),
            pool: pool.to_owned(),
            spec: of(SPEC).unwrap_or_default(),
            generation: of(GENERATION).and_then(|text| text.parse().ok()).unwrap_or(0),
            started: of(STARTED).and_then(|text| text.parse().ok()).unwrap_or(0.0),
            port: of(PORT).and_then(|text| text.parse().ok()),
            socket: of(SOCKET).map(PathBuf::from),
            process: Some(Process::of(&self.stat)),
            ..Record::default()
        }
    }
}
