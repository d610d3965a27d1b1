//! Rules that no request can reach, because another takes all of theirs first.
//!
//! Only certain cases are told: one other rule, which covers hosts, paths and conditions. What several rules cover together, or what
//! follows from the meaning of an expression, is not looked for; an operator must be able to trust the report.

use super::condition::Check;
use super::pattern::canonical_path;
use super::rule::Kind;
use super::table::Entry;
use super::{Condition, HostPattern, PathPattern, Subject, Table, ValuePattern};

/// So many other rules are compared with each at most: a table of thousands that differ only in conditions is checked in part.
const BUDGET: usize = 256;

impl Table {
    /// Rules that can never take a request, each with one that takes them first; both by their index in the list the table was
    /// built from.
    ///
    /// **Cost**: for each rule about that of a lookup; for checking configurations, not for serving.
    pub fn shadowed(&self) -> Vec<(usize, usize)> {
        // For each rule: none, by whom all of its entries so far are covered, or that one is not.
        let mut covered: Vec<Option<Result<usize, ()>>> = vec![None; self.rules.len()];
        for entry in &self.entries {
            let so_far = &mut covered[entry.rule as usize];
            if *so_far != Some(Err(())) {
                *so_far = match (self.cover(entry), *so_far) {
                    (None, _) => Some(Err(())),
                    (Some(_), Some(first)) => Some(first),
                    (Some(by), None) => Some(Ok(by)),
                };
            }
        }
        covered.into_iter().enumerate().filter_map(|(rule, by)| Some((rule, by?.ok()?))).collect()
    }

    /// A rule that takes whatever the entry could.
    fn cover(&self, entry: &Entry) -> Option<usize> {
        let own = &self.hosts[entry.host as usize].pattern;
        let name = match own {
            HostPattern::Exact(name) => name.clone(),
            // A host of this pattern and of no exact one.
            HostPattern::Wildcard(suffix) => format!("\0.{suffix}"),
            HostPattern::Any => "\0".to_owned(),
        };
        let mut by = None;
        self.names.each(&name, |host| by = by.or_else(|| self.cover_in(host, entry)));
        by
    }

    /// Such a rule among those of one host, which covers the entry's.
    fn cover_in(&self, host: u32, entry: &Entry) -> Option<usize> {
        let host = &self.hosts[host as usize];
        let path = self.path_of(entry);
        let mut budget = BUDGET;
        let mut among = |entries: &[u32]| {
            let candidates = entries.iter().map(|&at| &self.entries[at as usize]);
            let before = candidates.take_while(|other| other.rank < entry.rank).take(budget);
            let mut looked = 0;
            let found = before.inspect(|_| looked += 1).find(|other| self.covers(other, entry, path.as_deref()));
            budget -= looked;
            found.map(|other| other.rule as usize)
        };
        // Any path covers all of them; and nothing else covers any path.
        if let Some(by) = among(self.forest.list(host.any)) {
            return Some(by);
        }
        let path = path.as_deref()?.as_bytes();
        let found = self.forest.descend(host.root, path, || {});
        among(self.forest.exact(found))
            .or_else(|| self.forest.prefixes(found, path).find_map(&mut among))
            .or_else(|| among(self.forest.list(host.regexes)))
    }

    /// The path whose patterns are to be looked at; that of an expression is the shortest there is.
    fn path_of(&self, entry: &Entry) -> Option<String> {
        match self.rules[entry.rule as usize].paths.get(entry.path as usize)? {
            PathPattern::Exact(path) => canonical_path(path, false).ok(),
            PathPattern::Prefix(path) => match canonical_path(path, false).ok()?.trim_end_matches('/') {
                "" => Some("/".to_owned()),
                prefix => Some(prefix.to_owned()),
            },
            PathPattern::RawPrefix { prefix, .. } => canonical_path(prefix, true).ok(),
            PathPattern::Regex { .. } => Some("/".to_owned()),
        }
    }

    /// Whether `other`, whose host covers the entry's and whose pattern matches `path`, comes first and takes all that the entry could.
    fn covers(&self, other: &Entry, entry: &Entry, path: Option<&str>) -> bool {
        let paths = match (other.kind, entry.kind) {
            // A `^~` prefix may go before the expression.
            (Kind::Regex(_), Kind::Raw { over_regex: true, .. }) if other.rank >= entry.promoted => false,
            (Kind::Any, _) => true,
            (Kind::Regex(one), Kind::Regex(two)) if one == two => true,
            (Kind::Regex(at), Kind::Exact) => path.is_some_and(|path| self.regexes[at as usize].is_match(path)),
            (Kind::Regex(at), Kind::Border(_) | Kind::Raw { .. } | Kind::Regex(_)) => {
                matches_all(self.regexes[at as usize].as_str())
            }
            // Beside the prefix itself the raw one has paths that do not end at its border.
            (Kind::Border(one), Kind::Raw { length: two, .. }) => one < two,
            (Kind::Exact, Kind::Exact) => true,
            (Kind::Exact, _) => false,
            (Kind::Border(_) | Kind::Raw { .. }, Kind::Any) => false,
            (Kind::Border(_) | Kind::Raw { .. }, _) => true,
            (Kind::Regex(_), Kind::Any) => false,
        };
        let (one, two) = (&self.rules[other.rule as usize], &self.rules[entry.rule as usize]);
        paths
            && other.rule != entry.rule
            && one.checks.iter().all(|asked| two.checks.iter().any(|given| implies(given, asked)))
    }
}

/// Expressions that match every path, as people write them.
fn matches_all(expression: &str) -> bool {
    let start = expression.strip_prefix('^').unwrap_or(expression);
    matches!(start.strip_suffix('$').unwrap_or(start), ".*" | "/.*" | "(.*)" | "/(.*)")
        || matches!(start, "" | "/" | ".")
}

/// Whether what meets one condition meets the other, for certain.
fn implies(given: &Check, asked: &Check) -> bool {
    let (Condition { subject: one, negated }, Condition { subject: two, negated: other }) =
        (&given.source, &asked.source);
    if negated != other {
        return false;
    }
    // Of what is negated, the larger set says more.
    let (small, large) = if *negated { (two, one) } else { (one, two) };
    small == large
        || match (small, large) {
            (Subject::Method(small), Subject::Method(large)) => small.iter().all(|method| large.contains(method)),
            (Subject::Listener(small), Subject::Listener(large)) => small.iter().all(|name| large.contains(name)),
            (Subject::Host(small), Subject::Host(large)) => small.iter().all(|host| large.contains(host)),
            (Subject::Path(small), Subject::Path(large)) => small.iter().all(|path| large.contains(path)),
            (Subject::Source(small), Subject::Source(large)) => {
                small.iter().all(|net| large.iter().any(|wide| wide.contains(net)))
            }
            (Subject::Header(a, small), Subject::Header(b, large)) => a == b && narrower(small, large),
            (Subject::Cookie(a, small), Subject::Cookie(b, large)) => a == b && narrower(small, large),
            (Subject::Query(a, small), Subject::Query(b, large)) => a == b && narrower(small, large),
            _ => false,
        }
}

/// Whether every value of the one is one of the other.
fn narrower(small: &ValuePattern, large: &ValuePattern) -> bool {
    match (small, large) {
        (ValuePattern::Present(false), _) => false,
        (_, ValuePattern::Present(present)) => *present,
        (ValuePattern::Exact(text) | ValuePattern::Prefix(text), ValuePattern::Prefix(start)) => {
            text.starts_with(start)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{header, method, rule, some_ask, some_rules, table};
    use super::*;
    use crate::route::Rule;
    use proptest::prelude::*;

    /// Whether the second is shadowed by the first; the other way round nothing is.
    #[track_caller]
    fn shadows(first: Rule, second: Rule, expected: bool) {
        let rules = [first, second];
        let found = table(rules.clone()).shadowed();
        assert_eq!(found, if expected { vec![(1, 0)] } else { vec![] }, "{rules:?}");
    }

    #[test]
    fn the_same_again_is_shadowed() {
        let r = || rule("");
        shadows(r(), r(), true);
        shadows(r().path("/a"), r().path("/a/"), true);
        shadows(r().path("= /a"), r().path("= /%61"), true);
        shadows(r().path("~ a"), r().path("~ a"), true);
        shadows(r().host("a.com").path("raw /a"), r().host("a.com").path("^~ /a"), true);
        shadows(r().path("/"), r().path("raw /"), true);
        shadows(r().path("/a"), r().path("/b"), false);
        shadows(r().path("/a"), r().host("a.com").path("/a"), false);
        shadows(r().path("/a"), r().path("/a").when(method("GET")), false);
        shadows(r().path("~ a"), r().path("~ a").when(method("GET")), true);
        shadows(r().path("/a").path("/b"), r().path("/a").path("/b"), true);
        shadows(r().path("/a"), r().path("/a").path("/b"), false);
        shadows(r().path("/a").path("/a/b"), r().path("/c"), false);
    }

    #[test]
    fn a_broader_rule_with_a_higher_priority_shadows() {
        let r = || rule("");
        let first = || rule("").first(1);
        shadows(first(), r().host("a.com").path("= /a").when(method("GET")), true);
        shadows(first().path("/a"), r().path("/a/b"), true);
        shadows(first().path("/a"), r().path("/ab"), false);
        shadows(first().path("raw /a"), r().path("/ab"), true);
        shadows(first().path("/a"), r().path("raw /a"), false);
        shadows(first().path("/a"), r().path("raw /a/"), true);
        shadows(first().path("/"), r().path("~ x"), true);
        shadows(first().path("/"), r(), false);
        shadows(first().host("*.com"), r().host("a.com"), true);
        shadows(first().host("*.com"), r().host("*.a.com"), true);
        shadows(first().host("*.a.com"), r().host("*.com"), false);
        shadows(first().host("a.com"), r().host("*.com"), false);
        shadows(first().path("~ ^/a"), r().path("= /ab"), true);
        shadows(first().path("~ ^/a"), r().path("/ab"), false);
        shadows(first().path("~ ^/"), r().path("/ab"), true);
        shadows(first().path("~ ^/"), r().path("^~ /ab"), true);
        shadows(first().path("~ .*"), r(), false);
    }

    #[test]
    fn within_a_priority_nginx_rules_hold() {
        let r = || rule("");
        shadows(r().path("~ ^/"), r().path("/a"), true);
        shadows(r().path("~ ^/"), r().path("^~ /a"), false);
        shadows(r().path("~ ^/"), r().path("= /a"), false);
        shadows(r().path("^~ /"), r().path("~ a"), false);
        shadows(r().path("~ ^/(.*)$"), r().path("~ a"), true);
    }

    #[test]
    fn conditions_must_follow_from_each_other() {
        let when = |subject: Subject| rule("").when(subject);
        let first = |subject: Subject| rule("").first(1).when(subject);
        let methods = |names: &[&str]| Subject::Method(names.iter().map(|name| name.parse().unwrap()).collect());
        let nets = |net: &str| Subject::Source(vec![net.parse().unwrap()]);
        shadows(first(methods(&["GET", "POST"])), when(methods(&["GET"])).when(header("a", "1")), true);
        shadows(first(methods(&["GET"])), when(methods(&["GET", "POST"])), false);
        shadows(first(nets("10.0.0.0/8")), when(nets("10.1.0.0/16")), true);
        shadows(first(nets("10.1.0.0/16")), when(nets("10.0.0.0/8")), false);
        let present = |present| Subject::Header("a".parse().unwrap(), ValuePattern::Present(present));
        shadows(first(present(true)), when(header("a", "1")), true);
        shadows(first(header("a", "1")), when(present(true)), false);
        shadows(first(present(false)), when(header("a", "1")), false);
        let unless = |subject: Subject| rule("").unless(subject);
        shadows(unless(methods(&["GET"])).first(1), unless(methods(&["GET", "PUT"])), true);
        shadows(unless(methods(&["GET", "PUT"])).first(1), unless(methods(&["GET"])), false);
        shadows(rule("").first(1).on("web").on("tls"), rule("").on("tls"), true);
        shadows(rule("").first(1).on("web"), rule("").on("tls"), false);
    }

    #[test]
    fn ten_thousand_rules_are_checked_quickly() {
        let rules = (0..10_000).map(|n| rule("").path("/same").when(header("x", &n.to_string())));
        let twice = |n: &str| rule("").path("/same").when(header("x", n));
        // Beyond the budget nothing is said, in time.
        assert_eq!(table(rules.chain([twice("7"), twice("9999")])).shadowed(), vec![(10_000, 7)]);
        let many = (0..10_000).map(|n| rule("").host(&format!("h{n}.com")).path("/a"));
        let again = rule("").host("h7.com").host("h9.com").path("/a");
        assert_eq!(table(many.chain([again])).shadowed(), vec![(10_000, 7)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

        #[test]
        fn a_shadowed_rule_is_never_found(rules in some_rules(), asks in proptest::collection::vec(some_ask(), 1..20)) {
            let table = table(rules.clone());
            let shadowed = table.shadowed();
            for ask in asks {
                let found = table.find(&ask.question()).map(|found| found.rule);
                prop_assert!(!shadowed.iter().any(|(rule, _)| Some(*rule) == found), "{:?} {:?}", shadowed, ask);
            }
        }
    }
}
