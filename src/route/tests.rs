//! Whole tables against requests: the precedence that people know, and a plain scan as the judge.

use std::cmp::Reverse;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::table::{Stage, Visit};
use super::*;

pub(super) fn rule(name: &str) -> Rule {
    Rule { name: name.to_owned(), ..Rule::default() }
}

impl Rule {
    pub(super) fn host(mut self, host: &str) -> Self {
        self.hosts.push(host.parse().unwrap());
        self
    }

    pub(super) fn path(mut self, path: &str) -> Self {
        self.paths.push(path.parse().unwrap());
        self
    }

    pub(super) fn on(mut self, listener: &str) -> Self {
        self.listeners.push(listener.to_owned());
        self
    }

    pub(super) fn first(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    pub(super) fn when(mut self, subject: Subject) -> Self {
        self.conditions.push(Condition { subject, negated: false });
        self
    }

    pub(super) fn unless(mut self, subject: Subject) -> Self {
        self.conditions.push(Condition { subject, negated: true });
        self
    }
}

pub(super) fn method(name: &str) -> Subject {
    Subject::Method(vec![name.parse().unwrap()])
}

pub(super) fn header(name: &str, value: &str) -> Subject {
    Subject::Header(HeaderName::try_from(name).unwrap(), ValuePattern::Exact(value.to_owned()))
}

pub(super) fn query(name: &str, value: &str) -> Subject {
    Subject::Query(name.to_owned(), ValuePattern::Exact(value.to_owned()))
}

/// A request that owns its parts.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) listener: u32,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) client: std::net::IpAddr,
}

/// `METHOD host/path?query`.
pub(super) fn ask(text: &str) -> Ask {
    let (method, url) = text.split_once(' ').unwrap();
    let (url, query) = url.split_once('?').map_or((url, None), |(url, query)| (url, Some(query.to_owned())));
    let (host, path) = url.split_at(url.find('/').unwrap());
    Ask {
        listener: 0,
        host: host.to_owned(),
        path: path::normalize(path).unwrap().matching().to_owned(),
        query,
        method: method.parse().unwrap(),
        headers: HeaderMap::new(),
        client: [10, 0, 0, 1].into(),
    }
}

impl Ask {
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
        self
    }

    pub(super) fn question(&self) -> Question<'_> {
        Question {
            listener: self.listener,
            host: &self.host,
            path: &self.path,
            query: self.query.as_deref(),
            method: &self.method,
            headers: &self.headers,
            client: Some(self.client),
        }
    }
}

pub(super) fn table(rules: impl IntoIterator<Item = Rule>) -> Table {
    Table::build(rules.into_iter().collect(), &["web".to_owned(), "tls".to_owned()]).unwrap()
}

#[track_caller]
fn takes(table: &Table, ask: Ask, name: &str) {
    let found = table.find(&ask.question()).map_or("nobody", |found| table.rules[found.rule].name.as_str());
    assert_eq!(found, name, "{ask:?}");
}

#[test]
fn nginx_location_example() {
    // The example in the documentation of ngx_http_core_module's `location`.
    let table = table([
        rule("A").path("= /"),
        rule("B").path("raw /"),
        rule("C").path("raw /documents/"),
        rule("D").path("^~ /images/"),
        rule("E").path(r"~* \.(gif|jpg|jpeg)$"),
    ]);
    takes(&table, ask("GET x/"), "A");
    takes(&table, ask("GET x/index.html"), "B");
    takes(&table, ask("GET x/documents/document.html"), "C");
    takes(&table, ask("GET x/images/1.gif"), "D");
    takes(&table, ask("GET x/documents/1.JPG"), "E");
}

#[test]
fn nginx_over_regex_counts_only_where_it_is_the_longest_prefix() {
    let table = table([
        rule("over").path("^~ /img/"),
        rule("longer").path("raw /img/raw/"),
        rule("php").path(r"~ \.php$"),
        rule("any php").path(r"~ \.php"),
        rule("exact").path("= /img/raw/x.php"),
    ]);
    takes(&table, ask("GET x/img/a.php"), "over");
    takes(&table, ask("GET x/img/raw/a.php"), "php");
    takes(&table, ask("GET x/img/raw/a.png"), "longer");
    takes(&table, ask("GET x/img/raw/x.php"), "exact");
    takes(&table, ask("GET x/a.php/b"), "any php");
    takes(&table, ask("GET x/a"), "nobody");
}

#[test]
fn nginx_raw_prefixes_end_anywhere() {
    let table = table([rule("raw").path("raw /user"), rule("border").path("/user"), rule("slash").path("raw /user/")]);
    takes(&table, ask("GET x/users"), "raw");
    takes(&table, ask("GET x/user"), "border");
    takes(&table, ask("GET x/user/1"), "slash");
    takes(&table, ask("GET x/use"), "nobody");
}

#[test]
fn nginx_server_names() {
    let table = table([
        rule("any").path("/"),
        rule("org").host("*.example.org").path("/"),
        rule("www org").host("*.www.example.org").path("/"),
        rule("exact").host("www.example.org").path("/"),
    ]);
    takes(&table, ask("GET www.example.org/"), "exact");
    takes(&table, ask("GET a.example.org/"), "org");
    takes(&table, ask("GET a.b.example.org/"), "org");
    takes(&table, ask("GET a.www.example.org/"), "www org");
    takes(&table, ask("GET example.org/"), "any");
    takes(&table, ask("GET other/"), "any");
    takes(&table, ask("GET /"), "any");
    takes(&table, ask(&format!("GET {}.example.org/", "a.".repeat(30_000))), "org");
}

#[test]
fn gateway_api_host_before_path() {
    let table = table([
        rule("any long").path("/a/b/c"),
        rule("wildcard").host("*.example.com").path("/a/b"),
        rule("exact").host("foo.example.com").path("/a"),
    ]);
    takes(&table, ask("GET foo.example.com/a/b/c"), "exact");
    takes(&table, ask("GET bar.example.com/a/b/c"), "wildcard");
    takes(&table, ask("GET bar.example.com/a"), "nobody");
    // Where a host's own rules do not match, the less special ones are asked.
    takes(&table, ask("GET x/a/b/c/d"), "any long");
}

#[test]
fn gateway_api_path_match_order() {
    let table = table([
        rule("v1").path("= /match/exact/one"),
        rule("v2").path("= /match/exact"),
        rule("v3").path("/match"),
        rule("v4").path("/match/prefix/"),
        rule("v5").path("/match/prefix/one"),
    ]);
    takes(&table, ask("GET x/match/exact/one"), "v1");
    takes(&table, ask("GET x/match/exact"), "v2");
    takes(&table, ask("GET x/match"), "v3");
    takes(&table, ask("GET x/match/prefix"), "v4");
    takes(&table, ask("GET x/match/prefix/one/any"), "v5");
    takes(&table, ask("GET x/match/prefix/any"), "v4");
    takes(&table, ask("GET x/match/any"), "v3");
    takes(&table, ask("GET x/matchx"), "nobody");
}

#[test]
fn gateway_api_conditions_order() {
    let table = table([
        rule("header").path("/p").when(header("version", "four")),
        rule("method").path("/p").when(method("PATCH")),
        rule("query").path("/p").when(query("animal", "whale")),
        rule("both").path("/p").when(header("version", "four")).when(header("color", "blue")),
        rule("plain").path("/p"),
        rule("longer").path("/p/q"),
    ]);
    takes(&table, ask("PATCH x/p?animal=whale").with("version", "four"), "method");
    takes(&table, ask("GET x/p?animal=whale").with("version", "four"), "header");
    takes(&table, ask("GET x/p?animal=whale"), "query");
    takes(&table, ask("PATCH x/p").with("version", "four").with("color", "blue"), "both");
    takes(&table, ask("GET x/p"), "plain");
    takes(&table, ask("PATCH x/p/q").with("version", "four"), "longer");
}

#[test]
fn haproxy_rules_go_in_order() {
    // acl api path_beg /api ; acl admin hdr(host) admin.example.com ; use_backend … if/unless …; default_backend
    let api = || Subject::Path(vec!["raw /api".parse().unwrap()]);
    let admin = || Subject::Host(vec!["admin.example.com".parse().unwrap()]);
    let inside = || Subject::Source(vec!["10.0.0.0/8".parse().unwrap()]);
    let table = table([
        rule("denied").first(5).when(admin()).unless(inside()),
        rule("admin").first(4).when(admin()).unless(api()),
        rule("api get").first(3).when(api()).when(method("GET")),
        rule("api").first(2).when(api()),
        rule("static").first(1).path("= /static"),
        rule("default"),
    ]);
    takes(&table, ask("GET admin.example.com/x"), "admin");
    takes(&table, Ask { client: [8, 8, 8, 8].into(), ..ask("GET admin.example.com/api") }, "denied");
    takes(&table, ask("GET admin.example.com/api"), "api get");
    takes(&table, ask("POST x/apis"), "api");
    takes(&table, ask("POST x/static"), "static");
    takes(&table, ask("POST x/static/"), "default");
}

#[test]
fn priority_goes_before_everything() {
    let table = table([
        rule("exact").host("a.com").path("= /x"),
        rule("over").first(1).path("^~ /"),
        rule("regex").first(1).path("~ php"),
        rule("low").first(-1).host("a.com").path("= /y"),
        rule("any").host("*.com"),
    ]);
    takes(&table, ask("GET a.com/x"), "over");
    takes(&table, ask("GET a.com/x.php"), "over");
    let table = self::table([rule("low").first(-1).host("a.com").path("= /y"), rule("any").host("*.com")]);
    takes(&table, ask("GET a.com/y"), "any");
    takes(&table, ask("GET a.com/z"), "any");
}

#[test]
fn listeners_are_conditions() {
    let table =
        table([rule("all").path("/"), rule("tls").path("/").on("tls"), rule("both").path("/").on("web").on("tls")]);
    takes(&table, Ask { listener: 1, ..ask("GET x/") }, "tls");
    takes(&table, ask("GET x/"), "both");
    takes(&table, Ask { listener: 7, ..ask("GET x/") }, "all");
}

#[test]
fn the_asterisk_is_for_rules_of_any_path() {
    let star = || Ask { path: "*".to_owned(), ..ask("OPTIONS x/") };
    let slash = [rule("slash").path("/"), rule("regex").path("~ ."), rule("raw").path("raw /")];
    takes(&table(slash.clone()), star(), "nobody");
    takes(&table(slash.into_iter().chain([rule("any")])), star(), "any");
}

#[test]
fn other_spellings_of_a_path_do_not_get_around_a_rule() {
    let table = table([
        rule("open").path("/"),
        rule("admin").path("/admin").path("= /@me").path("/a b").path("/café").path("raw /%5Bx"),
    ]);
    for path in [
        "/admin",
        "//admin",
        "/./admin/x",
        "/%61dmin",
        "/x/../admin",
        "/x/%2E%2e//admin//",
        "/%40me",
        "/a%20b",
        "/a b/c",
    ] {
        takes(&table, ask(&format!("GET x{path}")), "admin");
    }
    for path in ["/café", "/caf%c3%a9", "/[xy", "/%5bx"] {
        takes(&table, ask(&format!("GET x{path}")), "admin");
    }
    for path in ["/admin%2Fx", "/admi", "/ADMIN", "/@me/"] {
        takes(&table, ask(&format!("GET x{path}")), "open");
    }
}

#[test]
fn a_match_tells_what_matched() {
    let table = table([
        rule("border").path("/api/"),
        rule("raw").path("raw /raw"),
        rule("regex").path("~ ^/u/([0-9]+)"),
        rule("exact").path("= /e"),
        rule("root").host("root").path("/"),
        rule("any"),
    ]);
    let how = |path: &str| {
        let ask = ask(&format!("GET {path}"));
        match table.find(&ask.question()).unwrap().path {
            Matched::Any => "any".to_owned(),
            Matched::Exact => "exact".to_owned(),
            Matched::Prefix { length, on_border } => format!("{length} {on_border}"),
            Matched::Regex(regex) => regex.as_str().to_owned(),
        }
    };
    assert_eq!(how("x/api/x"), "4 true");
    assert_eq!(how("x/rawer"), "4 false");
    assert_eq!(how("x/u/12"), "^/u/([0-9]+)");
    assert_eq!(how("x/e"), "exact");
    assert_eq!(how("x/"), "any");
    assert_eq!(how("root/x"), "0 true");
}

#[test]
fn all_errors_come_at_once() {
    let regex = |expression: &str| PathPattern::Regex { expression: expression.to_owned(), ignore_case: false };
    let bad = |paths| Rule { paths, ..rule("bad") };
    let unknown = Subject::Listener(vec!["nowhere".to_owned()]);
    let rules = vec![
        rule("good").path("/"),
        bad(vec![regex("("), PathPattern::Exact("x".to_owned())]),
        rule("bad").when(unknown),
    ];
    let errors = Table::build(rules, &[]).unwrap_err();
    assert_eq!(errors.iter().map(|(rule, _)| *rule).collect::<Vec<_>>(), [1, 1, 2]);
}

/// Counts what a lookup looks at.
struct Counted<V> {
    visit: V,
    steps: usize,
}

impl<V: Visit> Visit for Counted<V> {
    fn wants(&self, rank: u32) -> bool {
        self.visit.wants(rank)
    }

    fn offer(&mut self, stage: Stage, entries: &[u32]) {
        // At most one of each list is looked at here: the rules have no conditions.
        self.steps += usize::from(!entries.is_empty());
        self.visit.offer(stage, entries);
    }

    fn prefixes_done(&mut self) {
        self.visit.prefixes_done();
    }

    fn step(&mut self) {
        self.steps += 1;
    }
}

fn steps(table: &Table, ask: &Ask) -> usize {
    let question = ask.question();
    let mut counted = Counted { visit: table.search(&question), steps: 0 };
    table.walk(&question, &mut counted);
    counted.steps
}

#[test]
fn ten_thousand_routes_cost_no_more_than_ten() {
    let of = |count: usize| {
        let service = |n: usize| rule(&format!("svc {n}")).path(&format!("/api/service-{n:05}"));
        let exact = |n: usize| rule(&format!("exact {n}")).path(&format!("= /page/{n:05}"));
        let host = |n: usize| rule(&format!("host {n}")).host(&format!("h{n}.example.com")).path("/");
        table((0..count).map(service).chain((0..count).map(exact)).chain((0..count).map(host)))
    };
    let (few, many) = (of(10), of(10_000));
    for text in ["GET x/api/service-00007/x/y", "GET x/page/00003", "GET h5.example.com/deep/er", "GET x/nowhere"] {
        let ask = ask(text);
        let name = |table: &Table| table.find(&ask.question()).map(|found| table.rules[found.rule].name.clone());
        assert_eq!(name(&few), name(&many), "{text}");
        // One more node for each digit that tells siblings apart.
        assert!(steps(&many, &ask) <= steps(&few, &ask) + 4, "{text}: {} {}", steps(&few, &ask), steps(&many, &ask));
        assert!(steps(&many, &ask) <= 12, "{text}: {}", steps(&many, &ask));
    }
}

/// Where a rule matches, plainly: NGINX's rule within the best host of the best priority.
fn judge(rules: &[Rule], question: &Question<'_>) -> Option<usize> {
    let specificity = |host: &HostPattern| match host {
        HostPattern::Exact(_) => 1000,
        HostPattern::Wildcard(suffix) => 1 + suffix.len(),
        HostPattern::Any => 0,
    };
    let (any_host, mut groups) = ([HostPattern::Any], std::collections::BTreeMap::<_, Vec<usize>>::new());
    for (at, rule) in rules.iter().enumerate() {
        for host in if rule.hosts.is_empty() { &any_host[..] } else { &rule.hosts } {
            if host.matches(question.host) && holds(rule, question) {
                groups.entry(Reverse((rule.priority, specificity(host)))).or_default().push(at);
            }
        }
    }
    groups.values().find_map(|group| judge_group(rules, group, question.path))
}

/// All conditions, read naively.
fn holds(rule: &Rule, question: &Question<'_>) -> bool {
    let listeners = ["web", "tls"];
    let here = listeners.get(question.listener as usize).copied().unwrap_or_default();
    let listener = rule.listeners.is_empty() || rule.listeners.iter().any(|name| name == here);
    listener
        && rule.conditions.iter().all(|condition| {
            let matches = match &condition.subject {
                Subject::Method(methods) => methods.contains(question.method),
                Subject::Header(name, ValuePattern::Exact(text)) => {
                    question.headers.get_all(name).iter().any(|value| value == text)
                }
                Subject::Path(paths) => paths.iter().any(|path| prefix_length(path, question.path).is_some()),
                other => unreachable!("not made here: {other:?}"),
            };
            matches != condition.negated
        })
}

fn prefix_length(pattern: &PathPattern, path: &str) -> Option<usize> {
    match pattern {
        PathPattern::Prefix(prefix) => {
            let prefix = prefix.trim_end_matches('/');
            let rest = path.strip_prefix(prefix)?;
            (rest.is_empty() || rest.starts_with('/')).then_some(prefix.len().max(1))
        }
        PathPattern::RawPrefix { prefix, .. } => path.starts_with(prefix.as_str()).then_some(prefix.len()),
        _ => None,
    }
}

fn judge_group(rules: &[Rule], group: &[usize], path: &str) -> Option<usize> {
    let weight = |at: usize| {
        let count = |wanted: fn(&Subject) -> bool| rules[at].conditions.iter().filter(|c| wanted(&c.subject)).count();
        let all = rules[at].conditions.len() + usize::from(!rules[at].listeners.is_empty());
        Reverse((all, count(|s| matches!(s, Subject::Method(_))), count(|s| matches!(s, Subject::Header(..)))))
    };
    let with = |wanted: &dyn Fn(&PathPattern) -> bool| {
        let found = group.iter().copied().filter(|&at| rules[at].paths.iter().any(wanted));
        found.min_by_key(|&at| (weight(at), at))
    };
    if let Some(exact) = with(&|pattern| matches!(pattern, PathPattern::Exact(exact) if exact == path)) {
        return Some(exact);
    }
    let prefixes = group.iter().flat_map(|&at| rules[at].paths.iter().map(move |pattern| (at, pattern)));
    let measured = prefixes.clone().filter_map(|(at, pattern)| Some((prefix_length(pattern, path)?, at, pattern)));
    let longest = measured.min_by_key(|(length, at, pattern)| {
        let raw = *length == 1 || matches!(pattern, PathPattern::RawPrefix { .. });
        (Reverse(*length), raw, weight(*at), *at)
    });
    if let Some((_, at, PathPattern::RawPrefix { over_regex: true, .. })) = longest {
        return Some(at);
    }
    let regex = prefixes.clone().find(|(_, pattern)| match pattern {
        PathPattern::Regex { expression, .. } => path.contains(expression.as_str()),
        _ => false,
    });
    let any = || group.iter().copied().filter(|&at| rules[at].paths.is_empty()).min_by_key(|&at| (weight(at), at));
    regex.map(|(at, _)| at).or(longest.map(|(_, at, _)| at)).or_else(any)
}

fn some_path() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof![Just("/a"), Just("/b"), Just("/ab"), Just("/")], 1..4)
        .prop_map(|parts| parts.concat().replace("///", "/").replace("//", "/"))
}

fn some_rule() -> impl Strategy<Value = Rule> {
    let host = prop_oneof![Just("a.x.com"), Just("*.x.com"), Just("*.com"), Just("*")];
    let kind = prop_oneof![3 => Just(""), 2 => Just("= "), 2 => Just("raw "), 2 => Just("^~ ")];
    let regex = prop_oneof![Just("~ a"), Just("~ b/a"), Just("~ ab"), Just("~ /")].prop_map(str::to_owned);
    let path = prop_oneof![5 => (kind, some_path()).prop_map(|(kind, path)| format!("{kind}{path}")), 1 => regex];
    let subject = prop_oneof![
        Just(method("GET")),
        Just(header("x", "1")),
        Just(header("y", "1")),
        Just(Subject::Path(vec!["/a".parse().unwrap()])),
    ];
    let conditions = proptest::collection::vec((subject, any::<bool>()), 0..3);
    let listeners = prop_oneof![4 => Just(vec![]), 1 => Just(vec!["tls".to_owned()])];
    let patterns = (proptest::collection::vec(host, 0..3), proptest::collection::vec(path, 0..3));
    (patterns, conditions, listeners, prop_oneof![5 => Just(0), 1 => -1..2]).prop_map(
        |((hosts, paths), conditions, listeners, priority)| Rule {
            name: String::new(),
            listeners,
            hosts: hosts.into_iter().map(|host| host.parse().unwrap()).collect(),
            paths: paths.into_iter().map(|path| path.parse().unwrap()).collect(),
            conditions: conditions.into_iter().map(|(subject, negated)| Condition { subject, negated }).collect(),
            priority,
        },
    )
}

pub(super) fn some_rules() -> impl Strategy<Value = Vec<Rule>> {
    proptest::collection::vec(some_rule(), 0..12)
}

pub(super) fn some_ask() -> impl Strategy<Value = Ask> {
    let host = prop_oneof![Just("a.x.com"), Just("b.x.com"), Just("x.com"), Just("y.com"), Just("")];
    let method = prop_oneof![Just("GET"), Just("PUT")];
    let facts = (host, some_path(), method, any::<bool>(), any::<bool>(), 0..2u32);
    facts.prop_map(|(host, path, method, x, y, listener)| {
        let mut ask = Ask { listener, ..ask(&format!("{method} {host}{path}")) };
        for (name, _) in [("x", x), ("y", y)].into_iter().filter(|(_, present)| *present) {
            ask = ask.with(name, "1");
        }
        ask
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn a_table_finds_what_the_judge_finds(rules in some_rules(), asks in proptest::collection::vec(some_ask(), 1..12)) {
        let table = table(rules.clone());
        for ask in asks {
            let found = table.find(&ask.question()).map(|found| found.rule);
            prop_assert_eq!(found, judge(&rules, &ask.question()), "{:?}", ask);
        }
    }
}
