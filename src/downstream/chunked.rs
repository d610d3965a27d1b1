//! Follows a chunked body (RFC 9112 §7.1) as far as its end, without keeping any of it.
//!
//! Decides exactly as hyper's decoder does, byte by byte, so that both see the same end: a body that one of them takes for
//! finished and the other does not is a smuggled request. But for a bare line feed behind the last chunk: hyper takes it for a part of a
//! trailer and reads on, and whoever has sent it to us may mean that the body ends there. That is broken here, which hyper is then told.

/// Where in a chunked body the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunked {
    at: At,
    size: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Start,
    Size,
    Space,
    Extension,
    SizeFeed,
    Content,
    ContentReturn,
    ContentFeed,
    LineStart,
    Trailer,
    TrailerFeed,
    EndFeed,
}

/// What became of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Followed {
    /// All of them belong to the body, which goes on.
    More,
    /// The body ends behind so many of them.
    End(usize),
    /// The last of so many is not what can stand there.
    Broken(usize),
}

impl Chunked {
    /// At a body's first byte.
    pub(super) const fn new() -> Self {
        Chunked { at: At::Start, size: 0 }
    }

    /// Follows `bytes`, which begin where the last ones ended.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Followed {
        let mut index = 0;
        while let Some(&byte) = bytes.get(index) {
            if self.at == At::Content {
                let here = self.size.min((bytes.len() - index) as u64);
                self.size -= here;
                index += here as usize;
                if self.size == 0 {
                    self.at = At::ContentReturn;
                }
                continue;
            }
            index += 1;
            match self.step(byte) {
                Some(Some(at)) => self.at = at,
                Some(None) => return Followed::End(index),
                None => return Followed::Broken(index),
            }
        }
        Followed::More
    }

    /// The next place, `Some(None)` at the end, `None` for a byte that cannot stand here.
    fn step(&mut self, byte: u8) -> Option<Option<At>> {
        let next = match (self.at, byte) {
            (At::Start | At::Size, byte) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).map(u64::from)?;
                self.size = self.size.checked_mul(16)?.checked_add(digit)?;
                At::Size
            }
            (At::Size | At::Space, b' ' | b'\t') => At::Space,
            (At::Size | At::Space, b';') => At::Extension,
            (At::Size | At::Space | At::Extension, b'\r') => At::SizeFeed,
            (At::Extension, b'\n') => return None,
            (At::Extension, _) => At::Extension,
            (At::SizeFeed, b'\n') if self.size == 0 => At::LineStart,
            (At::SizeFeed, b'\n') => At::Content,
            (At::ContentReturn, b'\r') => At::ContentFeed,
            (At::ContentFeed, b'\n') => At::Start,
            (At::LineStart, b'\r') => At::EndFeed,
            (At::Trailer, b'\r') => At::TrailerFeed,
            (At::LineStart | At::Trailer, b'\n') => return None,
            (At::LineStart | At::Trailer, _) => At::Trailer,
            (At::TrailerFeed, b'\n') => At::LineStart,
            (At::EndFeed, b'\n') => return Some(None),
            _ => return None,
        };
        Some(Some(next))
    }
}

/// What must hold for any bytes: a body ends where hyper sees its end, wherever they are cut.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn law(bytes: &[u8]) {
    use crate::judge;
    let pieces = |sizes: &mut dyn Iterator<Item = usize>| {
        let (mut chunked, mut at) = (Chunked::new(), 0);
        for size in sizes {
            let piece = &bytes[at..(at + size).min(bytes.len())];
            match chunked.follow(piece) {
                Followed::More => at += piece.len(),
                Followed::End(length) => return Followed::End(at + length),
                Followed::Broken(length) => return Followed::Broken(at + length),
            }
        }
        Followed::More
    };
    let whole = Chunked::new().follow(bytes);
    assert!(!matches!(whole, Followed::End(length) | Followed::Broken(length) if length == 0 || length > bytes.len()));
    for cut in judge::cuts(bytes) {
        assert_eq!(pieces(&mut [cut, bytes.len()].into_iter()), whole, "cut at {cut}");
    }
    for size in [1, 2, 3] {
        assert_eq!(pieces(&mut std::iter::repeat_n(size, bytes.len())), whole, "in pieces of {size}");
    }
    let heard = |body: &[u8]| {
        let head = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
        let mut heard = judge::requests(&[head, body].concat());
        heard.requests.truncate(1);
        heard.requests.pop().and_then(|request| request.body)
    };
    match whole {
        Followed::More => assert_eq!(heard(bytes), None),
        // A bare line feed behind the last chunk is where we differ: see above.
        Followed::Broken(length) => assert!(bytes[length - 1] == b'\n' || heard(bytes).is_none()),
        Followed::End(length) => {
            assert_eq!(heard(&bytes[..length]), heard(bytes), "nothing behind it");
            assert_eq!(heard(&bytes[..length - 1]), None, "all of it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(text: &str) -> Followed {
        Chunked::new().follow(text.as_bytes())
    }

    #[test]
    fn a_body_ends_behind_its_trailers() {
        assert_eq!(follow("0\r\n\r\nGET"), Followed::End(5));
        assert_eq!(follow("3\r\nabc\r\n0\r\n\r\n"), Followed::End(13));
        assert_eq!(follow("A;x=y\r\n0123456789\r\n0 \r\nA: b\r\n\r\nGET"), Followed::End(31));
        assert_eq!(follow("3\r\nab"), Followed::More);
    }

    #[test]
    fn what_cannot_be_read_in_one_way_is_broken() {
        for text in [
            "\r\n",
            "x\r\n",
            "3\nabc",
            "3 3\r\n",
            "3;a\nb\r\n",
            "3\r\nabcd\r\n",
            "0\r\n\rX",
            "0\r\nA: b\rX",
            "FFFFFFFFFFFFFFFFF\r\n",
            "-1\r\n",
            " 3\r\n",
            "0\r\n\nGET / HTTP/1.1\r\n\r\n",
            "0\r\nA: b\n\r\nGET / HTTP/1.1\r\n\r\n",
        ] {
            assert!(matches!(follow(text), Followed::Broken(_)), "{text:?}");
        }
    }

    #[test]
    fn where_the_pieces_are_cut_does_not_matter() {
        let body = b"5;ext\r\nhello\r\n1\r\n!\r\n0\r\nX: y\r\n\r\nrest";
        let end = body.len() - 4;
        assert_eq!(Chunked::new().follow(body), Followed::End(end));
        law(body);
        law(&body[..end]);
    }
}
