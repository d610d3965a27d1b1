//! What instances write: into a file, never into a pipe of ours, and from there into our log.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::record::file;
use super::{Shared, lock};

/// How often is looked for more.
const LOOK: Duration = Duration::from_millis(250);
/// At most so much of one instance at each look.
const AT_ONCE: u64 = 64 << 10;
/// Whoever writes so much faster than is read loses what lies between.
const BEHIND: u64 = 1 << 20;
/// A file that has been read and is larger is emptied.
const LARGEST: u64 = 8 << 20;
/// Longer lines are cut.
const LONGEST: usize = 4096;

/// Writes the instances' lines into our log, as long as their driver is there.
pub(super) fn follow(shared: &Arc<Shared>, here: &Arc<()>) {
    let (shared, here): (Weak<Shared>, Weak<()>) = (Arc::downgrade(shared), Arc::downgrade(here));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK).await;
            let (Some(shared), Some(_)) = (shared.upgrade(), here.upgrade()) else { return };
            if tokio::task::spawn_blocking(move || shared.read_all()).await.is_err() {
                return;
            }
        }
    });
}

impl Shared {
    fn read_all(&self) {
        let all: Vec<(String, u64)> =
            lock(&self.instances).iter().map(|(id, instance)| (id.clone(), instance.read)).collect();
        for (id, read) in all {
            let path = file(&self.folder, &id, "out");
            let read = self.read(&id, &path, read, false);
            if let Some(instance) = lock(&self.instances).get_mut(&id) {
                instance.read = read;
            }
        }
    }

    /// The rest of what one has written, before its file goes; so much of that has been read.
    pub(super) fn last_words(&self, id: &str, path: &Path, read: u64) {
        self.read(id, path, read, true);
    }

    /// Logs what is new. Answers how far it has been read. `whole`: also a last line that has no end.
    fn read(&self, id: &str, path: &Path, mut read: u64, whole: bool) -> u64 {
        let Ok(mut file) = File::open(path) else { return 0 };
        let size = file.metadata().map_or(0, |file| file.len());
        if size < read {
            read = 0;
        }
        if size - read > BEHIND {
            let skipped = size - read - AT_ONCE;
            tracing::warn!(target: "tidegate::instance", pool = %self.pool, instance = %id, "{skipped} bytes of output are skipped: it writes faster than the log can take");
            read += skipped;
        }
        let mut bytes = Vec::new();
        if size > read && file.seek(SeekFrom::Start(read)).is_ok() && file.take(AT_ONCE).read_to_end(&mut bytes).is_ok()
        {
            let end = memchr::memrchr(b'\n', &bytes).map(|at| at + 1);
            let end = end.unwrap_or(if whole || bytes.len() > LONGEST { bytes.len() } else { 0 });
            let end = if whole { bytes.len() } else { end };
            for line in bytes[..end].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                tracing::info!(target: "tidegate::instance", pool = %self.pool, instance = %id, "{}", clean(line));
            }
            read += end as u64;
        }
        // Whoever writes appends, so that an emptied file goes on from its start.
        if size >= LARGEST && read >= size {
            let emptied = OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(0));
            read = if emptied.is_ok() { 0 } else { read };
        }
        read
    }
}

/// The last line that somebody has written.
pub(super) fn last_line(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(2048))).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let line = bytes.split(|byte| *byte == b'\n').rfind(|line| !line.trim_ascii().is_empty())?;
    Some(clean(line).chars().take(200).collect())
}

/// As text without anything that could act on a terminal or begin a line of its own.
pub(crate) fn clean(line: &[u8]) -> String {
    let cut = &line[..line.len().min(LONGEST)];
    let text = String::from_utf8_lossy(cut);
    let plain = text.trim_end().chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c });
    let more = if line.len() > LONGEST { " …" } else { "" };
    plain.collect::<String>() + more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_cannot_act_and_are_cut() {
        assert_eq!(clean(b"plain\r"), "plain");
        assert_eq!(clean(b"\x1b[31mred\x07"), "\u{fffd}[31mred\u{fffd}");
        assert_eq!(clean(&[b'x'; 5000]).chars().count(), LONGEST + 2);
    }

    #[test]
    fn the_last_line_is_the_last_that_says_something() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out");
        std::fs::write(&path, "one\ntwo\n\n  \n").expect("written");
        assert_eq!(last_line(&path).as_deref(), Some("two"));
        std::fs::write(&path, "").expect("written");
        assert_eq!(last_line(&path), None);
    }
}
