//! What `/proc` says of processes.

use std::collections::BTreeMap;
use std::fs;
use std::sync::OnceLock;

use rustix::process::{Pid, Signal};

/// A process, as `/proc/PID/stat` has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Stat {
    pub(crate) pid: u32,
    pub(crate) state: char,
    pub(crate) group: u32,
    /// User and system time, its own and that of the children it has waited for, in clock ticks.
    pub(crate) ticks: u64,
    /// When it was started, in clock ticks since boot: with the number it names a process for ever.
    pub(crate) start: u64,
    /// Pages of memory in use.
    pub(crate) pages: u64,
}

impl Stat {
    /// Whether it is more than an entry that waits for its parent.
    pub(crate) fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// A process; nothing where there is none.
pub(crate) fn stat(pid: u32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(text: &str) -> Option<Stat> {
    // The name in brackets can hold anything, brackets included.
    let (front, rest) = text.rsplit_once(')')?;
    let pid = front.split(' ').next()?.parse().ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let ticks = (11..=14).map(number).sum::<Option<u64>>()?;
    let state = fields.first()?.chars().next()?;
    Some(Stat { pid, state, group: number(2)? as u32, ticks, start: number(19)?, pages: number(21)? })
}

/// The numbers of all processes.
pub(crate) fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Those of a group that live.
pub(crate) fn group(group: u32) -> Vec<Stat> {
    pids().filter_map(stat).filter(|stat| stat.group == group && stat.is_alive()).collect()
}

/// The variables of a process whose names begin so; none where we may not look, or where it has written over them.
pub(crate) fn environment(pid: u32, prefix: &str) -> BTreeMap<String, String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    if memchr::memmem::find(&bytes, prefix.as_bytes()).is_none() {
        return BTreeMap::new();
    }
    let texts = bytes.split(|byte| *byte == 0).filter_map(|text| std::str::from_utf8(text).ok());
    let pairs = texts.filter(|text| text.starts_with(prefix)).filter_map(|text| text.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Names this boot of the machine: process numbers and start times of another one mean nothing.
pub(crate) fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or_else(|_| String::new(), |id| id.trim().to_owned())
    })
}

/// Clock ticks in a second.
pub(crate) fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

/// Sends a signal to a whole group. There being nobody is no error.
pub(crate) fn signal_group(group: u32, signal: Signal) -> rustix::io::Result<()> {
    // 0 and 1 would be our own group and everybody.
    let Some(pid) = i32::try_from(group).ok().filter(|group| *group > 1).and_then(Pid::from_raw) else { return Ok(()) };
    match rustix::process::kill_process_group(pid, signal) {
        Err(rustix::io::Errno::SRCH) => Ok(()),
        result => result,
    }
}

/// Kills one process, if it is still this one.
pub(crate) fn kill(stat: &Stat) {
    let Some(pid) = i32::try_from(stat.pid).ok().filter(|pid| *pid > 1).and_then(Pid::from_raw) else { return };
    // The descriptor holds the process, so that the number cannot become somebody else's between the look and the kill.
    let Ok(held) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else { return };
    if self::stat(stat.pid).is_some_and(|now| now.start == stat.start) {
        let _ = rustix::process::pidfd_send_signal(&held, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_brackets_and_blanks_are_read() {
        let text = "4711 (a) b (c)) S 1 4700 4700 0 -1 4194304 100 0 0 0 7 5 2 1 20 0 1 0 123456 1000000 250 18446744073709551615 1";
        let stat = parse(text).expect("it can be read");
        assert_eq!(
            (stat.pid, stat.state, stat.group, stat.ticks, stat.start, stat.pages),
            (4711, 'S', 4700, 15, 123_456, 250)
        );
        assert_eq!(parse("4711 (x"), None);
        assert_eq!(parse("4711 (x) S 1 2"), None);
    }

    #[test]
    fn this_process_is_found() {
        let own = stat(std::process::id()).expect("we live");
        assert!(own.is_alive() && own.pages > 0 && own.start > 0);
        assert!(pids().any(|pid| pid == own.pid));
        assert!(!boot().is_empty());
    }
}
