//! Where an answer's body ends, and what of the bytes read belongs to it (RFC 9112 §6 and §7). Pure: bytes in, pieces out.

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

#[cfg(any(test, feature = "fuzzing"))]
use crate::judge::{self, Content, fields};

/// How long an answer's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::upstream) enum Length {
    /// So many bytes.
    Known(u64),
    /// In chunks, each with its own length.
    Chunked,
    /// As far as the connection goes.
    UntilClose,
}

/// The body is not framed as its head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid chunked framing")]
pub(super) struct Malformed;

/// A piece of a body.
#[derive(Debug)]
pub(in crate::upstream) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// Reads one body. It takes what belongs to the body from the front of what was read, and nothing behind it.
#[derive(Debug)]
pub(super) enum Decoder {
    Known(u64),
    UntilClose,
    Chunked(Chunked),
}

/// Extensions of all chunks of a body, in bytes: nobody uses them, and they could go on for ever (CVE-2023-39326).
const MOST_EXTENSIONS: u32 = 16 << 10;
/// A body's trailers, in bytes.
const MOST_TRAILERS: usize = 16 << 10;

#[derive(Debug)]
pub(super) struct Chunked {
    state: State,
    /// Of the present chunk; while its size is read, the size so far.
    left: u64,
    extensions: u32,
    /// Lines of trailers as they came.
    trailers: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The first digit of a size.
    Start,
    Size,
    /// Blanks behind the size, which some senders pad it with.
    Blank,
    Extension,
    SizeFeed,
    Data,
    DataReturn,
    DataFeed,
    /// The first byte of a line behind the last chunk.
    Line,
    Trailer,
    TrailerFeed,
    LastFeed,
    /// Trailers have been read and not given out.
    Trailers,
    Done,
}

impl Decoder {
    pub(super) fn new(length: Length) -> Self {
        match length {
            Length::Known(left) => Decoder::Known(left),
            Length::UntilClose => Decoder::UntilClose,
            Length::Chunked => {
                Decoder::Chunked(Chunked { state: State::Start, left: 0, extensions: 0, trailers: Vec::new() })
            }
        }
    }

    /// For the body of an answer to a request of this method. Some have none, whatever they say of it (RFC 9112 §6.3).
    pub(super) fn answering(method: &Method, status: StatusCode, length: Length) -> Self {
        let bodiless = *method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if bodiless { Decoder::Known(0) } else { Decoder::new(length) }
    }

    /// Whether all of the body has been given out.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Decoder::Known(left) => *left == 0,
            Decoder::UntilClose => false,
            Decoder::Chunked(chunked) => chunked.state == State::Done,
        }
    }

    /// What is still to come, where that is known.
    pub(super) fn left(&self) -> Option<u64> {
        match self {
            Decoder::Known(left) => Some(*left),
            _ => self.is_done().then_some(0),
        }
    }

    /// Whether the connection's end is the body's, here.
    pub(super) fn may_end(&self) -> bool {
        matches!(self, Decoder::UntilClose)
    }

    /// The next piece; nothing where more must be read first, or where all has been given out.
    ///
    /// Framing behind a piece is taken with it, so that [`is_done`](Self::is_done) is true as soon as the last byte is there.
    pub(super) fn next(&mut self, input: &mut Bytes) -> Result<Option<Piece>, Malformed> {
        let piece = match self {
            Decoder::UntilClose => input.split_off(0),
            Decoder::Known(left) => {
                let here = (input.len() as u64).min(*left);
                *left -= here;
                input.split_to(here as usize)
            }
            Decoder::Chunked(chunked) => return chunked.next(input),
        };
        Ok((!piece.is_empty()).then_some(Piece::Data(piece)))
    }
}

impl Chunked {
    fn next(&mut self, input: &mut Bytes) -> Result<Option<Piece>, Malformed> {
        self.take_framing(input)?;
        match self.state {
            State::Data if !input.is_empty() => {
                let here = (input.len() as u64).min(self.left);
                self.left -= here;
                let piece = input.split_to(here as usize);
                if self.left == 0 {
                    self.state = State::DataReturn;
                    self.take_framing(input)?;
                }
                Ok(Some(Piece::Data(piece)))
            }
            State::Trailers => {
                self.state = State::Done;
                Ok(Some(Piece::Trailers(trailers(std::mem::take(&mut self.trailers))?)))
            }
            _ => Ok(None),
        }
    }

    /// Takes everything from the front of `input` that is framing.
    fn take_framing(&mut self, input: &mut Bytes) -> Result<(), Malformed> {
        let mut taken = 0;
        for byte in input.iter() {
            if matches!(self.state, State::Data | State::Trailers | State::Done) {
                break;
            }
            self.state = self.step(*byte)?;
            taken += 1;
        }
        input.advance(taken);
        Ok(())
    }

    fn step(&mut self, byte: u8) -> Result<State, Malformed> {
        Ok(match (self.state, byte) {
            (State::Start | State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                // Sixteen digits are the most that fit; the first four bits must be free for one more.
                if self.left >> 60 != 0 {
                    return Err(Malformed);
                }
                self.left = self.left << 4 | digit;
                State::Size
            }
            (State::Size | State::Blank, b' ' | b'\t') => {
                self.count_extension()?;
                State::Blank
            }
            (State::Size | State::Blank, b';') => State::Extension,
            (State::Size | State::Blank | State::Extension, b'\r') => State::SizeFeed,
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.count_extension()?;
                State::Extension
            }
            (State::SizeFeed, b'\n') if self.left == 0 => State::Line,
            (State::SizeFeed, b'\n') => State::Data,
            (State::DataReturn, b'\r') => State::DataFeed,
            (State::DataFeed, b'\n') => State::Start,
            (State::Line, b'\r') => State::LastFeed,
            (State::LastFeed, b'\n') if self.trailers.is_empty() => State::Done,
            (State::LastFeed, b'\n') => State::Trailers,
            (State::Line | State::Trailer, byte) if byte != b'\n' => {
                if self.trailers.len() >= MOST_TRAILERS {
                    return Err(Malformed);
                }
                self.trailers.push(byte);
                if byte == b'\r' { State::TrailerFeed } else { State::Trailer }
            }
            (State::TrailerFeed, b'\n') => {
                self.trailers.push(byte);
                State::Line
            }
            _ => return Err(Malformed),
        })
    }

    fn count_extension(&mut self) -> Result<(), Malformed> {
        self.extensions += 1;
        if self.extensions > MOST_EXTENSIONS { Err(Malformed) } else { Ok(()) }
    }
}

fn trailers(mut lines: Vec<u8>) -> Result<HeaderMap, Malformed> {
    lines.extend_from_slice(b"\r\n");
    let mut space = [httparse::EMPTY_HEADER; 64];
    let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(&lines, &mut space) else {
        return Err(Malformed);
    };
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed)?;
        trailers.append(name, HeaderValue::from_bytes(field.value).map_err(|_| Malformed)?);
    }
    Ok(trailers)
}

/// Reads on with a decoder in pieces of `size`: what comes out, and what is left over.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn read(mut decoder: Decoder, text: &[u8], size: usize) -> Result<(Content, Vec<u8>), Malformed> {
    let (mut content, mut rest) = (Content::default(), Vec::new());
    for piece in text.chunks(size.max(1)) {
        let mut input = Bytes::copy_from_slice(piece);
        while let Some(piece) = decoder.next(&mut input)? {
            match piece {
                Piece::Data(piece) => content.data.extend_from_slice(&piece),
                Piece::Trailers(trailers) => content.trailers = fields(&trailers),
            }
        }
        rest.extend_from_slice(&input);
    }
    content.whole = decoder.is_done();
    Ok((content, rest))
}

/// What must hold for any bytes, however a body of them is framed: where they are cut makes no difference, nothing comes out that has not
/// come in, and of a chunked body nothing is taken for its end that hyper's client does not take for it.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn law(bytes: &[u8]) {
    let all = bytes.len();
    let lengths = [0, all / 2, all, all + 1].map(|length| Length::Known(length as u64));
    for length in lengths.into_iter().chain([Length::UntilClose, Length::Chunked]) {
        let whole = read(Decoder::new(length), bytes, all);
        for size in [1, 2, 3, 7].into_iter().chain(judge::cuts(bytes)) {
            assert_eq!(read(Decoder::new(length), bytes, size), whole, "{length:?} in pieces of {size}");
        }
        let Ok((content, rest)) = whole else { continue };
        match length {
            Length::Chunked => {
                assert!(content.data.len() + rest.len() <= all);
                let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                let hypers = judge::answer(&Method::GET, &[head, bytes].concat()).map(|answer| answer.body);
                if content.whole {
                    assert!(bytes.ends_with(&rest));
                    assert_eq!(hypers, Some(content));
                } else {
                    assert_eq!(hypers.map(|body| body.whole), Some(false));
                }
            }
            _ => assert_eq!([content.data, rest].concat(), bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_ends_where_it_says_and_takes_nothing_behind_it() {
        type Case<'a> = (Length, &'a str, &'a str, usize, bool, &'a str);
        let cases: [Case<'_>; 9] = [
            (Length::Known(5), "helloHTTP", "hello", 0, true, "HTTP"),
            (Length::Known(5), "hell", "hell", 0, false, ""),
            (Length::Known(0), "x", "", 0, true, "x"),
            (Length::UntilClose, "anything", "anything", 0, false, ""),
            (Length::Chunked, "2\r\nok\r\n0\r\n\r\nHTTP", "ok", 0, true, "HTTP"),
            (Length::Chunked, "2 ;a=\"b\"\r\nok\r\n00\r\nA: b\r\nC: d\r\n\r\nx", "ok", 2, true, "x"),
            (Length::Chunked, "A\t\r\n0123456789\r\n1;\r\n!\r\n0\r\n\r\n", "0123456789!", 0, true, ""),
            (Length::Chunked, "2\r\nok\r\n0\r\n", "ok", 0, false, ""),
            (Length::Chunked, "0\r\n\r\n\r\n", "", 0, true, "\r\n"),
        ];
        for (length, text, data, fields, done, rest) in cases {
            for size in 1..=text.len() {
                let (content, over) = read(Decoder::new(length), text.as_bytes(), size).unwrap();
                let seen = (content.data.as_slice(), content.trailers.len(), content.whole, over.as_slice());
                let expected = (data.as_bytes(), fields, done, rest.as_bytes());
                assert_eq!(seen, expected, "{text:?} in pieces of {size}");
            }
            law(text.as_bytes());
        }
    }

    #[test]
    fn doubtful_chunks_are_refused() {
        let long = format!("2;{}\r\nok\r\n0\r\n\r\n", "x".repeat(17 << 10));
        let many = format!("0\r\nA: {}\r\n\r\n", "x".repeat(17 << 10));
        for text in [
            "\r\n",
            "g\r\n",
            " 2\r\nok",
            "+2\r\nok",
            "0x2\r\nok",
            "2\nok",
            "2\r\r\nok",
            "2\r\nok\n0",
            "2\r\nokay\r\n",
            "2;a\nb\r\nok",
            "2;a\rb\r\nok",
            "2;\0\r\nok",
            "10000000000000000\r\nx",
            "0\r\nA: b\n\r\n",
            "0\r\nA : b\r\n\r\n",
            "0\r\n: b\r\n\r\n",
            "0\r\n\n",
            "2 2\r\nok",
            "0\r\nA: b\r\n c\r\n\r\n",
            &long,
            &many,
        ] {
            for size in [1, 2, 3, text.len()] {
                assert_eq!(
                    read(Decoder::new(Length::Chunked), text.as_bytes(), size),
                    Err(Malformed),
                    "{text:?} in pieces of {size}"
                );
            }
        }
    }
}
