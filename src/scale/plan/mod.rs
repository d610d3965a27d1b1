//! Planning: what measured traffic says about growth, cost and size. Pure sums over what was recorded.
//!
//! Nothing here changes a scaler; it gives numbers and advice to people. Why no constants such as "50 clients an instance": capacity and load
//! are measured in production all the time, and a plan made from a guess is a guess.

mod advice;
mod growth;

pub use advice::{Advice, Facts, right_size};
pub use growth::{Growth, Milestone, beyond_in, grow, zones};

/// What was seen in one step of time.
///
/// **Units**: seconds, erlangs, instances.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Step {
    /// The step's end, in seconds since 1970.
    pub at: f64,
    /// Its length.
    pub span: f64,
    /// Offered load: slots in use.
    pub load: f64,
    /// Instances that are paid for: starting, ready and draining.
    pub fleet: f64,
    /// Instances that are ready.
    pub ready: f64,
    /// Slots of one instance.
    pub capacity: f64,
    /// The longest wait for a slot.
    pub wait: f64,
}

/// What a time has used and cost.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    /// Hours that were recorded.
    pub hours: f64,
    /// Instance-hours paid for.
    pub instance_hours: f64,
    /// Instance-hours that the load would have filled exactly.
    pub busy_hours: f64,
    /// Instance-hours of a fixed fleet of the largest size there was.
    pub fixed_hours: f64,
    /// The largest fleet.
    pub largest: f64,
    /// The largest load.
    pub peak: f64,
}

impl Usage {
    /// How many times more than the load needs was there; 1 is perfect packing. None while nothing was busy.
    pub fn over(&self) -> Option<f64> {
        (self.busy_hours > 0.0).then(|| self.instance_hours / self.busy_hours)
    }

    /// The share of instance-hours in which slots stood empty.
    pub fn idle_share(&self) -> f64 {
        if self.instance_hours > 0.0 { (1.0 - self.busy_hours / self.instance_hours).clamp(0.0, 1.0) } else { 0.0 }
    }

    /// The share of a fixed fleet's hours that scaling has saved.
    pub fn saved_share(&self) -> f64 {
        if self.fixed_hours > 0.0 { (1.0 - self.instance_hours / self.fixed_hours).clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// Sums up what was recorded.
pub fn usage(steps: &[Step]) -> Usage {
    let mut sum = Usage::default();
    for step in steps.iter().filter(|step| step.span > 0.0) {
        sum.hours += step.span;
        sum.instance_hours += step.fleet * step.span;
        if step.capacity > 0.0 {
            sum.busy_hours += step.load / step.capacity * step.span;
        }
        sum.largest = sum.largest.max(step.fleet);
        sum.peak = sum.peak.max(step.load);
    }
    // Summed as seconds, which are whole most of the time.
    for seconds in [&mut sum.hours, &mut sum.instance_hours, &mut sum.busy_hours] {
        *seconds /= 3600.0;
    }
    sum.fixed_hours = sum.largest.ceil() * sum.hours;
    sum
}

/// The value below which `share` of the weight lies: a quantile of weighted values. None where there is no weight.
pub fn quantile(values: impl IntoIterator<Item = (f64, f64)>, share: f64) -> Option<f64> {
    let mut values: Vec<(f64, f64)> =
        values.into_iter().filter(|(value, weight)| value.is_finite() && *weight > 0.0).collect();
    values.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total: f64 = values.iter().map(|(_, weight)| weight).sum();
    let mut below = 0.0;
    for (value, weight) in &values {
        below += weight;
        if below >= total * share {
            return Some(*value);
        }
    }
    values.last().map(|(value, _)| *value)
}

/// The instances that run nearly always (the 10th percentile of the fleet's size): worth reserving where that is cheaper.
pub fn reserved_floor(steps: &[Step]) -> u32 {
    quantile(steps.iter().map(|step| (step.fleet, step.span)), 0.1).map_or(0, |floor| floor.floor() as u32)
}

/// The share of time in which something held.
pub fn share_of_time(steps: &[Step], holds: impl Fn(&Step) -> bool) -> f64 {
    let total: f64 = steps.iter().map(|step| step.span).sum();
    let held: f64 = steps.iter().filter(|step| holds(step)).map(|step| step.span).sum();
    if total > 0.0 { held / total } else { 0.0 }
}

/// Memory of an instance as a line over its requests in progress.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MemoryFit {
    /// Bytes with nothing in progress.
    pub base: f64,
    /// Bytes for each request in progress.
    pub each: f64,
}

impl MemoryFit {
    /// Least squares through `(requests in progress, bytes)`. None where these do not differ enough to tell a slope.
    pub fn of(points: &[(f64, f64)]) -> Option<MemoryFit> {
        let count = points.len() as f64;
        if points.len() < 3 {
            return None;
        }
        let mean = |pick: fn(&(f64, f64)) -> f64| points.iter().map(pick).sum::<f64>() / count;
        let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
        let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
        if spread / count < 0.01 {
            return None;
        }
        let slope = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>() / spread;
        let each = slope.max(0.0);
        Some(MemoryFit { base: (mean_y - each * mean_x).max(0.0), each })
    }

    /// What an instance needs for so many requests at once, a fifth on top.
    pub fn needed(&self, requests: f64) -> f64 {
        (self.base + self.each * requests.max(0.0)) * 1.2
    }
}

/// Idle connections worth keeping to an upstream: a third of the usual requests at once, and half as much again as the most, a tenth on top.
pub fn connections(usual: f64, most: f64) -> (u32, u32) {
    ((usual.max(0.0) / 3.0).ceil() as u32, (most.max(0.0) * 1.5 * 1.1).ceil() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn step(at: f64, load: f64, fleet: f64) -> Step {
        Step { at, span: 60.0, load, fleet, ready: fleet, capacity: 4.0, wait: 0.0 }
    }

    #[test]
    fn usage_sums_what_was_there_and_what_was_needed() {
        let steps = [step(60.0, 4.0, 2.0), step(120.0, 8.0, 4.0), Step::default()];
        let sum = usage(&steps);
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} is not {b}");
        near(sum.hours, 2.0 / 60.0);
        near(sum.instance_hours, 6.0 / 60.0);
        near(sum.busy_hours, 3.0 / 60.0);
        near(sum.fixed_hours, 8.0 / 60.0);
        near(sum.over().unwrap(), 2.0);
        near(sum.idle_share(), 0.5);
        near(sum.saved_share(), 0.25);
        assert_eq!((sum.largest, sum.peak), (4.0, 8.0));
        assert_eq!(usage(&[]).over(), None);
        assert_eq!((usage(&[]).idle_share(), usage(&[]).saved_share()), (0.0, 0.0));
    }

    #[test]
    fn quantiles_go_by_weight() {
        assert_eq!(quantile([(1.0, 9.0), (10.0, 1.0)], 0.5), Some(1.0));
        assert_eq!(quantile([(1.0, 9.0), (10.0, 1.0)], 0.95), Some(10.0));
        assert_eq!(quantile([(3.0, 1.0), (1.0, 1.0), (2.0, 1.0)], 1.0), Some(3.0));
        assert_eq!(quantile([(f64::NAN, 1.0), (1.0, 0.0)], 0.5), None);
    }

    #[test]
    fn the_floor_is_what_runs_nearly_always() {
        let mut steps = vec![step(0.0, 1.0, 2.0); 5];
        steps.extend(vec![step(0.0, 1.0, 6.0); 95]);
        assert_eq!(reserved_floor(&steps), 6);
        steps.extend(vec![step(0.0, 1.0, 2.0); 10]);
        assert_eq!(reserved_floor(&steps), 2);
        assert_eq!(reserved_floor(&[]), 0);
    }

    #[test]
    fn shares_are_of_time_not_of_samples() {
        let long = Step { span: 300.0, ..step(0.0, 0.0, 1.0) };
        let steps = [long, step(0.0, 0.0, 3.0)];
        assert!((share_of_time(&steps, |step| step.fleet > 2.0) - 60.0 / 360.0).abs() < 1e-9);
        assert_eq!(share_of_time(&[], |_| true), 0.0);
    }

    #[test]
    fn memory_is_a_base_and_so_much_for_each_request() {
        let points: Vec<(f64, f64)> = (0..20).map(|n| (f64::from(n), 200e6 + 10e6 * f64::from(n))).collect();
        let fit = MemoryFit::of(&points).unwrap();
        assert!((fit.base - 200e6).abs() < 1.0 && (fit.each - 10e6).abs() < 1.0, "{fit:?}");
        assert!((fit.needed(10.0) - 360e6).abs() < 10.0);
        assert_eq!(MemoryFit::of(&[(5.0, 1.0), (5.0, 2.0), (5.0, 3.0)]), None);
        assert_eq!(MemoryFit::of(&points[..2]), None);
        // Memory that falls with load is no model of load.
        let falling: Vec<(f64, f64)> = (0..9).map(|n| (f64::from(n), 9e6 - 1e6 * f64::from(n))).collect();
        assert_eq!(MemoryFit::of(&falling).unwrap().each, 0.0);
    }

    #[test]
    fn connections_follow_the_seed_s_rule() {
        assert_eq!(connections(9.0, 20.0), (3, 33));
        assert_eq!(connections(0.0, 0.0), (0, 0));
    }
}
