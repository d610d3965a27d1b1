//! What the proxy's process takes, over time.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::ledger::Ledger;
use crate::support::resident;

/// Memory in KiB, and open descriptors.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    pub resident: u64,
    pub descriptors: u64,
}

/// The inode of a socket, by what its descriptor leads to.
fn inode(target: &Path) -> Option<&str> {
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')
}

/// Readings of one process.
pub struct Meter {
    pid: u32,
    began: Instant,
    length: Duration,
    readings: Vec<(Duration, Reading)>,
}

impl Meter {
    pub fn of(pid: u32) -> Self {
        Meter { pid, began: Instant::now(), length: Duration::ZERO, readings: Vec::new() }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub fn now(&self) -> Reading {
        Reading { resident: resident(self.pid), descriptors: self.open().len() as u64 }
    }

    /// What is open: without Unix sockets, which are the test's own talk with the admin API.
    pub fn open(&self) -> Vec<PathBuf> {
        let unix = std::fs::read_to_string(format!("/proc/{}/net/unix", self.pid)).expect("the process lives");
        let unix: HashSet<&str> = unix.lines().filter_map(|line| line.split_whitespace().nth(6)).collect();
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.pid)).expect("the process lives");
        let targets = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        targets.filter(|target| !inode(target).is_some_and(|inode| unix.contains(inode))).collect()
    }

    /// The sockets among them, as the kernel sees them: addresses, state, what is queued.
    pub fn connections(&self) -> Vec<String> {
        let open = self.open();
        let inodes: HashSet<&str> = open.iter().filter_map(|target| inode(target)).collect();
        let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", self.pid)).expect("the process lives");
        let ours =
            table.lines().filter(|line| line.split_whitespace().nth(9).is_some_and(|inode| inodes.contains(inode)));
        ours.map(str::to_owned).collect()
    }

    /// Takes two hundred readings while the ledger goes on.
    pub async fn watch(&mut self, ledger: &Ledger, length: Duration) {
        (self.began, self.length) = (Instant::now(), length);
        let mut pace = tokio::time::interval(length / 200);
        while ledger.goes_on() {
            pace.tick().await;
            self.readings.push((self.began.elapsed(), self.now()));
        }
    }

    /// The median of what `of` says in this part of the time, in percent of its length.
    fn median(&self, part: std::ops::Range<u32>, of: fn(&Reading) -> u64) -> u64 {
        let within = self.length * part.start / 100..self.length * part.end / 100;
        let mut values: Vec<u64> =
            self.readings.iter().filter(|(at, _)| within.contains(at)).map(|(_, reading)| of(reading)).collect();
        values.sort_unstable();
        assert!(values.len() > 5, "too few readings in {part:?}: {}", values.len());
        values[values.len() / 2]
    }

    /// Prints how it went.
    pub fn tell(&self) {
        let tenths = |of: fn(&Reading) -> u64| {
            (0..10).map(|tenth| self.median(tenth * 10..tenth * 10 + 10, of)).collect::<Vec<_>>()
        };
        println!("resident, KiB, by tenths of the time: {:?}", tenths(|reading| reading.resident));
        println!("descriptors: {:?}", tenths(|reading| reading.descriptors));
    }

    /// The end takes no more than the middle did.
    ///
    /// In ten minutes (178,000 requests, debug build) the tenths of the time differed by 0.3 MiB from the second one on, in twenty seconds by
    /// 0.5 MiB; descriptors by 10, as connections come and go. Of 71,000 requests between middle and end, 2 MiB are 30 bytes each.
    pub fn assert_flat(&self) {
        let both = |of: fn(&Reading) -> u64| (self.median(40..60, of), self.median(80..100, of));
        let (middle, end) = both(|reading| reading.resident);
        assert!(end < middle + 2048, "resident memory grew from {middle} to {end} KiB");
        let (middle, end) = both(|reading| reading.descriptors);
        assert!(end <= middle + 20, "descriptors grew from {middle} to {end}");
    }
}
