//! All rules, compiled: which one takes a request.
//!
//! # Precedence
//!
//! A request goes to the first rule in this order whose host, path and conditions all match:
//!
//! 1. higher `priority`;
//! 2. the more specific host: exact, then the longest wildcard, then any;
//! 3. the path: exact; a `^~` prefix, where it is the longest prefix that takes the request; regular expressions in the file's
//!    order; the longest prefix (of two alike, that on segment borders); any path;
//! 4. more conditions before fewer (a restriction to listeners is one; among as many: methods, then headers, then parameters);
//! 5. the file's order.
//!
//! So a host's own routes that do not match leave the request to those of less specific hosts. Step 3 is NGINX's rule for
//! `location`, steps 2 to 4 are Gateway API's, and with a priority for each rule HAProxy's lists of rules are carried too.
//!
//! # How it is found
//!
//! Every combination of a rule's hosts and paths is an [`Entry`]; entries are numbered in that order. For each host there is a
//! radix tree of its exact paths and prefixes, and a list of its expressions. A lookup offers what they find, list by list; each
//! list is in order and is left at the first entry that could not be better than what was found already. Nothing is allocated.
//!
//! Never here: what happens to the request then.

use regex::Regex;

use super::build::Builder;
use super::condition::Check;
use super::hash::NameMap;
use super::rule::{HostRank, Key, Kind, Weight};
use super::tree::{Forest, List, NONE};
use super::{HostPattern, PathPattern, PatternError, Question, Rule};

/// All rules of a configuration. Immutable; shared by all workers.
#[derive(Debug)]
pub struct Table {
    pub(super) rules: Box<[Compiled]>,
    /// In rank order.
    pub(super) entries: Box<[Entry]>,
    pub(super) hosts: Box<[Host]>,
    pub(super) forest: Forest,
    pub(super) regexes: Box<[Regex]>,
    pub(super) listeners: Box<[String]>,
    pub(super) names: Names,
    pub(super) asks_headers: bool,
}

/// From a host to its place in `hosts`.
#[derive(Debug, Default)]
pub(super) struct Names {
    exact: NameMap<u32>,
    /// By suffix, without `*.`.
    wildcard: NameMap<u32>,
    any: Option<u32>,
    /// Longer names are not even hashed: a client must not choose how much work its host makes.
    longest: usize,
    longest_suffix: usize,
}

/// A rule, ready to be asked.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) name: String,
    pub(super) hosts: Vec<HostPattern>,
    pub(super) paths: Vec<PathPattern>,
    pub(super) priority: i32,
    pub(super) weight: Weight,
    /// The cheapest first.
    pub(super) checks: Box<[Check]>,
}

impl Compiled {
    pub(super) fn holds(&self, question: &Question<'_>) -> bool {
        self.checks.iter().all(|check| check.holds(question))
    }
}

/// One host pattern's rules.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) pattern: HostPattern,
    pub(super) root: u32,
    pub(super) regexes: List,
    pub(super) any: List,
    /// No entry of it ranks before this.
    pub(super) first: u32,
}

/// A rule with one of its hosts and one of its paths.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) rule: u32,
    pub(super) host: u32,
    pub(super) kind: Kind,
    /// Which of the rule's paths.
    pub(super) path: u32,
    pub(super) rank: u32,
    /// The rank of a `^~` prefix where it is the longest; for all others the same as `rank`.
    pub(super) promoted: u32,
}

/// Which rule takes a request, and by what.
#[derive(Debug, Clone, Copy)]
pub struct Match<'t> {
    /// The rule's index in the list the table was built from.
    pub rule: usize,
    /// How its path matched.
    pub path: Matched<'t>,
}

/// How a path matched.
#[derive(Debug, Clone, Copy)]
pub enum Matched<'t> {
    /// The rule is for any path.
    Any,
    /// As a whole.
    Exact,
    /// By its beginning.
    Prefix {
        /// How much of [`Path::matching`](super::Path::matching); without a final slash where `on_border`, so zero for `/`.
        length: usize,
        /// Whether the prefix ends where a segment ends.
        on_border: bool,
    },
    /// By this expression.
    Regex(&'t Regex),
}

/// Where a list of entries came from, in the order in which a host's lists are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Exact,
    Prefix,
    Regex,
    Any,
}

/// What is done with the entries whose host and path match.
pub(super) trait Visit {
    /// Whether entries from this rank on can still matter.
    fn wants(&self, rank: u32) -> bool;
    /// Entries in rank order; those of [`Stage::Regex`] have not been matched yet.
    fn offer(&mut self, stage: Stage, entries: &[u32]);
    /// All prefixes of a host have been offered, and its expressions not yet.
    fn prefixes_done(&mut self);
    /// Something was looked at; for counting.
    fn step(&mut self) {}
}

impl Table {
    /// Compiles rules. `listeners` are the names that [`Question::listener`] counts through.
    ///
    /// **Errors**: all of them, each with the index of its rule.
    pub fn build(rules: Vec<Rule>, listeners: &[String]) -> Result<Table, Vec<(usize, PatternError)>> {
        Builder::new(rules, listeners).finish()
    }

    /// The rule that takes a request.
    ///
    /// **Cost**: does not grow with the number of rules, but for expressions, which are tried one after the other, and for rules that
    /// differ in nothing but their conditions. No allocation.
    pub fn find(&self, question: &Question<'_>) -> Option<Match<'_>> {
        let mut search = self.search(question);
        self.walk(question, &mut search);
        let entry = self.entries.get(search.best as usize)?;
        Some(Match { rule: entry.rule as usize, path: self.matched(entry.kind) })
    }

    /// A lookup that has not begun.
    pub(super) fn search<'a>(&'a self, question: &'a Question<'a>) -> Search<'a> {
        Search { table: self, question, best: NONE, bound: u32::MAX }
    }

    /// Whether any rule looks at headers or cookies; otherwise a question need not hold any.
    pub fn asks_headers(&self) -> bool {
        self.asks_headers
    }

    /// The number of rules.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub(super) fn matched(&self, kind: Kind) -> Matched<'_> {
        match kind {
            Kind::Exact => Matched::Exact,
            Kind::Border(length) => Matched::Prefix { length: length as usize, on_border: true },
            Kind::Raw { length, .. } => Matched::Prefix { length: length as usize, on_border: false },
            Kind::Regex(at) => Matched::Regex(&self.regexes[at as usize]),
            Kind::Any => Matched::Any,
        }
    }

    /// Offers everything whose host and path match.
    pub(super) fn walk(&self, question: &Question<'_>, visit: &mut impl Visit) {
        self.names.each(question.host, |host| {
            let host = &self.hosts[host as usize];
            if visit.wants(host.first) {
                self.walk_host(host, question.path, visit);
            }
        });
    }

    fn walk_host(&self, host: &Host, path: &str, visit: &mut impl Visit) {
        let found = self.forest.descend(host.root, path.as_bytes(), || visit.step());
        visit.offer(Stage::Exact, self.forest.exact(found));
        for entries in self.forest.prefixes(found, path.as_bytes()) {
            visit.offer(Stage::Prefix, entries);
        }
        visit.prefixes_done();
        // `*` is no path.
        if path.starts_with('/') {
            visit.offer(Stage::Regex, self.forest.list(host.regexes));
        }
        visit.offer(Stage::Any, self.forest.list(host.any));
    }
}

impl Names {
    /// Where each host is.
    pub(super) fn new(hosts: &[Host]) -> Names {
        let mut names = Names::default();
        for (at, host) in hosts.iter().enumerate() {
            let at = at as u32;
            match &host.pattern {
                HostPattern::Exact(name) => {
                    names.longest = names.longest.max(name.len());
                    names.exact.insert(name.as_str().into(), at);
                }
                HostPattern::Wildcard(suffix) => {
                    names.longest_suffix = names.longest_suffix.max(suffix.len());
                    names.wildcard.insert(suffix.as_str().into(), at);
                }
                HostPattern::Any => names.any = Some(at),
            }
        }
        names
    }

    /// The hosts that `name` belongs to, the most specific first.
    pub(super) fn each(&self, name: &str, mut each: impl FnMut(u32)) {
        if name.len() <= self.longest
            && let Some(&host) = self.exact.get(name)
        {
            each(host);
        }
        if !self.wildcard.is_empty() {
            self.each_wildcard(name, &mut each);
        }
        if let Some(host) = self.any {
            each(host);
        }
    }

    fn each_wildcard(&self, name: &str, each: &mut impl FnMut(u32)) {
        // Only dots that leave no more than the longest suffix behind them; the first byte cannot be one, as a label must stand there.
        let start = name.len().saturating_sub(self.longest_suffix + 1).max(1);
        for (at, &byte) in name.as_bytes().iter().enumerate().skip(start) {
            if byte == b'.'
                && let Some(suffix) = name.get(at + 1..)
                && let Some(&host) = self.wildcard.get(suffix)
            {
                each(host);
            }
        }
    }
}

/// A lookup that keeps the best.
pub(super) struct Search<'a> {
    table: &'a Table,
    question: &'a Question<'a>,
    best: u32,
    /// Only lower ranks are better.
    bound: u32,
}

impl Visit for Search<'_> {
    fn wants(&self, rank: u32) -> bool {
        rank < self.bound
    }

    fn offer(&mut self, stage: Stage, entries: &[u32]) {
        for &at in entries {
            let entry = &self.table.entries[at as usize];
            if entry.rank >= self.bound {
                return;
            }
            if self.table.takes(entry, stage, self.question) {
                (self.best, self.bound) = (at, entry.rank);
                return;
            }
        }
    }

    fn prefixes_done(&mut self) {
        // The best prefix has been found by comparing plain ranks; only now is it known to be the longest.
        if let Some(entry) = self.table.entries.get(self.best as usize) {
            self.bound = self.bound.min(entry.promoted);
        }
    }
}

impl Table {
    /// Whether an entry that was offered takes the request.
    pub(super) fn takes(&self, entry: &Entry, stage: Stage, question: &Question<'_>) -> bool {
        if let (Stage::Regex, Kind::Regex(at)) = (stage, entry.kind)
            && !self.regexes[at as usize].is_match(question.path)
        {
            return false;
        }
        self.rules[entry.rule as usize].holds(question)
    }

    /// Where an entry stands.
    pub(super) fn key(&self, entry: &Entry) -> Key {
        let rule = &self.rules[entry.rule as usize];
        let host = HostRank::of(&self.hosts[entry.host as usize].pattern);
        Key::new(rule.priority, host, entry.kind, rule.weight, entry.rule)
    }
}
