//! Booleans, integers, strings and paths.

use std::path::PathBuf;

use crate::config::model::Secret;
use crate::config::node::{Kind, Node};
use crate::config::out::Out;
use crate::config::place::At;
use crate::config::section::{Reader, Value};

impl Value for bool {
    fn words() -> String {
        "`true` or `false`".to_owned()
    }

    fn read(node: &Node, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.kind {
            Kind::Bool(flag) => Some(*flag),
            Kind::Text { text, filled: true } if text == "true" => Some(true),
            Kind::Text { text, filled: true } if text == "false" => Some(false),
            _ => {
                reader.wrong_kind(node, at, &Self::words());
                None
            }
        }
    }

    fn write(&self) -> Option<Out> {
        Some(Out::Bool(*self))
    }
}

macro_rules! integers {
    ($($ty:ty),*) => {
        $(impl Value for $ty {
            const OFF: bool = true;

            fn words() -> String {
                "an integer".to_owned()
            }

            fn read(node: &Node, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
                let number = integer(node, at, reader, &Self::words())?;
                let fitting = <$ty>::try_from(number).ok();
                if fitting.is_none() {
                    reader.bad_value(node, at, format!("expected {} to {}", <$ty>::MIN, <$ty>::MAX));
                }
                fitting
            }

            fn write(&self) -> Option<Out> {
                Some(Out::Integer(i64::from(*self)))
            }
        })*
    };
}

integers!(u16, u32, i32);

/// An integer, or a filled-in variable that holds one.
pub(super) fn integer(node: &Node, at: &At, reader: &mut Reader<'_>, expected: &str) -> Option<i64> {
    let number = match &node.kind {
        Kind::Integer(number) => Some(*number),
        Kind::Text { text, filled: true } => text.parse().ok(),
        _ => None,
    };
    if number.is_none() {
        reader.wrong_kind(node, at, expected);
    }
    number
}

impl Value for f64 {
    const OFF: bool = true;

    fn words() -> String {
        "a number".to_owned()
    }

    fn read(node: &Node, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        let number = match &node.kind {
            Kind::Integer(number) => Some(*number as f64),
            Kind::Float(number) => Some(*number),
            Kind::Text { text, filled: true } => text.parse().ok(),
            _ => None,
        };
        let number = number.filter(|number| number.is_finite());
        if number.is_none() {
            reader.wrong_kind(node, at, &Self::words());
        }
        number
    }

    fn write(&self) -> Option<Out> {
        Some(Out::Float(*self))
    }
}

impl Value for String {
    fn words() -> String {
        "a string".to_owned()
    }

    fn read(node: &Node, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        if node.text().is_none() {
            reader.wrong_kind(node, at, &Self::words());
        }
        node.text().map(str::to_owned)
    }

    fn write(&self) -> Option<Out> {
        Some(Out::text(self.clone()))
    }
}

impl Value for Secret {
    fn words() -> String {
        "a string".to_owned()
    }

    fn read(node: &Node, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        if node.text().is_none() {
            // Not as a wrong type, which would tell what was found.
            reader.bad_value(node, at, "expected a string");
        }
        node.text().map(|text| Secret::new(text.to_owned()))
    }

    fn write(&self) -> Option<Out> {
        Some(Out::Secret(self.expose().to_owned()))
    }
}

/// A path; one that is not absolute starts from the folder of the file that names it.
impl Value for PathBuf {
    fn words() -> String {
        "a path".to_owned()
    }

    fn read(node: &Node, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        match node.text() {
            Some(text) if text.is_empty() || text.contains('\0') => {
                reader.bad_value(node, at, "expected a path");
                None
            }
            Some(text) => Some(node.place.source().folder().join(text)),
            None => {
                reader.wrong_kind(node, at, &Self::words());
                None
            }
        }
    }

    fn write(&self) -> Option<Out> {
        Some(Out::text(self.to_string_lossy()))
    }
}
