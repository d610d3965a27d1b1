//! `tidegate run`: the proxy itself.

use std::path::PathBuf;
use std::process::ExitCode;

use super::Failure;
use crate::control::{self, Options, StartError};

/// Where the configuration is looked for when nobody names it.
const PLACES: [&str; 2] = ["tidegate.toml", "/etc/tidegate/tidegate.toml"];

/// Runs until a signal ends it.
pub(super) fn run(file: Option<PathBuf>, color: bool) -> Result<ExitCode, Failure> {
    let file = match file.or_else(|| PLACES.iter().map(PathBuf::from).find(|place| place.exists())) {
        Some(file) => file,
        None => {
            return Err(Failure::Usage(format!("no configuration: name one, or put it at {}", PLACES.join(" or "))));
        }
    };
    let running = control::start(Options::service(file)).map_err(|error| match error {
        StartError::Config(problems) => {
            let texts: Vec<String> = problems.iter().map(|problem| problem.render(color)).collect();
            Failure::Configuration(texts.join("\n\n"))
        }
        StartError::Machine(problem) => Failure::Failed(anyhow::anyhow!(problem)),
    })?;
    for (listener, address) in running.addresses() {
        tracing::info!(%listener, "listening on {address}");
    }
    if let Some(admin) = running.admin_address() {
        tracing::info!("admin API on {admin}");
    }
    running.wait();
    Ok(ExitCode::SUCCESS)
}
