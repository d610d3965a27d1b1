use std::fmt;
use std::str::FromStr;

/// Who is counted together.
///
/// **Text**: `client`, `client/24`, `header:X-Api-Key`, `cookie:session`, `principal`, `all`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Per {
    /// The client's address; an IPv6 client is its /64.
    Client,
    /// The first so many bits (1 to 32) of an IPv4 client's address (IPv6: its /64).
    Prefix(u8),
    /// The value of a request header, such as an API key; requests without it are counted by address.
    Header(http::HeaderName),
    /// The value of a cookie; requests without it are counted by address.
    Cookie(String),
    /// Whoever a key or token has shown it to be; requests without one are counted by address.
    Principal,
    /// Everybody together.
    All,
}

/// Why a [`Per`] could not be read; its text says what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct PerError(&'static str);

const WHO: PerError = PerError(
    "\"client\", \"client/24\", \"header:NAME\", \"cookie:NAME\", \"principal\" or \"all\", such as \"header:X-Api-Key\"",
);
const BITS: PerError =
    PerError("an IPv4 prefix of 1 to 32 bits, such as \"client/24\"; \"all\" counts everybody together");
const HEADER: PerError = PerError("a header name behind \"header:\", such as \"header:X-Api-Key\"");
const COOKIE: PerError = PerError("a cookie name behind \"cookie:\", such as \"cookie:session\"");

impl FromStr for Per {
    type Err = PerError;

    fn from_str(text: &str) -> Result<Self, PerError> {
        match text {
            "client" => return Ok(Per::Client),
            "all" => return Ok(Per::All),
            "principal" => return Ok(Per::Principal),
            _ => {}
        }
        if let Some(bits) = text.strip_prefix("client/") {
            let plain = bits.bytes().all(|b| b.is_ascii_digit());
            let bits = bits.parse().ok().filter(|bits| plain && (1..=32).contains(bits)).ok_or(BITS)?;
            return Ok(Per::Prefix(bits));
        }
        if let Some(name) = text.strip_prefix("header:") {
            return name.parse().map(Per::Header).map_err(|_| HEADER);
        }
        let name = text.strip_prefix("cookie:").ok_or(WHO)?;
        // RFC 6265 §4.1.1: a cookie's name is a token, and so is a header's; unlike it, case counts.
        name.parse::<http::HeaderName>().map(|_| Per::Cookie(name.to_owned())).map_err(|_| COOKIE)
    }
}

impl fmt::Display for Per {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Per::Client => f.write_str("client"),
            Per::Prefix(bits) => write!(f, "client/{bits}"),
            Per::Header(name) => write!(f, "header:{name}"),
            Per::Cookie(name) => write!(f, "cookie:{name}"),
            Per::Principal => f.write_str("principal"),
            Per::All => f.write_str("all"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for text in
            ["client", "client/24", "client/1", "client/32", "header:x-api-key", "cookie:SessionId", "principal", "all"]
        {
            assert_eq!(text.parse::<Per>().unwrap().to_string(), text);
        }
        assert_eq!("header:X-Api-Key".parse(), Ok(Per::Header(http::HeaderName::from_static("x-api-key"))));
    }

    #[test]
    fn nonsense_says_what_was_expected() {
        let cases = [
            ("", WHO),
            ("Client", WHO),
            ("ip", WHO),
            ("client/0", BITS),
            ("client/33", BITS),
            ("client/+8", BITS),
            ("client/", BITS),
            ("header:", HEADER),
            ("header:a b", HEADER),
            ("cookie:", COOKIE),
            ("cookie:a=b", COOKIE),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Per>(), Err(error), "{text}");
        }
    }
}
