//! What the TOML parser complains of, told so that one slip is one problem.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::problem::Problem;
use crate::config::source::{Place, Source};

/// The problems of a document, in its order: one for each line, none that only follows from a bracket left open.
pub(super) fn problems(source: &Arc<Source>, table: &DeTable<'_>, errors: &[toml::de::Error]) -> Vec<Problem> {
    let mut open = None;
    let unclosed = |error: &&toml::de::Error| {
        error.message().starts_with("unclosed array,") || error.message().starts_with("unclosed inline table")
    };
    if let Some(end) = errors.iter().find(unclosed).and_then(toml::de::Error::span) {
        open = first_open(table, end.start);
    }
    let mut told: Vec<(Range<usize>, Problem)> = Vec::new();
    if let Some(span) = &open {
        let place = Place::new(source, span.start..span.start + 1);
        told.push((span.clone(), syntax(place, "this is never closed".to_owned())));
    }
    let mut errors: Vec<_> = errors.iter().map(|error| (error.span().unwrap_or(0..0), error.message())).collect();
    errors.sort_by_key(|(span, _)| span.start);
    let mut headers = Vec::new();
    for (span, message) in errors {
        let place = Place::new(source, span.clone());
        let follows = open.as_ref().is_some_and(|open| open.start <= span.start);
        let again = |(_, other): &(_, Problem)| other.place.as_ref().is_some_and(|other| other.same_line(&place));
        if follows || told.iter().any(again) {
            continue;
        }
        let problem = match message {
            // What is in a table that is there twice may be there twice too.
            "duplicate key" if headers.contains(&source.header_above(span.start)) => continue,
            "duplicate key" => {
                let header = source.header_above(span.start);
                if header == Some(source.start_of_line(span.start)) {
                    headers.push(header);
                }
                duplicate(source, table, place, &span)
            }
            _ => syntax(place, in_words(message)),
        };
        told.push((span, problem));
    }
    told.sort_by_key(|(span, _)| span.start);
    told.into_iter().map(|(_, problem)| problem).collect()
}

fn syntax(place: Place, label: String) -> Problem {
    Problem::error(Some(place), "syntax error").label(label)
}

/// The parser's words, where ours are plainer.
fn in_words(message: &str) -> String {
    match message {
        "string values must be quoted, expected literal string" => "expected a value; strings must be quoted",
        "key with no value, expected `=`" => "expected `=` and a value",
        "invalid basic string, expected `\"`" => "expected `\"` to close the string",
        "invalid literal string, expected `'`" => "expected `'` to close the string",
        "unquoted keys cannot be empty, expected letters, numbers, `-`, `_`" => "expected a key",
        other => other,
    }
    .to_owned()
}

/// The outermost list or table that goes on to `end` because nothing closes it.
fn first_open(table: &DeTable<'_>, end: usize) -> Option<Range<usize>> {
    table.values().find_map(|value| open_value(value, end))
}

fn open_value(value: &Spanned<DeValue<'_>>, end: usize) -> Option<Range<usize>> {
    let span = value.span();
    match value.get_ref() {
        DeValue::Array(_) if span.end >= end && span.start < span.end => Some(span),
        DeValue::Array(items) => items.iter().find_map(|item| open_value(item, end)),
        DeValue::Table(table) if span.end < end => first_open(table, end),
        DeValue::Table(_) if span.start < span.end => Some(span),
        _ => None,
    }
}

fn duplicate(source: &Arc<Source>, table: &DeTable<'_>, place: Place, span: &Range<usize>) -> Problem {
    let (line, range) = place.excerpt();
    let key = line.get(range).unwrap_or_default().trim_matches(['"', '\'']);
    let first = if line.trim_start().starts_with('[') {
        source.same_line_before(span.start)
    } else {
        let mut earlier = Vec::new();
        keys(table, key, span.start, &mut earlier);
        earlier.pop()
    };
    let first = first.map(|span| Place::new(source, span));
    Problem::error(Some(place.clone()), format!("duplicate key `{key}`")).label("again here").also(first, "first here")
}

/// The places of a key before `end`, in the order of the text.
fn keys(table: &DeTable<'_>, wanted: &str, end: usize, found: &mut Vec<Range<usize>>) {
    for (key, value) in table {
        if key.get_ref() == wanted && key.span().start < end {
            found.push(key.span());
        }
        keys_within(value.get_ref(), wanted, end, found);
    }
    found.sort_by_key(|span| span.start);
}

fn keys_within(value: &DeValue<'_>, wanted: &str, end: usize, found: &mut Vec<Range<usize>>) {
    match value {
        DeValue::Table(table) => keys(table, wanted, end, found),
        DeValue::Array(items) => items.iter().for_each(|item| keys_within(item.get_ref(), wanted, end, found)),
        _ => {}
    }
}
