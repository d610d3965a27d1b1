use std::collections::BTreeMap;

use super::{Contestant, View};
use crate::scale::{Amount, Pace, Rules, Select};

/// Kubernetes' horizontal pod autoscaler.
///
/// **Source**: kubernetes/kubernetes, `pkg/controller/podautoscaler` (`horizontal.go`, `replica_calculator.go`) and the defaults of
/// autoscaling/v2: it looks every 15 s, CPU is scraped every 15 s, pods without a metric count as idle when it scales up.
#[derive(Debug)]
pub struct Hpa {
    gauge: Gauge,
    target: f64,
    up: Rules,
    down: Rules,
    wishes: Vec<(u32, u32)>,
    added: Vec<(u32, u32)>,
    removed: Vec<(u32, u32)>,
    scraped: BTreeMap<u64, f64>,
    usage: BTreeMap<u64, f64>,
}

/// What it scales by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gauge {
    /// CPU, as the metrics server has it.
    Cpu,
    /// Requests in progress or waiting at this moment for each pod: what an external metric of the proxy (KEDA's HTTP add-on) would say.
    Concurrency,
}

impl Hpa {
    const SYNC: u32 = 15;
    /// When CPU is scraped, within each of the 15 s.
    const PHASE: u32 = 7;

    /// By CPU, with the defaults of its behavior; 0.7 is what guides say.
    pub fn cpu(target: f64) -> Self {
        let (up, down) = Self::default_behavior();
        Self::new(Gauge::Cpu, target, up, down)
    }

    /// By requests in progress or waiting, as a share of the slots, with the defaults of its behavior.
    pub fn concurrency(target: f64) -> Self {
        let (up, down) = Self::default_behavior();
        Self::new(Gauge::Concurrency, target, up, down)
    }

    /// With a behavior of one's own.
    pub fn new(gauge: Gauge, target: f64, up: Rules, down: Rules) -> Self {
        Hpa {
            gauge,
            target,
            up,
            down,
            wishes: Vec::new(),
            added: Vec::new(),
            removed: Vec::new(),
            scraped: BTreeMap::new(),
            usage: BTreeMap::new(),
        }
    }

    /// Up by 4 or 100 % in 15 s, whichever is more; down by anything after five minutes; 10 % tolerance.
    pub fn default_behavior() -> (Rules, Rules) {
        let pace = |amount| Pace { amount, period: 15.0 };
        let up = Rules {
            stabilization: Some(0.0),
            policies: vec![pace(Amount::Count(4)), pace(Amount::Percent(100))],
            select: Select::Max,
            tolerance: 0.1,
        };
        let down = Rules {
            stabilization: Some(300.0),
            policies: vec![pace(Amount::Percent(100))],
            select: Select::Max,
            tolerance: 0.1,
        };
        (up, down)
    }

    fn scrape(&mut self, view: &View<'_>) {
        let ready = || view.members.iter().filter(|member| member.is_ready());
        let used = |member: &super::Member| {
            let before = self.scraped.get(&member.id)?;
            Some((member.id, (member.busy - before) / f64::from(Self::SYNC) / view.world.cores))
        };
        self.usage = ready().filter_map(used).collect();
        self.scraped = ready().map(|member| (member.id, member.busy)).collect();
    }

    /// Whether a ratio of what is to what should be is near enough to one.
    fn tolerated(&self, ratio: f64) -> bool {
        ratio <= 1.0 + self.up.tolerance && ratio >= 1.0 - self.down.tolerance
    }

    fn by_cpu(&self, view: &View<'_>, current: u32) -> Option<u32> {
        let live = || view.members.iter().filter(|member| !member.is_draining());
        let known: Vec<f64> = live()
            .filter(|member| member.is_ready())
            .filter_map(|member| self.usage.get(&member.id).copied())
            .collect();
        if known.is_empty() {
            return None;
        }
        let all = live().count() as f64;
        let sum: f64 = known.iter().sum();
        let ratio = sum / known.len() as f64 / self.target;
        if all as usize == known.len() || ratio <= 1.0 {
            let wanted = (ratio * known.len() as f64 - 1e-9).ceil() as u32;
            return Some(if self.tolerated(ratio) { current } else { wanted });
        }
        // Pods without a metric are taken for idle, so that it does not overshoot.
        let careful = sum / all / self.target;
        let wanted = (careful * all - 1e-9).ceil() as u32;
        Some(if self.tolerated(careful) || careful < 1.0 { current } else { wanted.max(current) })
    }

    fn by_concurrency(&self, view: &View<'_>, current: u32) -> u32 {
        let in_flight: usize = view.members.iter().map(|member| member.in_flight).sum();
        let load = in_flight as f64 + view.seen.queue;
        let per_pod = self.target * f64::from(view.world.slots);
        let ratio = load / (per_pod * f64::from(current.max(1)));
        if self.tolerated(ratio) { current } else { (load / per_pod - 1e-9).ceil() as u32 }
    }

    fn stabilized(&mut self, now: u32, current: u32, wanted: u32) -> u32 {
        let (up, down) = (self.up.stabilization.unwrap_or(0.0), self.down.stabilization.unwrap_or(300.0));
        let within =
            |window: f64| self.wishes.iter().filter(move |(at, _)| f64::from(now - at) < window).map(|(_, wish)| *wish);
        let least = within(up).fold(wanted, u32::min);
        let most = within(down).fold(wanted, u32::max);
        self.wishes.retain(|(at, _)| f64::from(now - at) < up.max(down));
        self.wishes.push((now, wanted));
        current.max(least).min(most)
    }

    fn limited(&self, now: u32, current: u32, wanted: u32) -> u32 {
        let up = wanted > current;
        let (rules, changes) = if up { (&self.up, &self.added) } else { (&self.down, &self.removed) };
        if rules.select == Select::Disabled {
            return current;
        }
        let allowed = rules.policies.iter().map(|pace| {
            let recent = changes.iter().filter(|(at, _)| f64::from(now - at) < pace.period);
            let changed = recent.map(|(_, count)| f64::from(*count)).sum::<f64>();
            let sign = if up { 1.0 } else { -1.0 };
            let begin = f64::from(current) - sign * changed;
            let bound = match pace.amount {
                Amount::Count(count) => begin + sign * f64::from(count),
                Amount::Percent(percent) => begin * (1.0 + sign * f64::from(percent) / 100.0),
            };
            if up { bound.ceil().max(0.0) as u32 } else { bound.max(0.0) as u32 }
        });
        let widest = (rules.select == Select::Max) == up;
        let Some(bound) = (if widest { allowed.max() } else { allowed.min() }) else { return wanted };
        if up { wanted.min(bound.max(current)) } else { wanted.max(bound.min(current)) }
    }
}

impl Contestant for Hpa {
    fn name(&self) -> String {
        let gauge = match self.gauge {
            Gauge::Cpu => "CPU",
            Gauge::Concurrency => "concurrency",
        };
        format!("HPA {gauge} {:.0} %", self.target * 100.0)
    }

    fn wants(&mut self, view: &View<'_>) -> Option<u32> {
        if self.gauge == Gauge::Cpu && view.now % Self::SYNC == Self::PHASE {
            self.scrape(view);
        }
        if !view.now.is_multiple_of(Self::SYNC) {
            return None;
        }
        let current = view.seen.current();
        let wanted = match self.gauge {
            Gauge::Cpu => self.by_cpu(view, current)?,
            Gauge::Concurrency => self.by_concurrency(view, current),
        };
        let stable = self.stabilized(view.now, current, wanted);
        let wanted = view.clamp(f64::from(self.limited(view.now, current, stable)));
        if wanted != current {
            let changes = if wanted > current { &mut self.added } else { &mut self.removed };
            changes.push((view.now, wanted.abs_diff(current)));
        }
        Some(wanted)
    }
}
