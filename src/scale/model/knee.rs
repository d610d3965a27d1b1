use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How many requests an instance serves at once before it gets slower, and how long they take until then.
///
/// Service times are kept by how many requests each instance had: as long as there are cores for all they are what requests need; beyond
/// that they grow.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Knee {
    /// By requests per instance: how many looks, and the mean service time.
    bins: BTreeMap<u16, (u16, f32)>,
}

impl Knee {
    /// How much slower is slow.
    const SLOWER: f64 = 0.3;
    /// Looks that a bin needs, and those whose weight it remembers.
    const LOOKS: u16 = 5;
    const MEMORY: u16 = 60;
    /// Where no knee has been seen yet, so much more than what has been is believed.
    const PROBE: f64 = 1.3;

    /// Bins are half a request wide up to eight, then a sixteenth of what they begin at.
    fn bin(concurrency: f64) -> u16 {
        match concurrency {
            low if low < 8.0 => (low.max(0.0) / 0.5) as u16,
            high => 16 + ((high / 8.0).ln() / 1.0625_f64.ln()).min(400.0) as u16,
        }
    }

    fn begins(bin: u16) -> f64 {
        if bin < 16 { f64::from(bin) * 0.5 } else { 8.0 * 1.0625_f64.powi(i32::from(bin) - 16) }
    }

    /// Takes in one look: requests per ready instance, and how long those that ended had held their slots in the mean.
    pub(super) fn note(&mut self, concurrency: f64, completions: f64, service_time: f64) {
        if completions < 5.0 || service_time <= 0.0 {
            return;
        }
        let (looks, mean) = self.bins.entry(Self::bin(concurrency)).or_default();
        *looks = (*looks + 1).min(Self::MEMORY);
        *mean += (service_time as f32 - *mean) / f32::from(*looks);
    }

    /// The capacity, at most `most`, and the service time of instances that are not crowded; none before enough was seen.
    pub(super) fn find(&self, most: f64) -> Option<(f64, f64)> {
        let known = || {
            self.bins
                .iter()
                .filter(|(_, (looks, _))| *looks >= Self::LOOKS)
                .map(|(bin, (_, mean))| (*bin, f64::from(*mean)))
        };
        let lowest: Vec<f64> = known().take(3).map(|(_, mean)| mean).collect();
        if lowest.is_empty() {
            return None;
        }
        let light = lowest.iter().sum::<f64>() / lowest.len() as f64;
        let mut capacity = 1.0;
        for (bin, mean) in known() {
            if mean <= light * (1.0 + Self::SLOWER) {
                capacity = Self::begins(bin + 1);
            } else if Self::begins(bin) > 1.0 {
                break;
            }
        }
        let seen = known().next_back().map_or(0.0, |(bin, _)| Self::begins(bin + 1));
        if seen <= capacity {
            capacity *= Self::PROBE;
        }
        let capacity = capacity.max(1.0).min(most.max(1.0));
        Some((capacity, light))
    }
}
