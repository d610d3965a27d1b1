//! What an upstream's answer must be like before anybody else sees it.

use http::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING, UPGRADE};
use http::response::Parts;
use http::{HeaderValue, StatusCode, Version};

use super::error::BadResponse;
use super::http1::Length;

/// What an answer's head makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A 1xx: the answer is still to come.
    Interim,
    /// The 101 that was asked for.
    Switch,
    /// The answer, with how its body is framed, if it has one.
    Final(Length),
}

/// Checks an answer's head and takes out what was only about its framing on the upstream's connection.
///
/// The parser has refused before: obs-fold, spaces in names, control characters, versions other than 1.0 and 1.1, more than 100
/// headers. It lets through what follows here.
///
/// **Source**: RFC 9112 §6.1–6.3, RFC 9110 §8.6 and §15.2.
pub(super) fn check(head: &mut Parts, asked: Option<&HeaderMap>) -> Result<Kind, BadResponse> {
    if head.status.is_informational() {
        return interim(head, asked);
    }
    if head.headers.contains_key(TRANSFER_ENCODING) {
        check_transfer_encoding(head)?;
        head.headers.remove(TRANSFER_ENCODING);
        return Ok(Kind::Final(Length::Chunked));
    }
    if !head.headers.contains_key(CONTENT_LENGTH) {
        return Ok(Kind::Final(Length::UntilClose));
    }
    let length = settle_content_length(head)?;
    if head.status == StatusCode::NO_CONTENT {
        head.headers.remove(CONTENT_LENGTH);
    }
    Ok(Kind::Final(Length::Known(length)))
}

/// A 1xx has no body, whatever it says of one. HTTP/2 has no 101, and the layer below keeps the others to itself.
fn interim(head: &mut Parts, asked: Option<&HeaderMap>) -> Result<Kind, BadResponse> {
    if head.status != StatusCode::SWITCHING_PROTOCOLS && head.version != Version::HTTP_2 {
        return Ok(Kind::Interim);
    }
    head.headers.remove(TRANSFER_ENCODING);
    head.headers.remove(CONTENT_LENGTH);
    if head.version != Version::HTTP_2 && asked.is_some_and(|asked| agrees(asked, &head.headers)) {
        Ok(Kind::Switch)
    } else {
        Err(BadResponse::UnaskedSwitch)
    }
}

fn check_transfer_encoding(head: &Parts) -> Result<(), BadResponse> {
    if head.headers.contains_key(CONTENT_LENGTH) {
        return Err(BadResponse::TwoFramings);
    }
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let chunked = codings.next().is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if head.version != Version::HTTP_11 || !chunked || codings.next().is_some() {
        return Err(BadResponse::TransferEncoding);
    }
    Ok(())
}

/// Makes one number of it, or of several that agree.
fn settle_content_length(head: &mut Parts) -> Result<u64, BadResponse> {
    let mut values = head.headers.get_all(CONTENT_LENGTH).iter();
    let first = values.next().map_or(&b""[..], HeaderValue::as_bytes);
    if values.next().is_none()
        && let Some(length) = number(first)
    {
        return Ok(length);
    }
    let all = head.headers.get_all(CONTENT_LENGTH).iter();
    let mut lengths =
        all.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(|text| number(text.trim_ascii()));
    let length = lengths.next().flatten().ok_or(BadResponse::ContentLength)?;
    if lengths.any(|other| other != Some(length)) {
        return Err(BadResponse::ContentLength);
    }
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    Ok(length)
}

/// Digits alone, and not so many that a sum with it could overflow.
fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.len() < 20 && text.iter().all(u8::is_ascii_digit);
    digits.then(|| text.iter().fold(0, |number: u64, digit| number * 10 + u64::from(digit - b'0')))
}

/// Whether every protocol switched to is one that was offered.
fn agrees(asked: &HeaderMap, given: &HeaderMap) -> bool {
    let tokens = |headers: &HeaderMap| -> Vec<Vec<u8>> {
        let values = headers.get_all(UPGRADE).iter();
        let tokens = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        tokens.map(|token| token.trim_ascii().to_ascii_lowercase()).filter(|token| !token.is_empty()).collect()
    };
    let (asked, given) = (tokens(asked), tokens(given));
    !given.is_empty() && given.iter().all(|token| asked.contains(token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Response;

    fn head(status: u16, headers: &[(&'static str, &'static str)]) -> Parts {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        response.body(()).unwrap().into_parts().0
    }

    #[test]
    fn an_answer_has_one_framing_and_it_is_not_passed_on() {
        use BadResponse::*;
        type Headers<'a> = &'a [(&'static str, &'static str)];
        let (chunked, five) = (Ok(Kind::Final(Length::Chunked)), Ok(Kind::Final(Length::Known(5))));
        let cases: [(Headers<'_>, Result<Kind, BadResponse>); 12] = [
            (&[], Ok(Kind::Final(Length::UntilClose))),
            (&[("transfer-encoding", "chunked")], chunked),
            (&[("transfer-encoding", "Chunked")], chunked),
            (&[("transfer-encoding", "chunked"), ("content-length", "5")], Err(TwoFramings)),
            (&[("transfer-encoding", "gzip, chunked")], Err(TransferEncoding)),
            (&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], Err(TransferEncoding)),
            (&[("transfer-encoding", "identity")], Err(TransferEncoding)),
            (&[("content-length", "5"), ("content-length", "5")], five),
            (&[("content-length", "5, 5")], five),
            (&[("content-length", "5"), ("content-length", "6")], Err(ContentLength)),
            (&[("content-length", "+5")], Err(ContentLength)),
            (&[("content-length", "")], Err(ContentLength)),
        ];
        for (headers, expected) in cases {
            let mut head = head(200, headers);
            assert_eq!(check(&mut head, None), expected, "{headers:?}");
            if expected.is_ok() {
                assert!(!head.headers.contains_key(TRANSFER_ENCODING));
                let lengths: Vec<_> = head.headers.get_all(CONTENT_LENGTH).iter().collect();
                assert!(lengths.is_empty() || lengths == ["5"], "{lengths:?}");
            }
        }
    }

    #[test]
    fn only_an_asked_switch_is_one() {
        let websocket = HeaderMap::from_iter([(UPGRADE, HeaderValue::from_static("websocket"))]);
        assert_eq!(check(&mut head(101, &[("upgrade", "WebSocket")]), Some(&websocket)), Ok(Kind::Switch));
        let unasked = Err(BadResponse::UnaskedSwitch);
        assert_eq!(check(&mut head(101, &[("upgrade", "h2c")]), Some(&websocket)), unasked);
        assert_eq!(check(&mut head(101, &[]), Some(&websocket)), unasked);
        assert_eq!(check(&mut head(101, &[("upgrade", "websocket")]), None), unasked);
        assert_eq!(check(&mut head(103, &[("content-length", "5, 6")]), None), Ok(Kind::Interim));
    }

    #[test]
    fn a_204_has_no_length_and_a_304_may() {
        let mut none = head(204, &[("content-length", "5")]);
        check(&mut none, None).unwrap();
        assert!(!none.headers.contains_key(CONTENT_LENGTH));
        let mut unchanged = head(304, &[("content-length", "5")]);
        check(&mut unchanged, None).unwrap();
        assert_eq!(unchanged.headers[CONTENT_LENGTH], "5");
    }
}
