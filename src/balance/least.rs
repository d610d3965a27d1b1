use std::sync::atomic::AtomicU64;

use super::random::best_of;
use super::round_robin::{RoundRobin, turns};
use super::scan::least_by;
use super::sequence::Sequence;
use super::table::{Draw, Member};

/// The fewest requests in flight for its weight.
///
/// The true least of all members, up to [`SCANNED`] of them: about 2 ns each. Of more, the best of [`CHOICES`] drawn by
/// weight: of 1,000 members that leaves fewer than one in a hundred picks outside the least loaded half. Idle upstreams
/// share in turn, by weight, as with NGINX's `least_conn`.
#[derive(Debug)]
pub(super) enum Least {
    Scan(RoundRobin),
    Sample(Sequence),
}

/// Above so many members some are drawn instead of all looked at.
pub(super) const SCANNED: usize = 512;
/// How many are drawn then.
pub(super) const CHOICES: usize = 8;

impl Least {
    pub(super) fn new(members: &[Member]) -> Self {
        if members.len() <= SCANNED { Least::Scan(RoundRobin::new(members)) } else { Least::Sample(turns(members)) }
    }

    pub(super) fn propose(&self, members: &[Member], turn: &AtomicU64, draw: &Draw<'_>) -> Option<usize> {
        match self {
            Least::Scan(turns) => least_by(members, draw, turns.next(turn), Member::crowding),
            Least::Sample(turns) => best_of(CHOICES, turns, members, draw, Member::crowding),
        }
    }
}
