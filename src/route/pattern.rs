//! What a route may ask of a request: the patterns, as settings. The compiled matcher is beside this file.

use ipnet::IpNet;

/// Which hosts a route is for.
///
/// **Text**: `api.example.com`, `*.example.com` (any number of labels in front, at least one), `*` (any host).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This host only; lower case, no port.
    Exact(String),
    /// Hosts that end in `.suffix`; the suffix is kept without the leading `*.`.
    Wildcard(String),
    /// Any host, also none.
    Any,
}

/// Which paths a route is for.
///
/// **Text**: `/api` (prefix on segment borders), `= /exact`, `^~ /prefix` (raw prefix that no regex overrides), `~ regex`,
/// `~* regex` (ignoring case), `raw /prefix` (raw prefix, as a plain NGINX `location`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// The whole path.
    Exact(String),
    /// `/api` takes `/api` and `/api/x`, not `/apix` (Gateway API `PathPrefix`).
    Prefix(String),
    /// `/api` takes also `/apix`. With `over_regex` no regex route is preferred to it (NGINX `^~`).
    RawPrefix {
        /// What the path starts with.
        prefix: String,
        /// NGINX's `^~`.
        over_regex: bool,
    },
    /// A regular expression, searched anywhere in the path as NGINX does; its captures are usable in rewrites.
    Regex {
        /// The expression in the `regex` crate's syntax.
        expression: String,
        /// NGINX's `~*`.
        ignore_case: bool,
    },
}

/// What a header, query parameter or cookie must be.
///
/// **Text** (in TOML): `"beta"` or `{ exact = "beta" }`, `{ prefix = "b" }`, `{ regex = "^b" }`, `{ present = true }`, `{ present = false }`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ValuePattern {
    /// Equal, byte for byte.
    Exact(String),
    /// Starts with.
    Prefix(String),
    /// A match anywhere in the value.
    Regex(String),
    /// There (`true`), whatever it holds, or absent (`false`).
    Present(bool),
}

/// One thing a request must be, besides host and path, for a route to take it. All of a rule's conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What is looked at.
    pub subject: Subject,
    /// The condition holds where the subject does *not* match (HAProxy `unless`, `!acl`).
    pub negated: bool,
}

/// What a [`Condition`] looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// One of these methods.
    Method(Vec<http::Method>),
    /// A request header; any of its lines may match.
    Header(http::HeaderName, ValuePattern),
    /// A query parameter, percent-decoded; any of its occurrences may match.
    Query(String, ValuePattern),
    /// A cookie.
    Cookie(String, ValuePattern),
    /// The client's address is in one of these networks.
    Source(Vec<IpNet>),
    /// The host matches one of these (for negations and HAProxy rules; plain hosts go into the rule's own list).
    Host(Vec<HostPattern>),
    /// The path matches one of these (for negations and HAProxy rules).
    Path(Vec<PathPattern>),
    /// One of these listeners accepted the connection.
    Listener(Vec<String>),
}
