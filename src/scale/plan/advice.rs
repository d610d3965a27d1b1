use super::Step;

/// What is known of a pool and its scaler, for advice.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts<'a> {
    /// The pool.
    pub pool: &'a str,
    /// What was recorded.
    pub steps: &'a [Step],
    /// The fewest instances.
    pub min: u32,
    /// The most.
    pub max: u32,
    /// Seconds that a request may wait.
    pub slo_wait: f64,
    /// The share that must not wait longer: 0.99.
    pub slo_target: f64,
    /// Changes of direction within ten minutes.
    pub reversals: u32,
    /// Steps that were taken back.
    pub rollbacks: u32,
    /// Changes in all.
    pub changes: u32,
    /// Start-up time in seconds, as measured.
    pub lead: f64,
    /// The profile's word; empty where it is not known.
    pub profile: &'a str,
    /// Whether one instance's capacity was learned; none where that is not known.
    pub learned: Option<bool>,
    /// Requests that came.
    pub arrivals: f64,
    /// Requests refused for want of room.
    pub saturated: f64,
    /// The most memory of an instance, and what it may use, in bytes.
    pub memory: Option<(f64, f64)>,
}

/// A recommendation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// `RAISE_MAX`, `LOWER_MIN` …
    pub code: &'static str,
    /// `critical`, `warning` or `info`.
    pub severity: &'static str,
    /// What to do, in a few words.
    pub title: String,
    /// The numbers behind it.
    pub evidence: String,
    /// What to change in the configuration; none where that is not it.
    pub change: Option<String>,
}

/// Less recorded time than this is no ground for advice on sizes.
const ENOUGH: f64 = 3600.0;

/// Advice from what was recorded; empty where all is well or too little is known.
pub fn right_size(facts: &Facts<'_>) -> Vec<Advice> {
    let rules = [more_room, lower_min, raise_min, calmer, rollbacks, learn, slow_starts, memory, over_provisioned];
    rules.iter().filter_map(|rule| rule(facts)).collect()
}

impl Facts<'_> {
    fn recorded(&self) -> f64 {
        self.steps.iter().map(|step| step.span).sum()
    }

    fn late_share(&self) -> f64 {
        super::share_of_time(self.steps, |step| step.wait > self.slo_wait)
    }

    fn table(&self, lines: &str) -> Option<String> {
        let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let plain = !self.pool.is_empty() && self.pool.chars().all(bare);
        let name = if plain { self.pool.to_owned() } else { quoted(self.pool) };
        Some(format!("[pool.{name}.scaler]\n{lines}\n"))
    }
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out += &format!("\\u{:04X}", u32::from(c)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn percent(share: f64) -> String {
    match share * 100.0 {
        p if p >= 10.0 => format!("{p:.0} %"),
        p if p >= 1.0 => format!("{p:.1} %"),
        p => format!("{p:.2} %"),
    }
}

/// The pool was as large as it may be while requests waited too long.
fn more_room(facts: &Facts<'_>) -> Option<Advice> {
    let max = f64::from(facts.max);
    let full = super::share_of_time(facts.steps, |step| step.ready >= max && step.load >= 0.9 * max * step.capacity);
    let lost = if facts.arrivals > 0.0 { facts.saturated / facts.arrivals } else { 0.0 };
    if full < 0.01 || (facts.late_share() < 1.0 - facts.slo_target && lost < 0.001) {
        return None;
    }
    let to = facts.max + facts.max.div_ceil(2);
    Some(Advice {
        code: "RAISE_MAX",
        severity: if lost > 0.01 { "critical" } else { "warning" },
        title: format!("Let pool {} grow beyond {}", facts.pool, facts.max),
        evidence: format!(
            "for {} of the time all {} instances were ready and at least 90 % busy; requests waited longer than {} ms for {} of the time, and {} of them were refused",
            percent(full),
            facts.max,
            facts.slo_wait * 1e3,
            percent(facts.late_share()),
            percent(lost),
        ),
        change: facts.table(&format!("max = {to}")),
    })
}

/// The floor is never needed.
fn lower_min(facts: &Facts<'_>) -> Option<Advice> {
    let needed = |step: &Step| if step.capacity > 0.0 { step.load / step.capacity } else { 0.0 };
    if facts.recorded() < ENOUGH || facts.min < 2 {
        return None;
    }
    let usual = super::quantile(facts.steps.iter().map(|step| (needed(step), step.span)), 0.95)?;
    let at_min = super::share_of_time(facts.steps, |step| step.ready <= f64::from(facts.min));
    // Room for the same load twice over, and one instance that may fail.
    let to = ((usual * 2.0).ceil() as u32 + 1).max(1);
    (to < facts.min && at_min > 0.5).then(|| Advice {
        code: "LOWER_MIN",
        severity: "info",
        title: format!("Pool {} can go below {} instances", facts.pool, facts.min),
        evidence: format!(
            "for {} of the time it was at its minimum of {}, and for 95 % of the time the load would have fitted into {usual:.1} instances",
            percent(at_min),
            facts.min,
        ),
        change: facts.table(&format!("min = {to}")),
    })
}

/// Requests wait too long although there is room to grow, and starts take their time.
fn raise_min(facts: &Facts<'_>) -> Option<Advice> {
    let late = facts.late_share();
    if late <= 1.0 - facts.slo_target || facts.recorded() < ENOUGH / 6.0 || facts.min >= facts.max {
        return None;
    }
    let max = f64::from(facts.max);
    let below = super::share_of_time(facts.steps, |step| step.wait > facts.slo_wait && step.ready < max);
    (below > late / 2.0).then(|| {
        let calm = if facts.profile == "calm" { "headroom = 2.0" } else { "profile = \"calm\"" };
        Advice {
            code: "MORE_HEADROOM",
            severity: "warning",
            title: format!("Keep more room in pool {}", facts.pool),
            evidence: format!(
                "requests waited longer than {} ms for {} of the time (the goal is at most {}), mostly while there were fewer than {} instances; a start takes {:.1} s",
                facts.slo_wait * 1e3,
                percent(late),
                percent(1.0 - facts.slo_target),
                facts.max,
                facts.lead,
            ),
            change: facts.table(calm),
        }
    })
}

/// Up and down again.
fn calmer(facts: &Facts<'_>) -> Option<Advice> {
    let hours = facts.recorded() / 3600.0;
    let rate = f64::from(facts.reversals) / hours.max(1.0);
    (facts.reversals >= 4 && rate > 2.0).then(|| Advice {
        code: "CALMER",
        severity: "warning",
        title: format!("Shrink pool {} later", facts.pool),
        evidence: format!(
            "{} of {} changes turned round within ten minutes, {rate:.1} an hour",
            facts.reversals, facts.changes
        ),
        change: if facts.profile == "calm" { facts.table("hold = \"10m\"") } else { facts.table("profile = \"calm\"") },
    })
}

fn rollbacks(facts: &Facts<'_>) -> Option<Advice> {
    (facts.rollbacks > 0).then(|| Advice {
        code: "ROLLED_BACK",
        severity: "warning",
        title: format!("Look at what new instances of pool {} do", facts.pool),
        evidence: format!(
            "{} steps made answers worse and were taken back; `tidegate scaler history {} --effect` shows them",
            facts.rollbacks, facts.pool
        ),
        change: None,
    })
}

/// The capacity was said by somebody, and production says otherwise.
fn learn(facts: &Facts<'_>) -> Option<Advice> {
    if facts.learned != Some(false) {
        return None;
    }
    let waited = super::share_of_time(facts.steps, |step| {
        step.wait > facts.slo_wait && step.load < 0.5 * step.ready * step.capacity
    });
    (waited > 0.01).then(|| {
        let name = facts.table("").unwrap_or_default().lines().next().unwrap_or_default().replace(".scaler]", "]");
        Advice {
            code: "LEARN_CAPACITY",
            severity: "warning",
            title: format!("Have the capacity of pool {}'s instances measured", facts.pool),
            evidence: format!(
                "for {} of the time requests waited too long while less than half of the configured slots were in use",
                percent(waited)
            ),
            change: Some(format!("{name}\nmax_concurrency = \"learn\"\n")),
        }
    })
}

fn slow_starts(facts: &Facts<'_>) -> Option<Advice> {
    (facts.lead > 60.0).then(|| Advice {
        code: "SLOW_STARTS",
        severity: "info",
        title: format!("Make starts of pool {} faster", facts.pool),
        evidence: format!(
            "a start takes {:.0} s; all that time ahead has to be forecast, and the room for its errors is paid for",
            facts.lead
        ),
        change: facts.table("predict = { trend = true, periods = true, seasonal = [\"1d\"] }"),
    })
}

fn memory(facts: &Facts<'_>) -> Option<Advice> {
    let (used, allowed) = facts.memory.filter(|(used, allowed)| *used > 0.0 && *allowed > 0.0)?;
    let share = used / allowed;
    let mib = |bytes: f64| format!("{:.0} MiB", bytes / f64::from(1 << 20));
    let (code, severity, title) = match share {
        s if s > 0.9 => ("MORE_MEMORY", "warning", "Give instances of pool {} more memory"),
        s if s < 0.3 => ("LESS_MEMORY", "info", "Instances of pool {} can do with less memory"),
        _ => return None,
    };
    Some(Advice {
        code,
        severity,
        title: title.replace("{}", facts.pool),
        evidence: format!("the largest uses {} of {} ({})", mib(used), mib(allowed), percent(share)),
        change: None,
    })
}

fn over_provisioned(facts: &Facts<'_>) -> Option<Advice> {
    let sum = super::usage(facts.steps);
    let over = sum.over().filter(|over| *over > 4.0 && facts.recorded() >= ENOUGH)?;
    let busy = sum.peak / facts.steps.last()?.capacity.max(1e-9) > f64::from(facts.min);
    (busy && facts.late_share() < (1.0 - facts.slo_target) / 2.0 && facts.profile != "fast").then(|| Advice {
        code: "LEANER",
        severity: "info",
        title: format!("Pool {} can be leaner", facts.pool),
        evidence: format!(
            "{over:.1} times the instance-hours that the load fills ({} of them idle), while requests waited too long for only {} of the time",
            percent(sum.idle_share()),
            percent(facts.late_share()),
        ),
        change: facts.table("profile = \"fast\""),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::step;
    use super::*;

    fn facts(steps: &[Step]) -> Facts<'_> {
        Facts {
            pool: "mcp",
            steps,
            min: 2,
            max: 10,
            slo_wait: 0.25,
            slo_target: 0.99,
            profile: "balanced",
            lead: 2.0,
            ..Facts::default()
        }
    }

    fn codes(facts: &Facts<'_>) -> Vec<&'static str> {
        right_size(facts).iter().map(|advice| advice.code).collect()
    }

    #[test]
    fn where_all_is_well_or_nothing_is_known_there_is_no_advice() {
        assert_eq!(codes(&facts(&[])), [""; 0]);
        let steps = vec![step(0.0, 16.0, 6.0); 120];
        assert_eq!(codes(&facts(&steps)), [""; 0]);
        assert_eq!(right_size(&Facts::default()), []);
    }

    #[test]
    fn a_pool_that_is_full_and_late_is_to_grow() {
        let steps = vec![Step { wait: 1.0, ..step(0.0, 39.5, 10.0) }; 120];
        let found = right_size(&facts(&steps));
        assert_eq!(found.iter().map(|advice| advice.code).collect::<Vec<_>>(), ["RAISE_MAX"]);
        assert_eq!(found[0].change.as_deref(), Some("[pool.mcp.scaler]\nmax = 15\n"));
        assert!(found[0].evidence.contains("all 10 instances"), "{}", found[0].evidence);
        let lost = Facts { arrivals: 100.0, saturated: 5.0, ..facts(&steps) };
        assert_eq!(right_size(&lost)[0].severity, "critical");
    }

    #[test]
    fn a_floor_that_is_never_needed_is_told() {
        let steps = vec![step(0.0, 2.0, 8.0); 120];
        let high = Facts { min: 8, ..facts(&steps) };
        assert!(codes(&high).contains(&"LOWER_MIN"));
        assert!(right_size(&high)[0].change.as_ref().unwrap().ends_with("min = 2\n"));
        assert!(!codes(&Facts { steps: &steps[..10], ..high }).contains(&"LOWER_MIN"), "too little is known");
    }

    #[test]
    fn late_with_room_to_grow_wants_headroom_or_a_measured_capacity() {
        let steps = vec![Step { wait: 1.0, ..step(0.0, 4.0, 6.0) }; 60];
        assert_eq!(codes(&facts(&steps)), ["MORE_HEADROOM"]);
        let told = Facts { learned: Some(false), ..facts(&steps) };
        assert_eq!(codes(&told), ["MORE_HEADROOM", "LEARN_CAPACITY"]);
        assert_eq!(right_size(&told)[1].change.as_deref(), Some("[pool.mcp]\nmax_concurrency = \"learn\"\n"));
    }

    #[test]
    fn flaps_rollbacks_slow_starts_and_memory_are_told() {
        let steps = vec![step(0.0, 16.0, 6.0); 60];
        let all = Facts {
            reversals: 6,
            changes: 9,
            rollbacks: 1,
            lead: 90.0,
            memory: Some((950.0, 1000.0)),
            ..facts(&steps)
        };
        assert_eq!(codes(&all), ["CALMER", "ROLLED_BACK", "SLOW_STARTS", "MORE_MEMORY"]);
        assert_eq!(codes(&Facts { memory: Some((100.0, 1000.0)), ..facts(&steps) }), ["LESS_MEMORY"]);
    }

    #[test]
    fn a_change_is_toml_whatever_the_pool_is_called() {
        let steps = vec![Step { wait: 1.0, ..step(0.0, 39.5, 10.0) }; 120];
        let odd = Facts { pool: "a \"b\"\\", ..facts(&steps) };
        let change = right_size(&odd)[0].change.clone().unwrap();
        let table: toml::Table = change.parse().unwrap();
        assert_eq!(table["pool"]["a \"b\"\\"]["scaler"]["max"].as_integer(), Some(15));
    }
}
