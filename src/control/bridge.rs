//! Bridges to MCP servers on standard input and output: one thread for each pool that has them.

use std::io;
use std::path::PathBuf;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::config::model::{self, McpStdio};
use crate::proxy::PRINCIPAL;
use crate::stdio::{Bridge, Handle, Settings};
use crate::types::Address;

/// A bridge that runs; it is told to stop when this is dropped.
#[derive(Debug)]
pub(super) struct Bridged {
    handle: Handle,
    path: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Bridged {
    /// Starts the bridge of a pool.
    ///
    /// **Errors**: no socket or no thread to be had.
    fn start(pool: &str, stdio: &McpStdio) -> io::Result<Self> {
        let bridge = Bridge::open(settings(pool, stdio))?;
        let (handle, path) = (bridge.handle(), bridge.path().to_owned());
        let (stop, stopped) = oneshot::channel::<()>();
        let name = pool.to_owned();
        let thread = std::thread::Builder::new().name("stdio".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
            let run = |runtime: tokio::runtime::LocalRuntime| {
                runtime.block_on(bridge.run(async {
                    // A sender that is gone means the same.
                    let _ = stopped.await;
                }))
            };
            if let Err(error) = runtime.and_then(run) {
                tracing::error!(pool = %name, "the bridge to its MCP servers has ended: {error}");
            }
        })?;
        Ok(Bridged { handle, path, stop: Some(stop), thread: Some(thread) })
    }

    /// Waits until its processes have ended.
    pub(super) fn end(mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // One that has panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Drop for Bridged {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

/// The pool's settings with its bridge as upstream, where it is to have one; starts, changes or drops the bridge.
pub(super) fn bridged(bridge: &mut Option<Bridged>, pool: &str, mut settings: model::Pool) -> model::Pool {
    let Some(stdio) = &settings.stdio else {
        *bridge = None;
        return settings;
    };
    match bridge {
        Some(running) => running.handle.update(self::settings(pool, stdio)),
        None => match Bridged::start(pool, stdio) {
            Ok(started) => *bridge = Some(started),
            Err(error) => {
                tracing::error!(%pool, "cannot start the bridge to its MCP servers: {error}; reload to try again")
            }
        },
    }
    if let Some(running) = bridge {
        settings.upstreams = vec![model::Upstream {
            address: Address::Unix(running.path.clone()),
            weight: 1,
            backup: false,
            max_connections: None,
        }];
    }
    settings
}

fn settings(pool: &str, stdio: &McpStdio) -> Settings {
    Settings {
        env: stdio.env.clone(),
        cwd: stdio.cwd.clone(),
        share: stdio.share,
        idle_timeout: stdio.idle_timeout,
        abandoned: stdio.abandoned,
        grace: stdio.grace,
        max_processes: stdio.max_processes as usize,
        principal_header: PRINCIPAL.as_str().to_owned(),
        ..Settings::new(pool, stdio.command.iter().map(String::as_str))
    }
}
