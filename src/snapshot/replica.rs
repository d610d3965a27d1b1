use std::sync::Arc;
use std::time::Duration;

use crate::types::Address;

/// A member that the pool's scaler has made. Control makes members of replicas; the scaler says what is wanted of them, whole sets at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// The scaler's name for it: `tools-3`.
    pub id: Arc<str>,
    /// Where it is reached.
    pub address: Address,
    /// What is wanted of it.
    pub intent: Intent,
}

/// What a scaler wants of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// It takes requests as soon as it is fit.
    Serve,
    /// It takes requests only where nobody else has room: it is about to be drained. What is stuck to it stays.
    Cordon,
    /// No new requests. What runs may finish within the first span; clients that are stuck to it may come back within the second.
    Drain {
        /// For requests.
        requests: Duration,
        /// For sessions; never shorter in effect than that for requests.
        sessions: Duration,
    },
}
