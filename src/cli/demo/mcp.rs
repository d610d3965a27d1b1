//! `tidegate demo --mcp`: sessions of MCP clients go on while their servers are killed, drained and brought back.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::say;
use super::stage::Stage;
use crate::admin::{Change, Control};
use crate::cli::Failure;
use crate::cli::status::latency;

/// How long it takes unless somebody says otherwise.
pub(super) const LENGTH: Duration = Duration::from_secs(10);
const SESSIONS: usize = 6;
/// Between two calls of one session.
const PAUSE: Duration = Duration::from_millis(20);

/// What has come of it so far.
#[derive(Debug, Default)]
struct Tally {
    calls: u64,
    failed: u64,
    failures: Vec<String>,
    longest: Duration,
    /// How often a session found itself at another server.
    moved: u64,
    homes: BTreeMap<usize, String>,
    /// Events of the standing streams.
    events: u64,
}

/// Plays it; fails where a call did, or where no session had to move.
pub(super) async fn play(stage: &mut Stage, begun: Instant, length: Duration) -> Result<ExitCode, Failure> {
    let tally = Rc::new(RefCell::new(Tally::default()));
    let end = begun + length;
    say(
        begun,
        &format!("{SESSIONS} sessions begin, each with a standing stream and a call every {} ms", PAUSE.as_millis()),
    );
    let sessions: Vec<_> =
        (0..SESSIONS).map(|number| tokio::task::spawn_local(session(stage.web, number, end, tally.clone()))).collect();
    let missed = scenes(stage, begun, length, &tally).await?;
    for session in sessions {
        session.await?;
    }
    let tally = tally.borrow();
    println!("{}", summary(&tally, length, &missed));
    Ok(if tally.failed == 0 && missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What should have happened and did not.
async fn scenes(
    stage: &mut Stage,
    begun: Instant,
    length: Duration,
    tally: &RefCell<Tally>,
) -> Result<Vec<String>, Failure> {
    let mut missed = Vec::new();
    let scene = |share: f64| tokio::time::sleep_until((begun + length.mul_f64(share)).into());
    let names: Vec<String> = stage.names().map(str::to_owned).collect();
    scene(0.2).await;
    say(begun, &format!("kill -9 of server {} ({})", names[0], stage.address(&names[0])));
    stage.kill(&names[0]).await;
    scene(0.4).await;
    if tally.borrow().moved == 0 {
        missed.push("no session moved".to_owned());
    }
    say(begun, &format!("{} sessions began again elsewhere; no client has noticed", tally.borrow().moved));
    say(begun, "editing the configuration while calls run");
    let before = stage.handle().status().await.map_or(0, |status| status.reloads_accepted);
    stage.edit(|text| text.replace("keepalive = \"1s\"", "keepalive = \"2s\""))?;
    scene(0.55).await;
    if stage.handle().status().await.is_none_or(|status| status.reloads_accepted <= before) {
        missed.push("the edit was not taken".to_owned());
    }
    say(begun, &format!("draining server {} ({})", names[1], stage.address(&names[1])));
    if let Err(error) = stage.handle().change("tools", stage.address(&names[1]), Change::Drain { deadline: None }).await
    {
        missed.push(format!("the drain was refused: {error}"));
    }
    scene(0.8).await;
    let at_drained = tally.borrow().homes.values().filter(|home| **home == names[1]).count();
    if at_drained > 0 {
        missed.push(format!("{at_drained} sessions are still at {}", names[1]));
    }
    say(begun, &format!("starting server {} again", names[0]));
    stage.revive(&names[0]).await?;
    scene(1.0).await;
    Ok(missed)
}

/// A client: one session, one stream, one call after the other.
async fn session(web: SocketAddr, number: usize, end: Instant, tally: Rc<RefCell<Tally>>) {
    if let Err(error) = converse(web, number, end, &tally).await {
        let mut tally = tally.borrow_mut();
        tally.failed += 1;
        tally.failures.push(format!("session {number}: {error:#}"));
    }
}

async fn converse(web: SocketAddr, number: usize, end: Instant, tally: &Rc<RefCell<Tally>>) -> anyhow::Result<()> {
    let mut sender = connect(web).await?;
    let client = json!({ "name": "demo", "version": "1" });
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
    let begun = post(&mut sender, web, None, &message(0, "initialize", params)).await?;
    let id = begun.headers().get("mcp-session-id").ok_or_else(|| anyhow::anyhow!("no session id"))?;
    let id = id.to_str()?.to_owned();
    begun.into_body().collect().await?;
    let told = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    post(&mut sender, web, Some(&id), &told).await?.into_body().collect().await?;
    let listening = tokio::task::spawn_local(listen(web, id.clone(), tally.clone()));
    let mut call = 0;
    while Instant::now() < end {
        call += 1;
        let tool = json!({ "name": "whoami", "arguments": {} });
        let asked = Instant::now();
        let answer = post(&mut sender, web, Some(&id), &message(call, "tools/call", tool)).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        let text = String::from_utf8_lossy(&body);
        let data = text.lines().rev().find_map(|line| line.strip_prefix("data: ")).unwrap_or(&text);
        let said: Value = serde_json::from_str(data)?;
        let mut tally = tally.borrow_mut();
        tally.calls += 1;
        tally.longest = tally.longest.max(asked.elapsed());
        match said["result"]["content"][0]["text"].as_str() {
            Some(home) => {
                let before = tally.homes.insert(number, home.to_owned());
                tally.moved += u64::from(before.is_some_and(|before| before != home));
            }
            None => {
                tally.failed += 1;
                tally.failures.push(format!("{status} {said}"));
            }
        }
        drop(tally);
        tokio::time::sleep(PAUSE).await;
    }
    if listening.is_finished() {
        listening.await??;
        anyhow::bail!("the standing stream has ended");
    }
    listening.abort();
    Ok(())
}

async fn listen(web: SocketAddr, id: String, tally: Rc<RefCell<Tally>>) -> anyhow::Result<()> {
    let mut sender = connect(web).await?;
    let request = Request::get("/mcp").header(HOST, web.to_string()).header(ACCEPT, "text/event-stream");
    let answer = sender.send_request(request.header("mcp-session-id", id).body(Full::default())?).await?;
    anyhow::ensure!(answer.status() == 200, "the stream was answered {}", answer.status());
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
        tally.borrow_mut().events += 1;
    }
    Ok(())
}

fn message(id: u64, method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

type Sender = SendRequest<Full<Bytes>>;

async fn connect(web: SocketAddr) -> anyhow::Result<Sender> {
    let stream = TcpStream::connect(web).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}

async fn post(
    sender: &mut Sender,
    web: SocketAddr,
    id: Option<&str>,
    body: &Value,
) -> anyhow::Result<Response<Incoming>> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri("/mcp")
        .header(HOST, web.to_string())
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json, text/event-stream");
    if let Some(id) = id {
        request = request.header("mcp-session-id", id).header("mcp-protocol-version", "2025-11-25");
    }
    sender.ready().await?;
    Ok(sender.send_request(request.body(Full::from(body.to_string()))?).await?)
}

fn summary(tally: &Tally, length: Duration, missed: &[String]) -> String {
    let Tally { calls, failed, moved, events, .. } = tally;
    let longest = latency(tally.longest.as_secs_f64());
    let mut text = format!("\n{calls} calls in {} s, {failed} failed; the longest took {longest}\n", length.as_secs());
    text += &format!("  {moved:>7} times a session went on at another server\n");
    text += &format!("  {events:>7} pieces on {SESSIONS} streams that stayed open throughout\n");
    for failure in tally.failures.iter().take(5).chain(missed) {
        text += &format!("  FAILED: {failure}\n");
    }
    text
}
