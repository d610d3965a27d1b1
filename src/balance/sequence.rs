/// The order in which members take turns: smooth weighted round robin, worked out in advance.
///
/// **Shape**: indices of members; member `i` occurs in proportion to its weight, spread as evenly as NGINX spreads it:
/// weights 5, 1, 1 give `a a b a c a a`. A turn is an index into it, so a pick is one atomic increment.
///
/// **Bounds**: whole weights (or whole multiples of the smallest of them, or of a tenth, which is what slow start
/// gives) are exact as long as their sum, reduced by the greatest common divisor, is at most [`bound`]. Other weights
/// are apportioned to `bound` turns by largest remainders: a member's share is off by less than `1 / bound`, and at
/// least `1 / bound` however small its weight.
///
/// **Cost** to build: turns × distinct weights; distinct weights are at most √(2 × turns), and most often one or two.
///
/// **Source**: NGINX `ngx_http_upstream_round_robin.c`. Its step (add every weight, take the greatest, subtract the
/// total) needs state that all workers would share under a lock; with the order fixed in advance they share one
/// counter. Why not a heap by virtual deadline, which would need no distinct weights: it breaks ties otherwise than
/// NGINX does, `a a a b c a a`.
#[derive(Debug)]
pub(super) struct Sequence {
    order: Box<[u32]>,
}

impl Sequence {
    /// Every weight is finite and above zero.
    pub(super) fn new(weights: &[f64]) -> Self {
        Sequence { order: spread(&counts(weights)) }
    }

    /// Whose turn it is; there is at least one member.
    pub(super) fn at(&self, turn: u64) -> usize {
        self.order[(turn % self.order.len() as u64) as usize] as usize
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }
}

/// The greatest length for so many members: at least 64 turns each while that is below 65,536, and never below 4 each.
fn bound(members: usize) -> usize {
    (members * 64).clamp(4_096, 65_536).max(members * 4)
}

/// How often each member occurs in the sequence.
fn counts(weights: &[f64]) -> Vec<u64> {
    let least = weights.iter().copied().fold(f64::INFINITY, f64::min);
    let bound = bound(weights.len());
    whole(weights, 1.0, bound)
        .or_else(|| whole(weights, least, bound))
        .or_else(|| whole(weights, 0.1, bound))
        .unwrap_or_else(|| reduced(apportioned(weights, bound as u64)))
}

/// The weights in units of `unit`, if all of them are whole and not too many.
fn whole(weights: &[f64], unit: f64, bound: usize) -> Option<Vec<u64>> {
    let counts = weights.iter().map(|weight| {
        let count = weight / unit;
        let close = (count - count.round()).abs() <= 1e-9 * count;
        (close && count >= 0.5).then(|| count.round() as u64)
    });
    let counts = reduced(counts.collect::<Option<Vec<u64>>>()?);
    let total = counts.iter().fold(0u64, |total, count| total.saturating_add(*count));
    (total <= bound as u64).then_some(counts)
}

fn reduced(mut counts: Vec<u64>) -> Vec<u64> {
    let divisor = counts.iter().copied().fold(0, greatest_common_divisor).max(1);
    counts.iter_mut().for_each(|count| *count /= divisor);
    counts
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// `length` turns by largest remainders (Hamilton's method), but at least one for everybody.
fn apportioned(weights: &[f64], length: u64) -> Vec<u64> {
    let total: f64 = weights.iter().sum();
    let ideal: Vec<f64> = weights.iter().map(|weight| weight / total * length as f64).collect();
    let mut counts: Vec<u64> = ideal.iter().map(|ideal| (ideal.floor() as u64).max(1)).collect();
    let given: u64 = counts.iter().sum();
    let mut by_remainder: Vec<usize> = (0..weights.len()).filter(|i| ideal[*i] >= 1.0).collect();
    by_remainder.sort_by(|a, b| ideal[*b].fract().total_cmp(&ideal[*a].fract()).then(a.cmp(b)));
    for index in by_remainder.into_iter().take(length.saturating_sub(given) as usize) {
        counts[index] += 1;
    }
    counts
}

/// Members of one weight take that weight's turns one after another.
struct Group {
    weight: i64,
    members: Vec<u32>,
    turns: usize,
}

impl Group {
    fn front(&self) -> u32 {
        self.members[self.turns % self.members.len()]
    }

    /// How far the front member is behind its due at this step; NGINX's `current_weight`.
    fn lag(&self, step: i64, total: i64) -> i64 {
        step * self.weight - total * (self.turns / self.members.len()) as i64
    }
}

fn spread(counts: &[u64]) -> Box<[u32]> {
    let mut groups: Vec<Group> = Vec::new();
    for (index, count) in counts.iter().enumerate() {
        let weight = *count as i64;
        match groups.iter_mut().find(|group| group.weight == weight) {
            Some(group) => group.members.push(index as u32),
            None => groups.push(Group { weight, members: vec![index as u32], turns: 0 }),
        }
    }
    let total = counts.iter().sum::<u64>() as i64;
    let turn = |step: i64| {
        let by_lag = |group: &&mut Group| (group.lag(step, total), std::cmp::Reverse(group.front()));
        groups.iter_mut().max_by_key(by_lag).map(|group| {
            let front = group.front();
            group.turns += 1;
            front
        })
    };
    (1..=total).map_while(turn).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// NGINX's algorithm as it stands there: one step costs a look at every peer.
    fn nginx(weights: &[i64]) -> Vec<u32> {
        let total: i64 = weights.iter().sum();
        let mut current = vec![0; weights.len()];
        let mut step = || {
            current.iter_mut().zip(weights).for_each(|(current, weight)| *current += weight);
            let best = (0..weights.len()).reduce(|best, i| if current[i] > current[best] { i } else { best }).unwrap();
            current[best] -= total;
            best as u32
        };
        (0..total).map(|_| step()).collect()
    }

    fn letters(weights: &[f64]) -> String {
        Sequence::new(weights).order.iter().map(|i| (b'a' + *i as u8) as char).collect()
    }

    #[test]
    fn it_is_as_smooth_as_nginx() {
        assert_eq!(letters(&[5.0, 1.0, 1.0]), "aabacaa");
        assert_eq!(letters(&[1.0, 1.0, 1.0]), "abc");
        assert_eq!(letters(&[100.0, 200.0]), "bab");
        assert_eq!(letters(&[0.5, 1.5]), letters(&[1.0, 3.0]));
        assert_eq!(letters(&[0.1, 0.1]), "ab");
        assert_eq!(letters(&[0.3, 0.5, 1.0]), letters(&[3.0, 5.0, 10.0]));
        assert_eq!(letters(&[7.0]), "a");
    }

    #[test]
    fn lopsided_and_enormous_weights_stay_bounded() {
        let sequence = Sequence::new(&[1.0, 4e9]);
        assert_eq!(sequence.len(), 4_096);
        assert_eq!(sequence.order.iter().filter(|i| **i == 0).count(), 1);
        let thousand: Vec<f64> = (1..=1_000).map(|i| 1.0 + f64::from(i) / 7.0).collect();
        assert!(Sequence::new(&thousand).len() <= bound(1_000));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whole_weights_give_the_order_nginx_gives(weights in prop::collection::vec(1i64..40, 1..20)) {
            let floats: Vec<f64> = weights.iter().map(|weight| *weight as f64).collect();
            let order = Sequence::new(&floats).order;
            // Reduced weights repeat, so the sequence is a whole part of NGINX's.
            let reference = nginx(&weights);
            prop_assert_eq!(reference.len() % order.len(), 0);
            prop_assert!(reference.chunks(order.len()).all(|chunk| *chunk == *order));
        }

        #[test]
        fn fractional_weights_are_off_by_less_than_a_turn(weights in prop::collection::vec(0.01f64..20.0, 1..50)) {
            let sequence = Sequence::new(&weights);
            let total: f64 = weights.iter().sum();
            prop_assert!(sequence.len() <= bound(weights.len()));
            let mut counts = vec![0u32; weights.len()];
            sequence.order.iter().for_each(|i| counts[*i as usize] += 1);
            let length = sequence.len() as f64;
            for (weight, count) in weights.iter().zip(counts) {
                let ideal = weight / total * length;
                prop_assert!((f64::from(count) - ideal).abs() < 1.0 || count == 1, "{} turns of {}, not {}", count, length, ideal);
            }
        }
    }
}
