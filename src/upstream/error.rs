use std::error::Error;
use std::fmt;
use std::io;

/// Why an upstream gave no answer that could be used.
///
/// Its text is for the log, one clause without the upstream's name: `connection refused`, `no answer in time`.
#[derive(Debug)]
pub struct SendError {
    /// What went wrong.
    pub kind: SendErrorKind,
    /// Whether the upstream may have seen any of the request. Where not, the request may safely go to another upstream.
    pub delivered: bool,
    /// Whether the connection had served requests before. An upstream that closes an idle connection in the moment in which it
    /// is used again looks like a failure of the request and is none of the upstream.
    pub reused: bool,
    /// What the layers below said.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

/// What went wrong between us and an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SendErrorKind {
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// No way there: no route, no such socket file, not permitted.
    #[error("unreachable")]
    Unreachable,
    /// No connection within the connect timeout.
    #[error("no connection in time")]
    ConnectTimeout,
    /// This machine has no socket, port or memory left for another connection: not the upstream's fault.
    #[error("no socket left on this machine")]
    NoSocket,
    /// The TLS handshake failed.
    #[error("TLS handshake failed")]
    TlsFailed,
    /// No TLS handshake within its timeout.
    #[error("no TLS handshake in time")]
    TlsTimeout,
    /// The connection was reset.
    #[error("connection reset")]
    Reset,
    /// The connection was closed before the answer's headers were complete.
    #[error("connection closed before the answer")]
    ClosedEarly,
    /// The upstream stopped taking the request.
    #[error("request not taken in time")]
    SendTimeout,
    /// No answer within the first byte timeout.
    #[error("no answer in time")]
    FirstByteTimeout,
    /// The upstream answered with something that is not HTTP as we accept it.
    #[error("bad response: {0}")]
    BadResponse(BadResponse),
    /// The request's own body failed: the client's side, not the upstream's.
    #[error("the request's body ended early")]
    RequestBody,
}

/// What is wrong with an upstream's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BadResponse {
    /// It could not be read as HTTP at all.
    #[error("not readable as HTTP")]
    Malformed,
    /// A line of its head ends in a bare line feed (RFC 9112 §2.2).
    #[error("a bare line feed in its head")]
    BareLineFeed,
    /// One interim answer (1xx) after the other, and none that is final.
    #[error("interim answers without end")]
    InterimWithoutEnd,
    /// Its head has too many or too long headers.
    #[error("its head is too large")]
    HeadTooLarge,
    /// Both `Transfer-Encoding` and `Content-Length` (RFC 9112 §6.3).
    #[error("both Transfer-Encoding and Content-Length")]
    TwoFramings,
    /// A `Transfer-Encoding` other than exactly `chunked`, or one in HTTP/1.0.
    #[error("a Transfer-Encoding other than \"chunked\"")]
    TransferEncoding,
    /// A `Content-Length` that is no number, or several that differ.
    #[error("an invalid Content-Length")]
    ContentLength,
    /// A 101 nobody asked for, or to a protocol nobody asked for.
    #[error("an unasked 101 Switching Protocols")]
    UnaskedSwitch,
}

impl SendError {
    pub(super) fn new(kind: SendErrorKind, delivered: bool) -> Self {
        SendError { kind, delivered, reused: false, source: None }
    }

    pub(super) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub(super) fn on_reused(mut self, reused: bool) -> Self {
        self.reused = reused;
        self
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        // The innermost cause says most; the layers between only repeat that something failed.
        let mut cause = self.source.as_deref().map(|error| error as &dyn Error);
        while let Some(inner) = cause.and_then(Error::source) {
            cause = Some(inner);
        }
        match cause {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

impl Error for SendError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|error| error as _)
    }
}

/// What an error while connecting means.
pub(super) fn connecting(error: &io::Error) -> SendErrorKind {
    use io::ErrorKind::*;
    match error.kind() {
        ConnectionRefused => SendErrorKind::Refused,
        TimedOut => SendErrorKind::ConnectTimeout,
        ConnectionReset | ConnectionAborted | BrokenPipe => SendErrorKind::Reset,
        AddrNotAvailable | AddrInUse | OutOfMemory | QuotaExceeded => SendErrorKind::NoSocket,
        _ if ours(error) => SendErrorKind::NoSocket,
        // A full listen queue of a Unix socket says "try again" and keeps nobody waiting.
        WouldBlock => SendErrorKind::Refused,
        _ => SendErrorKind::Unreachable,
    }
}

/// Whether the machine ran out of something: descriptors of the process or of the system, or buffers.
fn ours(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS];
    error.raw_os_error().is_some_and(|code| exhausted.iter().any(|errno| errno.raw_os_error() == code))
}

/// What an error on an open connection means.
pub(super) fn open(error: &io::Error) -> SendErrorKind {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => SendErrorKind::ClosedEarly,
        _ => SendErrorKind::Reset,
    }
}

/// The first error of the kind `T` in a chain of causes.
pub(super) fn cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_tells_what_happened_and_the_innermost_cause() {
        let refused = SendError::new(SendErrorKind::Refused, false);
        assert_eq!(refused.to_string(), "connection refused");
        let cause = io::Error::other("certificate expired");
        let failed = SendError::new(SendErrorKind::TlsFailed, false).because(cause);
        assert_eq!(failed.to_string(), "TLS handshake failed: certificate expired");
        assert_eq!(
            SendErrorKind::BadResponse(BadResponse::TwoFramings).to_string(),
            "bad response: both Transfer-Encoding and Content-Length"
        );
    }

    #[test]
    fn running_out_of_descriptors_is_not_the_upstreams_fault() {
        let error = io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        assert_eq!(connecting(&error), SendErrorKind::NoSocket);
        assert_eq!(connecting(&io::ErrorKind::ConnectionRefused.into()), SendErrorKind::Refused);
        assert_eq!(connecting(&io::ErrorKind::NotFound.into()), SendErrorKind::Unreachable);
    }
}
