use super::dice::Dice;
use super::round_robin::turns;
use super::sequence::Sequence;
use super::table::{Draw, Member};

/// The better of two drawn by weight: the one with fewer requests in flight for its weight.
///
/// **Source**: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (2001); NGINX `random two
/// least_conn`.
#[derive(Debug)]
pub(super) struct Random {
    turns: Sequence,
}

impl Random {
    pub(super) fn new(members: &[Member]) -> Self {
        Random { turns: turns(members) }
    }

    pub(super) fn propose(&self, members: &[Member], draw: &Draw<'_>) -> Option<usize> {
        best_of(2, &self.turns, members, draw, Member::crowding)
    }
}

/// The open member of least cost among `choices` drawn by weight; the one drawn first where they tie.
///
/// A draw of one that was drawn before, or is not open, is drawn again, twice for each choice at most.
pub(super) fn best_of(
    choices: usize,
    turns: &Sequence,
    members: &[Member],
    draw: &Draw<'_>,
    mut cost: impl FnMut(&Member) -> f64,
) -> Option<usize> {
    let mut dice = Dice::new(draw.random);
    let mut best: Option<(usize, f64)> = None;
    let mut drawn = 0;
    for _ in 0..choices * 3 {
        let index = turns.at(dice.roll());
        // Only the best so far is remembered: one that lost already loses again.
        let known = best.is_some_and(|(best, _)| best == index);
        if known || !members[index].is_open(draw) {
            continue;
        }
        let cost = cost(&members[index]);
        if best.is_none_or(|(_, lowest)| cost < lowest) {
            best = Some((index, cost));
        }
        drawn += 1;
        if drawn == choices {
            break;
        }
    }
    best.map(|(index, _)| index)
}
