//! Everything that can make the one writer do something.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::admin::model::{Status, UpstreamStatus, Verdict};
use crate::admin::{Change, ChangeError};
use crate::health::Trip;
use crate::snapshot::{Replica, Upstream};
use crate::types::Address;
use crate::upstream::Resolution;

/// News for the control loop.
#[derive(Debug)]
pub enum Event {
    /// The configuration is to be read again.
    Reload {
        /// Who asked.
        cause: Cause,
        /// Who waits for the verdict.
        reply: Option<oneshot::Sender<Verdict>>,
    },
    /// A health check has ended.
    Checked {
        /// Whose.
        upstream: Arc<Upstream>,
        /// How; the words are for people.
        result: Result<(), String>,
    },
    /// Real requests have shown that an upstream is sick, or well again.
    Tripped {
        /// Whose.
        upstream: Arc<Upstream>,
        /// What it is.
        trip: Trip,
    },
    /// A name has been resolved, perhaps to something new.
    Resolved {
        /// The pool it is in.
        pool: Arc<str>,
        /// As it was configured.
        address: Address,
        /// What it stands for now.
        resolution: Resolution,
    },
    /// An operator wants something of an upstream.
    Operate {
        /// The pool.
        pool: String,
        /// The upstream, as configured or as resolved.
        upstream: String,
        /// What is wanted.
        change: Change,
        /// How the upstream is then.
        reply: oneshot::Sender<Result<UpstreamStatus, ChangeError>>,
    },
    /// A scaler says which replicas its pool has, all of them each time. The same set again changes nothing.
    Replicas {
        /// The pool.
        pool: Arc<str>,
        /// Its replicas. One that is missing is gone, or should be.
        replicas: Vec<Replica>,
        /// What a member takes at once, where `max_concurrency` is `"learn"`; none while that is not known.
        max_concurrency: Option<u32>,
    },
    /// Somebody wants to know how everything is.
    Status {
        /// Who.
        reply: oneshot::Sender<Status>,
    },
    /// The log file has been moved away: open it anew.
    ReopenLogs,
    /// Finish what runs, then stop.
    Shutdown,
}

/// Who asked for a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The process has started.
    Start,
    /// A file has changed.
    File,
    /// SIGHUP.
    Signal,
    /// The admin API.
    Admin,
}

impl Cause {
    /// Its word in logs and in the API.
    pub fn word(self) -> &'static str {
        match self {
            Cause::Start => "start",
            Cause::File => "file",
            Cause::Signal => "signal",
            Cause::Admin => "admin",
        }
    }
}
