//! The sessions this proxy has seen: where those are that were moved, what they had set, and how many each upstream has.
//!
//! Nothing here is needed to route a session, because its id says where it is. What is lost with this table is the knowledge that a session
//! was moved: then it is initialized once more.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use dashmap::DashMap;

use super::seal::Session;
use crate::types::Moment;

/// Where a session is.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// The upstream's identity.
    pub upstream: u64,
    /// The session's id there.
    pub id: Box<str>,
}

/// A session in use.
#[derive(Debug)]
pub struct Live {
    /// How it was sealed.
    pub sealed: Session,
    place: ArcSwap<Place>,
    used: AtomicU64,
    /// Requests and streams open now.
    open: AtomicU32,
    /// Its client has ended it: it is not to be begun again.
    ended: AtomicBool,
    /// Held by whoever moves it, so that it is moved once, whoever notices.
    pub moving: tokio::sync::Mutex<()>,
    soft: Mutex<Vec<Soft>>,
}

/// A setting that the session has made at its upstream, to be made again where it is moved to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Soft {
    /// The method and what it was about: a later one replaces an earlier one.
    pub key: Box<str>,
    /// The request's method.
    pub method: &'static str,
    /// Its `params`, as JSON text.
    pub params: Bytes,
}

/// So many settings are kept for a session, of so many bytes together.
const SOFT: (usize, usize) = (64, 8 << 10);

impl Live {
    fn new(sealed: Session, now: Moment) -> Self {
        let place = Place { upstream: sealed.upstream, id: sealed.id.clone() };
        Live {
            sealed,
            place: ArcSwap::from_pointee(place),
            used: AtomicU64::new(now.nanos()),
            open: AtomicU32::new(0),
            ended: AtomicBool::new(false),
            moving: tokio::sync::Mutex::new(()),
            soft: Mutex::default(),
        }
    }

    /// Where it is now.
    pub fn place(&self) -> Arc<Place> {
        self.place.load_full()
    }

    /// It has been moved; only by whoever holds [`Live::moving`].
    pub fn moved(&self, to: Place) {
        self.place.store(Arc::new(to));
    }

    /// Whether its client has ended it. That is remembered for as long as a session that nobody uses.
    pub fn is_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    /// Its client ends it; or takes that back, where its server would not have it.
    pub fn set_ended(&self, ended: bool) {
        self.ended.store(ended, Relaxed);
    }

    /// Keeps a setting, if there is room.
    pub fn keep(&self, soft: Soft) {
        let mut kept = self.soft.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|known| known.key != soft.key);
        let bytes: usize = kept.iter().map(|known| known.params.len()).sum();
        if kept.len() < SOFT.0 && bytes + soft.params.len() <= SOFT.1 {
            kept.push(soft);
        }
    }

    /// Forgets a setting.
    pub fn unset(&self, key: &str) {
        self.soft.lock().unwrap_or_else(PoisonError::into_inner).retain(|known| *known.key != *key);
    }

    /// The settings, in the order in which they were made.
    pub fn soft(&self) -> Vec<Soft> {
        self.soft.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A session with something open; closed when dropped.
#[derive(Debug)]
pub struct Open(pub Arc<Live>);

impl std::ops::Deref for Open {
    type Target = Arc<Live>;

    fn deref(&self) -> &Arc<Live> {
        &self.0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// All sessions of a pool that are known here.
///
/// **Bounds**: `max` entries; then the longest unused eighth is forgotten. **Cost**: one sharded lookup for a request.
#[derive(Debug, Default)]
pub struct Sessions {
    known: DashMap<u64, Arc<Live>>,
    size: AtomicUsize,
    hasher: RandomState,
}

impl Sessions {
    /// The session of a sealed id, in use from now on.
    pub fn open(&self, id: &[u8], sealed: impl FnOnce() -> Option<Session>, max: usize, now: Moment) -> Option<Open> {
        let key = self.hasher.hash_one(id);
        let live = match self.known.get(&key) {
            Some(live) if live.is_ended() => return None,
            Some(live) => live.clone(),
            None => {
                let live = Arc::new(Live::new(sealed()?, now));
                if self.size.load(Relaxed) >= max {
                    self.make_room(max);
                }
                let entry = self.known.entry(key).or_insert_with(|| {
                    self.size.fetch_add(1, Relaxed);
                    live
                });
                entry.clone()
            }
        };
        live.used.store(now.nanos(), Relaxed);
        live.open.fetch_add(1, Relaxed);
        Some(Open(live))
    }

    /// Where those are that have not been ended.
    fn living(&self) -> impl Iterator<Item = u64> {
        self.known.iter().filter(|live| !live.is_ended()).map(|live| live.place.load().upstream)
    }

    /// Forgets those that nobody has used for `idle`.
    pub fn sweep(&self, idle: Duration, now: Moment) {
        self.retain(|live| live.open.load(Relaxed) > 0 || now.since(live.last()) <= idle);
    }

    /// How many each upstream has, by its identity.
    pub fn count(&self) -> HashMap<u64, usize> {
        let mut counts = HashMap::new();
        for upstream in self.living() {
            *counts.entry(upstream).or_insert(0) += 1;
        }
        counts
    }

    /// How many this upstream has.
    pub fn at(&self, upstream: u64) -> usize {
        self.living().filter(|known| *known == upstream).count()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.size.load(Relaxed)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn make_room(&self, max: usize) {
        let idle = |live: &Arc<Live>| live.open.load(Relaxed) == 0;
        let mut uses: Vec<u64> =
            self.known.iter().filter(|live| idle(live)).map(|live| live.used.load(Relaxed)).collect();
        let wanted = (max / 8).max(1).min(uses.len());
        if wanted > 0 {
            let border = *uses.select_nth_unstable(wanted - 1).1;
            self.retain(|live| !idle(live) || live.used.load(Relaxed) > border);
        }
    }

    fn retain(&self, mut keep: impl FnMut(&Arc<Live>) -> bool) {
        self.known.retain(|_, live| {
            let kept = keep(live);
            if !kept {
                self.size.fetch_sub(1, Relaxed);
            }
            kept
        });
    }
}

impl Live {
    fn last(&self) -> Moment {
        Moment::from_nanos(self.used.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(id: &str) -> Session {
        Session { upstream: 1, id: id.into(), version: "2025-11-25".into(), params: "{}".into(), born: 0 }
    }

    fn at(seconds: u64) -> Moment {
        Moment::START + Duration::from_secs(seconds)
    }

    #[test]
    fn a_session_is_one_however_often_it_is_opened_and_stays_where_it_was_moved() {
        let sessions = Sessions::default();
        let first = sessions.open(b"x", || Some(session("a")), 10, at(1)).unwrap();
        first.moved(Place { upstream: 2, id: "b".into() });
        let second = sessions.open(b"x", || panic!("it is known"), 10, at(2)).unwrap();
        assert_eq!(*second.place(), Place { upstream: 2, id: "b".into() });
        assert_eq!((sessions.len(), sessions.count()), (1, HashMap::from([(2, 1)])));
        assert!(sessions.open(b"forged", || None, 10, at(2)).is_none());
        sessions.sweep(Duration::from_secs(10), at(100));
        assert_eq!(sessions.len(), 1, "it is open");
        first.set_ended(true);
        assert!(sessions.open(b"x", || Some(session("a")), 10, at(3)).is_none(), "its client has ended it");
        assert_eq!(sessions.count(), HashMap::new());
        drop((first, second));
        sessions.sweep(Duration::from_secs(10), at(11));
        assert_eq!(sessions.len(), 1);
        sessions.sweep(Duration::from_secs(10), at(13));
        assert_eq!(sessions.len(), 0);
    }

    #[test]
    fn of_too_many_the_longest_unused_go() {
        let sessions = Sessions::default();
        for number in 0..100u64 {
            let name = number.to_string();
            drop(sessions.open(name.as_bytes(), || Some(session(&name)), 16, at(number)));
        }
        assert!(sessions.len() <= 16, "{}", sessions.len());
        assert!(sessions.open(b"99", || None, 16, at(200)).is_some());
        assert!(sessions.open(b"0", || None, 16, at(200)).is_none());
    }

    #[test]
    fn settings_are_kept_once_each_and_bounded() {
        let live = Live::new(session("a"), at(0));
        let soft = |key: &str, params: &'static str| Soft {
            key: key.into(),
            method: "resources/subscribe",
            params: Bytes::from_static(params.as_bytes()),
        };
        live.keep(soft("a", "1"));
        live.keep(soft("b", "2"));
        live.keep(soft("a", "3"));
        assert_eq!(live.soft(), [soft("b", "2"), soft("a", "3")]);
        live.unset("b");
        (0..200).for_each(|number| live.keep(soft(&number.to_string(), "x")));
        assert_eq!(live.soft().len(), SOFT.0);
    }
}
