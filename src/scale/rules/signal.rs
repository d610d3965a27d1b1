use super::condition::{amount, short};
use crate::scale::{Metric, Observed, Phase, Settings, Signal, Target};

/// What a signal asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ask {
    /// None where it does not know, or may only add and would remove.
    pub(super) wants: Option<u32>,
    pub(super) why: String,
    /// It does not know, and could have asked for as many as there are.
    pub(super) holds: bool,
}

/// Latency and errors do not halve when instances double; a step because of them is no larger than this.
const LEAP: f64 = 2.0;

/// HPA's maths, for one signal.
///
/// **Source**: `replica_calculator.go` of Kubernetes. A share or a level is multiplied with the instances that are ready, a sum divided by
/// what one instance is to have. Starting ones count as idle when more are asked for. Where none is ready a level says nothing
/// (Kubernetes makes 0 of it: kubernetes#130130).
pub(super) fn ask(signal: &Signal, seen: &Observed, settings: &Settings, capacity: f64, size: u32) -> Ask {
    let may_remove = !signal.up_only && signal.metric != Metric::Memory;
    let Some(value) = seen.value(&signal.metric, capacity) else {
        let why = if may_remove { "no value: keeps what is there" } else { "no value" };
        return Ask { wants: None, why: why.to_owned(), holds: may_remove };
    };
    let told = format!("{} of {}", amount(&signal.metric, value), target(signal));
    let Some((ratio, wish)) = proportion(signal, value, seen, [capacity, f64::from(size)]) else {
        return Ask { wants: None, why: format!("{told}, but none is ready"), holds: may_remove };
    };
    let within = ratio <= 1.0 + settings.up.tolerance && ratio >= 1.0 - settings.down.tolerance;
    let wish = if within { size } else { wish };
    match within {
        _ if wish < size && !may_remove => {
            Ask { wants: None, why: format!("{told}: {wish} would do, but it may only add"), holds: false }
        }
        true => Ask { wants: Some(size), why: format!("{told}: within tolerance"), holds: false },
        false => Ask { wants: Some(wish), why: told, holds: false },
    }
}

/// By how much the signal is beyond its target, and how many that asks for.
fn proportion(signal: &Signal, value: f64, seen: &Observed, [capacity, size]: [f64; 2]) -> Option<(f64, u32)> {
    let ready = f64::from(seen.count(Phase::Ready));
    let each = match signal.target {
        _ if is_level(&signal.metric) => None,
        Target::Utilization(share) => Some(share * capacity),
        Target::PerInstance(each) => Some(each),
        Target::Value(_) => None,
    };
    if let Some(each) = each {
        let ratio = if value == 0.0 { 0.0 } else { value / (each * size) };
        return Some((ratio, round_up(value / each)));
    }
    let (Target::Utilization(target) | Target::PerInstance(target) | Target::Value(target)) = signal.target;
    if ready == 0.0 {
        return None;
    }
    let mut ratio = value / target;
    if matches!(signal.metric, Metric::LatencyP95 | Metric::QueueWait | Metric::Errors) {
        ratio = ratio.min(LEAP);
    }
    let wish = round_up(ratio * ready);
    let there = f64::from(seen.count(Phase::Starting)) + ready;
    // Those that start will take their part: what is too much now may be right then.
    let damped = if ratio > 1.0 { (ratio * ready / there).max(1.0) } else { ratio };
    Some((damped, if ratio > 1.0 { wish.max(size as u32) } else { wish }))
}

/// Whether it is the same for one instance as for all, so that it cannot be divided among them.
fn is_level(metric: &Metric) -> bool {
    matches!(
        metric,
        Metric::Cpu
            | Metric::Memory
            | Metric::LatencyP95
            | Metric::QueueWait
            | Metric::Errors
            | Metric::PoolUtilisation
    )
}

fn round_up(wish: f64) -> u32 {
    // What floats add to a whole number is not one more instance.
    (wish - 1e-9).ceil().clamp(0.0, f64::from(u32::MAX)) as u32
}

fn target(signal: &Signal) -> String {
    match signal.target {
        Target::PerInstance(target) if !is_level(&signal.metric) => format!("{} each", short(target)),
        Target::Utilization(share) if !is_level(&signal.metric) => format!("{} % of all slots", short(share * 100.0)),
        Target::Utilization(target) | Target::PerInstance(target) | Target::Value(target) => {
            amount(&signal.metric, target)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{pool, settings};
    use super::*;

    fn wants(metric: &str, target: &str, seen: &Observed) -> Option<u32> {
        let signal = Signal { metric: metric.parse().unwrap(), target: target.parse().unwrap(), up_only: false };
        let mut settings = settings();
        (settings.up.tolerance, settings.down.tolerance) = (0.1, 0.1);
        ask(&signal, seen, &settings, 4.0, seen.current()).wants
    }

    /// Reference vectors by the semantics of Kubernetes' replica calculator.
    #[test]
    fn the_maths_of_hpa() {
        // (cpu, target, ready, starting, wanted)
        let cases = [
            (0.9, "50%", 4, 0, 8),
            (0.5, "50%", 4, 0, 4),
            (0.54, "50%", 4, 0, 4),
            (0.56, "50%", 4, 0, 5),
            (0.46, "50%", 4, 0, 4),
            (0.2, "50%", 4, 0, 2),
            (0.05, "50%", 4, 0, 1),
            // Starting ones count as idle: 4 × 90 % are 8 × 45 %, which is enough.
            (0.9, "50%", 4, 4, 8),
            (0.9, "50%", 4, 2, 8),
            (0.6, "50%", 4, 2, 6),
            // 3 × 0.7 / 0.7 is 3, not 4.
            (0.7, "70%", 3, 0, 3),
        ];
        for (cpu, target, ready, starting, expected) in cases {
            let seen = Observed { cpu: Some(cpu), ..pool(ready, starting) };
            assert_eq!(wants("cpu", target, &seen), Some(expected), "{cpu} {target} {ready} {starting}");
        }
    }

    #[test]
    fn sums_are_divided_and_levels_multiplied() {
        let busy = |ready| Observed { arrivals: 100.0, ..pool(ready, 0) };
        assert_eq!(wants("rps", "30", &busy(2)), Some(4));
        assert_eq!(wants("rps", "30", &busy(0)), Some(4));
        // 100 of 3 × 31 is 7.5 % too much.
        assert_eq!(wants("rps", "31", &busy(3)), Some(3));
        assert_eq!(wants("rps", "value:50", &busy(3)), Some(6));
        let far = |value| Observed { external: [("lag".to_owned(), value)].into(), ..pool(4, 0) };
        assert_eq!(wants("external:lag", "10", &far(95.0)), Some(10));
        assert_eq!(wants("external:lag", "value:50", &far(100.0)), Some(8));
        assert_eq!(wants("external:lag", "value:50", &far(0.0)), Some(0));
        assert_eq!(wants("external:other", "10", &far(95.0)), None);
        // A share of what is additive is one of the slots: 4 for each here.
        let full = Observed { in_flight: 20.0, ..pool(5, 0) };
        assert_eq!(wants("in_flight", "50%", &full), Some(10));
        // Latency is no load: never more than twice as many at once.
        let slow = Observed { latency_p95: Some(9.0), ..pool(4, 0) };
        assert_eq!(wants("latency_p95", "300ms", &slow), Some(8));
    }

    #[test]
    fn nobody_ready_says_nothing() {
        let none = Observed { cpu: Some(0.9), ..pool(0, 3) };
        assert_eq!(wants("cpu", "50%", &none), None);
        let signal = Signal { metric: Metric::Cpu, target: Target::Utilization(0.5), up_only: false };
        assert!(ask(&signal, &none, &settings(), 4.0, 3).holds);
    }

    #[test]
    fn memory_and_what_may_only_add_remove_nothing() {
        let idle = Observed { cpu: Some(0.1), memory: Some(0.1), ..pool(4, 0) };
        let ask = |metric, up_only| {
            ask(&Signal { metric, target: Target::Utilization(0.5), up_only }, &idle, &settings(), 4.0, 4)
        };
        assert_eq!((ask(Metric::Memory, false).wants, ask(Metric::Memory, false).holds), (None, false));
        assert_eq!((ask(Metric::Cpu, true).wants, ask(Metric::Cpu, true).holds), (None, false));
        assert_eq!(ask(Metric::Cpu, false).wants, Some(1));
    }
}
