//! One process: its start, its three pipes, and its certain end.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use super::guard::Guard;
use super::server::Server;
use super::settings::Settings;
use super::stderr::Words;
use crate::scaler::process::OURS_ALONE;
use crate::scaler::process::proc::{self, Stat};

/// What a process inherits from us and gives to all that it starts, so that also those are found that have left its group.
const MARK: &str = "TIDEGATE_STDIO";
/// A server that ends when its input does gets so long to do so before it is sent a signal.
const POLITE: Duration = Duration::from_millis(500);
/// What an ended process has left in its pipes is read within this.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How often is looked whether others of a group have ended.
const LOOK: Duration = Duration::from_millis(50);
/// So much that a server has not read yet is kept for it.
const UNREAD: usize = 64 << 20;

/// A process that speaks MCP on its standard input and output.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) pid: u32,
    pub(super) started: Instant,
    /// It has answered what it was greeted with.
    pub(super) ready: Cell<bool>,
    pub(super) words: Rc<Words>,
    input: RefCell<Option<mpsc::UnboundedSender<Bytes>>>,
    unread: Rc<Cell<usize>>,
    asked_to_end: Cell<bool>,
    /// Its number may be somebody else's.
    reaped: Cell<bool>,
    /// Why it was ended by us, where that was its fault.
    fault: RefCell<Option<String>>,
    stop: Notify,
    how: RefCell<String>,
    gone: watch::Sender<bool>,
}

impl Child {
    /// Starts one for a server. Has to be called within a local runtime.
    pub(super) fn start(settings: &Settings, guard: &Rc<Guard>, server: &Rc<Server>) -> io::Result<Rc<Child>> {
        let mark = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let (program, arguments) = settings.command.split_first().ok_or(io::ErrorKind::NotFound)?;
        let mut command = Command::new(program);
        OURS_ALONE.iter().for_each(|name| {
            command.env_remove(name);
        });
        command.args(arguments).envs(&settings.env).env(MARK, &mark).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(cwd) = &settings.cwd {
            command.current_dir(cwd);
        }
        let mut group = Group::of(command.spawn()?, mark, guard);
        let process = group.process.as_mut().ok_or(io::ErrorKind::Other)?;
        let pipes = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let (stdin, stdout) = (ChildStdin::from_std(stdin)?, ChildStdout::from_std(stdout)?);
        let stderr = ChildStderr::from_std(stderr)?;
        let end = end_of(group.pid)?;
        let (input, lines) = mpsc::unbounded_channel();
        let child = Rc::new(Child {
            pid: group.pid,
            started: Instant::now(),
            ready: Cell::new(false),
            words: Words::new(&settings.pool, group.pid),
            input: RefCell::new(Some(input)),
            unread: Rc::default(),
            asked_to_end: Cell::new(false),
            reaped: Cell::new(false),
            fault: RefCell::default(),
            stop: Notify::new(),
            how: RefCell::default(),
            gone: watch::Sender::new(false),
        });
        let writer = tokio::task::spawn_local(write(stdin, lines, child.unread.clone()));
        let reader = tokio::task::spawn_local(read(stdout, child.clone(), Rc::downgrade(server), settings.max_line));
        let listener = tokio::task::spawn_local(child.words.clone().listen(stderr));
        let (grace, pool) = (settings.grace, settings.pool.clone());
        let attended = Attended { child: child.clone(), group, end, grace, pool, server: Rc::downgrade(server) };
        tokio::task::spawn_local(attended.run(reader, listener, writer));
        Ok(child)
    }

    /// Whether messages can be sent to it.
    pub(super) fn is_open(&self) -> bool {
        !self.asked_to_end.get() && !*self.gone.borrow()
    }

    /// Sends a message.
    ///
    /// **Errors**: where it has not read what it was sent before.
    pub(super) fn send(&self, line: Bytes) -> Result<(), String> {
        if self.unread.get() > 0 && self.unread.get() + line.len() > UNREAD {
            return Err(
                "the MCP server does not read what it is sent; see its log lines for what it waits for".to_owned()
            );
        }
        self.unread.set(self.unread.get() + line.len());
        if let Some(input) = self.input.borrow().as_ref() {
            // Where it has just ended, whoever waits is told by its end.
            let _ = input.send(line);
        }
        Ok(())
    }

    /// Asks it to end, and sees to it that it does.
    pub(super) fn stop(&self) {
        if !self.asked_to_end.replace(true) {
            *self.input.borrow_mut() = None;
            self.stop.notify_one();
        }
    }

    /// Kills it at once, with its group.
    pub(super) fn kill(&self) {
        if !self.reaped.get() {
            let _ = proc::signal_group(self.pid, Signal::KILL);
        }
    }

    /// Ends it for what it has done.
    fn condemn(&self, why: String) {
        self.fault.borrow_mut().get_or_insert(why);
        self.stop();
    }

    pub(super) fn was_asked_to_end(&self) -> bool {
        self.asked_to_end.get() && self.fault.borrow().is_none()
    }

    /// How it ended, for people.
    pub(super) fn how(&self) -> String {
        self.how.borrow().clone()
    }

    /// Once nothing is left of it, and its server knows.
    pub(super) async fn gone(&self) {
        let _ = self.gone.subscribe().wait_for(|gone| *gone).await;
    }

    fn describe(&self, status: Option<ExitStatus>) -> String {
        let how = match (self.fault.borrow().as_deref(), status) {
            (Some(fault), _) => fault.to_owned(),
            (None, Some(status)) => status.to_string(),
            (None, None) => "its exit status is not known".to_owned(),
        };
        match self.words.last() {
            last if last.is_empty() => how,
            last => format!("{how}; its last line: {last}"),
        }
    }
}

/// Tells of the end of a process without waiting for it, so that its number stays its own.
fn end_of(pid: u32) -> io::Result<AsyncFd<OwnedFd>> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
    let held = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    #[expect(
        deprecated,
        reason = "unsound for types that lie about their descriptor only; what replaces it is an unsafe function"
    )]
    AsyncFd::with_interest(held, Interest::READABLE)
}

/// A process with all that it has started, killed unless it is waited for: also where nobody attends it any more.
struct Group {
    process: Option<std::process::Child>,
    pid: u32,
    mark: String,
    guard: Rc<Guard>,
}

impl Group {
    fn of(process: std::process::Child, mark: String, guard: &Rc<Guard>) -> Group {
        let pid = process.id();
        guard.add(pid);
        Group { process: Some(process), pid, mark, guard: guard.clone() }
    }

    fn signal(&self, signal: Signal) {
        let _ = proc::signal_group(self.pid, signal);
    }

    /// Whether others than its leader live.
    async fn has_others(&self) -> bool {
        let pid = self.pid;
        let look = move || proc::group(pid).iter().any(|stat| stat.pid != pid);
        tokio::task::spawn_blocking(look).await.unwrap_or(false)
    }

    /// Kills what is left of it, and answers how its leader ended.
    async fn clear(mut self) -> Option<ExitStatus> {
        self.signal(Signal::KILL);
        let mark = self.mark.clone();
        let _ = tokio::task::spawn_blocking(move || strays(&mark).iter().for_each(proc::kill)).await;
        self.process.take().and_then(|mut process| process.wait().ok())
    }
}

/// Those that carry its mark.
fn strays(mark: &str) -> Vec<Stat> {
    let carries = |pid: &u32| proc::environment(*pid, MARK).get(MARK).is_some_and(|found| found == mark);
    proc::pids().filter(carries).filter_map(proc::stat).filter(Stat::is_alive).collect()
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // The number is still its own: it has not been waited for.
            self.signal(Signal::KILL);
            let mark = std::mem::take(&mut self.mark);
            std::thread::spawn(move || {
                strays(&mark).iter().for_each(proc::kill);
                process.wait()
            });
        }
        self.guard.remove(self.pid);
    }
}

struct Attended {
    child: Rc<Child>,
    group: Group,
    end: AsyncFd<OwnedFd>,
    grace: Duration,
    pool: String,
    server: Weak<Server>,
}

impl Attended {
    async fn run(self, mut reader: JoinHandle<()>, mut listener: JoinHandle<()>, writer: JoinHandle<()>) {
        let mut is_read = false;
        tokio::select! {
            () = self.ended() => {}
            () = self.child.stop.notified() => self.stop().await,
            _ = &mut reader => {
                is_read = true;
                if !self.has_ended_by(Instant::now() + POLITE).await {
                    // It may still live, but nothing can come from it any more.
                    self.child.condemn("it closed its output and was ended".to_owned());
                    self.stop().await;
                }
            }
        }
        let Attended { child, group, server, .. } = self;
        let status = group.clear().await;
        child.reaped.set(true);
        let read = async {
            if !is_read {
                let _ = (&mut reader).await;
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, async { tokio::join!(read, &mut listener) }).await;
        reader.abort();
        listener.abort();
        writer.abort();
        *child.input.borrow_mut() = None;
        *child.how.borrow_mut() = child.describe(status);
        if let Some(server) = server.upgrade() {
            server.ended(&child);
        }
        child.gone.send_replace(true);
    }

    async fn ended(&self) {
        if self.end.readable().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn has_ended_by(&self, deadline: Instant) -> bool {
        tokio::time::timeout_at(deadline.into(), self.ended()).await.is_ok()
    }

    /// Its input has been closed. The others of its group get as long as it.
    async fn stop(&self) {
        let deadline = Instant::now() + self.grace;
        let ended = self.has_ended_by(deadline.min(Instant::now() + POLITE)).await;
        self.group.signal(Signal::TERM);
        if !ended && !self.has_ended_by(deadline).await {
            tracing::warn!(target: "tidegate::stdio", pool = %self.pool, pid = self.child.pid, "the MCP server has not ended within its grace and is killed");
            self.group.signal(Signal::KILL);
            self.ended().await;
        }
        while Instant::now() < deadline && self.group.has_others().await {
            tokio::time::sleep(LOOK).await;
        }
    }
}

async fn write(mut stdin: ChildStdin, mut lines: mpsc::UnboundedReceiver<Bytes>, unread: Rc<Cell<usize>>) {
    let mut buffer = Vec::new();
    while let Some(line) = lines.recv().await {
        buffer.extend_from_slice(&line);
        buffer.push(b'\n');
        let written = stdin.write_all(&buffer).await;
        unread.set(unread.get().saturating_sub(line.len()));
        if written.is_err() {
            return;
        }
        buffer.clear();
        buffer.shrink_to(64 << 10);
    }
}

async fn read(mut stdout: ChildStdout, child: Rc<Child>, server: Weak<Server>, max_line: usize) {
    let mut buffer = BytesMut::with_capacity(8 << 10);
    let mut searched = 0;
    loop {
        if buffer.len() > max_line {
            child.condemn(format!("it wrote a line longer than {max_line} bytes and was ended"));
            return;
        }
        if buffer.capacity() - buffer.len() < 4 << 10 {
            buffer.reserve(buffer.len().max(8 << 10));
        }
        let Ok(1..) = stdout.read_buf(&mut buffer).await else { return };
        while let Some(end) = memchr::memchr(b'\n', &buffer[searched..]) {
            let line = buffer.split_to(searched + end).freeze();
            buffer.advance(1);
            searched = 0;
            let Some(server) = server.upgrade() else { return };
            server.hears(&child, line);
        }
        searched = buffer.len();
    }
}
