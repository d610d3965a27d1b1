//! Makes and removes replicas, as [`scale`](crate::scale) decides.
//!
//! It never sees a request: it reads numbers, asks drivers, and tells control which upstreams there are.

mod driver;
mod leader;
mod store;

pub use driver::{Driver, DriverError, ErrorKind, Found, InstanceId, Life, Order, ScaleRequest, Usage, spec_hash};
pub use leader::{Alone, Election, ElectionError, FileLock, Standing, identity};
pub use store::{Store, StoreError};
