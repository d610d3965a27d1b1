use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use futures_util::future::LocalBoxFuture;

use super::{Election, ElectionError, Standing};

/// An election among the proxies of one host: whoever holds the lock of a file leads.
///
/// The kernel gives the lock back when its process ends, however it ends, so a successor takes over with its next campaign. The file's text,
/// `GENERATION IDENTITY`, outlives leaders. Nothing here waits: a local file's lock is there or not.
///
/// Only for a local file system: over a network locks are lost without notice.
#[derive(Debug)]
pub struct FileLock {
    path: PathBuf,
    identity: String,
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    file: File,
    generation: u64,
}

/// Given up by name, not only by closing: a process that is just being started has this file open too, until it
/// becomes another program, and would hold the lock as long as that takes.
impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

impl FileLock {
    /// A candidate of this name for the lock of this file, which is made where it is missing.
    pub fn new(path: PathBuf, identity: String) -> FileLock {
        FileLock { path, identity, held: None }
    }

    fn stand(&mut self) -> io::Result<Standing> {
        if let Some(held) = &self.held {
            // Somebody who replaced the file could lock theirs: only who holds the file of this name leads.
            if is_same(&held.file, &self.path) {
                return Ok(Standing { leads: true, leader: Some(self.identity.clone()), generation: held.generation });
            }
            self.held = None;
        }
        if let Some(parent) = self.path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&self.path)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let (generation, leader) = read(&mut file)?;
                return Ok(Standing { leads: false, leader, generation });
            }
            Err(TryLockError::Error(error)) => return Err(error),
            Ok(()) if !is_same(&file, &self.path) => return Ok(Standing::default()),
            Ok(()) => {}
        }
        let generation = read(&mut file)?.0 + 1;
        file.seek(SeekFrom::Start(0))?;
        // Written over the old text and cut afterwards: a process that dies between leaves no smaller number behind.
        let text = format!("{generation} {}\n", self.identity);
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)?;
        file.sync_data()?;
        self.held = Some(Held { file, generation });
        Ok(Standing { leads: true, leader: Some(self.identity.clone()), generation })
    }
}

impl Election for FileLock {
    fn campaign(&mut self) -> LocalBoxFuture<'_, Result<Standing, ElectionError>> {
        let standing = self.stand().map_err(|error| ElectionError {
            what: format!("cannot lock {} to find out who leads: {error}", self.path.display()),
            advice: "let this process's user write that file, or name another one in `scaler.leader.file`".to_owned(),
        });
        if standing.is_err() {
            self.held = None;
        }
        Box::pin(async { standing })
    }

    fn resign(&mut self) -> LocalBoxFuture<'_, ()> {
        self.held = None;
        Box::pin(async {})
    }
}

/// Whether an open file is still the one of that name.
fn is_same(file: &File, path: &Path) -> bool {
    let (ours, theirs) = (file.metadata(), fs::metadata(path));
    matches!((ours, theirs), (Ok(ours), Ok(theirs)) if (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()))
}

/// The generation and the leader that a file tells.
fn read(file: &mut File) -> io::Result<(u64, Option<String>)> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(1024).read_to_string(&mut text)?;
    let (generation, leader) = text.lines().next().unwrap_or_default().split_once(' ').unwrap_or_default();
    Ok((generation.parse().unwrap_or(0), Some(leader.to_owned()).filter(|leader| !leader.is_empty())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stand(candidate: &mut FileLock) -> (bool, Option<String>, u64) {
        let standing = candidate.stand().unwrap();
        (standing.leads, standing.leader, standing.generation)
    }

    #[test]
    fn one_leads_the_other_knows_who_and_follows_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/leader");
        let (mut one, mut other) = (FileLock::new(path.clone(), "one".into()), FileLock::new(path, "other".into()));
        let (first, second) = (Some("one".to_owned()), Some("other".to_owned()));
        assert_eq!(stand(&mut one), (true, first.clone(), 1));
        assert_eq!(stand(&mut other), (false, first.clone(), 1));
        assert_eq!(stand(&mut one), (true, first, 1));
        one.held = None;
        assert_eq!(stand(&mut other), (true, second.clone(), 2));
        assert_eq!(stand(&mut one), (false, second, 2));
    }

    #[test]
    fn a_lock_is_given_up_though_a_process_that_is_being_started_has_the_file_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("leader");
        let (mut one, mut other) = (FileLock::new(path.clone(), "one".into()), FileLock::new(path, "other".into()));
        assert!(stand(&mut one).0);
        let inherited = one.held.as_ref().unwrap().file.try_clone().unwrap();
        futures_util::FutureExt::now_or_never(one.resign()).unwrap();
        assert_eq!(stand(&mut other), (true, Some("other".to_owned()), 2));
        drop(inherited);
    }

    #[test]
    fn whoever_holds_a_file_that_was_replaced_leads_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("leader");
        let (mut one, mut other) =
            (FileLock::new(path.clone(), "one".into()), FileLock::new(path.clone(), "other".into()));
        assert!(stand(&mut one).0);
        fs::remove_file(&path).unwrap();
        assert!(stand(&mut other).0);
        assert!(!stand(&mut one).0);
    }

    #[test]
    fn a_file_that_cannot_be_had_is_an_error_that_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let mut candidate = FileLock::new(folder.path().to_owned(), "one".into());
        let error = futures_util::FutureExt::now_or_never(candidate.campaign()).unwrap().unwrap_err();
        assert!(error.to_string().contains("scaler.leader.file"), "{error}");
    }
}
