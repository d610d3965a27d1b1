use super::dice::Dice;
use super::load::Outlook;
use super::random::best_of;
use super::round_robin::turns;
use super::scan::least_by;
use super::sequence::Sequence;
use super::table::{Draw, Member};

/// The lowest cost: peak-EWMA latency × (requests in flight + 1) / weight.
///
/// All members are looked at, up to [`SCANNED`] of them; of more, the better of two drawn by weight.
///
/// **Newcomers.** An upstream without a sample is free while it has nothing to do, so it is asked at once; while it is
/// being waited for it is taken to be as slow as the slowest that is known, so it gets a fair part and no stampede.
/// Where none is known all are taken to be alike, which is least connections. Finagle's penalty is all but infinite:
/// the first of several newcomers to answer would then get everything until the others have answered too, which takes
/// minutes where answers take minutes.
///
/// **Forgiveness.** An upstream that was slow is asked again when its average has faded to the others' level, with one
/// request: see [`Load::outlook`](super::Load). Finagle lets the average fade also while it is waited for, so one that
/// has faded very far could draw hundreds of requests before its first answer.
///
/// **Source**: Finagle `PeakEwma.scala`, linkerd2 `tower-balance` with `PeakEwma`.
#[derive(Debug)]
pub(super) struct Ewma {
    turns: Sequence,
}

/// Above so many members two are drawn instead of all looked at.
pub(super) const SCANNED: usize = 32;

impl Ewma {
    pub(super) fn new(members: &[Member]) -> Self {
        Ewma { turns: turns(members) }
    }

    pub(super) fn propose(&self, members: &[Member], draw: &Draw<'_>) -> Option<usize> {
        let mut slowest = None;
        let cost = |member: &Member| {
            let Outlook { in_flight, latency } = member.load.outlook(draw.now);
            let latency = match (latency, in_flight) {
                (Some(latency), _) => latency,
                (None, 0) => 0.0,
                (None, _) => *slowest.get_or_insert_with(|| slowest_known(members, draw)),
            };
            f64::from(latency) * (f64::from(in_flight) + 1.0) / member.weight
        };
        if members.len() > SCANNED {
            return best_of(2, &self.turns, members, draw, cost);
        }
        let preferred = self.turns.at(Dice::new(!draw.random).roll());
        least_by(members, draw, preferred, cost)
    }
}

/// The longest latency that is known of anybody, in nanoseconds; 1 where nothing is. Of large pools a part is asked.
fn slowest_known(members: &[Member], draw: &Draw<'_>) -> f32 {
    let start = Dice::new(draw.random).below(members.len());
    let asked = members.iter().cycle().skip(start).take(members.len().min(2 * SCANNED));
    asked.filter_map(|member| member.load.outlook(draw.now).latency).fold(1.0, f32::max)
}

#[cfg(test)]
mod tests {
    use super::super::{Algorithm, Cursor, Table};
    use super::*;
    use crate::balance::laws::{members, moment};
    use std::time::Duration;

    fn pick(table: &Table, now_millis: u64) -> u32 {
        let draw = Draw { now: moment(now_millis), random: 1, hash: None, tried: &[] };
        table.pick(&Cursor::new(), &draw).unwrap()
    }

    fn pick_often(table: &Table, picks: u32) -> Vec<u32> {
        (0..picks).map(|_| pick(table, 0)).collect()
    }

    fn pool(weights: &[f64]) -> (Vec<Member>, Table) {
        let members = members(weights);
        let table = Table::new(Algorithm::Ewma, None, members.clone());
        (members, table)
    }

    fn answers(member: &Member, millis: u64, at: u64) {
        member.load.sample(Duration::from_millis(millis), moment(at));
    }

    #[test]
    fn the_faster_takes_more_until_its_queue_makes_up_for_it() {
        let (members, table) = pool(&[1.0, 1.0]);
        answers(&members[0], 10, 0);
        answers(&members[1], 35, 0);
        // 10, 20, 30 and then 40 > 35, 40 < 70.
        let picks = pick_often(&table, 5);
        assert_eq!(picks, [0, 0, 0, 1, 0]);
    }

    #[test]
    fn a_newcomer_is_asked_at_once_but_not_overrun() {
        let (members, table) = pool(&[1.0, 1.0, 1.0]);
        answers(&members[0], 10, 0);
        answers(&members[1], 20, 0);
        let picks = pick_often(&table, 8);
        assert_eq!(picks[0], 2, "the newcomer first");
        assert_eq!(picks[1], 0, "then the fastest");
        let newcomer = picks.iter().filter(|id| **id == 2).count();
        let fastest = picks.iter().filter(|id| **id == 0).count();
        assert!(newcomer <= 3 && fastest >= 3, "{picks:?}");
    }

    #[test]
    fn newcomers_only_share_like_least_connections() {
        let (members, table) = pool(&[1.0, 1.0, 1.0]);
        pick_often(&table, 9);
        assert!(members.iter().all(|member| member.load.in_flight() == 3));
    }

    #[test]
    fn one_that_was_slow_is_asked_again_with_a_single_request() {
        let (members, table) = pool(&[1.0, 1.0]);
        answers(&members[0], 1_000, 0);
        let mut slow = 0;
        for now in (0..120_000).step_by(10) {
            answers(&members[1], 1, now);
            match pick(&table, now) {
                0 => slow += 1,
                _ => members[1].load.leave(),
            }
        }
        // It never answered; after about 70 s it was given one request, and no further.
        assert_eq!(slow, 1);
    }

    #[test]
    fn twice_the_weight_is_worth_half_the_cost() {
        let (members, table) = pool(&[1.0, 2.0]);
        answers(&members[0], 10, 0);
        answers(&members[1], 10, 0);
        pick_often(&table, 30);
        let taken: Vec<u32> = members.iter().map(|member| member.load.in_flight()).collect();
        assert!((19..=21).contains(&taken[1]), "{taken:?}");
    }
}
