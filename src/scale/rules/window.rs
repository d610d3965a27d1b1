use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// The longest window, in seconds; older wishes are forgotten.
pub(crate) const HORIZON: f64 = 3600.0;

/// The greatest of the numbers of the last hour, over whatever part of it is asked for.
///
/// **Bounds**: only numbers that are greater than all later ones are kept, so it is at most as long as there are different ones.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Greatest(VecDeque<(f64, u32)>);

impl Greatest {
    /// Takes in the latest number.
    pub(crate) fn push(&mut self, now: f64, number: u32) {
        while self.0.back().is_some_and(|(_, kept)| *kept <= number) {
            self.0.pop_back();
        }
        self.0.push_back((now, number));
        while self.0.front().is_some_and(|(at, _)| *at <= now - HORIZON) {
            self.0.pop_front();
        }
    }

    /// The greatest of those younger than `span`, and when it was said last.
    pub(crate) fn within(&self, span: f64, now: f64) -> Option<(f64, u32)> {
        self.0.iter().find(|(at, _)| *at > now - span).copied()
    }
}

/// What was wished for: its greatest and its least.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Wished {
    greatest: Greatest,
    /// Counted down from the largest number, so that the least is the greatest.
    least: Greatest,
}

impl Wished {
    /// Takes in the latest wish.
    pub(crate) fn push(&mut self, now: f64, wish: u32) {
        self.greatest.push(now, wish);
        self.least.push(now, u32::MAX - wish);
    }

    /// HPA's stabilization: what there is, brought between the least wish of the window for growing and the greatest of the one for
    /// shrinking; and when that could be otherwise at the earliest, where it holds something up.
    ///
    /// Why not the recommendation, brought there: that once made HPA grow while it shrank (kubernetes#98174).
    pub(crate) fn stabilize(&self, size: u32, wish: u32, windows: [f64; 2], now: f64) -> (u32, Option<f64>) {
        let [up, down] = windows;
        let least = self.least.within(up, now).map_or(wish, |(_, number)| wish.min(u32::MAX - number));
        let (said, greatest) = self.greatest.within(down, now).unwrap_or((now, wish));
        let greatest = greatest.max(wish);
        let stable = size.max(least).min(greatest);
        (stable, (stable > wish).then_some(said + down))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Earlier wishes with their age, the wish, the size, the windows up and down, and what is stable.
    type Case<'a> = (&'a [(f64, u32)], u32, u32, [f64; 2], u32);

    #[test]
    fn the_windows_of_hpa() {
        let cases: [Case<'_>; 9] = [
            (&[], 5, 3, [0.0, 300.0], 5),
            (&[], 2, 3, [0.0, 300.0], 2),
            // Shrinks only to the greatest wish of the window.
            (&[(100.0, 10)], 5, 10, [0.0, 300.0], 10),
            (&[(100.0, 8)], 5, 10, [0.0, 300.0], 8),
            (&[(301.0, 10), (100.0, 7)], 5, 10, [0.0, 300.0], 7),
            // Grows only to the least wish of the window.
            (&[(20.0, 4)], 9, 3, [60.0, 300.0], 4),
            (&[(20.0, 2)], 9, 3, [60.0, 300.0], 3),
            // Does not grow because of what was wished for once (kubernetes#98174): the wish is for fewer.
            (&[(100.0, 20)], 5, 10, [0.0, 300.0], 10),
            // An age of exactly the window is out of it.
            (&[(300.0, 10)], 5, 10, [0.0, 300.0], 5),
        ];
        for (earlier, wish, size, windows, expected) in cases {
            let mut wished = Wished::default();
            let now = 10_000.0;
            for (age, number) in earlier {
                wished.push(now - age, *number);
            }
            wished.push(now, wish);
            assert_eq!(wished.stabilize(size, wish, windows, now).0, expected, "{earlier:?} {wish} {size}");
        }
    }

    proptest! {
        #[test]
        fn the_greatest_is_that_of_all(numbers in prop::collection::vec(0u32..50, 1..200), span in 1.0f64..250.0) {
            let mut greatest = Greatest::default();
            for (at, number) in numbers.iter().enumerate() {
                greatest.push(at as f64, *number);
            }
            let now = (numbers.len() - 1) as f64;
            let young = numbers.iter().enumerate().filter(|(at, _)| *at as f64 > now - span);
            prop_assert_eq!(greatest.within(span, now).map(|(_, number)| number), young.map(|(_, number)| *number).max());
        }

        #[test]
        fn it_stays_small(numbers in prop::collection::vec(0u32..20, 1..500)) {
            let mut greatest = Greatest::default();
            numbers.iter().enumerate().for_each(|(at, number)| greatest.push(at as f64 * 60.0, *number));
            prop_assert!(greatest.0.len() <= 20);
        }
    }
}
