//! `tidegate demo`: three upstreams, the proxy in front of them, and what to try.
//!
//! It runs what everybody runs: the same start, the same file, the same watch. Nothing here is configured behind the
//! scenes; what the demo shows can be done by hand with the file that it names.

mod load;
mod mcp;
mod news;
mod rehearsal;
mod scale;
mod stage;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::Failure;
use super::arguments::DemoArguments;
use super::upstream::interrupted;
use crate::admin::Control;
use crate::control::Handle;
use stage::Stage;

/// How often the live lines look for something new.
const LOOK: Duration = Duration::from_millis(100);

/// Runs the demo: until it is interrupted, or for so many seconds with a load of its own.
pub(super) fn run(arguments: DemoArguments) -> Result<ExitCode, Failure> {
    // The live lines tell what the log would; only what they cannot know is left to it.
    let filter = tracing_subscriber::EnvFilter::new(
        "error,tidegate::control=off,tidegate::health=off,tidegate::scaler=off,tidegate::instance=off",
    );
    // Where somebody else has a subscriber already, theirs is as good.
    let _ = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).try_init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    if arguments.scale {
        let length = arguments.seconds.map_or(scale::LENGTH, |seconds| Duration::from_secs(seconds.into()));
        return runtime.block_on(scale::play(length));
    }
    if arguments.mcp {
        let length = arguments.seconds.map_or(mcp::LENGTH, |seconds| Duration::from_secs(seconds.into()));
        return runtime.block_on(play_mcp(length));
    }
    runtime.block_on(play(arguments.seconds))
}

async fn play_mcp(length: Duration) -> Result<ExitCode, Failure> {
    let mut stage = Stage::set(Stage::MCP).await?;
    println!("{}", stage.invitation(false));
    let begun = Instant::now();
    let telling = tokio::task::spawn_local(tell(stage.handle(), begun));
    let outcome = mcp::play(&mut stage, begun, length).await;
    telling.abort();
    stage.strike().await;
    outcome
}

async fn play(seconds: Option<u32>) -> Result<ExitCode, Failure> {
    let mut stage = Stage::set(Stage::HTTP).await?;
    println!("{}", stage.invitation(seconds.is_none()));
    let begun = Instant::now();
    let telling = tokio::task::spawn_local(tell(stage.handle(), begun));
    let outcome = match seconds {
        None => interrupted().await.map(|()| ExitCode::SUCCESS).map_err(Failure::from),
        Some(seconds) => rehearsal::run(&mut stage, begun, Duration::from_secs(seconds.into())).await,
    };
    telling.abort();
    stage.strike().await;
    outcome
}

/// Prints a line for everything that happens, for ever.
async fn tell(handle: Handle, begun: Instant) {
    let mut before = None;
    loop {
        let Some(now) = handle.status().await else { return };
        if let Some(before) = &before {
            news::news(before, &now).iter().for_each(|line| say(begun, line));
        }
        before = Some(now);
        tokio::time::sleep(LOOK).await;
    }
}

/// One live line.
fn say(begun: Instant, line: &str) {
    println!("{:6.1}s  {line}", begun.elapsed().as_secs_f64());
}
