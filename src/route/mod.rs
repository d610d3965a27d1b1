//! Which route takes a request, and what it makes of its path and headers. Pure: no clock, no socket.

pub mod host;
pub mod path;
mod pattern;

pub use host::{Host, HostError};
pub use path::{Path, PathError};
pub use pattern::{Condition, HostPattern, PathPattern, PatternError, Subject, ValuePattern};
