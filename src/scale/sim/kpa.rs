use std::collections::VecDeque;

use super::{Contestant, Second, View};

/// Knative's pod autoscaler.
///
/// **Source**: knative/serving, `pkg/autoscaler/scaling/autoscaler.go`, with its defaults: a stable window of 60 s, a panic window of a tenth
/// of it, panic at twice of what is there, at most 1000 times up and 2 times down in a step of 2 s.
#[derive(Debug)]
pub struct Kpa {
    target: f64,
    delay: u32,
    panicking_since: Option<u32>,
    panic_most: f64,
    wishes: VecDeque<(u32, f64)>,
    begun: bool,
}

impl Kpa {
    const STABLE: usize = 60;
    const PANIC: usize = 6;
    const PANIC_THRESHOLD: f64 = 2.0;
    const UP_RATE: f64 = 1000.0;
    const DOWN_RATE: f64 = 2.0;

    /// With this share of the slots as its target (its own default is 0.7).
    pub fn new(target: f64) -> Self {
        Kpa { target, delay: 0, panicking_since: None, panic_most: 0.0, wishes: VecDeque::new(), begun: false }
    }

    /// With a scale-down delay, in seconds.
    pub fn delayed(self, delay: u32) -> Self {
        Kpa { delay, ..self }
    }

    /// The best setting that was found for it: 60 % and two minutes.
    pub fn tuned() -> Self {
        Kpa::new(0.6).delayed(120)
    }

    fn panic_wish(&mut self, view: &View<'_>, wish: f64, panic: f64, ready: f64, bounded: f64) -> f64 {
        if panic / ready >= Self::PANIC_THRESHOLD {
            self.panicking_since = Some(view.now);
        } else if self.panicking_since.is_some_and(|since| since + (Self::STABLE as u32) < view.now) {
            self.panicking_since = None;
            self.panic_most = 0.0;
        }
        if self.panicking_since.is_none() {
            return wish;
        }
        self.panic_most = self.panic_most.max(wish.max(bounded));
        self.panic_most
    }
}

impl Contestant for Kpa {
    fn name(&self) -> String {
        match self.delay {
            0 => format!("KPA {:.0} %", self.target * 100.0),
            delay => format!("KPA {:.0} % + {delay} s", self.target * 100.0),
        }
    }

    fn wants(&mut self, view: &View<'_>) -> Option<u32> {
        if !view.now.is_multiple_of(2) {
            return None;
        }
        let concurrency = |seconds: &[Second]| mean(seconds.iter().map(|second| second.in_flight + second.queue));
        let there = view.members.iter().filter(|member| member.is_ready()).count();
        let ready = there.max(1) as f64;
        if !self.begun {
            self.begun = true;
            if there > 1 {
                self.panicking_since = Some(view.now);
                self.panic_most = ready;
            }
        }
        let target = self.target * f64::from(view.world.slots);
        let (most, least) = ((Self::UP_RATE * ready).ceil(), (ready / Self::DOWN_RATE).floor());
        let stable = (concurrency(view.last(Self::STABLE)) / target - 1e-9).ceil();
        let panic = (concurrency(view.last(Self::PANIC)) / target - 1e-9).ceil();
        let mut wish = stable.max(least).min(most);
        wish = self.panic_wish(view, wish, panic, ready, panic.max(least).min(most));
        if self.delay > 0 {
            self.wishes.push_back((view.now, wish));
            self.wishes.retain(|(at, _)| at + self.delay > view.now);
            wish = self.wishes.iter().fold(0.0, |most, (_, wish)| wish.max(most));
        }
        Some(view.clamp(wish))
    }
}

pub(super) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = values.fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value));
    sum / f64::max(count, 1.0)
}
