//! What a server's JSON-RPC message says to a proxy, and the messages a proxy writes itself.

use std::borrow::Cow;

use bytes::Bytes;

use super::json::{Scan, Stop};

/// How many protocol versions a server may name; more are not looked at.
const MAX_VERSIONS: usize = 32;

/// Who may be given a cached result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everybody.
    Public,
    /// Only whom it was made for.
    Private,
}

/// What a proxy has to know about a server's message: a response, or on a stream also a request or a notification.
///
/// **Shape**: borrowed from the message, except for strings with escapes. Of equal keys the last counts, as for most readers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome<'a> {
    /// The id as it is written, a number or a string with its quotes; `None` where it is absent or null.
    pub id: Option<&'a str>,
    /// The method of a request or notification; responses have none.
    pub method: Option<Cow<'a, str>>,
    /// `error.code`.
    pub error_code: Option<i64>,
    /// `result.isError`: a tool has failed, and the model is told.
    pub is_error: bool,
    /// `result.resultType`: `complete`, `input_required`, `task`; absent before 2026-07-28.
    pub result_type: Option<Cow<'a, str>>,
    /// `result.requestState`: what the client will send back to the server that knows it.
    pub request_state: Option<Cow<'a, str>>,
    /// `result.taskId` or `result.task.taskId`.
    pub task_id: Option<Cow<'a, str>>,
    /// `result.ttlMs`: for how long the result may be kept, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// `result.cacheScope`.
    pub cache_scope: Option<Scope>,
    /// `result.protocolVersion` of `initialize`.
    pub protocol_version: Option<Cow<'a, str>>,
    /// `result.supportedVersions` of `server/discover`, or `error.data.supported` of error -32022.
    pub supported_versions: Vec<Cow<'a, str>>,
    /// `params.uri` of `notifications/resources/updated`.
    pub uri: Option<Cow<'a, str>>,
}

impl Outcome<'_> {
    /// Whether it is an answer to a request, not a message of the server's own.
    pub fn is_response(&self) -> bool {
        self.method.is_none()
    }
}

/// Looks into a server's message; `None` where it is not one whole JSON object. Of a batch see [`outcomes`].
///
/// **Bounds**: 128 levels, never recursive in what it does not read; at most 32 versions are taken.
/// **Cost**: that of [`peek`](super::peek::peek).
pub fn outcome(bytes: &[u8]) -> Option<Outcome<'_>> {
    let mut scan = Scan::new(bytes);
    let outcome = message(&mut scan, 0).ok()?;
    (scan.next() == Err(Stop::End)).then_some(outcome)
}

/// The messages of a batch, or the one that it is; nothing follows what is no object.
pub fn outcomes(bytes: &[u8]) -> impl Iterator<Item = Outcome<'_>> {
    let mut scan = Scan::new(bytes);
    let batch = scan.enter();
    let (mut first, mut over) = (true, false);
    std::iter::from_fn(move || {
        if over || batch && scan.element(first)?.is_err() {
            return None;
        }
        let outcome = message(&mut scan, u32::from(batch)).ok();
        first = false;
        over = !batch || outcome.is_none();
        outcome
    })
}

/// The names in a `tools/list` answer; none where it is not one.
pub fn tool_names(bytes: &[u8]) -> impl Iterator<Item = Cow<'_, str>> {
    let mut names = Vec::new();
    let walked = inside(&mut Scan::new(bytes), "result", 0, &mut |scan| {
        inside(scan, "tools", 1, &mut |scan| {
            if scan.next()? != b'[' {
                return scan.skip(2);
            }
            scan.array(|scan| {
                inside(scan, "name", 3, &mut |scan| {
                    names.extend(string(scan, 4)?);
                    Ok(())
                })
            })
        })
    });
    // What is cut short or broken was not listed.
    if walked.is_err() {
        names.clear();
    }
    names.into_iter()
}

/// Goes over a value, and where it is an object calls `each` at the member `wanted`.
fn inside<'a>(
    scan: &mut Scan<'a>,
    wanted: &str,
    depth: u32,
    each: &mut dyn FnMut(&mut Scan<'a>) -> Result<(), Stop>,
) -> Result<(), Stop> {
    if scan.next()? != b'{' {
        return scan.skip(depth);
    }
    scan.object(|scan, key| if key == wanted { each(scan) } else { scan.skip(depth + 1) })
}

fn message<'a>(scan: &mut Scan<'a>, depth: u32) -> Result<Outcome<'a>, Stop> {
    let mut found = Outcome::default();
    scan.object(|scan, key| match (key, scan.next()?) {
        ("id", b'"' | b'-' | b'0'..=b'9') => {
            found.id = Some(scan.value(depth + 1)?);
            Ok(())
        }
        ("method", _) => {
            found.method = string(scan, depth + 1)?;
            Ok(())
        }
        ("result", b'{') => result(scan, depth + 1, &mut found),
        ("error", b'{') => error_of(scan, depth + 1, &mut found),
        ("params", b'{') => inside(scan, "uri", depth + 1, &mut |scan| {
            found.uri = string(scan, depth + 2)?;
            Ok(())
        }),
        _ => scan.skip(depth + 1),
    })?;
    Ok(found)
}

fn result<'a>(scan: &mut Scan<'a>, depth: u32, found: &mut Outcome<'a>) -> Result<(), Stop> {
    scan.object(|scan, key| {
        let depth = depth + 1;
        match key {
            "isError" => found.is_error = scan.value(depth)? == "true",
            "resultType" => found.result_type = string(scan, depth)?,
            "requestState" => found.request_state = string(scan, depth)?,
            "taskId" => found.task_id = string(scan, depth)?,
            "task" => inside(scan, "taskId", depth, &mut |scan| {
                found.task_id = string(scan, depth + 1)?;
                Ok(())
            })?,
            "ttlMs" => found.ttl_ms = milliseconds(scan.value(depth)?),
            "cacheScope" => {
                found.cache_scope = match string(scan, depth)?.as_deref() {
                    Some("public") => Some(Scope::Public),
                    Some("private") => Some(Scope::Private),
                    _ => None,
                }
            }
            "protocolVersion" => found.protocol_version = string(scan, depth)?,
            "supportedVersions" => found.supported_versions = strings(scan, depth)?,
            _ => scan.skip(depth)?,
        }
        Ok(())
    })
}

fn error_of<'a>(scan: &mut Scan<'a>, depth: u32, found: &mut Outcome<'a>) -> Result<(), Stop> {
    scan.object(|scan, key| match key {
        "code" => {
            found.error_code = whole_number(scan.value(depth + 1)?);
            Ok(())
        }
        "data" => inside(scan, "supported", depth + 1, &mut |scan| {
            found.supported_versions = strings(scan, depth + 2)?;
            Ok(())
        }),
        _ => scan.skip(depth + 1),
    })
}

/// A value that is a string; others are gone over.
fn string<'a>(scan: &mut Scan<'a>, depth: u32) -> Result<Option<Cow<'a, str>>, Stop> {
    if scan.next()? == b'"' {
        return scan.text()?.decode().map(Some);
    }
    scan.skip(depth)?;
    Ok(None)
}

fn strings<'a>(scan: &mut Scan<'a>, depth: u32) -> Result<Vec<Cow<'a, str>>, Stop> {
    let mut all = Vec::new();
    if scan.next()? != b'[' {
        scan.skip(depth)?;
        return Ok(all);
    }
    scan.array(|scan| {
        let one = string(scan, depth + 1)?;
        if all.len() < MAX_VERSIONS {
            all.extend(one);
        }
        Ok::<(), Stop>(())
    })?;
    Ok(all)
}

/// A number without a fraction, also where it is written as `3e4` or `30000.0`.
fn whole_number(raw: &str) -> Option<i64> {
    raw.parse().ok().or_else(|| {
        let number: f64 = raw.parse().ok()?;
        // Beyond 2^53 a float says no exact number any more.
        (number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0).then_some(number as i64)
    })
}

/// A span of time; more than 64 bits of it are all of it.
fn milliseconds(raw: &str) -> Option<u64> {
    raw.parse().ok().or_else(|| raw.parse::<f64>().ok().filter(|number| *number >= 0.0).map(|number| number as u64))
}

/// Writes an error response. `id` and `data` are JSON as it is written; no id makes it `null`.
pub fn error(id: Option<&str>, code: i64, message: &str, data: Option<&str>) -> Bytes {
    let data = data.map(|data| format!(r#","data":{data}"#)).unwrap_or_default();
    let (id, message) = (id.unwrap_or("null"), quoted(message));
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{message}{data}}}}}"#).into()
}

/// Writes the result of a tool call that failed: the session lives on, and the model can read `text`. `id` is JSON as it is written.
pub fn tool_error(id: &str, text: &str) -> Bytes {
    let text = quoted(text);
    // Revisions before 2026-07-28 do not know `resultType` and ignore it.
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":{text}}}],"isError":true,"resultType":"complete"}}}}"#
    )
    .into()
}

/// Writes a request. `id` and `params` are JSON as it is written.
pub fn request(id: &str, method: &str, params: Option<&str>) -> Bytes {
    let params = params.map(|params| format!(r#","params":{params}"#)).unwrap_or_default();
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{}{params}}}"#, quoted(method)).into()
}

/// Writes a notification. `params` are JSON as it is written.
pub fn notification(method: &str, params: Option<&str>) -> Bytes {
    let params = params.map(|params| format!(r#","params":{params}"#)).unwrap_or_default();
    format!(r#"{{"jsonrpc":"2.0","method":{}{params}}}"#, quoted(method)).into()
}

/// A text as a JSON string.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
