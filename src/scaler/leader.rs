//! Who decides, where several proxies stand in front of the same pools.

use futures_util::future::LocalBoxFuture;

/// Who decides, among several proxies of the same pools.
pub trait Election {
    /// Takes or renews the leadership; called every third of the lease. Never blocks longer than half a lease.
    fn campaign(&mut self) -> LocalBoxFuture<'_, Result<Standing, ElectionError>>;

    /// Gives it up, at the end of the process.
    fn resign(&mut self) -> LocalBoxFuture<'_, ()>;
}

/// How a campaign went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Whether this proxy decides, until the next campaign.
    pub leads: bool,
    /// Who does, as far as is known: the holder's identity.
    pub leader: Option<String>,
    /// Grows with each change of leader; orders of an older one are void.
    pub generation: u64,
}

/// Why nobody knows who leads. Whoever gets this does not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {advice}")]
pub struct ElectionError {
    /// What went wrong, in a sentence without a full stop.
    pub what: String,
    /// What the operator can do about it.
    pub advice: String,
}
