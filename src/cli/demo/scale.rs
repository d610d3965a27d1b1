//! `tidegate demo --scale`: a load rises and falls, and the upstreams with it; the reasons are on the terminal.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use rustix::process::{Pid, Signal, kill_process};

use super::load::{self, Tally};
use super::say;
use super::stage::ScaledStage;
use crate::admin::Control;
use crate::admin::scaling::{Answer, Ask, PoolScaler, Record};
use crate::cli::Failure;
use crate::cli::status::latency;
use crate::cli::upstream::interrupted;

/// How long it takes unless somebody says otherwise.
pub(super) const LENGTH: Duration = Duration::from_secs(55);
/// How often it looks for something new.
const LOOK: Duration = Duration::from_millis(100);
/// Clients that ask without a pause, when most do.
const MOST: usize = 20;

/// The load at a share of the demo: it rises, stays, and falls.
fn clients(share: f64) -> usize {
    match share {
        share if share < 0.08 => 2,
        share if share < 0.35 => 2 + ((share - 0.08) / 0.27 * (MOST - 2) as f64) as usize,
        share if share < 0.6 => MOST,
        _ => 1,
    }
}

/// Plays it; fails where a request did, or where instances did not follow the load.
pub(super) async fn play(length: Duration) -> Result<ExitCode, Failure> {
    let stage = ScaledStage::set().await?;
    println!("{}", invitation(&stage));
    let begun = Instant::now();
    let tally = Rc::new(RefCell::new(Tally::default()));
    let mut show = Show::default();
    let mut running: Vec<Rc<std::cell::Cell<bool>>> = Vec::new();
    let mut killed = false;
    let mut interrupt = std::pin::pin!(interrupted());
    while begun.elapsed() < length {
        let share = begun.elapsed().as_secs_f64() / length.as_secs_f64();
        let wanted = clients(share);
        while running.len() < wanted {
            let goes_on = Rc::new(std::cell::Cell::new(true));
            tokio::task::spawn_local(load::ask_while(stage.web, goes_on.clone(), tally.clone()));
            running.push(goes_on);
        }
        running.drain(wanted..).for_each(|goes_on| goes_on.set(false));
        if let Ok(Answer::Status(status)) = stage.handle.scaler(Ask::Status).await
            && let Some(pool) = status.pools.into_iter().next()
        {
            show.look(begun, wanted, &pool);
            if share > 0.48 && !killed {
                killed = true;
                kill_one(begun, &pool);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            outcome = &mut interrupt => {
                stage.strike().await;
                return Ok(outcome.map(|()| ExitCode::SUCCESS)?);
            }
        }
    }
    running.iter().for_each(|goes_on| goes_on.set(false));
    let asked = stage.handle.scaler(Ask::History {
        pool: "tools".to_owned(),
        since: None,
        until: None,
        limit: None,
        all: false,
    });
    let Ok(Answer::History(history)) = asked.await else { return Err(anyhow!("the history cannot be read").into()) };
    stage.strike().await;
    let mut tally = tally.borrow_mut();
    let missed = show.missed();
    println!("{}", summary(&mut tally, &show, &history.records, length, &missed));
    Ok(if tally.failed == 0 && missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn invitation(stage: &ScaledStage) -> String {
    let mut text = format!(
        "\nTidegate listens on http://{}; behind it is one upstream process that takes four requests at once,",
        stage.web
    );
    text += "\neach for 100 ms. Now a load rises to twenty at once, and falls again.\n";
    for note in &stage.notes {
        text += &format!("{note}\n");
    }
    let program = super::stage::program();
    text + &format!(
        "\nMeanwhile, in another terminal:\n  {program} scaler status --admin http://{admin}\n  {program} scaler explain tools --admin http://{admin}\n  edit {file}\n",
        admin = stage.admin,
        file = stage.folder.file().display(),
    )
}

/// Ends one instance as `kill -9` does.
fn kill_one(begun: Instant, pool: &PoolScaler) {
    let working = pool.instances.iter().find(|instance| instance.state == "ready");
    let Some(victim) = working else { return };
    let pid = victim.detail.split_once("pid ").and_then(|(_, rest)| {
        rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).and_then(Pid::from_raw)
    });
    if let Some(pid) = pid {
        say(begun, &format!("kill -9 of {} (pid {})", victim.id, pid.as_raw_nonzero()));
        // It may have ended by itself this moment.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// What the terminal has shown so far.
#[derive(Default)]
struct Show {
    states: BTreeMap<String, String>,
    last: String,
    lined: Option<Instant>,
    most: usize,
    least_after: usize,
}

impl Show {
    fn look(&mut self, begun: Instant, clients: usize, pool: &PoolScaler) {
        if let Some(change) = pool.last_change.as_ref().filter(|change| change.id != self.last) {
            self.last = change.id.clone();
            say(begun, &reason(change));
        }
        let states: BTreeMap<String, String> =
            pool.instances.iter().map(|instance| (instance.id.clone(), instance.state.clone())).collect();
        for instance in &pool.instances {
            let told = matches!(instance.state.as_str(), "ready" | "draining" | "backoff" | "quarantined");
            if told && self.states.get(&instance.id) != Some(&instance.state) {
                let after = if instance.state == "ready" {
                    format!(", {:.1} s after it was ordered", instance.age_seconds)
                } else {
                    String::new()
                };
                say(begun, &format!("    {} is {}{after}", instance.id, instance.state));
            }
        }
        for gone in self.states.keys().filter(|id| !states.contains_key(*id)) {
            say(begun, &format!("    {gone} is gone"));
        }
        self.states = states;
        let ready = pool.counts.get("ready").copied().unwrap_or(0) as usize;
        self.most = self.most.max(ready);
        self.least_after = ready;
        if self.lined.is_none_or(|lined| lined.elapsed() >= Duration::from_secs(2)) {
            self.lined = Some(Instant::now());
            say(begun, &line(clients, ready, pool));
        }
    }

    /// What should have happened and did not.
    fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        if self.most < 4 {
            missed.push(format!("no more than {} instances were ready at once", self.most));
        }
        if self.least_after >= self.most {
            missed.push(format!("{} instances are left although the load has gone", self.least_after));
        }
        missed
    }
}

/// One line of how it is: load, instances, who waits.
fn line(clients: usize, ready: usize, pool: &PoolScaler) -> String {
    let bar = |count: usize, sign: &str| sign.repeat(count);
    let p95 = pool.seen.latency_p95.map_or("–".to_owned(), latency);
    format!(
        "load {clients:>2} {:<20}  instances {ready} {:<8}  {:>2} wait, p95 {p95}",
        bar(clients, "▪"),
        bar(ready, "■"),
        pool.seen.queue
    )
}

/// A step with its reason.
fn reason(record: &Record) -> String {
    let (decision, terms) = (&record.decision, &record.decision.terms);
    let mut parts = vec![format!("load {:.1}", terms.level)];
    let mut add = |word: &str, amount: f64| {
        if amount >= 0.05 {
            parts.push(format!("{word} {amount:.1}"));
        }
    };
    add("trend", terms.trend);
    add("room", terms.error + terms.staffing);
    let backlog = if terms.backlog > 0.0 { format!("; {:.1} s of work wait", terms.backlog) } else { String::new() };
    format!(
        "{} → {} instances ({}): {} slots at {:.0} each{backlog}",
        decision.current,
        decision.desired,
        decision.reason,
        parts.join(" + "),
        terms.capacity
    )
}

fn summary(tally: &mut Tally, show: &Show, records: &[Record], length: Duration, missed: &[String]) -> String {
    let [half, most] = [0.5, 0.99].map(|share| latency(tally.quantile(share).as_secs_f64()));
    let ups = records.iter().filter(|record| record.decision.desired > record.decision.current).count();
    let mut text = format!(
        "\n{} requests in {} s, {} failed; latency p50 {half}, p99 {most}\n  1 → {} → {} instances in {} steps up and {} down\n",
        tally.requests,
        length.as_secs(),
        tally.failed,
        show.most,
        show.least_after,
        ups,
        records.len() - ups
    );
    for failure in tally.failures.iter().chain(missed) {
        text += &format!("  FAILED: {failure}\n");
    }
    text
}
