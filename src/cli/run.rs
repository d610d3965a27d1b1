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
    raise_descriptor_limit();
    let running = start(Options::service(file))?;
    if let Some(admin) = running.admin_address() {
        tracing::info!("admin API on {admin}");
    }
    // Without control nothing would ever change again: better to be started anew.
    running.wait().map_err(|_| Failure::Failed(anyhow::anyhow!("the control thread has panicked")))?;
    Ok(ExitCode::SUCCESS)
}

/// Takes as many descriptors as we may have: shells and older service managers start with 1,024, two for each proxied connection.
pub(super) fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where even that is refused, what there is has to do; the metrics page tells how much that is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Starts, and says as this program does why that cannot be.
pub(super) fn start(options: Options) -> Result<Running, Failure> {
    control::start(options).map_err(|error| match error {
        StartError::Config(problems) => Failure::Configuration(config::render(&problems, colorful())),
        StartError::Machine(problem) => Failure::Failed(anyhow::anyhow!(problem)),
    })
}
