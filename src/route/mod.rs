//! Which route takes a request, and what it makes of its path and headers. Pure: no clock, no socket.

mod pattern;

pub use pattern::{Condition, HostPattern, PathPattern, PatternError, Subject, ValuePattern};
