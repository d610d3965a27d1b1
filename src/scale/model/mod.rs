//! The load model: how many instances the load asks for by the time they can be there.

use serde::{Deserialize, Serialize};

use super::{Observed, Settings, Terms};

/// What the load model remembers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Model {}

/// What the load asks for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Proposal {
    /// Instances wanted now, the short boost for the backlog included.
    pub up: u32,
    /// The fewest that may be left now: what the load, the hold and regret allow. As many as there are where nothing may go.
    pub down: u32,
    /// The fewest that would be left if the hold were over: those above it can be packed away in advance.
    pub soon: u32,
    /// The terms.
    pub terms: Terms,
    /// What decided: `level`, `trend`, `season`, `period`, `backlog`, `wake`, `idle`.
    pub reason: &'static str,
    /// What keeps it from shrinking: `hold`, `queue`, `incomplete`, `start_failures`; none where nothing does.
    pub held_by: Option<&'static str>,
    /// When it could shrink at the earliest.
    pub next_down_at: Option<f64>,
}

impl Model {
    /// Takes in what was seen and says what the load asks for, between `settings.min` and `settings.max`.
    pub fn step(&mut self, seen: &Observed, settings: &Settings, now: f64) -> Proposal {
        let _ = now;
        let current = seen.current().clamp(settings.min, settings.max);
        Proposal { up: current, down: current, soon: current, ..Proposal::default() }
    }
}
