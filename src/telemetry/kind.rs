use super::count::{Kind, kinds};
use crate::health::{Phase, State};
use crate::limit::Reason;

kinds! {
    /// Why a connection from a client ended.
    Closed {
        /// The client closed it, or asked for that.
        Client = "client",
        /// It was idle between requests for too long.
        Idle = "idle",
        /// The client was too slow: headers, body or reading.
        Timeout = "timeout",
        /// We are shutting down, or its listener went.
        Drained = "drained",
        /// It broke, or carried what is not HTTP.
        Error = "error",
        /// An HTTP/2 client made more work than any use of it needs: resets, empty frames, settings, heads without end.
        Flood = "flood",
        /// An HTTP/2 client broke the protocol's rules.
        Protocol = "protocol",
        /// The client had too many.
        Limit = "limit",
        /// The TLS handshake failed.
        Tls = "tls",
        /// Its PROXY protocol header was missing or wrong.
        ProxyHeader = "proxy_header",
    }
}

kinds! {
    /// What an upstream did wrong.
    Fault {
        /// Refused or unreachable.
        Connect = "connect",
        /// No connection in time.
        ConnectTimeout = "connect_timeout",
        /// The TLS handshake failed.
        Tls = "tls",
        /// Closed or reset the connection before its answer's end.
        Reset = "reset",
        /// No answer in time.
        Timeout = "timeout",
        /// The answer stopped for too long.
        Stalled = "stalled",
        /// The answer was not HTTP.
        Malformed = "malformed",
        /// This machine had no socket, port or memory left: not the upstream's fault.
        NoSocket = "no_socket",
        /// It said more than its answer, or something without being asked; that connection was closed, and no request is hurt.
        Unasked = "unasked",
    }
}

kinds! {
    /// How a health check, a reload, a name resolution ended.
    Outcome {
        /// Well.
        Ok = "ok",
        /// Badly.
        Failed = "failed",
    }
}

kinds! {
    /// What became of a request that had to wait for a slot.
    Waited {
        /// It was given one.
        Served = "served",
        /// As many as may waited already.
        Full = "full",
        /// It waited too long.
        Timeout = "timeout",
        /// While it waited the last upstream went, and nobody will start another.
        Unfit = "unfit",
        /// Its client left, or its time as a whole was over.
        Left = "left",
    }
}

impl Kind for State {
    const WORDS: &'static [&'static str] = &[
        State::Starting.word(),
        State::Ready.word(),
        State::Draining.word(),
        State::Drained.word(),
        State::Maintenance.word(),
        State::Down.word(),
    ];

    fn index(self) -> usize {
        match self {
            State::Starting => 0,
            State::Ready => 1,
            State::Draining => 2,
            State::Drained => 3,
            State::Maintenance => 4,
            State::Down => 5,
        }
    }
}

impl Kind for Phase {
    const WORDS: &'static [&'static str] = &["closed", "open", "half_open"];

    fn index(self) -> usize {
        match self {
            Phase::Closed => 0,
            Phase::Open => 1,
            Phase::HalfOpen { .. } => 2,
        }
    }
}

impl Kind for Reason {
    const WORDS: &'static [&'static str] = &["rate", "requests", "connections"];

    fn index(self) -> usize {
        match self {
            Reason::Rate => 0,
            Reason::Requests => 1,
            Reason::Connections => 2,
        }
    }
}
