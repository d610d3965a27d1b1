//! Whether a client may proceed: rate, requests and connections at once. Pure: the clock comes from the caller.
//!
//! A [`Limiter`] is one rule with its table of clients. [`Limiter::admit`] looks the client up once, decides while the table's
//! shard is locked (some tens of nanoseconds, never across an await) and answers with a [`Permit`] that gives back what it
//! holds when it is dropped, which is when the response's body ends. [`admit_all`] asks several limiters as one.
//! [`ConnectionLimiter`] does the same for connections at accept.
//!
//! **Rate** is GCRA (the virtual scheduling form of ITU-T I.371): one number per client, the moment from which it owes nothing.
//! In no stretch of time are more than `burst + 1 + rate × time` requests let through, whatever threads and delays do.
//!
//! Nothing here knows what a route, a status or a header's name means, reads a clock, or waits: a delay is a number that the
//! caller waits out.
//!
//! Why not a window counter: two bursts on either side of its border are twice the limit. Why not a semaphore per client: it
//! queues without bound and cannot say `Retry-After`. Why not compare-and-swap on atomics instead of the short lock: rate,
//! requests and connections could then not be decided as one, and a refusal by one would have to undo the others in sight of
//! other threads.

mod connection;
mod key;
mod limiter;
mod pace;
mod per;
mod permit;
mod table;

pub use connection::{ConnectionLimiter, ConnectionPermit};
pub use key::ClientKey;
pub use limiter::{Admission, Decision, Limiter, Reason, Refusal, Rule, Who, admit_all, admit_keys};
pub use pace::Standing;
pub use per::{Per, PerError};
pub use permit::{ConnectionSeats, Permit};
