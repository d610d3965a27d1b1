//! Rules, and the order they are asked in.

use std::cmp::Reverse;

use super::{Condition, HostPattern, PathPattern, Subject};

/// What a route asks of a request.
///
/// It matches where one of the hosts, one of the paths and all conditions match.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    /// The route's name, for explaining.
    pub name: String,
    /// Only requests that came in by one of these listeners; any where empty. Counts as one condition.
    pub listeners: Vec<String>,
    /// Any host where empty.
    pub hosts: Vec<HostPattern>,
    /// Any path where empty.
    pub paths: Vec<PathPattern>,
    /// All of them must hold.
    pub conditions: Vec<Condition>,
    /// Higher goes first, before all other precedence.
    pub priority: i32,
}

/// How a path pattern matches, once compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Exact,
    /// A prefix of this length, on a segment border; zero for `/`.
    Border(u32),
    Raw {
        length: u32,
        over_regex: bool,
    },
    /// An index into the table's expressions.
    Regex(u32),
    Any,
}

/// Where one of a rule's combinations of host and path stands among all others: the smallest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) priority: Reverse<i32>,
    pub(super) host: HostRank,
    pub(super) class: Class,
    /// Of a prefix.
    pub(super) length: Reverse<u32>,
    /// Of two prefixes alike, that on segment borders takes fewer paths.
    pub(super) raw: bool,
    pub(super) weight: Reverse<Weight>,
    /// The rule's place in the file.
    pub(super) file: u32,
    /// The combination's place in the rule.
    pub(super) nth: u32,
}

/// More specific hosts go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum HostRank {
    Exact,
    /// By the suffix's length.
    Wildcard(Reverse<u32>),
    Any,
}

/// Kinds of paths, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Exact,
    /// A prefix that goes before expressions; it stands here only for requests of which it is the longest prefix.
    OverRegex,
    Regex,
    Prefix,
    Any,
}

/// How much a rule asks besides host and path: first by number; among equals Gateway API's order of methods, headers, parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Weight {
    pub(super) conditions: u32,
    methods: u32,
    headers: u32,
    parameters: u32,
}

impl Weight {
    pub(super) fn of<'a>(conditions: impl Iterator<Item = &'a Condition>) -> Weight {
        let mut weight = Weight::default();
        for condition in conditions {
            weight.conditions += 1;
            match condition.subject {
                Subject::Method(_) => weight.methods += 1,
                Subject::Header(..) => weight.headers += 1,
                Subject::Query(..) => weight.parameters += 1,
                _ => {}
            }
        }
        weight
    }
}

impl HostRank {
    pub(super) fn of(host: &HostPattern) -> HostRank {
        match host {
            HostPattern::Exact(_) => HostRank::Exact,
            HostPattern::Wildcard(suffix) => HostRank::Wildcard(Reverse(suffix.len() as u32)),
            HostPattern::Any => HostRank::Any,
        }
    }
}

impl Key {
    /// The key of a combination; `promoted` is that of an over-regex prefix where it is the longest.
    pub(super) fn new(priority: i32, host: HostRank, kind: Kind, weight: Weight, file: u32) -> Key {
        let (class, length, raw) = match kind {
            Kind::Exact => (Class::Exact, 0, false),
            // Takes the same paths as the raw `/`, so nothing sets them apart.
            Kind::Border(0) => (Class::Prefix, 1, true),
            Kind::Border(length) => (Class::Prefix, length, false),
            Kind::Raw { length, .. } => (Class::Prefix, length, true),
            Kind::Regex(_) => (Class::Regex, 0, false),
            Kind::Any => (Class::Any, 0, false),
        };
        // Which of two expressions is the more special nobody can tell: the file's order is the operator's word.
        let weight = if class == Class::Regex { Weight::default() } else { weight };
        let (priority, length, weight) = (Reverse(priority), Reverse(length), Reverse(weight));
        Key { priority, host, class, length, raw, weight, file, nth: 0 }
    }

    /// The same, ahead of the expressions.
    pub(super) fn over_regex(self) -> Key {
        Key { class: Class::OverRegex, ..self }
    }
}
