//! A pool's life with clients on one side and machines on the other, in virtual time: machines die, hang, slow down and flap; people drain,
//! recall and reload; requests are limited, balanced, timed out and repeated, by the very functions that decide in the proxy.
//!
//! `src/health` simulates one upstream's health more closely; this is about what comes of all of it together for a request.
//! `SEED=…` plays one life again, `SIMULATION_SEEDS=100000` plays so many.

mod fleet;
mod life;

use std::panic::catch_unwind;

#[test]
fn whatever_happens_every_request_has_one_answer_and_nothing_is_left_behind() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIMULATION_SEEDS").unwrap_or(1_000),
    };
    let mut seen = life::Seen::default();
    for seed in seeds.clone() {
        match catch_unwind(|| life::live(seed)) {
            Ok(life) => seen.add(&life),
            Err(_) => panic!("SEED={seed}"),
        }
    }
    println!("{seen:?}");
    // A simulation in which nothing happens proves nothing.
    if seeds.end - seeds.start >= 100 {
        assert!(seen.has_everything(), "{seen:?}");
    }
}
