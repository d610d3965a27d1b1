use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::folder::{Folder, TakeError, pool_folder, pool_folders};
use super::inbox::{Batch, Inbox};
use super::now;
use super::segment::{Kind, Segment, day_of, days, replace};

/// All files of one pool together; the oldest go first.
const POOL_BYTES: u64 = 256 << 20;
/// One file; what comes above it on the same day is left out.
const FILE_BYTES: u64 = 64 << 20;
const TIDY_EVERY: Duration = Duration::from_secs(600);
const DAY: f64 = 86400.0;

/// Writes what comes in, on its own thread.
pub(super) struct Writer {
    folder: PathBuf,
    retention: Duration,
    taken: Option<Folder>,
    inbox: Arc<Inbox>,
    open: BTreeMap<(String, Kind), Segment>,
    tidied: Option<Instant>,
}

impl Writer {
    pub(super) fn new(folder: PathBuf, retention: Duration, taken: Option<Folder>, inbox: Arc<Inbox>) -> Writer {
        Writer { folder, retention, taken, inbox, open: BTreeMap::new(), tidied: None }
    }

    /// Until the inbox is told to stop.
    pub(super) fn run(mut self) {
        while let Some(mut batch) = self.inbox.take() {
            match self.write(&mut batch) {
                Ok(()) => self.inbox.written(),
                Err(error) => {
                    // Opened anew, files are looked over for half a line first.
                    self.open.clear();
                    self.inbox.give_back(batch, &self.folder, &error);
                    if self.inbox.is_stopped() {
                        break;
                    }
                }
            }
        }
        // The folder is free before anybody is told that we have ended.
        self.taken = None;
        self.inbox.end();
    }

    /// Writes a batch; on an error, what was not written is left in it.
    fn write(&mut self, batch: &mut Batch) -> io::Result<()> {
        self.hold()?;
        self.tidy();
        while let Some(pool) = batch.lines.front().map(|line| line.pool.clone()) {
            let (kind, day) =
                batch.lines.front().map(|line| (line.kind, line.day.clone())).unwrap_or((Kind::History, String::new()));
            let alike = batch.lines.iter().take_while(|line| line.pool == pool && line.kind == kind && line.day == day);
            let mut count = 0;
            let mut text = String::new();
            for line in alike {
                text.push_str(&line.text);
                text.push('\n');
                count += 1;
            }
            self.append(&pool, kind, &day, text.as_bytes())?;
            batch.lines.drain(..count);
        }
        while let Some((pool, text)) = batch.states.first_key_value() {
            replace(&pool_folder(&self.folder, pool).join("state.json"), text)?;
            batch.states.pop_first();
        }
        Ok(())
    }

    /// Takes the folder, where that has not been possible yet.
    fn hold(&mut self) -> io::Result<()> {
        if self.taken.is_none() {
            self.taken = Some(Folder::take(&self.folder).map_err(|error| match error {
                TakeError::Io(error) => error,
                TakeError::InUse(by) => {
                    io::Error::new(io::ErrorKind::ResourceBusy, format!("it is in use by another process ({by})"))
                }
            })?);
        }
        Ok(())
    }

    fn append(&mut self, pool: &str, kind: Kind, day: &str, lines: &[u8]) -> io::Result<()> {
        let key = (pool.to_owned(), kind);
        if self.open.get(&key).is_none_or(|segment| segment.day != day || segment.is_gone()) {
            let segment = Segment::open(&pool_folder(&self.folder, pool), day, kind)?;
            self.open.insert(key.clone(), segment);
        }
        let Some(segment) = self.open.get_mut(&key) else { return Ok(()) };
        if segment.length() + lines.len() as u64 > FILE_BYTES {
            if !std::mem::replace(&mut segment.full, true) {
                tracing::warn!(
                    pool,
                    day,
                    "the scaler's history of this day is full; what comes until tomorrow is not kept"
                );
            }
            return Ok(());
        }
        segment.append(lines)
    }

    /// Now and then deletes what is older than is to be kept, and the oldest where there is too much.
    fn tidy(&mut self) {
        if self.tidied.is_some_and(|tidied| tidied.elapsed() < TIDY_EVERY) {
            return;
        }
        self.tidied = Some(Instant::now());
        let now = now();
        for folder in pool_folders(&self.folder) {
            for kind in Kind::ALL {
                let kept = if kind == Kind::Seconds { DAY } else { self.retention.as_secs_f64() };
                let oldest = day_of(now - kept);
                for (_, path) in days(&folder, kind).into_iter().filter(|(day, _)| *day < oldest) {
                    remove(&path);
                }
            }
            bound(&folder, POOL_BYTES);
            self.forget(&folder, now);
        }
    }

    /// Deletes what is left of a pool that is long gone.
    fn forget(&self, folder: &Path, now: f64) {
        let state = folder.join("state.json");
        let age = fs::metadata(&state).and_then(|metadata| metadata.modified()).ok();
        let age = age.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok()).map(|at| now - at.as_secs_f64());
        if age.is_some_and(|age| age > self.retention.as_secs_f64())
            && Kind::ALL.iter().all(|kind| days(folder, *kind).is_empty())
        {
            remove(&state);
            // Fails where people have put something there, and should.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Deletes the oldest files of a pool until the rest is no larger than `most`; the last day always stays.
fn bound(folder: &Path, most: u64) {
    let mut files: Vec<_> = Kind::ALL.iter().flat_map(|kind| days(folder, *kind)).collect();
    files.sort();
    let size = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    let mut total: u64 = files.iter().map(|(_, path)| size(path)).sum();
    let last = files.last().map(|(day, _)| day.clone());
    for (day, path) in files {
        if total <= most || Some(&day) == last.as_ref() {
            break;
        }
        total -= size(&path);
        remove(&path);
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(file = %path.display(), %error, "cannot delete an old file of the scaler's history; delete it by hand");
    }
}

#[cfg(test)]
mod tests {
    use super::super::segment::path_of;
    use super::*;

    #[test]
    fn the_oldest_files_go_first_and_the_last_day_stays() {
        let folder = tempfile::tempdir().unwrap();
        let left = || days(folder.path(), Kind::History).into_iter().map(|(day, _)| day).collect::<Vec<_>>();
        for day in ["2026-11-20", "2026-11-21", "2026-11-22"] {
            fs::write(path_of(folder.path(), day, Kind::History), [b'x'; 1000]).unwrap();
        }
        bound(folder.path(), 2500);
        assert_eq!(left(), ["2026-11-21", "2026-11-22"]);
        bound(folder.path(), 10);
        assert_eq!(left(), ["2026-11-22"]);
    }
}
