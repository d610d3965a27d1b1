use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::sequence::Sequence;
use super::table::{Draw, Member};

/// In turn; with different weights smooth weighted round robin, which is the same thing.
///
/// **Exact across workers**: they draw their turns from one counter. Any so many picks in a row as the sequence is long
/// give each member exactly its share, whoever picks.
#[derive(Debug)]
pub(super) struct RoundRobin {
    sequence: Sequence,
}

/// Turns in a row that may fall to members that cannot take them, before somebody else takes it out of turn.
const SKIPS: usize = 64;

impl RoundRobin {
    pub(super) fn new(members: &[Member]) -> Self {
        RoundRobin { sequence: turns(members) }
    }

    /// A member that cannot take its turn loses it: the turn counter goes on, so its share falls to all the others
    /// alike and not to whoever comes behind it.
    pub(super) fn propose(&self, members: &[Member], turn: &AtomicU64, draw: &Draw<'_>) -> Option<usize> {
        let tries = SKIPS.min(self.sequence.len());
        (0..tries).map(|_| self.next(turn)).find(|index| members[*index].is_open(draw))
    }

    /// Whose turn it is, whether it can take it or not.
    pub(super) fn next(&self, turn: &AtomicU64) -> usize {
        self.sequence.at(turn.fetch_add(1, Relaxed))
    }
}

/// The members' turns by weight.
pub(super) fn turns(members: &[Member]) -> Sequence {
    let weights: Vec<f64> = members.iter().map(|member| member.weight).collect();
    Sequence::new(&weights)
}
