use super::dice::Dice;
use super::table::{Draw, Member};

/// The open member of least cost, found by looking at all of them.
///
/// **Ties** are shared by weight: `preferred`, whose turn it is, is taken if it is among the least; otherwise one of
/// the least is drawn by weight. So with equal costs everywhere the turns decide alone, and the shares are exactly
/// those of the weights.
///
/// **Cost**: one cache line for each member.
pub(super) fn least_by(
    members: &[Member],
    draw: &Draw<'_>,
    preferred: usize,
    mut cost: impl FnMut(&Member) -> f64,
) -> Option<usize> {
    let mut dice = Dice::new(draw.random);
    let mut best: Option<usize> = None;
    let mut lowest = f64::INFINITY;
    let mut tied = 0.0;
    for (index, member) in members.iter().enumerate() {
        if !member.is_open(draw) {
            continue;
        }
        let cost = cost(member);
        if best.is_none() || cost < lowest {
            (best, lowest, tied) = (Some(index), cost, member.weight);
        } else if cost == lowest {
            // Reservoir sampling: each of the tied is left standing with a chance in proportion to its weight.
            tied += member.weight;
            if index == preferred || (best != Some(preferred) && dice.chance(member.weight / tied)) {
                best = Some(index);
            }
        }
    }
    best
}
