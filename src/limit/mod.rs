//! Whether a client may proceed: rate, requests and connections at once. Pure: the clock comes from the caller.

mod per;

pub use per::{Per, PerError};
