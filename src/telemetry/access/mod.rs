//! The access log: one line for each finished request.
//!
//! A worker writes the line's bytes into its own [`LineBuffer`], which hands them on at 64 KiB or when the worker ticks; one thread
//! writes them to the target. A worker never waits for it: when the target is too slow, full or broken, lines are dropped and
//! counted.
//!
//! Nothing of a request can forge a line: text is escaped as NGINX does (`\x0A`), or as JSON wants it.
//!
//! Why not `tracing` or a log crate's appender: an event costs more than the rest of the request's own work, and their bounded
//! writers either block or lose without counting.

mod buffer;
mod clock;
mod escape;
mod format;
mod line;
mod writer;

pub use buffer::LineBuffer;
pub use format::{Format, FormatError};
pub use line::Line;
pub use writer::{AccessLog, Target};
