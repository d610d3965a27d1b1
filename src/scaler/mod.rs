//! Makes and removes replicas, as [`scale`](crate::scale) decides.
//!
//! It never sees a request: it reads numbers, asks drivers, and tells control which upstreams there are.

mod driver;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod leader;

pub use driver::{Driver, DriverError, ErrorKind, Found, InstanceId, Life, Order, ScaleRequest, Usage, spec_hash};
