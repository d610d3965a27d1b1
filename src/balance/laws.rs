//! The laws that every algorithm keeps, tried on all of them.

use super::*;
use crate::types::Moment;
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

pub(super) fn moment(millis: u64) -> Moment {
    Moment::START + Duration::from_millis(millis)
}

/// Members with ids from 0 and these weights.
pub(super) fn members(weights: &[f64]) -> Vec<Member> {
    let member = |(id, weight): (usize, &f64)| Member {
        id: id as u32,
        load: Arc::new(Load::new()),
        weight: *weight,
        max: None,
        backup: false,
        identity: stable_hash(format!("10.0.0.{id}:80").as_bytes()),
    };
    weights.iter().enumerate().map(member).collect()
}

fn algorithms() -> impl Iterator<Item = Algorithm> {
    Algorithm::WORDS.into_iter().map(|(_, algorithm)| algorithm)
}

/// A stream of draws, each with other random bits and another key.
fn draw(n: u64, tried: &[u32]) -> Draw<'_> {
    Draw { now: moment(n), random: stable_hash(&n.to_le_bytes()), hash: Some(stable_hash(&(!n).to_le_bytes())), tried }
}

/// So many requests, none of which ends.
fn pile(table: &Table, picks: u64) {
    let cursor = Cursor::new();
    for n in 0..picks {
        table.pick(&cursor, &draw(n, &[])).unwrap();
    }
}

/// How many of so many requests each member gets, if each ends before the next begins.
fn shares(algorithm: Algorithm, weights: &[f64], picks: u64) -> Vec<f64> {
    let members = members(weights);
    let table = Table::new(algorithm, Some(0.25), members.clone());
    let cursor = Cursor::new();
    let mut counts = vec![0.0; weights.len()];
    for n in 0..picks {
        let id = table.pick(&cursor, &draw(n, &[])).unwrap() as usize;
        counts[id] += 1.0 / picks as f64;
        members[id].load.leave();
    }
    counts
}

#[test]
fn requests_are_shared_in_proportion_to_weights() {
    let weights = [5.0, 1.0, 0.0, 2.0, 2.0];
    for algorithm in algorithms().filter(|algorithm| *algorithm != Algorithm::First) {
        let tolerance = match algorithm {
            Algorithm::RoundRobin | Algorithm::Weighted | Algorithm::LeastConnections => 1e-9,
            Algorithm::Hash => 0.08,
            _ => 0.02,
        };
        for (share, weight) in shares(algorithm, &weights, 10_000).into_iter().zip(weights) {
            assert!(
                (share - weight / 10.0).abs() <= tolerance,
                "{algorithm}: {share} of the requests for weight {weight}"
            );
        }
    }
}

#[test]
fn the_least_loaded_share_by_weight_also_under_load() {
    for algorithm in [Algorithm::LeastConnections, Algorithm::Ewma, Algorithm::Random] {
        let members = members(&[4.0, 2.0, 1.0, 1.0]);
        let table = Table::new(algorithm, None, members.clone());
        pile(&table, 800);
        let crowding: Vec<f64> = members.iter().map(Member::crowding).collect();
        assert!(crowding.iter().all(|crowding| (crowding - 100.0).abs() <= 10.0), "{algorithm}: {crowding:?}");
    }
}

#[test]
fn the_idle_share_by_weight_while_others_are_busy() {
    for algorithm in [Algorithm::LeastConnections, Algorithm::Ewma] {
        let pool = members(&[1.0, 1.0, 1.0, 2.0, 1.0]);
        pool[0].load.enter(None);
        pool[1].load.enter(None);
        let table = Table::new(algorithm, None, pool.clone());
        let cursor = Cursor::new();
        let mut counts = [0; 5];
        for n in 0..4_000 {
            let id = table.pick(&cursor, &draw(n, &[])).unwrap() as usize;
            counts[id] += 1;
            pool[id].load.leave();
        }
        let close = |count: i32, share: i32| (count - share).abs() < 150;
        let shared = close(counts[2], 1_000) && close(counts[3], 2_000) && close(counts[4], 1_000);
        assert!(shared && counts[..2] == [0, 0], "{algorithm}: {counts:?}");
    }
}

#[test]
fn a_table_of_nobody_is_empty_and_one_of_weight_zero_only_takes_who_is_stuck_to_it() {
    for algorithm in algorithms() {
        let cursor = Cursor::new();
        let table = Table::new(algorithm, None, vec![]);
        assert_eq!(table.pick(&cursor, &draw(1, &[])), Err(NoPick::Empty));
        assert_eq!(table.enter(0), Err(NoPick::Empty));
        for weight in [0.0, -1.0, f64::NAN, f64::NEG_INFINITY] {
            let table = Table::new(algorithm, None, members(&[weight]));
            assert_eq!(table.pick(&cursor, &draw(1, &[])), Err(NoPick::Empty));
            assert_eq!(table.enter(0), Ok(()));
        }
    }
}

#[test]
fn the_only_one_takes_everything_until_it_is_full_or_tried() {
    for algorithm in algorithms() {
        let mut only = members(&[1.0]);
        only[0].max = Some(2);
        let table = Table::new(algorithm, Some(0.0), only.clone());
        let cursor = Cursor::new();
        assert_eq!(table.pick(&cursor, &draw(1, &[0])), Err(NoPick::Empty));
        assert_eq!(table.pick(&cursor, &draw(2, &[])), Ok(0));
        assert_eq!(table.pick(&cursor, &draw(3, &[])), Ok(0));
        assert_eq!(table.pick(&cursor, &draw(4, &[])), Err(NoPick::Full));
        assert_eq!(table.enter(0), Err(NoPick::Full));
        // One that is shut is as good as gone: waiting for it is of no use.
        only[0].load.shut();
        assert_eq!(table.enter(0), Err(NoPick::Empty));
        only[0].load.open();
        only[0].load.leave();
        assert_eq!(table.pick(&cursor, &draw(5, &[])), Ok(0));
    }
}

#[test]
fn backups_wait_until_no_other_can_take_it() {
    for algorithm in algorithms() {
        let mut pool = members(&[1.0, 1.0, 1.0, 1.0]);
        pool[0].backup = true;
        pool[1].backup = true;
        pool[2].max = Some(50);
        pool[3].max = Some(50);
        let table = Table::new(algorithm, Some(0.25), pool.clone());
        let cursor = Cursor::new();
        for n in 0..100 {
            assert!(table.pick(&cursor, &draw(n, &[])).unwrap() >= 2, "{algorithm}");
        }
        let backups: Vec<u32> = (100..200).map(|n| table.pick(&cursor, &draw(n, &[])).unwrap()).collect();
        assert!(backups.iter().all(|id| *id < 2), "{algorithm}");
        if algorithm != Algorithm::First {
            assert!(pool[0].load.in_flight() > 25 && pool[1].load.in_flight() > 25, "{algorithm}: both are used");
        }
        assert!(table.pick(&cursor, &draw(200, &[2, 3])).unwrap() < 2);
    }
}

#[test]
fn the_turn_of_one_that_cannot_take_it_is_shared_by_all_others() {
    let table = Table::new(Algorithm::RoundRobin, None, members(&[1.0; 4]));
    let cursor = Cursor::new();
    let mut counts = [0; 4];
    (0..300).for_each(|n| counts[table.pick(&cursor, &draw(n, &[1])).unwrap() as usize] += 1);
    assert_eq!(counts, [100, 0, 100, 100]);
}

#[test]
fn a_thousand_members_are_all_used() {
    for algorithm in algorithms().filter(|algorithm| *algorithm != Algorithm::First) {
        let members = members(&[1.0; 1_000]);
        let table = Table::new(algorithm, Some(0.25), members.clone());
        pile(&table, 20_000);
        let most = members.iter().map(|member| member.load.in_flight()).max().unwrap();
        let least = members.iter().map(|member| member.load.in_flight()).min().unwrap();
        assert!(least >= 5 && most <= 30, "{algorithm}: {least}..={most}");
    }
}

#[test]
fn first_fills_one_after_another() {
    let mut pool = members(&[1.0, 1.0, 1.0]);
    pool[0].max = Some(2);
    pool[1].max = Some(1);
    let table = Table::new(Algorithm::First, None, pool.clone());
    let cursor = Cursor::new();
    let next = || table.pick(&cursor, &draw(0, &[])).unwrap();
    assert_eq!([next(), next(), next(), next(), next()], [0, 0, 1, 2, 2]);
    pool[0].load.leave();
    assert_eq!(next(), 0);
}

#[test]
fn workers_take_turns_from_one_counter() {
    let table = Table::new(Algorithm::RoundRobin, None, members(&[3.0, 1.0]));
    let cursor = Cursor::new();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (table, cursor) = (&table, &cursor);
            scope.spawn(move || {
                for n in 0..1_000 {
                    table.pick(cursor, &draw(worker << 32 | n, &[])).unwrap();
                }
            });
        }
    });
    assert_eq!(table.member(0).unwrap().load.in_flight(), 3_000);
    assert_eq!(table.member(1).unwrap().load.in_flight(), 1_000);
}

#[test]
fn workers_never_fill_anybody_above_its_maximum() {
    for algorithm in algorithms() {
        let mut pool = members(&[1.0, 2.0, 1.0]);
        pool.iter_mut().for_each(|member| member.max = Some(100));
        let table = Table::new(algorithm, None, pool.clone());
        let cursor = Cursor::new();
        let picked: usize = std::thread::scope(|scope| {
            let work = |worker: u64| {
                let (table, cursor) = (&table, &cursor);
                scope.spawn(move || {
                    (0..100).filter(|n| table.pick(cursor, &draw(worker << 32 | n, &[])).is_ok()).count()
                })
            };
            let workers: Vec<_> = (0..4).map(work).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(picked, 300, "{algorithm}: all the room there is, and no more");
        assert!(pool.iter().all(|member| member.load.in_flight() == 100), "{algorithm}");
    }
}

fn pools() -> impl Strategy<Value = Vec<(f64, Option<u32>, bool, u32)>> {
    let weight = prop_oneof![Just(0.0), Just(1.0), 0.05f64..10.0];
    let max = prop::option::of(0u32..4);
    prop::collection::vec((weight, max, any::<bool>(), 0u32..5), 0..70)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the pool: nobody tried, full or of weight zero is picked, backups only where needed, and a refusal is
    /// true.
    #[test]
    fn a_pick_is_always_right(pool in pools(), tried in prop::collection::vec(0u32..70, 0..4), seed: u64) {
        for algorithm in algorithms() {
            let mut all = members(&pool.iter().map(|(weight, ..)| *weight).collect::<Vec<f64>>());
            for (member, (_, max, backup, busy)) in all.iter_mut().zip(&pool) {
                (member.max, member.backup) = (*max, *backup);
                for _ in 0..*busy {
                    member.load.enter(None);
                }
            }
            let table = Table::new(algorithm, Some(0.1), all.clone());
            let cursor = Cursor::new();
            for n in 0..40 {
                let has_room = |member: &&Member| member.max.is_none_or(|max| member.load.in_flight() < max);
                let candidates: Vec<&Member> = all.iter().filter(|m| m.weight > 0.0 && !tried.contains(&m.id)).collect();
                let open: Vec<u32> = candidates.iter().copied().filter(has_room).map(|member| member.id).collect();
                let primary = candidates.iter().copied().filter(has_room).any(|member| !member.backup);
                match table.pick(&cursor, &draw(seed.wrapping_add(n), &tried)) {
                    Ok(id) => {
                        prop_assert!(open.contains(&id), "{}: {} was not open", algorithm, id);
                        prop_assert!(all[id as usize].backup != primary, "{}: the wrong tier", algorithm);
                    }
                    Err(NoPick::Full) => prop_assert!(open.is_empty() && !candidates.is_empty(), "{}: not full", algorithm),
                    Err(NoPick::Empty) => prop_assert!(candidates.is_empty(), "{}: not empty", algorithm),
                }
            }
        }
    }
}
