//! Whether a client may proceed: rate, requests and connections at once. Pure: the clock comes from the caller.

/// Who is counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Per {
    /// The client's address; an IPv6 client is its /64.
    Client,
    /// The first so many bits of an IPv4 client's address (IPv6: its /64).
    Prefix(u8),
    /// The value of a request header, such as an API key; requests without it are counted by address.
    Header(http::HeaderName),
    /// The value of a cookie; requests without it are counted by address.
    Cookie(String),
    /// Everybody together.
    All,
}
