//! What the operating system may ask of us.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::UnboundedSender;

use super::event::{Cause, Event};

/// Turns signals into events until the loop has ended.
///
/// SIGTERM and SIGINT finish what runs and stop; a second one ends the process at once. SIGHUP reads the configuration again. SIGUSR1 opens the
/// log file anew. SIGPIPE is ignored by Rust's runtime already.
pub(super) async fn heed(events: UnboundedSender<Event>) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut reopen = signal(SignalKind::user_defined1())?;
    let mut stopping = false;
    loop {
        let event = tokio::select! {
            _ = terminate.recv() => Event::Shutdown,
            _ = interrupt.recv() => Event::Shutdown,
            _ = hangup.recv() => Event::Reload { cause: Cause::Signal, reply: None },
            _ = reopen.recv() => Event::ReopenLogs,
        };
        if matches!(event, Event::Shutdown) {
            if stopping {
                tracing::warn!("asked a second time: stopping at once");
                std::process::exit(1);
            }
            stopping = true;
        }
        if events.send(event).is_err() {
            return Ok(());
        }
    }
}
