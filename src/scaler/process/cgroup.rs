//! Limits on memory and CPU by cgroup v2, where that may be written.
//!
//! Only where a limit is configured, and only in a group that is ours to divide: the parent of ours where systemd has delegated it
//! (`Delegate=yes` with `DelegateSubgroup=`), the machine's root, or our own where we are alone in it (a container). Never in a group that
//! systemd keeps to itself, and never by moving others: a unit whose own group is divided could not be started again while instances live.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Shared;
use crate::config::model;

/// Where cgroups are.
const ROOT: &str = "/sys/fs/cgroup";
/// Processors are shared out in periods of so many microseconds.
const PERIOD: u64 = 100_000;

/// The group that instances get groups of their own in.
#[derive(Debug)]
pub(super) struct Cgroups {
    base: PathBuf,
}

/// Puts a new instance into a group with its limits. None where there are no limits or it cannot be: then it runs without.
pub(super) fn confine(shared: &Shared, settings: &model::Process, id: &str, pid: u32) -> Option<PathBuf> {
    if settings.memory.is_none() && settings.cpus.is_none() {
        return None;
    }
    let found = || {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let managed = std::env::var_os("INVOCATION_ID").is_some();
        Cgroups::find(Path::new(ROOT), &own, managed)
            .inspect_err(|why| {
                let pool = &shared.pool;
                tracing::warn!(%pool, "`memory` and `cpus` of this pool's processes are not enforced: {why}");
            })
            .ok()
    };
    let groups = shared.cgroups.get_or_init(found).as_ref()?;
    let group = groups.base.join(format!("tidegate-{}-{id}", shared.state));
    match limit(&group, settings, pid) {
        Ok(()) => Some(group),
        Err(error) => {
            tracing::warn!(pool = %shared.pool, instance = %id, %error, "its limits could not be set in {}; it runs without", group.display());
            let _ = fs::remove_dir(&group);
            None
        }
    }
}

fn limit(group: &Path, settings: &model::Process, pid: u32) -> io::Result<()> {
    match fs::create_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if let Some(memory) = settings.memory {
        fs::write(group.join("memory.max"), memory.0.to_string())?;
        // One of it is of no use without the others. Not on kernels before 4.19.
        let _ = fs::write(group.join("memory.oom.group"), "1");
    }
    if let Some(cpus) = settings.cpus {
        let quota = ((cpus * PERIOD as f64) as u64).max(1000);
        fs::write(group.join("cpu.max"), format!("{quota} {PERIOD}"))?;
    }
    fs::write(group.join("cgroup.procs"), pid.to_string())
}

impl Cgroups {
    /// Looks for a group that may be divided. `own` is `/proc/self/cgroup`; `managed`: systemd has started us.
    ///
    /// **Errors**: why there is none, and what to do.
    fn find(root: &Path, own: &str, managed: bool) -> Result<Cgroups, String> {
        if !root.join("cgroup.controllers").exists() {
            return Err(format!(
                "{} is no cgroup v2; boot with systemd.unified_cgroup_hierarchy=1, or limit them otherwise",
                root.display()
            ));
        }
        let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let own = root.join(path);
        let parent = own.parent().filter(|parent| parent.starts_with(root) && is_delegated(parent));
        if let Some(parent) = parent.filter(|parent| occupants(parent).is_empty()) {
            return divide(parent);
        }
        if !own.join("cgroup.type").exists() && own == root {
            return divide(&own);
        }
        if managed {
            return Err(
                "their group is systemd's; add `Delegate=yes` and `DelegateSubgroup=proxy` to the unit".to_owned()
            );
        }
        let us = std::process::id().to_string();
        if occupants(&own) == [us.clone()] {
            let inner = own.join("tidegate");
            let moved = fs::create_dir_all(&inner).and_then(|()| fs::write(inner.join("cgroup.procs"), us));
            moved.map_err(|error| format!("{} cannot be written: {error}", own.display()))?;
            return divide(&own);
        }
        Err(format!(
            "{} is shared with other processes; run Tidegate in a group of its own (a systemd unit with `Delegate=yes` and `DelegateSubgroup=proxy`)",
            own.display()
        ))
    }
}

fn divide(base: &Path) -> Result<Cgroups, String> {
    let enabled = fs::write(base.join("cgroup.subtree_control"), "+memory +cpu");
    enabled.map_err(|error| format!("{} cannot be divided: {error}", base.display()))?;
    Ok(Cgroups { base: base.to_owned() })
}

fn occupants(group: &Path) -> Vec<String> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Whether systemd has given the group away.
fn is_delegated(group: &Path) -> bool {
    let mut value = [0u8; 8];
    ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let read = rustix::fs::getxattr(group, *name, &mut value[..]);
        read.is_ok_and(|length| value[..length] == *b"1")
    })
}

/// Ends everybody in a group at once.
pub(super) fn kill(group: &Path) {
    let _ = fs::write(group.join("cgroup.kill"), "1");
}

/// Takes a group away. It can be a moment until it is empty.
pub(super) fn remove(group: &Path) {
    for _ in 0..20 {
        match fs::remove_dir(group) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => {
                std::thread::sleep(Duration::from_millis(10));
            }
            _ => return,
        }
    }
}

/// The group's limit of memory, if somebody in it was killed for it; 0 where the limit is not known.
pub(super) fn out_of_memory(group: &Path) -> Option<u64> {
    (value(group, "memory.events", "oom_kill")? > 0).then(|| number(group, "memory.max").unwrap_or(0))
}

/// CPU seconds and bytes of memory that a group has used.
pub(super) fn used(group: &Path) -> Option<(f64, u64)> {
    Some((value(group, "cpu.stat", "usage_usec")? as f64 / 1e6, number(group, "memory.current")?))
}

fn number(group: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(group.join(file)).ok()?.trim().parse().ok()
}

fn value(group: &Path, file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(group.join(file)).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel's folders look: the files are there, only that nobody acts on them.
    fn group(root: &Path, path: &str, files: &[(&str, &str)]) -> PathBuf {
        let group = root.join(path);
        fs::create_dir_all(&group).expect("a folder");
        for (name, text) in files {
            fs::write(group.join(name), text).expect("a file");
        }
        group
    }

    #[test]
    fn only_what_is_ours_is_divided() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        let why = Cgroups::find(root, "0::/", false).expect_err("no cgroup v2");
        assert!(why.contains("no cgroup v2"), "{why}");
        group(root, "", &[("cgroup.controllers", "cpu memory"), ("cgroup.type", "domain"), ("cgroup.procs", "1\n2\n")]);
        let why = Cgroups::find(root, "0::/", false).expect_err("others are there");
        assert!(why.contains("other processes"), "{why}");
        let why = Cgroups::find(root, "0::/", true).expect_err("systemd's");
        assert!(why.contains("Delegate=yes"), "{why}");
        let alone = group(root, "box", &[("cgroup.type", "domain"), ("cgroup.procs", &std::process::id().to_string())]);
        assert_eq!(Cgroups::find(root, "1:name=systemd:/x\n0::/box\n", false).expect("alone").base, alone);
        assert_eq!(fs::read_to_string(alone.join("cgroup.subtree_control")).expect("written"), "+memory +cpu");
        fs::remove_file(root.join("cgroup.type")).expect("removed");
        assert_eq!(Cgroups::find(root, "0::/", false).expect("the machine's root").base, root);
    }

    #[test]
    fn limits_are_written_and_figures_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = model::Process {
            memory: Some(crate::types::Size(64 << 20)),
            cpus: Some(0.5),
            ..super::super::spec::tests::settings(&["true"])
        };
        let path = folder.path().join("app-1");
        limit(&path, &settings, 4711).expect("written");
        let read = |name: &str| fs::read_to_string(path.join(name)).expect("written");
        assert_eq!(
            (read("memory.max"), read("cpu.max"), read("cgroup.procs")),
            ("67108864".into(), "50000 100000".into(), "4711".into())
        );
        assert_eq!((out_of_memory(&path), used(&path)), (None, None));
        group(
            &path,
            "",
            &[
                ("memory.events", "low 0\noom 1\noom_kill 1\n"),
                ("cpu.stat", "usage_usec 1500000\nuser_usec 1\n"),
                ("memory.current", "4096\n"),
            ],
        );
        assert_eq!((out_of_memory(&path), used(&path)), (Some(64 << 20), Some((1.5, 4096))));
    }
}
