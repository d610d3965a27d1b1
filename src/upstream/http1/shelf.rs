//! Connections that wait for their next request.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::link::{Link, Noise};
use crate::sweep::Sweep;
use crate::telemetry::Lane;
use crate::types::Moment;
use crate::upstream::outflow::RequestBody;

/// The idle connections of one worker to one target, the latest used last: what is used often stays warm, the rest ages out.
pub(in crate::upstream) struct Shelf<B> {
    idle: RefCell<Vec<(Rc<Link<B>>, Moment)>>,
    room: Cell<usize>,
    pub(super) sweep: Rc<Sweep>,
    /// Where its connections are counted.
    pub(super) lane: Lane,
}

impl<B: RequestBody> Shelf<B> {
    pub(in crate::upstream) fn new(sweep: Rc<Sweep>, lane: Lane) -> Self {
        Shelf { idle: RefCell::default(), room: Cell::new(0), sweep, lane }
    }

    pub(in crate::upstream) fn len(&self) -> usize {
        self.idle.borrow().len()
    }

    /// Keeps at most so many from now on.
    pub(in crate::upstream) fn set_room(&self, room: usize) {
        if self.room.replace(room) <= room {
            return;
        }
        let excess = self.len().saturating_sub(room);
        let old: Vec<_> = self.idle.borrow_mut().drain(..excess).collect();
        drop(old);
    }

    /// Closes what has been idle since `until` and what the upstream has closed.
    pub(in crate::upstream) fn expire(&self, until: Moment) {
        self.idle.borrow_mut().retain(|(link, since)| {
            let noise = link.inner.borrow_mut().noise();
            *since > until && is_good(link, noise)
        });
    }

    /// A connection whose request and answer are both complete: it is kept for the next one if there can be one, and closed otherwise.
    pub(super) fn keep(&self, link: Rc<Link<B>>) {
        let mut idle = self.idle.borrow_mut();
        let (reusable, more) = {
            let inner = link.inner.borrow();
            (inner.is_reusable(), inner.has_more())
        };
        if more {
            link.counted.strayed();
        }
        if reusable && idle.len() < self.room.get() {
            link.counted.set_idle(true);
            idle.push((link, self.sweep.now()));
        }
    }

    /// An idle connection that can be used now. For a request that cannot be sent a second time, one that is `surely` open.
    pub(super) fn take(&self, surely: bool) -> Option<Rc<Link<B>>> {
        loop {
            let (link, _) = self.idle.borrow_mut().pop()?;
            let noise = {
                let inner = &mut *link.inner.borrow_mut();
                if surely { inner.sure_noise() } else { inner.noise() }
            };
            if is_good(&link, noise) {
                link.counted.set_idle(false);
                return Some(link);
            }
        }
    }
}

/// Whether an idle connection on which this was heard can be used again.
fn is_good<B: RequestBody>(link: &Link<B>, noise: Option<Noise>) -> bool {
    if noise == Some(Noise::Bytes) {
        link.counted.strayed();
    }
    noise.is_none()
}
