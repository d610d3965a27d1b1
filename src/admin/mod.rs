//! The admin API: how a person or a script looks at a running Tidegate and changes what it does with its upstreams.
//!
//! | method and path | does |
//! |---|---|
//! | `GET /status` | everything that `tidegate status` shows |
//! | `GET /pools`, `GET /pools/{pool}` | the pools' part of it |
//! | `POST /pools/{pool}/upstreams/{address}/drain?deadline=30s&wait=true` | no new requests; what runs finishes, at the latest by then |
//! | `POST …/undrain`, `POST …/ready` | takes requests again |
//! | `POST …/maintenance` | out of use until called ready |
//! | `POST …/weight?value=N` | another weight until the next reload that changes it; without a value the configured one |
//! | `/scaler …` | how pools are scaled, and why: the table in [`scaling`] |
//! | `POST /reload` | reads the configuration again and answers with the verdict: 200, or 422 and the problems |
//! | `GET /config` | the configuration that runs, defaults filled in, secrets hidden |
//! | `GET /metrics` | the figures, for Prometheus |
//! | `GET /healthz`, `GET /readyz` | 200 while the process lives; while it takes requests |
//!
//! It never touches traffic: it asks control, through [`Control`], and control decides. Who may ask is in [`access`].
//!
//! Why not signals or a file to watch: neither can answer. Why not a protocol of its own: `curl` and Prometheus exist.

mod access;
mod api;
mod bound;
pub mod model;
pub mod scaling;
mod scaling_api;

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

pub use access::{Access, Token};
pub use bound::{BindError, Bound};
use model::{Status, UpstreamStatus, Verdict};

/// What the API asks of control. Cheap to clone; calls are answered by control's own loop, one after the other.
pub trait Control: Clone + Send + Sync + 'static {
    /// How everything is; nothing once control has ended.
    fn status(&self) -> impl Future<Output = Option<Status>> + Send;

    /// Changes what is done with one upstream and tells how it is then.
    ///
    /// **Errors**: there is no such pool or upstream, or the change is impossible.
    fn change(
        &self,
        pool: &str,
        upstream: &str,
        change: Change,
    ) -> impl Future<Output = Result<UpstreamStatus, ChangeError>> + Send;

    /// Asks the scaler for something; the answer's kind is the one that the question names.
    ///
    /// **Errors**: nothing scales that pool, or it cannot be done.
    fn scaler(&self, ask: scaling::Ask) -> impl Future<Output = Result<scaling::Answer, scaling::AskError>> + Send;

    /// Reads the configuration again; ready once it is in force or refused.
    fn reload(&self) -> impl Future<Output = Verdict> + Send;

    /// The configuration that runs, as `tidegate show` writes it, secrets hidden.
    fn config(&self) -> impl Future<Output = String> + Send;

    /// The metrics page.
    fn metrics(&self) -> impl Future<Output = Bytes> + Send;

    /// Whether requests are taken: started, and not on the way out.
    fn ready(&self) -> bool;
}

/// The largest weight, as in the configuration.
pub const MAX_WEIGHT: u32 = 1_000_000;

/// What can be done with an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// No new requests; what runs finishes within the deadline, the pool's `drain_timeout` unless given.
    Drain {
        /// From now.
        deadline: Option<Duration>,
    },
    /// Out of use.
    Maintenance,
    /// Back from a drain or from maintenance.
    Ready,
    /// Another weight; `None` for the configured one.
    Weight(Option<u32>),
}

/// Why an upstream could not be changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// No pool has this name.
    #[error("there is no pool `{0}`")]
    NoPool(String),
    /// The pool has no upstream of this address.
    #[error("pool `{pool}` has no upstream `{upstream}`")]
    NoUpstream {
        /// The pool.
        pool: String,
        /// The address asked for.
        upstream: String,
    },
    /// It is there, but this cannot be done with it now.
    #[error("{0}")]
    Impossible(String),
}
