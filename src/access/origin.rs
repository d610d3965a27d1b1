use std::fmt;
use std::str::FromStr;

use http::HeaderMap;
use http::header::ORIGIN;

/// Which web pages are meant, by the origin that browsers send.
///
/// **Text**: `https://app.example.com`, `http://localhost:*` (any port), `https://*.example.com`, `null` (files and sandboxed frames), `*`.
/// **Source**: RFC 6454 §6.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginPattern {
    /// Any page.
    Any,
    /// `Origin: null`.
    Null,
    /// Pages of a site.
    Site {
        /// In lower case.
        scheme: String,
        /// In lower case; with `below` what names end with.
        host: String,
        /// Whether names under `host` are meant instead of itself.
        below: bool,
        /// The port.
        port: PortPattern,
    },
}

/// Which ports of a site are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortPattern {
    /// The scheme's own, which browsers leave out.
    Default,
    /// This one.
    Exact(u16),
    /// Any.
    Any,
}

/// Why an origin could not be read; its text says what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct OriginError(&'static str);

const ORIGIN_WORDS: OriginError = OriginError(
    "an origin such as \"https://app.example.com\", \"http://localhost:*\", \"https://*.example.com\", \"null\" or \"*\"",
);
const NO_PATH: OriginError = OriginError("an origin without a path: scheme, host and port only");
const PORT: OriginError = OriginError("a port from 1 to 65535, or \"*\" for any");

impl FromStr for OriginPattern {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        match text {
            "*" => return Ok(OriginPattern::Any),
            "null" => return Ok(OriginPattern::Null),
            _ => {}
        }
        let lower = text.to_ascii_lowercase();
        let (scheme, rest) = lower.split_once("://").ok_or(ORIGIN_WORDS)?;
        if rest.contains(['/', '?', '#']) {
            return Err(NO_PATH);
        }
        let (host, port) = parted(rest).ok_or(ORIGIN_WORDS)?;
        let (host, below) = host.strip_prefix("*.").map_or((host, false), |host| (host, true));
        let names = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
        let schemes = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if scheme.is_empty() || host.is_empty() || !scheme.bytes().all(schemes) || !host.bytes().all(names) {
            return Err(ORIGIN_WORDS);
        }
        let port = match port {
            None => PortPattern::Default,
            Some("*") => PortPattern::Any,
            Some(port) => match port.parse().ok().filter(|port| *port > 0).ok_or(PORT)? {
                port if default_port(scheme) == Some(port) => PortPattern::Default,
                port => PortPattern::Exact(port),
            },
        };
        Ok(OriginPattern::Site { scheme: scheme.to_owned(), host: host.to_owned(), below, port })
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OriginPattern::Any => f.write_str("*"),
            OriginPattern::Null => f.write_str("null"),
            OriginPattern::Site { scheme, host, below, port } => {
                write!(f, "{scheme}://{}{host}", if *below { "*." } else { "" })?;
                match port {
                    PortPattern::Default => Ok(()),
                    PortPattern::Exact(port) => write!(f, ":{port}"),
                    PortPattern::Any => f.write_str(":*"),
                }
            }
        }
    }
}

impl OriginPattern {
    /// Whether the page of this origin is meant.
    pub fn matches(&self, origin: &str) -> bool {
        match self {
            OriginPattern::Any => true,
            OriginPattern::Null => origin == "null",
            OriginPattern::Site { scheme, host, below, port } => {
                let Some((of, rest)) = origin.split_once("://") else { return false };
                let Some((name, number)) = parted(rest) else { return false };
                of.eq_ignore_ascii_case(scheme) && is_host(name, host, *below) && is_port(number, *port, scheme)
            }
        }
    }
}

fn is_host(name: &str, host: &str, below: bool) -> bool {
    if !below {
        return name.eq_ignore_ascii_case(host);
    }
    let Some(at) = name.len().checked_sub(host.len() + 1).filter(|at| *at > 0) else { return false };
    let (front, end) = name.as_bytes().split_at(at);
    let plain = front.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(byte));
    plain && end[0] == b'.' && end[1..].eq_ignore_ascii_case(host.as_bytes())
}

fn is_port(number: Option<&str>, port: PortPattern, scheme: &str) -> bool {
    let number = match number {
        None => None,
        // Digits alone: nothing that a number's reader is lenient about.
        Some(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => match text.parse::<u16>() {
            Ok(number) => Some(number),
            Err(_) => return false,
        },
        Some(_) => return false,
    };
    match port {
        PortPattern::Any => true,
        PortPattern::Default => number.is_none() || number == default_port(scheme),
        PortPattern::Exact(wanted) => number == Some(wanted),
    }
}

/// Host and port of what stands behind `://`.
fn parted(rest: &str) -> Option<(&str, Option<&str>)> {
    if rest.starts_with('[') {
        let end = rest.find(']')? + 1;
        let (host, port) = rest.split_at(end);
        return if port.is_empty() { Some((host, None)) } else { Some((host, Some(port.strip_prefix(':')?))) };
    }
    Some(rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))))
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// The origins that may ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(pub Vec<OriginPattern>);

impl Origins {
    /// Whether this page may ask.
    pub fn allow(&self, origin: &[u8]) -> bool {
        std::str::from_utf8(origin).is_ok_and(|origin| self.0.iter().any(|pattern| pattern.matches(origin)))
    }

    /// Whether a request may go on: it names no origin, as one that no browser has sent, or an allowed one, once.
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => true,
            (Some(origin), None) => self.allow(origin.as_bytes()),
            _ => false,
        }
    }

    /// Whether every page may ask.
    pub fn is_any(&self) -> bool {
        self.0.contains(&OriginPattern::Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, origin: &str) -> bool {
        pattern.parse::<OriginPattern>().unwrap().matches(origin)
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for (pattern, yes, no) in [
            (
                "https://app.example.com",
                &["https://app.example.com", "https://APP.example.com:443"][..],
                &["http://app.example.com", "https://app.example.com:444", "https://app.example.com.evil.test", "null"]
                    [..],
            ),
            (
                "http://localhost:*",
                &["http://localhost", "http://localhost:5173"],
                &[
                    "http://localhost.evil.test",
                    "http://localhost:x",
                    "http://localhost:+80",
                    "http://localhost:",
                    "https://localhost",
                ],
            ),
            ("http://localhost:8080", &["http://localhost:8080"], &["http://localhost", "http://localhost:80801"]),
            (
                "https://*.example.com",
                &["https://a.example.com", "https://a.b.example.com"],
                &[
                    "https://example.com",
                    "https://.example.com",
                    "https://evilexample.com",
                    "https://evil.test/.example.com",
                    "https://u@a.example.com",
                ],
            ),
            ("http://[::1]:*", &["http://[::1]:3000"], &["http://[::1]x:3000", "http://[::2]:3000"]),
            ("null", &["null"], &["https://null", "", "NULL"]),
            ("*", &["null", "https://anything.test"], &[]),
        ] {
            for origin in yes {
                assert!(matches(pattern, origin), "{pattern} {origin}");
            }
            for origin in no {
                assert!(!matches(pattern, origin), "{pattern} {origin}");
            }
        }
    }

    #[test]
    fn what_is_written_reads_back_and_what_is_none_is_refused() {
        for text in
            ["https://a.test", "http://localhost:*", "https://*.a.test:8443", "null", "*", "vscode-webview://abc"]
        {
            assert_eq!(text.parse::<OriginPattern>().unwrap().to_string(), text);
        }
        assert_eq!("https://A.test:443".parse::<OriginPattern>().unwrap().to_string(), "https://a.test");
        for (text, why) in [
            ("app.example.com", ORIGIN_WORDS),
            ("https://", ORIGIN_WORDS),
            ("https://a b", ORIGIN_WORDS),
            ("https://u@a.test", ORIGIN_WORDS),
            ("https://a.*.test", ORIGIN_WORDS),
            ("https://a.test/", NO_PATH),
            ("https://a.test:0", PORT),
            ("https://a.test:x", PORT),
        ] {
            assert_eq!(text.parse::<OriginPattern>(), Err(why), "{text}");
        }
    }

    #[test]
    fn a_request_names_one_allowed_origin_or_none() {
        let origins = Origins(vec!["https://a.test".parse().unwrap(), "https://b.test".parse().unwrap()]);
        let mut headers = HeaderMap::new();
        assert!(origins.admit(&headers));
        headers.append(ORIGIN, "https://a.test".parse().unwrap());
        assert!(origins.admit(&headers));
        headers.append(ORIGIN, "https://b.test".parse().unwrap());
        assert!(!origins.admit(&headers));
        headers.insert(ORIGIN, "https://c.test".parse().unwrap());
        assert!(!origins.admit(&headers));
    }
}
