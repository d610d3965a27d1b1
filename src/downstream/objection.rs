use std::fmt;

use http::StatusCode;

/// Why a request is refused here, before or instead of being handed on.
///
/// The text is for logs; what the client gets is made by [`Application::refuse`](super::Application::refuse).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Objection {
    /// The first line is no request line.
    NoRequest,
    /// A header line without a name, with a name that is no token, or with control bytes in its value.
    NoHeader,
    /// A line of the head ends in a bare line feed.
    BareLineFeed,
    /// A header continues on a further line (obs-fold).
    Folded,
    /// Several `Content-Length` lines, even if they agree.
    SeveralLengths,
    /// A `Content-Length` that is no number.
    BadLength,
    /// `Content-Length` together with `Transfer-Encoding`.
    LengthAndEncoding,
    /// Several `Transfer-Encoding` lines, one that is not exactly `chunked`, or one in HTTP/1.0.
    Encoding,
    /// The request target is longer than `max_uri`.
    UriTooLong,
    /// The head is longer than `max_header_size`.
    HeadTooLarge,
    /// More header lines than `max_headers`.
    TooManyHeaders,
    /// The head was not complete within `header_timeout`.
    HeaderTimeout,
    /// The application panicked before it had answered.
    Panicked,
}

impl Objection {
    /// All of them, in the order of their codes.
    const ALL: [Objection; 13] = [
        Objection::NoRequest,
        Objection::NoHeader,
        Objection::BareLineFeed,
        Objection::Folded,
        Objection::SeveralLengths,
        Objection::BadLength,
        Objection::LengthAndEncoding,
        Objection::Encoding,
        Objection::UriTooLong,
        Objection::HeadTooLarge,
        Objection::TooManyHeaders,
        Objection::HeaderTimeout,
        Objection::Panicked,
    ];

    /// The status that says it: 400, 408, 414, 431 or 500.
    pub fn status(self) -> StatusCode {
        match self {
            Objection::UriTooLong => StatusCode::URI_TOO_LONG,
            Objection::HeadTooLarge | Objection::TooManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Objection::HeaderTimeout => StatusCode::REQUEST_TIMEOUT,
            Objection::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    pub(super) fn code(self) -> u8 {
        self as u8
    }

    pub(super) fn from_code(code: u8) -> Option<Objection> {
        Objection::ALL.get(usize::from(code)).copied()
    }
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Objection::NoRequest => "a first line that is no request line",
            Objection::NoHeader => "a header line that is none",
            Objection::BareLineFeed => "a bare line feed in the request's head",
            Objection::Folded => "a folded header line",
            Objection::SeveralLengths => "several Content-Length lines",
            Objection::BadLength => "an invalid Content-Length",
            Objection::LengthAndEncoding => "Content-Length together with Transfer-Encoding",
            Objection::Encoding => "a Transfer-Encoding other than one `chunked` in HTTP/1.1",
            Objection::UriTooLong => "a request target longer than max_uri",
            Objection::HeadTooLarge => "a request head larger than max_header_size",
            Objection::TooManyHeaders => "more header lines than max_headers",
            Objection::HeaderTimeout => "the request's head took longer than header_timeout",
            Objection::Panicked => "a panic while the request was answered",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_survives_as_its_code() {
        for objection in Objection::ALL {
            assert_eq!(Objection::from_code(objection.code()), Some(objection));
        }
        assert_eq!(Objection::from_code(u8::MAX), None);
    }
}
