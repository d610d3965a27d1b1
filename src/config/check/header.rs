//! Names and values of headers, and methods.

use http::{HeaderName, HeaderValue, Method};

use super::Check;
use crate::config::place::At;

/// What a connection and the framing of its messages are made of; a changed one would break them.
const OURS: [&str; 8] =
    ["connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

impl Check<'_> {
    /// The name of a header that is looked at.
    pub(super) fn header_name(&mut self, at: &At, name: &str) -> Option<HeaderName> {
        let parsed = name.parse().ok();
        if parsed.is_none() {
            let label = "expected a name such as \"X-Request-Id\"";
            self.report.error_at_key(at, format!("bad header name {name:?}"), label);
        }
        parsed
    }

    /// The name of a header that we send.
    pub(super) fn sent_header(&mut self, at: &At, name: &str) {
        let Some(name) = self.header_name(at, name) else { return };
        if OURS.contains(&name.as_str()) {
            let label = "it is written anew for each message";
            self.report.error_at_key(at, format!("the header `{name}` belongs to the connection"), label);
        }
    }

    /// A value of a header that we send.
    pub(super) fn header_value(&mut self, at: &At, value: &str) {
        if HeaderValue::from_str(value).is_err() {
            self.report.error(at, "bad header value", "expected text without line breaks and other control characters");
        }
    }

    pub(super) fn method(&mut self, at: &At, method: &str) {
        let parsed = Method::from_bytes(method.as_bytes());
        let upper = method.to_ascii_uppercase();
        let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
        if parsed.is_err() {
            self.report.error(at, format!("bad method {method:?}"), "expected a method such as \"GET\"");
        } else if upper != method && known.contains(&upper.as_str()) {
            let label = format!("did you mean \"{upper}\"? Methods are case-sensitive");
            self.report.error(at, format!("bad method {method:?}"), label);
        }
    }
}
