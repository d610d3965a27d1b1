//! The process's own log, on standard error.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use crate::config::model::{self, LogFormat};

static LEVEL: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// These warn of single frames, which a client can send as often as it likes. Who wants to hear of them says so: `debug,h2=debug`.
const QUIET: &str = "h2=error,hyper=error";

/// Starts the log as configured; later calls only change its level. The format is read at start only.
///
/// Where a program that embeds us has a subscriber of its own, that one stays.
pub(super) fn apply(settings: &model::Log) {
    let Ok(level) = format!("{QUIET},{}", settings.level).parse::<EnvFilter>() else { return };
    if let Some(handle) = LEVEL.get() {
        let _ = handle.reload(level);
        return;
    }
    let (filter, handle) = reload::Layer::new(level);
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).with_target(false);
    let started = match settings.format {
        LogFormat::Text => tracing_subscriber::registry().with(filter).with(lines).try_init(),
        LogFormat::Json => tracing_subscriber::registry().with(filter).with(lines.json()).try_init(),
    };
    if started.is_ok() {
        let _ = LEVEL.set(handle);
    }
}
