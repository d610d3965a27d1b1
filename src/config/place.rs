//! Where in the text each part of a configuration stands: a table beside the model, so that the model stays clean.
//!
//! Every reader of a configuration language fills one; the checks, which see only the model, point at the text through it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use super::source::Place;

/// The way to a part of a configuration: `pool.tools.upstreams[1].weight`.
///
/// **Shape**: keys joined with dots, names that are not bare TOML keys in double quotes, elements of lists in brackets,
/// counted from 0. The root is empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct At {
    text: String,
    /// How long the text of each part further up is.
    cuts: Vec<usize>,
}

impl At {
    /// The whole configuration.
    pub fn root() -> Self {
        At::default()
    }

    /// A key, or a name in a table of names.
    #[must_use]
    pub fn key(&self, name: &str) -> At {
        let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let dot = if self.text.is_empty() { "" } else { "." };
        self.with(if bare { format!("{dot}{name}") } else { format!("{dot}{name:?}") })
    }

    /// An element of a list, from 0.
    #[must_use]
    pub fn index(&self, index: usize) -> At {
        self.with(format!("[{index}]"))
    }

    /// What this is a part of; the root has nothing above it.
    pub fn parent(&self) -> Option<At> {
        let (last, above) = self.cuts.split_last()?;
        Some(At { text: self.text[..*last].to_owned(), cuts: above.to_vec() })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn with(&self, more: String) -> At {
        let mut cuts = self.cuts.clone();
        cuts.push(self.text.len());
        At { text: format!("{}{more}", self.text), cuts }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Where each part of a configuration stands.
#[derive(Debug, Default)]
pub struct Places {
    known: BTreeMap<String, Known>,
    /// Parts that could not be read, so that nothing is reported that only follows from that.
    failed: BTreeSet<String>,
}

#[derive(Debug)]
struct Known {
    key: Place,
    value: Place,
}

impl Places {
    /// Notes where a part stands: its key, and its value.
    pub fn note(&mut self, at: At, key: Place, value: Place) {
        self.known.insert(at.text, Known { key, value });
    }

    /// Where its key stands.
    pub fn key(&self, at: &At) -> Option<Place> {
        self.known.get(at.as_str()).map(|known| known.key.clone())
    }

    /// Where its key stands, or else what it is a part of.
    pub fn nearest_key(&self, at: &At) -> Option<Place> {
        self.nearest(at).map(|known| known.key.clone())
    }

    /// Where its value stands, or else what it is a part of.
    pub fn nearest_value(&self, at: &At) -> Option<Place> {
        self.nearest(at).map(|known| known.value.clone())
    }

    fn nearest(&self, at: &At) -> Option<&Known> {
        let mut at = at.clone();
        loop {
            if let Some(known) = self.known.get(at.as_str()) {
                return Some(known);
            }
            at = at.parent()?;
        }
    }

    /// Where its value stands.
    pub fn value(&self, at: &At) -> Option<Place> {
        self.known.get(at.as_str()).map(|known| known.value.clone())
    }

    /// Whether it was written at all.
    pub fn has(&self, at: &At) -> bool {
        self.known.contains_key(at.as_str())
    }

    /// Forgets a part and what is in it.
    pub(crate) fn forget(&mut self, at: &At) {
        self.known.remove(at.as_str());
        for range in inside(at) {
            let parts: Vec<String> = self.known.range(range).map(|(part, _)| part.clone()).collect();
            for part in parts {
                self.known.remove(&part);
            }
        }
    }

    /// Finds a part and what is in it under another way from now on.
    pub(crate) fn rename(&mut self, from: &At, to: &At) {
        if from == to {
            return;
        }
        let mut parts: Vec<String> = vec![from.text.clone()];
        for range in inside(from) {
            parts.extend(self.known.range(range).map(|(part, _)| part.clone()));
        }
        for part in parts {
            if let Some(known) = self.known.remove(&part) {
                self.known.insert(format!("{to}{}", &part[from.text.len()..]), known);
            }
        }
    }

    /// Notes that a part could not be read.
    pub fn fail(&mut self, at: At) {
        self.failed.insert(at.text);
    }

    /// Whether a part, or anything in it, could not be read.
    pub fn failed(&self, at: &At) -> bool {
        let above = at.cuts.iter().any(|cut| self.failed.contains(&at.text[..*cut]));
        above
            || self.failed.contains(at.as_str())
            || inside(at).into_iter().any(|range| self.failed.range(range).next().is_some())
    }
}

/// The texts of all parts of a part: those that go on with a dot, and those that go on with a bracket.
fn inside(at: &At) -> [Range<String>; 2] {
    let from = |start: char, end: char| format!("{at}{start}")..format!("{at}{end}");
    // The characters that follow `.` and `[`.
    [from('.', '/'), from('[', '\\')]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::source::Source;

    #[test]
    fn ways_are_written_as_people_write_them() {
        let at = At::root().key("pool").key("my pool").key("upstreams").index(2).key("weight");
        assert_eq!(at.as_str(), "pool.\"my pool\".upstreams[2].weight");
        assert_eq!(at.parent().and_then(|at| at.parent()).unwrap().as_str(), "pool.\"my pool\".upstreams");
    }

    #[test]
    fn what_could_not_be_read_is_known_from_above_and_below() {
        let pool = At::root().key("pool");
        let mut places = Places::default();
        places.fail(pool.key("a").key("upstreams").index(1));
        for at in [pool.clone(), pool.key("a"), pool.key("a").key("upstreams")] {
            assert!(places.failed(&at), "{at}");
        }
        assert!(places.failed(&pool.key("a").key("upstreams").index(1).key("weight")));
        for at in [pool.key("ab"), pool.key("a-b"), pool.key("a").key("balance"), At::root().key("pools")] {
            assert!(!places.failed(&at), "{at}");
        }
    }

    #[test]
    fn a_forgotten_part_takes_its_parts_along() {
        let source = Arc::new(Source::new("a.toml", "/", "x"));
        let place = Place::new(&source, 0..1);
        let list = At::root().key("list");
        let mut places = Places::default();
        for at in [list.index(1), list.index(1).key("a"), list.index(10), list.index(1).key("b").index(0)] {
            places.note(at, place.clone(), place.clone());
        }
        places.forget(&list.index(1));
        assert!(!places.has(&list.index(1)) && !places.has(&list.index(1).key("a")));
        assert!(places.has(&list.index(10)));
    }
}
