use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// What a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Decisions and their outcomes.
    History,
    /// Samples of 10 s.
    Seconds,
    /// Samples of 5 min.
    Minutes,
}

impl Kind {
    pub(super) const ALL: [Kind; 3] = [Kind::History, Kind::Seconds, Kind::Minutes];

    fn suffix(self) -> &'static str {
        match self {
            Kind::History => ".history.jsonl",
            Kind::Seconds => ".10s.jsonl",
            Kind::Minutes => ".5m.jsonl",
        }
    }
}

/// The day (UTC) that a time is in: `2026-11-26`. Days sort as texts.
pub(super) fn day_of(at: f64) -> String {
    let at = Timestamp::from_second(at as i64).unwrap_or(Timestamp::UNIX_EPOCH);
    at.to_zoned(TimeZone::UTC).date().to_string()
}

/// The file of a day.
pub(super) fn path_of(pool_folder: &Path, day: &str, kind: Kind) -> PathBuf {
    pool_folder.join(format!("{day}{}", kind.suffix()))
}

/// The days that there are files of, with these, the oldest first.
pub(super) fn days(pool_folder: &Path, kind: Kind) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(pool_folder).into_iter().flatten().flatten();
    let found = entries.filter_map(|entry| {
        let day = entry.file_name().to_str()?.strip_suffix(kind.suffix())?.to_owned();
        Some((day, entry.path()))
    });
    let mut days: Vec<_> = found.collect();
    days.sort();
    days
}

/// A file that lines are added to.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) day: String,
    /// Whether it was said that it takes no more.
    pub(super) full: bool,
    file: File,
    /// What is known to be whole lines.
    good: u64,
}

impl Segment {
    /// Opens a day's file. Half a line at its end, left behind by a process that was killed, is taken away: nobody was told that it is there.
    pub(super) fn open(pool_folder: &Path, day: &str, kind: Kind) -> io::Result<Segment> {
        fs::create_dir_all(pool_folder)?;
        let path = path_of(pool_folder, day, kind);
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        let length = file.metadata()?.len();
        let good = whole_lines(&mut file, length)?;
        if good < length {
            tracing::info!(file = %path.display(), bytes = length - good, "took away half a line at the end of a history file");
            file.set_len(good)?;
        }
        Ok(Segment { day: day.to_owned(), full: false, file, good })
    }

    /// Adds whole lines and waits until they are on the disk. Where that fails nothing of them stays, as far as the disk lets us.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(lines).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => self.good += lines.len() as u64,
            Err(_) => drop(self.file.set_len(self.good)),
        }
        written
    }

    /// How long it is.
    pub(super) fn length(&self) -> u64 {
        self.good
    }

    /// Whether somebody has deleted it under us.
    pub(super) fn is_gone(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }
}

/// How many of the first `length` bytes are whole lines.
fn whole_lines(file: &mut File, length: u64) -> io::Result<u64> {
    const STEP: u64 = 64 << 10;
    let mut end = length;
    let mut chunk = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(STEP);
        chunk.resize((end - start) as usize, 0);
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut chunk)?;
        if let Some(at) = memchr::memrchr(b'\n', &chunk) {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Replaces a file as a whole: whoever reads it sees the old or the new one, also after a crash.
pub(super) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if let Err(error) = written {
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}
