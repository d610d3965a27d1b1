//! What the operating system may ask of us.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::UnboundedSender;

use super::event::{Cause, Event};

/// The signals that are heeded from now on.
///
/// SIGTERM and SIGINT finish what runs and stop; a second one ends the process at once. SIGHUP reads the configuration again. SIGUSR1 opens the
/// log file anew. SIGPIPE is ignored by Rust's runtime already.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    reopen: Signal,
}

impl Signals {
    /// Heeds them: until they are passed on they wait.
    pub(super) fn heeded() -> std::io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
        })
    }

    /// Turns them into events until the loop has ended.
    pub(super) async fn pass_on(mut self, events: UnboundedSender<Event>) {
        let mut stopping = false;
        loop {
            let event = tokio::select! {
                _ = self.terminate.recv() => Event::Shutdown,
                _ = self.interrupt.recv() => Event::Shutdown,
                _ = self.hangup.recv() => Event::Reload { cause: Cause::Signal, reply: None },
                _ = self.reopen.recv() => Event::ReopenLogs,
            };
            if matches!(event, Event::Shutdown) {
                if stopping {
                    tracing::warn!("asked a second time: stopping at once");
                    std::process::exit(1);
                }
                stopping = true;
            }
            if events.send(event).is_err() {
                return;
            }
        }
    }
}
