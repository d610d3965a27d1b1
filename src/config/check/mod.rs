//! Whether a configuration that reads well also makes sense: names that lead somewhere, numbers that go together, files
//! that are there.
//!
//! The checks see the model, the table of places beside it and the [`Surroundings`]; never the text, so that every
//! language is checked alike. They report all they find.

mod access;
mod admin;
mod change;
mod driver;
mod header;
mod listener;
mod mcp;
mod name;
mod page;
mod pool;
mod reach;
mod route;
mod scaler;
mod tls;

pub(crate) use access::resource_path;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::model::Config;
use super::place::At;
use super::section::{Report, Section};
use super::surroundings::{Surroundings, read_error};

/// A configuration being checked.
pub(crate) struct Check<'a> {
    pub(crate) config: &'a Config,
    pub(crate) surroundings: &'a dyn Surroundings,
    pub(crate) report: Report<'a>,
    /// Every file that was looked at.
    pub(crate) files: BTreeSet<PathBuf>,
    /// Whether parts of the configuration are not known, so that a name may well be there that is not found.
    pub(crate) torn: bool,
}

impl Check<'_> {
    /// Checks everything.
    pub(crate) fn run(&mut self) {
        self.config.examine_entries(&At::root(), &mut self.report);
        self.names();
        self.admin();
        self.listeners();
        self.mcp_keys();
        self.pools();
        self.scalers();
        self.routes();
        self.error_pages(&At::root().key("error_pages"), &self.config.error_pages);
    }

    /// The content of a file, if it can be read; otherwise that is a problem.
    fn file(&mut self, at: &At, path: &Path, what: &str) -> Option<Vec<u8>> {
        self.files.insert(path.to_owned());
        match self.surroundings.read(path) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                let label = format!("{}: {}", path.display(), read_error(&error));
                self.report.error(at, format!("cannot read the {what}"), label);
                None
            }
        }
    }

    /// Warns of those keys of a section that are set although nothing asks for them.
    fn no_effect(&mut self, at: &At, set: &[(&str, bool)], label: &str) {
        for (key, _) in set.iter().filter(|(_, set)| *set) {
            let key = at.key(key);
            self.report.warning_at_key(&key, format!("`{key}` has no effect"), label);
        }
    }

    /// Whether a key was written.
    fn written(&self, at: &At) -> bool {
        self.report.places.has(at)
    }

    /// Whether nothing is to be said of a part because it could not be read.
    fn failed(&self, at: &At) -> bool {
        self.report.places.failed(at)
    }
}
