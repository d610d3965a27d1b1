//! The names that templates can hold.
//!
//! Never here: their values, which [`Variables`](super::Variables) knows.

use http::HeaderName;

use super::TemplateProblem;

/// What a template can insert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    /// The client's address.
    Client,
    /// The client's port.
    ClientPort,
    /// The request's host, without port.
    Host,
    /// `http` or `https`.
    Scheme,
    /// The method.
    Method,
    /// The path, normalized.
    Path,
    /// The query without its `?`.
    Query,
    /// Path and query.
    Uri,
    /// The request's id.
    RequestId,
    /// The listener's name.
    Listener,
    /// The route's name.
    Route,
    /// The pool's name.
    Pool,
    /// The upstream's address.
    Upstream,
    /// The answer's status.
    Status,
    /// The port the request came in by.
    ServerPort,
    /// Who it is, as a key or token has shown.
    Principal,
    /// A request header.
    Header(HeaderName),
    /// A cookie.
    Cookie(String),
    /// A query parameter, as it came.
    Parameter(String),
}

/// Every variable, with its meaning; help, reference and suggestions come from here.
pub const VARIABLES: &[(&str, &str)] = &[
    ("client", "the client's address"),
    ("client_port", "the client's port"),
    ("host", "the request's host, without port"),
    ("scheme", "`http` or `https`"),
    ("method", "the request's method"),
    ("path", "the request's path, normalized"),
    ("query", "the request's query, without `?`"),
    ("uri", "path and query"),
    ("request_id", "the request's id"),
    ("listener", "the name of the listener it came in by"),
    ("route", "the name of the route that took it"),
    ("pool", "the name of the pool it went to"),
    ("upstream", "the address of the upstream it went to"),
    ("status", "the answer's status"),
    ("server_port", "the port it came in by"),
    ("principal", "who it is, as its key or token has shown"),
    ("header:NAME", "a request header"),
    ("cookie:NAME", "a cookie of the request"),
    ("query:NAME", "a query parameter, as it came"),
];

/// What NGINX calls them.
const NGINX: &[(&str, &str)] = &[
    ("remote_addr", "client"),
    ("remote_port", "client_port"),
    ("request_uri", "uri"),
    ("request_method", "method"),
    ("args", "query"),
    ("query_string", "query"),
    ("http_host", "host"),
    ("document_uri", "path"),
    ("upstream_addr", "upstream"),
];

/// The variable of a name.
///
/// **Errors**: no such variable, with the nearest one; or one that needs an argument.
pub(super) fn named(name: &str) -> Result<Variable, TemplateProblem> {
    if let Some((kind, argument)) = name.split_once(':') {
        let Some(kind) = ["header", "cookie", "query"].into_iter().find(|known| *known == kind) else {
            return Err(unknown(name));
        };
        let variable = match kind {
            _ if argument.is_empty() => None,
            "header" => HeaderName::try_from(argument).ok().map(Variable::Header),
            "cookie" => Some(Variable::Cookie(argument.to_owned())),
            _ => Some(Variable::Parameter(argument.to_owned())),
        };
        return variable.ok_or(TemplateProblem::Argument { kind });
    }
    Ok(match name {
        "client" => Variable::Client,
        "client_port" => Variable::ClientPort,
        "host" => Variable::Host,
        "scheme" => Variable::Scheme,
        "method" => Variable::Method,
        "path" => Variable::Path,
        "query" => Variable::Query,
        "uri" => Variable::Uri,
        "request_id" => Variable::RequestId,
        "listener" => Variable::Listener,
        "route" => Variable::Route,
        "pool" => Variable::Pool,
        "upstream" => Variable::Upstream,
        "status" => Variable::Status,
        "server_port" => Variable::ServerPort,
        "principal" => Variable::Principal,
        "header" => return Err(TemplateProblem::Argument { kind: "header" }),
        "cookie" => return Err(TemplateProblem::Argument { kind: "cookie" }),
        _ => return Err(unknown(name)),
    })
}

fn unknown(name: &str) -> TemplateProblem {
    TemplateProblem::Unknown { name: name.to_owned(), nearest: nearest(name) }
}

/// What may have been meant.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    if let Some((_, ours)) = NGINX.iter().find(|(nginx, _)| *nginx == name) {
        return Some(ours);
    }
    let scored = VARIABLES.iter().map(|(known, _)| (strsim::jaro_winkler(name, known), *known));
    scored.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_variable_exists() {
        for (name, _) in VARIABLES {
            assert!(named(name).is_ok(), "{name}");
        }
        assert_eq!(VARIABLES.len(), 19);
        assert!(NGINX.iter().all(|(_, ours)| named(ours).is_ok()));
    }
}
