//! MCP servers on standard input and output, as upstreams: a bridge speaks Streamable HTTP on a Unix socket of its own to whoever forwards
//! requests, and newline-delimited JSON-RPC to processes that it starts when they are needed.
//!
//! Each session has a process of its own, or many share one ([`Share`]). Nobody's ids clash: every request gets an id of the bridge's on
//! its way to a server, and its own again on the way back. An idle process is stopped; its sessions stay, and the next request starts
//! another one that is initialized as the first was. A process that ends by itself answers what was in progress with an error, and is
//! started again with growing delays. Requests of the 2026-07-28 revision are passed to processes that speak it, which are others than
//! those of sessions: a server is bound to what it is spoken to first.
//!
//! However the bridge ends, no process stays: each is in a group of its own, which is ended with it (`guard.rs` says what happens where we
//! are killed).
//!
//! It never looks into a message beyond what it has to rewrite, never limits or authenticates anybody (the socket's folder is ours alone),
//! and keeps no event for a client that has gone: a stream cannot be resumed.
//!
//! Why a socket and not a call within the process: so the rest of the proxy needs to know of no second kind of upstream, and its timeouts,
//! drains and metrics hold for these too.

mod answer;
mod backoff;
mod batch;
mod call;
mod child;
mod guard;
mod hear;
mod http;
mod message;
mod queue;
mod room;
mod server;
mod session;
mod settings;
mod stderr;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::task::JoinSet;

use room::{Counts, Room};
pub use settings::{Settings, Share};

/// What fails to be accepted is tried again after so long.
const AGAIN: Duration = Duration::from_millis(100);
/// The last answers are written within this.
const LAST: Duration = Duration::from_millis(500);
/// A socket's path has to fit into `sun_path`.
const LONGEST: usize = 107;

/// Streamable HTTP on a Unix socket, for MCP servers on standard input and output.
#[derive(Debug)]
pub struct Bridge {
    listener: UnixListener,
    folder: Folder,
    settings: watch::Receiver<Settings>,
    handle: Handle,
}

/// What is left of a [`Bridge`] in the hands of others while it runs.
#[derive(Debug, Clone)]
pub struct Handle {
    settings: Arc<watch::Sender<Settings>>,
    counts: Arc<Counts>,
}

/// The private folder of a socket, removed at the end.
#[derive(Debug)]
struct Folder {
    root: PathBuf,
    socket: PathBuf,
}

impl Bridge {
    /// Binds the socket, in a new folder that only our user can enter. No process is started before somebody asks for something.
    ///
    /// **Errors**: an empty command, a folder that cannot be made or whose path is too long for a socket.
    pub fn open(settings: Settings) -> io::Result<Bridge> {
        if settings.command.is_empty() {
            let what = "the command is empty: set the program that speaks MCP on its standard input and output";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let folder = Folder::make(&settings.directory)?;
        let listener = UnixListener::bind(&folder.socket)?;
        listener.set_nonblocking(true)?;
        let (sender, receiver) = watch::channel(settings);
        let handle = Handle { settings: Arc::new(sender), counts: Arc::default() };
        Ok(Bridge { listener, folder, settings: receiver, handle })
    }

    /// Where it listens. The path stays the same as long as the bridge lives.
    pub fn path(&self) -> &Path {
        &self.folder.socket
    }

    /// For whoever reloads or counts.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until `stop`, and then until all processes have ended: at most their grace and a moment more.
    ///
    /// Has to be called within a local runtime (`LocalRuntime` or `LocalSet`). Where it is dropped before it ends, all processes are killed.
    ///
    /// **Errors**: where the socket cannot be watched.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> io::Result<()> {
        let listener = tokio::net::UnixListener::from_std(self.listener)?;
        let room = Room::new(&self.settings.borrow_and_update(), &self.handle.counts);
        let running = Running(room.clone());
        let (mut connections, ending) = (JoinSet::new(), watch::Sender::new(()));
        let mut stop = std::pin::pin!(stop);
        loop {
            let pace = room.settings().pace();
            tokio::select! {
                () = &mut stop => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => drop(connections.spawn_local(serve(room.clone(), stream, ending.subscribe()))),
                    Err(error) => {
                        tracing::warn!(target: "tidegate::stdio", pool = %room.settings().pool, %error, "a connection to the bridge could not be accepted");
                        tokio::time::sleep(AGAIN).await;
                    }
                },
                _ = self.settings.changed() => room.update(&self.settings.borrow_and_update()),
                Some(_) = connections.join_next() => {}
                () = tokio::time::sleep(pace) => {}
            }
            room.sweep_if_due(pace);
        }
        room.close().await;
        drop(running);
        // Whoever waits for an answer has been given one.
        ending.send_replace(());
        let _ = tokio::time::timeout(LAST, async { while connections.join_next().await.is_some() {} }).await;
        connections.shutdown().await;
        Ok(())
    }
}

/// Ends what runs with the future that runs it.
struct Running(Rc<Room>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

async fn serve(room: Rc<Room>, stream: tokio::net::UnixStream, mut ending: watch::Receiver<()>) {
    let service = service_fn(|request| self::http::serve(room.clone(), request));
    let mut connection = std::pin::pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    let served = tokio::select! {
        served = connection.as_mut() => served,
        _ = ending.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(target: "tidegate::stdio", %error, "a connection to the bridge ended early");
    }
}

impl Handle {
    /// Other settings, after a reload: new sessions get the new command, those that are there go on with their processes. What is started
    /// again for an old session is the new command too.
    pub fn update(&self, settings: Settings) {
        self.settings.send_if_modified(|now| {
            let differs = *now != settings;
            *now = settings;
            differs
        });
    }

    /// Sessions at the moment.
    pub fn sessions(&self) -> usize {
        self.counts.sessions.load(Relaxed)
    }

    /// Processes at the moment, those that are being stopped included.
    pub fn processes(&self) -> usize {
        self.counts.processes.load(Relaxed)
    }

    /// Processes started since the bridge was opened.
    pub fn starts(&self) -> usize {
        self.counts.starts.load(Relaxed)
    }
}

impl Folder {
    fn make(base: &Path) -> io::Result<Folder> {
        let base = std::path::absolute(base)?;
        for _ in 0..16 {
            let path = base.join(format!("tidegate-stdio-{}-{:08x}", std::process::id(), fastrand::u32(..)));
            let socket = path.join("mcp");
            if socket.as_os_str().len() > LONGEST {
                let what = format!("{} is too long for a socket: set a folder with a shorter path", socket.display());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
                Ok(()) => return Ok(Folder { root: path, socket }),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// Why a process could not be started, and what to do.
fn explain(settings: &Settings, error: &io::Error) -> String {
    let program = settings.command.first().map_or("", String::as_str);
    if let Some(cwd) = settings.cwd.as_ref().filter(|cwd| !cwd.is_dir()) {
        return format!("the MCP server cannot be started: its working directory {} is not there", cwd.display());
    }
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!(
                "the MCP server cannot be started: the program `{program}` is not there; install it, or write its whole path"
            )
        }
        io::ErrorKind::PermissionDenied => {
            format!(
                "the MCP server cannot be started: `{program}` may not be run; make it executable for the user that Tidegate runs as"
            )
        }
        _ => format!("the MCP server cannot be started: `{program}`: {error}"),
    }
}
