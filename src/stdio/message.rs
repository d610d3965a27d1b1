//! JSON-RPC messages: what is looked at of them, and how ids are exchanged without touching the rest.
//!
//! A message stays the text it came as; of its members only the places are known. What nobody has to understand, unknown members and the
//! precision of numbers included, passes unchanged. Why not `serde_json::Value`: it rounds numbers, sorts members and costs a tree for each
//! message of up to 16 MiB.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The text cannot be read as JSON.
pub(super) const PARSE_ERROR: i64 = -32700;
/// It is JSON, but not a message that can be taken.
pub(super) const INVALID_REQUEST: i64 = -32600;
pub(super) const METHOD_NOT_FOUND: i64 = -32601;
pub(super) const INTERNAL_ERROR: i64 = -32603;
/// What the SDKs answer for a session that is not there.
pub(super) const NO_SESSION: i64 = -32001;
/// 2026-07-28: headers and body differ.
pub(super) const HEADER_MISMATCH: i64 = -32020;
pub(super) const UNSUPPORTED_VERSION: i64 = -32022;

/// The stateless revision.
pub(super) const MODERN: &str = "2026-07-28";
/// Those that begin with `initialize`, newest first.
pub(super) const LEGACY: &[&str] = &["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

type Span = Range<usize>;

/// A request, notification or response on one line.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) text: Bytes,
    pub(super) kind: Kind,
    /// Empty for a response.
    pub(super) method: String,
    id: Option<Span>,
    params: Option<Span>,
    result: Option<Span>,
    error: Option<Span>,
    request: Option<Span>,
    token: Option<Span>,
    progress: Option<Span>,
    subscription: Option<Span>,
    version: Option<Span>,
    meta_version: Option<Span>,
    uri: Option<Span>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Request,
    Notification,
    Response,
}

/// Why a text is no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: i64,
    pub(super) what: String,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    jsonrpc: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Body<'a> {
    #[serde(borrow, rename = "_meta")]
    meta: Option<&'a RawValue>,
    #[serde(borrow, rename = "requestId")]
    request: Option<&'a RawValue>,
    #[serde(borrow, rename = "progressToken")]
    token: Option<&'a RawValue>,
    #[serde(borrow, rename = "protocolVersion")]
    version: Option<&'a RawValue>,
    #[serde(borrow)]
    uri: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Meta<'a> {
    #[serde(borrow, rename = "progressToken")]
    token: Option<&'a RawValue>,
    #[serde(borrow, rename = "io.modelcontextprotocol/subscriptionId")]
    subscription: Option<&'a RawValue>,
    #[serde(borrow, rename = "io.modelcontextprotocol/protocolVersion")]
    version: Option<&'a RawValue>,
}

/// A member that is there, also where it is `null`.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

impl Message {
    /// Reads one message.
    ///
    /// **Errors**: -32700 where it is no JSON, -32600 where it is no message, or a member that matters is there twice.
    pub(super) fn parse(text: Bytes) -> Result<Message, Fault> {
        let text = on_one_line(text);
        if !text.trim_ascii_start().starts_with(b"{") {
            return Err(unlike(&text));
        }
        let envelope: Envelope<'_> = serde_json::from_slice(&text).map_err(|error| fault(&error))?;
        let invalid = |what: &str| Err(Fault { code: INVALID_REQUEST, what: what.to_owned() });
        if envelope.jsonrpc.as_deref() != Some("2.0") {
            return invalid("`jsonrpc` must be \"2.0\"");
        }
        let has_id = envelope.id.is_some_and(|id| id.get().starts_with(|c: char| matches!(c, '"' | '-' | '0'..='9')));
        let kind = match (&envelope.method, envelope.id, envelope.result.is_some() || envelope.error.is_some()) {
            (Some(_), Some(_), false) if has_id => Kind::Request,
            (Some(_), None, false) => Kind::Notification,
            (None, Some(_), true) if has_id => Kind::Response,
            (_, Some(_), _) if !has_id => return invalid("`id` must be a string or a number"),
            _ => return invalid("it is neither a request nor a notification nor a response"),
        };
        let body: Body<'_> = members(envelope.params.or(envelope.result))?;
        let meta: Meta<'_> = members(body.meta)?;
        let span = |raw: Option<&RawValue>| raw.map(|raw| place(&text, raw));
        Ok(Message {
            kind,
            id: span(envelope.id),
            params: span(envelope.params),
            result: span(envelope.result),
            error: span(envelope.error),
            request: span(body.request),
            token: span(meta.token),
            progress: span(body.token),
            subscription: span(meta.subscription),
            version: span(body.version),
            meta_version: span(meta.version),
            uri: span(body.uri),
            method: envelope.method.unwrap_or_default().into_owned(),
            text,
        })
    }

    fn at(&self, span: Option<&Span>) -> Option<&str> {
        std::str::from_utf8(&self.text[span?.clone()]).ok()
    }

    /// As it is written: with quotation marks where it is a string.
    pub(super) fn id(&self) -> &str {
        self.at(self.id.as_ref()).unwrap_or("null")
    }

    /// The id, where it is one of ours.
    pub(super) fn number(&self) -> Option<u64> {
        self.id().parse().ok()
    }

    pub(super) fn params(&self) -> Option<&str> {
        self.at(self.params.as_ref())
    }

    pub(super) fn result(&self) -> Option<&str> {
        self.at(self.result.as_ref())
    }

    /// The code of a response that is an error.
    pub(super) fn error_code(&self) -> Option<i64> {
        #[derive(Deserialize)]
        struct Code {
            code: i64,
        }
        serde_json::from_str::<Code>(self.at(self.error.as_ref())?).ok().map(|error| error.code)
    }

    /// Whose cancelling this is: `params.requestId`.
    pub(super) fn request(&self) -> Option<&str> {
        self.at(self.request.as_ref())
    }

    /// By what a request's progress is to be known: `params._meta.progressToken`.
    pub(super) fn token(&self) -> Option<&str> {
        self.at(self.token.as_ref())
    }

    /// Whose progress a notification tells: `params.progressToken`.
    pub(super) fn progress(&self) -> Option<&str> {
        self.at(self.progress.as_ref())
    }

    /// To whose `subscriptions/listen` it belongs, in the stateless revision.
    pub(super) fn subscription(&self) -> Option<&str> {
        self.at(self.subscription.as_ref())
    }

    /// `protocolVersion` of an `initialize` or of its result.
    pub(super) fn version(&self) -> Option<String> {
        string(self.at(self.version.as_ref())?)
    }

    /// The version in the stateless revision's `_meta`.
    pub(super) fn meta_version(&self) -> Option<String> {
        string(self.at(self.meta_version.as_ref())?)
    }

    pub(super) fn uri(&self) -> Option<String> {
        string(self.at(self.uri.as_ref())?)
    }

    /// With another id.
    pub(super) fn with_id(&self, id: &str) -> Bytes {
        self.with(&mut [(&self.id, id)])
    }

    /// With another id, which is also its token, where it has one.
    pub(super) fn renumbered(&self, id: &str) -> Bytes {
        self.with(&mut [(&self.id, id), (&self.token, id)])
    }

    /// With its owner's id again, also where the result repeats it.
    pub(super) fn answered(&self, id: &str) -> Bytes {
        self.with(&mut [(&self.id, id), (&self.subscription, id)])
    }

    pub(super) fn with_request(&self, id: &str) -> Bytes {
        self.with(&mut [(&self.request, id)])
    }

    pub(super) fn with_progress(&self, token: &str) -> Bytes {
        self.with(&mut [(&self.progress, token)])
    }

    pub(super) fn with_subscription(&self, id: &str) -> Bytes {
        self.with(&mut [(&self.subscription, id)])
    }

    /// The result of an `initialize` for a client that has asked for another version.
    pub(super) fn result_with_version(&self, version: &str) -> String {
        let quoted = quoted(version);
        let Some(result) = self.result.clone() else { return "{}".to_owned() };
        let Some(place) = self.version.clone() else { return self.result().unwrap_or("{}").to_owned() };
        let text = |span: Span| String::from_utf8_lossy(&self.text[span]).into_owned();
        format!("{}{quoted}{}", text(result.start..place.start), text(place.end..result.end))
    }

    fn with(&self, edits: &mut [(&Option<Span>, &str)]) -> Bytes {
        edits.sort_by_key(|(span, _)| span.as_ref().map(|span| span.start));
        let mut text = Vec::with_capacity(self.text.len() + 32);
        let mut from = 0;
        for (span, value) in edits {
            let Some(span) = span else { continue };
            text.extend_from_slice(&self.text[from..span.start]);
            text.extend_from_slice(value.as_bytes());
            from = span.end;
        }
        text.extend_from_slice(&self.text[from..]);
        text.into()
    }
}

/// The members of what is an object; nothing of what is something else.
fn members<'a, T: Deserialize<'a> + Default>(raw: Option<&'a RawValue>) -> Result<T, Fault> {
    match raw.filter(|raw| raw.get().starts_with('{')) {
        Some(raw) => serde_json::from_str(raw.get()).map_err(|error| fault(&error)),
        None => Ok(T::default()),
    }
}

fn place(text: &Bytes, raw: &RawValue) -> Span {
    let start = raw.get().as_ptr() as usize - text.as_ptr() as usize;
    start..start + raw.get().len()
}

/// Line ends are blanks between JSON's words and cannot be within them.
fn on_one_line(text: Bytes) -> Bytes {
    if memchr::memchr2(b'\n', b'\r', &text).is_none() {
        return text;
    }
    let blank = |byte: &u8| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte };
    text.iter().map(blank).collect::<Vec<u8>>().into()
}

fn fault(error: &serde_json::Error) -> Fault {
    let code = if error.is_data() { INVALID_REQUEST } else { PARSE_ERROR };
    Fault { code, what: error.to_string() }
}

/// Why what is no object is no message.
fn unlike(text: &[u8]) -> Fault {
    match serde_json::from_slice::<serde::de::IgnoredAny>(text) {
        Err(error) => Fault { code: PARSE_ERROR, what: error.to_string() },
        Ok(_) => Fault {
            code: INVALID_REQUEST,
            what: "a message is one JSON object; send the members of a batch one by one".to_owned(),
        },
    }
}

fn string(raw: &str) -> Option<String> {
    serde_json::from_str(raw).ok()
}

/// As a JSON string.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A response that is an error. `id` as it is written; `data` is JSON.
pub(super) fn error(id: &str, code: i64, what: &str, data: Option<&str>) -> Bytes {
    let data = data.map(|data| format!(r#","data":{data}"#)).unwrap_or_default();
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{}{data}}}}}"#, quoted(what)).into()
}

/// A response with a result, which is JSON.
pub(super) fn result(id: &str, result: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#).into()
}

/// A request of our own. `params` is JSON.
pub(super) fn request(id: u64, method: &str, params: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{},"params":{params}}}"#, quoted(method)).into()
}

/// Tells the server that nobody waits for an answer any more.
pub(super) fn cancelled(id: u64) -> Bytes {
    let reason = "the client has gone";
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},"reason":"{reason}"}}}}"#
    )
    .into()
}

/// The version for a client that asks for `requested` of a server that speaks `agreed`: its own, where the server's is a later one.
pub(super) fn negotiated<'a>(requested: &'a str, agreed: &'a str) -> &'a str {
    // They are dates: the order of the texts is that of the versions.
    if LEGACY.contains(&requested) && requested < agreed { requested } else { agreed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &'static str) -> Message {
        Message::parse(text.into()).unwrap_or_else(|fault| panic!("{text}: {fault:?}"))
    }

    #[test]
    fn only_ids_and_tokens_change() {
        let call = parse(
            r#"{"jsonrpc":"2.0", "id" : "a\"b","method":"tools/call","params":{"n":1.0e2,"_meta":{"progressToken":"a\"b"},"id":9},"x":12345678901234567890123}"#,
        );
        assert_eq!((call.kind, call.method.as_str(), call.id()), (Kind::Request, "tools/call", r#""a\"b""#));
        assert_eq!(
            call.renumbered("7"),
            r#"{"jsonrpc":"2.0", "id" : 7,"method":"tools/call","params":{"n":1.0e2,"_meta":{"progressToken":7},"id":9},"x":12345678901234567890123}"#
        );
        let before = parse(r#"{"params":{"_meta":{"progressToken":1}},"method":"m","jsonrpc":"2.0","id":1}"#);
        assert_eq!(
            before.renumbered("20"),
            r#"{"params":{"_meta":{"progressToken":20}},"method":"m","jsonrpc":"2.0","id":20}"#
        );
    }

    #[test]
    fn kinds_are_told() {
        assert_eq!(parse(r#"{"jsonrpc":"2.0","method":"x"}"#).kind, Kind::Notification);
        assert_eq!(parse(r#"{"jsonrpc":"2.0","id":0,"result":null}"#).kind, Kind::Response);
        let error = parse(r#"{"jsonrpc":"2.0","id":3,"error":{"code":-32601,"message":"no"}}"#);
        assert_eq!((error.kind, error.error_code(), error.number()), (Kind::Response, Some(METHOD_NOT_FOUND), Some(3)));
    }

    #[test]
    fn what_is_no_message_is_told_apart() {
        let code = |text: &'static str| Message::parse(text.into()).expect_err(text).code;
        for text in ["", "{", "nonsense", r#"{"jsonrpc":"2.0","id":1,"method":"x"} y"#, "[1,"] {
            assert_eq!(code(text), PARSE_ERROR, "{text}");
        }
        for text in [
            "[]",
            "1",
            r#"{"id":1,"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":{},"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x","result":1}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{},"_meta":{}}}"#,
        ] {
            assert_eq!(code(text), INVALID_REQUEST, "{text}");
        }
    }

    #[test]
    fn it_is_one_line() {
        let message = parse("{\r\n \"jsonrpc\": \"2.0\",\n \"method\": \"a\\nb\"\n}\n");
        assert_eq!(message.method, "a\nb");
        assert!(!message.text.contains(&b'\n') && !message.text.contains(&b'\r'));
    }

    #[test]
    fn versions_are_negotiated() {
        assert_eq!(negotiated("2025-03-26", "2025-11-25"), "2025-03-26");
        assert_eq!(negotiated("2025-11-25", "2025-06-18"), "2025-06-18");
        assert_eq!(negotiated("1999-01-01", "2025-06-18"), "2025-06-18");
        let answer = parse(r#"{"jsonrpc":"2.0","id":1,"result":{"a":1,"protocolVersion":"2025-11-25","b":2}}"#);
        assert_eq!(answer.result_with_version("2025-03-26"), r#"{"a":1,"protocolVersion":"2025-03-26","b":2}"#);
    }
}
