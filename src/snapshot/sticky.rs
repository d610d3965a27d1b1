use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::{DashMap, Entry as Place};

use crate::types::Moment;

/// Which upstream a learned key belongs to: what a pool with `sticky.learn` remembers.
///
/// **Bounds**: `max` keys, and for moments as many more as workers learn while one of them makes room. Keys are kept as two keyed 64-bit
/// hashes, so that their length costs nothing and nobody can choose keys that collide.
/// **Cost**: one sharded lookup; no lock is held after the call. A key that is known and stays where it is changes one word.
///
/// *Why not the oldest of a few*: the first few of a hash table are always the same ones, so that some sessions would live for seconds
/// and others for ever. *Why not a list in order of use*: each request would have to lock it.
#[derive(Debug)]
pub struct Learned {
    entries: DashMap<u128, Entry>,
    size: AtomicUsize,
    forgetting: AtomicBool,
    first: RandomState,
    second: RandomState,
}

#[derive(Debug)]
struct Entry {
    identity: u64,
    used: AtomicU64,
}

impl Entry {
    fn is_fresh(&self, idle: Duration, now: Moment) -> bool {
        now.since(Moment::from_nanos(self.used.load(Ordering::Relaxed))) <= idle
    }
}

impl Default for Learned {
    fn default() -> Self {
        Learned {
            entries: DashMap::new(),
            size: AtomicUsize::new(0),
            forgetting: AtomicBool::new(false),
            first: RandomState::new(),
            second: RandomState::new(),
        }
    }
}

impl Learned {
    fn hash(&self, key: &[u8]) -> u128 {
        u128::from(self.first.hash_one(key)) << 64 | u128::from(self.second.hash_one(key))
    }

    /// The upstream that `key` belongs to, if it is known and was used within `idle`.
    pub fn find(&self, key: &[u8], idle: Duration, now: Moment) -> Option<u64> {
        let entry = self.entries.get(&self.hash(key))?;
        // What has been idle for too long is forgotten already, though it is still here: asking does not revive it.
        entry.is_fresh(idle, now).then(|| {
            entry.used.store(now.nanos(), Ordering::Relaxed);
            entry.identity
        })
    }

    /// From now on `key` belongs to the upstream `identity`.
    pub fn learn(&self, key: &[u8], identity: u64, max: usize, now: Moment) {
        let hash = self.hash(key);
        // Many upstreams repeat the key in each answer.
        if let Some(known) = self.entries.get(&hash).filter(|known| known.identity == identity) {
            return known.used.store(now.nanos(), Ordering::Relaxed);
        }
        let entry = Entry { identity, used: AtomicU64::new(now.nanos()) };
        if self.len() >= max && !self.entries.contains_key(&hash) {
            self.make_room(max);
        }
        match self.entries.entry(hash) {
            Place::Occupied(mut known) => drop(known.insert(entry)),
            Place::Vacant(place) => {
                self.size.fetch_add(1, Ordering::Relaxed);
                drop(place.insert(entry));
            }
        }
    }

    /// Forgets the longest unused eighth. In bulk, so that each new key of a full table pays some 300 ns for the passes.
    fn make_room(&self, max: usize) {
        if self.forgetting.swap(true, Ordering::Acquire) {
            return;
        }
        let mut uses: Vec<u64> = self.entries.iter().map(|entry| entry.used.load(Ordering::Relaxed)).collect();
        let mut wanted = ((max / 8).max(1) + uses.len().saturating_sub(max)).min(uses.len());
        if wanted > 0 {
            let border = *uses.select_nth_unstable(wanted - 1).1;
            self.retain(|entry| {
                let forget = wanted > 0 && entry.used.load(Ordering::Relaxed) <= border;
                wanted -= usize::from(forget);
                !forget
            });
        }
        self.forgetting.store(false, Ordering::Release);
    }

    /// Forgets what has not been used for `idle`.
    pub fn sweep(&self, idle: Duration, now: Moment) {
        self.retain(|entry| entry.is_fresh(idle, now));
    }

    fn retain(&self, mut keep: impl FnMut(&Entry) -> bool) {
        self.entries.retain(|_, entry| {
            let keep = keep(entry);
            if !keep {
                self.size.fetch_sub(1, Ordering::Relaxed);
            }
            keep
        });
    }

    /// Whether some key that was used within `idle` belongs to the upstream `identity`.
    ///
    /// **Cost**: looks at all keys in the worst case; not for the request path.
    pub fn leads_to(&self, identity: u64, idle: Duration, now: Moment) -> bool {
        self.entries.iter().any(|entry| entry.identity == identity && entry.is_fresh(idle, now))
    }

    /// How many keys that were used within `idle` each upstream has, by its identity.
    ///
    /// **Cost**: looks at all keys; not for the request path.
    pub fn by_upstream(&self, idle: Duration, now: Moment) -> HashMap<u64, usize> {
        let mut counts = HashMap::new();
        for entry in self.entries.iter().filter(|entry| entry.is_fresh(idle, now)) {
            *counts.entry(entry.identity).or_default() += 1;
        }
        counts
    }

    /// How many keys are known.
    pub fn len(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
        assert!(learned.leads_to(7, IDLE, start + IDLE * 3) && !learned.leads_to(8, IDLE, start));
        for _ in 0..2 {
            assert_eq!(learned.find(b"session-1", IDLE, start + IDLE * 4), None, "asking does not revive it");
        }
        assert!(!learned.leads_to(7, IDLE, start + IDLE * 4));
        learned.sweep(IDLE, start + IDLE * 4);
        assert!(learned.is_empty());
    }

    #[test]
    fn a_key_that_moves_is_found_where_it_went() {
        let learned = Learned::default();
        let start = Moment::from_nanos(1);
        learned.learn(b"session", 7, 10, start);
        learned.learn(b"session", 8, 10, start);
        assert_eq!((learned.find(b"session", IDLE, start), learned.len()), (Some(8), 1));
    }

    #[test]
    fn it_never_holds_more_than_its_bound() {
        for max in [1, 2, 50] {
            let learned = Learned::default();
            for i in 0..1000u64 {
                learned.learn(&i.to_be_bytes(), i, max, Moment::from_nanos(i));
                assert!(learned.len() <= max && learned.len() == learned.entries.len());
            }
            assert_eq!(learned.find(&999u64.to_be_bytes(), IDLE, Moment::from_nanos(1000)), Some(999));
        }
    }

    #[test]
    fn a_flood_of_new_keys_takes_the_longest_unused_and_never_one_in_use() {
        let learned = Learned::default();
        let (max, used) = (1000, 100u64);
        for i in 0..20_000u64 {
            let now = Moment::from_nanos(i);
            learned.learn(&i.to_be_bytes(), i, max, now);
            if i % 100 == 99 {
                for key in 0..used {
                    assert_eq!(learned.find(&key.to_be_bytes(), IDLE, now), Some(key), "after {i}");
                }
            }
        }
        let newest = 20_000 - 700..20_000u64;
        for i in newest {
            assert!(learned.find(&i.to_be_bytes(), IDLE, Moment::from_nanos(20_000)).is_some(), "{i}");
        }
    }
}
