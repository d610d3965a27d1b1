use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What a pool's name is left as in a path; `.` is not, so that no name can lead elsewhere.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');
/// File systems take names of 255 bytes.
const LONGEST: usize = 200;

/// The right to write a folder, as long as it is held. The kernel takes it back when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Folder {
    _lock: File,
}

/// Why a folder is not ours.
#[derive(Debug)]
pub(super) enum TakeError {
    /// Somebody else has it: `process 4711`.
    InUse(String),
    /// It cannot be made or written.
    Io(io::Error),
}

impl Folder {
    /// Takes a folder, making it where it is missing.
    pub(super) fn take(path: &Path) -> Result<Folder, TakeError> {
        fs::create_dir_all(path).map_err(TakeError::Io)?;
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let mut lock = options.open(path.join("lock")).map_err(TakeError::Io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(TakeError::Io(error)),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = lock.read_to_string(&mut holder);
                let number = holder.trim();
                let by = if number.is_empty() { "of unknown number".to_owned() } else { format!("process {number}") };
                return Err(TakeError::InUse(by));
            }
        }
        // Only for people: the lock is the kernel's.
        let written = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        written.map_err(TakeError::Io)?;
        Ok(Folder { _lock: lock })
    }
}

/// Where a pool's files are.
pub(super) fn pool_folder(folder: &Path, pool: &str) -> PathBuf {
    let mut name = utf8_percent_encode(pool, PLAIN).to_string();
    if name.len() > LONGEST {
        let hash = crate::balance::stable_hash(pool.as_bytes());
        name.truncate(LONGEST);
        name.push_str(&format!("-{hash:016x}"));
    }
    folder.join(name)
}

/// The folders of all pools that have files, also of those that are not configured any more.
pub(super) fn pool_folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}
