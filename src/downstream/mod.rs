//! The near side: listening, accepting, TLS, PROXY protocol, serving HTTP/1 and HTTP/2, timeouts, drain.
//!
//! A [`Bound`] has the sockets of one address; each worker opens a [`Door`] on its own, which accepts and serves connections as
//! local tasks until it is drained. What answers is an [`Application`]; it gets each request with its [`Connection`], and is asked
//! for the [`Terms`] of the next connection, so a reload reaches new connections without touching old ones.
//!
//! ```text
//!                             ┌▶ lane: plain HTTP/1.1 requests ─────┐
//!  socket ─▶ Wire ─▶ (TLS) ─▶ ┤    ▼ from the first other one on     ├▶ Application::answer
//!            bytes,           └▶ Gate ─▶ hyper ─▶ service ──────────┘
//!            progress            whole,           numbers, busy,
//!               │                checked heads    panics, refusals
//!               └──── Pulse ─────┴────────────────┴──▶ Watch: one deadline, moved along
//! ```
//!
//! Nothing here routes, knows upstreams, or makes an answer: even what the head guard refuses is answered by the application's
//! refusal table. Nothing here reads files: certificates come as PEM text.
//!
//! Why hyper's connections driven by hand and not `hyper-util`'s server: its timers arm and disarm for each request, it has no
//! place for our one deadline per connection, and its protocol detection costs an extra read.

mod activity;
mod application;
mod attend;
mod bind;
mod certificate;
mod chunked;
mod client_body;
mod connection;
mod door;
mod gate;
mod guard;
mod http1;
mod http2;
mod inherited;
mod lane;
mod line;
mod objection;
mod proxy_header;
mod pulse;
mod roster;
mod seats;
mod service;
mod share;
mod socket;
mod stock;
mod terms;
mod tls;
mod turnstile;
mod watch;

#[cfg(test)]
mod tests;

/// What must hold for any bytes, for [`crate::fuzzing`].
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod laws {
    pub(crate) use super::chunked::law as chunked;
    pub(crate) use super::guard::law as guard;
    pub(crate) use super::lane::law as plain;
    pub(crate) use super::proxy_header::law as proxy_header;
}

pub use activity::{Busy, Held};
pub use application::{Application, Event};
pub use bind::{BindError, Bound, Socket, SocketFile, bind, rebind};
pub use certificate::{Certificates, Pair, Shown};
pub use client_body::{ClientBody, ClientBodyError};
pub use connection::{Connection, Peer};
pub use door::Door;
pub use gate::Gate;
pub use guard::HeadLimits;
pub use inherited::Inherited;
pub use objection::Objection;
pub use proxy_header::ProxyHeaderError;
pub use seats::Seats;
pub use share::Share;
pub use terms::Terms;
pub use tls::{HandshakeError, TlsError, TlsFacts, TlsSettings, TlsTerms};
