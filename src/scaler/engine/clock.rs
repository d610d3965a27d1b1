use std::time::{SystemTime, UNIX_EPOCH};

use crate::types::{Clock, Moment};

/// Seconds since 1970 as decisions know them: they follow the system's clock at the start and then only go on, whatever happens to it.
///
/// A system clock that is set while we run would otherwise fake a gap, or make windows run backwards. Schedules want the real time of day: where
/// the system's clock has moved by more than [`Wall::DRIFT`], [`Wall::drift`] says so, and a move forwards is followed.
#[derive(Debug)]
pub(super) struct Wall {
    /// What to add to the monotonic clock.
    offset: f64,
}

impl Wall {
    /// What the system's clock may be off by before it is told and followed.
    pub(super) const DRIFT: f64 = 5.0;

    /// In step with the system's clock.
    pub(super) fn new() -> Self {
        Wall { offset: system() - monotonic(Clock::now()) }
    }

    /// Now.
    pub(super) fn now(&self) -> f64 {
        self.at(Clock::now())
    }

    /// Then.
    pub(super) fn at(&self, moment: Moment) -> f64 {
        self.offset + monotonic(moment)
    }

    /// Follows the system's clock forwards; gives how far it is off where that is worth telling (negative: it was set back, which is not followed).
    pub(super) fn follow(&mut self) -> Option<f64> {
        let drift = system() - self.now();
        if drift > Self::DRIFT {
            self.offset += drift;
        }
        (drift.abs() > Self::DRIFT).then_some(drift)
    }
}

fn monotonic(moment: Moment) -> f64 {
    moment.nanos() as f64 / 1e9
}

fn system() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
