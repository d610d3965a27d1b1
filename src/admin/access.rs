use std::net::IpAddr;

use arc_swap::ArcSwapOption;
use http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use http::{HeaderMap, Method};

/// Browsers say here how a request came about; other clients do not send it.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Who may use the API. Lives as long as its listener; the token can change with a reload.
///
/// With a token, every request must carry it (but for `/healthz` and `/readyz`, which tell nothing). Without one, only
/// loopback and Unix sockets are listened on, and then web pages are what is left to fear: a page that rebinds its name to
/// 127.0.0.1 is refused by its `Host`, a page that posts across origins by its `Origin`. There are no cookies to steal.
#[derive(Debug)]
pub struct Access {
    token: ArcSwapOption<Token>,
    /// Whether web browsers can reach the listener at all.
    over_tcp: bool,
}

/// Why a request is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denial {
    NoToken,
    WrongToken,
    ForeignHost,
    ForeignOrigin,
}

impl Access {
    /// For a listener on TCP or on a Unix socket.
    pub(super) fn new(token: Option<&str>, over_tcp: bool) -> Self {
        let access = Access { token: ArcSwapOption::empty(), over_tcp };
        access.set_token(token);
        access
    }

    /// What callers must send from now on.
    pub fn set_token(&self, token: Option<&str>) {
        self.token.store(token.map(|token| Token::new(token).into()));
    }

    pub(super) fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), Denial> {
        match &*self.token.load() {
            Some(token) => token.check(headers)?,
            None if self.over_tcp && !is_local(headers) => return Err(Denial::ForeignHost),
            None => {}
        }
        let changes = !matches!(*method, Method::GET | Method::HEAD);
        if changes && is_foreign_origin(headers) {
            return Err(Denial::ForeignOrigin);
        }
        Ok(())
    }
}

/// A bearer token, kept as its digest.
#[derive(Debug)]
pub struct Token(ring::digest::Digest);

impl Token {
    fn new(token: &str) -> Self {
        Token(ring::digest::digest(&ring::digest::SHA256, token.as_bytes()))
    }

    /// Takes the same time for every wrong token: digests are compared, and all of their bytes.
    fn matches(&self, other: &Token) -> bool {
        let pairs = self.0.as_ref().iter().zip(other.0.as_ref());
        pairs.fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), Denial> {
        let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or(Denial::NoToken)?;
        let (scheme, token) = value.split_once(' ').ok_or(Denial::NoToken)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Denial::NoToken);
        }
        if self.matches(&Token::new(token.trim())) { Ok(()) } else { Err(Denial::WrongToken) }
    }
}

/// Whether the request was made to this machine by a name that only it can give itself.
fn is_local(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Ok(authority) = host.to_str().unwrap_or_default().parse::<http::uri::Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    match name.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        // Resolvers and browsers keep this name for the machine itself (RFC 6761 §6.3).
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    }
}

fn is_foreign_origin(headers: &HeaderMap) -> bool {
    let told = headers.get(SEC_FETCH_SITE).map(|site| site.as_bytes());
    if told.is_some_and(|site| site != b"same-origin" && site != b"none") {
        return true;
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let own = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    own.is_none_or(|authority| !authority.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn without_a_token_only_this_machine_s_own_names_are_served() {
        let access = Access::new(None, true);
        let asked = |host| access.check(&Method::GET, &headers(&[("host", host)]));
        for host in ["127.0.0.1:9900", "127.9.9.9", "[::1]:9900", "localhost:9900", "LOCALHOST"] {
            assert_eq!(asked(host), Ok(()), "{host}");
        }
        for host in
            ["evil.example:9900", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "", "@localhost@x"]
        {
            assert_eq!(asked(host), Err(Denial::ForeignHost), "{host}");
        }
        assert_eq!(access.check(&Method::GET, &HeaderMap::new()), Err(Denial::ForeignHost));
        let twice = headers(&[("host", "localhost")]).into_iter().chain(headers(&[("host", "localhost")]));
        let mut both = HeaderMap::new();
        twice.for_each(|(name, value)| _ = both.append(name.unwrap(), value));
        assert_eq!(access.check(&Method::GET, &both), Err(Denial::ForeignHost));
    }

    #[test]
    fn a_unix_socket_has_no_host_to_check() {
        assert_eq!(Access::new(None, false).check(&Method::POST, &HeaderMap::new()), Ok(()));
    }

    #[test]
    fn pages_of_other_origins_change_nothing() {
        let access = Access::new(None, true);
        let post = |lines: &[(&str, &str)]| {
            let mut all = vec![("host", "127.0.0.1:9900")];
            all.extend(lines);
            access.check(&Method::POST, &headers(&all))
        };
        assert_eq!(post(&[]), Ok(()));
        assert_eq!(post(&[("origin", "http://127.0.0.1:9900")]), Ok(()));
        assert_eq!(post(&[("sec-fetch-site", "same-origin")]), Ok(()));
        for origin in ["http://evil.example", "http://127.0.0.1:8080", "null"] {
            assert_eq!(post(&[("origin", origin)]), Err(Denial::ForeignOrigin), "{origin}");
        }
        assert_eq!(post(&[("sec-fetch-site", "cross-site")]), Err(Denial::ForeignOrigin));
        assert_eq!(post(&[("sec-fetch-site", "same-site")]), Err(Denial::ForeignOrigin));
    }

    #[test]
    fn with_a_token_every_request_must_carry_it() {
        let access = Access::new(Some("a token of length"), true);
        let asked =
            |value| access.check(&Method::GET, &headers(&[("host", "proxy.internal"), ("authorization", value)]));
        assert_eq!(asked("Bearer a token of length"), Ok(()));
        assert_eq!(asked("bearer a token of length"), Ok(()));
        assert_eq!(asked("Bearer another"), Err(Denial::WrongToken));
        assert_eq!(asked("Basic YTpi"), Err(Denial::NoToken));
        assert_eq!(access.check(&Method::GET, &headers(&[("host", "127.0.0.1")])), Err(Denial::NoToken));
        access.set_token(Some("the next token, longer"));
        assert_eq!(asked("Bearer a token of length"), Err(Denial::WrongToken));
    }
}
