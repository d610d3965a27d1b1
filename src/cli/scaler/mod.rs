//! `tidegate scaler …`: how pools are scaled, for people.
//!
//! Everything that is about a running Tidegate goes through its admin API; what is told is rendered here by pure functions of what that
//! answers. Simulations and plans are made here too, not in the proxy: they may take seconds of CPU that belong to traffic there.

mod alerts;
mod arguments;
mod ask;
mod explain;
mod facts;
mod history;
mod host;
mod import;
mod local;
mod manifest;
#[cfg(test)]
mod metrics;
mod plan;
mod report;
#[cfg(test)]
mod sample;
mod settings;
mod simulate;
mod status;
mod times;
mod traffic;

use std::process::ExitCode;

pub(super) use arguments::ScalerCommand;
use arguments::{ExplainArguments, HistoryArguments};
use ask::{Asking, one, some};
use times::Times;

use super::Failure;
use super::arguments::AdminArguments;
use super::operate::print;
use super::status::span;
use crate::admin::scaling::{Finding, PoolScaler};
use crate::config;

/// The Grafana dashboard.
const DASHBOARD: &str = include_str!("../../../conf/grafana/tidegate-scaler.json");

/// One command to its end.
pub(super) fn run(command: ScalerCommand) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(perform(command))
}

async fn perform(command: ScalerCommand) -> Result<ExitCode, Failure> {
    let times = Times::local();
    match command {
        ScalerCommand::Status { pool, json, admin } => show(pool.as_deref(), json, &admin, &times).await?,
        ScalerCommand::Explain(arguments) => explain(&arguments, &times).await?,
        ScalerCommand::History(arguments) => list(&arguments, &times).await?,
        ScalerCommand::Doctor { json, admin } => return doctor(json, &admin).await,
        ScalerCommand::Pause { pool, lasting, admin } => tell(&Asking::of(&admin)?.pause(&pool, lasting).await?)?,
        ScalerCommand::Resume { pool, admin } => tell(&Asking::of(&admin)?.resume(&pool).await?)?,
        ScalerCommand::Set { pool, to, lasting, end, admin } => {
            let to = if end { None } else { to };
            tell(&Asking::of(&admin)?.set(&pool, to, lasting).await?)?;
        }
        ScalerCommand::Recycle { pool, admin } => tell(&Asking::of(&admin)?.recycle(&pool).await?)?,
        ScalerCommand::Import { file, pool } => import::run(&file, pool.as_deref())?,
        ScalerCommand::Simulate(arguments) => simulate::run(&arguments, &times).await?,
        ScalerCommand::Plan(command) => plan::run(&command, &times).await?,
        ScalerCommand::Report(arguments) => report::run(&arguments, &times).await?,
        ScalerCommand::Alerts { file } => return alerts::run(file.as_deref()),
        ScalerCommand::Dashboard => print(DASHBOARD.as_bytes())?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(pool: Option<&str>, json: bool, admin: &AdminArguments, times: &Times) -> Result<(), Failure> {
    let (status, body) = Asking::of(admin)?.status().await?;
    if pool.is_some() {
        one(&status, pool)?;
    }
    if !json {
        // Ages are told by the proxy's own clock.
        let times = times.at(status.now);
        return print(status::render(&status, pool, &times).as_bytes());
    }
    match pool {
        Some(_) => print(format!("{}\n", serde_json::to_string(one(&status, pool)?)?).as_bytes()),
        None => print(&body),
    }
}

async fn explain(arguments: &ExplainArguments, times: &Times) -> Result<(), Failure> {
    let asking = Asking::of(&arguments.admin)?;
    if arguments.settings {
        return print(settings::render(&asking.config().await?, &arguments.pool)?.as_bytes());
    }
    let at = arguments.at.as_deref().map(|at| times.read("--at", at)).transpose()?;
    let (record, body) = asking.explain(&arguments.pool, at).await?;
    if arguments.json {
        return print(&body);
    }
    let text = if arguments.why_not { explain::why_not(&record, times) } else { explain::render(&record, times) };
    print(text.as_bytes())
}

async fn list(arguments: &HistoryArguments, times: &Times) -> Result<(), Failure> {
    let asking = Asking::of(&arguments.admin)?;
    let since = times.read("--since", &arguments.since)?;
    let names = match &arguments.pool {
        Some(pool) => vec![pool.clone()],
        None => some(&asking.status().await?.0, None)?.iter().map(|pool| pool.pool.clone()).collect(),
    };
    let mut histories = Vec::new();
    for name in names {
        histories.push(asking.history(&name, since, arguments.all).await?);
    }
    let text = if arguments.json {
        format!("{}\n", serde_json::to_string(&histories)?)
    } else if arguments.csv {
        history::csv(&histories)
    } else {
        history::render(&histories, arguments.effect, times)
    };
    print(text.as_bytes())
}

/// Of the running proxy, and of this machine where a configuration is named.
async fn doctor(json: bool, admin: &AdminArguments) -> Result<ExitCode, Failure> {
    let mut found = Vec::new();
    if let Some(file) = &admin.config {
        let outcome = config::from_disk(file);
        let colorful = super::look::colorful();
        let refused = || Failure::Configuration(config::render(&outcome.problems, colorful));
        let config = outcome.config.as_ref().ok_or_else(refused)?;
        found = local::findings(config, &local::look(config));
    }
    let asked = match Asking::of(admin) {
        Ok(asking) => asking.doctor().await,
        Err(failure) => Err(failure),
    };
    match asked {
        Ok(told) => found.extend(told),
        Err(Failure::Failed(error)) if admin.config.is_some() => found.push(Finding {
            code: "NOT_ASKED".to_owned(),
            severity: "info".to_owned(),
            pool: None,
            text: format!("only this machine was looked at: {error}"),
            advice: "ask again where Tidegate runs".to_owned(),
        }),
        Err(failure) => return Err(failure),
    }
    found.sort_by_key(|finding| status::rank(&finding.severity));
    if json {
        print(format!("{}\n", serde_json::to_string(&found)?).as_bytes())?;
    } else if found.is_empty() {
        print(b"nothing is wrong\n")?;
    } else {
        print(status::findings(&found.iter().collect::<Vec<_>>()).as_bytes())?;
    }
    let critical = found.iter().any(|finding| finding.severity == "critical");
    Ok(if critical { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// How a pool's scaler is after an order.
fn tell(pool: &PoolScaler) -> Result<(), Failure> {
    let mut line = format!("{}: {}, {} wanted of {} to {}", pool.pool, pool.mode, pool.desired, pool.min, pool.max);
    if let Some(left) = pool.paused {
        line += &format!(", paused for {}", span(left));
    }
    if let Some((to, left)) = pool.set {
        line += &format!(", set to {to} for {}", span(left));
    }
    line.push('\n');
    print(line.as_bytes())
}
