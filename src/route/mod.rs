//! Which route takes a request, and what it makes of its path and headers. Pure: no clock, no socket.

mod build;
mod condition;
mod hash;
pub mod host;
pub mod path;
mod pattern;
mod question;
mod rule;
mod table;
#[cfg(test)]
mod tests;
mod tree;

pub use host::{Host, HostError};
pub use path::{Path, PathError};
pub use pattern::{Condition, HostPattern, PathPattern, PatternError, Subject, ValuePattern};
pub use question::{Encoded, Question, cookies, parameters};
pub use rule::Rule;
mod stub;
pub use stub::*;
pub use table::{Match, Matched, Table};
