//! Who may ask: that files can be read and hold what they should, and that what is said goes together.

use http::Uri;

use super::Check;
use crate::access::{KeyRing, KeySet, OriginPattern, Resource};
use crate::config::model::{AuthSettings, CorsSettings, JwksPlace, JwtSettings, NamePattern, ResourceSettings, Route};
use crate::config::place::At;
use crate::limit::Per;
use crate::route::PathPattern;

impl Check<'_> {
    /// What a route says of who may ask.
    pub(super) fn access(&mut self, route: &Route, at: &At) {
        if let Some(cors) = &route.cors {
            self.cors(cors, route, &at.key("cors"));
        }
        if let Some(auth) = &route.auth {
            self.auth(auth, &at.key("auth"));
        }
        if let Some(resource) = &route.resource {
            self.resource(resource, route, &at.key("resource"));
        }
        for (index, limit) in route.limit.iter().enumerate() {
            if limit.per == Per::Principal && route.auth.is_none() && !self.failed(&at.key("auth")) {
                let at = at.key("limit").index(index).key("per");
                self.report.warning(
                    &at,
                    "nobody is known here",
                    "without `auth` every client is counted by its address",
                );
            }
        }
    }

    fn cors(&mut self, cors: &CorsSettings, route: &Route, at: &At) {
        for (index, method) in cors.methods.iter().enumerate() {
            self.method(&at.key("methods").index(index), method);
        }
        for (index, name) in cors.expose.iter().enumerate() {
            self.header_name(&at.key("expose").index(index), name);
        }
        let origins = if cors.origins.is_empty() { &route.origins } else { &cors.origins };
        let any = origins.is_empty() || origins.contains(&OriginPattern::Any);
        if cors.credentials && any && !self.failed(at) {
            let label = "expected `origins` that name the pages: any page could act with its visitors' cookies";
            self.report.error(&at.key("credentials"), "credentials for any page", label);
        }
        let everything = cors.headers.iter().any(|name| matches!(name, NamePattern::Prefix(name) if name.is_empty()));
        if cors.credentials && everything {
            let label = "expected names: any page of these origins could send any header";
            self.report.warning(&at.key("headers"), "any header, with credentials", label);
        }
        if !route.method.is_empty() && !route.method.iter().any(|method| method == "OPTIONS") {
            let label = "preflights are OPTIONS requests: add \"OPTIONS\" to the route's `method`";
            self.report.warning_at_key(at, "preflights do not come to this route", label);
        }
    }

    fn auth(&mut self, auth: &AuthSettings, at: &At) {
        if auth.keys.is_none() && auth.jwt.is_none() && !self.failed(at) {
            let label = "expected `keys = \"keys.txt\"`, `jwt = { … }` or both";
            self.report.error(at, "nobody could ever come in", label);
        }
        if let Some(path) = &auth.keys {
            let at = at.key("keys");
            if let Some(bytes) = self.file(&at, path, "key file") {
                match std::str::from_utf8(&bytes).map(KeyRing::parse) {
                    Ok(Ok(ring)) if ring.is_empty() => {
                        let label = "nobody comes in by key; `tidegate key NAME` makes a key and its line";
                        self.report.warning(&at, "the key file has no keys", label);
                    }
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => {
                        let label = format!("{}: {error}", path.display());
                        self.report.error(&at, "the key file cannot be used", label);
                    }
                    Err(_) => self.report.error(&at, "the key file cannot be used", "expected a text file (UTF-8)"),
                }
            }
        } else {
            self.no_effect(at, &[("header", auth.header.is_some())], "it goes with `keys`");
        }
        if let Some(name) = &auth.header {
            self.header_name(&at.key("header"), name);
        }
        if let Some(name) = &auth.principal_header {
            let at = at.key("principal_header");
            self.sent_header(&at, name);
            if ["authorization", "host", "cookie"].iter().any(|taken| name.eq_ignore_ascii_case(taken)) {
                let label = "expected a header of its own, such as \"x-principal\"";
                self.report.error(&at, format!("the header `{name}` means something else"), label);
            }
        }
        self.scopes(&auth.scopes, &at.key("scopes"));
        if let Some(jwt) = &auth.jwt {
            self.jwt(jwt, &at.key("jwt"));
        }
    }

    fn jwt(&mut self, jwt: &JwtSettings, at: &At) {
        self.scopes(&jwt.scopes, &at.key("scopes"));
        for (key, empty, label) in [
            (
                "issuer",
                jwt.issuer.is_empty(),
                "expected what tokens have as `iss`, such as \"https://login.example.com\"",
            ),
            ("claim", jwt.claim.is_empty(), "expected the name of a claim, such as \"sub\""),
            ("algorithms", jwt.algorithms.is_empty(), "expected those that the issuer signs with, such as [\"RS256\"]"),
        ] {
            if empty && !self.failed(&at.key(key)) {
                self.report.error(&at.key(key), "no token could ever be taken", label);
            }
        }
        if (jwt.audience.is_empty() || jwt.audience.contains(&String::new())) && !self.failed(&at.key("audience")) {
            let label =
                "expected what tokens for this resource have as `aud`: without it a token for anybody else would do";
            self.report.error(&at.key("audience"), "tokens of any audience", label);
        }
        let at = at.key("jwks");
        match &jwt.jwks {
            JwksPlace::File(path) => {
                let set = self.file(&at, path, "key set").map(|bytes| KeySet::parse(&bytes));
                if let Some(Err(error)) = set {
                    self.report.error(&at, "the key set cannot be used", format!("{}: {error}", path.display()));
                }
            }
            JwksPlace::Url(url) => {
                match url.parse::<Uri>().ok().filter(|uri| uri.host().is_some() && !url.contains('@')) {
                    None => {
                        let label =
                            "expected one such as \"https://login.example.com/jwks.json\", without a name and password";
                        self.report.error(&at, "bad URL", label);
                    }
                    Some(uri) if uri.scheme_str() == Some("http") && !is_local(uri.host().unwrap_or_default()) => {
                        let label = "whoever is in between can make tokens: use https";
                        self.report.warning(&at, "the issuer's keys are fetched without TLS", label);
                    }
                    Some(_) => {}
                }
            }
        }
    }

    fn scopes(&mut self, scopes: &[String], at: &At) {
        // RFC 6749 §3.3.
        let good = |scope: &String| {
            let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
            !scope.is_empty() && scope.bytes().all(plain)
        };
        for (index, scope) in scopes.iter().enumerate().filter(|(_, scope)| !good(scope)) {
            let label = "expected visible ASCII without spaces, quotes and backslashes, such as \"tools:read\"";
            self.report.error(&at.index(index), format!("bad scope {scope:?}"), label);
        }
    }

    fn resource(&mut self, resource: &ResourceSettings, route: &Route, at: &At) {
        self.scopes(&resource.scopes, &at.key("scopes"));
        let links = resource.authorization_servers.iter().enumerate();
        let links = links.map(|(index, url)| (at.key("authorization_servers").index(index), url));
        for (at, url) in links.chain(resource.documentation.iter().map(|url| (at.key("documentation"), url))) {
            if let Err(label) = Resource::new(Some(url.split(['?', '#']).next().unwrap_or(url)), "/", &[], &[], None) {
                self.report.error(&at, "bad URL", label);
            }
        }
        match &resource.url {
            Some(url) => {
                if let Err(label) = Resource::new(Some(url), "/", &[], &[], None) {
                    self.report.error(&at.key("url"), "bad URL", label);
                }
            }
            None if resource_path(&route.path).is_none() && !self.failed(at) => {
                let label = "expected `url`, because the route's `path` does not say which path the resource has";
                self.report.error(at, "the resource's URL is not known", label);
            }
            None => {}
        }
        if route.auth.as_ref().is_some_and(|auth| auth.jwt.is_some()) && resource.authorization_servers.is_empty() {
            let label = "expected who issues tokens, such as [\"https://login.example.com\"]";
            self.report.warning(
                &at.key("authorization_servers"),
                "clients cannot find out where to get a token",
                label,
            );
        }
    }
}

/// The path of the resource that a route with these paths protects; none where that is not one path.
pub(crate) fn resource_path(paths: &[PathPattern]) -> Option<&str> {
    match paths {
        [] => Some(""),
        [PathPattern::Exact(path) | PathPattern::Prefix(path)] => Some(path),
        _ => None,
    }
}

fn is_local(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
