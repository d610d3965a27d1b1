//! Texts that configuration was read from, and places in them.
//!
//! A [`Place`] carries its text along, so whoever holds one can point at it without asking anybody else for the file.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A text that was read, under the name people know it by.
///
/// Secrets in it are blotted out before it comes here: its only use is to be shown.
pub struct Source {
    name: String,
    folder: PathBuf,
    text: String,
    /// Where each line starts, for positions without a scan of the text.
    lines: Vec<usize>,
}

impl Source {
    /// A text, its name as people wrote it, and the absolute folder that paths in it are relative to.
    pub fn new(name: impl Into<String>, folder: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        let text = text.into();
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Source { name: name.into(), folder: folder.into(), text, lines }
    }

    /// The name people know it by: a path as it was written.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder that relative paths in it start from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The number of the line that holds a byte, from 0.
    fn line_of(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at).saturating_sub(1)
    }

    /// The bytes of a line, without its line break.
    fn line(&self, number: usize) -> Range<usize> {
        let start = self.lines.get(number).copied().unwrap_or(self.text.len());
        let end = self.lines.get(number + 1).map_or(self.text.len(), |next| next - 1);
        let text = &self.text[start..end];
        start..start + text.strip_suffix('\r').unwrap_or(text).len()
    }

    /// Where the line that holds a byte starts.
    pub(crate) fn start_of_line(&self, at: usize) -> usize {
        self.line(self.line_of(at)).start
    }

    /// Where the line of the table header that a byte is under starts, if there is one; it may be its own line.
    pub(crate) fn header_above(&self, at: usize) -> Option<usize> {
        let above = (0..=self.line_of(at)).rev().map(|number| self.line(number));
        above.into_iter().find(|line| self.text[line.clone()].trim_start().starts_with('[')).map(|line| line.start)
    }

    /// An earlier line that reads like the one that holds a byte.
    pub(crate) fn same_line_before(&self, at: usize) -> Option<Range<usize>> {
        let number = self.line_of(at);
        let text = |line: Range<usize>| self.text[line].trim();
        (0..number).map(|number| self.line(number)).find(|line| text(line.clone()) == text(self.line(number)))
    }

    fn floor(&self, at: usize) -> usize {
        let mut at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({:?}, {} bytes)", self.name, self.text.len())
    }
}

/// A stretch of a [`Source`].
///
/// **Text** (`Display`): `tidegate.toml:12:5`; lines and columns count from 1, columns in characters.
#[derive(Clone)]
pub struct Place {
    source: Arc<Source>,
    start: usize,
    end: usize,
}

impl Place {
    /// The bytes of `range` in `source`; what lies outside the text or within a character is cut to fit.
    pub fn new(source: &Arc<Source>, range: Range<usize>) -> Self {
        let start = source.floor(range.start);
        let end = source.floor(range.end).max(start);
        Place { source: Arc::clone(source), start, end }
    }

    /// The text it is in.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// The line it starts in, from 1.
    pub fn line(&self) -> usize {
        self.source.line_of(self.start) + 1
    }

    /// The character of the line that it starts at, from 1.
    pub fn column(&self) -> usize {
        let line = self.source.line(self.source.line_of(self.start));
        self.source.text[line.start..self.start.max(line.start)].chars().count() + 1
    }

    /// The line it starts in, and where in that line it lies: what a person is shown.
    ///
    /// A place over several lines is shown by the part on its first line.
    pub(crate) fn excerpt(&self) -> (&str, Range<usize>) {
        let line = self.source.line(self.source.line_of(self.start));
        let start = self.start.min(line.end);
        let end = self.end.clamp(start, line.end);
        (&self.source.text[line.clone()], start - line.start..end - line.start)
    }

    /// The place of a part of a string that stands here, given as bytes from its start.
    ///
    /// One character wide: where the part ends is not known.
    /// The whole string where it is not written as it is: with escapes, variables or as a secret.
    pub(crate) fn part(&self, string: &str, at: usize) -> Place {
        let text = &self.source.text[self.start..self.end];
        let quoted = text.strip_prefix(['"', '\'']).and_then(|text| text.strip_suffix(['"', '\'']));
        if quoted != Some(string) || at >= string.len() {
            return self.clone();
        }
        let width = string.get(at..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8);
        Place::new(&self.source, self.start + 1 + at..self.start + 1 + at + width)
    }

    pub(crate) fn same_line(&self, other: &Place) -> bool {
        Arc::ptr_eq(&self.source, &other.source) && self.line() == other.line()
    }

    /// Where it stands in its text, for putting problems in the reader's order.
    pub(crate) fn start(&self) -> usize {
        self.start
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.source.name, self.line(), self.column())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let source = Arc::new(Source::new("a.toml", "/", "a = 1\r\nbü = \"x\"\n"));
        let place = Place::new(&source, 13..16);
        assert_eq!(place.to_string(), "a.toml:2:6");
        assert_eq!(place.excerpt(), ("bü = \"x\"", 6..9));
    }

    #[test]
    fn places_outside_the_text_are_cut_to_fit() {
        let source = Arc::new(Source::new("a.toml", "/", "ü"));
        assert_eq!(Place::new(&source, 1..99).excerpt(), ("ü", 0..2));
        assert_eq!(Place::new(&source, 50..99).to_string(), "a.toml:1:2");
        let empty = Arc::new(Source::new("a.toml", "/", ""));
        assert_eq!(Place::new(&empty, 0..0).excerpt(), ("", 0..0));
    }

    #[test]
    fn a_part_of_a_string_is_found_where_it_is_written_as_it_is() {
        let source = Arc::new(Source::new("a.toml", "/", "a = \"x{y\"\nb = \"\\u0078{\""));
        let plain = Place::new(&source, 4..9);
        assert_eq!(plain.part("x{y", 1).to_string(), "a.toml:1:7");
        assert_eq!(plain.part("x{y", 3).excerpt(), plain.excerpt());
        let escaped = Place::new(&source, 14..23);
        assert_eq!(escaped.part("x{", 1).excerpt(), escaped.excerpt());
    }

    #[test]
    fn a_place_over_several_lines_shows_its_first() {
        let source = Arc::new(Source::new("a.toml", "/", "x = [\n1,\n]\n"));
        assert_eq!(Place::new(&source, 4..10).excerpt(), ("x = [", 4..5));
    }
}
