//! Configuration: from text to a checked model, every error pointed at.
//!
//! A language's reader (here [`native`], later NGINX's and HAProxy's) fills the one [`model`] and a table of [`Places`]
//! beside it; the checks see only these two, so every language is checked alike. All problems are gathered and told at
//! once; a configuration is whole or it is not there.
//!
//! Nothing here opens a file by itself, reads a clock or changes what runs: the world comes in as [`Surroundings`].
//! Why not one struct with serde attributes for text and runtime: see `section.rs`.

mod access;
mod check;
mod command;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod golden;
pub mod hpa;
mod mcp;
pub mod model;
mod native;
mod near;
mod node;
mod out;
mod place;
mod problem;
mod reference;
mod rule;
mod scale_settings;
mod scaling;
mod secret;
mod section;
mod setting;
mod show;
mod source;
mod surroundings;
mod value;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use check::resource_path;
pub use command::{Answer, check, show_file};
pub use model::Config;
pub use out::{HIDDEN, Secrets};
pub use place::{At, Places};
pub use problem::{Problem, Severity, render};
pub use reference::reference;
pub use rule::{route_names, rules};
pub use scale_settings::settings;
pub use show::{defaults, show};
pub use source::{Place, Source};
pub use surroundings::{Disk, Memory, Surroundings};

use section::{Reader, Report, Schema, Section as _};

/// What came of reading a configuration.
#[derive(Debug)]
pub struct Outcome {
    /// The configuration, if nothing refuses it.
    pub config: Option<Arc<Config>>,
    /// Everything wrong with it, errors and warnings, in the order of the text.
    pub problems: Vec<Problem>,
    /// Where each part of it stands.
    pub places: Places,
    /// Every file it depends on, absolute: its own, included ones, certificates, keys, error pages; also those that
    /// could not be read. A change of any of them can change the outcome.
    pub files: BTreeSet<PathBuf>,
    /// Folders in which a new file would be included.
    pub folders: BTreeSet<PathBuf>,
}

impl Outcome {
    /// The errors alone.
    pub fn errors(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|problem| problem.is_error())
    }

    /// The warnings alone.
    pub fn warnings(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|problem| !problem.is_error())
    }
}

/// Reads the file and all it names from the disk.
pub fn from_disk(path: &Path) -> Outcome {
    read(&path.to_string_lossy(), &Disk)
}

/// Reads a file by the name people know it by, and all it names.
pub fn read(name: &str, surroundings: &dyn Surroundings) -> Outcome {
    build(native::load(name, None, surroundings), surroundings)
}

/// Reads a text under a name; paths in it start from the folder that the name is in.
pub fn read_text(name: &str, text: &str, surroundings: &dyn Surroundings) -> Outcome {
    build(native::load(name, Some(text), surroundings), surroundings)
}

fn build(loaded: native::Loaded, surroundings: &dyn Surroundings) -> Outcome {
    let native::Loaded { entries, starts, mut files, folders, mut problems, torn } = loaded;
    let mut places = Places::default();
    let mut config = None;
    if let Some(start) = starts.first() {
        let node = node::Node { place: start.clone(), kind: node::Kind::Table(entries) };
        let mut reader = Reader { places: &mut places, problems: &mut problems };
        config = reader.section::<Config>(&node, &At::root());
    }
    if let Some(config) = &config {
        let report = Report { places: &places, problems: Vec::new() };
        let mut check = check::Check { config, surroundings, report, files: BTreeSet::new(), torn };
        check.run();
        problems.append(&mut check.report.problems);
        files.append(&mut check.files);
    }
    let number = |place: &Place| starts.iter().position(|start| Arc::ptr_eq(start.source(), place.source()));
    problems.sort_by_key(|problem| {
        // What is about no place in particular comes last.
        problem.place.as_ref().map_or((usize::MAX, 0), |place| (number(place).unwrap_or(usize::MAX), place.start()))
    });
    let refused = problems.iter().any(Problem::is_error);
    let config = config.filter(|_| !refused).map(Arc::new);
    Outcome { config, problems, places, files, folders }
}

/// Every section of the configuration, each before its parts, the whole first.
fn schemas() -> Vec<Schema> {
    fn visit(schema: Schema, schemas: &mut Vec<Schema>) {
        if schemas.iter().any(|known| known.path == schema.path) {
            return;
        }
        let parts: Vec<fn() -> Schema> =
            schema.keys.iter().filter_map(|key| key.section.map(|(_, part)| part)).collect();
        schemas.push(schema);
        for part in parts {
            visit(part(), schemas);
        }
    }
    let mut schemas = Vec::new();
    visit(Config::schema(), &mut schemas);
    schemas
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_on_the_disk_are_found_from_where_they_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        std::fs::create_dir(folder.path().join("routes")).unwrap();
        write("main.toml", "include = [\"routes/*.toml\", \"routes/../main2.toml\"]\n[listener.web]\nbind = \":80\"\n");
        write("main2.toml", "error_pages = { 502 = \"sorry.html\" }\n");
        write("sorry.html", "sorry");
        write("routes/b.toml", "[[route]]\npath = \"/b\"\nrespond = 204\nerror_pages = { 404 = \"lost.html\" }\n");
        write("routes/lost.html", "lost");
        std::os::unix::fs::symlink("../main.toml", folder.path().join("routes/a.toml")).unwrap();
        let outcome = from_disk(&folder.path().join("main.toml"));
        assert!(outcome.problems.is_empty(), "{}", render(&outcome.problems, false));
        let config = outcome.config.unwrap();
        assert_eq!(config.route[0].error_pages["404"], folder.path().join("routes/lost.html"));
        assert_eq!(std::fs::read(&config.error_pages["502"]).unwrap(), b"sorry");
        assert_eq!(outcome.folders.into_iter().collect::<Vec<_>>(), [folder.path().join("routes")]);
        for name in ["main.toml", "routes/b.toml", "routes/lost.html", "sorry.html"] {
            let known = outcome.files.iter().any(|file| std::fs::canonicalize(file).unwrap().ends_with(name));
            assert!(known, "{name}");
        }
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["", "none.toml"] {
            let outcome = from_disk(&folder.path().join(name));
            assert!(outcome.config.is_none());
            assert!(outcome.problems[0].message.starts_with("cannot read the configuration file"));
        }
        assert!(from_disk(Path::new("/dev/zero")).config.is_none());
    }

    #[test]
    fn the_issue_s_example_reads() {
        let text = r#"
[listener.web]
bind = "0.0.0.0:8080"

[pool.tools]
balance   = "ewma"
upstreams = ["127.0.0.1:9001", { address = "127.0.0.1:9002", weight = 2 }]
health    = { path = "/health", interval = "2s", rise = 2, fall = 3 }

[[route]]
host = "mcp.example.com"
path = "/mcp"
pool = "tools"
limit = { rate = "100/s", burst = 50, connections = 20, per = "client" }
"#;
        let outcome = read_text("tidegate.toml", text, &Memory::default());
        let problems: Vec<String> = outcome.problems.iter().map(|problem| problem.render(false)).collect();
        let config = outcome.config.unwrap_or_else(|| panic!("{}", problems.join("\n")));
        assert_eq!(config.pool["tools"].upstreams[1].weight, 2);
        assert_eq!(config.pool["tools"].health.as_ref().unwrap().path, "/health");
        assert_eq!(config.route[0].limit[0].burst, 50);
        assert_eq!(config.listener["web"].bind.len(), 1);
    }
}
