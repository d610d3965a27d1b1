//! Notices that a file has changed: however an editor, `cp`, or Kubernetes' symlink swap does it.
//!
//! What is watched are the directories, never the files: an editor that renames a new file over the old one leaves a watch on the
//! old file watching nothing. Every event only asks [`Watched::changed`] to look at the files again; what it sees decides.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use notify::{Config, EventKind, PollWatcher, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// How often files are looked at where the system cannot tell (no inotify watches left, some network file systems).
const POLL: Duration = Duration::from_secs(2);

/// What a file or directory looked like; two equal prints mean that nothing has happened to it.
type Print = Option<(PathBuf, u64, SystemTime, u64, Vec<PathBuf>)>;

/// The files a configuration was read from, and what they looked like.
pub(super) struct Watched {
    watcher: Box<dyn Watcher + Send>,
    directories: BTreeSet<PathBuf>,
    files: Vec<(PathBuf, Print)>,
    events: UnboundedReceiver<()>,
}

impl Watched {
    /// Watches nothing yet.
    pub(super) fn new() -> Self {
        let (sender, events) = unbounded_channel();
        Watched { watcher: watcher(sender), directories: BTreeSet::new(), files: Vec::new(), events }
    }

    /// From now on watches these files and directories, and no others.
    pub(super) fn watch(&mut self, files: &[PathBuf]) {
        let directories: BTreeSet<PathBuf> = files.iter().flat_map(|file| places(file)).collect();
        for gone in self.directories.difference(&directories) {
            // A directory that was deleted has no watch any more.
            let _ = self.watcher.unwatch(gone);
        }
        for new in directories.difference(&self.directories) {
            if let Err(error) = self.watcher.watch(new, RecursiveMode::NonRecursive) {
                tracing::warn!(directory = %new.display(), %error, "cannot watch for changes here; use SIGHUP or `tidegate reload`");
            }
        }
        self.directories = directories;
        // Who asked `changed` before reading the files finds what changes while they are read: known prints stay.
        let mut seen: HashMap<PathBuf, Print> = std::mem::take(&mut self.files).into_iter().collect();
        let mut print = |file: &PathBuf| seen.remove(file).unwrap_or_else(|| print(file));
        self.files = files.iter().map(|file| (file.clone(), print(file))).collect();
    }

    /// Waits until something may have changed.
    pub(super) async fn stirred(&mut self) {
        if self.events.recv().await.is_none() {
            // The watcher's thread is gone: nothing will ever come.
            std::future::pending::<()>().await;
        }
        while self.events.try_recv().is_ok() {}
    }

    /// Whether any file looks different from when this was last asked.
    pub(super) fn changed(&mut self) -> bool {
        let mut changed = false;
        for (file, seen) in &mut self.files {
            let now = print(file);
            if *seen != now {
                *seen = now;
                changed = true;
            }
        }
        changed
    }
}

fn watcher(sender: UnboundedSender<()>) -> Box<dyn Watcher + Send> {
    let told = sender.clone();
    let tell = move |event: notify::Result<notify::Event>| {
        if !matches!(event, Ok(notify::Event { kind: EventKind::Access(_), .. })) {
            let _ = told.send(());
        }
    };
    match RecommendedWatcher::new(tell, Config::default()) {
        Ok(watcher) => Box::new(watcher),
        Err(error) => {
            tracing::warn!(%error, "the system cannot tell of file changes; looking every {}s", POLL.as_secs());
            let tell = move |_| {
                let _ = sender.send(());
            };
            match PollWatcher::new(tell, Config::default().with_poll_interval(POLL)) {
                Ok(watcher) => Box::new(watcher),
                Err(_) => Box::new(notify::NullWatcher),
            }
        }
    }
}

/// The directories in which something happens when the file changes: its own, and that of whatever it links to.
fn places(file: &Path) -> Vec<PathBuf> {
    let mut places = Vec::new();
    let mut at = file.to_path_buf();
    // Eight links deep is more than any sane setup; a loop of links must end.
    for _ in 0..8 {
        places.push(if at.is_dir() { at.clone() } else { parent(&at) });
        match std::fs::read_link(&at) {
            Ok(target) => at = parent(&at).join(target),
            Err(_) => break,
        }
    }
    // A link further up, as in `current/tidegate.toml`: swapping it changes the file as well.
    let links = file.ancestors().skip(1).filter(|folder| folder.is_symlink());
    places.extend(links.map(parent));
    if let Ok(real) = file.canonicalize() {
        places.push(if real.is_dir() { real } else { parent(&real) });
    }
    places
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

fn print(path: &Path) -> Print {
    let real = path.canonicalize().ok()?;
    let meta = std::fs::metadata(&real).ok()?;
    let mut names: Vec<PathBuf> = Vec::new();
    if meta.is_dir() {
        names = std::fs::read_dir(&real).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        names.sort();
    }
    let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    Some((real, meta.ino(), modified, if meta.is_dir() { 0 } else { meta.len() }, names))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn seen(watched: &mut Watched) {
        let wait = async {
            loop {
                watched.stirred().await;
                if watched.changed() {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("the change was not noticed");
    }

    #[tokio::test]
    async fn a_write_a_rename_over_and_a_symlink_swap_are_all_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("a.toml"), "1").unwrap();
        let mut watched = Watched::new();
        watched.watch(&[path("a.toml")]);

        std::fs::write(path("a.toml"), "22").unwrap();
        seen(&mut watched).await;

        std::fs::write(path("b"), "333").unwrap();
        std::fs::rename(path("b"), path("a.toml")).unwrap();
        seen(&mut watched).await;

        // As Kubernetes does it: file -> ..data/file, ..data -> ..1, then ..data is swapped.
        for (version, text) in [("..1", "one"), ("..2", "two and more")] {
            std::fs::create_dir(path(version)).unwrap();
            std::fs::write(path(version).join("c.toml"), text).unwrap();
        }
        std::os::unix::fs::symlink("..1", path("..data")).unwrap();
        std::os::unix::fs::symlink("..data/c.toml", path("c.toml")).unwrap();
        watched.watch(&[path("c.toml")]);
        std::os::unix::fs::symlink("..2", path("..data_tmp")).unwrap();
        std::fs::rename(path("..data_tmp"), path("..data")).unwrap();
        seen(&mut watched).await;
    }

    #[tokio::test]
    async fn a_swapped_link_to_the_folder_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for (version, text) in [("v1", "one"), ("v2", "two and more")] {
            std::fs::create_dir(path(version)).unwrap();
            std::fs::write(path(version).join("c.toml"), text).unwrap();
        }
        std::os::unix::fs::symlink("v1", path("current")).unwrap();
        let mut watched = Watched::new();
        watched.watch(&[path("current").join("c.toml")]);
        std::os::unix::fs::symlink("v2", path("next")).unwrap();
        std::fs::rename(path("next"), path("current")).unwrap();
        seen(&mut watched).await;
    }

    #[tokio::test]
    async fn other_files_in_the_directory_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.toml"), "1").unwrap();
        let mut watched = Watched::new();
        watched.watch(&[dir.path().join("a.toml")]);
        std::fs::write(dir.path().join("access.log"), "line").unwrap();
        watched.stirred().await;
        assert!(!watched.changed());
    }
}
