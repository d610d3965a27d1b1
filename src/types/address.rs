use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where an upstream is, as the operator wrote it.
///
/// **Shape**: `10.0.0.7:9001`, `[::1]:9001`, `api.internal:9001`, `unix:/run/app.sock`, `srv:_http._tcp.api.internal`.
/// Its text is also the upstream's identity within a pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Address {
    /// An IP address and port: nothing to resolve.
    Ip(SocketAddr),
    /// A host name and port; every A and AAAA record becomes an upstream.
    Host {
        /// The name, lower case, without a final dot.
        name: String,
        /// The port that every address of the name is reached at.
        port: u16,
    },
    /// A Unix stream socket.
    Unix(PathBuf),
    /// An SRV record name; targets, ports and weights come from the records (RFC 2782).
    Srv(String),
}

/// Where a listener accepts.
///
/// **Shape**: `0.0.0.0:8080`, `[::]:8080`, `:8080` (every IPv4 and IPv6 address), `unix:/run/tidegate.sock`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bind {
    /// A TCP address; port 0 asks the kernel for a free one.
    Tcp(SocketAddr),
    /// A Unix stream socket.
    Unix(PathBuf),
}

/// Why an address could not be read; its text says what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(&'static str);

const UPSTREAM: AddressError = AddressError(
    "expected an upstream address such as \"127.0.0.1:9001\", \"api.internal:9001\", \"unix:/run/app.sock\" or \"srv:_http._tcp.api.internal\"",
);
const PORT: AddressError =
    AddressError("expected a port between 1 and 65535 behind the host, such as \"api.internal:9001\"");
const LISTENER: AddressError = AddressError(
    "expected an address to listen on, such as \"0.0.0.0:8080\", \"[::]:8080\", \":8080\" or \"unix:/run/tidegate.sock\"",
);

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.to_string()
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path, UPSTREAM).map(Address::Unix);
        }
        if let Some(name) = text.strip_prefix("srv:") {
            return host_name(name).map(Address::Srv).ok_or(UPSTREAM);
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 { Err(PORT) } else { Ok(Address::Ip(address)) };
        }
        if text.parse::<IpAddr>().is_ok() {
            return Err(PORT);
        }
        let (name, port) = text.rsplit_once(':').ok_or(if host_name(text).is_some() { PORT } else { UPSTREAM })?;
        let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or(PORT)?;
        host_name(name).map(|name| Address::Host { name, port }).ok_or(UPSTREAM)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => address.fmt(f),
            Address::Host { name, port } => write!(f, "{name}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Srv(name) => write!(f, "srv:{name}"),
        }
    }
}

impl FromStr for Bind {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path, LISTENER).map(Bind::Unix);
        }
        if let Some(port) = text.strip_prefix(':').or_else(|| text.strip_prefix("*:")) {
            let port = port.parse().map_err(|_| LISTENER)?;
            return Ok(Bind::Tcp(SocketAddr::new(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), port)));
        }
        text.parse().map(Bind::Tcp).map_err(|_| LISTENER)
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bind::Tcp(address) => address.fmt(f),
            Bind::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn unix(path: &str, error: AddressError) -> Result<PathBuf, AddressError> {
    // sun_path holds 108 bytes with its final NUL.
    if path.is_empty() || path.len() > 107 || path.contains('\0') { Err(error) } else { Ok(PathBuf::from(path)) }
}

/// The name in lower case without its final dot, if it is one a resolver could be asked for (RFC 1123 plus `_`).
fn host_name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let fits = !name.is_empty() && name.len() <= 253;
    let labels = name.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    });
    // All digits and dots is a mistyped IP address, never a name.
    let named = name.bytes().any(|b| b.is_ascii_alphabetic());
    (fits && labels && named).then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_and_write_alike() {
        for text in
            ["127.0.0.1:9001", "[::1]:9001", "api.internal:80", "unix:/run/app.sock", "srv:_http._tcp.api.internal"]
        {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["0.0.0.0:8080", "[::]:8080", "unix:/run/t.sock"] {
            assert_eq!(text.parse::<Bind>().unwrap().to_string(), text);
        }
        assert_eq!(":8080".parse::<Bind>().unwrap().to_string(), "[::]:8080");
    }

    #[test]
    fn wrong_addresses_say_what_is_missing() {
        for text in ["127.0.0.1", "api.internal", "api.internal:0", "api.internal:99999", "[::1]"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        assert_eq!("127.0.0.1".parse::<Address>(), Err(PORT));
        for text in ["", "1.2.3:80", "a b:80", "-x:80", "unix:", "http://x:80"] {
            assert_eq!(text.parse::<Address>(), Err(UPSTREAM), "{text}");
        }
        for text in ["", "8080", "host:80", "unix:"] {
            assert!(text.parse::<Bind>().is_err(), "{text}");
        }
    }
}
