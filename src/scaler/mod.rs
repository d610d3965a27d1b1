//! Makes and removes replicas, as [`scale`](crate::scale) decides.
//!
//! It never sees a request: it reads numbers, asks drivers, and tells control which upstreams there are.

#[cfg(feature = "docker")]
pub mod docker;
mod driver;
pub mod fleet;
pub mod process;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod leader;

pub use driver::{Driver, DriverError, ErrorKind, Found, InstanceId, Life, Order, ScaleRequest, Usage, spec_hash};
pub use fleet::{Fleet, FleetSettings};
