//! What a configuration is read in: further files, environment variables and the date.
//!
//! The rest of this module sees the world only through [`Surroundings`], so that golden tests and fuzzers need no disk.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Where files and variables come from.
pub trait Surroundings {
    /// The whole of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The files that match a pattern such as `/etc/tidegate/routes.d/*.toml`, in the order of their names.
    ///
    /// **Errors**: a pattern that is not one, in words.
    fn glob(&self, pattern: &str) -> Result<Vec<PathBuf>, String>;

    /// An environment variable.
    fn variable(&self, name: &str) -> Option<String>;

    /// The path from the root of the file system.
    fn absolute(&self, path: &Path) -> PathBuf;

    /// One path for all the paths that lead to a file, to know it again.
    fn identity(&self, path: &Path) -> PathBuf;

    /// The date, for certificates that have expired.
    fn now(&self) -> SystemTime;
}

/// The machine we run on.
#[derive(Debug, Clone, Copy)]
pub struct Disk;

/// No file of a configuration is larger; what is larger is a device or a mistake.
const LARGEST_FILE: u64 = 64 << 20;

impl Surroundings for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        // A FIFO would keep a reload waiting for a writer that may never come; a shell's `<(…)` and stdin are meant.
        let kind = std::fs::metadata(path)?.file_type();
        if kind.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        if !kind.is_file() && !path.starts_with("/dev") {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LARGEST_FILE { Err(io::Error::from(io::ErrorKind::FileTooLarge)) } else { Ok(bytes) }
    }

    fn glob(&self, pattern: &str) -> Result<Vec<PathBuf>, String> {
        let paths = glob::glob(pattern).map_err(|error| error.msg.to_owned())?;
        // A folder that cannot be read is as good as empty here; naming one of its files says why.
        Ok(paths.filter_map(Result::ok).filter(|path| !path.is_dir()).collect())
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn absolute(&self, path: &Path) -> PathBuf {
        std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
    }

    fn identity(&self, path: &Path) -> PathBuf {
        std::fs::canonicalize(path).unwrap_or_else(|_| self.absolute(path))
    }

    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A world of its own, for tests, the demo and other programs: files and variables in memory.
///
/// Relative paths start from `/`.
#[derive(Debug, Clone)]
pub struct Memory {
    /// The files, by absolute path.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// The environment.
    pub variables: BTreeMap<String, String>,
    /// The date.
    pub now: SystemTime,
}

impl Default for Memory {
    fn default() -> Self {
        // Some day in 2026: tests do not age.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000);
        Memory { files: BTreeMap::new(), variables: BTreeMap::new(), now }
    }
}

impl Memory {
    /// With a file.
    #[must_use]
    pub fn file(mut self, path: impl AsRef<Path>, content: impl Into<Vec<u8>>) -> Self {
        self.files.insert(self.absolute(path.as_ref()), content.into());
        self
    }
}

impl Surroundings for Memory {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.get(&self.absolute(path)).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn glob(&self, pattern: &str) -> Result<Vec<PathBuf>, String> {
        let absolute = self.absolute(Path::new(pattern));
        let pattern = glob::Pattern::new(&absolute.to_string_lossy()).map_err(|error| error.msg.to_owned())?;
        let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
        Ok(self.files.keys().filter(|path| pattern.matches_path_with(path, options)).cloned().collect())
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    fn absolute(&self, path: &Path) -> PathBuf {
        // There are no symbolic links here, so `..` can be taken by its word.
        let mut whole = PathBuf::from("/");
        for part in path.components() {
            match part {
                Component::ParentDir => drop(whole.pop()),
                Component::Normal(name) => whole.push(name),
                _ => {}
            }
        }
        whole
    }

    fn identity(&self, path: &Path) -> PathBuf {
        self.absolute(path)
    }

    fn now(&self) -> SystemTime {
        self.now
    }
}

/// Why a file could not be read, in a few words.
pub(crate) fn read_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        io::ErrorKind::FileTooLarge => "it is larger than 64 MiB".to_owned(),
        _ => error.to_string(),
    }
}
