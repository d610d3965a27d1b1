//! Text with variables: `"https://{host}{uri}"`.
//!
//! `{name}` stands for a [`Variable`], `$1` and `${name}` for what a group of the route's regular expression matched; `{{`, `}}` and
//! `$$` are those characters themselves. A template without any of these is constant, and whoever uses one can prepare its value.
//!
//! What is inserted comes from clients and must not break out of its place. So there is no way to render text as such: a template
//! becomes a [header value](Template::header_value), a [location](Template::location), the target of a rewrite, or a body.
//!
//! Never here: what a variable's value is. *Why not evaluate expressions*: a proxy's configuration is read by many who do not write it.

use std::cell::OnceCell;
use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderValue;
use regex::{Captures, Regex};

use super::pattern::path_regex;
use super::variable::{named, nearest};
use super::{Match, Matched, PathPattern, Variable};

/// Who knows the variables' values.
pub trait Variables {
    /// Appends a variable's value; nothing where it has none.
    fn append(&self, variable: &Variable, out: &mut BytesMut);

    /// What a group of the route's expression captured, where it has one; mostly [`Captured::group`].
    fn group(&self, group: &Group) -> Option<&str> {
        let _ = group;
        None
    }
}

/// What a path's expression captured; found out when first asked for.
#[derive(Debug)]
pub struct Captured<'a> {
    regex: &'a Regex,
    path: &'a str,
    found: OnceCell<Option<Captures<'a>>>,
}

impl<'a> Captured<'a> {
    pub(crate) fn new(regex: &'a Regex, path: &'a str) -> Self {
        Captured { regex, path, found: OnceCell::new() }
    }

    pub(super) fn all(&self) -> Option<&Captures<'a>> {
        self.found.get_or_init(|| self.regex.captures(self.path)).as_ref()
    }

    /// What a group captured.
    pub fn group(&self, group: &Group) -> Option<&'a str> {
        let captures = self.all()?;
        let found = match group {
            Group::Number(number) => captures.get(*number),
            Group::Name(name) => captures.name(name),
        };
        found.map(|found| found.as_str())
    }
}

impl<'t> Match<'t> {
    /// What the route's expression captures of a path, which must be the one that was matched. Costs nothing until it is used.
    pub fn captured<'a>(&self, path: &'a str) -> Option<Captured<'a>>
    where
        't: 'a,
    {
        match self.path {
            Matched::Regex(regex) => Some(Captured::new(regex, path)),
            _ => None,
        }
    }
}

/// A group of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Group {
    /// The first is 1; 0 is all of the match.
    Number(usize),
    /// `(?<name>…)`.
    Name(Box<str>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Variable(Variable),
    /// With its place in the text.
    Captured(Group, usize),
}

/// Text with variables, ready to be rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pieces: Box<[Piece]>,
}

/// Why a template could not be read, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct TemplateError {
    /// The byte at which the wrong piece starts.
    pub at: usize,
    /// What is wrong with it.
    pub problem: TemplateProblem,
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateProblem {
    /// No such variable.
    #[error("there is no variable `{{{name}}}`{}", suggestion(.nearest))]
    Unknown {
        /// What was written.
        name: String,
        /// What may have been meant.
        nearest: Option<&'static str>,
    },
    /// A variable that needs an argument.
    #[error("expected a name behind the colon, as in `{{{kind}:NAME}}`")]
    Argument {
        /// `header`, `cookie` or `query`.
        kind: &'static str,
    },
    /// A `{` without `}`.
    #[error("expected `}}` behind the variable's name; a literal `{{` is written `{{{{`")]
    Open,
    /// A `}` without `{`.
    #[error("expected `{{` before this `}}`; a literal `}}` is written `}}}}`")]
    Close,
    /// A `$` that starts no capture.
    #[error("expected a capture such as `$1` or `${{name}}`{}; a literal `$` is written `$$`", variable(.nearest))]
    Dollar {
        /// The variable that may have been meant.
        nearest: Option<&'static str>,
    },
    /// A capture where nothing is captured.
    #[error("`{group}` has no value here: {why}")]
    NoGroup {
        /// As written.
        group: String,
        /// What is missing.
        why: &'static str,
    },
}

fn suggestion(nearest: &Option<&'static str>) -> String {
    match nearest {
        Some(name) => format!("; did you mean `{{{name}}}`? A literal `{{` is written `{{{{`"),
        None => "; a literal `{` is written `{{`".to_owned(),
    }
}

fn variable(nearest: &Option<&'static str>) -> String {
    nearest.map(|name| format!(" (variables are written `{{{name}}}`)")).unwrap_or_default()
}

impl Template {
    /// Reads a template.
    ///
    /// **Errors**: the first thing that is neither text, variable nor capture.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut at = 0;
        while let Some(offset) = text[at..].find(['{', '}', '$']) {
            plain.push_str(&text[at..at + offset]);
            at += offset;
            let rest = &text[at..];
            let fail = |problem| TemplateError { at, problem };
            if let Some(doubled) = ["{{", "}}", "$$"].into_iter().find(|doubled| rest.starts_with(doubled)) {
                plain.push_str(&doubled[..1]);
                at += 2;
                continue;
            }
            let (piece, length) = match rest.as_bytes()[0] {
                b'{' => {
                    let end = rest.find('}').ok_or(fail(TemplateProblem::Open))?;
                    (Piece::Variable(named(&rest[1..end]).map_err(fail)?), end + 1)
                }
                b'}' => return Err(fail(TemplateProblem::Close)),
                _ => {
                    let (group, length) = group(rest).map_err(fail)?;
                    (Piece::Captured(group, at), length)
                }
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain).into()));
            }
            pieces.push(piece);
            at += length;
        }
        plain.push_str(&text[at..]);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.into()));
        }
        Ok(Template { pieces: pieces.into() })
    }

    /// The text, where it holds no variables.
    pub fn constant(&self) -> Option<&str> {
        match &*self.pieces {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The variables in it, in order.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Variable(variable) => Some(variable),
            _ => None,
        })
    }

    /// Whether every capture can have a value for a route with these paths.
    ///
    /// **Errors**: the first that cannot, with its place.
    pub fn check_captures(&self, paths: &[PathPattern]) -> Result<(), TemplateError> {
        let regexes = paths.iter().filter_map(|path| match path {
            PathPattern::Regex { expression, ignore_case } => path_regex(expression, *ignore_case).ok(),
            _ => None,
        });
        self.check_groups(&regexes.collect::<Vec<_>>())
    }

    pub(super) fn check_groups(&self, regexes: &[Regex]) -> Result<(), TemplateError> {
        for piece in &self.pieces {
            let Piece::Captured(group, at) = piece else { continue };
            let known = |regex: &Regex| match group {
                Group::Number(number) => *number < regex.captures_len(),
                Group::Name(name) => regex.capture_names().flatten().any(|known| known == &**name),
            };
            if !regexes.iter().any(known) {
                let why = match regexes {
                    [] => "there is no regular expression; a literal `$` is written `$$`",
                    _ => "the regular expression has no such group",
                };
                let problem = TemplateProblem::NoGroup { group: group.to_string(), why };
                return Err(TemplateError { at: *at, problem });
            }
        }
        Ok(())
    }

    /// What the text starts with, as far as that is known beforehand.
    pub(super) fn start(&self) -> Option<&str> {
        match self.pieces.first() {
            Some(Piece::Text(text)) => Some(text),
            None => Some(""),
            _ => None,
        }
    }

    /// Appends the text as it is: for bodies, or for those who make it safe themselves.
    pub fn render(&self, variables: &impl Variables, out: &mut BytesMut) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.put_slice(text.as_bytes()),
                Piece::Variable(variable) => variables.append(variable, out),
                Piece::Captured(group, _) => {
                    let text = variables.group(group).unwrap_or_default();
                    out.put_slice(text.as_bytes());
                }
            }
        }
    }

    /// The text as a header value. Control bytes are left out, and white space at both ends; so no value can end its line.
    ///
    /// **Cost**: `scratch` is split, so a buffer that is reused makes an allocation only now and then.
    pub fn header_value(&self, variables: &impl Variables, scratch: &mut BytesMut) -> HeaderValue {
        scratch.clear();
        self.render(variables, scratch);
        if scratch.iter().any(|&byte| !is_field_byte(byte)) {
            let kept: Vec<u8> = scratch.iter().copied().filter(|&byte| is_field_byte(byte)).collect();
            scratch.clear();
            scratch.put_slice(&kept);
        }
        let value = scratch.split().freeze();
        let trimmed = value.slice_ref(value.trim_ascii());
        field_value(trimmed)
    }

    /// The text as the value of `Location`. Bytes that no URI holds are escaped.
    ///
    /// Only the template's own text may begin with `//`, which names another host: of slashes that a request brings one is left, so that
    /// nobody is led away by `http://us//elsewhere.example/`.
    ///
    /// **Cost**: as [`header_value`](Template::header_value).
    pub fn location(&self, variables: &impl Variables, scratch: &mut BytesMut) -> HeaderValue {
        scratch.clear();
        self.render(variables, scratch);
        if !scratch.iter().all(|&byte| is_uri_byte(byte)) {
            let mut safe = String::with_capacity(scratch.len() + 16);
            push_uri(&mut safe, scratch);
            scratch.clear();
            scratch.put_slice(safe.as_bytes());
        }
        let mut value = scratch.split().freeze();
        if value.starts_with(b"//") && !self.names_a_host() {
            let slashes = value.iter().take_while(|byte| **byte == b'/').count();
            value = value.slice(slashes - 1..);
        }
        field_value(value)
    }

    fn names_a_host(&self) -> bool {
        matches!(self.pieces.first(), Some(Piece::Text(text)) if text.starts_with("//"))
    }
}

/// All bytes have been made valid, so the other case does not occur; an empty value is the harmless answer to it.
fn field_value(value: Bytes) -> HeaderValue {
    HeaderValue::from_maybe_shared(value).unwrap_or(HeaderValue::from_static(""))
}

fn is_field_byte(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}

/// A byte that may stand in a URI (RFC 3986 §2), somewhere.
pub(super) fn is_uri_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
}

/// Appends bytes, escaping those that no URI holds.
pub(super) fn push_uri(out: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        if is_uri_byte(byte) { out.push(byte as char) } else { super::path::push_escape(out, byte) }
    }
}

/// The capture at the start of a text, and how long it is.
fn group(rest: &str) -> Result<(Group, usize), TemplateProblem> {
    let after = &rest[1..];
    let digits = after.bytes().take(2).take_while(u8::is_ascii_digit).count();
    if let Ok(number) = after[..digits].parse() {
        return Ok((Group::Number(number), 1 + digits));
    }
    let name = after.strip_prefix('{').and_then(|name| name.split_once('}')).map(|(name, _)| name);
    if let Some(name) = name.filter(|name| !name.is_empty()) {
        let group = name.parse().map_or_else(|_| Group::Name(name.into()), Group::Number);
        return Ok((group, name.len() + 3));
    }
    let word = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(after, |end| &after[..end]);
    Err(TemplateProblem::Dollar { nearest: nearest(word) })
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Group::Number(number) => write!(f, "${number}"),
            Group::Name(name) => write!(f, "${{{name}}}"),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every variable's value is its name, but for those given.
    pub(in super::super) struct Named<'a>(
        pub(in super::super) &'a [(Variable, &'a [u8])],
        pub(in super::super) Option<Captured<'a>>,
    );

    impl Variables for Named<'_> {
        fn append(&self, variable: &Variable, out: &mut BytesMut) {
            match self.0.iter().find(|(known, _)| known == variable) {
                Some((_, value)) => out.put_slice(value),
                None => out.put_slice(format!("{variable:?}").to_lowercase().as_bytes()),
            }
        }

        fn group(&self, group: &Group) -> Option<&str> {
            self.1.as_ref()?.group(group)
        }
    }

    fn render(text: &str) -> String {
        let mut out = BytesMut::new();
        Template::parse(text).unwrap().render(&Named(&[], None), &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn variables_are_inserted() {
        assert_eq!(render("https://{host}{uri}"), "https://hosturi");
        assert_eq!(render("{{{client}}} $$1 {{}}"), "{client} $1 {}");
        assert_eq!(render("{header:X-A}{cookie:b}{query:c d}"), r#"header("x-a")cookie("b")parameter("c d")"#);
        assert_eq!(render(""), "");
    }

    #[test]
    fn captures_are_inserted() {
        let regex = Regex::new("^/u/([0-9]+)/(?P<rest>.*)$").unwrap();
        let show = |text: &str, path| {
            let template = Template::parse(text).unwrap();
            template.check_groups(std::slice::from_ref(&regex)).unwrap();
            let mut out = BytesMut::new();
            template.render(&Named(&[], Some(Captured::new(&regex, path))), &mut out);
            String::from_utf8(out.to_vec()).unwrap()
        };
        assert_eq!(show("/x/$2?id=$1", "/u/12/a/b"), "/x/a/b?id=12");
        assert_eq!(show("${1}0${rest}$0", "/u/1/"), "10/u/1/");
        assert_eq!(show("<$1>", "/other"), "<>");
    }

    #[test]
    fn captures_that_can_have_no_value_are_refused() {
        let check = |text: &str, paths: &[&str]| {
            let paths: Vec<PathPattern> = paths.iter().map(|path| path.parse().unwrap()).collect();
            Template::parse(text).unwrap().check_captures(&paths).map_err(|error| error.at)
        };
        assert_eq!(check("a$1", &["~ (a)", "/b"]), Ok(()));
        assert_eq!(check("a$2", &["~ (a)"]), Err(1));
        assert_eq!(check("costs $5", &["/"]), Err(6));
        assert_eq!(check("${x}", &["~ (?<y>a)"]), Err(0));
        assert_eq!(check("{host}$$1", &[]), Ok(()));
    }

    #[test]
    fn constants_are_known() {
        let constant = |text| Template::parse(text).unwrap().constant().map(str::to_owned);
        assert_eq!(constant("a {{b}} $$"), Some("a {b} $".to_owned()));
        assert_eq!(constant(""), Some(String::new()));
        assert_eq!(constant("{host}"), None);
        assert_eq!(constant("$1"), None);
    }

    #[test]
    fn errors_point_at_their_place_and_name_the_nearest() {
        for (text, at, message) in [
            ("a {hots}", 2, "there is no variable `{hots}`; did you mean `{host}`? A literal `{` is written `{{`"),
            (
                "{remote_addr}",
                0,
                "there is no variable `{remote_addr}`; did you mean `{client}`? A literal `{` is written `{{`",
            ),
            (r#"{"a": 1}"#, 0, "there is no variable `{\"a\": 1}`; a literal `{` is written `{{`"),
            ("é{", 2, "expected `}` behind the variable's name; a literal `{` is written `{{`"),
            ("a}", 1, "expected `{` before this `}`; a literal `}` is written `}}`"),
            ("{header}", 0, "expected a name behind the colon, as in `{header:NAME}`"),
            ("{header:a b}", 0, "expected a name behind the colon, as in `{header:NAME}`"),
            ("{cookie:}", 0, "expected a name behind the colon, as in `{cookie:NAME}`"),
            ("a$", 1, "expected a capture such as `$1` or `${name}`; a literal `$` is written `$$`"),
            (
                "x$request_uri/y",
                1,
                "expected a capture such as `$1` or `${name}` (variables are written `{uri}`); a literal `$` is written `$$`",
            ),
            ("${", 0, "expected a capture such as `$1` or `${name}`; a literal `$` is written `$$`"),
        ] {
            let error = Template::parse(text).unwrap_err();
            assert_eq!((error.at, error.to_string().as_str()), (at, message), "{text}");
        }
    }

    #[test]
    fn a_value_cannot_end_its_line() {
        let evil: &[(Variable, &[u8])] = &[(Variable::Host, b"a\r\nSet-Cookie: x\0\x7f\t\xff ")];
        let template = Template::parse(" {host}").unwrap();
        let mut scratch = BytesMut::new();
        assert_eq!(template.header_value(&Named(evil, None), &mut scratch), &b"aSet-Cookie: x\t\xff"[..]);
        let location = Template::parse("https://{host}/?q#f").unwrap().location(&Named(evil, None), &mut scratch);
        assert_eq!(location, "https://a%0D%0ASet-Cookie:%20x%00%7F%09%FF%20/?q#f");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_makes_it_panic(text in r"[{}$a-h:0-9é]{0,12}", value in proptest::collection::vec(any::<u8>(), 0..12)) {
            let values = [(Variable::Host, &value[..])];
            let mut scratch = BytesMut::new();
            if let Ok(template) = Template::parse(&text) {
                template.header_value(&Named(&values, None), &mut scratch);
            }
            let template = Template::parse("{host}").unwrap();
            let safe = template.header_value(&Named(&values, None), &mut scratch);
            let expected: Vec<u8> = value.iter().copied().filter(|&byte| is_field_byte(byte)).collect();
            prop_assert_eq!(safe.as_bytes(), expected.trim_ascii());
            let location = template.location(&Named(&values, None), &mut scratch);
            prop_assert!(location.as_bytes().iter().all(|&byte| is_uri_byte(byte)));
        }
    }
}
