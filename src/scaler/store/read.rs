use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use super::line;
use super::segment::{Kind, day_of, days};
use crate::admin::scaling::{Outcome, Record, Sample};

const DAY: f64 = 86400.0;

/// The last `limit` records within a span and before `border`, the oldest first, with the outcomes that were told later.
///
/// **Cost**: reads the days' files from the last one backwards until there are enough; lines of other times are not parsed.
pub(super) fn records(pool_folder: &Path, span: (f64, f64), border: f64, limit: usize, all: bool) -> Vec<Record> {
    let mut newest_first = Vec::new();
    let mut outcomes: HashMap<String, Outcome> = HashMap::new();
    let mut known = HashSet::new();
    let until = span.1.min(border);
    let (first, last, next) = (day(span.0), day(until), day(until + DAY));
    for (of, path) in days(pool_folder, Kind::History).into_iter().rev() {
        if newest_first.len() >= limit || first.as_ref().is_some_and(|first| of < *first) {
            break;
        }
        // Outcomes are in the file of their record's day, at the latest in that of the day after.
        if next.as_ref().is_some_and(|next| of > *next) {
            continue;
        }
        let text = lossy(&path);
        outcomes.extend(text.lines().filter_map(line::outcome));
        if last.as_ref().is_some_and(|last| of > *last) {
            continue;
        }
        for text in text.lines().rev() {
            let at = line::time(text).filter(|at| (span.0..=span.1).contains(at) && *at < border);
            if at.is_none() || !(all || line::is_change(text)) {
                continue;
            }
            // What was written again after an error may be there twice.
            let Some(mut record) = line::record(text).filter(|record| known.insert(record.id.clone())) else {
                continue;
            };
            record.outcome = outcomes.remove(&record.id).or(record.outcome);
            newest_first.push(record);
            if newest_first.len() >= limit {
                break;
            }
        }
    }
    newest_first.reverse();
    newest_first
}

/// The samples of one step within a span whose time is not after `border`, the oldest first.
pub(super) fn samples(pool_folder: &Path, kind: Kind, span: (f64, f64), border: f64) -> Vec<Sample> {
    let until = span.1.min(border);
    let (first, last) = (day(span.0), day(until));
    let wanted =
        |of: &String| first.as_ref().is_none_or(|first| of >= first) && last.as_ref().is_none_or(|last| of <= last);
    let mut samples = Vec::new();
    for (_, path) in days(pool_folder, kind).into_iter().filter(|(of, _)| wanted(of)) {
        let text = lossy(&path);
        let within = |text: &&str| line::time(text).is_some_and(|at| at >= span.0 && at <= until);
        samples.extend(text.lines().filter(within).filter_map(line::sample));
    }
    samples
}

/// The day of a time; none where it has no bound.
fn day(at: f64) -> Option<String> {
    at.is_finite().then(|| day_of(at))
}

/// A file's text; of one that is gone or unreadable none, of one with foreign bytes what can be read.
fn lossy(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}
