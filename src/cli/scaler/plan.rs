use std::fmt::Write;

use serde_json::{Value, json};

use super::arguments::{Period, PlanCommand};
use super::ask::{Asking, one, some};
use super::facts::Known;
use super::simulate::{Game, Row, compared, money, world};
use super::status::short;
use super::times::Times;
use super::traffic;
use crate::admin::scaling::ScalerStatus;
use crate::cli::Failure;
use crate::cli::operate::print;
use crate::cli::status::{number, span, table};
use crate::scale::Profile;
use crate::scale::plan::{Advice, Growth, Milestone, beyond_in, grow, reserved_floor, usage, zones};

/// Hours of a month: a twelfth of 365.25 days.
const MONTH: f64 = 730.5;

/// `tidegate scaler plan`.
pub(super) async fn run(command: &PlanCommand, times: &Times) -> Result<(), Failure> {
    match command {
        PlanCommand::Growth { pool, rate, months, margin, peak, period } => {
            let known = only(pool.as_deref(), period, times).await?;
            let plan = growth(&known, *rate, *months, margin.0, *peak)?;
            tell(period, &growth_text(&known.pool.pool, &plan, &known.price.1), || growth_json(&plan))
        }
        PlanCommand::Cost { pool, scenario, period } => {
            let known = only(pool.as_deref(), period, times).await?;
            let rows = scenarios(&known, scenario, times)?;
            tell(period, &cost_text(&known, &rows), || cost_json(&known, &rows))
        }
        PlanCommand::RightSize { pool, period } => {
            let asking = Asking::of(&period.admin)?;
            let (status, _) = asking.status().await?;
            let mut found = Vec::new();
            for pool in some(&status, pool.as_deref())? {
                let known = Known::ask(&asking, &status, pool, times.read("--since", &period.since)?).await?;
                found.extend(known.advice());
            }
            tell(period, &advice_text(&found), || advice_json(&found))
        }
    }
}

fn tell(period: &Period, text: &str, json: impl FnOnce() -> Value) -> Result<(), Failure> {
    if period.json { print(format!("{:#}\n", json()).as_bytes()) } else { print(text.as_bytes()) }
}

async fn only(pool: Option<&str>, period: &Period, times: &Times) -> Result<Known, Failure> {
    let asking = Asking::of(&period.admin)?;
    let (status, _): (ScalerStatus, _) = asking.status().await?;
    Known::ask(&asking, &status, one(&status, pool)?, times.read("--since", &period.since)?).await
}

/// From what was measured.
///
/// **Errors**: nothing was measured yet.
fn growth(known: &Known, rate: f64, months: u32, margin: f64, peak: Option<f64>) -> Result<Growth, Failure> {
    let unknown = |what: &str| {
        Failure::Failed(anyhow::anyhow!(
            "{what} of pool `{}` is not known yet: let it take traffic, or look further back with --since",
            known.pool.pool
        ))
    };
    let used = usage(&known.steps);
    let capacity = known.capacity().ok_or_else(|| unknown("the capacity of an instance"))?;
    let peak = peak.or((used.peak > 0.0).then_some(used.peak)).ok_or_else(|| unknown("the load"))?;
    let mean = if used.hours > 0.0 { used.instance_hours / used.hours } else { 0.0 };
    let mean_share = if used.largest > 0.0 { (mean / used.largest).clamp(0.0, 1.0) } else { 1.0 };
    let max = known.pool.max;
    Ok(Growth { peak, capacity, rate, months, margin, max, instance_hour: known.price.0, mean_share })
}

fn growth_text(pool: &str, plan: &Growth, currency: &str) -> String {
    let mut out = format!(
        "pool {pool}: peak {} erl, {} requests at once an instance, {:+.1} % a month, {} % on top, scaled as today\n\n",
        short(plan.peak),
        short(plan.capacity),
        plan.rate * 100.0,
        number(plan.margin * 100.0)
    );
    let months = grow(plan);
    let row = |milestone: &Milestone| {
        let month = if milestone.month == 0 { "now".to_owned() } else { format!("+{}", milestone.month) };
        let beyond = if milestone.beyond { format!("beyond max = {}", plan.max) } else { String::new() };
        [
            month,
            short(milestone.load),
            milestone.instances.to_string(),
            zones(milestone.instances).to_string(),
            money(milestone.cost, currency),
            beyond,
        ]
    };
    let mut rows = vec![["MONTH", "PEAK LOAD", "INSTANCES", "ZONES", "COST A MONTH", ""].map(str::to_owned)];
    rows.extend(months.iter().map(row));
    table(&mut out, "", ['<', '>', '>', '>', '>', '<'], &rows);
    out.push('\n');
    match beyond_in(plan) {
        Some(0) => _ = writeln!(out, "max = {} is too small for today's peak already: raise it", plan.max),
        Some(month) => _ = writeln!(out, "max = {} is too small in {month} months: raise it before", plan.max),
        None => _ = writeln!(out, "max = {} is enough for as far as can be seen", plan.max),
    }
    out
}

fn growth_json(plan: &Growth) -> Value {
    let month = |milestone: &Milestone| {
        json!({
            "month": milestone.month,
            "load_erlangs": milestone.load,
            "instances": milestone.instances,
            "zones": zones(milestone.instances),
            "cost": milestone.cost,
            "beyond_max": milestone.beyond,
        })
    };
    let months: Vec<Value> = grow(plan).iter().map(month).collect();
    json!({ "max": plan.max, "capacity": plan.capacity, "months": months, "beyond_max_in_months": beyond_in(plan) })
}

/// The recorded traffic under each profile, the one in force first.
pub(super) fn scenarios(known: &Known, profiles: &[Profile], times: &Times) -> Result<Vec<Row>, Failure> {
    let traffic = traffic::recorded(&known.series, times, 1)?;
    let mut world = world(&known.pool, &known.series.samples);
    world.slack = known.slo.0;
    let mut game = Game::new(world, known.price.0);
    game.now(known.in_force.as_ref(), known.profile);
    game.others(known.in_force.as_ref(), known.profile, profiles);
    Ok(game.play(&traffic))
}

fn cost_text(known: &Known, rows: &[Row]) -> String {
    let used = usage(&known.steps);
    let (price, currency) = (known.price.0, known.price.1.as_str());
    let mut out = format!("pool {}, {} on record\n\n", known.pool.pool, span(used.hours * 3600.0));
    let month = if used.hours > 0.0 { MONTH / used.hours } else { 0.0 };
    let lines = [
        ("as it was", used.instance_hours, String::new()),
        ("of it idle", used.instance_hours * used.idle_share(), format!("{:.0} %", used.idle_share() * 100.0)),
        ("a fixed fleet of the largest size", used.fixed_hours, more(used.fixed_hours, used.instance_hours)),
    ];
    let mut cells = vec![["", "INST-HOURS", "COST", "COST A MONTH", ""].map(str::to_owned)];
    cells.extend(lines.map(|(name, hours, note)| {
        let cost = hours * price;
        [name.to_owned(), format!("{hours:.1}"), money(cost, currency), money(cost * month, currency), note]
    }));
    table(&mut out, "", ['<', '>', '>', '>', '<'], &cells);
    let floor = reserved_floor(&known.steps);
    _ = writeln!(
        out,
        "\nworth reserving: {floor} {} (as many ran for 90 % of the time or more)\n\nthe same traffic, played again:",
        if floor == 1 { "instance" } else { "instances" }
    );
    out += &compared(rows, currency);
    if price == 0.0 {
        out += "\nset scaler.cost.instance_hour for money\n";
    }
    out
}

/// `38 % more`.
fn more(hours: f64, than: f64) -> String {
    if than > 0.0 { format!("{:.0} % more", (hours / than - 1.0) * 100.0) } else { String::new() }
}

fn cost_json(known: &Known, rows: &[Row]) -> Value {
    let used = usage(&known.steps);
    json!({
        "pool": known.pool.pool,
        "hours": used.hours,
        "instance_hours": used.instance_hours,
        "idle_share": used.idle_share(),
        "over_provision": used.over(),
        "fixed_fleet_hours": used.fixed_hours,
        "reserved_floor": reserved_floor(&known.steps),
        "instance_hour": known.price.0,
        "currency": known.price.1,
        "scenarios": rows,
    })
}

fn advice_text(found: &[Advice]) -> String {
    if found.is_empty() {
        return "nothing to change: sizes suit what was recorded\n".to_owned();
    }
    let mut out = String::new();
    for advice in found {
        _ = writeln!(out, "{:<8} {} ({})\n         {}", advice.severity, advice.title, advice.code, advice.evidence);
        for line in advice.change.iter().flat_map(|change| change.lines()) {
            _ = writeln!(out, "           {line}");
        }
        out.push('\n');
    }
    out.pop();
    out
}

pub(super) fn advice_json(found: &[Advice]) -> Value {
    let one = |advice: &Advice| {
        json!({
            "code": advice.code,
            "severity": advice.severity,
            "title": advice.title,
            "evidence": advice.evidence,
            "change": advice.change,
        })
    };
    found.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::super::facts::tests::known;
    use super::super::times::tests::berlin;
    use super::*;

    #[test]
    fn growth_starts_from_what_was_measured() {
        let plan = growth(&known(), 0.15, 3, 0.2, None).unwrap();
        assert_eq!((plan.capacity, plan.max, plan.instance_hour), (4.0, 20, 0.21));
        let plan = Growth { peak: 40.0, mean_share: 0.5, ..plan };
        let expected = "\
pool mcp: peak 40 erl, 4 requests at once an instance, +15.0 % a month, 20 % on top, scaled as today

MONTH  PEAK LOAD  INSTANCES  ZONES  COST A MONTH
now           40         12      3    920.43 USD
+1            46         14      3   1073.84 USD
+2          52.9         16      3   1227.24 USD
+3          60.8         19      3   1457.35 USD

max = 20 is too small in 4 months: raise it before
";
        assert_eq!(growth_text("mcp", &plan, "USD"), expected);
        assert!(growth_text("mcp", &Growth { max: 3, ..plan }, "USD").contains("beyond max = 3"));
        assert_eq!(growth_json(&plan)["beyond_max_in_months"], 4);
    }

    #[test]
    fn what_was_never_measured_is_not_planned_with() {
        let mut unknown = known();
        unknown.pool.last = None;
        unknown.steps.clear();
        assert!(growth(&unknown, 0.1, 1, 0.0, Some(5.0)).is_err());
        unknown.series.samples.clear();
        assert!(scenarios(&unknown, &[], &berlin()).is_err());
    }

    #[test]
    fn cost_tells_what_was_idle_and_what_others_would_cost() {
        let mut known = known();
        // Half an hour of the day is enough to play.
        known.series.samples.truncate(6);
        let rows = scenarios(&known, &[Profile::Fast, Profile::Calm], &berlin()).unwrap();
        assert_eq!(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["now (calm)", "fast"]);
        let text = cost_text(&known, &rows);
        for part in
            ["pool mcp, 23h 0m on record", "of it idle", "a fixed fleet", "worth reserving: 2 instances", "now (calm)"]
        {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(cost_json(&known, &rows)["reserved_floor"], 2);
    }

    #[test]
    fn advice_comes_with_its_evidence_and_change() {
        let text = advice_text(&known().advice());
        assert!(
            text.starts_with("warning  Keep more room in pool mcp (MORE_HEADROOM)\n         requests waited"),
            "{text}"
        );
        assert!(text.contains("           [pool.mcp.scaler]\n           headroom = 2.0\n\nwarning  Give"), "{text}");
        assert!(advice_text(&[]).starts_with("nothing to change"));
        assert_eq!(advice_json(&known().advice())[1]["code"], "MORE_MEMORY");
    }
}
