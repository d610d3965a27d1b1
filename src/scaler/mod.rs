//! Makes and removes replicas, as [`scale`](crate::scale) decides.
//!
//! It never sees a request: it reads numbers, asks drivers, and tells control which upstreams there are.

#[cfg(feature = "docker")]
pub mod docker;
mod driver;
pub(crate) mod engine;
pub mod fleet;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod leader;
pub mod process;
mod store;

pub use driver::{Driver, DriverError, ErrorKind, Found, InstanceId, Life, Order, ScaleRequest, Usage, spec_hash};
pub use fleet::{Fleet, FleetSettings};
pub use leader::{Alone, Election, ElectionError, FileLock, Standing, identity};
pub use store::{Store, StoreError};
