//! The only writer of snapshots: what changes them comes in as an [`Event`], one after the other.
//!
//! Control never stands in the way of a request: workers read what it has published and send it news, and neither waits for the other.
//! Why not let whoever knows of a change write it (a lock around the tables, or one swap for each kind of table): two writers need an
//! order, and then a request can see half of a change.

mod access;
mod api;
mod bridge;
mod derive;
mod event;
mod handle;
mod jwks;
mod listeners;
mod log;
mod names;
mod pool;
mod probing;
mod reload;
mod replicas;
mod scaling;
mod sealing_key;
mod signal;
mod start;
mod state;
mod status;
mod systemd;
mod user;
mod watch;
mod workers;

pub(crate) use derive::rewrite;
pub use event::Event;
pub use handle::Handle;
pub use start::{Options, Running, StartError, start};
