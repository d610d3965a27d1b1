//! What is written down of an instance.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::proc::{self, Stat};

/// An instance's record. Unknown fields are skipped and missing ones have their defaults, so that older and newer versions read each other's.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) pool: String,
    /// The proxy that has started it.
    pub(super) proxy: String,
    pub(super) spec: String,
    pub(super) decision: String,
    pub(super) generation: u64,
    /// In seconds since 1970.
    pub(super) started: f64,
    pub(super) port: Option<u16>,
    pub(super) socket: Option<PathBuf>,
    pub(super) output: Option<PathBuf>,
    pub(super) cgroup: Option<PathBuf>,
    /// None until it is made.
    pub(super) process: Option<Process>,
    /// It has been asked to stop, by then.
    pub(super) stopping: Option<f64>,
    pub(super) ended: Option<Ended>,
}

/// Names a process for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// In clock ticks since boot.
    pub(super) start: u64,
    pub(super) boot: String,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) how: String,
    pub(super) asked: bool,
    pub(super) at: f64,
}

impl Process {
    pub(super) fn of(stat: &Stat) -> Process {
        Process { pid: stat.pid, start: stat.start, boot: proc::boot().to_owned() }
    }

    /// Whether it is there and alive.
    pub(super) fn is_alive(&self) -> bool {
        self.boot == proc::boot()
            && proc::stat(self.pid).is_some_and(|stat| stat.start == self.start && stat.is_alive())
    }
}

impl Record {
    /// Writes it whole or not at all.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let (path, fresh) = (file(folder, &self.id, "json"), file(folder, &self.id, "json.new"));
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        let mut out = fs::File::create(&fresh)?;
        out.write_all(&text)?;
        fs::rename(&fresh, &path)
    }

    /// One that is written down; nothing where there is none that can be read.
    pub(super) fn read(folder: &Path, id: &str) -> Option<Record> {
        let text = fs::read(file(folder, id, "json")).ok()?;
        serde_json::from_slice(&text).ok().filter(|record: &Record| record.id == id)
    }

    /// Takes it away.
    pub(super) fn remove(folder: &Path, id: &str) {
        let _ = fs::remove_file(file(folder, id, "json"));
    }

    /// The names of those that are written down.
    pub(super) fn ids(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter_map(|name| name.strip_suffix(".json").map(str::to_owned)).collect()
    }
}

/// A file of an instance.
pub(super) fn file(folder: &Path, id: &str, ending: &str) -> PathBuf {
    folder.join(format!("{id}.{ending}"))
}

/// Held while a record is looked at and changed or taken away, so that another proxy on the same folder never comes
/// between: one that has seen the same end would write down anew what has just been cleared away.
///
/// Nothing else is waited for while it is held, and it is not asked for under a lock of ours.
pub(super) struct Hold(Option<fs::File>);

impl Hold {
    /// Longer than the others hold it; one that was halted in the middle keeps nobody up.
    const PATIENCE: u32 = 100;

    /// Waits for the others, who hold it for the time of one small file. Blocking. Where the folder cannot be locked nobody is held up.
    pub(super) fn of(folder: &Path) -> Hold {
        let Ok(folder) = fs::File::open(folder) else { return Hold(None) };
        for _ in 0..Self::PATIENCE {
            match folder.try_lock() {
                Ok(()) => return Hold(Some(folder)),
                Err(fs::TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
                Err(fs::TryLockError::Error(_)) => break,
            }
        }
        Hold(None)
    }
}

/// Given up by name: a process that is just being started has this file open too.
impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(folder) = &self.0 {
            let _ = folder.unlock();
        }
    }
}
