//! The MCP part of the model: `[mcp]` and what pools of `kind = "mcp"` have beyond others.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::model::Secret;
use super::section::{MILLISECOND, section};
use crate::limit::Per;
pub use crate::stdio::Share as StdioShare;
use crate::types::{Rate, Size};

/// What a pool's upstreams are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolKind {
    /// Any HTTP servers.
    Http,
    /// MCP servers.
    Mcp,
}

/// What becomes of an MCP session whose upstream has lost it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionLoss {
    /// It is initialized again at another upstream, and its client does not notice.
    Reinit,
    /// Its client is told: 404.
    NotFound,
}

section! {
    /// What holds for all pools of MCP servers.
    pub struct Mcp ("mcp") {
        /// What session ids are sealed with, each at least 32 characters: the first seals, all of them open. Proxies with the same keys serve one another's sessions. Unless given, a key is made once and kept in the `scaler.state` folder.
        keys: Vec<Secret> = vec![],
        /// A session id older than this is refused; its client has to initialize again.
        session_ttl: Duration [Duration::from_secs(60)..] = Duration::from_secs(30 * 86400),
        /// Sessions remembered by this proxy: how often they are used, and where those are that were moved. Others work as well, from what their ids hold.
        max_sessions: u32 [1..] = 100_000,
    }
}

section! {
    /// How sessions leave an MCP upstream that drains.
    pub struct McpDrain ("pool.NAME.drain") {
        /// How long its sessions and streams may stay; the pool's `drain_timeout` unless given.
        deadline: Option<Duration> = None,
        /// Whether sessions that are left at the deadline are initialized at another upstream; otherwise they are lost.
        migrate: bool = true,
        /// Whether sessions hold nothing of worth, so that they move at once instead of at the deadline.
        portable: bool = false,
    }
}

section! {
    /// A limit of what clients may ask MCP servers; refusals are answers that a model can read.
    pub struct McpLimit ("pool.NAME.limit") {
        /// Who is counted: `"client"`, `"client/24"`, `"header:NAME"`, `"cookie:NAME"` or `"all"`. Never the session: a new one would begin anew.
        per: Per = Per::Client,
        /// Only calls of these tools; each is counted by itself. All where absent.
        tool: Vec<String> = vec![],
        /// Only these methods, such as `"tools/call"`; `"tools/call"` where `tool` is given, else every request.
        method: Vec<String> = vec![],
        /// Calls: `"30/min"`, `"5/s"`, `"1000/d"`.
        rate: Option<Rate> = None,
        /// So many may come at once above the rate; unless given as many as the rate allows in its unit of time.
        burst: Option<u32> = None,
        /// Calls in progress at once.
        concurrency: Option<u32> [1..] = None,
        /// How much of the rate one call uses.
        cost: u32 [1..=1_000_000] = 1,
        /// Clients remembered at once; then the longest unused is forgotten.
        max_clients: u32 [1..] = 100_000,
    }
}

section! {
    /// MCP servers that speak on standard input and output: started on demand, and bridged.
    pub struct McpStdio ("pool.NAME.stdio", short command) {
        /// The program and its arguments: `["npx", "-y", "@modelcontextprotocol/server-everything"]`.
        command: Vec<String>,
        /// Environment variables beside our own.
        env: BTreeMap<String, String> = BTreeMap::new(),
        /// Where it runs; our own directory unless given.
        cwd: Option<PathBuf> = None,
        /// Who shares a process: `"session"` (each session has its own), `"principal"` (all sessions of one key or token) or `"all"`.
        share: StdioShare = StdioShare::Session,
        /// A process that nobody has spoken to for so long is stopped; the next request starts another.
        idle_timeout: Duration [Duration::from_secs(1)..] = Duration::from_secs(300),
        /// A session's own process is stopped when none of its requests and streams has been open for so long; the session comes back with its next request.
        abandoned: Duration [Duration::from_millis(100)..] = Duration::from_secs(20),
        /// From SIGTERM to SIGKILL.
        grace: Duration = Duration::from_secs(5),
        /// Processes at once.
        max_processes: u32 [1..=10_000] = 100,
    }
}

section! {
    /// What is kept of lists, as their `ttlMs` and `cacheScope` allow.
    pub struct McpCache ("pool.NAME.list_cache", short size) {
        /// All answers together; `"0"` keeps none.
        size: Size [..=Size(1 << 30)] = Size(8 << 20),
        /// No answer is kept for longer, whatever its `ttlMs` says.
        max_age: Duration [MILLISECOND..] = Duration::from_secs(3600),
    }
}
