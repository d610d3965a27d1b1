use std::process::ExitCode;

use anyhow::Context;

use super::Failure;
use super::arguments::UpstreamArguments;
use super::backend::{Backend, Settings};

/// `tidegate upstream`: the test backend in the foreground, until it is interrupted.
pub(super) fn run(arguments: UpstreamArguments) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let bind = arguments.bind;
        let settings = Settings {
            name: arguments.name.unwrap_or_default(),
            latency: arguments.latency,
            failure_rate: arguments.failure_rate,
            ..Settings::at(bind.clone())
        };
        let backend = Backend::start(settings).await.with_context(|| format!("cannot listen on {bind}"))?;
        println!("upstream {} listening on {}", backend.name(), backend.address());
        interrupted().await?;
        backend.kill().await;
        Ok(ExitCode::SUCCESS)
    })
}

/// Ready at SIGINT or SIGTERM.
pub(super) async fn interrupted() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
