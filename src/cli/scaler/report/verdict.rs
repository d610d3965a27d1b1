//! How things are, in a few cards: good, warning or critical.

use super::Part;
use crate::cli::scaler::explain::percent;
use crate::cli::scaler::simulate::money;
use crate::cli::scaler::status::{seconds, short};
use crate::scale::plan::{share_of_time, usage};

/// One number with what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Card {
    pub(super) name: &'static str,
    /// `good`, `warning`, `critical`; `plain` where a number is just a number.
    pub(super) level: &'static str,
    pub(super) value: String,
    pub(super) note: String,
}

pub(super) fn cards(part: &Part) -> Vec<Card> {
    let mut cards = vec![service(part), size(part), starts(part), calm(part), packing(part), cost(part)];
    if let Some(condition) = conditions(part) {
        cards.insert(0, condition);
    }
    cards
}

/// The worst of three.
fn level(value: f64, warning: f64, critical: f64) -> &'static str {
    match value {
        v if v > critical => "critical",
        v if v > warning => "warning",
        _ => "good",
    }
}

fn conditions(part: &Part) -> Option<Card> {
    let rank = |severity: &str| crate::cli::scaler::status::rank(severity);
    let worst = part.findings.iter().map(|finding| rank(&finding.severity)).min()?;
    let level = ["critical", "warning"].get(worst).copied().unwrap_or("plain");
    let codes: Vec<&str> = part.findings.iter().map(|finding| finding.code.as_str()).collect();
    Some(Card { name: "Needs attention", level, value: part.findings.len().to_string(), note: codes.join(", ") })
}

fn service(part: &Part) -> Card {
    let known = &part.known;
    let (wait, target) = known.slo;
    let late = share_of_time(&known.steps, |step| step.wait > wait);
    let recorded = !known.steps.is_empty();
    Card {
        name: "Time within the SLO",
        level: if recorded { level(late, 1.0 - target, 5.0 * (1.0 - target)) } else { "plain" },
        value: if recorded { format!("{} %", short((1.0 - late) * 100.0)) } else { "-".to_owned() },
        note: format!("no wait above {}; goal {}", seconds(wait), percent(target)),
    }
}

fn size(part: &Part) -> Card {
    let known = &part.known;
    let max = f64::from(known.pool.max);
    let full = share_of_time(&known.steps, |step| step.ready >= max);
    let ready = crate::cli::scaler::status::count(&known.pool, &["ready", "warming"]);
    Card {
        name: "Instances ready",
        level: level(full, 0.01, 0.2),
        value: format!("{ready} of {}", known.pool.desired),
        note: format!("{} to {}; {} of the time at the most", known.pool.min, known.pool.max, percent(full)),
    }
}

fn starts(part: &Part) -> Card {
    let failing = part.findings.iter().any(|finding| finding.code == "START_FAILURES");
    let lead = part.known.lead();
    Card {
        name: "Start-up time",
        level: if failing { "critical" } else { level(lead, 60.0, 300.0) },
        value: if lead > 0.0 { seconds(lead) } else { "-".to_owned() },
        note: if failing { "starts fail" } else { "from the order to the first good check" }.to_owned(),
    }
}

fn calm(part: &Part) -> Card {
    let hours = part.known.steps.iter().map(|step| step.span).sum::<f64>() / 3600.0;
    let reversals = part.known.reversals();
    Card {
        name: "Changes",
        level: level(f64::from(reversals) / hours.max(1.0), 2.0, 10.0),
        value: part.known.changes().len().to_string(),
        note: format!("{reversals} turned round within 10 min"),
    }
}

fn packing(part: &Part) -> Card {
    let used = usage(&part.known.steps);
    let over = used.over();
    Card {
        name: "Over-provision",
        level: over.map_or("plain", |over| level(over, 4.0, 10.0)),
        value: over.map_or_else(|| "-".to_owned(), |over| format!("{} x", short(over))),
        note: format!("{} idle; 1 x is perfect packing", percent(used.idle_share())),
    }
}

fn cost(part: &Part) -> Card {
    let used = usage(&part.known.steps);
    let (price, currency) = &part.known.price;
    let saved = format!("{} less than a fixed fleet of {}", percent(used.saved_share()), short(used.largest.ceil()));
    let priced = *price > 0.0;
    Card {
        name: if priced { "Cost" } else { "Instance-hours" },
        level: "plain",
        value: if priced { money(used.instance_hours * price, currency) } else { short(used.instance_hours) },
        note: if used.hours > 0.0 { saved } else { "nothing on record".to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{empty, report};
    use super::*;

    #[test]
    fn cards_say_how_it_is() {
        let cards = cards(&report().pools[0]);
        let told: Vec<(&str, &str, &str)> =
            cards.iter().map(|card| (card.name, card.level, card.value.as_str())).collect();
        assert_eq!(
            told,
            [
                ("Needs attention", "critical", "1"),
                ("Time within the SLO", "critical", "98.6 %"),
                ("Instances ready", "good", "7 of 9"),
                ("Start-up time", "critical", "2.1s"),
                ("Changes", "good", "2"),
                ("Over-provision", "good", "1.43 x"),
                ("Cost", "plain", "21.37 USD"),
            ]
        );
    }

    #[test]
    fn of_what_is_not_known_nothing_is_judged() {
        let cards = cards(&empty().pools[0]);
        for name in ["Time within the SLO", "Over-provision", "Cost"] {
            let card = cards.iter().find(|card| card.name == name).unwrap();
            assert_eq!((card.level, card.value.as_str()), ("plain", "-"), "{name}");
        }
    }
}
