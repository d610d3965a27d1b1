//! Request smuggling and response splitting: the attacks' own bytes in, and what arrives at the other side's socket.
//!
//! `malformed.rs` asks whether what is wrong is refused, and how. This asks whether anything has two meanings: each row of a table
//! goes whole and byte by byte, another request behind it, to an upstream that reads as strictly as the standard lets it, and either
//! exactly one message arrives there, of exactly this meaning, or none does and the connection ends.

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod downgrade;
mod recorder;
mod requests;
mod table;
