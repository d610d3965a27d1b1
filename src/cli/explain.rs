use std::fmt::Write;
use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::anyhow;
use bytes::BytesMut;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};

use super::Failure;
use super::arguments::ExplainArguments;
use super::look::colorful;
use super::operate::print;
use crate::access::{OriginPattern, Origins};
use crate::config::model::{self, Config, Route};
use crate::config::{self, At, Outcome};
use crate::control;
use crate::limit::Per;
use crate::route::path::{self, Path};
use crate::route::{
    self, Captured, Group, Match, Question, Table, Target, Template, Variable, Variables, cookies, host, parameters,
};
use crate::types::{Bind, format_duration};

/// `tidegate explain`: which route takes a request, and why the others do not, from the code that serves.
pub(super) fn run(arguments: ExplainArguments) -> Result<ExitCode, Failure> {
    let outcome = config::from_disk(&arguments.file);
    let Some(config) = &outcome.config else {
        return Err(Failure::Configuration(config::render(&outcome.problems, colorful())));
    };
    let asked = Asked::read(&arguments, config)?;
    print(tell(&outcome, config, &asked)?.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The request that is asked about.
#[derive(Debug)]
struct Asked {
    method: Method,
    https: bool,
    host: String,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    client: IpAddr,
    listener: usize,
    listener_name: String,
    port: Option<u16>,
}

impl Asked {
    fn read(arguments: &ExplainArguments, config: &Config) -> Result<Asked, Failure> {
        let wrong = |what: String| Failure::Usage(what);
        let url = arguments.url.split('#').next().unwrap_or_default();
        let uri: Uri = url.parse().map_err(|error| {
            wrong(format!("{url}: {error}; expected a URL such as http://api.example.com/v1, or a path such as /v1"))
        })?;
        let headers = read_headers(&arguments.headers)?;
        let authority = match headers.get(header::HOST) {
            Some(host) => host.to_str().unwrap_or_default().to_owned(),
            None => uri.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default(),
        };
        let parsed = host::parse(&authority).map_err(|error| wrong(format!("{authority}: {error}")))?;
        let https = uri.scheme_str() == Some("https");
        let port = uri.port_u16().or(parsed.port).unwrap_or(if https { 443 } else { 80 });
        let listener = match &arguments.listener {
            Some(name) => config.listener.keys().position(|known| known == name).ok_or_else(|| {
                let names: Vec<_> = config.listener.keys().map(String::as_str).collect();
                wrong(format!("there is no listener `{name}`; there are {}", names.join(", ")))
            })?,
            None => likely_listener(config, port, https),
        };
        let listener_name = config.listener.keys().nth(listener).cloned().unwrap_or_default();
        Ok(Asked {
            method: arguments.method.clone(),
            https,
            host: parsed.name.into_owned(),
            path: uri.path().to_owned(),
            query: uri.query().map(str::to_owned),
            headers,
            client: arguments.from,
            listener,
            listener_name,
            port: Some(port),
        })
    }

    fn question<'a>(&'a self, path: &'a Path<'_>) -> Question<'a> {
        Question {
            listener: u32::try_from(self.listener).unwrap_or(u32::MAX),
            host: &self.host,
            path: path.matching(),
            query: self.query.as_deref(),
            method: &self.method,
            headers: &self.headers,
            client: Some(self.client),
        }
    }
}

fn read_headers(lines: &[String]) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let wrong = || Failure::Usage(format!("-H {line:?}: expected \"Name: value\""));
        let (name, value) = line.split_once(':').ok_or_else(wrong)?;
        let name: HeaderName = name.trim().parse().map_err(|_| wrong())?;
        headers.append(name, HeaderValue::from_str(value.trim()).map_err(|_| wrong())?);
    }
    Ok(headers)
}

/// The listener that a client with such a URL would most likely come in by.
fn likely_listener(config: &Config, port: u16, https: bool) -> usize {
    let fits = |listener: &model::Listener| {
        let here = listener.bind.iter().any(|bind| matches!(bind, Bind::Tcp(address) if address.port() == port));
        (here, listener.tls.is_some() == https)
    };
    let mut best = (0, (false, false));
    for (index, listener) in config.listener.values().enumerate() {
        let fit = fits(listener);
        if fit > best.1 {
            best = (index, fit);
        }
    }
    best.0
}

fn tell(outcome: &Outcome, config: &Config, asked: &Asked) -> Result<String, Failure> {
    let mut out = String::new();
    let query = asked.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let Asked { method, host, path: raw, client, listener_name, .. } = asked;
    // Writing to a String cannot fail; `_ =` says so here and below.
    _ = writeln!(out, "{method} {host}{raw}{query} from {client} by listener {listener_name}");
    let path = match path::normalize(raw) {
        Ok(path) => path,
        Err(error) => {
            _ = writeln!(out, "\nIt is refused with 400: {error}.");
            return Ok(out);
        }
    };
    if path.forward() != raw {
        _ = writeln!(out, "The path is read as {}.", path.forward());
    }
    let listeners: Vec<String> = config.listener.keys().cloned().collect();
    let unusable = |_| anyhow!("the routes' patterns cannot be used; see tidegate check");
    let table = Table::build(config::rules(config), &listeners).map_err(unusable)?;
    let question = asked.question(&path);
    let taken = table.find(&question);
    let place = |rule: usize| match outcome.places.nearest_key(&At::root().key("route").index(rule)) {
        Some(place) => format!("  ({place})"),
        None => String::new(),
    };
    let verdicts = table.explain(&question);
    match &taken {
        None => out.push_str("\nNo route takes it: it is refused with 404.\n"),
        Some(taken) => {
            for verdict in verdicts.iter().filter(|verdict| verdict.rule == taken.rule) {
                _ = writeln!(out, "\n{} {}{}", verdict.name, verdict.outcome, place(verdict.rule));
            }
            let facts = Facts { asked, path: &path, captured: taken.captured(path.matching()) };
            becomes(&mut out, config, taken, &facts)?;
        }
    }
    let others: Vec<_> =
        verdicts.iter().filter(|verdict| taken.is_none_or(|taken| taken.rule != verdict.rule)).collect();
    if !others.is_empty() {
        out.push_str("\nThe others, in the order in which they are asked:\n");
    }
    for verdict in others {
        _ = writeln!(out, "  {} {}{}", verdict.name, verdict.outcome, place(verdict.rule));
    }
    Ok(out)
}

/// What the route does with it.
fn becomes(out: &mut String, config: &Config, taken: &Match<'_>, facts: &Facts<'_>) -> Result<(), Failure> {
    let Some(route) = config.route.get(taken.rule) else { return Ok(()) };
    let is_let_in = who_may(out, route, &facts.asked.headers);
    if !is_let_in {
        return Ok(());
    }
    for limit in &route.limit {
        limits(out, limit);
    }
    if let Some(redirect) = &route.redirect {
        let to = Template::parse(&redirect.to).map_err(|error| anyhow!("redirect.to: {error}"))?;
        let location = to.location(facts, &mut BytesMut::new());
        _ = writeln!(out, "  redirects with {} to {}", redirect.status, location.to_str().unwrap_or_default());
    }
    if let Some(respond) = &route.respond {
        _ = writeln!(out, "  answers {} at once", respond.status);
    }
    if route.pool.is_none() && route.split.is_empty() {
        return Ok(());
    }
    match rewritten(route, taken, facts)? {
        Ok(target) => _ = writeln!(out, "  upstreams see {} {target}", facts.asked.method),
        Err(error) => _ = writeln!(out, "  is refused with 400: {error}"),
    }
    if let Some(pool) = &route.pool {
        members(out, config, pool, "");
    }
    let all: u64 = route.split.iter().map(|split| u64::from(split.weight)).sum();
    for split in &route.split {
        let share = 100.0 * f64::from(split.weight) / all.max(1) as f64;
        members(out, config, &split.pool, &format!(", {share:.1}% of the requests"));
    }
    Ok(())
}

/// Who may ask; false where the request is a page's that may not. Keys and tokens are not judged: who asks here should not have to show one.
fn who_may(out: &mut String, route: &Route, headers: &HeaderMap) -> bool {
    let list = |words: Vec<String>, between: &str| words.join(between);
    let words = |origins: &[OriginPattern]| list(origins.iter().map(OriginPattern::to_string).collect(), ", ");
    if !route.origins.is_empty() {
        _ = writeln!(out, "  of web pages, only those of {} may ask", words(&route.origins));
        if !Origins(route.origins.clone()).admit(headers) {
            let origin = headers.get(header::ORIGIN).map(|origin| String::from_utf8_lossy(origin.as_bytes()));
            _ = writeln!(out, "  is refused with 403: its page is of {}", origin.unwrap_or_default());
            return false;
        }
    }
    let Some(auth) = &route.auth else { return true };
    let keys = auth.keys.iter().map(|file| format!("a key of {}", file.display()));
    let tokens = auth.jwt.iter().map(|jwt| format!("a token of {}", jwt.issuer));
    let scopes = match auth.scopes.is_empty() {
        true => String::new(),
        false => format!(", with {}", list(auth.scopes.clone(), ", ")),
    };
    _ = writeln!(out, "  lets in who has {}{scopes}; others get 401", list(keys.chain(tokens).collect(), " or "));
    true
}

fn limits(out: &mut String, limit: &model::Limit) {
    let mut parts = Vec::new();
    if let Some(rate) = limit.rate {
        let delay = if limit.delay.is_zero() {
            String::new()
        } else {
            format!(", held up to {}", format_duration(limit.delay))
        };
        parts.push(format!("{rate} and {} at once above{delay}", limit.burst));
    }
    parts.extend(limit.requests.map(|most| format!("{most} requests at once")));
    parts.extend(limit.connections.map(|most| format!("{most} connections at once")));
    let who = match &limit.per {
        Per::All => "all together".to_owned(),
        per => format!("each {per}"),
    };
    _ = writeln!(out, "  limit for {who}: {}; then {}", parts.join(", "), limit.status);
}

fn rewritten(
    route: &Route,
    taken: &Match<'_>,
    facts: &Facts<'_>,
) -> Result<Result<PathAndQuery, route::TargetError>, Failure> {
    let target = Target { path: facts.path, query: facts.asked.query.as_deref() };
    Ok(match &route.rewrite {
        None => target.unchanged(),
        Some(settings) => {
            let rewrite = control::rewrite(settings).map_err(|error| anyhow!(error))?;
            rewrite.apply(target, taken, facts)
        }
    })
}

fn members(out: &mut String, config: &Config, name: &str, note: &str) {
    let Some(pool) = config.pool.get(name) else { return };
    let sticky = match &pool.sticky {
        Some(_) => ", sticky",
        None => "",
    };
    _ = writeln!(out, "  pool {name} ({}{sticky}{note}):", pool.balance);
    for upstream in &pool.upstreams {
        let mut line = format!("    {} weight {}", upstream.address, upstream.weight);
        if upstream.backup {
            line += ", backup";
        }
        if let Some(most) = upstream.max_connections {
            line += &format!(", at most {most} at once");
        }
        _ = writeln!(out, "{line}");
    }
    if pool.upstreams.is_empty() {
        out.push_str("    no upstreams: refused with 503\n");
    }
}

/// What templates may ask of the request.
struct Facts<'a> {
    asked: &'a Asked,
    path: &'a Path<'a>,
    captured: Option<Captured<'a>>,
}

impl Variables for Facts<'_> {
    fn append(&self, variable: &Variable, out: &mut BytesMut) {
        let asked = self.asked;
        let mut push = |text: &str| out.extend_from_slice(text.as_bytes());
        match variable {
            Variable::Client => push(&asked.client.to_string()),
            Variable::Host => push(&asked.host),
            Variable::Scheme => push(if asked.https { "https" } else { "http" }),
            Variable::Method => push(asked.method.as_str()),
            Variable::Path => push(self.path.forward()),
            Variable::Query => push(asked.query.as_deref().unwrap_or_default()),
            Variable::Uri => {
                push(self.path.forward());
                if let Some(query) = &asked.query {
                    push("?");
                    push(query);
                }
            }
            Variable::Listener => push(&asked.listener_name),
            Variable::ServerPort => push(&asked.port.map(|port| port.to_string()).unwrap_or_default()),
            Variable::Header(name) => {
                out.extend_from_slice(asked.headers.get(name).map_or(&[], |value| value.as_bytes()));
            }
            Variable::Cookie(name) => out.extend_from_slice(cookies(&asked.headers, name).next().unwrap_or_default()),
            Variable::Parameter(name) => {
                push(parameters(asked.query.as_deref(), name).next().map_or("", |value| value.0));
            }
            // Nobody knows these before the request is made.
            Variable::ClientPort => push("CLIENT_PORT"),
            Variable::RequestId => push("REQUEST_ID"),
            Variable::Principal => push("PRINCIPAL"),
            Variable::Route => push("ROUTE"),
            Variable::Pool => push("POOL"),
            Variable::Upstream => push("UPSTREAM"),
            Variable::Status => push("STATUS"),
        }
    }

    fn group(&self, group: &Group) -> Option<&str> {
        self.captured.as_ref()?.group(group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Memory;

    const FILE: &str = r#"
[listener.web]
bind = "127.0.0.1:8080"
[listener.internal]
bind = "127.0.0.1:8081"
[pool.a]
upstreams = ["127.0.0.1:1", { address = "127.0.0.1:2", weight = 2, backup = true }]
[[route]]
name = "api"
path = "/v1"
pool = "a"
rewrite = { prefix = "/api" }
limit = { rate = "100/s", burst = 50 }
[[route]]
name = "old"
path = "~ ^/old/(\\d+)$"
redirect = { to = "https://{host}/new/$1?from={client}" }
[[route]]
name = "mcp"
path = "/mcp"
pool = "a"
origins = ["https://app.test", "http://localhost:*"]
auth = { keys = "keys.txt", scopes = ["read"], jwt = { jwks = "keys.json", issuer = "https://login.test", audience = "x" } }
[[route]]
name = "inside"
listener = "internal"
path = "/v1"
respond = 204
"#;

    fn explained(url: &str, headers: &[&str]) -> String {
        let (_, keys) = crate::access::new_key("alice", &[]).unwrap();
        // RFC 8037, appendix A.2.
        let key = r#"{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let set = format!(r#"{{"keys":[{key}]}}"#);
        let files = [("/keys.txt".into(), keys.into()), ("/keys.json".into(), set.into())].into();
        let outcome = config::read_text("t.toml", FILE, &Memory { files, ..Memory::default() });
        let config = outcome.config.clone().unwrap_or_else(|| panic!("{:?}", outcome.problems));
        let arguments = ExplainArguments {
            file: "t.toml".into(),
            method: Method::GET,
            url: url.to_owned(),
            headers: headers.iter().map(|line| line.to_string()).collect(),
            from: "10.1.2.3".parse().unwrap(),
            listener: None,
        };
        tell(&outcome, &config, &Asked::read(&arguments, &config).unwrap()).unwrap()
    }

    #[test]
    fn it_tells_where_a_request_goes_and_why_not_elsewhere() {
        let expected = "\
GET h/x/../v1/y?q=1 from 10.1.2.3 by listener web
The path is read as /v1/y.

api takes it, by path /v1  (t.toml:8:1)
  limit for each client: 100/s and 50 at once above; then 429
  upstreams see GET /api/y?q=1
  pool a (round_robin):
    127.0.0.1:1 weight 1
    127.0.0.1:2 weight 2, backup

The others, in the order in which they are asked:
  old does not match: expected path ~ ^/old/(\\d+)$, but it is /v1/y  (t.toml:14:1)
  mcp does not match: expected path /mcp, but it is /v1/y  (t.toml:18:1)
  inside does not match: expected listener internal, but it is web  (t.toml:24:1)
";
        let told = explained("http://h:8080/x/../v1/y?q=1#part", &[]);
        let (told_head, told_others) = told.split_once("\nThe others").unwrap();
        let (head, others) = expected.split_once("\nThe others").unwrap();
        assert_eq!(told_head, head);
        // The order among those that do not match is the table's business.
        let lines = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(lines(told_others), lines(others));
    }

    #[test]
    fn it_tells_who_may_ask() {
        let told = explained("http://h:8080/mcp", &["Origin: https://app.test"]);
        let expected = "  of web pages, only those of https://app.test, http://localhost:* may ask\n  \
            lets in who has a key of /keys.txt or a token of https://login.test, with read; others get 401\n  upstreams see";
        assert!(told.contains(expected), "{told}");
        let told = explained("http://h:8080/mcp", &["Origin: https://evil.test"]);
        assert!(told.contains("  is refused with 403: its page is of https://evil.test\n\nThe others"), "{told}");
    }

    #[test]
    fn the_port_tells_the_listener_and_the_host_header_the_host() {
        assert!(explained("http://h:8081/v1", &[]).contains("inside takes it"));
        let told = explained("http://h:8080/old/7", &["Host: www.example.com"]);
        assert!(told.contains("redirects with 308 to https://www.example.com/new/7?from=10.1.2.3"), "{told}");
        assert!(explained("/none", &["Host: h"]).contains("No route takes it"));
        assert!(explained("/%2e%2e/x", &["Host: h"]).contains("refused with 400"));
    }
}
