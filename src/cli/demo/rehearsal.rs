use std::cell::RefCell;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::load::{self, Tally};
use super::say;
use super::stage::Stage;
use crate::admin::model::UpstreamStatus;
use crate::admin::{Change, Control};
use crate::cli::Failure;
use crate::cli::status::latency;
use crate::health::State;

/// Plays the demo by itself: a load, and within it a kill, a reload, a drain and a recovery. Fails where a request did.
pub(super) async fn run(stage: &mut Stage, begun: Instant, length: Duration) -> Result<ExitCode, Failure> {
    let tally = Rc::new(RefCell::new(Tally::default()));
    let loading = tokio::task::spawn_local(load::run(stage.web, begun + length, tally.clone()));
    let missed = play(stage, begun, length, &tally).await?;
    loading.await?;
    let mut tally = tally.borrow_mut();
    println!("{}", summary(&mut tally, length, &missed));
    Ok(if tally.failed == 0 && missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What should have happened and did not.
async fn play(
    stage: &mut Stage,
    begun: Instant,
    length: Duration,
    tally: &RefCell<Tally>,
) -> Result<Vec<String>, Failure> {
    let mut missed = Vec::new();
    let scene = |share: f64| tokio::time::sleep_until((begun + length.mul_f64(share)).into());
    say(begun, "a load begins: 16 clients, and one event stream that stays open");

    scene(0.25).await;
    let streaming = tally.borrow().streaming_from.clone().unwrap_or_default();
    let mut others = stage.names().filter(|name| *name != streaming).map(str::to_owned);
    let (Some(killed), Some(drained)) = (others.next(), others.next()) else { return Ok(missed) };
    drop(others);
    say(begun, &format!("kill -9 of upstream {killed} ({})", stage.address(&killed)));
    stage.kill(&killed).await;

    scene(0.45).await;
    say(begun, &format!("editing the configuration: {streaming} gets three times the load"));
    let before = stage.handle().status().await.map_or(0, |status| status.reloads_accepted);
    let member = format!("address = \"{}\", weight = ", stage.address(&streaming));
    stage.edit(|text| text.replace(&format!("{member}1"), &format!("{member}3")))?;

    scene(0.65).await;
    if stage.handle().status().await.is_none_or(|status| status.reloads_accepted <= before) {
        missed.push("the edit was not taken".to_owned());
    }
    say(begun, &format!("draining upstream {drained} ({})", stage.address(&drained)));
    let change = Change::Drain { deadline: Some(Duration::from_secs(5)) };
    if let Err(error) = stage.handle().change("tools", stage.address(&drained), change).await {
        missed.push(format!("the drain was refused: {error}"));
    }

    scene(0.8).await;
    if member_of(stage, &drained).await.is_none_or(|upstream| upstream.state != State::Drained) {
        missed.push(format!("{drained} did not become empty"));
    }
    say(begun, &format!("starting upstream {killed} again"));
    stage.revive(&killed).await?;

    scene(1.0).await;
    if tally.borrow().events == 0 {
        missed.push("the event stream had no events".to_owned());
    }
    Ok(missed)
}

async fn member_of(stage: &Stage, name: &str) -> Option<UpstreamStatus> {
    let pools = stage.handle().status().await?.pools;
    let pool = pools.into_iter().find(|pool| pool.name == "tools")?;
    pool.upstreams.into_iter().find(|upstream| upstream.address == stage.address(name))
}

fn summary(tally: &mut Tally, length: Duration, missed: &[String]) -> String {
    let [half, most] = [0.5, 0.99].map(|share| latency(tally.quantile(share).as_secs_f64()));
    let (requests, failed, seconds) = (tally.requests, tally.failed, length.as_secs());
    let mut text = format!("\n{requests} requests in {seconds} s, {failed} failed; latency p50 {half}, p99 {most}\n");
    for (name, count) in &tally.by_upstream {
        text += &format!("  {count:>7} answered by {name}\n");
    }
    text += &format!("  {:>7} events on the stream that stayed open throughout\n", tally.events);
    for failure in tally.failures.iter().chain(missed) {
        text += &format!("  FAILED: {failure}\n");
    }
    text
}
