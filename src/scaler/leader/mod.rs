//! Which of several proxies of the same pools decides.
//!
//! An election is held on something that is there already: a file of one host, Redis, or a Lease of Kubernetes. Whoever does not know that it leads
//! does not lead: while nobody can be asked, the pools stay as they are.
//!
//! Why not a protocol of our own among the proxies: a majority needs three of them, and people run two.

mod file;
mod redis;

use futures_util::future::LocalBoxFuture;

pub use self::redis::RedisLock;
pub use file::FileLock;

/// Who decides, among several proxies of the same pools.
pub trait Election {
    /// Takes or renews the leadership; called every third of the lease. Never blocks longer than half a lease.
    fn campaign(&mut self) -> LocalBoxFuture<'_, Result<Standing, ElectionError>>;

    /// Gives it up, at the end of the process.
    fn resign(&mut self) -> LocalBoxFuture<'_, ()>;
}

/// How an election stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// Whether this proxy leads.
    pub leads: bool,
    /// The leader's identity, as far as it is known.
    pub leader: Option<String>,
    /// Grows with each change of leader. What an older one still orders is refused by drivers that can.
    pub generation: u64,
}

/// Why nobody can tell who leads. Then nobody does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {advice}")]
pub struct ElectionError {
    /// What went wrong, in a sentence without a full stop.
    pub what: String,
    /// What the operator can do about it.
    pub advice: String,
}

/// No election: this proxy is alone and leads.
#[derive(Debug, Clone)]
pub struct Alone {
    identity: String,
}

impl Alone {
    /// The only one, under this name.
    pub fn new(identity: String) -> Alone {
        Alone { identity }
    }
}

impl Election for Alone {
    fn campaign(&mut self) -> LocalBoxFuture<'_, Result<Standing, ElectionError>> {
        let standing = Standing { leads: true, leader: Some(self.identity.clone()), generation: 1 };
        Box::pin(async { Ok(standing) })
    }

    fn resign(&mut self) -> LocalBoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// A name for this process among others: the host's name and its number.
pub fn identity() -> String {
    let name = rustix::system::uname();
    format!("{}-{}", name.nodename().to_string_lossy(), std::process::id())
}
