//! The scalers at work: once a second for each pool, what was seen is turned into a decision, and the decision into instances.
//!
//! One thread of its own with a task for each pool, so that a driver that hangs holds up neither another pool nor control. It reads the
//! tables in force and writes none: which replicas there are it tells its [`Host`], and control does the rest. Its settings are those of the
//! tables too, so a reload needs no word to it.

mod build;
mod clock;
mod ledger;
mod pool;
mod report;
mod sampler;
mod shared;
mod supervisor;
mod tally;
mod turn;
mod view;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::admin::scaling::{Answer, Ask, AskError};
use crate::telemetry::Registry;
pub(crate) use shared::Host;
use supervisor::Supervisor;

/// What the scalers need.
pub(crate) struct Parts {
    /// Whom they work for.
    pub(crate) host: Box<dyn Host>,
    /// Where they publish figures.
    pub(crate) registry: Arc<Registry>,
    /// The configuration's folder: state is kept beside it where nothing else is said.
    pub(crate) folder: PathBuf,
}

/// What the scalers' thread hears.
enum Call {
    Ask(Ask, oneshot::Sender<Result<Answer, AskError>>),
    End,
}

/// The scalers' thread.
#[derive(Debug)]
pub(crate) struct Scalers {
    calls: UnboundedSender<Call>,
    thread: JoinHandle<()>,
}

/// Asks the scalers, from any thread.
#[derive(Debug, Clone)]
pub(crate) struct ScalerLine(UnboundedSender<Call>);

/// Starts the scalers' thread.
///
/// **Errors**: the system gives no thread.
pub(crate) fn start(parts: Parts) -> std::io::Result<Scalers> {
    let (calls, heard) = unbounded_channel();
    let builder = std::thread::Builder::new().name("scaler".to_owned());
    let thread = builder.spawn(move || {
        match tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()) {
            Ok(runtime) => runtime.block_on(Supervisor::new(parts).run(heard)),
            Err(error) => tracing::error!("the scalers cannot start their runtime: {error}"),
        }
    })?;
    Ok(Scalers { calls, thread })
}

impl Scalers {
    /// The way to ask them.
    pub(crate) fn line(&self) -> ScalerLine {
        ScalerLine(self.calls.clone())
    }

    /// Has them write down what they know and end; instances go on unless the configuration says otherwise.
    pub(crate) fn end(&self) {
        // They may have ended by themselves, by a panic that was told.
        let _ = self.calls.send(Call::End);
    }

    /// Whether they have ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

impl ScalerLine {
    /// Asks.
    ///
    /// **Errors**: as [`AskError`] says.
    pub(crate) async fn ask(&self, ask: Ask) -> Result<Answer, AskError> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Call::Ask(ask, reply)).map_err(|_| AskError::Ended)?;
        answer.await.unwrap_or(Err(AskError::Ended))
    }
}
