//! From a TOML document to [`Node`]s: in the order of the text, variables filled in, secrets blotted out of what is shown.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::variable::{Filled, fill};
use crate::config::node::{Entry, Kind, Node};
use crate::config::out::takes_captures;
use crate::config::problem::Problem;
use crate::config::secret::is_secret;
use crate::config::source::{Place, Source};
use crate::config::surroundings::Surroundings;

/// The places of secrets in a document; where it is broken, also of what only looks like one.
pub(super) fn secrets(text: &str, table: &DeTable<'_>, broken: bool) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    find_secrets(table, &mut Vec::new(), &mut found);
    if broken {
        let words = text.match_indices("token").chain(text.match_indices("uthorization"));
        found.extend(words.filter_map(|(at, word)| value_behind(text, at + word.len())));
    }
    found
}

/// The rest of a line behind a key and `=`.
fn value_behind(text: &str, key_end: usize) -> Option<Range<usize>> {
    let rest = &text[key_end..];
    let line = &rest[..rest.find('\n').unwrap_or(rest.len())];
    let value = line.trim_start_matches(['"', '\'', ' ', '\t']).strip_prefix('=')?.trim_start();
    let end = key_end + line.len();
    Some(end - value.len()..end)
}

fn find_secrets<'t>(table: &'t DeTable<'_>, way: &mut Vec<&'t str>, found: &mut Vec<Range<usize>>) {
    for (key, value) in table {
        way.push(key.get_ref());
        match value.get_ref() {
            _ if is_secret(way) => found.push(value.span()),
            DeValue::Table(table) => find_secrets(table, way, found),
            DeValue::Array(items) => {
                for table in items.iter().filter_map(|item| item.get_ref().as_table()) {
                    find_secrets(table, way, found);
                }
            }
            _ => {}
        }
        way.pop();
    }
}

/// The text with its secrets blotted out, every other byte where it was.
pub(super) fn blot(text: &str, secrets: &[Range<usize>]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for secret in secrets {
        for byte in bytes.get_mut(secret.clone()).unwrap_or_default() {
            if *byte != b'\n' && *byte != b'\r' {
                *byte = b'*';
            }
        }
    }
    // Spans end on character borders, so this is UTF-8 again; were it not, nothing is shown rather than a secret.
    String::from_utf8(bytes).unwrap_or_default()
}

/// Turns a document into nodes.
pub(super) struct Planter<'a> {
    pub(super) source: &'a Arc<Source>,
    pub(super) surroundings: &'a dyn Surroundings,
    pub(super) problems: &'a mut Vec<Problem>,
}

impl Planter<'_> {
    pub(super) fn entries<'t>(&mut self, table: &'t DeTable<'_>, way: &mut Vec<&'t str>) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(table.len());
        for (key, value) in table {
            way.push(key.get_ref());
            let place = Place::new(self.source, key.span());
            entries.push(Entry { key: key.get_ref().to_string(), place, node: self.node(value, way) });
            way.pop();
        }
        // The document's own order: problems are told from top to bottom.
        entries.sort_by_key(|entry| entry.place.start());
        entries
    }

    fn node<'t>(&mut self, value: &'t Spanned<DeValue<'_>>, way: &mut Vec<&'t str>) -> Node {
        let place = Place::new(self.source, value.span());
        let kind = match value.get_ref() {
            DeValue::String(text) => self.text(text, &place, way),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Kind::Integer(number),
                Err(_) => {
                    let problem = Problem::error(Some(place.clone()), "integer out of range");
                    self.problems.push(problem.label("expected an integer of at most 64 bits"));
                    Kind::Broken
                }
            },
            DeValue::Float(number) => number.as_str().parse().map_or(Kind::Broken, Kind::Float),
            DeValue::Boolean(flag) => Kind::Bool(*flag),
            DeValue::Datetime(_) => Kind::Date,
            DeValue::Array(items) => Kind::List(items.iter().map(|item| self.node(item, way)).collect()),
            DeValue::Table(table) => Kind::Table(self.entries(table, way)),
        };
        Node { place, kind }
    }

    fn text(&mut self, text: &str, place: &Place, way: &[&str]) -> Kind {
        match fill(text, takes_captures(way), |name| self.surroundings.variable(name)) {
            Filled::Plain => Kind::Text { text: text.to_owned(), filled: false },
            Filled::Text(text) => Kind::Text { text, filled: true },
            Filled::Wrong(why) => {
                self.problems.push(Problem::error(Some(place.clone()), "cannot fill in a variable").label(why));
                Kind::Broken
            }
        }
    }
}
