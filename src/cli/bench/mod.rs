//! `tidegate bench`: a load, and what comes of it.
//!
//! `plan` is what was asked for, checked; `load` is one thread's part of it, over the connections of `line`. What is pure is apart
//! and knows no clock: `schedule` (when requests are due), `tally` and `histogram` (what came of them), `summary` (how it is told).
//!
//! It never follows a redirect, never tries a request again that a server may have seen, and never leaves out a request because the
//! server was slow: with `--rate`, latency counts from when a request was due ("coordinated omission" is to count from when it could be sent).
//!
//! Why not our own client to upstreams (`upstream`): a tool that measures it should not share its mistakes.

mod alarm;
mod arguments;
mod fault;
mod histogram;
mod line;
mod load;
mod plan;
mod schedule;
mod summary;
mod tally;

use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::anyhow;
use tokio::sync::{mpsc, watch};

use super::Failure;
use super::operate::print;
use super::run::raise_descriptor_limit;
use super::upstream::interrupted;
pub(super) use arguments::BenchArguments;
use plan::Plan;
use summary::Summary;
use tally::Tally;

/// Sends the load and tells what came of it, also where it is interrupted.
pub(super) fn run(arguments: &BenchArguments) -> Result<ExitCode, Failure> {
    let plan = Arc::new(Plan::of(arguments)?);
    raise_descriptor_limit();
    if !arguments.json {
        print(format!("{}\n\n", summary::heading(&plan)).as_bytes())?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (tally, interrupted) = runtime.block_on(gather(&plan))?;
    let summary = Summary::of(&plan, &tally, interrupted);
    let text = if arguments.json { serde_json::to_string_pretty(&summary)? + "\n" } else { summary.render() };
    print(text.as_bytes())?;
    Ok(if tally.all_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Has all threads do their parts; also tells whether they were interrupted.
async fn gather(plan: &Arc<Plan>) -> Result<(Tally, bool), Failure> {
    let mut signal = pin!(interrupted());
    let shared = Arc::new(load::Shared::new(plan.clone()));
    let (stop, stopped) = watch::channel(false);
    let (done, mut parts) = mpsc::unbounded_channel();
    for thread in 0..plan.threads {
        let (shared, stopped, done) = (shared.clone(), stopped.clone(), done.clone());
        // Where nobody listens any more, the whole has failed already.
        let part = move || _ = done.send(load::run(shared, thread, stopped));
        std::thread::Builder::new().name(format!("bench-{thread}")).spawn(part)?;
    }
    drop(done);
    let (mut whole, mut ended, mut early) = (Tally::default(), 0, false);
    loop {
        tokio::select! {
            part = parts.recv() => match part {
                Some(part) => whole.add(part?),
                None => break,
            },
            heard = &mut signal, if !early => {
                heard?;
                early = true;
                stop.send_replace(true);
                continue;
            }
        }
        ended += 1;
    }
    if ended < plan.threads {
        return Err(anyhow!("a thread has panicked").into());
    }
    Ok((whole, early))
}
