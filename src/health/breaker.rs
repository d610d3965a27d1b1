use std::sync::atomic::{AtomicU64, Ordering::*};

/// The state of a circuit, as all workers see it: one word.
///
/// **Source**: Nygard, "Release It!" (2007); Polly's and resilience4j's half-open state with a number of trial
/// requests.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    word: AtomicU64,
}

/// What a circuit does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Requests pass.
    Closed,
    /// None do.
    Open,
    /// Trial requests do.
    HalfOpen {
        /// Trial requests that may still be sent.
        left: u16,
        /// Trial requests that have yet to succeed.
        missing: u16,
    },
}

/// Permission for one request. It is given back, once, to [`Outcomes::record`](super::Outcomes::record) with how it
/// went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a trial request whose outcome is never recorded keeps its circuit half open"]
pub struct Pass {
    /// Which closed or half-open time it belongs to: the circuit's epoch.
    pub(super) epoch: u32,
    pub(super) trial: bool,
}

/// The word unpacked: epoch (32 bits), phase (2), left (15), missing (15). Each change of phase begins an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Circuit {
    epoch: u32,
    phase: Phase,
}

pub(super) const MOST_TRIALS: u32 = (1 << 15) - 1;

impl Circuit {
    fn unpack(word: u64) -> Self {
        let phase = match word >> 30 & 0b11 {
            0 => Phase::Closed,
            1 => Phase::Open,
            _ => Phase::HalfOpen { left: (word >> 15 & 0x7fff) as u16, missing: (word & 0x7fff) as u16 },
        };
        Circuit { epoch: (word >> 32) as u32, phase }
    }

    fn pack(self) -> u64 {
        let phase = match self.phase {
            Phase::Closed => 0,
            Phase::Open => 1 << 30,
            Phase::HalfOpen { left, missing } => 2 << 30 | u64::from(left) << 15 | u64::from(missing),
        };
        u64::from(self.epoch) << 32 | phase
    }

    fn turned(self, phase: Phase) -> Self {
        Circuit { epoch: self.epoch.wrapping_add(1), phase }
    }
}

impl Breaker {
    pub(super) fn phase(&self) -> Phase {
        Circuit::unpack(self.word.load(Acquire)).phase
    }

    /// Whether a request may be sent. One relaxed load while the circuit is closed.
    pub(super) fn admit(&self) -> Option<Pass> {
        let circuit = Circuit::unpack(self.word.load(Relaxed));
        match circuit.phase {
            Phase::Closed => Some(Pass { epoch: circuit.epoch, trial: false }),
            Phase::Open => None,
            Phase::HalfOpen { .. } => {
                let taken = self.update(|circuit| match circuit.phase {
                    Phase::HalfOpen { left, missing } if left > 0 => {
                        Some(Circuit { phase: Phase::HalfOpen { left: left - 1, missing }, ..circuit })
                    }
                    _ => None,
                });
                taken.map(|circuit| Pass { epoch: circuit.epoch, trial: true })
            }
        }
    }

    /// Whether it is closed, and has been since the pass was given.
    pub(super) fn is_closed_since(&self, pass: Pass) -> bool {
        Circuit::unpack(self.word.load(Acquire)) == Circuit { epoch: pass.epoch, phase: Phase::Closed }
    }

    /// Closed since the pass was given → open. True for exactly one caller.
    pub(super) fn open(&self, pass: Pass) -> bool {
        let closed = Circuit { epoch: pass.epoch, phase: Phase::Closed };
        self.update(|circuit| (circuit == closed).then(|| circuit.turned(Phase::Open))).is_some()
    }

    /// A trial failed: half open → open. True for exactly one caller.
    pub(super) fn reopen(&self, pass: Pass) -> bool {
        self.in_trial(pass, |circuit, _, _| circuit.turned(Phase::Open)).is_some()
    }

    /// A trial succeeded. True for the one that closed the circuit; `before_closing` runs first.
    pub(super) fn succeed(&self, pass: Pass, before_closing: impl Fn()) -> bool {
        let after = self.in_trial(pass, |circuit, left, missing| {
            if missing <= 1 {
                before_closing();
                circuit.turned(Phase::Closed)
            } else {
                Circuit { phase: Phase::HalfOpen { left, missing: missing - 1 }, ..circuit }
            }
        });
        after.is_some_and(|before| matches!(before.phase, Phase::HalfOpen { missing: ..=1, .. }))
    }

    /// A trial ended without a verdict: another request may try.
    pub(super) fn give_back(&self, pass: Pass) {
        self.in_trial(pass, |circuit, left, missing| Circuit {
            phase: Phase::HalfOpen { left: (left + 1).min(missing), missing },
            ..circuit
        });
    }

    /// Open → half open. For control.
    pub(super) fn half_open(&self, trials: u32) {
        let trials = trials.clamp(1, MOST_TRIALS) as u16;
        let phase = Phase::HalfOpen { left: trials, missing: trials };
        self.update(|circuit| (circuit.phase == Phase::Open).then(|| circuit.turned(phase)));
    }

    /// → closed, whatever it was. For control.
    pub(super) fn close(&self) {
        self.update(|circuit| (circuit.phase != Phase::Closed).then(|| circuit.turned(Phase::Closed)));
    }

    /// Changes the circuit if the pass's half-open time still lasts.
    fn in_trial(&self, pass: Pass, change: impl Fn(Circuit, u16, u16) -> Circuit) -> Option<Circuit> {
        self.update(|circuit| match circuit.phase {
            Phase::HalfOpen { left, missing } if circuit.epoch == pass.epoch => Some(change(circuit, left, missing)),
            _ => None,
        })
    }

    /// The circuit as it was before the change, if there was one.
    fn update(&self, change: impl Fn(Circuit) -> Option<Circuit>) -> Option<Circuit> {
        let change = |word| change(Circuit::unpack(word)).map(Circuit::pack);
        // Release and Acquire: who sees the circuit closed sees the window cleared before it.
        self.word.fetch_update(AcqRel, Acquire, change).ok().map(Circuit::unpack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    fn half_open(trials: u32) -> Breaker {
        let breaker = Breaker::default();
        let pass = breaker.admit().unwrap();
        assert!(breaker.open(pass));
        breaker.half_open(trials);
        breaker
    }

    #[test]
    fn it_opens_once_for_everybody_who_was_let_in_before() {
        let breaker = Breaker::default();
        let (first, second) = (breaker.admit().unwrap(), breaker.admit().unwrap());
        assert!(breaker.open(first));
        assert!(!breaker.open(second), "open already");
        assert_eq!(breaker.admit(), None);
        breaker.half_open(1);
        assert!(!breaker.open(second) && !breaker.reopen(second), "an old request says nothing about now");
    }

    #[test]
    fn every_trial_must_succeed() {
        let breaker = half_open(2);
        let (first, second) = (breaker.admit().unwrap(), breaker.admit().unwrap());
        assert_eq!(breaker.admit(), None, "no more than two");
        assert!(!breaker.succeed(first, || ()));
        assert!(breaker.succeed(second, || ()));
        assert_eq!(breaker.phase(), Phase::Closed);

        let breaker = half_open(2);
        let (first, second) = (breaker.admit().unwrap(), breaker.admit().unwrap());
        assert!(!breaker.succeed(first, || ()));
        assert!(breaker.reopen(second));
        assert_eq!(breaker.phase(), Phase::Open);
    }

    #[test]
    fn a_trial_without_a_verdict_lets_another_try() {
        let breaker = half_open(1);
        let pass = breaker.admit().unwrap();
        breaker.give_back(pass);
        assert!(breaker.admit().is_some());
    }

    #[test]
    fn workers_together_send_no_more_trials_than_allowed() {
        let breaker = half_open(100);
        let trials = AtomicU32::new(0);
        let closed = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some(pass) = breaker.admit().filter(|pass| pass.trial) {
                        trials.fetch_add(1, Relaxed);
                        closed.fetch_add(breaker.succeed(pass, || ()).into(), Relaxed);
                    }
                });
            }
        });
        assert_eq!((trials.into_inner(), closed.into_inner()), (100, 1));
        assert_eq!(breaker.phase(), Phase::Closed);
    }
}
