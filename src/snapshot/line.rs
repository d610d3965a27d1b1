//! Who waits, in which order, and who is told that it may try.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use smallvec::SmallVec;

use crate::types::Moment;

/// What a waiting request can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Any upstream.
    Any,
    /// Any upstream that it has not tried yet. It came before all who were never served, and goes in front of them.
    Again,
    /// The upstream of this identity, which it is stuck to.
    Only(u64),
}

impl Class {
    fn can_use(self, identity: u64) -> bool {
        !matches!(self, Class::Only(only) if only != identity)
    }
}

/// Upstreams, by identity, that others who came earlier are stuck to and wait for.
pub type Reserved = SmallVec<[u64; 4]>;

/// Leave to try, once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Turn {
    /// The upstream that has given a slot back, if that is why.
    pub(super) slot: Option<u64>,
    /// All are asked to look again, one after the other, and it is this one's turn.
    pub(super) look: bool,
    /// Whether it may take a slot; otherwise it may only look how things are.
    pub take: bool,
    /// What it must leave to others.
    pub reserved: Reserved,
}

/// The line of one pool, without its wakers: a state machine that answers who is to be woken.
///
/// **What wakes.** A slot given back is a *call*: it goes to the first who can use it and has not been called yet. Whoever was called tries,
/// and either has a slot then, or found none (somebody else has it, and will give it back), or cannot use that upstream and passes the call
/// on. Whoever goes passes on what it was called for and did not use. So no call is ever lost.
///
/// **A new snapshot** has everybody look again, one after the other in the order of the line, because what has come or gone may be
/// anybody's.
///
/// **Cost**: logarithmic in the number of those who wait.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiters: BTreeMap<u64, Waiter>,
    classes: HashMap<Class, Places>,
    /// The next place at the end.
    end: u64,
    /// The next place among those that have been served before.
    again: u64,
    /// Whose turn it is to look again.
    looking: Option<u64>,
    /// Something has changed since that began.
    look_again: bool,
    /// Calls that came while everybody who could use them had been called already: whoever joins behind those has them.
    spare: Vec<u64>,
}

#[derive(Debug)]
struct Waiter {
    class: Class,
    since: Moment,
    slot: Option<u64>,
    look: bool,
}

/// The places of one class.
#[derive(Debug, Default)]
struct Places {
    all: BTreeSet<u64>,
    /// Those that have not been called.
    quiet: BTreeSet<u64>,
}

/// Who is to be woken.
pub(super) type Woken = SmallVec<[u64; 2]>;

/// Places from here on are for requests that were never served; those below for the others.
const NEW: u64 = 1 << 32;

impl Line {
    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether not everybody has looked yet since a new snapshot.
    #[cfg(test)]
    pub(super) fn is_looking(&self) -> bool {
        self.looking.is_some()
    }

    /// When the one came who has waited longest.
    pub(super) fn oldest(&self) -> Option<Moment> {
        let first = self.waiters.first_key_value();
        let first_new = self.waiters.range(NEW..).next();
        first.into_iter().chain(first_new).map(|(_, waiter)| waiter.since).min()
    }

    /// Whether somebody who has not joined may try at once; then, what it must leave to others. `shared` says whether the upstream that it
    /// is stuck to is open to everybody.
    pub(super) fn approach(&self, class: Class, shared: bool) -> Option<Reserved> {
        self.may_try(u64::MAX, class, shared).then(|| self.reserved(u64::MAX, class))
    }

    /// Takes a place. The answer has a turn where nobody is in front whom it would overtake.
    pub(super) fn join(&mut self, class: Class, shared: bool, now: Moment, woken: &mut Woken) -> (u64, Option<Turn>) {
        let place = if class == Class::Again { self.again } else { NEW + self.end };
        match class {
            Class::Again => self.again += 1,
            Class::Any | Class::Only(_) => self.end += 1,
        }
        self.waiters.insert(place, Waiter { class, since: now, slot: None, look: false });
        self.enlist(place, class);
        let turn = self.may_try(place, class, shared);
        if !turn && let Some(index) = self.spare.iter().position(|identity| class.can_use(*identity)) {
            let identity = self.spare.swap_remove(index);
            self.call(identity, woken);
        }
        (place, turn.then(|| Turn { slot: None, look: false, take: true, reserved: self.reserved(place, class) }))
    }

    fn may_try(&self, place: u64, class: Class, shared: bool) -> bool {
        let none_before = |class: Class| {
            self.classes.get(&class).and_then(|places| places.all.first()).is_none_or(|first| *first >= place)
        };
        match class {
            Class::Again => true,
            Class::Any => none_before(Class::Any),
            Class::Only(_) => none_before(class) && (!shared || none_before(Class::Any)),
        }
    }

    fn reserved(&self, place: u64, class: Class) -> Reserved {
        if matches!(class, Class::Only(_)) {
            return Reserved::new();
        }
        let waited_for = self.classes.iter().filter_map(|(class, places)| match class {
            Class::Only(identity) if places.all.first().is_some_and(|first| *first < place) => Some(*identity),
            _ => None,
        });
        waited_for.collect()
    }

    fn enlist(&mut self, place: u64, class: Class) {
        let places = self.classes.entry(class).or_default();
        places.all.insert(place);
        places.quiet.insert(place);
    }

    fn strike(&mut self, place: u64, class: Class) {
        if let Some(places) = self.classes.get_mut(&class) {
            places.all.remove(&place);
            places.quiet.remove(&place);
            if places.all.is_empty() {
                self.classes.remove(&class);
            }
        }
    }

    /// The upstream `identity` has a free slot: calls the first who can use it.
    pub(super) fn call(&mut self, identity: u64, woken: &mut Woken) {
        self.call_from(0, identity, &[Class::Any, Class::Again, Class::Only(identity)], woken);
    }

    fn call_from(&mut self, from: u64, identity: u64, classes: &[Class], woken: &mut Woken) {
        let first = |class: &Class| Some((*self.classes.get(class)?.quiet.range(from..).next()?, *class));
        match classes.iter().filter_map(first).min_by_key(|(place, _)| *place) {
            Some((place, class)) => {
                if let (Some(places), Some(waiter)) = (self.classes.get_mut(&class), self.waiters.get_mut(&place)) {
                    places.quiet.remove(&place);
                    waiter.slot = Some(identity);
                    woken.push(place);
                }
            }
            None if !self.waiters.is_empty() => self.spare.push(identity),
            None => {}
        }
    }

    /// Has everybody look again.
    pub(super) fn look(&mut self, woken: &mut Woken) {
        if self.looking.is_some() {
            self.look_again = true;
            return;
        }
        self.look_from(0, woken);
    }

    fn look_from(&mut self, from: u64, woken: &mut Woken) {
        self.looking = None;
        let mut next = self.waiters.range_mut(from..).next();
        if next.is_none() && std::mem::take(&mut self.look_again) {
            next = self.waiters.iter_mut().next();
        }
        if let Some((place, waiter)) = next {
            waiter.look = true;
            self.looking = Some(*place);
            woken.push(*place);
        }
    }

    /// Takes the turn, if there is one. What comes from now on is another.
    pub(super) fn turn(&mut self, place: u64) -> Option<Turn> {
        let waiter = self.waiters.get_mut(&place)?;
        let (slot, look, class) = (waiter.slot.take(), std::mem::take(&mut waiter.look), waiter.class);
        if slot.is_none() && !look {
            return None;
        }
        if let Some(places) = self.classes.get_mut(&class) {
            places.quiet.insert(place);
        }
        // Where one in front has found nothing, a slot that has come free since is meant for that one.
        let take = slot.is_some() || class != Class::Any || self.may_try(place, class, true);
        Some(Turn { slot, look, take, reserved: self.reserved(place, class) })
    }

    /// It has tried in vain.
    pub(super) fn failed(&mut self, place: u64, turn: &Turn, woken: &mut Woken) {
        let class = self.waiters.get(&place).map(|waiter| waiter.class);
        if let (Some(slot), Some(class)) = (turn.slot, class) {
            // Others of its class can use no more than it can; those who have tried different ones might.
            let all = [Class::Any, Class::Again, Class::Only(slot)];
            let others: SmallVec<[Class; 3]> =
                all.into_iter().filter(|other| *other != class || class == Class::Again).collect();
            self.call_from(place + 1, slot, &others, woken);
        }
        self.looked(place, turn.look, woken);
    }

    fn looked(&mut self, place: u64, look: bool, woken: &mut Woken) {
        if look && self.looking == Some(place) {
            self.look_from(place + 1, woken);
        }
    }

    /// What it can use is another since a new snapshot.
    pub(super) fn change(&mut self, place: u64, class: Class) {
        let Some(waiter) = self.waiters.get_mut(&place) else { return };
        let before = std::mem::replace(&mut waiter.class, class);
        let called = waiter.slot.is_some();
        self.strike(place, before);
        self.enlist(place, class);
        if called && let Some(places) = self.classes.get_mut(&class) {
            places.quiet.remove(&place);
        }
    }

    /// It goes: with a slot at the upstream `served`, or without any.
    pub(super) fn leave(&mut self, place: u64, turn: Option<&Turn>, served: Option<u64>, woken: &mut Woken) {
        let Some(waiter) = self.waiters.remove(&place) else { return };
        self.strike(place, waiter.class);
        let unused = turn.and_then(|turn| turn.slot).filter(|slot| served != Some(*slot));
        unused.into_iter().chain(waiter.slot).for_each(|slot| self.call(slot, woken));
        if let Class::Only(identity) = waiter.class {
            // Others have left the upstream to it, perhaps more of it than it has used.
            self.call(identity, woken);
        }
        if served.is_some() && turn.is_some_and(|turn| turn.slot.is_none() && !turn.look) {
            // It has found room that nobody was called for; there may be more, and some have joined behind it without a look.
            self.look(woken);
        }
        let look = waiter.look || turn.is_some_and(|turn| turn.look);
        self.looked(place, look, woken);
        if self.waiters.is_empty() {
            (self.looking, self.look_again) = (None, false);
            self.spare.clear();
        }
    }
}
