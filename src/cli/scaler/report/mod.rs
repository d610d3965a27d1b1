//! A report of what scaling did, and what to change: as a page, as Markdown, as JSON.

mod chart;
mod html;
mod markdown;
mod verdict;

use std::path::Path;

use serde_json::{Value, json};

use super::arguments::ReportArguments;
use super::ask::{Asking, some};
use super::facts::Known;
use super::manifest::Manifest;
use super::plan::advice_json;
use super::simulate::{Game, Row, world};
use super::times::{Times, utc};
use super::traffic;
use crate::admin::scaling::{Finding, Series};
use crate::cli::Failure;
use crate::cli::operate::print;
use crate::scale::plan::{Advice, reserved_floor, usage};
use crate::scale::{Profile, sim};
use verdict::Card;

/// More requests than this are not played again for a report: it would take minutes.
const PLAYED: f64 = 2e6;

/// Everything that a report tells.
pub(super) struct Report {
    pub(super) from: f64,
    pub(super) until: f64,
    pub(super) version: &'static str,
    pub(super) pools: Vec<Part>,
    /// What needs attention and is about no pool of these.
    pub(super) findings: Vec<Finding>,
}

/// A pool's part of it.
pub(super) struct Part {
    pub(super) known: Known,
    pub(super) findings: Vec<Finding>,
    pub(super) advice: Vec<Advice>,
    /// The same traffic under other policies; why not, where it was not played.
    pub(super) played: Result<Vec<Row>, String>,
    /// Of how many seconds that is.
    pub(super) played_seconds: f64,
}

impl Part {
    fn new(known: Known, findings: Vec<Finding>, times: &Times) -> Part {
        let (played, played_seconds) = play(&known, times);
        Part { findings, advice: known.advice(), played, played_seconds, known }
    }

    fn cards(&self) -> Vec<Card> {
        verdict::cards(self)
    }
}

/// `tidegate scaler report`.
pub(super) async fn run(arguments: &ReportArguments, times: &Times) -> Result<(), Failure> {
    let asking = Asking::of(&arguments.admin)?;
    let (status, _) = asking.status().await?;
    let from = times.read("--since", &arguments.since)?;
    let found = asking.doctor().await?;
    let mut report =
        Report { from, until: times.now, version: env!("CARGO_PKG_VERSION"), pools: Vec::new(), findings: Vec::new() };
    for pool in some(&status, arguments.pool.as_deref())? {
        let known = Known::ask(&asking, &status, pool, from).await?;
        let of_it = |finding: &&Finding| finding.pool.as_ref() == Some(&pool.pool);
        report.pools.push(Part::new(known, found.iter().filter(of_it).cloned().collect(), times));
    }
    report.from = begins(from, times.now, report.pools.iter().map(|part| &part.known.series));
    report.findings = found.into_iter().filter(|finding| finding.pool.is_none()).collect();
    for (file, write) in [
        (&arguments.html, html::page as fn(&Report, &Times) -> String),
        (&arguments.md, markdown::page),
        (&arguments.json, |report, _| format!("{:#}\n", value(report))),
    ] {
        if let Some(file) = file {
            save(file, &write(&report, times))?;
        }
    }
    Ok(())
}

/// Where the charts begin: what lies before all that is known would only squeeze the rest.
fn begins<'a>(asked: f64, now: f64, series: impl Iterator<Item = &'a Series>) -> f64 {
    let firsts = series.filter_map(|series| series.samples.first()).map(|sample| sample.at - sample.span);
    firsts.min_by(f64::total_cmp).map_or(asked, |first| first.min(now - 60.0).max(asked))
}

/// To a file; `-` is standard output.
fn save(file: &Path, text: &str) -> Result<(), Failure> {
    if file == Path::new("-") {
        return print(text.as_bytes());
    }
    let told = |error| Failure::Failed(anyhow::anyhow!("cannot write {}: {error}", file.display()));
    std::fs::write(file, text).map_err(told)?;
    print(format!("{}\n", file.display()).as_bytes())
}

/// What the profiles, HPA and KPA would have done with the latest of the traffic.
fn play(known: &Known, times: &Times) -> (Result<Vec<Row>, String>, f64) {
    let mut series = known.series.clone();
    let mut sum = 0.0;
    let fitting = series.samples.iter().rev().take_while(|sample| {
        sum += sample.arrivals;
        sum <= PLAYED
    });
    let count = fitting.count();
    series.samples.drain(..series.samples.len() - count);
    let traffic = match traffic::recorded(&series, times, 1) {
        Ok(traffic) => traffic,
        Err(_) if count < known.series.samples.len() => {
            return (Err("too many requests to play again here".to_owned()), 0.0);
        }
        Err(_) => return (Err("no requests are on record".to_owned()), 0.0),
    };
    let mut world: sim::World = world(&known.pool, &series.samples);
    world.slack = known.slo.0;
    let mut game = Game::new(world, known.price.0);
    let all: Vec<Profile> = Profile::WORDS.iter().map(|(_, profile)| *profile).collect();
    game.now(known.in_force.as_ref(), known.profile);
    game.others(known.in_force.as_ref(), known.profile, &all);
    game.hpa(&Manifest::cpu(0.7), "HPA, CPU 70 %");
    game.kpa(70);
    let seconds = f64::from(traffic.workload.seconds);
    (Ok(game.play(&traffic)), seconds)
}

fn value(report: &Report) -> Value {
    let part = |part: &Part| {
        let known = &part.known;
        let used = usage(&known.steps);
        let cards = part.cards();
        json!({
            "pool": known.pool.pool,
            "cards": cards.iter().map(|card| json!({ "name": card.name, "level": card.level, "value": card.value, "note": card.note })).collect::<Value>(),
            "instance_hours": used.instance_hours,
            "busy_hours": used.busy_hours,
            "over_provision": used.over(),
            "idle_share": used.idle_share(),
            "fixed_fleet_hours": used.fixed_hours,
            "reserved_floor": reserved_floor(&known.steps),
            "instance_hour": known.price.0,
            "currency": known.price.1,
            "reversals": known.reversals(),
            "events": known.history.records,
            "findings": part.findings,
            "advice": advice_json(&part.advice),
            "played": part.played.as_ref().ok(),
        })
    };
    json!({
        "version": report.version,
        "from": utc(report.from),
        "until": utc(report.until),
        "findings": report.findings,
        "pools": report.pools.iter().map(part).collect::<Value>(),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::facts::tests::known;
    use super::super::sample::mcp;
    use super::super::times::tests::{NOON, berlin};
    use super::*;
    use crate::admin::scaling::Sample;

    /// A report of the sample's day; only half an hour is played again.
    pub(super) fn report() -> Report {
        let mut short = known();
        short.series.samples.truncate(6);
        let (played, played_seconds) = play(&short, &berlin());
        let known = known();
        let part = Part { findings: mcp().conditions, advice: known.advice(), played, played_seconds, known };
        Report { from: NOON - 86_400.0, until: NOON, version: "1.2.3", pools: vec![part], findings: Vec::new() }
    }

    /// A report of a pool of which nothing is known yet.
    pub(super) fn empty() -> Report {
        let mut known = known();
        known.series.samples.clear();
        known.history.records.clear();
        known.steps.clear();
        (known.pool.last, known.pool.last_change) = (None, None);
        known.pool.pool = "<script>alert('x')</script>".to_owned();
        let part = Part::new(known, Vec::new(), &berlin());
        Report { from: NOON - 86_400.0, until: NOON, version: "1.2.3", pools: vec![part], findings: Vec::new() }
    }

    #[test]
    fn charts_begin_with_what_is_known() {
        let series = |at| Series { samples: vec![Sample { at, span: 10.0, ..Sample::default() }], ..Series::default() };
        let known = [series(900.0), series(800.0)];
        assert_eq!(begins(100.0, 1000.0, known.iter()), 790.0);
        assert_eq!(begins(795.0, 1000.0, known.iter()), 795.0, "not before what was asked for");
        assert_eq!(begins(100.0, 810.0, known.iter()), 750.0, "a minute at least");
        assert_eq!(begins(100.0, 1000.0, [].iter()), 100.0);
    }

    #[test]
    fn a_report_is_json_too() {
        let value = value(&report());
        assert_eq!(value["from"], "2026-11-25T12:00:00Z");
        let pool = &value["pools"][0];
        assert_eq!((pool["pool"].as_str(), pool["reserved_floor"].as_u64()), (Some("mcp"), Some(2)));
        assert_eq!(pool["played"].as_array().unwrap().len(), 5);
        assert_eq!(pool["events"].as_array().unwrap().len(), 2);
        assert!(super::value(&empty())["pools"][0]["played"].is_null());
    }
}
