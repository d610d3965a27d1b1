//! Replicas and clients made with the real SDKs, as child processes that end with what holds them.
#![allow(dead_code, unreachable_pub)] // As in `support`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::support::{Addressed, Proxy, client, proxy, until};

/// Sealed session ids are opened by every proxy that has this key.
pub const KEY: &str = "a-secret-that-only-these-tests-share-0123456789";

/// Which SDK a process is made with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sdk {
    /// Python 1.x: sessions only.
    Python1,
    /// Python 2.x: both eras; its clients ask which it is.
    Python2,
    /// TypeScript 1.x: sessions only.
    TypeScript,
}

pub const ALL: [Sdk; 3] = [Sdk::Python1, Sdk::Python2, Sdk::TypeScript];

/// Where the SDKs are installed, or nothing (and why) where they are not.
pub fn sdks() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("mcp-sdks");
    let folder = std::env::var_os("TIDEGATE_MCP_SDKS").map_or(target, PathBuf::from);
    let parts = ["v1/bin/python", "v2/bin/python", "node/node_modules/@modelcontextprotocol/sdk"];
    if parts.iter().all(|part| folder.join(part).exists()) {
        return Some(folder);
    }
    let text = format!("skipped: the MCP SDKs are not in {}; install them with .ci/mcp-sdks", folder.display());
    assert!(std::env::var_os("TIDEGATE_TEST_ALL").is_none(), "{text}");
    eprintln!("{text}");
    None
}

fn command(sdk: Sdk, folder: &Path, what: &str) -> Command {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mcp_sdk");
    let (program, script) = match sdk {
        Sdk::Python1 => (folder.join("v1/bin/python"), format!("{what}1.py")),
        Sdk::Python2 => (folder.join("v2/bin/python"), format!("{what}2.py")),
        Sdk::TypeScript => (PathBuf::from("node"), format!("{what}.mjs")),
    };
    let mut command = Command::new(program);
    command.arg(scripts.join(script)).env("TIDEGATE_MCP_SDKS", folder).env("PYTHONDONTWRITEBYTECODE", "1");
    // What the SDKs log is read where a test is looked into, and drowns its failure otherwise.
    let seen = std::env::var_os("TIDEGATE_TEST_LOG").is_some();
    command.stderr(if seen { Stdio::inherit() } else { Stdio::null() });
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    command
}

/// The settings of a pool whose servers speak on standard input and output.
pub fn stdio(sdk: Sdk, settings: &str) -> String {
    let folder = sdks().expect("the SDKs are there");
    let command = command(sdk, &folder, "server");
    let program = command.as_std().get_program().to_owned();
    let words: Vec<_> = [program].into_iter().chain(command.as_std().get_args().map(Into::into)).collect();
    let words: Vec<_> = words.iter().map(|word| word.to_str().expect("a path that is text")).collect();
    let command = [words, vec!["--stdio", "--name", "own"]].concat();
    let environment = format!("{{ TIDEGATE_MCP_SDKS = {folder:?} }}");
    format!("stdio = {{ command = {command:?}, env = {environment}, {settings} }}")
}

/// One server process.
pub struct Replica {
    sdk: Sdk,
    name: String,
    address: SocketAddr,
    child: Child,
}

impl Addressed for Replica {
    fn address_text(&self) -> String {
        self.address.to_string()
    }
}

impl Replica {
    pub async fn start(sdk: Sdk, name: &str) -> Replica {
        Replica::start_with(sdk, name, 0, &[]).await
    }

    /// At a port that another one had, or with more options.
    pub async fn start_with(sdk: Sdk, name: &str, port: u16, more: &[&str]) -> Replica {
        let folder = sdks().expect("the SDKs are there");
        let mut command = command(sdk, &folder, "server");
        command.args(["--name", name, "--port", &port.to_string()]).args(more);
        let mut child = command.spawn().expect("the server starts");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let line = lines.next_line().await.expect("it is readable").expect("the server says where it is");
        let said: Value = serde_json::from_str(&line).expect("JSON");
        let port = said["ready"].as_u64().and_then(|port| port.try_into().ok()).expect("a port");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Replica { sdk, name: name.to_owned(), address, child }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// What has arrived at it.
    pub async fn counts(&self) -> Value {
        client(self.address).get("/counts").await.json()
    }

    /// How many messages of a method have arrived at it.
    pub async fn asked(&self, method: &str) -> u64 {
        self.counts().await["methods"][method].as_u64().unwrap_or(0)
    }

    /// Has it tell its subscribers that a resource has changed; returns how many sessions it told.
    pub async fn touch(&self, uri: &str) -> u64 {
        let answer = client(self.address).post(&format!("/touch?uri={uri}"), "").await;
        answer.json()["told"].as_u64().expect("a number")
    }

    /// Whether its health check says that it is well.
    pub async fn is(&self, well: bool) {
        let path = if well { "/well" } else { "/sick" };
        assert_eq!(client(self.address).post(path, "").await.status, 200);
    }

    /// Sudden death.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("it is our child");
    }

    /// Sudden death, and another one in its place; `None`: made with the same SDK.
    pub async fn replace(&mut self, sdk: Option<Sdk>) {
        self.kill().await;
        let (sdk, name) = (sdk.unwrap_or(self.sdk), format!("{}+", self.name));
        *self = Replica::start_with(sdk, &name, self.address.port(), &[]).await;
    }
}

/// A process with clients in it, which does as it is told: see `commands.py`.
pub struct Clients {
    _child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Clients {
    pub fn of(sdk: Sdk, url: &str) -> Clients {
        let folder = sdks().expect("the SDKs are there");
        let mut child = command(sdk, &folder, "client").arg(url).spawn().expect("the clients start");
        let orders = child.stdin.take().expect("it is piped");
        let answers = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Clients { _child: child, orders, answers }
    }

    /// Clients of a proxy's listener `web`.
    pub async fn through(sdk: Sdk, proxy: &Proxy) -> Clients {
        Clients::of(sdk, &format!("http://{}/mcp", proxy.address_of("web").await))
    }

    /// Gives an order and returns at once.
    pub async fn order(&mut self, order: Value) {
        self.orders.write_all(format!("{order}\n").as_bytes()).await.expect("the clients live");
    }

    /// The answer to the next order that has not been answered.
    pub async fn answer(&mut self) -> Said {
        let line = self.answers.next_line().await.expect("it is readable").expect("the clients live");
        Said(serde_json::from_str(&line).expect("JSON"))
    }

    pub async fn ask(&mut self, order: Value) -> Said {
        self.order(order).await;
        self.answer().await
    }

    /// Opens so many sessions, all of which open.
    pub async fn open(&mut self, count: u64) -> Said {
        self.ask(json!({ "do": "open", "count": count })).await.all_of(count)
    }

    /// Calls a tool on each session.
    pub async fn call(&mut self, tool: &str, times: u64) -> Said {
        self.ask(json!({ "do": "call", "tool": tool, "times": times })).await
    }
}

/// What clients have answered.
#[derive(Debug)]
pub struct Said(pub Value);

impl Said {
    pub fn number(&self, key: &str) -> u64 {
        self.0[key].as_u64().unwrap_or_else(|| panic!("no number {key} in {self:?}"))
    }

    /// So many went well and none did not.
    #[track_caller]
    pub fn all_of(self, count: u64) -> Said {
        assert_eq!((self.number("ok"), self.number("failed")), (count, 0), "{}", self.0);
        self
    }

    /// The different answers and how often each was given.
    pub fn texts(&self) -> Vec<(String, u64)> {
        let texts = self.0["texts"].as_object().expect("texts");
        texts.iter().map(|(text, count)| (text.clone(), count.as_u64().expect("a count"))).collect()
    }

    /// How many sessions spoke which revision.
    #[track_caller]
    pub fn spoke(self, version: &str, count: u64) -> Said {
        assert_eq!(self.0["versions"], json!({ version: count }), "{}", self.0);
        self
    }

    /// How many answers came from replicas of this name.
    pub fn answered_by(&self, name: &str) -> u64 {
        let start = format!("{name}/");
        self.texts().iter().filter(|(text, _)| text.starts_with(&start)).map(|(_, count)| count).sum()
    }
}

/// A configuration for an MCP pool of these replicas; `settings` are the pool's, `more` stands at the end.
pub fn config(replicas: &[&Replica], settings: &str, more: &str) -> String {
    let upstreams: Vec<String> = replicas.iter().map(|replica| format!("\"{}\"", replica.address())).collect();
    let upstreams =
        if upstreams.is_empty() { String::new() } else { format!("upstreams = [{}]", upstreams.join(", ")) };
    format!(
        "[mcp]\nkeys = [\"{KEY}\"]\n[listener.web]\nbind = \"127.0.0.1:0\"\n[[route]]\npool = \"tools\"\n\
         [pool.tools]\nkind = \"mcp\"\n{upstreams}\n{settings}\n{more}\n"
    )
}

/// Two replicas, `a` and `b`, and a proxy before them.
pub struct Fleet {
    pub a: Replica,
    pub b: Replica,
    pub proxy: Proxy,
    settings: String,
}

impl Fleet {
    pub async fn of(sdks: [Sdk; 2], settings: &str) -> Fleet {
        let (a, b) = tokio::join!(Replica::start(sdks[0], "a"), Replica::start(sdks[1], "b"));
        let proxy = proxy(&config(&[&a, &b], settings, "")).start().await;
        proxy.settled().await;
        Fleet { a, b, proxy, settings: settings.to_owned() }
    }

    pub fn text(&self) -> String {
        config(&[&self.a, &self.b], &self.settings, "")
    }

    pub async fn clients(&self, sdk: Sdk) -> Clients {
        Clients::through(sdk, &self.proxy).await
    }

    /// The sum over both replicas of how many messages of a method have arrived.
    pub async fn asked(&self, method: &str) -> u64 {
        self.a.asked(method).await + self.b.asked(method).await
    }

    /// The sum over both replicas of something counted.
    pub async fn counted(&self, what: &str) -> u64 {
        let number = |counts: Value| counts[what].as_u64().expect("a number");
        number(self.a.counts().await) + number(self.b.counts().await)
    }

    /// Returns once this is so of the sum of something counted.
    pub async fn until_counted(&self, what: &str, holds: impl Fn(u64) -> bool) {
        until(&format!("{what} is as expected"), async || holds(self.counted(what).await).then_some(())).await;
    }
}

pub const MODERN: &str = "2026-07-28";
pub const LEGACY: &str = "2025-11-25";

pub fn uris(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("test://item/{number}")).collect()
}

/// Returns once every session has heard of exactly these, and lost nothing.
pub async fn hears(clients: &mut Clients, uris: &[String]) {
    let wanted = json!(uris);
    let mut last = None;
    let heard = async || {
        let said = clients.ask(json!({ "do": "heard" })).await;
        let all = said.0["heard"].as_array().expect("a list").iter().all(|heard| *heard == wanted);
        let lost = said.0["lost"].as_array().expect("a list").iter().any(|lost| !lost.is_null());
        assert!(!lost, "{said:?}");
        last = Some(said);
        all.then_some(())
    };
    until(&format!("{uris:?} have been heard of"), heard).await;
}

/// How often things that need luck are done; all of it where time does not matter.
pub fn rounds() -> u32 {
    if std::env::var_os("TIDEGATE_LONG").is_some() { 10 } else { 2 }
}
