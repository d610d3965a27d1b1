use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use slab::Slab;

use super::activity::Activity;
use crate::types::Moment;

/// The open connections of one listening socket on one worker, and whether they are to end.
#[derive(Debug, Default)]
pub(super) struct Roster {
    open: RefCell<Slab<Rc<Activity>>>,
    /// Until when what runs may go on.
    until: Cell<Option<Moment>>,
    waiting: RefCell<Vec<Waker>>,
}

impl Roster {
    /// A connection opens.
    pub(super) fn enter(self: &Rc<Self>) -> Entry {
        let activity = Rc::new(Activity::default());
        let key = self.open.borrow_mut().insert(activity.clone());
        Entry { roster: self.clone(), activity, key }
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        self.open.borrow().len()
    }

    /// Asks all of them to end, by `until` at the latest. Said again, the earlier moment counts.
    pub(super) fn drain(&self, until: Moment) {
        let until = self.until.get().map_or(until, |before| before.min(until));
        self.until.set(Some(until));
        self.open.borrow().iter().for_each(|(_, activity)| activity.wake());
    }

    /// Asks some idle connections to make room for others.
    pub(super) fn make_room(&self, most: usize) {
        let open = self.open.borrow();
        open.iter().filter(|(_, activity)| activity.ask_for_room()).take(most).for_each(drop);
    }

    /// Until when what runs may go on, once they are to end.
    pub(super) fn until(&self) -> Option<Moment> {
        self.until.get()
    }

    /// Ready once none is open.
    pub(super) async fn emptied(&self) {
        poll_fn(|cx| {
            if self.open.borrow().is_empty() {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

/// An open connection; gone when dropped.
#[derive(Debug)]
pub(super) struct Entry {
    roster: Rc<Roster>,
    activity: Rc<Activity>,
    key: usize,
}

impl Entry {
    pub(super) fn roster(&self) -> &Rc<Roster> {
        &self.roster
    }

    pub(super) fn activity(&self) -> &Rc<Activity> {
        &self.activity
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.roster.open.borrow_mut().remove(self.key);
        if self.roster.open.borrow().is_empty() {
            self.roster.waiting.take().into_iter().for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn a_roster_is_emptied_when_its_last_connection_leaves() {
        let roster = Rc::new(Roster::default());
        let (first, second) = (roster.enter(), roster.enter());
        assert_eq!(roster.len(), 2);
        drop(first);
        assert!(roster.emptied().now_or_never().is_none());
        drop(second);
        assert!(roster.emptied().now_or_never().is_some());
    }

    #[test]
    fn of_two_drains_the_earlier_end_counts() {
        let roster = Roster::default();
        assert_eq!(roster.until(), None);
        roster.drain(Moment::from_nanos(20));
        roster.drain(Moment::from_nanos(30));
        assert_eq!(roster.until(), Some(Moment::from_nanos(20)));
        roster.drain(Moment::from_nanos(10));
        assert_eq!(roster.until(), Some(Moment::from_nanos(10)));
    }
}
