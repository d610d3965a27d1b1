//! A configuration text as a tree, before anybody has asked what it means; every part knows its place.

use super::source::Place;

/// A value in the text.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// A string, variables filled in.
    Text {
        text: String,
        /// Whether a variable was filled in: then numbers and booleans may be written in it too.
        filled: bool,
    },
    Integer(i64),
    Float(f64),
    Bool(bool),
    /// A date or time, which no key takes.
    Date,
    List(Vec<Node>),
    Table(Vec<Entry>),
    /// A value that a problem has been reported for already.
    Broken,
}

/// A key and its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) node: Node,
}

impl Node {
    /// The text of a string.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Whether it is the word `"off"`.
    pub(crate) fn is_off(&self) -> bool {
        self.text() == Some("off")
    }

    /// What it is, in words, for "expected …, found …".
    pub(crate) fn words(&self) -> String {
        match &self.kind {
            Kind::Text { text, .. } if text.chars().count() <= 40 => format!("the string {text:?}"),
            Kind::Text { .. } => "a string".to_owned(),
            Kind::Integer(number) => format!("the integer {number}"),
            Kind::Float(number) => format!("the number {number}"),
            Kind::Bool(flag) => format!("`{flag}`"),
            Kind::Date => "a date".to_owned(),
            Kind::List(_) => "a list".to_owned(),
            Kind::Table(_) => "a table".to_owned(),
            Kind::Broken => "nothing usable".to_owned(),
        }
    }
}
