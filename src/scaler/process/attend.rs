//! Being there when an instance ends, and seeing to it that it does once it has been asked to.

use std::future::pending;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::proc::{self, Stat};
use super::record::{Ended, Hold, Process, Record};
use super::{Shared, cgroup, lock, marks, output, unix_now};
use crate::config::model;
use crate::scale::StopSignal;
use crate::scaler::{DriverError, Life};

/// How often is looked where nothing tells of an end.
const LOOK: Duration = Duration::from_millis(50);
/// What was killed is gone by then; beyond that somebody has to look why not.
const KILLED_BY: Duration = Duration::from_secs(5);

/// Attends an instance from now on.
pub(super) fn begin(shared: &Arc<Shared>, record: &Record, child: Option<Child>) {
    let Some(process) = record.process.clone() else { return };
    let Some(stop) = lock(&shared.instances).get(&record.id).map(|instance| instance.stop.subscribe()) else { return };
    // Before anything else can end it unseen.
    let end = End::of(&process);
    let attended = Attended { shared: shared.clone(), id: record.id.clone(), process, stop };
    tokio::spawn(attended.run(end, child));
}

/// What tells of a process's end.
enum End {
    Told(AsyncFd<OwnedFd>),
    /// No descriptor could be had.
    Looked,
}

impl End {
    fn of(process: &Process) -> End {
        let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
        let held = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK).ok());
        // The number may have become somebody else's before it was held.
        let held = held.filter(|_| proc::stat(process.pid).is_some_and(|stat| stat.start == process.start));
        #[expect(
            deprecated,
            reason = "unsound for types that lie about their descriptor only; what replaces it is an unsafe function"
        )]
        let held = held.and_then(|held| AsyncFd::with_interest(held, Interest::READABLE).ok());
        held.map_or(End::Looked, End::Told)
    }

    async fn wait(&self, process: &Process) {
        match self {
            End::Told(held) => {
                if held.readable().await.is_err() {
                    pending::<()>().await;
                }
            }
            End::Looked => {
                while process.is_alive() {
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }
}

struct Attended {
    shared: Arc<Shared>,
    id: String,
    process: Process,
    stop: watch::Receiver<Option<Instant>>,
}

impl Attended {
    async fn run(mut self, end: End, mut child: Option<Child>) {
        let mut killed = false;
        loop {
            let deadline = *self.stop.borrow_and_update();
            tokio::select! {
                () = end.wait(&self.process) => break,
                changed = self.stop.changed() => if changed.is_err() { end.wait(&self.process).await; break },
                () = until(deadline), if !killed => {
                    killed = true;
                    tracing::warn!(pool = %self.shared.pool, instance = %self.id, "it has not stopped within its grace and is killed");
                    self.kill().await;
                }
            }
        }
        let deadline = if killed { None } else { *self.stop.borrow() };
        self.clear(deadline, child.is_some()).await;
        // Only now: until it is waited for, its number and its group's are nobody else's.
        let status = child.as_mut().and_then(|child| child.wait().ok());
        let (shared, id) = (self.shared.clone(), self.id.clone());
        let _ = tokio::task::spawn_blocking(move || shared.ended(&id, status, killed)).await;
    }

    /// Kills the group and whoever carries its marks.
    async fn kill(&self) {
        let (shared, id, group) = (self.shared.clone(), self.id.clone(), self.process.pid);
        let killing = move || {
            shared.kill_cgroup(&id);
            let _ = proc::signal_group(group, Signal::KILL);
            shared.remnants(&id, group, true).iter().for_each(proc::kill);
        };
        let _ = tokio::task::spawn_blocking(killing).await;
    }

    /// Its leader has ended: whoever is left of it may finish until the deadline, and is killed then. `held`: the leader's number is still its own.
    async fn clear(&self, deadline: Option<Instant>, held: bool) {
        let deadline = deadline.unwrap_or_else(Instant::now);
        let mut warned = false;
        loop {
            let (shared, id, group) = (self.shared.clone(), self.id.clone(), self.process.pid);
            let over = Instant::now() >= deadline;
            let looking = move || {
                let left = shared.remnants(&id, group, held);
                if over {
                    left.iter().for_each(proc::kill);
                }
                left.len()
            };
            let left = tokio::task::spawn_blocking(looking).await.unwrap_or(0);
            if left == 0 {
                return;
            }
            if !warned && Instant::now() > deadline + KILLED_BY {
                warned = true;
                tracing::error!(pool = %self.shared.pool, instance = %self.id, left, "processes of an ended instance cannot be killed; `ps -eo pid,pgid,stat,wchan,args` shows what they wait for");
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

impl Shared {
    /// What is left of an instance apart from its leader. The group counts only while its number is certainly still its own.
    fn remnants(&self, id: &str, group: u32, held: bool) -> Vec<Stat> {
        let marked = marks::marked(&self.state, &self.pool).remove(id).unwrap_or_default();
        let mut left: Vec<Stat> = marked.into_iter().map(|one| one.stat).filter(|stat| stat.pid != group).collect();
        if held {
            left.extend(proc::group(group).into_iter().filter(|stat| stat.pid != group));
        }
        left.sort_unstable_by_key(|stat| stat.pid);
        left.dedup_by_key(|stat| stat.pid);
        left
    }

    /// Asks an instance to stop, or clears an ended one away. Blocking: one small file.
    pub(super) fn stop(&self, id: &str, grace: Duration) -> Result<(), DriverError> {
        let settings = lock(&self.settings).clone();
        let record = {
            let mut instances = lock(&self.instances);
            let Some(instance) = instances.get_mut(id) else { return Ok(()) };
            if matches!(instance.life, Life::Ended { .. }) {
                drop(instances);
                self.clear_away(id);
                return Ok(());
            }
            let deadline = Instant::now() + grace;
            let again = instance.life == Life::Stopping;
            // Asked again, it gets no more time than it had.
            instance.stop.send_modify(|stop| *stop = Some(stop.map_or(deadline, |earlier| earlier.min(deadline))));
            instance.life = Life::Stopping;
            instance.record.stopping.get_or_insert(unix_now() + grace.as_secs_f64());
            if again {
                return Ok(());
            }
            instance.record.clone()
        };
        // Where it cannot be written a restart of ours would take it for a crash: no reason not to stop it.
        let _ = record.write(&self.folder);
        let living = record.process.as_ref().filter(|process| process.is_alive());
        if let Some(process) = living {
            let told = proc::signal_group(process.pid, signal(&settings));
            if let Err(error) = told {
                tracing::warn!(pool = %self.pool, instance = %id, %error, "the instance cannot be told to stop; it is killed after its grace");
            }
        }
        Ok(())
    }

    /// An instance has ended, and nothing is left of it.
    fn ended(&self, id: &str, status: Option<ExitStatus>, killed: bool) {
        let Some(record) = lock(&self.instances).get(id).map(|instance| instance.record.clone()) else { return };
        let memory = record.cgroup.as_deref().and_then(cgroup::out_of_memory);
        if let Some(group) = &record.cgroup {
            cgroup::remove(group);
        }
        let held = Hold::of(&self.folder);
        // Another proxy on the same folder may have asked, or seen how it ended.
        let written = Record::read(&self.folder, id).filter(|written| written.process == record.process);
        let is_written = written.is_some();
        let asked = killed || record.stopping.or(written.as_ref().and_then(|written| written.stopping)).is_some();
        let seen = written.and_then(|written| written.ended);
        let last = record.output.as_deref().filter(|_| !asked).and_then(output::last_line);
        let how = match (status, seen) {
            (None, Some(seen)) => seen.how,
            (status, _) => describe(status, killed, memory, last),
        };
        let ended = Ended { how: how.clone(), asked, at: unix_now() };
        let record = Record { ended: Some(ended), ..record };
        // Where it is gone, another proxy has cleared this end away already, and the name may be somebody else's.
        if is_written {
            if let Some(socket) = &record.socket {
                let _ = std::fs::remove_file(socket);
            }
            let _ = record.write(&self.folder);
        }
        drop(held);
        self.note(&record, Life::Ended { how, asked });
        self.changed.notify_one();
    }

    fn kill_cgroup(&self, id: &str) {
        let group = lock(&self.instances).get(id).and_then(|instance| instance.record.cgroup.clone());
        if let Some(group) = group {
            cgroup::kill(&group);
        }
    }
}

fn signal(settings: &model::Process) -> Signal {
    match settings.signal {
        StopSignal::Term => Signal::TERM,
        StopSignal::Int => Signal::INT,
        StopSignal::Quit => Signal::QUIT,
        StopSignal::Usr1 => Signal::USR1,
        StopSignal::Usr2 => Signal::USR2,
        StopSignal::Hup => Signal::HUP,
    }
}

/// How it ended, in words.
fn describe(status: Option<ExitStatus>, killed: bool, memory: Option<u64>, last: Option<String>) -> String {
    let how = match status {
        _ if memory.is_some() => {
            let limit =
                memory.filter(|limit| *limit > 0).map_or_else(String::new, |limit| format!(" ({} MiB)", limit >> 20));
            format!("out of memory: it used more than its limit{limit}")
        }
        _ if killed => "killed: it did not stop within its grace".to_owned(),
        None => "ended; how is not known, because an earlier Tidegate had started it".to_owned(),
        Some(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(9)) => "SIGKILL; if nobody sent it, the machine was out of memory (see dmesg)".to_owned(),
            (None, Some(number)) => {
                let core = if status.core_dumped() { ", core dumped" } else { "" };
                format!("{}{core}", signal_name(number))
            }
            (None, None) => status.to_string(),
        },
    };
    last.map_or_else(|| how.clone(), |last| format!("{how}; its last line: {last}"))
}

fn signal_name(number: i32) -> String {
    let name = match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        31 => "SIGSYS",
        _ => return format!("signal {number}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_in_words() {
        let told = |raw, killed, memory, last: Option<&str>| {
            describe(Some(ExitStatus::from_raw(raw)), killed, memory, last.map(str::to_owned))
        };
        assert_eq!(told(3 << 8, false, None, None), "exit code 3");
        assert_eq!(told(3 << 8, false, None, Some("no database")), "exit code 3; its last line: no database");
        assert_eq!(told(11 | 128, false, None, None), "SIGSEGV, core dumped");
        assert_eq!(told(9, false, Some(512 << 20), None), "out of memory: it used more than its limit (512 MiB)");
        assert!(told(9, true, None, None).contains("within its grace"));
        assert!(told(9, false, None, None).contains("dmesg"));
        assert_eq!(told(40, false, None, None), "signal 40");
        assert!(describe(None, false, None, None).contains("earlier Tidegate"));
    }
}
