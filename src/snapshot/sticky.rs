use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;

use crate::types::Moment;

/// Which upstream a learned key belongs to: what a pool with `sticky.learn` remembers.
///
/// **Bounds**: `max` keys; beyond that the longest unused of a few looked at makes room. Keys are kept as two keyed 64-bit hashes, so that
/// their length costs nothing and nobody can choose keys that collide.
/// **Cost**: one sharded lookup; no lock is held after the call.
#[derive(Debug)]
pub struct Learned {
    entries: DashMap<u128, Entry>,
    first: RandomState,
    second: RandomState,
}

#[derive(Debug)]
struct Entry {
    identity: u64,
    used: AtomicU64,
}

/// How many entries are looked at to find one to forget.
const LOOKED_AT: usize = 8;

impl Default for Learned {
    fn default() -> Self {
        Learned { entries: DashMap::new(), first: RandomState::new(), second: RandomState::new() }
    }
}

impl Learned {
    fn hash(&self, key: &[u8]) -> u128 {
        u128::from(self.first.hash_one(key)) << 64 | u128::from(self.second.hash_one(key))
    }

    /// The upstream that `key` belongs to, if it is known and was used within `idle`.
    pub fn find(&self, key: &[u8], idle: Duration, now: Moment) -> Option<u64> {
        let entry = self.entries.get(&self.hash(key))?;
        let used = entry.used.swap(now.nanos(), Ordering::Relaxed);
        (now.since(Moment::from_nanos(used)) <= idle).then_some(entry.identity)
    }

    /// From now on `key` belongs to the upstream `identity`.
    pub fn learn(&self, key: &[u8], identity: u64, max: usize, now: Moment) {
        let hash = self.hash(key);
        if self.entries.len() >= max && !self.entries.contains_key(&hash) {
            self.make_room();
        }
        self.entries.insert(hash, Entry { identity, used: AtomicU64::new(now.nanos()) });
    }

    fn make_room(&self) {
        let oldest = self
            .entries
            .iter()
            .take(LOOKED_AT)
            .min_by_key(|entry| entry.used.load(Ordering::Relaxed))
            .map(|entry| *entry.key());
        if let Some(oldest) = oldest {
            self.entries.remove(&oldest);
        }
    }

    /// Forgets what has not been used for `idle`.
    pub fn sweep(&self, idle: Duration, now: Moment) {
        self.entries.retain(|_, entry| now.since(Moment::from_nanos(entry.used.load(Ordering::Relaxed))) <= idle);
    }

    /// How many keys are known.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    #[test]
    fn a_key_is_known_until_it_has_been_idle_too_long() {
        let learned = Learned::default();
        let start = Moment::from_nanos(1);
        learned.learn(b"session-1", 7, 10, start);
        assert_eq!(learned.find(b"session-1", IDLE, start + IDLE), Some(7));
        assert_eq!(
            learned.find(b"session-1", IDLE, start + IDLE + IDLE),
            Some(7),
            "each use starts the idle time anew"
        );
        assert_eq!(learned.find(b"session-2", IDLE, start), None);
        learned.sweep(IDLE, start + IDLE * 4);
        assert!(learned.is_empty());
    }

    #[test]
    fn it_never_holds_more_than_its_bound() {
        let learned = Learned::default();
        for i in 0..1000u64 {
            learned.learn(&i.to_be_bytes(), i, 50, Moment::from_nanos(i));
        }
        assert!(learned.len() <= 50);
        assert_eq!(learned.find(&999u64.to_be_bytes(), IDLE, Moment::from_nanos(1000)), Some(999));
    }
}
