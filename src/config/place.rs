//! Where in the text each part of a configuration stands: a table beside the model, so that the model stays clean.
//!
//! Every reader of a configuration language fills one; the checks, which see only the model, point at the text through it.

use std::collections::HashMap;
use std::fmt;

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

    /// Whether this is `other` or a part of it.
    fn within(&self, other: &At) -> bool {
        other.text.is_empty()
            || self.text.strip_prefix(&other.text).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
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
    known: HashMap<At, Known>,
    /// Parts that could not be read, so that nothing is reported that only follows from that.
    failed: Vec<At>,
}

#[derive(Debug)]
struct Known {
    key: Place,
    value: Place,
}

impl Places {
    /// Notes where a part stands: its key, and its value.
    pub fn note(&mut self, at: At, key: Place, value: Place) {
        self.known.insert(at, Known { key, value });
    }

    /// Where its key stands.
    pub fn key(&self, at: &At) -> Option<Place> {
        self.known.get(at).map(|known| known.key.clone())
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
            if let Some(known) = self.known.get(&at) {
                return Some(known);
            }
            at = at.parent()?;
        }
    }

    /// Where its value stands.
    pub fn value(&self, at: &At) -> Option<Place> {
        self.known.get(at).map(|known| known.value.clone())
    }

    /// Whether it was written at all.
    pub fn has(&self, at: &At) -> bool {
        self.known.contains_key(at)
    }

    /// Forgets a part and what is in it.
    pub(crate) fn forget(&mut self, at: &At) {
        self.known.retain(|known, _| !known.within(at));
    }

    /// Notes that a part could not be read.
    pub fn fail(&mut self, at: At) {
        self.failed.push(at);
    }

    /// Whether a part, or anything in it, could not be read.
    pub fn failed(&self, at: &At) -> bool {
        self.failed.iter().any(|failed| failed.within(at) || at.within(failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_written_as_people_write_them() {
        let at = At::root().key("pool").key("my pool").key("upstreams").index(2).key("weight");
        assert_eq!(at.as_str(), "pool.\"my pool\".upstreams[2].weight");
        assert_eq!(at.parent().and_then(|at| at.parent()).unwrap().as_str(), "pool.\"my pool\".upstreams");
        assert!(at.within(&At::root().key("pool")));
        assert!(!At::root().key("pools").within(&At::root().key("pool")));
    }
}
