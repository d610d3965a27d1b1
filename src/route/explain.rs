//! Why a request goes where it goes: what became of every rule.
//!
//! It asks the same table in the same way as serving does, only to the end. So it cannot tell another story.

use std::fmt;

use super::condition::Listed;
use super::rule::{Class, Key, Kind};
use super::table::{Entry, Stage, Visit};
use super::{HostPattern, PathPattern, Question, Table};

/// What became of one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict<'t> {
    /// The rule's index in the list the table was built from.
    pub rule: usize,
    /// Its name.
    pub name: &'t str,
    /// What became of it.
    pub outcome: Outcome<'t>,
}

/// Whether a rule takes a request, and why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<'t> {
    /// It takes the request.
    Taken(By<'t>),
    /// It would, if another did not come first.
    Later {
        /// By what it would take it.
        by: By<'t>,
        /// The name of the rule that takes it.
        than: &'t str,
        /// Why that one comes first.
        because: Reason,
    },
    /// It does not match.
    No(Mismatch),
}

/// The patterns by which a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct By<'t> {
    /// Of its hosts.
    pub host: &'t HostPattern,
    /// Of its paths; none where it is for any path.
    pub path: Option<&'t PathPattern>,
}

/// Why one rule comes before another: the first difference in the order of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Its priority is higher.
    Priority {
        /// The first one's.
        first: i32,
        /// The later one's.
        later: i32,
    },
    /// Its host is more specific.
    Host,
    /// Exact paths go before all others.
    ExactPath,
    /// Its `^~` prefix is the longest, and goes before regular expressions.
    OverRegex,
    /// Regular expressions go before prefixes.
    Regex,
    /// Prefixes go before rules for any path.
    Prefix,
    /// Its prefix is longer.
    LongerPrefix,
    /// Of two prefixes alike, that on segment borders goes first.
    Border,
    /// It asks for more.
    MoreConditions,
    /// Among as many conditions, methods go before headers, headers before query parameters, and these before others.
    Conditions,
    /// It stands earlier in the file.
    Earlier,
}

/// The first thing about a request that is not as a rule asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// What the rule asks for, such as `header x-env "beta"`.
    pub expected: String,
    /// What the request has there.
    pub actual: String,
}

impl Table {
    /// What becomes of each rule, in the order in which they are asked.
    ///
    /// **Cost**: looks at every rule; for people, not for serving.
    pub fn explain(&self, question: &Question<'_>) -> Vec<Verdict<'_>> {
        let mut all =
            All { table: self, question, reached: vec![Reached::default(); self.rules.len()], prefixes: Vec::new() };
        self.walk(question, &mut all);
        let mut reached = all.reached;
        for entry in &self.entries {
            let own = &mut reached[entry.rule as usize];
            own.first = own.first.min(entry.rank);
        }
        let taken = reached.iter().filter_map(|rule| rule.best).min();
        let mut order: Vec<usize> = (0..self.rules.len()).collect();
        order.sort_by_key(|&rule| (reached[rule].best.map_or(reached[rule].first, |(rank, _)| rank), rule));
        let verdict = |rule: usize| {
            let outcome = match (reached[rule].best, taken) {
                (Some(own), Some(taken)) if own == taken => Outcome::Taken(self.by(own.1)),
                (Some(own), Some(taken)) => Outcome::Later {
                    by: self.by(own.1),
                    than: &self.rules[self.entries[taken.1 as usize].rule as usize].name,
                    because: because(self.place(taken), self.place(own)),
                },
                _ => Outcome::No(self.mismatch(rule, reached[rule].path, question)),
            };
            Verdict { rule, name: &self.rules[rule].name, outcome }
        };
        order.into_iter().map(verdict).collect()
    }

    fn by(&self, entry: u32) -> By<'_> {
        let entry = &self.entries[entry as usize];
        let path =
            if entry.kind == Kind::Any { None } else { self.rules[entry.rule as usize].paths.get(entry.path as usize) };
        By { host: &self.hosts[entry.host as usize].pattern, path }
    }

    /// Where an entry stood for this request.
    fn place(&self, (rank, entry): (u32, u32)) -> Key {
        let entry = &self.entries[entry as usize];
        let key = self.key(entry);
        if rank == entry.rank { key } else { key.over_regex() }
    }

    fn mismatch(&self, rule: usize, path_matched: bool, question: &Question<'_>) -> Mismatch {
        let rule = &self.rules[rule];
        if path_matched && let Some(check) = rule.checks.iter().find(|check| !check.holds(question)) {
            let actual = check.actual(question, &self.listeners);
            return Mismatch { expected: check.source.to_string(), actual };
        }
        let named = |host: &str| if host.is_empty() { "none".to_owned() } else { host.to_owned() };
        if !rule.hosts.iter().any(|host| host.matches(question.host)) {
            return Mismatch { expected: format!("host {}", Listed(&rule.hosts)), actual: named(question.host) };
        }
        Mismatch { expected: format!("path {}", Listed(&rule.paths)), actual: question.path.to_owned() }
    }
}

/// What a lookup to the end finds out about one rule.
#[derive(Debug, Clone)]
struct Reached {
    /// Host and path match.
    path: bool,
    /// The best rank at which it takes the request, and the entry of that.
    best: Option<(u32, u32)>,
    /// The best rank of its entries, for rules that do not match.
    first: u32,
}

impl Default for Reached {
    fn default() -> Self {
        Reached { path: false, best: None, first: u32::MAX }
    }
}

/// A lookup that goes on to the end.
struct All<'a> {
    table: &'a Table,
    question: &'a Question<'a>,
    reached: Vec<Reached>,
    /// The entries of one host that take the request by their prefix.
    prefixes: Vec<u32>,
}

impl All<'_> {
    fn found(&mut self, rank: u32, at: u32) {
        let best = &mut self.reached[self.table.entries[at as usize].rule as usize].best;
        *best = Some(best.map_or((rank, at), |best| best.min((rank, at))));
    }

    /// Whether host and path match; for expressions that is to be found out yet.
    fn reaches(&self, entry: &Entry) -> bool {
        match entry.kind {
            Kind::Regex(at) => self.table.regexes[at as usize].is_match(self.question.path),
            _ => true,
        }
    }
}

impl Visit for All<'_> {
    fn wants(&self, _: u32) -> bool {
        true
    }

    fn offer(&mut self, stage: Stage, entries: &[u32]) {
        for &at in entries {
            let entry = self.table.entries[at as usize];
            if self.reaches(&entry) {
                self.reached[entry.rule as usize].path = true;
            }
            if self.table.takes(&entry, stage, self.question) {
                match stage {
                    Stage::Prefix => self.prefixes.push(at),
                    _ => self.found(entry.rank, at),
                }
            }
        }
    }

    fn prefixes_done(&mut self) {
        let mut prefixes = std::mem::take(&mut self.prefixes);
        // Entries are numbered by rank.
        prefixes.sort_unstable();
        let mut priority = None;
        for at in prefixes {
            let entry = self.table.entries[at as usize];
            let own = self.table.rules[entry.rule as usize].priority;
            // The longest of its priority, if any, goes before that priority's expressions.
            let rank = if priority == Some(own) { entry.rank } else { entry.promoted };
            priority = Some(own);
            self.found(rank, at);
        }
    }
}

/// The first difference.
fn because(first: Key, later: Key) -> Reason {
    if first.priority != later.priority {
        return Reason::Priority { first: first.priority.0, later: later.priority.0 };
    }
    if first.host != later.host {
        return Reason::Host;
    }
    if first.class != later.class {
        return match first.class {
            Class::Exact => Reason::ExactPath,
            Class::OverRegex => Reason::OverRegex,
            Class::Regex => Reason::Regex,
            Class::Prefix | Class::Any => Reason::Prefix,
        };
    }
    if first.length != later.length {
        return Reason::LongerPrefix;
    }
    if first.raw != later.raw {
        return Reason::Border;
    }
    if first.weight.0.conditions != later.weight.0.conditions {
        return Reason::MoreConditions;
    }
    if first.weight != later.weight { Reason::Conditions } else { Reason::Earlier }
}

impl fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.outcome)
    }
}

impl fmt::Display for Outcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Taken(by) => write!(f, "takes it, by {by}"),
            Outcome::Later { by, than, because } => {
                write!(f, "would take it, by {by}, but {than} comes first: {because}")
            }
            Outcome::No(mismatch) => write!(f, "does not match: {mismatch}"),
        }
    }
}

impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host, self.path) {
            (HostPattern::Any, None) => f.write_str("any host and path"),
            (HostPattern::Any, Some(path)) => write!(f, "path {path}"),
            (host, None) => write!(f, "host {host}"),
            (host, Some(path)) => write!(f, "host {host} and path {path}"),
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, but it is {}", self.expected, self.actual)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Priority { first, later } => return write!(f, "its priority is {first}, this one's {later}"),
            Reason::Host => "its host is more specific",
            Reason::ExactPath => "exact paths go first",
            Reason::OverRegex => "its `^~` prefix is the longest, and goes before regular expressions",
            Reason::Regex => "regular expressions go before prefixes",
            Reason::Prefix => "prefixes go before any path",
            Reason::LongerPrefix => "its prefix is longer",
            Reason::Border => "a prefix on segment borders goes before the same prefix raw",
            Reason::MoreConditions => "it has more conditions",
            Reason::Conditions => "among as many conditions, methods go first, then headers, then query parameters",
            Reason::Earlier => "it stands earlier in the file",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Ask, ask, header, method, query, rule, some_ask, some_rules, table};
    use super::*;
    use crate::route::{Rule, Subject};
    use proptest::prelude::*;

    fn explain(table: &Table, ask: &Ask) -> Vec<String> {
        table.explain(&ask.question()).iter().map(Verdict::to_string).collect()
    }

    #[test]
    fn every_rule_is_accounted_for() {
        let inside = Subject::Source(vec!["192.168.0.0/16".parse().unwrap()]);
        let table = table([
            rule("other host").host("b.com").host("*.b.com").path("/"),
            rule("other path").path("/x").path("= /y"),
            rule("beta").path("/api").when(header("x-env", "beta")),
            rule("inside").path("/api").when(inside.clone()),
            rule("outside").path("/api").unless(inside).when(method("POST")),
            rule("api").path("/api"),
            rule("tls").path("/api").on("tls"),
            rule("fallback"),
        ]);
        assert_eq!(
            explain(&table, &ask("GET a.com/api/v1").with("x-env", "prod")),
            [
                "other host: does not match: expected host b.com or *.b.com, but it is a.com",
                "other path: does not match: expected path /x or = /y, but it is /api/v1",
                "outside: does not match: expected method POST, but it is GET",
                "beta: does not match: expected header x-env \"beta\", but it is \"prod\"",
                "inside: does not match: expected client in 192.168.0.0/16, but it is 10.0.0.1",
                "tls: does not match: expected listener tls, but it is web",
                "api: takes it, by path /api",
                "fallback: would take it, by any host and path, but api comes first: prefixes go before any path",
            ]
        );
    }

    #[track_caller]
    fn reason(first: Rule, later: Rule, text: &str) -> Reason {
        let table = table([Rule { name: "later".to_owned(), ..later }, Rule { name: "first".to_owned(), ..first }]);
        let ask = ask(text).with("a", "1").with("b", "1");
        let verdicts = table.explain(&ask.question());
        assert!(matches!(verdicts[0], Verdict { name: "first", outcome: Outcome::Taken(_), .. }), "{verdicts:?}");
        match verdicts[1].outcome {
            Outcome::Later { because, .. } => because,
            ref other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_reason_is_the_first_difference() {
        let r = || rule("");
        assert_eq!(reason(r().first(2), r().first(1).path("= /p"), "GET h/p"), Reason::Priority { first: 2, later: 1 });
        assert_eq!(reason(r().host("h"), r().path("= /p"), "GET h/p"), Reason::Host);
        assert_eq!(reason(r().path("= /p"), r().path("^~ /p"), "GET h/p"), Reason::ExactPath);
        assert_eq!(reason(r().path("^~ /p"), r().path("~ p"), "GET h/p"), Reason::OverRegex);
        assert_eq!(reason(r().path("~ p"), r().path("/p"), "GET h/p"), Reason::Regex);
        assert_eq!(reason(r().path("/p"), r(), "GET h/p"), Reason::Prefix);
        assert_eq!(reason(r().path("/p/q"), r().path("/p"), "GET h/p/q"), Reason::LongerPrefix);
        assert_eq!(reason(r().path("/p"), r().path("raw /p"), "GET h/p"), Reason::Border);
        let two = r().when(header("a", "1")).when(header("b", "1"));
        assert_eq!(reason(two, r().when(method("GET")), "GET h/p"), Reason::MoreConditions);
        assert_eq!(reason(r().when(method("GET")), r().when(header("a", "1")), "GET h/p"), Reason::Conditions);
        assert_eq!(reason(r().when(header("a", "1")), r().when(query("q", "1")), "GET h/p?q=1"), Reason::Conditions);
        let table = table([r(), r()]);
        let ask = ask("GET h/p");
        let verdicts = table.explain(&ask.question());
        assert!(matches!(verdicts[1].outcome, Outcome::Later { because: Reason::Earlier, .. }));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

        #[test]
        fn the_one_that_is_taken_is_the_one_that_is_found(
            rules in some_rules(),
            asks in proptest::collection::vec(some_ask(), 1..8),
        ) {
            let table = table(rules.clone());
            for ask in asks {
                let question = ask.question();
                let verdicts = table.explain(&question);
                prop_assert_eq!(verdicts.len(), rules.len());
                let taken = verdicts.iter().find(|verdict| matches!(verdict.outcome, Outcome::Taken(_)));
                prop_assert_eq!(taken.map(|verdict| verdict.rule), table.find(&question).map(|found| found.rule));
                // Without those before it, each rule that matches takes the request; but without a longest `^~` prefix the next one is.
                let over = |path: &PathPattern| matches!(path, PathPattern::RawPrefix { over_regex: true, .. });
                if rules.iter().flat_map(|rule| &rule.paths).any(over) {
                    continue;
                }
                let mut left = rules.clone();
                for verdict in &verdicts {
                    let first = self::table(left.clone()).find(&question).map(|found| found.rule);
                    let matches = !matches!(verdict.outcome, Outcome::No(_));
                    if matches {
                        prop_assert_eq!(first, Some(verdict.rule), "{:?}", verdicts);
                    }
                    left[verdict.rule].hosts = vec![HostPattern::Exact("nobody".to_owned())];
                }
                prop_assert_eq!(self::table(left).find(&question).map(|found| found.rule), None);
            }
        }
    }
}
