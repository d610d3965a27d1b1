use super::dice::{Dice, mix};
use super::table::{Draw, Member};

/// Consistent hashing on a ring, with bounded load.
///
/// **Shape**: each member owns points on a ring of 64-bit numbers; a key goes to the owner of the next point at or
/// after its hash. A member's points depend on its identity and its weight alone, and a smaller weight owns a part of a
/// greater one's points. So a member that comes, goes or changes weight moves only the keys that it takes or gives:
/// about one in `n`.
///
/// **Bounded load**: a member is passed by while it has its fair share times `1 + bound` in flight already, `ceil((1 +
/// bound) × (total in flight + 1) × weight / total weight)`; its keys go to the next on the ring meanwhile. One that is
/// idle always takes its keys.
///
/// **Bounds**: [`POINTS`] points for each unit of weight (shares are even to about 8 %, as with ketama), halved as
/// often as is needed to have at most [`MOST`] in all; only where a change of the pool crosses that border do more keys
/// move. The walk looks at [`WALK`] points at most; beyond it whoever has room is taken.
///
/// **Cost**: a binary search, then for a busy member one look at everybody's counter (at [`COUNTED`] of them in larger
/// pools).
///
/// **Source**: Karger et al. 1997; libketama; Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads"
/// (2016). Why not Maglev or rendezvous hashing: Maglev's table moves a few keys between members that did not change,
/// and rendezvous looks at every member for every key. On a ring the next in line is simply the next point.
#[derive(Debug)]
pub(super) struct Ring {
    points: Box<[Point]>,
    /// `1 + bound`, if the load is bounded.
    factor: Option<f64>,
    total_weight: f64,
}

#[derive(Debug, Clone, Copy)]
struct Point {
    hash: u64,
    owner: u32,
}

/// Points for each unit of weight.
const POINTS: f64 = 160.0;
/// Points at most in all, as long as everybody has one.
const MOST: f64 = 262_144.0;
/// Points looked at in one pick.
const WALK: usize = 256;
/// Members asked for their load in one pick.
const COUNTED: usize = 512;

impl Ring {
    pub(super) fn new(members: &[Member], bound: Option<f64>) -> Self {
        let total_weight = members.iter().map(|member| member.weight).sum();
        let mut unit = POINTS;
        while total_weight * unit > MOST {
            unit /= 2.0;
        }
        let mut points = Vec::new();
        for (owner, member) in members.iter().enumerate() {
            let count = ((member.weight * unit).round() as u64).max(1);
            // Mixed before it is combined, so that neighbouring identities have nothing in common.
            let seed = mix(member.identity);
            points.extend((0..count).map(|n| Point { hash: mix(seed ^ mix(n)), owner: owner as u32 }));
        }
        // Where two points meet, the identities decide, not the order in which members are listed.
        points.sort_unstable_by_key(|point| (point.hash, members[point.owner as usize].identity));
        let factor = bound.filter(|bound| bound.is_finite()).map(|bound| 1.0 + bound.max(0.0));
        Ring { points: points.into(), factor, total_weight }
    }

    /// The key's place on the ring; without a key a place at random, by weight.
    pub(super) fn propose(&self, members: &[Member], draw: &Draw<'_>) -> Option<usize> {
        let start = self.place(draw);
        let mut room = Room { ring: self, members, draw, in_flight: None };
        let walk = self.points[start..].iter().chain(&self.points[..start]).take(WALK);
        walk.map(|point| point.owner as usize)
            .find(|owner| members[*owner].is_open(draw) && room.is_below_bound(&members[*owner]))
    }

    /// Who would have the key if everybody had room.
    pub(super) fn home(&self, draw: &Draw<'_>) -> usize {
        self.points[self.place(draw)].owner as usize
    }

    fn place(&self, draw: &Draw<'_>) -> usize {
        // Mixed, because callers may bring a weak hash; not as the points are, so that an identity is no key to its own
        // points.
        let key = mix(draw.hash.unwrap_or(draw.random) ^ 0x5bd1_e995_7f4a_7c15);
        let place = self.points.partition_point(|point| point.hash < key);
        if place == self.points.len() { 0 } else { place }
    }
}

/// The load bound in one pick; everybody's load is summed up once, and only if a busy member is met.
struct Room<'a> {
    ring: &'a Ring,
    members: &'a [Member],
    draw: &'a Draw<'a>,
    in_flight: Option<f64>,
}

impl Room<'_> {
    fn is_below_bound(&mut self, member: &Member) -> bool {
        let in_flight = member.load.in_flight();
        let Some(factor) = self.ring.factor.filter(|_| in_flight > 0) else { return true };
        let total = *self.in_flight.get_or_insert_with(|| total_in_flight(self.members, self.draw));
        // in_flight < ceil(x) is in_flight < x for a whole in_flight.
        f64::from(in_flight) < factor * (total + 1.0) * member.weight / self.ring.total_weight
    }
}

/// Everybody's requests in flight; in larger pools estimated from every so many-th member.
fn total_in_flight(members: &[Member], draw: &Draw<'_>) -> f64 {
    let step = members.len().div_ceil(COUNTED);
    let start = Dice::new(draw.random).below(step);
    let counted = members.iter().skip(start).step_by(step);
    counted.map(|member| f64::from(member.load.in_flight())).sum::<f64>() * step as f64
}

#[cfg(test)]
mod tests {
    use super::super::{Algorithm, Cursor, Table};
    use super::*;
    use crate::balance::laws::{members, moment};
    use crate::balance::stable_hash;
    use proptest::prelude::*;

    fn key(n: u64, tried: &[u32]) -> Draw<'_> {
        Draw { now: moment(0), random: !n, hash: Some(stable_hash(&n.to_le_bytes())), tried }
    }

    /// Whom each of the keys is sent to, nobody having anything to do.
    fn owners(members: Vec<Member>, keys: u64) -> Vec<u32> {
        let table = Table::new(Algorithm::Hash, Some(0.25), members);
        let owner = |n| {
            let id = table.pick(&Cursor::new(), &key(n, &[])).unwrap();
            table.member(id).unwrap().load.leave();
            id
        };
        (0..keys).map(owner).collect()
    }

    #[test]
    fn a_key_goes_to_one_member_whatever_the_order_they_are_listed_in() {
        let mut pool = members(&[1.0, 2.0, 1.0, 0.3]);
        let before = owners(pool.clone(), 500);
        pool.reverse();
        assert_eq!(owners(pool, 500), before);
    }

    #[test]
    fn the_bound_holds_while_everybody_asks_for_one_key() {
        let pool = members(&[1.0, 1.0, 2.0, 1.0]);
        let table = Table::new(Algorithm::Hash, Some(0.25), pool.clone());
        for n in 1..=200u32 {
            let id = table.pick(&Cursor::new(), &key(7, &[])).unwrap();
            let member = table.member(id).unwrap();
            let bound = (1.25 * f64::from(n) * member.weight / 5.0).ceil();
            assert!(f64::from(member.load.in_flight()) <= bound, "{n}: {} of {bound}", member.load.in_flight());
        }
    }

    #[test]
    fn without_a_bound_a_key_stays_where_it_is() {
        let table = Table::new(Algorithm::Hash, None, members(&[1.0, 1.0, 1.0]));
        let picks: Vec<u32> = (0..50).map(|_| table.pick(&Cursor::new(), &key(7, &[])).unwrap()).collect();
        assert!(picks.iter().all(|id| *id == picks[0]));
    }

    #[test]
    fn requests_without_a_key_are_spread() {
        let pool = members(&[1.0, 1.0, 1.0]);
        let table = Table::new(Algorithm::Hash, None, pool.clone());
        for random in 0..300 {
            table.pick(&Cursor::new(), &Draw { now: moment(0), random, hash: None, tried: &[] }).unwrap();
        }
        assert!(pool.iter().all(|member| member.load.in_flight() > 50));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn one_that_leaves_moves_only_its_own_keys(count in 2usize..40, gone in 0usize..40, weight in 0.2f64..3.0) {
            let gone = gone % count;
            let mut pool = members(&vec![1.0; count]);
            pool[gone].weight = weight;
            let before = owners(pool.clone(), 1_000);
            pool.remove(gone);
            let after = owners(pool, 1_000);
            for (before, after) in before.iter().zip(&after) {
                prop_assert!(before == after || *before == gone as u32);
            }
            let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count() as f64;
            let share = weight / (weight + count as f64 - 1.0) * 1_000.0;
            prop_assert!(moved <= share * 1.6 + 25.0, "{} of {} keys moved", moved, share);
        }

        #[test]
        fn more_weight_only_takes_keys_and_gives_none(count in 2usize..20, changed in 0usize..20, from in 0.1f64..2.0, more in 0.1f64..2.0) {
            let changed = changed % count;
            let mut pool = members(&vec![1.0; count]);
            pool[changed].weight = from;
            let before = owners(pool.clone(), 1_000);
            pool[changed].weight = from + more;
            let after = owners(pool, 1_000);
            for (before, after) in before.iter().zip(&after) {
                prop_assert!(before == after || *after == changed as u32);
            }
        }
    }
}
