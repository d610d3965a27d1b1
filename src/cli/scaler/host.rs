//! What this machine has, as far as scalers need it. Read once; judged in [`super::local`].

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::process::{Resource, getrlimit};

/// This machine.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Host {
    /// Files and sockets that a process may have open; none for no bound.
    pub(super) files: Option<u64>,
    /// Processes that this user may have; none for no bound.
    pub(super) processes: Option<u64>,
    /// Bytes of memory that can be had.
    pub(super) memory: Option<u64>,
    /// CPUs.
    pub(super) cpus: usize,
    /// Connections that may wait for an accept.
    pub(super) somaxconn: Option<u64>,
    /// The ports that the kernel gives out by itself.
    pub(super) ephemeral: Option<(u16, u16)>,
    /// What is in the way of setting limits on children; none where nothing is.
    pub(super) no_cgroups: Option<String>,
    /// Things named by a configuration that are there and can be used: programs, sockets, folders.
    pub(super) usable: BTreeSet<PathBuf>,
    /// Whether systemd is this machine's init.
    pub(super) systemd: bool,
}

impl Host {
    /// This machine, and which of these sockets, programs and folders can be used.
    pub(super) fn look(sockets: &[PathBuf], programs: &[PathBuf], folders: &[PathBuf]) -> Host {
        let mut usable = BTreeSet::new();
        usable.extend(sockets.iter().filter(|socket| UnixStream::connect(socket).is_ok()).cloned());
        usable.extend(programs.iter().filter(|program| is_program(program)).cloned());
        usable.extend(folders.iter().filter(|folder| is_writable(folder)).cloned());
        Host {
            files: getrlimit(Resource::Nofile).current,
            processes: getrlimit(Resource::Nproc).current,
            memory: read("/proc/meminfo").and_then(|text| available(&text)),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            somaxconn: read("/proc/sys/net/core/somaxconn").and_then(|text| text.trim().parse().ok()),
            ephemeral: read("/proc/sys/net/ipv4/ip_local_port_range").and_then(|text| pair(&text)),
            no_cgroups: cgroups().err(),
            usable,
            systemd: Path::new("/run/systemd/system").is_dir(),
        }
    }
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// `MemAvailable:    1234 kB` in bytes.
fn available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

fn pair(text: &str) -> Option<(u16, u16)> {
    let mut numbers = text.split_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// A path that can be run, or a name that is in `PATH`.
fn is_program(program: &Path) -> bool {
    let runs = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    if program.components().count() > 1 {
        return runs(program);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| runs(&folder.join(program)))
}

/// A folder that can be written to, or that can be made in one.
fn is_writable(folder: &Path) -> bool {
    let there = folder.ancestors().find(|ancestor| ancestor.exists() || ancestor.as_os_str().is_empty());
    let there = there.filter(|ancestor| !ancestor.as_os_str().is_empty()).unwrap_or(Path::new("."));
    there.is_dir() && access(there, Access::WRITE_OK).is_ok()
}

/// Whether this process's own cgroup can have children with limits.
fn cgroups() -> Result<(), String> {
    let own = read("/proc/self/cgroup").ok_or("there are no cgroups")?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).ok_or("cgroup v2 is not in use")?;
    let folder = Path::new("/sys/fs/cgroup").join(own.trim_start_matches('/'));
    let control = folder.join("cgroup.subtree_control");
    access(&control, Access::WRITE_OK).map_err(|error| format!("{}: {error}", control.display()))?;
    let there = std::fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    match ["memory", "cpu"].iter().find(|name| !there.split_whitespace().any(|have| have == **name)) {
        Some(missing) => Err(format!("the controller `{missing}` is not given to {}", folder.display())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_tells_is_understood() {
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        assert_eq!(available("MemTotal: 9 kB\n"), None);
        assert_eq!(pair("32768\t60999\n"), Some((32768, 60999)));
        assert_eq!(pair("1"), None);
    }

    #[test]
    fn this_machine_is_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let none = folder.path().join("none");
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let made = folder.path().join("a/b");
        let host = Host::look(
            &[socket.clone(), none.clone()],
            &["sh".into(), file, "no-such-program".into()],
            std::slice::from_ref(&made),
        );
        assert_eq!(host.usable, [socket, "sh".into(), made].into());
        assert!(host.cpus >= 1 && host.memory.is_some_and(|bytes| bytes > 0));
    }
}
