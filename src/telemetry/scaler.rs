//! What scalers publish: they count for themselves and hand over whole sets, once a second, so that no request ever meets them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::Distribution;
use super::series::Series;

/// The published figures of all scalers, by pool; under an empty name what is not of one pool.
#[derive(Debug, Default)]
pub struct ScalerFigures {
    pools: Mutex<BTreeMap<String, PoolFigures>>,
}

/// The figures of one pool's scaler.
#[derive(Debug, Default, Clone)]
pub struct PoolFigures {
    pub(super) values: Vec<(Series, Vec<String>, f64)>,
    pub(super) spans: Vec<(Series, Vec<String>, Distribution)>,
}

impl PoolFigures {
    /// A counter or gauge with its labels' values.
    pub(crate) fn add(&mut self, series: Series, labels: &[&str], value: f64) {
        self.values.push((series, labels.iter().map(|label| (*label).to_owned()).collect(), value));
    }

    /// A histogram.
    pub(crate) fn spans(&mut self, series: Series, labels: &[&str], spans: Distribution) {
        self.spans.push((series, labels.iter().map(|label| (*label).to_owned()).collect(), spans));
    }
}

impl ScalerFigures {
    /// These are the pool's figures now.
    pub fn publish(&self, pool: &str, figures: PoolFigures) {
        // Replacing is one call: a panic in between leaves nothing half done.
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).insert(pool.to_owned(), figures);
    }

    /// The pool has no scaler any more.
    pub fn forget(&self, pool: &str) {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).remove(pool);
    }

    pub(super) fn each(&self, mut look: impl FnMut(&PoolFigures)) {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).values().for_each(&mut look);
    }
}
