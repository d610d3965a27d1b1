//! How records, outcomes and samples are written as lines.
//!
//! A line begins with its time, so that those of other times are passed over without being read as JSON.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::admin::scaling::{Outcome, Record, Sample};

/// The parts of a record whose missing keys read back as zero. Other tables hold names, for which missing and zero are two things.
const PARTS: [&str; 4] = ["decision", "terms", "seen", "outcome"];

const AT: &str = "{\"at\":";
const CHANGE: &str = "\"change\":true,";
const OUTCOME: &str = "\"outcome_of\":";

/// A record as a line.
pub(super) fn of_record(record: &Record) -> String {
    let change = if record.is_change() { CHANGE } else { "" };
    let body = compact(record, |map| lighten(map, true));
    format!("{AT}{},{change}{}", record.decision.at, &body[1..])
}

/// What became of an earlier record, as a line.
pub(super) fn of_outcome(at: f64, id: &str, outcome: &Outcome) -> String {
    let id = Value::from(id);
    format!("{AT}{at},{OUTCOME}{id},\"outcome\":{}}}", compact(outcome, |map| lighten(map, false)))
}

/// A sample as a line.
pub(super) fn of_sample(sample: &Sample) -> String {
    let body = compact(sample, |map| {
        map.remove("at");
        lighten(map, false);
        for value in map.values_mut() {
            if let Some(number) = value.as_f64() {
                // Seven digits are more than anybody can see in a chart, and halve the file.
                *value = Value::from(round(number));
            }
        }
    });
    format!("{AT}{}{}{}", sample.at, if body == "{}" { "" } else { "," }, &body[1..])
}

/// A line's time, if it is a whole line.
pub(super) fn time(line: &str) -> Option<f64> {
    let rest = line.strip_prefix(AT).filter(|rest| rest.ends_with('}'))?;
    rest[..rest.find([',', '}'])?].parse().ok()
}

/// Whether a line is a record, of a change of the number of instances.
pub(super) fn is_change(line: &str) -> bool {
    rest(line).is_some_and(|rest| rest.starts_with(CHANGE))
}

/// The outcome that a line tells, and the record's id.
pub(super) fn outcome(line: &str) -> Option<(String, Outcome)> {
    #[derive(serde::Deserialize)]
    struct Told {
        outcome_of: String,
        outcome: Outcome,
    }
    rest(line).filter(|rest| rest.starts_with(OUTCOME))?;
    serde_json::from_str(line).ok().map(|told: Told| (told.outcome_of, told.outcome))
}

/// The record of a line.
pub(super) fn record(line: &str) -> Option<Record> {
    rest(line).filter(|rest| !rest.starts_with(OUTCOME))?;
    serde_json::from_str(line).ok().filter(|record: &Record| !record.id.is_empty())
}

/// The sample of a line.
pub(super) fn sample(line: &str) -> Option<Sample> {
    serde_json::from_str(line).ok()
}

fn rest(line: &str) -> Option<&str> {
    line.split_once(',').map(|(_, rest)| rest)
}

fn compact(value: &impl Serialize, lighten: impl FnOnce(&mut Map<String, Value>)) -> String {
    let mut value = serde_json::to_value(value).unwrap_or_default();
    if let Value::Object(map) = &mut value {
        lighten(map);
    }
    value.to_string()
}

/// Leaves out what reads back the same without.
fn lighten(map: &mut Map<String, Value>, parts: bool) {
    for (name, value) in map.iter_mut() {
        if let (true, Value::Object(part)) = (parts && PARTS.contains(&name.as_str()), value) {
            lighten(part, true);
        }
    }
    map.retain(|_, value| match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    });
}

fn round(number: f64) -> f64 {
    let digits = 6 - number.abs().log10().floor() as i32;
    let scale = 10f64.powi(digits.clamp(-15, 15));
    if number == 0.0 || number.fract() == 0.0 { number } else { (number * scale).round() / scale }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scale::{Decision, Instance, Limit, Observed, Phase, Source, Terms};

    fn full() -> Record {
        let terms = Terms { rate: 12.5, capacity: 4.0, learned: true, ..Terms::default() };
        let decision = Decision {
            at: 1_796_000_000.25,
            current: 3,
            desired: 5,
            apply: true,
            reason: "trend".to_owned(),
            terms,
            sources: vec![Source { name: "load".to_owned(), wants: None, why: String::new() }],
            limits: vec![Limit { name: "max".to_owned(), from: 0, to: 5 }],
            ..Decision::default()
        };
        let seen = Observed {
            span: 1.0,
            external: [("queue".to_owned(), 0.0)].into(),
            instances: vec![Instance { phase: Phase::Ready, age: 0.0 }],
            latency_p95: Some(0.25),
            complete: true,
            ..Observed::default()
        };
        Record { id: "01-a".to_owned(), pool: "tools".to_owned(), generation: 7, decision, seen, outcome: None }
    }

    #[test]
    fn a_record_reads_back_with_its_zeros() {
        let whole = full();
        let text = of_record(&whole);
        assert!(is_change(&text) && !text.contains("outcome") && !text.contains('\n'), "{text}");
        assert_eq!((time(&text), record(&text)), (Some(1_796_000_000.25), Some(whole.clone())));
        let mut still = whole;
        still.decision.desired = 3;
        assert!(!is_change(&of_record(&still)));
        assert_eq!(record(&of_record(&still)), Some(still));
    }

    #[test]
    fn an_outcome_is_no_record_and_a_record_is_no_outcome() {
        let came = Outcome {
            ready_after: Some(2.5),
            p95: (Some(0.5), None),
            verdict: "good".to_owned(),
            ..Outcome::default()
        };
        let text = of_outcome(5.0, "01-\"a", &came);
        assert_eq!((time(&text), outcome(&text)), (Some(5.0), Some(("01-\"a".to_owned(), came))));
        assert_eq!((record(&text), outcome(&of_record(&full()))), (None, None));
    }

    #[test]
    fn a_torn_line_is_nothing() {
        let text = of_record(&full());
        for cut in 0..text.len() {
            let torn = &text[..cut];
            assert!(time(torn).is_none() || record(torn).is_none(), "{torn}");
        }
    }

    #[test]
    fn a_sample_is_short_and_close() {
        let seen = Sample {
            at: 1_796_000_010.0,
            span: 10.0,
            arrivals: 1_234.567_891_23,
            p95: Some(1.0 / 3.0),
            ..Sample::default()
        };
        let text = of_sample(&seen);
        assert_eq!(text, r#"{"at":1796000010,"arrivals":1234.568,"p95":0.3333333,"span":10.0}"#);
        let back = sample(&text).unwrap();
        assert_eq!((back.at, back.arrivals, back.queue), (seen.at, 1234.568, 0.0));
        assert_eq!(of_sample(&Sample { at: 1.0, ..Sample::default() }), r#"{"at":1}"#);
    }
}
