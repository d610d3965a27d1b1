//! Which revision of the protocol a message is of, and which an upstream speaks.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::types::Moment;

/// The newest revision that we know.
pub const NEWEST: &str = "2026-07-28";

/// The revisions with sessions. Whatever else a client names is newer, as the SDKs see it.
pub const WITH_SESSIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// Asks a server which revisions it speaks; changes nothing. An older one refuses it.
pub const DISCOVER: &str = concat!(
    r#"{"jsonrpc":"2.0","id":"tidegate","method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
    r#""io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"tidegate","version":"1"}}}}"#
);

/// The two ways in which clients and servers speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// Up to 2025-11-25: `initialize`, sessions, a standing GET stream.
    Sessions,
    /// From 2026-07-28 on: each request stands by itself.
    Stateless,
}

impl Era {
    /// By the `MCP-Protocol-Version` header. Requests before 2025-06-18 have none.
    pub fn of(version: Option<&[u8]>) -> Self {
        match version {
            Some(version) if !WITH_SESSIONS.iter().any(|known| known.as_bytes() == version) => Era::Stateless,
            _ => Era::Sessions,
        }
    }
}

/// Whether an answer to a request of this era, with an error status, says that the server does not speak it. Nothing was done then.
///
/// An older server knows nothing of the newer era, and says what it says to any request out of order; `supported` is what a newer one names.
pub fn refuses(era: Era, status: u16, code: Option<i64>, supported: &[Cow<'_, str>]) -> bool {
    let speaks = |era| supported.iter().any(|version| Era::of(Some(version.as_bytes())) == era);
    match (era, code) {
        (_, Some(super::UNSUPPORTED_VERSION)) if !supported.is_empty() => !speaks(era),
        (Era::Stateless, None | Some(super::INVALID_REQUEST | -32000 | -32001)) => {
            matches!(status, 400 | 404 | 405 | 406)
        }
        (Era::Sessions, Some(super::UNSUPPORTED_VERSION)) => true,
        (Era::Sessions, Some(-32601 | super::HEADER_MISMATCH)) => matches!(status, 400 | 404),
        _ => false,
    }
}

/// A header's value as the message has it: where it is no plain text it comes as `=?base64?…?=`.
pub fn header_text(value: &[u8]) -> Option<Cow<'_, str>> {
    match value.strip_prefix(b"=?base64?").and_then(|rest| rest.strip_suffix(b"?=")) {
        Some(coded) => String::from_utf8(STANDARD.decode(coded).ok()?).ok().map(Cow::Owned),
        None => std::str::from_utf8(value).ok().map(Cow::Borrowed),
    }
}

/// What has been seen of the revisions an upstream speaks. Nothing is known at first; what is known is forgotten after a while and when
/// the upstream has been away, because another version may have come up in its place.
#[derive(Debug, Default)]
pub struct Spoken {
    /// Bit 0, 1: does not speak this era.
    refused: AtomicU8,
    since: AtomicU64,
}

/// How long a refusal is believed. Looking again costs one request that is sent on.
const BELIEVED: Duration = Duration::from_secs(15);

impl Spoken {
    /// Whether it is worth sending a request of this era there.
    pub fn may_speak(&self, era: Era, now: Moment) -> bool {
        self.refused.load(Relaxed) & bit(era) == 0 || now.since(Moment::from_nanos(self.since.load(Relaxed))) > BELIEVED
    }

    /// It has refused a request of this era.
    pub fn refused(&self, era: Era, now: Moment) {
        self.since.store(now.nanos(), Relaxed);
        self.refused.store(bit(era), Relaxed);
    }

    /// It has answered one, or has been away.
    pub fn forget(&self) {
        if self.refused.load(Relaxed) != 0 {
            self.refused.store(0, Relaxed);
        }
    }
}

fn bit(era: Era) -> u8 {
    match era {
        Era::Sessions => 1,
        Era::Stateless => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_nobody_knows_is_newer() {
        assert_eq!(Era::of(None), Era::Sessions);
        assert_eq!(Era::of(Some(b"2025-06-18")), Era::Sessions);
        assert_eq!(Era::of(Some(NEWEST.as_bytes())), Era::Stateless);
        assert_eq!(Era::of(Some(b"2030-01-01")), Era::Stateless);
    }

    #[test]
    fn who_does_not_speak_an_era_is_told_from_who_refuses_a_request() {
        let (old, new) = ([Cow::from("2025-11-25")], [Cow::from("2025-11-25"), Cow::from(NEWEST)]);
        for (era, status, code, supported, refused) in [
            // Python 1.x and TypeScript 1.x, asked without a session.
            (Era::Stateless, 400, Some(-32600), &[][..], true),
            (Era::Stateless, 400, Some(-32000), &[], true),
            (Era::Stateless, 400, Some(-32022), &old, true),
            (Era::Stateless, 400, Some(-32022), &new, false),
            (Era::Stateless, 404, Some(-32601), &[], false),
            (Era::Stateless, 400, Some(-32602), &[], false),
            (Era::Stateless, 400, Some(-32020), &[], false),
            (Era::Sessions, 400, Some(-32022), &[Cow::from(NEWEST)], true),
            (Era::Sessions, 404, Some(-32601), &[], true),
            (Era::Sessions, 400, Some(-32602), &[], false),
        ] {
            assert_eq!(refuses(era, status, code, supported), refused, "{era:?} {status} {code:?}");
        }
    }

    #[test]
    fn a_headers_text_is_decoded() {
        assert_eq!(header_text(b"add").as_deref(), Some("add"));
        assert_eq!(header_text("=?base64?w6TDtg==?=".as_bytes()).as_deref(), Some("äö"));
        assert_eq!(header_text(b"=?base64?*?="), None);
    }

    #[test]
    fn a_refusal_is_believed_for_a_while() {
        let spoken = Spoken::default();
        let now = Moment::START + Duration::from_secs(100);
        assert!(spoken.may_speak(Era::Stateless, now));
        spoken.refused(Era::Stateless, now);
        assert!(!spoken.may_speak(Era::Stateless, now + Duration::from_secs(1)));
        assert!(spoken.may_speak(Era::Sessions, now));
        assert!(spoken.may_speak(Era::Stateless, now + BELIEVED * 2));
        spoken.refused(Era::Sessions, now);
        spoken.forget();
        assert!(spoken.may_speak(Era::Sessions, now));
    }
}
