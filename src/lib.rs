//! Tidegate: a layer-7 reverse proxy and load balancer.
//!
//! Ground floor first; imports go down only. `ARCHITECTURE.md` is the map with the reasons.
//!
//! | floor | rooms |
//! |---|---|
//! | words | [`types`] |
//! | decide: pure, told the time | [`balance`], [`limit`], [`health`], [`retry`], [`route`], [`scale`], [`access`], [`mcp`], [`config`] |
//! | remember | [`telemetry`], [`snapshot`], [`sweep`] |
//! | act | [`upstream`] (the far side), [`downstream`] (the near side), [`proxy`] (a request's life), [`scaler`] (makes and removes replicas), [`stdio`] (bridges MCP servers), [`admin`], [`control`] (the one writer) |
//! | people | [`cli`] |
//!
//! To run it inside another program, see [`control::start`].

pub mod types;

#[cfg(any(test, feature = "fuzzing"))]
mod judge;

pub mod balance;

pub mod limit;

pub mod health;

pub mod retry;

pub mod route;

pub mod scale;

pub mod mcp;

pub mod access;

pub mod config;

pub mod telemetry;

pub mod snapshot;

pub mod sweep;

mod socket;

pub mod upstream;

pub mod downstream;

pub mod proxy;

pub mod scaler;

pub mod stdio;

pub mod admin;

pub mod control;

pub mod cli;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
