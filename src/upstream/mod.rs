//! The far side: where upstreams are, connections to them, and sending requests over those.
//!
//! [`Target`] says where one upstream is and how it is spoken to; it is immutable and lives in the snapshot. [`Connections`]
//! belongs to one worker and never leaves its thread: it connects, keeps idle connections, sends and reads. All that knows of
//! HTTP/1.1 (`http1`, ours) and HTTP/2 (`http2`, hyper's) is below this line.
//!
//! This room never chooses an upstream, never tries another one, and never edits headers beyond the framing of one message
//! (`Content-Length`, `Transfer-Encoding`, and for HTTP/2 `Host`): those are the caller's decisions.
//!
//! Why not hyper-util's `legacy::Client`: it shares one pool between threads behind a lock, boxes what it connects with, refuses
//! requests that came in as HTTP/2, and cannot tell whether an upstream may have seen a request that failed.

mod answer;
mod body;
mod connect;
mod connections;
mod counted;
mod error;
mod http1;
mod http2;
mod io;
mod outflow;
mod probe;
mod resolve;
mod target;
mod tls;
mod tunnel;
mod wire;

#[cfg(test)]
mod tests;

/// What must hold for any bytes, for [`crate::fuzzing`].
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod laws {
    pub(crate) use super::http1::{decode_law as decode, response_law as response};
}

pub use body::{BodyError, BodyErrorKind, UpstreamBody};
pub use connections::{Answer, Connections, Outgoing};
pub use error::{BadResponse, SendError, SendErrorKind};
pub use http1::Upgraded;
pub use outflow::RequestBody;
pub use probe::{InvalidProbe, Probe, ProbeFailure, probe};
pub use resolve::{Found, Lookup, LookupError, Resolution, Resolved, Service, SystemLookup, resolve, watch};
pub use target::{Place, Settings, Target};
pub use tls::{ClientTls, TlsError};
pub use tunnel::{Traffic, TunnelEnd, tunnel};
