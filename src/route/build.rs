//! From rules to a [`Table`].

use std::collections::HashMap;

use regex::Regex;

use super::condition::Check;
use super::pattern::{canonical_path, path_regex};
use super::rule::{HostRank, Key, Kind, Weight};
use super::table::{Compiled, Entry, Host, Names};
use super::tree::{Forest, NONE, Place};
use super::{Condition, HostPattern, PathPattern, PatternError, Rule, Subject, Table};

/// An entry that has no rank yet.
struct Draft {
    key: Key,
    rule: u32,
    host: u32,
    kind: Kind,
    /// Which of the rule's paths.
    nth: u32,
    /// What is planted, for those that are.
    path: Option<Box<str>>,
}

/// A table that is being put together.
pub(super) struct Builder<'a> {
    listeners: &'a [String],
    rules: Vec<Compiled>,
    hosts: Vec<HostPattern>,
    host_at: HashMap<HostPattern, u32>,
    regexes: Vec<Regex>,
    regex_at: HashMap<(String, bool), u32>,
    drafts: Vec<Draft>,
    errors: Vec<(usize, PatternError)>,
}

impl<'a> Builder<'a> {
    /// Compiles the rules one by one.
    pub(super) fn new(rules: Vec<Rule>, listeners: &'a [String]) -> Self {
        let mut builder = Builder {
            listeners,
            rules: Vec::with_capacity(rules.len()),
            hosts: Vec::new(),
            host_at: HashMap::new(),
            regexes: Vec::new(),
            regex_at: HashMap::new(),
            drafts: Vec::with_capacity(rules.len()),
            errors: Vec::new(),
        };
        for rule in rules {
            builder.rule(rule);
        }
        builder
    }

    fn rule(&mut self, rule: Rule) {
        let file = self.rules.len();
        let Rule { name, listeners, mut hosts, paths, mut conditions, priority } = rule;
        if !listeners.is_empty() {
            conditions.push(Condition { subject: Subject::Listener(listeners), negated: false });
        }
        let weight = Weight::of(conditions.iter());
        let built = conditions.into_iter().map(|condition| Check::build(condition, self.listeners));
        let mut checks: Vec<Check> =
            built.filter_map(|check| check.map_err(|e| self.errors.push((file, e))).ok()).collect();
        checks.sort_by_key(Check::cost);
        if hosts.is_empty() {
            hosts.push(HostPattern::Any);
        }
        let kinds = self.kinds(file, &paths);
        for host in &hosts {
            let rank = HostRank::of(host);
            let host = self.host(host);
            for (nth, (kind, path)) in kinds.iter().enumerate() {
                let key = Key::new(priority, rank, *kind, weight, file as u32);
                let key = Key { nth: self.drafts.len() as u32, ..key };
                self.drafts.push(Draft {
                    key,
                    rule: file as u32,
                    host,
                    kind: *kind,
                    nth: nth as u32,
                    path: path.clone(),
                });
            }
        }
        self.rules.push(Compiled { name, hosts, paths, priority, weight, checks: checks.into() });
    }

    fn kinds(&mut self, file: usize, paths: &[PathPattern]) -> Vec<(Kind, Option<Box<str>>)> {
        if paths.is_empty() {
            return vec![(Kind::Any, None)];
        }
        let mut kinds = Vec::with_capacity(paths.len());
        for path in paths {
            match self.kind(path) {
                Ok(kind) => kinds.push(kind),
                Err(error) => self.errors.push((file, error)),
            }
        }
        kinds
    }

    fn kind(&mut self, path: &PathPattern) -> Result<(Kind, Option<Box<str>>), PatternError> {
        Ok(match path {
            PathPattern::Exact(path) => (Kind::Exact, Some(canonical_path(path, false)?.into())),
            PathPattern::Prefix(path) => {
                let path = canonical_path(path, false)?;
                let prefix = path.trim_end_matches('/');
                // All of `/`'s paths start with `/`, but the border is in front of that.
                let planted = if prefix.is_empty() { "/" } else { prefix };
                (Kind::Border(prefix.len() as u32), Some(planted.into()))
            }
            PathPattern::RawPrefix { prefix, over_regex } => {
                let prefix = canonical_path(prefix, true)?;
                (Kind::Raw { length: prefix.len() as u32, over_regex: *over_regex }, Some(prefix.into()))
            }
            PathPattern::Regex { expression, ignore_case } => {
                let key = (expression.clone(), *ignore_case);
                let at = match self.regex_at.get(&key) {
                    Some(&at) => at,
                    None => {
                        self.regexes.push(path_regex(expression, *ignore_case)?);
                        let at = self.regexes.len() as u32 - 1;
                        self.regex_at.insert(key, at);
                        at
                    }
                };
                (Kind::Regex(at), None)
            }
        })
    }

    fn host(&mut self, host: &HostPattern) -> u32 {
        *self.host_at.entry(host.clone()).or_insert_with(|| {
            self.hosts.push(host.clone());
            self.hosts.len() as u32 - 1
        })
    }

    /// Puts them in order.
    pub(super) fn finish(mut self) -> Result<Table, Vec<(usize, PatternError)>> {
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        self.drafts.sort_unstable_by_key(|draft| draft.key);
        let entries = ranked(&self.drafts);
        let mut by_host: Vec<Vec<u32>> = vec![Vec::new(); self.hosts.len()];
        for (at, draft) in self.drafts.iter().enumerate() {
            by_host[draft.host as usize].push(at as u32);
        }
        let mut forest = Forest::default();
        let plant = |(pattern, own): (HostPattern, Vec<u32>)| host(pattern, &own, &self.drafts, &entries, &mut forest);
        let hosts: Box<[Host]> = self.hosts.into_iter().zip(by_host).map(plant).collect();
        Ok(Table {
            names: Names::new(&hosts),
            asks_headers: self.rules.iter().flat_map(|rule| &rule.checks).any(Check::asks_headers),
            rules: self.rules.into(),
            entries,
            hosts,
            forest,
            regexes: self.regexes.into(),
            listeners: self.listeners.into(),
        })
    }
}

/// Plants one host's tree and lists. `own` are its entries, in rank order.
fn host(pattern: HostPattern, own: &[u32], drafts: &[Draft], entries: &[Entry], forest: &mut Forest) -> Host {
    let of = |wanted: fn(Kind) -> bool| {
        own.iter().copied().filter(|&at| wanted(drafts[at as usize].kind)).collect::<Vec<u32>>()
    };
    let root = forest.plant(own.iter().filter_map(|&at| planted(&drafts[at as usize], at)));
    let regexes = forest.store(&of(|kind| matches!(kind, Kind::Regex(_))));
    let any = forest.store(&of(|kind| kind == Kind::Any));
    let first = own.iter().map(|&at| entries[at as usize].promoted).min().unwrap_or(NONE);
    Host { pattern, root, regexes, any, first }
}

/// What goes into the tree.
fn planted(draft: &Draft, at: u32) -> Option<(&str, Place, u32)> {
    let place = match draft.kind {
        Kind::Exact => Place::Exact,
        Kind::Border(0) | Kind::Raw { .. } => Place::Raw,
        Kind::Border(_) => Place::Border,
        Kind::Regex(_) | Kind::Any => return None,
    };
    Some((draft.path.as_deref()?, place, at))
}

/// Numbers sorted drafts, `^~` prefixes twice.
fn ranked(drafts: &[Draft]) -> Box<[Entry]> {
    let over = |draft: &Draft| matches!(draft.kind, Kind::Raw { over_regex: true, .. });
    let mut places: Vec<(Key, usize, bool)> = Vec::with_capacity(drafts.len());
    for (at, draft) in drafts.iter().enumerate() {
        places.push((draft.key, at, false));
        if over(draft) {
            places.push((draft.key.over_regex(), at, true));
        }
    }
    places.sort_unstable();
    let unranked = |draft: &Draft| Entry {
        rule: draft.rule,
        host: draft.host,
        kind: draft.kind,
        path: draft.nth,
        rank: 0,
        promoted: NONE,
    };
    let mut entries: Vec<Entry> = drafts.iter().map(unranked).collect();
    for (rank, (_, at, promoted)) in places.into_iter().enumerate() {
        let entry = &mut entries[at];
        // The higher place comes first, and stays.
        entry.promoted = entry.promoted.min(rank as u32);
        if !promoted {
            entry.rank = rank as u32;
        }
    }
    entries.into()
}
