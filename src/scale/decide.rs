use serde::{Deserialize, Serialize};

use super::model::Model;
use super::rules::Memory;
use super::{Decision, Mode, Observed, Settings};

/// What a pool's scaler remembers from one decision to the next. Survives restarts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    model: Model,
    rules: Memory,
}

/// How many instances there should be.
pub fn decide(seen: &Observed, state: &mut State, settings: &Settings, now: f64) -> Decision {
    let current = seen.current();
    let proposal = state.model.step(seen, settings, now);
    let wanted = if proposal.up > current { proposal.up } else { proposal.down.min(current) };
    let desired = wanted.clamp(settings.min, settings.max);
    Decision {
        at: now,
        current,
        raw: proposal.up,
        wanted,
        desired,
        apply: matches!(settings.mode, Mode::On | Mode::UpOnly),
        cordon: current.saturating_sub(proposal.soon.max(settings.min)),
        reason: proposal.reason.to_owned(),
        terms: proposal.terms,
        next_down_at: proposal.next_down_at,
        ..Decision::default()
    }
}
