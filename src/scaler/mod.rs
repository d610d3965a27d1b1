//! Makes and removes replicas, as [`scale`](crate::scale) decides.
//!
//! It never sees a request: it reads numbers, asks drivers, and tells control which upstreams there are.

mod driver;
pub mod fleet;
pub mod process;

pub use driver::{Driver, DriverError, ErrorKind, Found, InstanceId, Life, Order, ScaleRequest, Usage, spec_hash};
pub use fleet::{Fleet, FleetSettings};
pub use process::ProcessDriver;
