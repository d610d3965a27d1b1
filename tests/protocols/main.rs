//! What is spoken on both sides: TLS, HTTP/2, upgrades, streams, sockets of all kinds.

#[path = "../support/mod.rs"]
mod support;

mod drain;
mod edge;
mod http2;
mod stream;
mod tls;
mod upgrade;
