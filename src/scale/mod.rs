//! How many upstreams should there be?
//!
//! [`decide`] answers that for one pool, once a second: from what the proxy itself has seen ([`Observed`]), what it remembers ([`State`]) and
//! what the operator wants ([`Settings`]). It knows no clock, no socket and no task, so that the simulator and the tests run the very code
//! that scales production; every term of a decision is in its [`Decision`].

mod decide;
mod decision;
mod model;
mod observed;
pub mod plan;
mod profile;
mod rules;
mod settings;
pub mod sim;
mod word;

pub use decide::{State, decide};
pub use decision::{Decision, Limit, Source, Terms};
pub use model::Proposal;
pub use observed::{Instance, Observed, Phase};
pub use rules::{ScheduleError, check_schedule};
pub use settings::{Capacity, Headroom, Hold, Policy, Rules, Schedule, Settings, Signal, SignalTarget, Slo, Verify};
pub use word::{
    Adjust, Amount, Comparison, Condition, LeaderKind, Metric, Mode, Pace, Paces, Profile, Select, StopSignal, Target,
    VictimOrder, WordError,
};
