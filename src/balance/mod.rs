//! Which upstream takes the next request. Pure: the clock and the random draw come from the caller.

/// How the next upstream is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// In turn, by weight where weights differ.
    RoundRobin,
    /// Smooth weighted round robin.
    Weighted,
    /// The fewest requests in flight per weight.
    LeastConnections,
    /// The lowest peak-EWMA latency × requests in flight, per weight.
    Ewma,
    /// The better of two drawn at random.
    Random,
    /// A consistent-hash ring with bounded load.
    Hash,
    /// The first in order that has room.
    First,
}

/// What a consistent hash is computed over.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HashKey {
    /// The client's address.
    Client,
    /// Path and query.
    Uri,
    /// The path.
    Path,
    /// A request header.
    Header(http::HeaderName),
    /// A cookie.
    Cookie(String),
    /// A query parameter.
    Query(String),
}
