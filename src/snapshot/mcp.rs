use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::Learned;
use crate::mcp::Sessions;
use crate::types::Moment;

/// What of a pool of MCP servers survives reloads.
#[derive(Debug, Default)]
pub struct McpKept {
    /// Sessions in use.
    pub sessions: Sessions,
    /// Sessions that were begun anew.
    moved: AtomicU64,
    /// Which upstream has sealed a `requestState`, or holds a task.
    pub affinity: Learned,
}

impl McpKept {
    /// How long a session that nobody uses is remembered.
    pub const IDLE: Duration = Duration::from_secs(3600);
    /// How long a state or task is looked for where it came from.
    pub const AFFINITY: Duration = Duration::from_secs(3600);
    /// So many states and tasks are remembered.
    pub const STATES: usize = 100_000;

    /// A session has been begun anew elsewhere.
    pub fn moved(&self) {
        self.moved.fetch_add(1, Relaxed);
    }

    /// How many have been.
    pub fn moves(&self) -> u64 {
        self.moved.load(Relaxed)
    }

    /// Forgets what has not been used for long.
    pub fn sweep(&self, now: Moment) {
        self.sessions.sweep(Self::IDLE, now);
        self.affinity.sweep(Self::AFFINITY, now);
    }
}
