//! What a route makes of a request's target before an upstream sees it.
//!
//! The result is normalized like every path that came in, so no replacement can put together a `..` that was not there before.
//!
//! Never here: redirects, which are [templates](super::Template::location).

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use regex::Regex;

use super::path::{self, Path, PathError};
use super::pattern::{canonical_path, path_regex};
use super::template::{Captured, push_uri};
use super::{Group, Match, Matched, PathPattern, PatternError, Template, TemplateError, Variable, Variables};

/// A change of a request's target.
#[derive(Debug, Clone)]
pub struct Rewrite(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Prefix(Box<str>),
    Path(Template),
    Regex(Regex, Template),
}

/// Why a rewrite cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// Its path or expression.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// Its template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A new path that does not start with a slash.
    #[error("expected a path that starts with `/`, `{{path}}`, `{{uri}}` or a capture")]
    Relative,
    /// A prefix is to be replaced where none was matched.
    #[error("a route with a regular expression has no prefix to replace; use `regex` and `to`")]
    NoPrefix,
}

/// Why a request's target could not be rewritten; answered with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The new path cannot be read in one way.
    #[error(transparent)]
    Path(#[from] PathError),
    /// It is longer than targets can be (64 KiB).
    #[error("the target is too long")]
    TooLong,
}

/// What is rewritten.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The request's path.
    pub path: &'a Path<'a>,
    /// Its query, without `?`.
    pub query: Option<&'a str>,
}

impl Target<'_> {
    /// The target in origin-form, not rewritten.
    pub fn unchanged(&self) -> Result<PathAndQuery, TargetError> {
        written(self.path.forward().to_owned(), self.query)
    }
}

impl Rewrite {
    /// Replaces the prefix that the route's path pattern matched, as Gateway API's `ReplacePrefixMatch` does; behind a raw prefix
    /// byte for byte, as NGINX's `proxy_pass` with a path does. For a route for any path, `to` is put in front; an exact path becomes `to`.
    ///
    /// **Errors**: `to` is no path.
    pub fn prefix(to: &str) -> Result<Rewrite, RewriteError> {
        // Both ways to say "nothing".
        let to = if to.is_empty() { "/" } else { to };
        canonical_path(to, true)?;
        Ok(Rewrite(Kind::Prefix(to.into())))
    }

    /// Replaces the whole path, and the query where the result holds a `?`.
    ///
    /// **Errors**: not a template, or one that does not make a path.
    pub fn path(to: &str) -> Result<Rewrite, RewriteError> {
        let template = Template::parse(to)?;
        let relative = match (template.start(), template.variables().next()) {
            (Some(text), _) => !text.starts_with('/'),
            // A capture may start anywhere; a slash is put in front where it is missing.
            (None, Some(first)) if to.starts_with('{') => !matches!(first, Variable::Path | Variable::Uri),
            (None, _) => false,
        };
        if relative { Err(RewriteError::Relative) } else { Ok(Rewrite(Kind::Path(template))) }
    }

    /// Replaces the first match of an expression in the path (as routes see it) by a template, whose captures are that
    /// expression's; and the query where the template makes a `?`. A path without a match stays.
    ///
    /// **Errors**: not an expression, not a template, or captures that the expression does not have.
    pub fn regex(expression: &str, to: &str) -> Result<Rewrite, RewriteError> {
        let regex = path_regex(expression, false)?;
        let template = Template::parse(to)?;
        template.check_groups(std::slice::from_ref(&regex))?;
        Ok(Rewrite(Kind::Regex(regex, template)))
    }

    /// Whether it fits a route with these paths.
    ///
    /// **Errors**: a prefix is to be replaced where none is matched, or captures are used that the paths do not have.
    pub fn check(&self, paths: &[PathPattern]) -> Result<(), RewriteError> {
        let expression = paths.iter().any(|path| matches!(path, PathPattern::Regex { .. }));
        match &self.0 {
            Kind::Prefix(_) if expression => Err(RewriteError::NoPrefix),
            Kind::Path(template) => Ok(template.check_captures(paths)?),
            _ => Ok(()),
        }
    }

    /// The new target, in origin-form.
    ///
    /// **Errors**: the new path would climb above the root, hides a `..`, or is too long.
    pub fn apply(
        &self,
        target: Target<'_>,
        matched: &Match<'_>,
        variables: &impl Variables,
    ) -> Result<PathAndQuery, TargetError> {
        let Target { path, query } = target;
        match &self.0 {
            Kind::Prefix(to) => match replaced(to, path, matched) {
                Some(new) => finished(&new, query),
                None => target.unchanged(),
            },
            Kind::Path(template) => {
                let (new, own) = rendered(template, variables);
                let slash = if new.starts_with('/') { "" } else { "/" };
                finished(&format!("{slash}{new}"), own.as_deref().or(query))
            }
            Kind::Regex(regex, template) => {
                let own = Own { captured: Captured::new(regex, path.matching()), variables };
                let Some(found) = own.captured.all().and_then(|captures| captures.get(0)) else {
                    return target.unchanged();
                };
                let (before, after) = (&path.matching()[..found.start()], &path.matching()[found.end()..]);
                let (new, own_query) = rendered(template, &own);
                let whole = format!("{before}{new}{after}");
                let slash = if whole.starts_with('/') { "" } else { "/" };
                finished(&format!("{slash}{whole}"), own_query.as_deref().or(query))
            }
        }
    }
}

/// The path with another prefix; none where no prefix was matched.
fn replaced(to: &str, path: &Path<'_>, matched: &Match<'_>) -> Option<String> {
    let (length, on_border) = match matched.path {
        Matched::Prefix { length, on_border } => (length, on_border),
        Matched::Any => (0, true),
        Matched::Exact => (path.matching().len(), false),
        Matched::Regex(_) => return None,
    };
    let tail = path.tail(length);
    // What is left starts with the slash that ends the prefix. With nothing left, `to` is meant as it was written.
    let to = if on_border && !tail.is_empty() { to.trim_end_matches('/') } else { to };
    Some(format!("{to}{tail}"))
}

/// A template's path and query, with every byte escaped that neither can hold.
fn rendered(template: &Template, variables: &impl Variables) -> (String, Option<String>) {
    let mut bytes = BytesMut::new();
    template.render(variables, &mut bytes);
    let mut text = String::with_capacity(bytes.len() + 16);
    push_uri(&mut text, &bytes);
    // A target has no fragment.
    let mut text = text.replace('#', "%23");
    let query = text.find('?').map(|at| text.split_off(at)[1..].to_owned());
    (text, query)
}

fn finished(new: &str, query: Option<&str>) -> Result<PathAndQuery, TargetError> {
    written(path::normalize(new)?.into_forward().into_owned(), query)
}

fn written(mut path: String, query: Option<&str>) -> Result<PathAndQuery, TargetError> {
    if let Some(query) = query {
        path.push('?');
        path.push_str(query);
    }
    // All bytes are ones that targets hold; only the length is left to go wrong.
    PathAndQuery::from_maybe_shared(Bytes::from(path)).map_err(|_| TargetError::TooLong)
}

/// The variables, with the rewrite's own captures.
struct Own<'a, V> {
    captured: Captured<'a>,
    variables: &'a V,
}

impl<V: Variables> Variables for Own<'_, V> {
    fn append(&self, variable: &Variable, out: &mut BytesMut) {
        self.variables.append(variable, out);
    }

    fn group(&self, group: &Group) -> Option<&str> {
        self.captured.group(group)
    }
}

#[cfg(test)]
mod tests {
    use super::super::template::tests::Named;
    use super::super::tests::{ask, rule, table};
    use super::*;
    use crate::route::normalize;
    use proptest::prelude::*;

    /// What becomes of a target by a route with this path.
    fn apply(rewrite: &Rewrite, route: &str, target: &str) -> Result<String, TargetError> {
        let rule = rule("r");
        let table = table([if route.is_empty() { rule } else { rule.path(route) }]);
        let (raw, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let path = normalize(raw)?;
        let ask = ask(&format!("GET x{raw}"));
        let matched = table.find(&ask.question()).expect("the route takes it");
        let values: &[(Variable, &[u8])] = &[
            (Variable::Path, path.forward().as_bytes()),
            (Variable::Host, b"h\xff?#\r "),
            (Variable::Uri, target.as_bytes()),
        ];
        let variables = Named(values, matched.captured(path.matching()));
        rewrite.apply(Target { path: &path, query }, &matched, &variables).map(|target| target.to_string())
    }

    #[track_caller]
    fn becomes(rewrite: &Rewrite, route: &str, target: &str, new: &str) {
        assert_eq!(apply(rewrite, route, target).as_deref(), Ok(new), "{target}");
    }

    #[test]
    fn gateway_api_replace_prefix_match() {
        // The table in the documentation of `HTTPPathModifier`.
        for (target, prefix, to, new) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo/bar?a=/b", "/", "/xyz", "/xyz/foo/bar?a=/b"),
            ("/foo", "", "/xyz/", "/xyz/foo"),
            ("//foo//bar", "/foo", "/xyz", "/xyz//bar"),
            ("/%66oo/%40/%2f?", "/foo", "/xyz", "/xyz/%40/%2F?"),
        ] {
            becomes(&Rewrite::prefix(to).unwrap(), prefix, target, new);
        }
    }

    #[test]
    fn nginx_proxy_pass_with_a_path() {
        for (target, location, to, new) in [
            ("/name/x", "raw /name/", "/remote/", "/remote/x"),
            ("/name/x", "raw /name", "/remote/", "/remote//x"),
            ("/name/x", "raw /name/", "/remote", "/remotex"),
            ("/name/x", "raw /name/", "/", "/x"),
            ("/name/", "^~ /name/", "/", "/"),
            ("/name", "= /name", "/other", "/other"),
        ] {
            becomes(&Rewrite::prefix(to).unwrap(), location, target, new);
        }
    }

    #[test]
    fn whole_paths_are_replaced() {
        becomes(&Rewrite::path("/new").unwrap(), "/", "/old/x?q", "/new?q");
        becomes(&Rewrite::path("/new?own").unwrap(), "/", "/old?q", "/new?own");
        becomes(&Rewrite::path("/v1{path}").unwrap(), "/", "/old//x?q", "/v1/old//x?q");
        becomes(&Rewrite::path("/p{uri}").unwrap(), "/", "/old?q", "/p/old?q");
        becomes(&Rewrite::path("/u/$1/$2").unwrap(), "~ ^/([a-z]+)-(.*)$", "/a-b%2Fc", "/u/a/b%2Fc");
        becomes(&Rewrite::path("$1").unwrap(), "~ ^/(.*)", "/a", "/a");
        // What a variable brings in stays where it was put, but for the `?`.
        becomes(&Rewrite::path("/{host}").unwrap(), "/", "/", "/h%FF?%23%0D%20");
    }

    #[test]
    fn expressions_are_replaced() {
        let rewrite = Rewrite::regex("^/api/v([0-9])/(?<rest>.*)$", "/${rest}?v=$1").unwrap();
        becomes(&rewrite, "/", "/api/v2/users?q", "/users?v=2");
        becomes(&rewrite, "/", "/other?q", "/other?q");
        becomes(&Rewrite::regex("b+", "x").unwrap(), "/", "/abbab?q", "/axab?q");
        becomes(&Rewrite::regex("^/a", "").unwrap(), "/", "/a/b", "/b");
        becomes(&Rewrite::regex("^/a", "").unwrap(), "/", "/ab", "/b");
        becomes(&Rewrite::regex("$", "/{host}").unwrap(), "/", "/a", "/a/h%FF?%23%0D%20");
    }

    #[test]
    fn no_replacement_makes_a_dot_segment() {
        let hidden = Rewrite::regex("x", "").unwrap();
        assert_eq!(apply(&hidden, "/", "/.x./admin"), Err(TargetError::Path(PathError::AboveRoot)));
        becomes(&hidden, "/", "/a/.x./admin", "/admin");
        assert_eq!(
            apply(&Rewrite::prefix("/.").unwrap(), "raw /a", "/a./b"),
            Err(TargetError::Path(PathError::AboveRoot))
        );
        let long = Rewrite::regex("a", &"b".repeat(70_000)).unwrap();
        assert_eq!(apply(&long, "/", "/a"), Err(TargetError::TooLong));
    }

    #[test]
    fn what_cannot_work_is_refused_beforehand() {
        let paths = |path: &str| [path.parse::<PathPattern>().unwrap()];
        assert!(matches!(Rewrite::prefix("api"), Err(RewriteError::Pattern(PatternError::Relative(_)))));
        assert!(matches!(Rewrite::prefix("/a?b"), Err(RewriteError::Pattern(PatternError::NotPath('?', _)))));
        assert_eq!(Rewrite::path("new").unwrap_err(), RewriteError::Relative);
        assert_eq!(Rewrite::path("{host}/x").unwrap_err(), RewriteError::Relative);
        assert!(matches!(Rewrite::regex("(", "x"), Err(RewriteError::Pattern(PatternError::Regex(_)))));
        assert!(matches!(Rewrite::regex("a", "$1"), Err(RewriteError::Template(TemplateError { at: 0, .. }))));
        assert_eq!(Rewrite::prefix("/a").unwrap().check(&paths("~ b")), Err(RewriteError::NoPrefix));
        assert!(Rewrite::path("/$1").unwrap().check(&paths("/b")).is_err());
        assert!(Rewrite::path("/$1").unwrap().check(&paths("~ (b)")).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_rewritten_target_is_a_normal_path(
            path in r"/[a/.%;?\\]{0,8}",
            expression in "[a/.]{1,3}",
            to in "[a/.;?#% ]{0,4}",
            kind in 0..3,
        ) {
            let rewrite = match kind {
                0 => Rewrite::regex(&expression, &to),
                1 => Rewrite::path(&format!("/{to}{{host}}$1")),
                _ => Rewrite::prefix(&format!("/{to}")),
            };
            let route = if kind == 1 { "~ /(.*)" } else { "/" };
            if let (Ok(rewrite), Ok(_)) = (rewrite, normalize(path.split('?').next().unwrap_or_default()))
                && let Ok(target) = apply(&rewrite, route, &path)
            {
                let new: PathAndQuery = target.parse().unwrap();
                let again = normalize(new.path()).unwrap();
                prop_assert_eq!(again.forward(), new.path());
            }
        }
    }
}
