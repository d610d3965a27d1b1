//! What is counted, what it is called, and what is written down of each request.
//!
//! **Counting.** Each worker writes its own [`Lane`] of every [`Stats`] with plain loads and stores; a scrape sums the lanes. The
//! [`Registry`] hands the stats out by name when a snapshot is made, and keeps them over reloads.
//!
//! Nothing here decides anything, and nothing in the request path takes a lock, looks a name up or formats.
//!
//! Why not the `prometheus` crate's counters: 21–29 ns each and a hash over the labels (measured), against half a nanosecond.
//! The crate is used where it is good: as the model and the text form of a scrape.

pub mod access;
mod count;
mod histogram;
mod kind;
mod lane;
mod mcp;
mod page;
mod process;
mod registry;
mod scaler;
mod series;
mod stats;

pub use count::{ByKind, Classes, Counter, Counters, Figure, Gauge, Kind};
pub use histogram::{Distribution, Histogram};
pub use kind::{Closed, Fault, Outcome, Waited};
pub use lane::{Lane, PerWorker};
pub use mcp::{McpError, McpLane, McpPool, method_number};
pub use page::{CONTENT_TYPE, Metrics};
pub use process::Process;
pub use registry::Registry;
pub use scaler::{PoolFigures, ScalerFigures};
pub(crate) use series::Series;
pub use series::{METRICS, Metric, reference};
pub use stats::*;
