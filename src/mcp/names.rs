//! Names of tools that may become metric labels.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// The names of a pool's tools, as its servers have listed them: the only ones that become metric labels.
///
/// Clients cannot add one by calling it, so that 100,000 invented names add one series at most.
///
/// **Shape**: immutable; [`Names::learn`] makes the next one, and numbers stay what they were. Number 0 is [`Names::OTHER`].
/// **Bounds**: `max` names of at most 128 bytes; what is listed later is among the others.
/// **Cost**: a lookup is one hash of the name.
#[derive(Debug, Clone)]
pub struct Names {
    numbers: HashMap<Arc<str>, usize>,
    names: Vec<Arc<str>>,
    max: usize,
}

/// Names longer than this are not learned.
const MAX_LENGTH: usize = 128;

impl Default for Names {
    /// None yet, of at most [`Names::MAX`].
    fn default() -> Self {
        Names::new(Names::MAX)
    }
}

impl Names {
    /// What a tool is called that is not known.
    pub const OTHER: &'static str = "other";
    /// How many names a pool has at most, unless it is told otherwise.
    pub const MAX: usize = 200;

    /// None yet, of at most `max`.
    pub fn new(max: usize) -> Self {
        Names { numbers: HashMap::new(), names: vec![Names::OTHER.into()], max }
    }

    /// These and those that are listed in `listed` and new; `None` where none is.
    pub fn learn<'a>(&self, listed: impl IntoIterator<Item = Cow<'a, str>>) -> Option<Names> {
        let mut next: Option<Names> = None;
        for name in listed {
            let known = next.as_ref().unwrap_or(self);
            if known.len() >= self.max {
                break;
            }
            let fit = !name.is_empty() && name.len() <= MAX_LENGTH && name != Names::OTHER;
            if fit && !known.numbers.contains_key(&*name) {
                next.get_or_insert_with(|| self.clone()).add(&name);
            }
        }
        next
    }

    fn add(&mut self, name: &str) {
        let name: Arc<str> = name.into();
        self.numbers.insert(name.clone(), self.names.len());
        self.names.push(name);
    }

    /// How many tools are known.
    pub fn len(&self) -> usize {
        self.names.len() - 1
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of a tool, 0 for those not known.
    pub fn number(&self, tool: &str) -> usize {
        self.numbers.get(tool).copied().unwrap_or(0)
    }

    /// The name with this number; numbers not given out are [`Names::OTHER`].
    pub fn name(&self, number: usize) -> &str {
        self.names.get(number).map_or(Names::OTHER, |name| name)
    }

    /// What a tool is called in a metric.
    pub fn label(&self, tool: &str) -> &str {
        self.name(self.number(tool))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed<'a>(names: &'a [&'a str]) -> impl Iterator<Item = Cow<'a, str>> {
        names.iter().map(|name| Cow::Borrowed(*name))
    }

    #[test]
    fn only_what_was_listed_is_a_label() {
        let none = Names::new(3);
        assert_eq!((none.label("add"), none.len()), ("other", 0));
        let two = none.learn(listed(&["add", "fail", "add", "", "other"])).unwrap();
        assert_eq!((two.label("add"), two.label("fail"), two.label("drop_table")), ("add", "fail", "other"));
        assert!(two.learn(listed(&["fail", "add"])).is_none(), "nothing new, nothing to publish");
        let full = two.learn(listed(&["third", "fourth"])).unwrap();
        assert_eq!((full.len(), full.label("third"), full.label("fourth")), (3, "third", "other"));
        assert!(full.learn(listed(&["fifth"])).is_none());
        for name in ["add", "fail", "other"] {
            assert_eq!(two.number(name), full.number(name), "numbers stay");
        }
        assert_eq!((full.name(0), full.name(3), full.name(99)), ("other", "third", "other"));
    }

    #[test]
    fn a_name_without_bounds_is_not_learned() {
        let long = "x".repeat(MAX_LENGTH + 1);
        assert!(Names::default().learn(listed(&[&long])).is_none());
        assert!(Names::default().learn(listed(&[&long[1..]])).is_some());
    }

    #[test]
    fn a_hundred_thousand_names_stay_within_the_bound() {
        let many: Vec<String> = (0..100_000).map(|number| format!("tool{number}")).collect();
        let names = Names::default().learn(many.iter().map(|name| Cow::Borrowed(name.as_str()))).unwrap();
        assert_eq!(names.len(), Names::MAX);
    }
}
