use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Learned;
use crate::config::model::McpCache;
use crate::mcp::Sessions;
use crate::mcp::cache::{Bounds, Cache, Changed};
use crate::types::Moment;

/// What of a pool of MCP servers survives reloads.
#[derive(Debug, Default)]
pub struct McpKept {
    /// Sessions in use.
    pub sessions: Sessions,
    /// Sessions that were begun anew.
    moved: AtomicU64,
    cache: Mutex<Option<(McpCache, Cache)>>,
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

    /// What is kept of lists, within these bounds. Locked: a list is asked for once in a while.
    pub fn cache<T>(&self, bounds: &McpCache, act: impl FnOnce(&mut Cache) -> T) -> T {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.as_ref().is_some_and(|(known, _)| known != bounds) {
            *cache = None;
        }
        let made = || {
            let size = usize::try_from(bounds.size.0).unwrap_or(usize::MAX);
            let entries = if size == 0 { 0 } else { Bounds::default().entries };
            (bounds.clone(), Cache::new(Bounds { entries, bytes: size, ttl: bounds.max_age }))
        };
        act(&mut cache.get_or_insert_with(made).1)
    }

    /// A server has said that something has changed.
    pub fn changed(&self, changed: Changed<'_>) {
        if let Some((_, cache)) = &mut *self.cache.lock().unwrap_or_else(PoisonError::into_inner) {
            cache.invalidate(changed);
        }
    }

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
