use crate::scale::{Condition, Metric, Observed};

/// Whether a condition holds; none where that depends on values that nobody knows.
pub(super) fn holds(condition: &Condition, seen: &Observed, capacity: f64) -> Option<bool> {
    let mut unknown = false;
    for comparison in &condition.comparisons {
        match seen.value(&comparison.metric, capacity).map(|value| comparison.holds(value)) {
            // One that decides whatever the others say.
            Some(held) if held == condition.any => return Some(held),
            Some(_) => {}
            None => unknown = true,
        }
    }
    (!unknown).then_some(!condition.any)
}

/// The values a condition looks at, in words: `queue_wait 0.62 s, ready 4`.
pub(super) fn values(condition: &Condition, seen: &Observed, capacity: f64) -> String {
    let words = condition.comparisons.iter().map(|comparison| {
        let value = seen.value(&comparison.metric, capacity);
        format!(
            "{} {}",
            comparison.metric,
            value.map_or("unknown".to_owned(), |value| amount(&comparison.metric, value))
        )
    });
    words.collect::<Vec<_>>().join(", ")
}

/// A value with its unit.
pub(super) fn amount(metric: &Metric, value: f64) -> String {
    match metric {
        Metric::QueueWait | Metric::LatencyP95 if value < 1.0 => format!("{} ms", short(value * 1e3)),
        Metric::QueueWait | Metric::LatencyP95 => format!("{} s", short(value)),
        Metric::Cpu | Metric::Memory | Metric::Errors | Metric::PoolUtilisation => {
            format!("{} %", short(value * 100.0))
        }
        Metric::Rps | Metric::Saturation => format!("{}/s", short(value)),
        _ => short(value),
    }
}

/// A number as people read it: three figures are enough.
pub(crate) fn short(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_decides_nothing() {
        let known = |text: &str| holds(&text.parse().unwrap(), &Observed { queue: 5.0, ..Observed::default() }, 1.0);
        assert_eq!(known("queue_depth > 4"), Some(true));
        assert_eq!(known("queue_depth > 5"), Some(false));
        assert_eq!(known("cpu > 80%"), None);
        assert_eq!(known("cpu > 80% or queue_depth > 4"), Some(true));
        assert_eq!(known("cpu > 80% or queue_depth > 5"), None);
        assert_eq!(known("cpu > 80% and queue_depth > 4"), None);
        assert_eq!(known("cpu > 80% and queue_depth > 5"), Some(false));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 0.625, 12.04, 1234.5].map(short), ["0", "0.62", "12", "1234"].map(str::to_owned));
        assert_eq!(amount(&Metric::QueueWait, 0.62), "620 ms");
        assert_eq!(amount(&Metric::Cpu, 0.7), "70 %");
    }
}
