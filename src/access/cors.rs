use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderName, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method};

use super::Origins;

/// A bundle of settings with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CorsPreset {
    /// What browser clients of MCP servers need.
    Mcp,
}

impl CorsPreset {
    /// Its word.
    pub const WORDS: [(&'static str, CorsPreset); 1] = [("mcp", CorsPreset::Mcp)];

    /// Methods that are allowed.
    pub fn methods(self) -> &'static [&'static str] {
        &["GET", "POST", "DELETE", "OPTIONS"]
    }

    /// Request headers that are allowed.
    pub fn headers(self) -> &'static [&'static str] {
        &[
            "Mcp-Protocol-Version",
            "Mcp-Session-Id",
            "Mcp-Method",
            "Mcp-Name",
            "Mcp-Param-*",
            "Last-Event-ID",
            "Authorization",
            "Content-Type",
            "Accept",
        ]
    }

    /// Answer headers that pages may read.
    pub fn expose(self) -> &'static [&'static str] {
        &["Mcp-Session-Id", "WWW-Authenticate", "Mcp-Protocol-Version"]
    }

    /// How long browsers remember a preflight.
    pub fn max_age(self) -> Duration {
        Duration::from_secs(86400)
    }
}

/// A header's name, or with `*` at its end the beginning of names.
///
/// **Text**: `Content-Type`, `Mcp-Param-*`, `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamePattern {
    /// This name, as it was written.
    Exact(String),
    /// Names that begin with this, in lower case.
    Prefix(String),
}

impl FromStr for NamePattern {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let (name, prefix) = text.strip_suffix('*').map_or((text, false), |name| (name, true));
        if !(prefix && name.is_empty()) && name.parse::<HeaderName>().is_err() {
            return Err(
                "expected a header name such as \"X-Api-Key\", or the beginning of names such as \"Mcp-Param-*\"",
            );
        }
        Ok(if prefix { NamePattern::Prefix(name.to_ascii_lowercase()) } else { NamePattern::Exact(name.to_owned()) })
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NamePattern::Exact(name) => f.write_str(name),
            NamePattern::Prefix(name) => write!(f, "{name}*"),
        }
    }
}

/// What browsers are told about who may read a route's answers.
///
/// **Source**: the Fetch standard, §3.3 (CORS protocol).
#[derive(Debug)]
pub struct Cors {
    origins: Origins,
    /// Every page may read, and nothing depends on who asks.
    anybody: bool,
    credentials: bool,
    methods: HeaderValue,
    headers: HeaderValue,
    prefixes: Vec<String>,
    expose: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
}

/// The headers that are ours alone to set.
const OURS: [HeaderName; 6] = [
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];

impl Cors {
    /// For the pages of `origins`; names have been checked.
    pub fn new(
        origins: Origins,
        credentials: bool,
        methods: &[String],
        headers: &[NamePattern],
        expose: &[String],
        max_age: Option<Duration>,
    ) -> Self {
        let value = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
        let mut exact = Vec::new();
        let mut prefixes = Vec::new();
        for pattern in headers {
            match pattern {
                NamePattern::Exact(name) => exact.push(name.as_str()),
                NamePattern::Prefix(name) => prefixes.push(name.clone()),
            }
        }
        Cors {
            anybody: origins.is_any() && !credentials,
            origins,
            credentials,
            methods: value(&methods.join(", ")),
            headers: value(&exact.join(", ")),
            prefixes,
            expose: (!expose.is_empty()).then(|| value(&expose.join(", "))),
            max_age: max_age.map(|span| HeaderValue::from(span.as_secs())),
        }
    }

    /// Whether a request only asks what it may do; it is then answered with what [`Cors::preflight`] tells.
    pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
        *method == Method::OPTIONS
            && headers.contains_key(ORIGIN)
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// The headers of a preflight's answer, but for those of [`Cors::dress`].
    ///
    /// A `*` among allowed headers means nothing where credentials are sent, so those asked for that match are named.
    pub fn preflight(&self, asked: &HeaderMap, answer: &mut HeaderMap) {
        if !self.prefixes.is_empty() {
            vary(answer, ACCESS_CONTROL_REQUEST_HEADERS);
        }
        if !asked.get(ORIGIN).is_some_and(|origin| self.origins.allow(origin.as_bytes())) {
            return;
        }
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
        let named = self.asked_headers(asked);
        if !named.is_empty() {
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, named);
        }
        if let Some(max_age) = &self.max_age {
            answer.insert(ACCESS_CONTROL_MAX_AGE, max_age.clone());
        }
    }

    /// Those that are always allowed, and those of `asked` that match a beginning.
    fn asked_headers(&self, asked: &HeaderMap) -> HeaderValue {
        let known = self.headers.to_str().unwrap_or_default();
        let mut names = known.to_owned();
        let lines = asked.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter().filter_map(|line| line.to_str().ok());
        for name in lines.flat_map(|line| line.split(',')).map(str::trim) {
            let lower = name.to_ascii_lowercase();
            let wanted = self.prefixes.iter().any(|prefix| lower.starts_with(prefix.as_str()));
            // A name and nothing else: what is echoed is the client's text.
            let listed = known.split(", ").any(|known| known.eq_ignore_ascii_case(name));
            if wanted && !listed && name.parse::<HeaderName>().is_ok() {
                if !names.is_empty() {
                    names.push_str(", ");
                }
                names.push_str(name);
            }
        }
        HeaderValue::from_str(&names).unwrap_or_else(|_| self.headers.clone())
    }

    /// Says on an answer, whoever made it, who may read it; what an upstream says about that is replaced.
    pub fn dress(&self, origin: Option<&HeaderValue>, preflight: bool, answer: &mut HeaderMap) {
        if !preflight {
            OURS.iter().for_each(|name| drop(answer.remove(name)));
        }
        if !self.anybody {
            // Also where no page asks: a cache must not give this answer to one.
            vary(answer, ORIGIN);
        }
        let Some(origin) = origin.filter(|origin| self.origins.allow(origin.as_bytes())) else { return };
        let allowed = if self.anybody { HeaderValue::from_static("*") } else { origin.clone() };
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.credentials {
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(expose) = self.expose.as_ref().filter(|_| !preflight) {
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }
}

/// Adds a name to `Vary`, where it is not there yet.
fn vary(headers: &mut HeaderMap, name: HeaderName) {
    let says = |line: &HeaderValue| {
        let names = line.to_str().unwrap_or_default().split(',').map(str::trim);
        names.into_iter().any(|known| known == "*" || known.eq_ignore_ascii_case(name.as_str()))
    };
    if !headers.get_all(VARY).iter().any(says) {
        headers.append(VARY, HeaderValue::from(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mcp(origins: &[&str], credentials: bool) -> Cors {
        let preset = CorsPreset::Mcp;
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let patterns: Vec<NamePattern> = preset.headers().iter().map(|name| name.parse().unwrap()).collect();
        let origins = Origins(origins.iter().map(|origin| origin.parse().unwrap()).collect());
        let age = Some(preset.max_age());
        Cors::new(origins, credentials, &owned(preset.methods()), &patterns, &owned(preset.expose()), age)
    }

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    fn text(headers: &HeaderMap, name: HeaderName) -> String {
        let lines: Vec<&str> = headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
        lines.join(" | ")
    }

    #[test]
    fn a_preflight_hears_what_it_may_do() {
        let asked = headers(&[(ORIGIN, "https://app.test"), (ACCESS_CONTROL_REQUEST_METHOD, "POST")]);
        let mut asked = asked;
        assert!(Cors::is_preflight(&Method::OPTIONS, &asked));
        assert!(!Cors::is_preflight(&Method::POST, &asked));
        asked.insert(
            ACCESS_CONTROL_REQUEST_HEADERS,
            "content-type, mcp-param-region, mcp-param-a b, x-other".parse().unwrap(),
        );
        let mut answer = HeaderMap::new();
        let cors = mcp(&["https://app.test"], true);
        cors.preflight(&asked, &mut answer);
        cors.dress(asked.get(ORIGIN), true, &mut answer);
        let allowed = "Mcp-Protocol-Version, Mcp-Session-Id, Mcp-Method, Mcp-Name, Last-Event-ID, Authorization, Content-Type, Accept, mcp-param-region";
        assert_eq!(text(&answer, ACCESS_CONTROL_ALLOW_HEADERS), allowed);
        assert_eq!(text(&answer, ACCESS_CONTROL_ALLOW_METHODS), "GET, POST, DELETE, OPTIONS");
        assert_eq!(text(&answer, ACCESS_CONTROL_ALLOW_ORIGIN), "https://app.test");
        assert_eq!(text(&answer, ACCESS_CONTROL_ALLOW_CREDENTIALS), "true");
        assert_eq!(text(&answer, ACCESS_CONTROL_MAX_AGE), "86400");
        assert_eq!(text(&answer, VARY), "access-control-request-headers | origin");
    }

    #[test]
    fn a_page_that_may_not_hears_nothing() {
        let cors = mcp(&["https://app.test"], false);
        let asked = headers(&[(ORIGIN, "https://evil.test"), (ACCESS_CONTROL_REQUEST_METHOD, "POST")]);
        let mut answer = HeaderMap::new();
        cors.preflight(&asked, &mut answer);
        cors.dress(asked.get(ORIGIN), true, &mut answer);
        assert_eq!(answer.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["vary"]);
    }

    #[test]
    fn what_an_upstream_says_is_replaced() {
        let theirs = || {
            headers(&[
                (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
                (ACCESS_CONTROL_EXPOSE_HEADERS, "X-Theirs"),
                (VARY, "Accept-Encoding"),
            ])
        };
        let origin = HeaderValue::from_static("https://app.test");
        let mut answer = theirs();
        mcp(&["https://app.test"], false).dress(Some(&origin), false, &mut answer);
        assert_eq!(text(&answer, ACCESS_CONTROL_ALLOW_ORIGIN), "https://app.test");
        assert_eq!(
            text(&answer, ACCESS_CONTROL_EXPOSE_HEADERS),
            "Mcp-Session-Id, WWW-Authenticate, Mcp-Protocol-Version"
        );
        assert_eq!(text(&answer, VARY), "Accept-Encoding | origin");

        let mut answer = theirs();
        mcp(&["https://app.test"], false).dress(None, false, &mut answer);
        assert_eq!(text(&answer, ACCESS_CONTROL_ALLOW_ORIGIN), "");
        assert_eq!(text(&answer, VARY), "Accept-Encoding | origin");

        let mut answer = theirs();
        mcp(&["*"], false).dress(Some(&origin), false, &mut answer);
        assert_eq!(text(&answer, ACCESS_CONTROL_ALLOW_ORIGIN), "*");
        assert_eq!(text(&answer, VARY), "Accept-Encoding");
    }
}
