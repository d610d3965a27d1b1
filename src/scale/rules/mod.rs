//! What operators have said beside the load: signals, threshold policies, schedules, and how fast the number may change.

use serde::{Deserialize, Serialize};

/// What the rules remember.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {}
