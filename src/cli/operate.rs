use std::io::Write;
use std::process::ExitCode;

use super::Failure;
use super::arguments::{AdminArguments, Command, UpstreamName};
use super::client::Client;
use super::place::Place;
use super::status;
use crate::admin::model::UpstreamStatus;

/// The commands that talk to a running Tidegate.
pub(super) fn run(command: Command) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(operate(command))
}

async fn operate(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Status { json, admin } => {
            let (status, body) = client(&admin)?.status().await?;
            let text = if json { body.to_vec() } else { status::render(&status).into_bytes() };
            print(&text)?;
        }
        Command::Drain { upstream, deadline, wait, admin } => {
            let UpstreamName { pool, upstream } = upstream;
            let after = client(&admin)?.drain(&pool, &upstream, deadline, wait).await?;
            tell(&pool, &after)?;
        }
        Command::Undrain { upstream, admin } => change(&upstream, "undrain", &admin).await?,
        Command::Maintenance { upstream, admin } => change(&upstream, "maintenance", &admin).await?,
        Command::Ready { upstream, admin } => change(&upstream, "ready", &admin).await?,
        Command::Weight { upstream, weight, admin } => {
            let value = weight.map(|weight| format!("?value={weight}")).unwrap_or_default();
            change(&upstream, &format!("weight{value}"), &admin).await?;
        }
        Command::Reload { admin } => return reload(&admin).await,
        other => unreachable!("{other:?} asks nothing of a running Tidegate"),
    }
    Ok(ExitCode::SUCCESS)
}

fn client(admin: &AdminArguments) -> Result<Client, Failure> {
    Ok(Client::new(Place::find(admin)?))
}

async fn change(name: &UpstreamName, word: &str, admin: &AdminArguments) -> Result<(), Failure> {
    let after = client(admin)?.change(&name.pool, &name.upstream, word).await?;
    tell(&name.pool, &after)
}

fn tell(pool: &str, after: &UpstreamStatus) -> Result<(), Failure> {
    let mut line = format!("{pool} {}: {}", after.address, after.state);
    if !after.reason.is_empty() {
        line += &format!(" ({})", after.reason);
    }
    line += &format!(", weight {}, {} in flight", status::number(after.weight), after.in_flight);
    if let Some(seconds) = after.deadline_seconds {
        line += &format!(", cut in {}", status::span(seconds));
    }
    line.push('\n');
    print(line.as_bytes())
}

async fn reload(admin: &AdminArguments) -> Result<ExitCode, Failure> {
    let verdict = client(admin)?.reload().await?;
    if !verdict.accepted {
        let problems = verdict.problems.trim_end();
        let generation = verdict.generation;
        return Err(Failure::Configuration(format!(
            "{problems}\n\nrefused: generation {generation} goes on unchanged"
        )));
    }
    let mut text = format!("in force as generation {}\n", verdict.generation);
    for change in &verdict.changes {
        text += &format!("  {change}\n");
    }
    if !verdict.problems.is_empty() {
        eprintln!("{}", verdict.problems.trim_end());
    }
    print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Writes to standard output; a reader that has seen enough (`| head`) is no failure.
pub(super) fn print(text: &[u8]) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
