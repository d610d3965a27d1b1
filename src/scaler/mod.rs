//! Makes and removes replicas, as [`scale`](crate::scale) decides.
//!
//! It never sees a request: it reads numbers, asks drivers, and tells control which upstreams there are.

#[cfg(feature = "docker")]
pub mod docker;
mod driver;
pub(crate) mod engine;
mod exec;
mod external;
pub mod fleet;
mod hook;
mod http;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod leader;
mod notify;
mod peers;
pub mod process;
mod store;
mod systemd;
mod webhook;

pub use driver::{Driver, DriverError, ErrorKind, Found, InstanceId, Life, Order, ScaleRequest, Usage, spec_hash};
pub use exec::{Exec, Program};
pub use external::External;
pub use fleet::{Fleet, FleetSettings};
pub use hook::{Carrier, Hook};
pub use http::HttpClient;
pub use leader::{Alone, Election, ElectionError, FileLock, RedisLock, Standing, identity};
pub use notify::{Event, Notifier, Watch};
pub use peers::{Heard, Peers, PoolHeard};
pub use process::ProcessDriver;
pub use store::{Store, StoreError};
pub use systemd::Systemd;
pub use webhook::{Post, Webhook};
