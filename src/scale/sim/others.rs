use super::kpa::mean;
use super::{Contestant, View};

/// Always the same number.
#[derive(Debug, Clone, Copy)]
pub struct Fixed(pub u32);

impl Contestant for Fixed {
    fn name(&self) -> String {
        format!("fixed {}", self.0)
    }

    fn wants(&mut self, _: &View<'_>) -> Option<u32> {
        Some(self.0)
    }
}

/// Target tracking as AWS documents it: minutes of CPU; three above the target scale out, fifteen below nine tenths of it scale in.
///
/// **Source**: the user guides of EC2 Auto Scaling and Application Auto Scaling; the code is closed.
#[derive(Debug)]
pub struct TargetTracking {
    target: f64,
    minutes: Vec<f64>,
    out_at: Option<u32>,
    in_at: Option<u32>,
}

impl TargetTracking {
    const HIGH: usize = 3;
    const LOW: usize = 15;
    const OUT_COOLDOWN: u32 = 60;
    const IN_COOLDOWN: u32 = 300;

    /// With this share of CPU as its target.
    pub fn new(target: f64) -> Self {
        TargetTracking { target, minutes: Vec::new(), out_at: None, in_at: None }
    }

    fn all_last(&self, count: usize, test: impl Fn(f64) -> bool) -> bool {
        self.minutes.len() >= count && self.minutes[self.minutes.len() - count..].iter().all(|use_| test(*use_))
    }
}

impl Contestant for TargetTracking {
    fn name(&self) -> String {
        format!("AWS target tracking {:.0} %", self.target * 100.0)
    }

    fn wants(&mut self, view: &View<'_>) -> Option<u32> {
        if !view.now.is_multiple_of(60) {
            return None;
        }
        let minute = view.last(60);
        let ready: f64 = minute.iter().map(|second| second.ready).sum();
        let used = minute.iter().map(|second| second.busy).sum::<f64>() / (ready * view.world.cores).max(1e-9);
        self.minutes.push(used);
        let rested = |at: Option<u32>, cooldown| at.is_none_or(|at| view.now - at >= cooldown);
        let current = view.seen.current();
        if self.all_last(Self::HIGH, |used| used > self.target) && rested(self.out_at, Self::OUT_COOLDOWN) {
            let there = minute.last().map_or(1.0, |second| second.ready.round().max(1.0));
            let wanted = view.clamp((there * used / self.target).ceil());
            if wanted > current {
                self.out_at = Some(view.now);
                return Some(wanted);
            }
        } else if self.all_last(Self::LOW, |used| used < 0.9 * self.target) && rested(self.in_at, Self::IN_COOLDOWN) {
            let wanted = view.clamp((f64::from(current) * used / self.target).ceil());
            if wanted < current {
                self.in_at = Some(view.now);
                return Some(wanted);
            }
        }
        None
    }
}

/// Ray Serve's autoscaler: the mean of ongoing requests over half a minute, a delay of 30 s up and of ten minutes down.
///
/// **Source**: ray-project/ray, `serve/autoscaling_policy.py`, with its default delays.
#[derive(Debug)]
pub struct RayServe {
    target: f64,
    lasting: i32,
}

impl RayServe {
    const UP: i32 = 30;
    const DOWN: i32 = 600;

    /// With this share of the slots as its target.
    pub fn new(target: f64) -> Self {
        RayServe { target, lasting: 0 }
    }
}

impl Contestant for RayServe {
    fn name(&self) -> String {
        format!("Ray Serve {:.0} %", self.target * 100.0)
    }

    fn wants(&mut self, view: &View<'_>) -> Option<u32> {
        let ongoing = mean(view.last(30).iter().map(|second| second.in_flight + second.queue));
        let wanted = view.clamp((ongoing / (self.target * f64::from(view.world.slots)) - 1e-9).ceil());
        self.lasting = match wanted.cmp(&view.seen.current()) {
            std::cmp::Ordering::Greater => self.lasting.max(0) + 1,
            std::cmp::Ordering::Less => self.lasting.min(0) - 1,
            std::cmp::Ordering::Equal => 0,
        };
        if self.lasting >= Self::UP || self.lasting <= -Self::DOWN {
            self.lasting = 0;
            return Some(wanted);
        }
        None
    }
}

/// Thresholds that must hold for minutes, and steps of a given size, as many guides have them: more than 70 % of CPU, or a wait of half a
/// second, for five minutes adds half (at least four); less than 30 % for ten minutes takes a tenth.
#[derive(Debug, Default)]
pub struct StepPolicy {
    busy: u32,
    idle: u32,
    slow: u32,
}

impl Contestant for StepPolicy {
    fn name(&self) -> String {
        "thresholds, minutes and steps".to_owned()
    }

    fn wants(&mut self, view: &View<'_>) -> Option<u32> {
        let second = view.seconds.last()?;
        let used = second.busy / (second.ready * view.world.cores).max(1e-9);
        let longer = |lasting: u32, holds: bool| if holds { lasting + 1 } else { 0 };
        self.busy = longer(self.busy, used > 0.7);
        self.idle = longer(self.idle, used < 0.3);
        self.slow = longer(self.slow, second.oldest_wait > 0.5);
        if !view.now.is_multiple_of(60) {
            return None;
        }
        let current = view.seen.current();
        if self.busy >= 300 || self.slow >= 300 {
            Some(current + (current.div_ceil(2)).max(4))
        } else if self.idle >= 600 {
            Some(current.saturating_sub((current / 10).max(1)))
        } else {
            None
        }
    }
}
