//! The types of keys that belong to the configuration itself; those of the deciders are theirs.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A text that is not to be shown: `Debug` hides it, and so does `tidegate show`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text from being shown.
    pub fn new(text: String) -> Self {
        Secret(text)
    }

    /// The text itself, for the one who compares or sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How many worker threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// One for each CPU this process may use.
    Auto,
    /// So many; at least 1.
    Count(u16),
}

/// How the process's log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where access log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
}

/// An HTTP version a side may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `http/1.1` (and 1.0).
    Http1,
    /// `h2`.
    Http2,
}

/// Whether connections start with a PROXY protocol header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// Never read.
    Off,
    /// Read where it is there.
    Accept,
    /// Connections without one are closed.
    Require,
}

/// Which headers tell upstreams about the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// None.
    Off,
    /// `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host`, `X-Real-IP`.
    XForwarded,
    /// `Forwarded`, RFC 7239.
    Rfc7239,
    /// All of them.
    Both,
}

/// What happens to `X-Request-Id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestId {
    /// Not touched.
    Off,
    /// Kept, or made where absent.
    Pass,
    /// Always made.
    Always,
}

/// The oldest TLS version accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// They must.
    Require,
    /// They may.
    Optional,
}

/// What an active health check does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckKind {
    /// Asks for a path and looks at the answer.
    Http,
    /// Connects.
    Tcp,
    /// Asks an MCP server `server/discover`, which changes nothing; any JSON-RPC answer is good, whatever it says.
    Mcp,
}

/// What an upstream is before its first health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initial {
    /// Takes no traffic.
    Down,
    /// Takes traffic.
    Up,
}

/// A set of HTTP statuses, as inclusive ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusSet(pub Vec<(u16, u16)>);

/// Where a learned stickiness key is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StickyKey {
    /// A header of the answer and of later requests.
    Header(http::HeaderName),
    /// A cookie set by the answer and sent by later requests.
    Cookie(String),
}

/// The Host that upstreams see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostHeader {
    /// The client's.
    Preserve,
    /// The upstream's address.
    Upstream,
    /// This.
    Literal(String),
}

impl StatusSet {
    /// Whether a status is one of them.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|(low, high)| (*low..=*high).contains(&status))
    }
}

/// Why a setting could not be read; its text says what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct SettingError(&'static str);

impl FromStr for StatusSet {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        const STATUSES: SettingError = SettingError("statuses from 100 to 599 such as \"200-399\" or \"200,204\"");
        let status =
            |text: &str| text.trim().parse::<u16>().ok().filter(|status| (100..=599).contains(status)).ok_or(STATUSES);
        let mut ranges = Vec::new();
        for part in text.split(',') {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            let (low, high) = (status(low)?, status(high)?);
            if low > high {
                return Err(STATUSES);
            }
            ranges.push((low, high));
        }
        Ok(StatusSet(ranges))
    }
}

impl fmt::Display for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (low, high)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if low == high { write!(f, "{comma}{low}")? } else { write!(f, "{comma}{low}-{high}")? }
        }
        Ok(())
    }
}

impl FromStr for StickyKey {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        const KEY: SettingError = SettingError("\"header:NAME\" or \"cookie:NAME\", such as \"header:Mcp-Session-Id\"");
        let (kind, name) = text.split_once(':').ok_or(KEY)?;
        // RFC 6265 §4.1.1: a cookie's name is a token, and so is a header's; unlike it, case counts.
        let header: http::HeaderName = name.parse().map_err(|_| KEY)?;
        match kind {
            "header" => Ok(StickyKey::Header(header)),
            "cookie" => Ok(StickyKey::Cookie(name.to_owned())),
            _ => Err(KEY),
        }
    }
}

impl fmt::Display for StickyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StickyKey::Header(name) => write!(f, "header:{name}"),
            StickyKey::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}
