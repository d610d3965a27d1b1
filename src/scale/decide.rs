use serde::{Deserialize, Serialize};

use super::{Decision, Mode, Observed, Settings};

/// What a pool's scaler remembers from one decision to the next. Survives restarts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {}

/// How many instances there should be.
pub fn decide(seen: &Observed, state: &mut State, settings: &Settings, now: f64) -> Decision {
    let _ = state;
    let current = seen.current();
    let desired = current.clamp(settings.min, settings.max);
    Decision {
        at: now,
        current,
        raw: desired,
        wanted: desired,
        desired,
        apply: matches!(settings.mode, Mode::On | Mode::UpOnly),
        ..Decision::default()
    }
}
