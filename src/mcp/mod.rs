//! The Model Context Protocol: what a message is, which era it is of, where its session is, what may be asked how often, and what is said
//! where an upstream cannot say it.
//!
//! Everything here decides; [`proxy`](crate::proxy) acts. No socket, no clock, no task. When the protocol changes, this is the room to change.

pub mod answer;
pub mod cache;
pub mod era;
mod json;
pub mod limits;
pub mod names;
pub mod peek;
pub mod seal;
mod sessions;
pub mod sse;

#[cfg(test)]
mod samples;

pub use era::Era;
pub use seal::{Keys, Session};
pub use sessions::{Live, Open, Place, Sessions, Soft};

/// JSON-RPC: the text is not JSON.
pub const PARSE_ERROR: i64 = -32700;
/// JSON-RPC: it is JSON and no message.
pub const INVALID_REQUEST: i64 = -32600;
/// MCP 2026-07-28: headers and message disagree.
pub const HEADER_MISMATCH: i64 = -32020;
/// MCP 2026-07-28: the server does not speak the revision.
pub const UNSUPPORTED_VERSION: i64 = -32022;

/// Whether doing what a method asks twice is the same as doing it once.
pub fn is_repeatable(method: &str) -> bool {
    matches!(
        method,
        "server/discover"
            | "initialize"
            | "ping"
            | "tools/list"
            | "prompts/list"
            | "prompts/get"
            | "resources/list"
            | "resources/templates/list"
            | "resources/read"
            | "resources/subscribe"
            | "resources/unsubscribe"
            | "logging/setLevel"
            | "completion/complete"
            | "tasks/get"
            | "tasks/list"
            | "subscriptions/listen"
    )
}
