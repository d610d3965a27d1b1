//! Whether an upstream is fit to take requests.
//!
//! Two halves that meet in a few atomics. **Workers** say how each request went: [`Outcomes::admit`] before it,
//! [`Outcomes::record`] after it; both are a load or two while all is well, and a worker learns by a [`Trip`] that
//! control should look. **Control**, the single writer, keeps a [`Standing`] for each upstream: what people want of it,
//! what checks say, whether it is ejected, what its circuit breaker does. After each event it gets a [`Change`] to log,
//! and makes the pool's [`Lineup`] anew for the next snapshot.
//!
//! Never here: a clock, a probe, a task, a lock. Trips are hints, not facts: control reads what is so from [`Outcomes`]
//! whenever it [ticks](Standing::tick), so that a trip that comes late, twice, in the wrong order or never makes a
//! difference of at most one tick.
//!
//! **Why not decide in the worker** that sees the failure, as NGINX does: it sees its own requests and not the pool, so
//! it cannot keep the last upstreams in, and every worker would eject on its own count.
//!
//! **Why not one health score** of everything: people ask "why is it down?", and want one of four answers, with its
//! numbers.

mod breaker;
mod checks;
mod ejection;
mod lineup;
mod outcomes;
mod policy;
mod reason;
mod slow_start;
mod standing;
mod window;

#[cfg(test)]
mod simulation;

pub use breaker::{Pass, Phase};
pub use checks::Checks;
pub use ejection::{Crowd, Ejection};
pub use lineup::{Fitness, Lineup, Use, fit};
pub use outcomes::{Outcome, Outcomes, Trip};
pub use policy::{BreakerPolicy, EjectPolicy, Policy, Thresholds};
pub use reason::{Change, Reason};
pub use standing::{Standing, State};
