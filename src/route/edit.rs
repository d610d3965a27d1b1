//! Changes of headers: taken out, replaced, added.
//!
//! Never here: the headers that make messages work between two neighbours (framing, hop-by-hop), which are ours alone to write.

use std::collections::BTreeMap;

use bytes::BytesMut;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::{PathPattern, Template, TemplateError, Variables};

/// Changes of a request's or an answer's headers, done in this order: remove, set, add.
#[derive(Debug, Clone, Default)]
pub struct HeaderEdit {
    remove: Box<[HeaderName]>,
    set: Box<[(HeaderName, Value)]>,
    add: Box<[(HeaderName, Value)]>,
}

#[derive(Debug, Clone)]
enum Value {
    Constant(HeaderValue),
    Rendered(Template),
}

/// Which of the three lists something is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EditList {
    /// `remove`
    Remove,
    /// `set`
    Set,
    /// `add`
    Add,
}

/// Why an edit cannot be, and which.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct EditError {
    /// The list it is in.
    pub list: EditList,
    /// The header's name, as written.
    pub name: String,
    /// What is wrong.
    pub problem: EditProblem,
}

/// What is wrong with an edit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditProblem {
    /// Not a header name.
    #[error("expected a header name such as \"X-Team\"")]
    Name,
    /// Not a header value.
    #[error("expected a header value: one line without control characters")]
    Value,
    /// The value's template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A header that is not the operator's to write.
    #[error("expected another header: {0}")]
    Ours(&'static str),
}

impl HeaderEdit {
    /// Compiles changes.
    ///
    /// **Errors**: all of them.
    pub fn build(
        remove: &[String],
        set: &BTreeMap<String, String>,
        add: &BTreeMap<String, String>,
    ) -> Result<HeaderEdit, Vec<EditError>> {
        let mut errors = Vec::new();
        let removed = remove.iter().filter_map(|text| keep(name(EditList::Remove, text), &mut errors)).collect();
        let mut lines = |list, lines: &BTreeMap<String, String>| {
            lines.iter().filter_map(|(name, value)| keep(line(list, name, value), &mut errors)).collect()
        };
        let (set, add) = (lines(EditList::Set, set), lines(EditList::Add, add));
        if errors.is_empty() { Ok(HeaderEdit { remove: removed, set, add }) } else { Err(errors) }
    }

    /// Whether the captures in its values can have values for a route with these paths.
    ///
    /// **Errors**: the first that cannot.
    pub fn check_captures(&self, paths: &[PathPattern]) -> Result<(), EditError> {
        let lines =
            self.set.iter().map(|line| (EditList::Set, line)).chain(self.add.iter().map(|line| (EditList::Add, line)));
        for (list, (name, value)) in lines {
            if let Value::Rendered(template) = value {
                let wrong =
                    |error| EditError { list, name: name.as_str().to_owned(), problem: EditProblem::Template(error) };
                template.check_captures(paths).map_err(wrong)?;
            }
        }
        Ok(())
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// What the lines to set and add are to be, in order. Apart from [`write`](HeaderEdit::write), so that values can name headers
    /// that the edit changes: they are as they were before.
    ///
    /// **Cost**: constant values are shared; `scratch` is what the others are rendered into.
    pub fn render(&self, variables: &impl Variables, scratch: &mut BytesMut) -> Rendered {
        Rendered(self.set.iter().chain(&self.add).map(|(_, value)| value.value(variables, scratch)).collect())
    }

    /// Does the edit. A header that is set to nothing is taken out, and nothing is not added: so a variable without a value
    /// leaves no empty header, as in NGINX.
    pub fn write(&self, values: Rendered, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        let mut values = values.0.into_iter();
        for ((name, _), value) in self.set.iter().zip(&mut values) {
            match value {
                Some(value) => drop(headers.insert(name.clone(), value)),
                None => drop(headers.remove(name)),
            }
        }
        for ((name, _), value) in self.add.iter().zip(values) {
            if let Some(value) = value {
                // Only fails beyond 32,768 headers; the request's own are bounded far below.
                let _ = headers.try_append(name.clone(), value);
            }
        }
    }

    /// Renders and writes, where the variables are not taken from the same headers.
    pub fn apply(&self, headers: &mut HeaderMap, variables: &impl Variables, scratch: &mut BytesMut) {
        self.write(self.render(variables, scratch), headers);
    }
}

/// The values of one edit's lines.
#[derive(Debug)]
pub struct Rendered(SmallVec<[Option<HeaderValue>; 4]>);

impl Value {
    fn value(&self, variables: &impl Variables, scratch: &mut BytesMut) -> Option<HeaderValue> {
        let value = match self {
            Value::Constant(value) => value.clone(),
            Value::Rendered(template) => template.header_value(variables, scratch),
        };
        (!value.is_empty()).then_some(value)
    }
}

fn keep<T>(result: Result<T, EditError>, errors: &mut Vec<EditError>) -> Option<T> {
    result.map_err(|error| errors.push(error)).ok()
}

fn name(list: EditList, text: &str) -> Result<HeaderName, EditError> {
    let wrong = |problem| EditError { list, name: text.to_owned(), problem };
    let name = HeaderName::try_from(text).map_err(|_| wrong(EditProblem::Name))?;
    match ours(list, &name) {
        Some(why) => Err(wrong(EditProblem::Ours(why))),
        None => Ok(name),
    }
}

/// Why a header is not to be edited.
fn ours(list: EditList, name: &HeaderName) -> Option<&'static str> {
    const FRAMING: [HeaderName; 2] = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
    const HOP: [HeaderName; 4] = [header::CONNECTION, header::TE, header::TRAILER, header::UPGRADE];
    if FRAMING.contains(name) {
        return Some("this one tells where the body ends, and is written to fit it");
    }
    if HOP.contains(name) || matches!(name.as_str(), "keep-alive" | "proxy-connection") {
        return Some("this one is for one connection only, and is never passed on");
    }
    match list {
        EditList::Remove if *name == header::HOST => Some("every request needs a host; use `set` to send another"),
        EditList::Add if *name == header::HOST => Some("a request has one host; use `set` to send another"),
        _ => None,
    }
}

fn line(list: EditList, text: &str, value: &str) -> Result<(HeaderName, Value), EditError> {
    let wrong = |problem| EditError { list, name: text.to_owned(), problem };
    let name = name(list, text)?;
    let template = Template::parse(value).map_err(|error| wrong(error.into()))?;
    if value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
        return Err(wrong(EditProblem::Value));
    }
    let value = match template.constant() {
        Some(text) => Value::Constant(HeaderValue::try_from(text.trim()).map_err(|_| wrong(EditProblem::Value))?),
        None => Value::Rendered(template),
    };
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::super::Variable;
    use super::super::template::tests::Named;
    use super::*;

    fn build(remove: &[&str], set: &[(&str, &str)], add: &[(&str, &str)]) -> Result<HeaderEdit, Vec<EditError>> {
        let map = |lines: &[(&str, &str)]| lines.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        let remove: Vec<String> = remove.iter().map(|name| name.to_string()).collect();
        HeaderEdit::build(&remove, &map(set), &map(add))
    }

    fn apply(edit: &HeaderEdit, before: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in before {
            headers.append(*name, value.parse().unwrap());
        }
        let values: &[(Variable, &[u8])] =
            &[(Variable::Client, b"10.0.0.1"), (Variable::Host, b"a\r\nx: y"), (Variable::Query, b"")];
        edit.apply(&mut headers, &Named(values, None), &mut BytesMut::new());
        let mut lines: Vec<String> = headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    #[test]
    fn headers_are_removed_set_and_added_in_this_order() {
        let edit = build(
            &["X-Old", "x-both"],
            &[("X-Client", "{client}"), ("X-Const", " v {{1}} "), ("X-Both", "set"), ("Host", "h")],
            &[("X-Const", "more"), ("X-New", "{client}!")],
        );
        let before =
            [("x-old", "1"), ("x-old", "2"), ("x-client", "a"), ("x-client", "b"), ("x-both", "1"), ("host", "x")];
        let after =
            ["host: h", "x-both: set", "x-client: 10.0.0.1", "x-const: more", "x-const: v {1}", "x-new: 10.0.0.1!"];
        assert_eq!(apply(&edit.unwrap(), &before), after);
    }

    #[test]
    fn nothing_leaves_no_empty_header() {
        let edit = build(&[], &[("a", "{query}"), ("b", "")], &[("c", "{query}")]).unwrap();
        assert_eq!(apply(&edit, &[("a", "1"), ("b", "1"), ("c", "1")]), ["c: 1"]);
        assert!(build(&[], &[], &[]).unwrap().is_empty() && !edit.is_empty());
    }

    #[test]
    fn values_cannot_bring_in_lines() {
        let edit = build(&[], &[("a", "{host}")], &[]).unwrap();
        assert_eq!(apply(&edit, &[]), ["a: ax: y"]);
    }

    #[test]
    fn what_makes_messages_work_is_refused() {
        let errors = build(
            &["Content-Length", "host", "Keep-Alive", "a b", "via"],
            &[("Transfer-Encoding", "chunked"), ("host", "{host}"), ("x", "{hots}"), ("y", "a\nb")],
            &[("Host", "a"), ("upgrade", "h2c")],
        )
        .unwrap_err();
        let named: Vec<(EditList, &str)> = errors.iter().map(|error| (error.list, error.name.as_str())).collect();
        use EditList::*;
        let expected = [
            (Remove, "Content-Length"),
            (Remove, "host"),
            (Remove, "Keep-Alive"),
            (Remove, "a b"),
            (Set, "Transfer-Encoding"),
            (Set, "x"),
            (Set, "y"),
            (Add, "Host"),
            (Add, "upgrade"),
        ];
        assert_eq!(named, expected);
        assert_eq!(errors[3].problem, EditProblem::Name);
        assert_eq!(errors[6].problem, EditProblem::Value);
    }

    #[test]
    fn captures_need_an_expression() {
        let edit = build(&[], &[], &[("x", "$1")]).unwrap();
        assert_eq!(edit.check_captures(&["/".parse().unwrap()]).unwrap_err().name, "x");
        assert!(edit.check_captures(&["~ (a)".parse().unwrap()]).is_ok());
    }
}
