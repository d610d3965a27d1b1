//! Making a process of an order.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind as Io};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use tokio::sync::watch;

use super::marks;
use super::proc;
use super::record::{Process, Record, file};
use super::{Instance, Shared, attend, cgroup, lock, port, spec, unix_now};
use crate::config::model;
use crate::scaler::{DriverError, ErrorKind, Life, Order};

/// What systemd and others have told us about ourselves is nothing to our children.
pub(crate) const OURS_ALONE: &[&str] =
    &["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "MAINPID"];
/// A socket's path has to fit into `sun_path`.
const LONGEST_SOCKET: usize = 107;

pub(super) fn refused(what: String, advice: &str) -> DriverError {
    DriverError { what, advice: advice.to_owned(), kind: ErrorKind::Refused }
}

impl Shared {
    /// Starts an instance. Blocking: a few milliseconds, longer where the program is on a slow disk.
    pub(super) fn launch(self: &Arc<Self>, order: &Order) -> Result<(), DriverError> {
        let settings = lock(&self.settings).clone();
        let is_ended = |instance: &Instance| matches!(instance.life, Life::Ended { .. });
        let earlier = lock(&self.instances).get(&order.id).map(is_ended);
        match earlier {
            Some(false) => return Ok(()),
            Some(true) => self.clear_away(&order.id),
            None => {}
        }
        let taken =
            lock(&self.instances).values().filter_map(|instance| instance.record.port).collect::<BTreeSet<u16>>();
        let mut record = self.draft(&settings, order, &taken)?;
        self.note(&record, Life::Pending);
        match self.make(&settings, &mut record) {
            Ok(child) => {
                self.note(&record, Life::Running);
                attend::begin(self, &record, Some(child));
                let asked = lock(&self.instances).get(&order.id).is_some_and(|one| one.stop.borrow().is_some());
                // Asked to stop before there was anybody to tell.
                if asked { self.stop(&order.id, settings.grace) } else { Ok(()) }
            }
            Err(error) => {
                lock(&self.instances).remove(&order.id);
                Record::remove(&self.folder, &order.id);
                Err(error)
            }
        }
    }

    /// Keeps the instance in mind as it is now.
    pub(super) fn note(&self, record: &Record, life: Life) {
        let mut instances = lock(&self.instances);
        let instance = instances.entry(record.id.clone()).or_insert_with(|| Instance {
            record: record.clone(),
            life: Life::Pending,
            stop: watch::Sender::new(None),
            read: 0,
            sample: None,
        });
        (instance.record, instance.life) = (record.clone(), life);
    }

    /// What the instance will be.
    fn draft(&self, settings: &model::Process, order: &Order, taken: &BTreeSet<u16>) -> Result<Record, DriverError> {
        let texts = || settings.command.iter().chain(settings.env.values());
        let names = |word: &str| texts().any(|text| text.contains(word));
        if !names("{port}") && !names("{socket}") {
            let advice =
                "write {port} or {socket} where the program takes the address it listens on, in `command` or `env`";
            return Err(refused("nobody knows where the instance would listen".to_owned(), advice));
        }
        let socket = names("{socket}").then(|| file(&self.folder, &order.id, "sock"));
        if let Some(socket) = socket.as_ref().filter(|socket| socket.as_os_str().len() > LONGEST_SOCKET) {
            let what = format!("a socket's path cannot be as long as {}", socket.display());
            return Err(refused(what, "set `scaler.state` to a folder with a shorter path, or use {port}"));
        }
        let port = if names("{port}") { Some(port::free(settings.ports.as_deref(), taken)?) } else { None };
        let output = match settings.output.as_str() {
            "off" => None,
            "log" => Some(file(&self.folder, &order.id, "out")),
            path => Some(PathBuf::from(path.replace("{id}", &order.id).replace("{pool}", &self.pool))),
        };
        Ok(Record {
            id: order.id.clone(),
            pool: self.pool.clone(),
            proxy: self.proxy.clone(),
            spec: spec(settings),
            decision: order.decision.clone(),
            generation: order.generation,
            started: unix_now(),
            port,
            socket,
            output,
            ..Record::default()
        })
    }

    /// Makes the process. Its record is there before it is, and again once its number is known.
    fn make(&self, settings: &model::Process, record: &mut Record) -> Result<Child, DriverError> {
        let unwritable = |error: io::Error| {
            let what = format!("the instance's record cannot be written in {}: {error}", self.folder.display());
            refused(what, "make room there, or set `scaler.state` to a folder that can be written")
        };
        fs::create_dir_all(&self.folder).map_err(unwritable)?;
        let _ = fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o700));
        record.write(&self.folder).map_err(unwritable)?;
        if let Some(socket) = &record.socket {
            // One that an earlier bearer of the name has left.
            let _ = fs::remove_file(socket);
        }
        let mut command = self.command(settings, record)?;
        let child = command.spawn().map_err(|error| explain(settings, &error))?;
        let stat = proc::stat(child.id());
        let start = stat.map_or(0, |stat| stat.start);
        record.process = Some(Process { pid: child.id(), start, boot: proc::boot().to_owned() });
        record.cgroup = cgroup::confine(self, settings, &record.id, child.id());
        if let Err(error) = record.write(&self.folder) {
            // It is found by its marks.
            tracing::warn!(pool = %self.pool, instance = %record.id, %error, "the instance's record could not be completed");
        }
        Ok(child)
    }

    fn command(&self, settings: &model::Process, record: &Record) -> Result<Command, DriverError> {
        let fill = |text: &str| fill(text, record);
        let Some((program, arguments)) = settings.command.split_first() else {
            return Err(refused("the command is empty".to_owned(), "set the pool's `scaler.process.command`"));
        };
        let mut command = Command::new(fill(program));
        command.args(arguments.iter().map(|argument| fill(argument)));
        if settings.inherit_env {
            OURS_ALONE.iter().for_each(|name| {
                command.env_remove(name);
            });
        } else {
            command.env_clear();
        }
        command.envs(settings.env.iter().map(|(key, value)| (key, fill(value))));
        command.envs(marks::marks(record, &self.state));
        if let Some(directory) = &settings.directory {
            command.current_dir(directory);
        }
        // A group of its own: no terminal's Ctrl-C reaches it, and one signal reaches all of it.
        command.process_group(0).stdin(Stdio::null());
        match &record.output {
            None => command.stdout(Stdio::null()).stderr(Stdio::null()),
            Some(path) => {
                let output = open(path)?;
                let again = output.try_clone().map_err(|error| unopened(path, &error))?;
                command.stdout(output).stderr(again)
            }
        };
        Ok(command)
    }
}

/// Fills in what a template names.
fn fill(text: &str, record: &Record) -> String {
    let port = record.port.map_or_else(String::new, |port| port.to_string());
    let socket = record.socket.as_ref().map_or_else(String::new, |socket| socket.display().to_string());
    let words = [("{port}", &port), ("{socket}", &socket), ("{id}", &record.id), ("{pool}", &record.pool)];
    words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(word, value))
}

fn open(path: &Path) -> Result<File, DriverError> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|error| unopened(path, &error))
}

fn unopened(path: &Path, error: &io::Error) -> DriverError {
    let what = format!("the output file {} cannot be opened: {error}", path.display());
    refused(what, "make its folder and let Tidegate write there, or set the pool's `output` to \"log\"")
}

/// Why a process could not be made, and what to do.
fn explain(settings: &model::Process, error: &io::Error) -> DriverError {
    let program = settings.command.first().map_or("", String::as_str);
    let directory = settings.directory.as_deref();
    if let Some(directory) = directory.filter(|directory| !directory.is_dir()) {
        let what = format!("the working directory {} is not there", directory.display());
        return refused(what, "make it, or change the pool's `directory`");
    }
    let full = |what: String, advice: &str| DriverError { what, advice: advice.to_owned(), kind: ErrorKind::Full };
    match error.kind() {
        Io::NotFound if is_file(program, directory) => {
            let what =
                format!("`{program}` cannot be run: the interpreter in its first line, or its loader, is not there");
            refused(what, "install what its first line names, or change the pool's `command`")
        }
        Io::NotFound => refused(
            format!("the program `{program}` is not there"),
            "install it, or write its whole path in the pool's `command`: it is looked for in Tidegate's own PATH",
        ),
        Io::PermissionDenied => refused(
            format!("`{program}` may not be run"),
            "make it executable (chmod +x) for the user that Tidegate runs as, with all folders above it",
        ),
        Io::OutOfMemory | Io::WouldBlock => full(
            format!("the machine has no room for another process: {error}"),
            "lower the pool's `max`, or raise the limit on processes (ulimit -u, TasksMax=) or memory",
        ),
        _ if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => full(
            "Tidegate has too many files open to start a process".to_owned(),
            "raise its limit (ulimit -n, LimitNOFILE=)",
        ),
        _ => refused(
            format!("`{program}` cannot be run: {error}"),
            "see that the pool's `command` is a program for this machine",
        ),
    }
}

fn is_file(program: &str, directory: Option<&Path>) -> bool {
    if program.contains('/') {
        return directory.unwrap_or(Path::new("")).join(program).is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_in() {
        let record = Record { id: "app-3".into(), pool: "app".into(), port: Some(8123), ..Record::default() };
        assert_eq!(
            fill("--bind=127.0.0.1:{port} {id} {pool} {other} {", &record),
            "--bind=127.0.0.1:8123 app-3 app {other} {"
        );
        let record = Record { socket: Some("/run/app.sock".into()), ..record };
        assert_eq!(fill("unix:{socket}", &record), "unix:/run/app.sock");
    }
}
