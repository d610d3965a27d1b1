//! A file and those it includes, merged into one tree.
//!
//! Tables of names (`listener`, `pool`, `error_pages`) are joined name by name, routes are put one behind the other; all
//! else may be said once. A name in two files is a problem that shows both.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::DeTable;

use super::{syntax, tree};
use crate::config::node::{Entry, Kind, Node};
use crate::config::problem::Problem;
use crate::config::section::{Section, Shape};
use crate::config::source::{Place, Source};
use crate::config::surroundings::{Surroundings, read_error};

/// A file and those it includes.
pub(crate) struct Loaded {
    /// The merged tables.
    pub(crate) entries: Vec<Entry>,
    /// The start of each file, in the order in which they were read.
    pub(crate) starts: Vec<Place>,
    /// Every file that was read, or should have been.
    pub(crate) files: BTreeSet<PathBuf>,
    /// Folders that a new file would be included from.
    pub(crate) folders: BTreeSet<PathBuf>,
    pub(crate) problems: Vec<Problem>,
    /// Whether a file could not be read or is not TOML, so that the whole is not known.
    pub(crate) torn: bool,
}

struct Loader<'a> {
    surroundings: &'a dyn Surroundings,
    loaded: Loaded,
    /// The files that were read, by their identity: each is read once.
    seen: BTreeSet<PathBuf>,
    /// The files being read, each included by the one before it.
    stack: Vec<PathBuf>,
}

/// Reads a file, by the name people know it by, and all it includes.
pub(crate) fn load(name: &str, text: Option<&str>, surroundings: &dyn Surroundings) -> Loaded {
    let loaded = Loaded {
        entries: Vec::new(),
        starts: Vec::new(),
        files: BTreeSet::new(),
        folders: BTreeSet::new(),
        problems: Vec::new(),
        torn: false,
    };
    let mut loader = Loader { surroundings, loaded, seen: BTreeSet::new(), stack: Vec::new() };
    let path = surroundings.absolute(Path::new(name));
    match text {
        Some(text) => loader.text(name, &path, text),
        None => loader.file(name, &path, None),
    }
    loader.loaded
}

impl Loader<'_> {
    fn file(&mut self, name: &str, path: &Path, wanted: Option<&Place>) {
        self.loaded.files.insert(path.to_owned());
        if !self.seen.insert(self.surroundings.identity(path)) {
            return;
        }
        let bytes = self.surroundings.read(path).map_err(|error| read_error(&error));
        let text = bytes.and_then(|bytes| {
            String::from_utf8(bytes).map_err(|error| format!("byte {} is not UTF-8", error.utf8_error().valid_up_to()))
        });
        match text {
            Ok(text) => self.text(name, path, &text),
            Err(why) => {
                let message = format!("cannot read the configuration file `{name}`");
                let problem = Problem::error(wanted.cloned(), message);
                self.loaded.problems.push(problem.label(why));
                self.loaded.torn = true;
            }
        }
    }

    fn text(&mut self, name: &str, path: &Path, text: &str) {
        self.loaded.files.insert(path.to_owned());
        let identity = self.surroundings.identity(path);
        self.seen.insert(identity.clone());
        let (table, errors) = DeTable::parse_recoverable(text);
        let table = table.get_ref();
        let shown = tree::blot(text, &tree::secrets(text, table, !errors.is_empty()));
        let folder = path.parent().unwrap_or(Path::new("/"));
        let source = Arc::new(Source::new(name, folder, shown));
        self.loaded.starts.push(Place::new(&source, 0..0));

        let mut problems = syntax::problems(&source, table, &errors);
        self.loaded.torn |= !errors.is_empty();
        let slips: Vec<Place> = problems.iter().filter_map(|problem| problem.place.clone()).collect();
        let mut planter = tree::Planter { source: &source, surroundings: self.surroundings, problems: &mut problems };
        let mut entries = planter.entries(table, &mut Vec::new());
        drop_broken(&mut entries, &slips);
        self.loaded.problems.append(&mut problems);

        let include = entries.iter().position(|entry| entry.key == "include").map(|index| entries.remove(index));
        for entry in entries {
            self.merge(entry);
        }
        if let Some(include) = include {
            self.stack.push(identity);
            self.include(&include.node, name, folder);
            self.stack.pop();
        }
    }

    fn include(&mut self, node: &Node, name: &str, folder: &Path) {
        let items = match &node.kind {
            Kind::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        for item in items {
            match &item.kind {
                Kind::Text { text, .. } => self.include_pattern(text, &item.place, name, folder),
                Kind::Broken => {}
                _ => {
                    let label =
                        format!("expected a file or a pattern such as \"routes.d/*.toml\", found {}", item.words());
                    let problem = Problem::error(Some(item.place.clone()), "wrong type for `include`").label(label);
                    self.loaded.problems.push(problem);
                }
            }
        }
    }

    fn include_pattern(&mut self, pattern: &str, place: &Place, name: &str, folder: &Path) {
        let beside = Path::new(name).parent().unwrap_or(Path::new(""));
        // What people are shown: the pattern's folder as they wrote it, seen from the including file.
        let shown = |path: &Path| {
            let below = path.strip_prefix(folder).ok().filter(|_| !Path::new(pattern).is_absolute());
            below.map_or(path.to_owned(), |below| beside.join(below)).to_string_lossy().into_owned()
        };
        let whole = folder.join(pattern);
        if !pattern.contains(['*', '?', '[']) {
            let path = self.surroundings.absolute(&whole);
            return match self.loop_of(&self.surroundings.identity(&path)) {
                Some(way) => {
                    let problem = Problem::error(Some(place.clone()), "a file includes itself").label(way);
                    self.loaded.problems.push(problem);
                }
                None => self.file(&shown(&path), &path, Some(place)),
            };
        }
        self.loaded.folders.insert(fixed_part(&whole));
        match self.surroundings.glob(&whole.to_string_lossy()) {
            // A pattern may well match the file it stands in.
            Ok(paths) => paths
                .iter()
                .map(|path| self.surroundings.absolute(path))
                .filter(|path| !self.stack.contains(&self.surroundings.identity(path)))
                .collect::<Vec<_>>()
                .iter()
                .for_each(|path| self.file(&shown(path), path, Some(place))),
            Err(why) => {
                let problem = Problem::error(Some(place.clone()), "bad pattern in `include`").label(why);
                self.loaded.problems.push(problem);
            }
        }
    }

    /// If the file is being read already: which files lead back to it.
    fn loop_of(&self, path: &Path) -> Option<String> {
        let start = self.stack.iter().position(|open| open == path)?;
        let file = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut way: Vec<String> = self.stack[start..].iter().map(file).collect();
        way.push(file(&self.stack[start]));
        Some(way.join(" → "))
    }

    fn merge(&mut self, new: Entry) {
        let entries = &mut self.loaded.entries;
        let Some(old) = entries.iter_mut().find(|old| old.key == new.key) else {
            entries.push(new);
            return;
        };
        let twice = |name: &str, first: &Place, again: &Place| {
            Problem::error(Some(again.clone()), format!("`{name}` is in two files"))
                .label("again here")
                .also(Some(first.clone()), "first here")
        };
        match (shape(&new.key), &mut old.node.kind, new.node.kind) {
            (Some(Shape::Named), Kind::Table(known), Kind::Table(more)) => {
                for entry in more {
                    match known.iter().find(|known| known.key == entry.key) {
                        Some(first) => {
                            let name = format!("{}.{}", new.key, entry.key);
                            self.loaded.problems.push(twice(&name, &first.place, &entry.place));
                        }
                        None => known.push(entry),
                    }
                }
            }
            (Some(Shape::List), Kind::List(known), Kind::List(more)) => known.extend(more),
            _ => self.loaded.problems.push(twice(&new.key, &old.place, &new.place)),
        }
    }
}

/// How the files' parts of a key are merged, if they are.
fn shape(key: &str) -> Option<Shape> {
    // Not a section, but names all the same.
    if key == "error_pages" {
        return Some(Shape::Named);
    }
    let schema = <crate::config::model::Config as Section>::schema();
    schema.keys.iter().find(|known| known.name == key).and_then(|known| known.section).map(|(shape, _)| shape)
}

/// Values beside a slip are what the parser made of it, not what was meant.
fn drop_broken(entries: &mut [Entry], slips: &[Place]) {
    for entry in entries {
        if slips.iter().any(|slip| slip.same_line(&entry.place)) && !matches!(entry.node.kind, Kind::Table(_)) {
            entry.node.kind = Kind::Broken;
        }
        match &mut entry.node.kind {
            Kind::Table(entries) => drop_broken(entries, slips),
            Kind::List(items) => {
                for item in items {
                    if let Kind::Table(entries) = &mut item.kind {
                        drop_broken(entries, slips);
                    }
                }
            }
            _ => {}
        }
    }
}

/// The folders of a pattern up to its first wildcard.
fn fixed_part(pattern: &Path) -> PathBuf {
    let plain = |part: &std::path::Component<'_>| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']);
    pattern.components().take_while(plain).collect()
}
