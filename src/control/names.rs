//! Names that pools refer to, each looked up by a task of its own whenever its records run out.

use std::collections::HashMap;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use super::event::Event;
use crate::types::Address;
use crate::upstream::{Resolution, SystemLookup, watch};

/// The names being looked up.
#[derive(Default)]
pub(super) struct Names {
    lookup: Rc<SystemLookup>,
    watched: HashMap<(Arc<str>, Address), Watching>,
}

/// A running series of lookups; it ends when this is dropped.
struct Watching(JoinHandle<()>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Names {
    /// From now on this pool's name is looked up.
    pub(super) fn want(&mut self, pool: &Arc<str>, address: &Address, events: &UnboundedSender<Event>) {
        self.watched.entry((pool.clone(), address.clone())).or_insert_with(|| {
            let (lookup, pool, address, events) = (self.lookup.clone(), pool.clone(), address.clone(), events.clone());
            Watching(tokio::task::spawn_local(async move {
                let tell = |resolution: Resolution| {
                    // Control ends last; without it there is nobody to tell.
                    let _ = events.send(Event::Resolved { pool: pool.clone(), address: address.clone(), resolution });
                };
                watch(&*lookup, &address, tell).await;
            }))
        });
    }

    /// Stops looking up what no pool refers to any longer.
    pub(super) fn keep<'a>(&mut self, wanted: impl Iterator<Item = (&'a Arc<str>, &'a Address)>) {
        let wanted: HashSet<(Arc<str>, Address)> =
            wanted.map(|(pool, address)| (pool.clone(), address.clone())).collect();
        self.watched.retain(|key, _| wanted.contains(key));
    }
}
