use std::path::PathBuf;
use std::process::ExitCode;

use super::Failure;
use super::look::colorful;
use super::place::{USUAL, usual_file};
use crate::config;
use crate::control::{self, Options, Running, StartError};

/// `tidegate run`: the proxy itself, until a signal ends it.
pub(super) fn run(file: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let missing = || Failure::Usage(format!("no configuration: name one, or put it at {}", USUAL.join(" or ")));
    let file = usual_file(file.as_deref()).ok_or_else(missing)?;
    let running = start(Options::service(file))?;
    if let Some(admin) = running.admin_address() {
        tracing::info!("admin API on {admin}");
    }
    // Without a service manager that listens there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    // Without control nothing would ever change again: better to be started anew.
    running.wait().map_err(|_| Failure::Failed(anyhow::anyhow!("the control thread has panicked")))?;
    Ok(ExitCode::SUCCESS)
}

/// Starts, and says as this program does why that cannot be.
pub(super) fn start(options: Options) -> Result<Running, Failure> {
    control::start(options).map_err(|error| match error {
        StartError::Config(problems) => Failure::Configuration(config::render(&problems, colorful())),
        StartError::Machine(problem) => Failure::Failed(anyhow::anyhow!(problem)),
    })
}
