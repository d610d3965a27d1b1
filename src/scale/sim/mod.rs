//! Playing a load against a scaler, request by request.
//!
//! A [`Workload`] is what comes, a [`World`] what instances are like, a [`Contestant`] whoever says how many there should be: the production
//! decision ([`Ours`]) or somebody it is compared with. [`run`] plays them together and says what it cost and what it was worth ([`Outcome`]).
//! The same seed gives the same requests, demands and start-up times to everybody, so that differences are the contestants' own.
//!
//! ```
//! use tidegate::scale::{Profile, Settings, sim};
//!
//! let load = sim::Workload::of_rates(&sim::traces::flash(600), sim::Service::default(), 1);
//! let world = sim::World { max: 40, startup: 5.0, ..sim::World::default() };
//! let ours = sim::run(&load, &world, &mut sim::Ours::new(Settings { max: 40, ..Settings::of_profile(Profile::Balanced) }));
//! let hpa = sim::run(&load, &world, &mut sim::Hpa::cpu(0.7));
//! assert!(ours.violations() < hpa.violations());
//! ```
//!
//! Time goes from event to event, not in steps: what is measured is exact, and agrees with Erlang's formula where that holds.

mod contestant;
mod engine;
mod hpa;
mod kpa;
mod others;
mod outcome;
mod random;
pub mod traces;
mod workload;
mod world;

#[cfg(test)]
mod laws;

pub use contestant::{Contestant, Ours, Victims, View};
pub use engine::{Member, Second, run};
pub use hpa::{Gauge, Hpa};
pub use kpa::Kpa;
pub use others::{Fixed, RayServe, StepPolicy, TargetTracking};
pub use outcome::Outcome;
pub use workload::{Request, Service, Step, Workload};
pub use world::World;
