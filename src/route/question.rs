//! What a request is, as far as routes may ask. Borrowed; cookies and query are only read where a condition asks for them.

use std::borrow::Cow;
use std::net::IpAddr;

use http::{HeaderMap, Method, header};

/// A request, as routes see it.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The listener it came in by: its index in the list given to [`Table::build`](super::Table::build).
    pub listener: u32,
    /// [`Host::name`](super::Host::name): lower case, no port. Empty where the request has none.
    pub host: &'a str,
    /// [`Path::matching`](super::Path::matching), or `*`.
    pub path: &'a str,
    /// The query without its `?`, as it came.
    pub query: Option<&'a str>,
    /// The method.
    pub method: &'a Method,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The client's address, once trusted proxies have been believed; none for a client behind a Unix socket.
    pub client: Option<IpAddr>,
}

/// The values of all cookies called `name`, in order. Names are compared byte for byte; quotes around a value are part of it.
pub fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let crumbs =
        headers.get_all(header::COOKIE).into_iter().flat_map(|line| line.as_bytes().split(|&byte| byte == b';'));
    crumbs.filter_map(move |crumb| {
        let crumb = crumb.trim_ascii();
        let value = crumb.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(value)
    })
}

/// The values of all query parameters called `name` (given decoded), in order.
pub fn parameters<'a>(query: Option<&'a str>, name: &'a str) -> impl Iterator<Item = Encoded<'a>> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs.filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Encoded(key).is(name.as_bytes()).then_some(Encoded(value))
    })
}

/// A piece of a query, still as it came: `%XX` and `+` stand for other bytes. A `%` without two digits stands for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoded<'a>(pub &'a str);

impl<'a> Encoded<'a> {
    /// The bytes it stands for.
    fn bytes(self) -> impl Iterator<Item = u8> + 'a {
        let mut rest = self.0.as_bytes();
        std::iter::from_fn(move || {
            let (&first, tail) = rest.split_first()?;
            rest = tail;
            match (first, tail) {
                (b'+', _) => Some(b' '),
                (b'%', [high, low, after @ ..]) => {
                    let digit = |byte: u8| (byte as char).to_digit(16);
                    let Some((high, low)) = digit(*high).zip(digit(*low)) else { return Some(b'%') };
                    rest = after;
                    Some((high << 4 | low) as u8)
                }
                _ => Some(first),
            }
        })
    }

    /// Whether it stands for exactly these bytes.
    pub fn is(self, decoded: &[u8]) -> bool {
        // Decoding never makes longer, and at most three times shorter.
        let length = self.0.len();
        (decoded.len()..=decoded.len() * 3).contains(&length) && self.bytes().eq(decoded.iter().copied())
    }

    /// Whether what it stands for starts with these bytes.
    pub fn starts_with(self, decoded: &[u8]) -> bool {
        let mut bytes = self.bytes();
        decoded.iter().all(|&byte| bytes.next() == Some(byte))
    }

    /// What it stands for; copied only where that is something else.
    pub fn decoded(self) -> Cow<'a, [u8]> {
        match self.0.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
            true => Cow::Owned(self.bytes().collect()),
            false => Cow::Borrowed(self.0.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_found_in_all_lines() {
        let mut headers = HeaderMap::new();
        headers.append("cookie", "a=1; bb=2;a=3".parse().unwrap());
        headers.append("cookie", "  a=\"4=5\" ; ; a ; A=6".parse().unwrap());
        let found: Vec<_> = cookies(&headers, "a").collect();
        assert_eq!(found, [&b"1"[..], b"3", b"\"4=5\""]);
        assert_eq!(cookies(&headers, "b").count(), 0);
    }

    #[test]
    fn parameters_are_compared_decoded() {
        let values = |query, name| parameters(Some(query), name).map(|v| v.decoded().into_owned()).collect::<Vec<_>>();
        assert_eq!(values("a=1&b=2&a=3", "a"), [b"1", b"3"]);
        assert_eq!(values("a%62=x+y%21", "ab"), [b"x y!"]);
        assert_eq!(values("a&&=b", "a"), [b""]);
        assert_eq!(values("a=%zz%4", "a"), [b"%zz%4"]);
        assert_eq!(parameters(None, "a").count(), 0);
        assert!(Encoded("%61+c").starts_with(b"a "));
        assert!(!Encoded("a").starts_with(b"ab"));
    }
}
