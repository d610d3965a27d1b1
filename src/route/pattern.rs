//! What a route may ask of a request: the patterns, as settings. The compiled matcher is beside this file.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use ipnet::IpNet;

use super::path::{self, PathError};

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

/// Why a pattern could not be read; its text says what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Not a host at all.
    #[error("expected a host such as \"api.example.com\", \"*.example.com\" or \"*\"")]
    Host,
    /// A host with a port.
    #[error("expected a host without a port: routes are matched on the host alone; use `listener` to tell ports apart")]
    HostPort,
    /// A `*` elsewhere than as the first label.
    #[error("expected \"*.\" in front of a name, as in \"*.example.com\": `*` stands for whole leading labels only")]
    Wildcard,
    /// Letters beyond ASCII in a host.
    #[error("expected the host in its ASCII form (\"xn--…\"), which is what clients send")]
    International,
    /// Not a path at all.
    #[error(
        "expected a path such as \"/api\", \"= /exact\", \"^~ /prefix\", \"raw /prefix\", \"~ regex\" or \"~* regex\""
    )]
    Path,
    /// No slash in front of a path.
    #[error("expected a path that starts with `/`, such as \"/{0}\"")]
    Relative(String),
    /// A query or fragment in a path.
    #[error(
        "expected a path without `{0}`: routes match the query with the key `query`; a literal one is written \"{1}\""
    )]
    NotPath(char, &'static str),
    /// Something that no normalized path holds.
    #[error("expected a path without {0}: requests are normalized first, so it could never match")]
    NeverThere(&'static str),
    /// A broken percent escape.
    #[error("expected two hexadecimal digits after `%`, as in \"%20\"; a literal `%` is written \"%25\"")]
    Escape,
    /// A regular expression that does not compile.
    #[error("expected a regular expression: {0}")]
    Regex(String),
    /// A regular expression that compiles to too much.
    #[error("expected a smaller regular expression: compiled it exceeds {} KiB", REGEX_LIMIT >> 10)]
    RegexSize,
    /// A listener that does not exist.
    #[error("expected the name of a listener; there is none called \"{0}\"")]
    Listener(String),
    /// A cookie or query parameter without a name.
    #[error("expected a name: it is empty")]
    Unnamed,
}

/// What a compiled expression may take. Unicode classes are large; anything larger than this is a mistake.
const REGEX_LIMIT: usize = 1 << 20;

/// Compiles an expression that is searched in paths.
pub(super) fn path_regex(expression: &str, ignore_case: bool) -> Result<regex::Regex, PatternError> {
    let built = regex::RegexBuilder::new(expression).case_insensitive(ignore_case).size_limit(REGEX_LIMIT).build();
    built.map_err(regex_error)
}

/// Compiles an expression that is searched in values, which need not be UTF-8.
pub(super) fn value_regex(expression: &str) -> Result<regex::bytes::Regex, PatternError> {
    regex::bytes::RegexBuilder::new(expression).size_limit(REGEX_LIMIT).build().map_err(regex_error)
}

fn regex_error(error: regex::Error) -> PatternError {
    match error {
        regex::Error::CompiledTooBig(_) => PatternError::RegexSize,
        // The crate draws the expression with a caret under it; its last line says what is wrong.
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            PatternError::Regex(last.strip_prefix("error: ").unwrap_or(last).to_owned())
        }
    }
}

impl FromStr for HostPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let text = text.trim();
        if text == "*" {
            return Ok(HostPattern::Any);
        }
        if let Some(literal) = text.strip_prefix('[') {
            let (address, port) = literal.split_once(']').ok_or(PatternError::Host)?;
            if !port.is_empty() {
                return Err(PatternError::HostPort);
            }
            // Written as RFC 5952 has it, so that other spellings of the same address match too.
            let address: Ipv6Addr = address.parse().map_err(|_| PatternError::Host)?;
            return Ok(HostPattern::Exact(format!("[{address}]")));
        }
        match text.strip_prefix("*.") {
            Some(suffix) => host_name(suffix).map(HostPattern::Wildcard),
            None => host_name(text).map(HostPattern::Exact),
        }
    }
}

/// A host name (or IPv4 address) in lower case and without its final dot.
fn host_name(text: &str) -> Result<String, PatternError> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if !name.is_ascii() {
        return Err(PatternError::International);
    }
    if name.contains('*') {
        return Err(PatternError::Wildcard);
    }
    if name.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())) {
        return Err(PatternError::HostPort);
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let fits = name.len() <= 253 && name.split('.').all(label);
    if fits { Ok(name.to_ascii_lowercase()) } else { Err(PatternError::Host) }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(host) => f.write_str(host),
            HostPattern::Wildcard(suffix) => write!(f, "*.{suffix}"),
            HostPattern::Any => f.write_str("*"),
        }
    }
}

impl FromStr for PathPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let text = text.trim();
        let regex = |expression: &str, ignore_case| {
            let expression = expression.trim_start().to_owned();
            if expression.is_empty() {
                Err(PatternError::Path)
            } else {
                Ok(PathPattern::Regex { expression, ignore_case })
            }
        };
        let raw = |path: &str, over_regex| PathPattern::RawPrefix { prefix: path.trim_start().to_owned(), over_regex };
        // As in NGINX, no space is needed behind an operator made of signs.
        let pattern = if let Some(path) = text.strip_prefix("^~") {
            raw(path, true)
        } else if let Some(path) = text.strip_prefix("raw ") {
            raw(path, false)
        } else if let Some(path) = text.strip_prefix('=') {
            PathPattern::Exact(path.trim_start().to_owned())
        } else if let Some(expression) = text.strip_prefix("~*") {
            regex(expression, true)?
        } else if let Some(expression) = text.strip_prefix('~') {
            regex(expression, false)?
        } else {
            PathPattern::Prefix(text.to_owned())
        };
        pattern.check()?;
        Ok(pattern)
    }
}

impl PathPattern {
    /// Whether it can match anything at all.
    ///
    /// **Errors**: as reading it from text; for patterns that were put together by other means.
    pub fn check(&self) -> Result<(), PatternError> {
        match self {
            PathPattern::Exact(path) | PathPattern::Prefix(path) => check_path(path, false),
            PathPattern::RawPrefix { prefix, .. } => check_path(prefix, true),
            PathPattern::Regex { expression, ignore_case } => path_regex(expression, *ignore_case).map(drop),
        }
    }
}

/// `open` paths may end in the middle of a segment, so `/.` can be the start of `/.git`.
fn check_path(path: &str, open: bool) -> Result<(), PatternError> {
    canonical_path(path, open).map(drop)
}

/// The path as requests meant by it have it once they are normalized.
pub(super) fn canonical_path(path: &str, open: bool) -> Result<String, PatternError> {
    if path.is_empty() {
        return Err(PatternError::Path);
    }
    if !path.starts_with('/') {
        return Err(PatternError::Relative(path.to_owned()));
    }
    if path.contains('?') {
        return Err(PatternError::NotPath('?', "%3F"));
    }
    if path.contains('#') {
        return Err(PatternError::NotPath('#', "%23"));
    }
    if path.contains("//") {
        return Err(PatternError::NeverThere("`//`"));
    }
    let canonical = path::canonical(path).map_err(|error| match error {
        PathError::Nul | PathError::Control => PatternError::NeverThere("control characters"),
        _ => PatternError::Escape,
    })?;
    let mut segments = canonical.split('/');
    if open {
        segments.next_back();
    }
    if segments.any(|segment| matches!(segment, "." | "..") || path::hides_dots(segment)) {
        return Err(PatternError::NeverThere("`.` and `..` segments"));
    }
    Ok(canonical)
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathPattern::Exact(path) => write!(f, "= {path}"),
            PathPattern::Prefix(path) => f.write_str(path),
            PathPattern::RawPrefix { prefix, over_regex: true } => write!(f, "^~ {prefix}"),
            PathPattern::RawPrefix { prefix, over_regex: false } => write!(f, "raw {prefix}"),
            PathPattern::Regex { expression, ignore_case: true } => write!(f, "~* {expression}"),
            PathPattern::Regex { expression, ignore_case: false } => write!(f, "~ {expression}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_read_and_write_alike() {
        for text in
            ["api.example.com", "*.example.com", "*", "localhost", "127.0.0.1", "[::1]", "my_host", "xn--bcher-kva.de"]
        {
            assert_eq!(text.parse::<HostPattern>().unwrap().to_string(), text);
        }
        assert_eq!("API.Example.com.".parse(), Ok(HostPattern::Exact("api.example.com".to_owned())));
        assert_eq!("*.Example.COM".parse(), Ok(HostPattern::Wildcard("example.com".to_owned())));
        assert_eq!("[0:0::1]".parse(), Ok(HostPattern::Exact("[::1]".to_owned())));
    }

    #[test]
    fn wrong_hosts_say_what_was_expected() {
        for (text, error) in [
            ("", PatternError::Host),
            ("a b", PatternError::Host),
            ("a..b", PatternError::Host),
            ("http://a", PatternError::Host),
            ("a/b", PatternError::Host),
            ("[::1", PatternError::Host),
            ("[x]", PatternError::Host),
            ("*.", PatternError::Host),
            ("a.com:80", PatternError::HostPort),
            ("[::1]:80", PatternError::HostPort),
            ("*.com:80", PatternError::HostPort),
            ("www.*.com", PatternError::Wildcard),
            ("*example.com", PatternError::Wildcard),
            ("www.example.*", PatternError::Wildcard),
            ("bücher.de", PatternError::International),
        ] {
            assert_eq!(text.parse::<HostPattern>(), Err(error), "{text}");
        }
    }

    #[test]
    fn paths_read_and_write_alike() {
        for text in
            ["/", "/api", "/api/", "= /", "= /exact", "^~ /static/", "raw /", "raw /.", r"~ \.php$", "~* ^/(a|b)/"]
        {
            assert_eq!(text.parse::<PathPattern>().unwrap().to_string(), text);
        }
        let raw = |prefix: &str, over_regex| PathPattern::RawPrefix { prefix: prefix.to_owned(), over_regex };
        assert_eq!("=/x".parse(), Ok(PathPattern::Exact("/x".to_owned())));
        assert_eq!("^~/x".parse(), Ok(raw("/x", true)));
        assert_eq!(" raw  /x ".parse(), Ok(raw("/x", false)));
        assert_eq!("~*x".parse(), Ok(PathPattern::Regex { expression: "x".to_owned(), ignore_case: true }));
    }

    #[test]
    fn wrong_paths_say_what_was_expected() {
        for (text, error) in [
            ("", PatternError::Path),
            ("=", PatternError::Path),
            ("~", PatternError::Path),
            ("api", PatternError::Relative("api".to_owned())),
            ("= api", PatternError::Relative("api".to_owned())),
            ("/a?b=c", PatternError::NotPath('?', "%3F")),
            ("/a#b", PatternError::NotPath('#', "%23")),
            ("/a//b", PatternError::NeverThere("`//`")),
            ("/a/../b", PatternError::NeverThere("`.` and `..` segments")),
            ("/a/..", PatternError::NeverThere("`.` and `..` segments")),
            ("raw /./b", PatternError::NeverThere("`.` and `..` segments")),
            ("/a/%2e%2E/b", PatternError::NeverThere("`.` and `..` segments")),
            ("/a%2", PatternError::Escape),
            ("/100%", PatternError::Escape),
            ("/a\tb", PatternError::NeverThere("control characters")),
            (r"~ \w{1000}{100}", PatternError::RegexSize),
            ("~ (", PatternError::Regex("unclosed group".to_owned())),
        ] {
            assert_eq!(text.parse::<PathPattern>(), Err(error), "{text}");
        }
    }
}
