use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

/// Connections at once.
const CLIENTS: usize = 16;
/// Between two requests of one connection: a demo is to be watched on the machine that it runs on.
const PAUSE: Duration = Duration::from_millis(2);

/// What came of the load so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) requests: u64,
    /// The first few reasons, for the summary.
    pub(super) failures: Vec<String>,
    pub(super) failed: u64,
    /// Answers by upstream name.
    pub(super) by_upstream: BTreeMap<String, u64>,
    /// Microseconds.
    latencies: Vec<u32>,
    /// Events of the one stream that is open all the time.
    pub(super) events: u64,
    /// The name of the upstream that sends it.
    pub(super) streaming_from: Option<String>,
}

pub(super) type Shared = Rc<RefCell<Tally>>;

impl Tally {
    fn fail(&mut self, reason: String) {
        self.failed += 1;
        if self.failures.len() < 5 {
            self.failures.push(reason);
        }
    }

    fn count(&mut self, outcome: anyhow::Result<String>, latency: Duration) {
        self.requests += 1;
        let upstream = match outcome {
            Ok(upstream) => upstream,
            Err(error) => return self.fail(format!("{error:#}")),
        };
        *self.by_upstream.entry(upstream).or_default() += 1;
        self.latencies.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    /// The latency that this share of the requests stays under.
    pub(super) fn quantile(&mut self, share: f64) -> Duration {
        self.latencies.sort_unstable();
        let last = self.latencies.len().saturating_sub(1);
        let at = (last as f64 * share) as usize;
        Duration::from_micros(self.latencies.get(at).copied().unwrap_or(0).into())
    }
}

/// Runs the load on the current local runtime until `end`.
pub(super) async fn run(address: SocketAddr, end: Instant, tally: Shared) {
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn_local(client(address, end, tally.clone()));
    }
    clients.spawn_local(listen(address, end, tally));
    while clients.join_next().await.is_some() {}
}

async fn client(address: SocketAddr, end: Instant, tally: Shared) {
    let mut connection = None;
    while Instant::now() < end {
        let begun = Instant::now();
        let outcome = ask(address, &mut connection).await;
        if outcome.is_err() {
            connection = None;
        }
        tally.borrow_mut().count(outcome, begun.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks without a pause as long as the flag says so.
pub(super) async fn ask_while(address: SocketAddr, goes_on: Rc<Cell<bool>>, tally: Shared) {
    let mut connection = None;
    while goes_on.get() {
        let begun = Instant::now();
        let outcome = ask(address, &mut connection).await;
        if outcome.is_err() {
            connection = None;
        }
        tally.borrow_mut().count(outcome, begun.elapsed());
    }
}

type Connection = SendRequest<Empty<Bytes>>;

async fn connect(address: SocketAddr) -> anyhow::Result<Connection> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}

fn request(address: SocketAddr, target: &str) -> anyhow::Result<Request<Empty<Bytes>>> {
    Ok(Request::get(target).header(HOST, address.to_string()).body(Empty::new())?)
}

/// The name of the upstream that answered.
async fn ask(address: SocketAddr, connection: &mut Option<Connection>) -> anyhow::Result<String> {
    #[derive(Deserialize)]
    struct Told {
        upstream: String,
    }
    if !connection.as_mut().is_some_and(|known| known.is_ready()) {
        *connection = Some(connect(address).await?);
    }
    let Some(sender) = connection else { anyhow::bail!("no connection") };
    sender.ready().await?;
    let response = sender.send_request(request(address, "/")?).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    anyhow::ensure!(status == http::StatusCode::OK, "answered {status}");
    Ok(serde_json::from_slice::<Told>(&body)?.upstream)
}

/// Holds one event stream open to the end: neither a kill elsewhere, nor a reload, nor a drain may break it.
async fn listen(address: SocketAddr, end: Instant, tally: Shared) {
    let outcome = async {
        let mut sender = connect(address).await?;
        let response = sender.send_request(request(address, "/sse?interval=100ms")?).await?;
        anyhow::ensure!(response.status() == http::StatusCode::OK, "answered {}", response.status());
        let mut body = response.into_body();
        loop {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                () = tokio::time::sleep_until(end.into()) => return Ok(()),
            };
            let frame = frame.ok_or_else(|| anyhow::anyhow!("ended early"))??;
            let mut tally = tally.borrow_mut();
            tally.events += 1;
            if tally.streaming_from.is_none() {
                tally.streaming_from = frame.data_ref().and_then(|event| speaker(event));
            }
        }
    };
    if let Err(error) = outcome.await {
        tally.borrow_mut().fail(format!("the event stream: {error:#}"));
    }
}

/// Who sent an event: the `a` of `data: a says 0`.
fn speaker(event: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(event).ok()?;
    let said = text.lines().find_map(|line| line.strip_prefix("data: "))?;
    Some(said.split(' ').next()?.to_owned())
}
