//! How each type of a key is read from the text and written back.

mod plain;
mod text;
mod word;

use std::collections::BTreeMap;

use super::node::{Kind, Node};
use super::out::Out;
use super::place::At;
use super::section::{Reader, Report, Schema, Shape, Value};

/// Absent, or a value; where the type allows it, `"off"` says "none".
impl<T: Value> Value for Option<T> {
    fn words() -> String {
        if says_off::<T>() { format!("{} or \"off\"", T::words()) } else { T::words() }
    }

    fn read(node: &Node, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        if T::OFF && node.is_off() { Some(None) } else { T::read(node, at, reader).map(Some) }
    }

    fn write(&self) -> Option<Out> {
        match self {
            // A section that says nothing is still there.
            Some(value) => Some(write_present(value)),
            None if says_off::<T>() => Some(Out::text("off")),
            None => None,
        }
    }

    fn examine(&self, at: &At, report: &mut Report<'_>) {
        if let Some(value) = self {
            value.examine(at, report);
        }
    }

    fn section() -> Option<(Shape, fn() -> Schema)> {
        T::section()
    }
}

/// Whether none is written as `"off"`; a section that is off is rather left out.
fn says_off<T: Value>() -> bool {
    T::OFF && T::section().is_none()
}

fn write_present<T: Value>(value: &T) -> Out {
    value.write().unwrap_or(Out::Table(Vec::new()))
}

/// A list; a single value needs no brackets.
impl<T: Value> Value for Vec<T> {
    fn words() -> String {
        match T::section() {
            Some(_) => "one table or several".to_owned(),
            None => format!("{}, or a list of them", T::words()),
        }
    }

    fn read(node: &Node, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        let items = match &node.kind {
            Kind::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        // Elements that cannot be read have been reported; the others are kept, so that they are checked too.
        let mut values = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            // Problems are told by the place in the text, what was read is found by the place in the model.
            let (written, kept) = (at.index(index), at.index(values.len()));
            reader.places.note(written.clone(), item.place.clone(), item.place.clone());
            match T::read(item, &written, reader) {
                Some(value) => {
                    values.push(value);
                    reader.places.rename(&written, &kept);
                }
                None => reader.places.forget(&written),
            }
        }
        Some(values)
    }

    fn write(&self) -> Option<Out> {
        let items: Vec<Out> = self.iter().map(write_present).collect();
        if items.is_empty() { None } else { Some(Out::List(items)) }
    }

    fn examine(&self, at: &At, report: &mut Report<'_>) {
        for (index, value) in self.iter().enumerate() {
            value.examine(&at.index(index), report);
        }
    }

    fn section() -> Option<(Shape, fn() -> Schema)> {
        T::section().map(|(_, schema)| (Shape::List, schema))
    }
}

/// A table of names.
impl<T: Value> Value for BTreeMap<String, T> {
    fn words() -> String {
        match T::section() {
            Some(_) => "a table for each name".to_owned(),
            None => format!("a table of names, each with {}", T::words()),
        }
    }

    fn read(node: &Node, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        let Kind::Table(entries) = &node.kind else {
            reader.wrong_kind(node, at, &Self::words());
            return None;
        };
        let mut values = BTreeMap::new();
        for entry in entries {
            let at = at.key(&entry.key);
            reader.places.note(at.clone(), entry.place.clone(), entry.node.place.clone());
            if let Some(value) = T::read(&entry.node, &at, reader) {
                values.insert(entry.key.clone(), value);
            }
        }
        Some(values)
    }

    fn write(&self) -> Option<Out> {
        let entries: Vec<_> = self.iter().map(|(name, value)| (name.clone(), write_present(value))).collect();
        if entries.is_empty() { None } else { Some(Out::Table(entries)) }
    }

    fn examine(&self, at: &At, report: &mut Report<'_>) {
        for (name, value) in self {
            value.examine(&at.key(name), report);
        }
    }

    fn section() -> Option<(Shape, fn() -> Schema)> {
        T::section().map(|(_, schema)| (Shape::Named, schema))
    }
}
