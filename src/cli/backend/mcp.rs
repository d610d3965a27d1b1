//! A tiny MCP server of both eras, at `/mcp`: what the demo shows recovery with, and what tests send the proxy to.
//!
//! | tool | does |
//! |---|---|
//! | `whoami` | tells the server's name |
//! | `settings` | tells what the session has set |
//! | `count` | counts the session's calls |
//! | `slow` | `{ms, progress}`: takes its time, with a progress event every `progress` ms where that is given |
//! | `echo` | `{text}` |
//! | `touch` | tells all sessions and subscribers that the list of tools has changed |
//! | `ask` | stateless era: wants something first, and only this server understands the state it gives out |
//! | `fail` | a result that is an error |

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::unfold;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::Shared;
use super::body::{Reply, full, stream};
use crate::mcp::Era;
use crate::mcp::era::{NEWEST, WITH_SESSIONS};
use crate::mcp::sse;

/// Which eras it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Speaks {
    /// Both.
    Both,
    /// Only up to 2025-11-25.
    Sessions,
    /// Only from 2026-07-28 on.
    Stateless,
}

const TOOLS: [&str; 8] = ["whoami", "settings", "count", "slow", "echo", "touch", "ask", "fail"];

/// What it keeps.
#[derive(Debug)]
pub(super) struct State {
    speaks: AtomicU8,
    sessions: Mutex<HashMap<String, Session>>,
    events: broadcast::Sender<Bytes>,
    /// `initialize` and `notifications/initialized` that came.
    pub(super) began: [AtomicU64; 2],
}

#[derive(Debug, Default)]
struct Session {
    calls: u64,
    /// Its settings, as they were made.
    set: Vec<String>,
    /// Of the first transport: where its answers go.
    answers: Option<broadcast::Sender<Bytes>>,
}

impl Default for State {
    fn default() -> Self {
        State {
            speaks: AtomicU8::new(Speaks::Both as u8),
            sessions: Mutex::default(),
            events: broadcast::Sender::new(256),
            began: Default::default(),
        }
    }
}

impl State {
    pub(super) fn set_speaks(&self, speaks: Speaks) {
        self.speaks.store(speaks as u8, Relaxed);
    }

    fn speaks(&self, era: Era) -> bool {
        let speaks = self.speaks.load(Relaxed);
        speaks == Speaks::Both as u8 || (speaks == Speaks::Sessions as u8) == (era == Era::Sessions)
    }

    /// How many sessions it has.
    pub(super) fn sessions(&self) -> usize {
        self.locked().len()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<String, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first transport: a stream whose first event says where messages go, and whose other events are the answers.
pub(super) fn first_transport(shared: &Arc<Shared>) -> Response<Reply> {
    let id = format!("{}-{}", shared.name, shared.sessions.fetch_add(1, Relaxed));
    let (sender, receiver) = broadcast::channel(64);
    let mut sessions = shared.mcp.locked();
    sessions.insert(id.clone(), Session { answers: Some(sender), ..Session::default() });
    let endpoint = sse::event(Some("endpoint"), format!("/mcp/messages?session_id={id}").as_bytes(), None);
    let frames = unfold((receiver, Some(endpoint)), |(mut receiver, endpoint)| async move {
        let event = match endpoint {
            Some(endpoint) => endpoint,
            None => sse::event(Some("message"), &receiver.recv().await.ok()?, None),
        };
        Some((Ok(Frame::data(event)), (receiver, None)))
    });
    typed("text/event-stream", stream(frames))
}

/// A message of the first transport.
pub(super) async fn first_message(request: Request<Incoming>, shared: &Arc<Shared>) -> Response<Reply> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let Some(id) = query.split('&').find_map(|pair| pair.strip_prefix("session_id=")) else {
        return empty(StatusCode::BAD_REQUEST);
    };
    let answers = shared.mcp.locked().get(id).and_then(|session| session.answers.clone());
    let Some(answers) = answers else { return empty(StatusCode::NOT_FOUND) };
    let Ok(body) = request.into_body().collect().await else { return empty(StatusCode::BAD_REQUEST) };
    let Ok(sent) = serde_json::from_slice::<Value>(&body.to_bytes()) else { return empty(StatusCode::BAD_REQUEST) };
    let response = take(sent, Some(id.to_owned()), None, Era::Sessions, shared).await;
    if let Ok(said) = response.into_body().collect().await {
        // Its stream may have gone.
        let _ = answers.send(said.to_bytes());
    }
    empty(StatusCode::ACCEPTED)
}

/// Whether a request is meant for it.
pub(super) fn takes(request: &Request<Incoming>) -> bool {
    let accepts = request
        .headers()
        .get("accept")
        .is_some_and(|kinds| kinds.to_str().is_ok_and(|kinds| kinds.contains("text/event-stream")));
    accepts || *request.method() == Method::DELETE
}

pub(super) async fn answer(request: Request<Incoming>, shared: &Arc<Shared>) -> Response<Reply> {
    let header =
        |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok()).map(str::to_owned);
    let (session, version) = (header("mcp-session-id"), header("mcp-protocol-version"));
    let era = Era::of(version.as_deref().map(str::as_bytes));
    let state = &shared.mcp;
    if era == Era::Sessions
        && let Some(id) = &session
        && !state.locked().contains_key(id)
    {
        return message(StatusCode::NOT_FOUND, &error(Value::Null, -32001, "Session not found", None));
    }
    match *request.method() {
        Method::GET if era == Era::Sessions && session.is_some() => events(state.events.subscribe(), Vec::new(), None),
        Method::DELETE if era == Era::Sessions => {
            state.locked().remove(session.as_deref().unwrap_or_default());
            empty(StatusCode::OK)
        }
        Method::POST => {
            let Ok(body) = request.into_body().collect().await else { return empty(StatusCode::BAD_REQUEST) };
            let Ok(sent) = serde_json::from_slice::<Value>(&body.to_bytes()) else {
                return message(StatusCode::BAD_REQUEST, &error(Value::Null, -32700, "Parse error", None));
            };
            take(sent, session, version, era, shared).await
        }
        _ => empty(StatusCode::METHOD_NOT_ALLOWED),
    }
}

async fn take(
    sent: Value,
    session: Option<String>,
    version: Option<String>,
    era: Era,
    shared: &Arc<Shared>,
) -> Response<Reply> {
    let state = &shared.mcp;
    let id = sent["id"].clone();
    let method = sent["method"].as_str().unwrap_or_default();
    let begins = method == "initialize";
    let spoken = if begins { Era::Sessions } else { era };
    if !state.speaks(spoken) {
        // An older server has never heard of the newer era, and says so in its own way.
        let (code, data) = match spoken {
            Era::Stateless => (-32600, None),
            Era::Sessions => (-32022, Some(json!({ "supported": [NEWEST], "requested": version }))),
        };
        return message(StatusCode::BAD_REQUEST, &error(id, code, "Unsupported protocol version", data));
    }
    if id.is_null() {
        if method == "notifications/initialized" {
            state.began[1].fetch_add(1, Relaxed);
        }
        return empty(StatusCode::ACCEPTED);
    }
    if begins {
        state.began[0].fetch_add(1, Relaxed);
        let name = format!("{}-{}", shared.name, shared.sessions.fetch_add(1, Relaxed));
        state.locked().insert(name.clone(), Session::default());
        let wanted = sent["params"]["protocolVersion"].as_str().filter(|version| WITH_SESSIONS.contains(version));
        let result = json!({
            "protocolVersion": wanted.unwrap_or(WITH_SESSIONS[3]),
            "capabilities": { "tools": { "listChanged": true }, "logging": {}, "resources": { "subscribe": true } },
            "serverInfo": { "name": shared.name, "version": "1" },
        });
        let mut response = message(StatusCode::OK, &success(id, result));
        if let Ok(name) = name.parse() {
            response.headers_mut().insert("mcp-session-id", name);
        }
        return response;
    }
    if era == Era::Sessions && session.is_none() {
        return message(StatusCode::BAD_REQUEST, &error(id, -32600, "Bad Request: Missing session ID", None));
    }
    let params = &sent["params"];
    let result = match method {
        "ping" => json!({}),
        "server/discover" => json!({
            "supportedVersions": if state.speaks(Era::Sessions) { json!([WITH_SESSIONS[3], NEWEST]) } else { json!([NEWEST]) },
            "capabilities": { "tools": { "listChanged": true } },
            "serverInfo": { "name": shared.name, "version": "1" },
        }),
        "tools/list" => {
            let tools: Vec<Value> =
                TOOLS.iter().map(|name| json!({ "name": name, "inputSchema": { "type": "object" } })).collect();
            json!({ "tools": tools, "ttlMs": 60_000, "cacheScope": "public" })
        }
        "logging/setLevel" | "resources/subscribe" => {
            let about = params["level"].as_str().or(params["uri"].as_str()).unwrap_or_default().to_owned();
            if let Some(session) = state.locked().get_mut(session.as_deref().unwrap_or_default()) {
                session.set.push(about);
            }
            json!({})
        }
        "subscriptions/listen" => {
            let meta = json!({ "io.modelcontextprotocol/subscriptionId": id });
            let ack = json!({
                "jsonrpc": "2.0",
                "method": "notifications/subscriptions/acknowledged",
                "params": { "notifications": params["notifications"], "_meta": meta },
            });
            return events(state.events.subscribe(), vec![ack], Some(meta));
        }
        "tools/call" => return call(id, params.clone(), session, shared).await,
        _ => return message(StatusCode::NOT_FOUND, &error(id, -32601, "Method not found", None)),
    };
    message(StatusCode::OK, &success(id, result))
}

async fn call(id: Value, params: Value, session: Option<String>, shared: &Arc<Shared>) -> Response<Reply> {
    let arguments = &params["arguments"];
    let text = match params["name"].as_str().unwrap_or_default() {
        "whoami" => shared.name.clone(),
        "settings" => {
            let sessions = shared.mcp.locked();
            sessions
                .get(session.as_deref().unwrap_or_default())
                .map(|session| session.set.join(" "))
                .unwrap_or_default()
        }
        "echo" => arguments["text"].as_str().unwrap_or_default().to_owned(),
        "count" => {
            let mut sessions = shared.mcp.locked();
            let known = session.and_then(|id| {
                sessions.get_mut(&id).map(|session| {
                    session.calls += 1;
                    session.calls
                })
            });
            known.unwrap_or(0).to_string()
        }
        "touch" => {
            let changed = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" });
            // Nobody may be listening.
            let _ = shared.mcp.events.send(changed.to_string().into());
            "touched".to_owned()
        }
        "slow" => {
            let span = Duration::from_millis(arguments["ms"].as_u64().unwrap_or(100));
            if let Some(every) = arguments["progress"].as_u64() {
                return slow(id, span, Duration::from_millis(every.max(1)), params["_meta"]["progressToken"].clone());
            }
            tokio::time::sleep(span).await;
            "done".to_owned()
        }
        "ask" => match params["requestState"].as_str() {
            None => {
                let state = format!("{}:{}", shared.name, fastrand::u64(..));
                let wants = json!({ "resultType": "input_required", "requestState": state, "inputRequests": {} });
                return message(StatusCode::OK, &success(id, wants));
            }
            Some(state) if state.starts_with(&format!("{}:", shared.name)) => "asked and answered".to_owned(),
            Some(_) => return message(StatusCode::OK, &error(id, -32602, "this state is none of mine", None)),
        },
        "fail" => return message(StatusCode::OK, &success(id, content("it failed", true))),
        other => return message(StatusCode::OK, &error(id, -32602, &format!("no tool is called {other}"), None)),
    };
    message(StatusCode::OK, &success(id, content(&text, false)))
}

/// An answer as an event stream, with progress before it.
fn slow(id: Value, span: Duration, every: Duration, token: Value) -> Response<Reply> {
    let until = tokio::time::Instant::now() + span;
    let frames = unfold(Some(0u64), move |step| {
        let (id, token) = (id.clone(), token.clone());
        async move {
            let step = step?;
            tokio::time::sleep(every.min(until.saturating_duration_since(tokio::time::Instant::now()))).await;
            let ended = tokio::time::Instant::now() >= until;
            let said = match ended {
                true => success(id, content("done", false)),
                false => json!({
                    "jsonrpc": "2.0",
                    "method": "notifications/progress",
                    "params": { "progressToken": token, "progress": step + 1 },
                }),
            };
            let event = sse::event(Some("message"), said.to_string().as_bytes(), None);
            Some((Ok(Frame::data(event)), (!ended).then_some(step + 1)))
        }
    });
    typed("text/event-stream", stream(frames))
}

/// A stream of what is told to everybody; `meta` is put into each.
fn events(receiver: broadcast::Receiver<Bytes>, first: Vec<Value>, meta: Option<Value>) -> Response<Reply> {
    let first = first.into_iter().map(|said| Bytes::from(said.to_string())).collect::<std::collections::VecDeque<_>>();
    let frames = unfold((receiver, first, meta), |(mut receiver, mut first, meta)| async move {
        let said = match first.pop_front() {
            Some(said) => said,
            None => {
                let said = receiver.recv().await.ok()?;
                match (&meta, serde_json::from_slice::<Value>(&said)) {
                    (Some(meta), Ok(mut value)) => {
                        value["params"] = json!({ "_meta": meta });
                        value.to_string().into()
                    }
                    _ => said,
                }
            }
        };
        Some((Ok(Frame::data(sse::event(Some("message"), &said, None))), (receiver, first, meta)))
    });
    typed("text/event-stream", stream(frames))
}

fn content(text: &str, is_error: bool) -> Value {
    json!({ "content": [{ "type": "text", "text": text }], "isError": is_error })
}

fn success(id: Value, result: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "result": result })
}

fn error(id: Value, code: i64, text: &str, data: Option<Value>) -> Value {
    let mut error = json!({ "code": code, "message": text });
    if let Some(data) = data {
        error["data"] = data;
    }
    json!({ "jsonrpc": "2.0", "id": id, "error": error })
}

fn message(status: StatusCode, value: &Value) -> Response<Reply> {
    let mut response = typed("application/json", full(value.to_string()));
    *response.status_mut() = status;
    response
}

fn empty(status: StatusCode) -> Response<Reply> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = status;
    response
}

fn typed(kind: &'static str, body: Reply) -> Response<Reply> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
