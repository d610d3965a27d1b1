//! Tidegate.
pub mod admin;
pub mod balance;
pub mod cli;
pub mod config;
pub mod control;
pub mod downstream;
pub mod health;
pub mod limit;
pub mod proxy;
pub mod retry;
pub mod route;
pub mod snapshot;
pub mod sweep;
pub mod telemetry;
pub mod types;
pub mod upstream;
