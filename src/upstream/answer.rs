//! What an upstream's answer must be like before anybody else sees it.

use http::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING, UPGRADE};
use http::response::Parts;
use http::{HeaderValue, StatusCode, Version};

use super::error::BadResponse;

/// Checks an answer's head and takes out what was only about its framing on the upstream's connection.
///
/// hyper has refused before: obs-fold, spaces in names, control characters, versions other than 1.0 and 1.1, more than 100
/// headers. It lets through what follows here.
///
/// **Source**: RFC 9112 §6.1–6.3, RFC 9110 §8.6 and §15.2.2.
pub(super) fn check(head: &mut Parts, asked: Option<&HeaderMap>) -> Result<(), BadResponse> {
    if head.headers.contains_key(TRANSFER_ENCODING) {
        check_transfer_encoding(head)?;
        head.headers.remove(TRANSFER_ENCODING);
    } else if head.headers.contains_key(CONTENT_LENGTH) {
        settle_content_length(head)?;
        if head.status == StatusCode::NO_CONTENT || head.status.is_informational() {
            head.headers.remove(CONTENT_LENGTH);
        }
    }
    if head.status.is_informational() {
        let switches = head.status == StatusCode::SWITCHING_PROTOCOLS && head.version != Version::HTTP_2;
        if !switches || !asked.is_some_and(|asked| agrees(asked, &head.headers)) {
            return Err(BadResponse::UnaskedSwitch);
        }
    }
    Ok(())
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
fn settle_content_length(head: &mut Parts) -> Result<(), BadResponse> {
    let mut values = head.headers.get_all(CONTENT_LENGTH).iter();
    let first = values.next().map_or(&b""[..], HeaderValue::as_bytes);
    if values.next().is_none() && is_number(first) {
        return Ok(());
    }
    let mut numbers = head
        .headers
        .get_all(CONTENT_LENGTH)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii);
    let number = numbers.next().filter(|number| is_number(number)).ok_or(BadResponse::ContentLength)?;
    if numbers.any(|other| other != number) {
        return Err(BadResponse::ContentLength);
    }
    let number = HeaderValue::from_bytes(number).map_err(|_| BadResponse::ContentLength)?;
    head.headers.insert(CONTENT_LENGTH, number);
    Ok(())
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.len() < 20 && text.iter().all(u8::is_ascii_digit)
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
        let cases: [(Headers<'_>, Result<(), BadResponse>); 11] = [
            (&[("transfer-encoding", "chunked")], Ok(())),
            (&[("transfer-encoding", "Chunked")], Ok(())),
            (&[("transfer-encoding", "chunked"), ("content-length", "5")], Err(TwoFramings)),
            (&[("transfer-encoding", "gzip, chunked")], Err(TransferEncoding)),
            (&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], Err(TransferEncoding)),
            (&[("transfer-encoding", "identity")], Err(TransferEncoding)),
            (&[("content-length", "5"), ("content-length", "5")], Ok(())),
            (&[("content-length", "5, 5")], Ok(())),
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
        assert_eq!(check(&mut head(101, &[("upgrade", "WebSocket")]), Some(&websocket)), Ok(()));
        let unasked = Err(BadResponse::UnaskedSwitch);
        assert_eq!(check(&mut head(101, &[("upgrade", "h2c")]), Some(&websocket)), unasked);
        assert_eq!(check(&mut head(101, &[]), Some(&websocket)), unasked);
        assert_eq!(check(&mut head(101, &[("upgrade", "websocket")]), None), unasked);
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
