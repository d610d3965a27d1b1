use std::error::Error;
use std::io;

use serde::Serialize;

/// What kept a request from being answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// No connection could be made.
    Connect,
    /// There was a connection, and no agreement on TLS or the protocol.
    Tls,
    /// No answer, or not all of it, in time.
    Timeout,
    /// Due, and not even sent in time: every connection was waiting for an answer.
    Unsent,
    /// The connection or the stream was reset.
    Reset,
    /// The connection was closed before the end of the answer.
    Closed,
    /// What came is not HTTP.
    Malformed,
    /// Anything else.
    Other,
}

impl Kind {
    pub(super) const ALL: [Kind; 8] = [
        Kind::Connect,
        Kind::Tls,
        Kind::Timeout,
        Kind::Unsent,
        Kind::Reset,
        Kind::Closed,
        Kind::Malformed,
        Kind::Other,
    ];

    pub(super) fn word(self) -> &'static str {
        match self {
            Kind::Connect => "connect",
            Kind::Tls => "tls",
            Kind::Timeout => "timeout",
            Kind::Unsent => "unsent",
            Kind::Reset => "reset",
            Kind::Closed => "closed",
            Kind::Malformed => "malformed",
            Kind::Other => "other",
        }
    }
}

/// Why a request was not answered, with what the layers below said.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    pub(super) cause: String,
}

impl Fault {
    pub(super) fn new(kind: Kind, cause: impl ToString) -> Fault {
        Fault { kind, cause: cause.to_string() }
    }

    /// What an error of hyper's on an open connection means.
    pub(super) fn of(error: &hyper::Error) -> Fault {
        let kind = match cause::<h2::Error>(error) {
            Some(error) if error.is_io() => error.get_io().map_or(Kind::Reset, broken),
            Some(error) if error.is_remote() && error.is_reset() => Kind::Reset,
            Some(error) if error.is_remote() => Kind::Closed,
            // Ours: the other side broke the rules of HTTP/2.
            Some(_) => Kind::Malformed,
            None if error.is_parse() => Kind::Malformed,
            None if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => Kind::Closed,
            None => cause::<io::Error>(error).map_or(Kind::Other, broken),
        };
        Fault::new(kind, innermost(error))
    }
}

fn broken(error: &io::Error) -> Kind {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Kind::Closed,
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Kind::Malformed,
        _ => Kind::Reset,
    }
}

/// The innermost cause says most; the layers between only repeat that something failed.
fn innermost(error: &(dyn Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| (*error).source()).last().unwrap_or(error).to_string()
}

fn cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    std::iter::successors(Some(error), |error| (*error).source()).find_map(|error| error.downcast_ref())
}
