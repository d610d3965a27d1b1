//! Conditions, compiled: what a rule asks of a request besides its host and path.

use std::fmt;
use std::net::IpAddr;

use http::{HeaderName, Method};
use ipnet::IpNet;

use super::pattern::{canonical_path, path_regex, value_regex};
use super::question::{Encoded, cookies, parameters};
use super::{Condition, HostPattern, PathPattern, PatternError, Question, Subject, ValuePattern};

/// A condition that can be tested, and the text it came from.
#[derive(Debug)]
pub(super) struct Check {
    test: Test,
    /// As it was given, for explaining and comparing.
    pub(super) source: Condition,
}

#[derive(Debug)]
enum Test {
    /// For each listener, whether it may be.
    Listener(Box<[bool]>),
    Method(Box<[Method]>),
    Source(Networks),
    Host(Box<[HostPattern]>),
    Path(Box<[PathTest]>),
    Header(HeaderName, Value),
    Cookie(Box<str>, Value),
    Query(Box<str>, Value),
}

impl Check {
    /// Compiles a condition. `listeners` are the names that indices in questions stand for.
    pub(super) fn build(source: Condition, listeners: &[String]) -> Result<Check, PatternError> {
        let named = |name: &String| if name.is_empty() { Err(PatternError::Unnamed) } else { Ok(name.as_str().into()) };
        let test = match &source.subject {
            Subject::Listener(names) => {
                if let Some(unknown) = names.iter().find(|name| !listeners.contains(name)) {
                    return Err(PatternError::Listener(unknown.clone()));
                }
                Test::Listener(listeners.iter().map(|listener| names.contains(listener)).collect())
            }
            Subject::Method(methods) => Test::Method(methods.as_slice().into()),
            Subject::Source(networks) => Test::Source(Networks::new(networks)),
            Subject::Host(hosts) => Test::Host(hosts.as_slice().into()),
            Subject::Path(paths) => Test::Path(paths.iter().map(PathTest::build).collect::<Result<_, _>>()?),
            Subject::Header(name, value) => Test::Header(name.clone(), Value::build(value)?),
            Subject::Cookie(name, value) => Test::Cookie(named(name)?, Value::build(value)?),
            Subject::Query(name, value) => Test::Query(named(name)?, Value::build(value)?),
        };
        Ok(Check { test, source })
    }

    /// Whether it asks for a header, be it a cookie.
    pub(super) fn asks_headers(&self) -> bool {
        matches!(self.test, Test::Header(..) | Test::Cookie(..))
    }

    /// Whether the request is as asked for.
    ///
    /// **Cost**: no allocation, but for a regular expression on an escaped query parameter.
    pub(super) fn holds(&self, question: &Question<'_>) -> bool {
        let matches = match &self.test {
            Test::Listener(allowed) => allowed.get(question.listener as usize).copied().unwrap_or(false),
            Test::Method(methods) => methods.contains(question.method),
            Test::Source(networks) => question.client.is_some_and(|client| networks.contain(client)),
            Test::Host(hosts) => hosts.iter().any(|host| host.matches(question.host)),
            Test::Path(paths) => paths.iter().any(|path| path.matches(question.path)),
            Test::Header(name, value) => {
                let lines = question.headers.get_all(name).into_iter();
                value.matches(lines.map(|line| line.as_bytes()), |line, value| value.matches_bytes(line))
            }
            Test::Cookie(name, value) => {
                value.matches(cookies(question.headers, name), |cookie, value| value.matches_bytes(cookie))
            }
            Test::Query(name, value) => {
                value.matches(parameters(question.query, name), |parameter, value| value.matches_encoded(parameter))
            }
        };
        matches != self.source.negated
    }

    /// How much it costs to test, roughly: the cheap ones go first.
    pub(super) fn cost(&self) -> u8 {
        match &self.test {
            Test::Listener(_) => 0,
            Test::Method(_) => 1,
            Test::Source(_) => 2,
            Test::Host(_) | Test::Path(_) => 3,
            Test::Header(_, value) => 4 + value.cost(),
            Test::Cookie(_, value) => 5 + value.cost(),
            Test::Query(_, value) => 6 + value.cost(),
        }
    }

    /// What the request has where the condition looks.
    pub(super) fn actual(&self, question: &Question<'_>, listeners: &[String]) -> String {
        let texts = |values: Vec<String>| if values.is_empty() { "absent".to_owned() } else { values.join(", ") };
        let quoted = |bytes: &[u8]| format!("{:?}", String::from_utf8_lossy(bytes));
        match &self.source.subject {
            Subject::Listener(_) => match listeners.get(question.listener as usize) {
                Some(name) => name.clone(),
                None => "unknown".to_owned(),
            },
            Subject::Method(_) => question.method.to_string(),
            Subject::Source(_) => question.client.map_or("no address".to_owned(), |client| client.to_string()),
            Subject::Host(_) => question.host.to_owned(),
            Subject::Path(_) => question.path.to_owned(),
            Subject::Header(name, _) => {
                texts(question.headers.get_all(name).into_iter().map(|line| quoted(line.as_bytes())).collect())
            }
            Subject::Cookie(name, _) => texts(cookies(question.headers, name).map(quoted).collect()),
            Subject::Query(name, _) => texts(parameters(question.query, name).map(|v| quoted(&v.decoded())).collect()),
        }
    }
}

/// A value's test.
#[derive(Debug)]
enum Value {
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    Regex(regex::bytes::Regex),
    Present(bool),
}

impl Value {
    fn build(pattern: &ValuePattern) -> Result<Value, PatternError> {
        Ok(match pattern {
            ValuePattern::Exact(text) => Value::Exact(text.as_bytes().into()),
            ValuePattern::Prefix(text) => Value::Prefix(text.as_bytes().into()),
            ValuePattern::Regex(expression) => Value::Regex(value_regex(expression)?),
            ValuePattern::Present(present) => Value::Present(*present),
        })
    }

    /// Whether any of the values is right, or, where absence is asked for, whether there is none.
    fn matches<T>(&self, mut values: impl Iterator<Item = T>, right: impl Fn(T, &Value) -> bool) -> bool {
        match self {
            Value::Present(present) => values.next().is_some() == *present,
            _ => values.any(|value| right(value, self)),
        }
    }

    fn matches_bytes(&self, value: &[u8]) -> bool {
        match self {
            Value::Exact(text) => value == &**text,
            Value::Prefix(text) => value.starts_with(text),
            Value::Regex(regex) => regex.is_match(value),
            Value::Present(present) => *present,
        }
    }

    fn matches_encoded(&self, value: Encoded<'_>) -> bool {
        match self {
            Value::Exact(text) => value.is(text),
            Value::Prefix(text) => value.starts_with(text),
            Value::Regex(regex) => regex.is_match(&value.decoded()),
            Value::Present(present) => *present,
        }
    }

    fn cost(&self) -> u8 {
        if matches!(self, Value::Regex(_)) { 10 } else { 0 }
    }
}

/// Networks as sorted ranges of addresses that do not overlap, so that long lists cost no more than their logarithm.
#[derive(Debug)]
struct Networks {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl Networks {
    fn new(networks: &[IpNet]) -> Networks {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network {
                IpNet::V4(net) => v4.push((u32::from(net.network()), u32::from(net.broadcast()))),
                IpNet::V6(net) => v6.push((u128::from(net.network()), u128::from(net.broadcast()))),
            }
        }
        Networks { v4: disjoint(v4), v6: disjoint(v6) }
    }

    fn contain(&self, address: IpAddr) -> bool {
        // A client of a dual-stack socket is `::ffff:10.0.0.1`, and still in 10.0.0.0/8.
        match address.to_canonical() {
            IpAddr::V4(address) => within(&self.v4, u32::from(address)),
            IpAddr::V6(address) => within(&self.v6, u128::from(address)),
        }
    }
}

fn disjoint<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    ranges.dedup_by(|later, kept| {
        let overlaps = later.0 <= kept.1;
        if overlaps {
            kept.1 = kept.1.max(later.1);
        }
        overlaps
    });
    ranges.into()
}

fn within<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|range| range.0 <= address);
    after > 0 && address <= ranges[after - 1].1
}

/// A path pattern that is tested alone, not looked up.
#[derive(Debug)]
pub(super) enum PathTest {
    Exact(Box<str>),
    /// Without its final slash.
    Border(Box<str>),
    Raw(Box<str>),
    Regex(regex::Regex),
}

impl PathTest {
    pub(super) fn build(pattern: &PathPattern) -> Result<PathTest, PatternError> {
        Ok(match pattern {
            PathPattern::Exact(path) => PathTest::Exact(canonical_path(path, false)?.into()),
            PathPattern::Prefix(path) => PathTest::Border(canonical_path(path, false)?.trim_end_matches('/').into()),
            PathPattern::RawPrefix { prefix, .. } => PathTest::Raw(canonical_path(prefix, true)?.into()),
            PathPattern::Regex { expression, ignore_case } => PathTest::Regex(path_regex(expression, *ignore_case)?),
        })
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        // `*` is no path, and no pattern can mean it.
        path.starts_with('/')
            && match self {
                PathTest::Exact(exact) => path == &**exact,
                PathTest::Border(prefix) => path.strip_prefix(&**prefix).is_some_and(on_border),
                PathTest::Raw(prefix) => path.starts_with(&**prefix),
                PathTest::Regex(regex) => regex.is_match(path),
            }
    }
}

/// Whether what follows a prefix starts a new segment.
pub(super) fn on_border(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}

impl HostPattern {
    /// Whether the host, in lower case and without port, is one of those meant.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            HostPattern::Exact(exact) => host == exact,
            HostPattern::Wildcard(suffix) => host
                .strip_suffix(suffix.as_str())
                .and_then(|front| front.strip_suffix('.'))
                .is_some_and(|f| !f.is_empty()),
            HostPattern::Any => true,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = if self.negated { "not " } else { "" };
        match &self.subject {
            Subject::Method(methods) => write!(f, "method {not}{}", Listed(methods)),
            Subject::Header(name, value) => write!(f, "header {name} {not}{value}"),
            Subject::Query(name, value) => write!(f, "query parameter {name} {not}{value}"),
            Subject::Cookie(name, value) => write!(f, "cookie {name} {not}{value}"),
            Subject::Source(networks) => write!(f, "client {not}in {}", Listed(networks)),
            Subject::Host(hosts) => write!(f, "host {not}{}", Listed(hosts)),
            Subject::Path(paths) => write!(f, "path {not}{}", Listed(paths)),
            Subject::Listener(names) => write!(f, "listener {not}{}", Listed(names)),
        }
    }
}

impl fmt::Display for ValuePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValuePattern::Exact(text) => write!(f, "{text:?}"),
            ValuePattern::Prefix(text) => write!(f, "starting with {text:?}"),
            ValuePattern::Regex(expression) => write!(f, "like ~ {expression}"),
            ValuePattern::Present(true) => f.write_str("present"),
            ValuePattern::Present(false) => f.write_str("absent"),
        }
    }
}

/// Things in one line: `a, b or c`.
pub(super) struct Listed<'a, T>(pub(super) &'a [T]);

impl<T: fmt::Display> fmt::Display for Listed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.0.len().saturating_sub(1);
        for (at, item) in self.0.iter().enumerate() {
            let between = match at {
                0 => "",
                at if at == last => " or ",
                _ => ", ",
            };
            write!(f, "{between}{item}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    fn exact(text: &str) -> ValuePattern {
        ValuePattern::Exact(text.to_owned())
    }

    #[track_caller]
    fn check(subject: Subject, negated: bool) -> Check {
        let listeners = ["web".to_owned(), "tls".to_owned()];
        Check::build(Condition { subject, negated }, &listeners).unwrap()
    }

    /// A request with a bit of everything.
    fn ask(check: &Check) -> bool {
        let mut headers = HeaderMap::new();
        headers.append("x-env", "prod".parse().unwrap());
        headers.append("x-env", "beta".parse().unwrap());
        headers.append("cookie", "s=1; t=two".parse().unwrap());
        check.holds(&Question {
            listener: 1,
            host: "a.example.com",
            path: "/api/x",
            query: Some("q=a%20b&r=&q=c"),
            method: &Method::PUT,
            headers: &headers,
            client: Some("::ffff:10.1.2.3".parse().unwrap()),
        })
    }

    #[test]
    fn any_of_several_values_is_enough() {
        let header = |value| check(Subject::Header(HeaderName::from_static("x-env"), value), false);
        assert!(ask(&header(exact("prod"))) && ask(&header(exact("beta"))));
        assert!(!ask(&header(exact("prod, beta"))));
        assert!(ask(&header(ValuePattern::Prefix("be".to_owned()))));
        assert!(ask(&header(ValuePattern::Regex("^b.*a$".to_owned()))));
        assert!(ask(&header(ValuePattern::Present(true))));
        assert!(!ask(&header(ValuePattern::Present(false))));
        let query = |name: &str, value| check(Subject::Query(name.to_owned(), value), false);
        assert!(ask(&query("q", exact("a b"))) && ask(&query("q", exact("c"))) && ask(&query("r", exact(""))));
        assert!(ask(&query("q", ValuePattern::Regex("^a b$".to_owned()))));
        assert!(ask(&query("z", ValuePattern::Present(false))));
        let cookie = |name: &str, value| check(Subject::Cookie(name.to_owned(), value), false);
        assert!(ask(&cookie("t", exact("two"))) && !ask(&cookie("u", exact("two"))));
    }

    #[test]
    fn a_negated_condition_holds_where_nothing_matches() {
        for negated in [false, true] {
            assert_eq!(ask(&check(Subject::Method(vec![Method::PUT, Method::POST]), negated)), !negated);
            assert_eq!(ask(&check(Subject::Listener(vec!["tls".to_owned()]), negated)), !negated);
            assert_eq!(ask(&check(Subject::Source(vec!["10.0.0.0/8".parse().unwrap()]), negated)), !negated);
            assert_eq!(ask(&check(Subject::Host(vec!["*.example.com".parse().unwrap()]), negated)), !negated);
            assert_eq!(ask(&check(Subject::Path(vec!["/api".parse().unwrap()]), negated)), !negated);
        }
    }

    #[test]
    fn networks_hold_what_any_of_them_holds() {
        let nets = |text: &[&str]| Networks::new(&text.iter().map(|net| net.parse().unwrap()).collect::<Vec<_>>());
        let some = nets(&["10.0.0.0/8", "10.1.0.0/16", "192.168.1.1/32", "2001:db8::/32", "0.0.0.0/32"]);
        for inside in ["10.0.0.0", "10.255.255.255", "192.168.1.1", "0.0.0.0", "2001:db8::1", "::ffff:10.0.0.1"] {
            assert!(some.contain(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["11.0.0.0", "192.168.1.2", "0.0.0.1", "2001:db9::", "::1"] {
            assert!(!some.contain(outside.parse().unwrap()), "{outside}");
        }
        assert!(nets(&["0.0.0.0/0"]).contain("255.255.255.255".parse().unwrap()));
        assert!(!nets(&[]).contain("1.2.3.4".parse().unwrap()));
    }

    #[test]
    fn wildcards_need_a_label_in_front() {
        let wildcard: HostPattern = "*.example.com".parse().unwrap();
        assert!(wildcard.matches("a.example.com") && wildcard.matches("a.b.example.com"));
        assert!(
            !wildcard.matches("example.com") && !wildcard.matches(".example.com") && !wildcard.matches("aexample.com")
        );
    }

    #[test]
    fn conditions_are_written_for_people() {
        let text = |subject, negated| Condition { subject, negated }.to_string();
        assert_eq!(text(Subject::Method(vec![Method::GET, Method::HEAD]), false), "method GET or HEAD");
        assert_eq!(text(Subject::Cookie("c".to_owned(), exact("1")), true), "cookie c not \"1\"");
        assert_eq!(text(Subject::Source(vec!["10.0.0.0/8".parse().unwrap()]), true), "client not in 10.0.0.0/8");
    }

    #[test]
    fn unknown_listeners_and_empty_names_are_refused() {
        let build = |subject| Check::build(Condition { subject, negated: false }, &[]).map(drop);
        assert_eq!(build(Subject::Listener(vec!["x".to_owned()])), Err(PatternError::Listener("x".to_owned())));
        assert_eq!(build(Subject::Query(String::new(), exact("a"))), Err(PatternError::Unnamed));
    }
}
