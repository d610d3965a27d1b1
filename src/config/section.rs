//! The machine behind `section!`: from one definition of a section come its struct, its reader, its writer and its
//! documentation.
//!
//! Why not serde: it stops at the first error, knows no places, and its derive has nowhere to keep a key's default and
//! meaning where the reference page could find them.

use std::ops::{Bound, RangeBounds};
use std::time::Duration;

use super::near::{did_you_mean, nearest};
use super::node::{Entry, Kind, Node};
use super::out::{Out, Secrets};
use super::place::{At, Places};
use super::problem::Problem;
use super::source::Place;
use crate::types::{Share, Size};

/// A type that a key can have.
pub(crate) trait Value: Sized {
    /// Whether `"off"` can stand for there being none, where the key is an `Option`.
    const OFF: bool = false;

    /// What a right value is, in words that follow "expected".
    fn words() -> String;

    /// Reads a value. Where it is not one, says so to the reader and gives nothing.
    fn read(node: &Node, at: &At, reader: &mut Reader<'_>) -> Option<Self>;

    /// Writes it as [`Value::read`] reads it; nothing where its absence says the same.
    fn write(&self) -> Option<Out>;

    /// Checks the bounds of what is in it.
    fn examine(&self, _at: &At, _report: &mut Report<'_>) {}

    /// The section it is made of, if it is, and in which way.
    fn section() -> Option<(Shape, fn() -> Schema)> {
        None
    }
}

/// How a key holds a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    One,
    List,
    Named,
}

/// A section of the configuration, as documentation.
pub(crate) struct Schema {
    /// Its place: `pool.NAME.health`.
    pub(crate) path: &'static str,
    pub(crate) doc: String,
    /// The key that a bare string, number or list stands for.
    pub(crate) short: Option<&'static str>,
    pub(crate) keys: Vec<Key>,
}

/// A key, as documentation.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) words: String,
    pub(crate) required: bool,
    pub(crate) default: Option<Out>,
    /// The bounds of its value in words.
    pub(crate) bounds: Option<String>,
    pub(crate) doc: String,
    pub(crate) section: Option<(Shape, fn() -> Schema)>,
}

impl Key {
    pub(crate) fn new<T: Value>(name: &'static str, doc: &[&str], default: Option<T>, bounds: Option<String>) -> Key {
        Key {
            name,
            words: T::words(),
            required: default.is_none(),
            default: default.and_then(|value| value.write()),
            bounds,
            doc: join_doc(doc),
            section: T::section(),
        }
    }
}

/// A key's name: `r#for` is written `for`.
pub(crate) const fn plain(key: &'static str) -> &'static str {
    match key.as_bytes() {
        [b'r', b'#', rest @ ..] => match std::str::from_utf8(rest) {
            Ok(name) => name,
            Err(_) => key,
        },
        _ => key,
    }
}

/// Doc comments as text.
pub(crate) fn join_doc(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// A struct made by `section!`.
pub(crate) trait Section: Sized {
    /// The names of its keys.
    const KEYS: &'static [&'static str];
    /// The key that a bare value stands for.
    const SHORT: Option<&'static str>;

    fn schema() -> Schema;
    fn read_entries(entries: &Entries<'_>, at: &At, reader: &mut Reader<'_>) -> Option<Self>;
    fn write_entries(&self) -> Vec<(String, Out)>;
    fn examine_entries(&self, at: &At, report: &mut Report<'_>);
}

/// The entries of a table that is being read as a section, and the table's own place.
pub(crate) struct Entries<'a> {
    entries: &'a [Entry],
    place: &'a Place,
}

/// Reads values and gathers what is wrong with them.
pub(crate) struct Reader<'a> {
    pub(crate) places: &'a mut Places,
    pub(crate) problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    /// The value is of the wrong kind.
    pub(crate) fn wrong_kind(&mut self, node: &Node, at: &At, expected: &str) {
        if !matches!(node.kind, Kind::Broken) {
            let label = format!("expected {expected}, found {}", node.words());
            self.problems.push(Problem::error(Some(node.place.clone()), format!("wrong type for `{at}`")).label(label));
        }
        self.places.fail(at.clone());
    }

    /// The value is of the right kind but cannot be used.
    pub(crate) fn bad_value(&mut self, node: &Node, at: &At, why: impl Into<String>) {
        if !matches!(node.kind, Kind::Broken) {
            self.problems.push(Problem::error(Some(node.place.clone()), format!("bad value for `{at}`")).label(why));
        }
        self.places.fail(at.clone());
    }

    /// Reads a section from its table, or from the bare value that its short form allows.
    pub(crate) fn section<T: Section>(&mut self, node: &Node, at: &At) -> Option<T> {
        if let Kind::Table(entries) = &node.kind {
            self.unknown_keys::<T>(entries, at);
            return T::read_entries(&Entries { entries, place: &node.place }, at, self);
        }
        let bare = matches!(node.kind, Kind::Text { .. } | Kind::Integer(_));
        match T::SHORT.filter(|_| bare) {
            Some(key) => {
                let entry = Entry { key: key.to_owned(), place: node.place.clone(), node: node.clone() };
                T::read_entries(&Entries { entries: &[entry], place: &node.place }, at, self)
            }
            None => {
                self.wrong_kind(node, at, &words_of::<T>());
                None
            }
        }
    }

    fn unknown_keys<T: Section>(&mut self, entries: &[Entry], at: &At) {
        let known = |entry: &&Entry| T::KEYS.contains(&entry.key.as_str()) || matches!(entry.node.kind, Kind::Broken);
        for entry in entries.iter().filter(|entry| !known(entry)) {
            self.unknown_key(&entry.key, &entry.place, at, T::KEYS);
        }
    }

    /// The key is none of those that can stand here.
    pub(crate) fn unknown_key(&mut self, key: &str, place: &Place, at: &At, keys: &[&str]) {
        let message = match at.as_str() {
            "" => format!("unknown key `{key}`"),
            _ => format!("unknown key `{key}` in `{at}`"),
        };
        let near = nearest(key, keys.iter().copied());
        let mut problem = Problem::error(Some(place.clone()), message).label(did_you_mean(near));
        if near.is_none() {
            problem = match homes(key).as_slice() {
                [] => problem.help(format!("the keys here are {}", list_words(keys))),
                homes => problem.help(format!("`{key}` is a key of {}", list_words(homes))),
            };
        }
        self.problems.push(problem);
        self.places.fail(at.key(key));
    }

    /// Reads the value of a key, if the key is there and its value can be read.
    pub(crate) fn take<T: Value>(&mut self, entries: &Entries<'_>, at: &At, key: &str) -> Option<T> {
        let entry = entries.entries.iter().find(|entry| entry.key == key)?;
        let at = at.key(key);
        self.places.note(at.clone(), entry.place.clone(), entry.node.place.clone());
        T::read(&entry.node, &at, self)
    }

    /// Reads the value of a key that must be there.
    pub(crate) fn require<T: Value>(&mut self, entries: &Entries<'_>, at: &At, key: &str) -> Option<T> {
        if !entries.entries.iter().any(|entry| entry.key == key) {
            let label = format!("expected `{key}`: {}", T::words());
            let message = format!("missing key `{key}` in `{at}`");
            self.problems.push(Problem::error(Some(entries.place.clone()), message).label(label));
            self.places.fail(at.clone());
        }
        self.take(entries, at, key)
    }
}

/// Gathers what is wrong with a model that has been read, from whatever language.
pub(crate) struct Report<'a> {
    pub(crate) places: &'a Places,
    pub(crate) problems: Vec<Problem>,
}

impl Report<'_> {
    /// An error in a value.
    pub(crate) fn error(&mut self, at: &At, message: impl Into<String>, label: impl Into<String>) {
        self.problems.push(Problem::error(self.places.nearest_value(at), message).label(label));
    }

    /// An error about a key as a whole.
    pub(crate) fn error_at_key(&mut self, at: &At, message: impl Into<String>, label: impl Into<String>) {
        self.problems.push(Problem::error(self.places.nearest_key(at), message).label(label));
    }

    /// A warning about a value.
    pub(crate) fn warning(&mut self, at: &At, message: impl Into<String>, label: impl Into<String>) {
        self.problems.push(Problem::warning(self.places.nearest_value(at), message).label(label));
    }

    /// A warning about a key as a whole.
    pub(crate) fn warning_at_key(&mut self, at: &At, message: impl Into<String>, label: impl Into<String>) {
        self.problems.push(Problem::warning(self.places.nearest_key(at), message).label(label));
    }

    /// An error between two values: the second, and the first that it does not go with.
    pub(crate) fn clash(&mut self, at: &At, first: &At, message: impl Into<String>, labels: [&str; 2]) {
        let problem = Problem::error(self.places.nearest_value(at), message).label(labels[1]);
        self.problems.push(problem.also(self.places.nearest_value(first), labels[0]));
    }
}

/// A type that can have bounds: an amount, or something that holds amounts.
pub(crate) trait Bounded {
    /// What the bounds are given in.
    type Unit: PartialOrd + Value;

    fn within(&self, bounds: &impl RangeBounds<Self::Unit>) -> bool;
}

macro_rules! amounts {
    ($($ty:ty),*) => {
        $(impl Bounded for $ty {
            type Unit = $ty;

            fn within(&self, bounds: &impl RangeBounds<$ty>) -> bool {
                bounds.contains(self)
            }
        })*
    };
}

amounts!(u16, u32, f64, Size, Duration, Share);

impl<T: Bounded> Bounded for Option<T> {
    type Unit = T::Unit;

    fn within(&self, bounds: &impl RangeBounds<T::Unit>) -> bool {
        self.as_ref().is_none_or(|value| value.within(bounds))
    }
}

/// Bounds in words: `at least 1`, `from 8KiB to 1MiB`.
pub(crate) fn bounds_words<T: Bounded>(bounds: &impl RangeBounds<T::Unit>) -> String {
    let text =
        |value: &T::Unit| value.write().map(|out| out.inline(Secrets::Shown).replace('"', "")).unwrap_or_default();
    match (bounds.start_bound(), bounds.end_bound()) {
        (Bound::Included(low), Bound::Included(high)) => format!("{} to {}", text(low), text(high)),
        (Bound::Included(low), _) => format!("at least {}", text(low)),
        (_, Bound::Included(high)) => format!("at most {}", text(high)),
        (Bound::Excluded(low), _) => format!("more than {}", text(low)),
        _ => "anything".to_owned(),
    }
}

/// The shortest span that a deadline or interval may have: shorter ones are slips of the unit.
pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);

fn words_of<T: Section>() -> String {
    let schema = T::schema();
    let keys: Vec<String> = schema.keys.iter().take(3).map(|key| format!("`{}`", key.name)).collect();
    format!("a table with keys such as {}", keys.join(", "))
}

/// `a`, `b` and `c`.
pub(crate) fn list_words<T: AsRef<str>>(words: &[T]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("`{}`", word.as_ref())).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

/// The sections that have a key of this name.
fn homes(key: &str) -> Vec<&'static str> {
    let schemas = super::schemas();
    schemas.iter().filter(|s| !s.path.is_empty() && s.keys.iter().any(|k| k.name == key)).map(|s| s.path).collect()
}

/// Defines a section of the configuration: its struct, keys, types, bounds, defaults and documentation, in one place.
///
/// `pub struct Name ("path.in.the.file") { key: Type [bounds] = default, … }`; a key without a default is required.
/// With `("path", short key)` a bare string or number where the section is expected stands for that key alone.
macro_rules! section {
    ($(#[doc = $doc:literal])* pub struct $name:ident ($path:literal $(, short $short:ident)?) {
        $($(#[doc = $kdoc:literal])* $key:ident : $ty:ty $([$bounds:expr])? $(= $default:expr)? ,)*
    }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name { $($(#[doc = $kdoc])* pub $key: $ty,)* }
        section!(@default $name [$($key : $ty $(= $default)?,)*] []);

        impl $crate::config::section::Section for $name {
            const KEYS: &'static [&'static str] = &[$($crate::config::section::plain(stringify!($key))),*];
            const SHORT: Option<&'static str> = section!(@short $($short)?);

            fn schema() -> $crate::config::section::Schema {
                $crate::config::section::Schema {
                    path: $path,
                    doc: $crate::config::section::join_doc(&[$($doc),*]),
                    short: Self::SHORT,
                    keys: vec![$($crate::config::section::Key::new::<$ty>(
                        $crate::config::section::plain(stringify!($key)),
                        &[$($kdoc),*],
                        section!(@some $($default)?),
                        section!(@bounds $ty $(, $bounds)?),
                    )),*],
                }
            }

            fn read_entries(
                entries: &$crate::config::section::Entries<'_>,
                at: &$crate::config::place::At,
                reader: &mut $crate::config::section::Reader<'_>,
            ) -> Option<Self> {
                // All keys are read before any is found missing, so that every problem is told.
                $(let $key: Option<$ty> = section!(@take reader entries at $key $($default)?);)*
                Some($name { $($key: section!(@or $key $($default)?),)* })
            }

            fn write_entries(&self) -> Vec<(String, $crate::config::out::Out)> {
                let entries = [$(($crate::config::section::plain(stringify!($key)), $crate::config::section::Value::write(&self.$key))),*];
                entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
            }

            fn examine_entries(
                &self,
                at: &$crate::config::place::At,
                report: &mut $crate::config::section::Report<'_>,
            ) {
                $(
                    let here = at.key($crate::config::section::plain(stringify!($key)));
                    $(if !$crate::config::section::Bounded::within(&self.$key, &($bounds)) {
                        let bounds = $crate::config::section::bounds_words::<$ty>(&($bounds));
                        report.error(&here, format!("impossible value for `{here}`"), format!("expected {bounds}"));
                    })?
                    $crate::config::section::Value::examine(&self.$key, &here, report);
                )*
            }
        }

        impl $crate::config::section::Value for $name {
            const OFF: bool = true;

            fn words() -> String {
                "a table".to_owned()
            }

            fn read(
                node: &$crate::config::node::Node,
                at: &$crate::config::place::At,
                reader: &mut $crate::config::section::Reader<'_>,
            ) -> Option<Self> {
                reader.section(node, at)
            }

            fn write(&self) -> Option<$crate::config::out::Out> {
                let entries = $crate::config::section::Section::write_entries(self);
                (!entries.is_empty()).then_some($crate::config::out::Out::Table(entries))
            }

            fn examine(&self, at: &$crate::config::place::At, report: &mut $crate::config::section::Report<'_>) {
                $crate::config::section::Section::examine_entries(self, at, report);
            }

            fn section() -> Option<($crate::config::section::Shape, fn() -> $crate::config::section::Schema)> {
                Some(($crate::config::section::Shape::One, <$name as $crate::config::section::Section>::schema))
            }
        }
    };
    (@default $name:ident [] [$($key:ident = $default:expr,)*]) => {
        impl Default for $name { fn default() -> Self { Self { $($key: $default,)* } } }
    };
    (@default $name:ident [$key:ident : $ty:ty = $default:expr, $($rest:tt)*] [$($done:tt)*]) => {
        section!(@default $name [$($rest)*] [$($done)* $key = $default,]);
    };
    // A section with a required key has no default.
    (@default $name:ident [$key:ident : $ty:ty, $($rest:tt)*] [$($done:tt)*]) => {};
    (@short) => { None };
    (@short $short:ident) => { Some(stringify!($short)) };
    (@some) => { None };
    (@some $default:expr) => { Some($default) };
    (@bounds $ty:ty) => { None };
    (@bounds $ty:ty, $bounds:expr) => { Some($crate::config::section::bounds_words::<$ty>(&($bounds))) };
    (@take $reader:ident $entries:ident $at:ident $key:ident) => { $reader.require($entries, $at, $crate::config::section::plain(stringify!($key))) };
    (@take $reader:ident $entries:ident $at:ident $key:ident $default:expr) => {
        $reader.take($entries, $at, $crate::config::section::plain(stringify!($key)))
    };
    (@or $key:ident) => { $key? };
    (@or $key:ident $default:expr) => { $key.unwrap_or_else(|| $default) };
}
pub(crate) use section;
