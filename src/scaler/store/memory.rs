use std::collections::VecDeque;
use std::path::Path;
use std::time::Instant;

use super::read;
use super::segment::Kind;
use super::series::Ladder;
use crate::admin::scaling::{Outcome, Record};

/// So many records of a pool are answered from memory.
const RECORDS: usize = 1000;
const DAY: f64 = 86400.0;

/// What is remembered of one pool.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The last ones, the oldest first.
    records: VecDeque<Record>,
    pub(super) series: Ladder,
    /// When its state was saved.
    pub(super) saved: Option<Instant>,
}

impl Memory {
    /// What the files say.
    pub(super) fn recall(pool_folder: &Path, now: f64) -> Memory {
        let records = read::records(pool_folder, (now - 2.0 * DAY, f64::INFINITY), f64::INFINITY, RECORDS, true);
        let tens = read::samples(pool_folder, Kind::Seconds, (now - DAY, f64::INFINITY), f64::INFINITY);
        let fives = read::samples(pool_folder, Kind::Minutes, (now - 2.0 * DAY, f64::INFINITY), f64::INFINITY);
        Memory { records: records.into(), series: Ladder::recall(tens, fives), saved: None }
    }

    pub(super) fn remember(&mut self, record: Record) {
        self.records.push_back(record);
        if self.records.len() > RECORDS {
            self.records.pop_front();
        }
    }

    /// Adds an outcome to its record; answers that one's time, if it is remembered.
    pub(super) fn complete(&mut self, id: &str, outcome: Outcome) -> Option<f64> {
        let record = self.records.iter_mut().rev().find(|record| record.id == id)?;
        record.outcome = Some(outcome);
        Some(record.decision.at)
    }

    /// Those within a span, and the time before which there may be others in the files.
    pub(super) fn records(&self, span: (f64, f64), all: bool) -> (Vec<Record>, f64) {
        let within = |record: &&Record| (span.0..=span.1).contains(&record.decision.at) && (all || record.is_change());
        let border = self.records.front().map_or(f64::INFINITY, |record| record.decision.at);
        (self.records.iter().filter(within).cloned().collect(), border)
    }
}
