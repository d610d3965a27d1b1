//! The key that MCP session ids are sealed with where the configuration has none: made once, kept in the state folder.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ring::rand::{SecureRandom, SystemRandom};

const LENGTH: usize = 32;

/// The folder's key; made if there is none. Where the folder cannot be used, one for this process alone.
pub(super) fn kept(folder: &Path) -> Vec<u8> {
    let path = folder.join("mcp.key");
    let found = read(&path).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => make(folder, &path),
        _ => Err(error),
    });
    found.unwrap_or_else(|error| {
        let path = path.display();
        tracing::warn!(
            "cannot keep {path}: {error}; MCP sessions will not survive a restart: set mcp.keys, or scaler.state to a folder that can be written"
        );
        random()
    })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let key = fs::read(path)?;
    let short = || {
        io::Error::new(io::ErrorKind::InvalidData, format!("expected {LENGTH} bytes; delete it to have it made anew"))
    };
    if key.len() == LENGTH { Ok(key) } else { Err(short()) }
}

/// Written beside and linked into place: of two proxies that start at once both get the same.
fn make(folder: &Path, path: &Path) -> io::Result<Vec<u8>> {
    fs::create_dir_all(folder)?;
    let beside = folder.join(format!("mcp.key.{}", std::process::id()));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(&random())?;
    file.sync_all()?;
    let linked = fs::hard_link(&beside, path);
    fs::remove_file(&beside)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => read(path),
    }
}

/// **Panics**: where the system has no randomness, which nothing secret may start without.
fn random() -> Vec<u8> {
    let mut key = vec![0; LENGTH];
    SystemRandom::new().fill(&mut key).expect("the system's randomness");
    key
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let first = kept(&state);
        assert_eq!((first.len(), kept(&state)), (LENGTH, first));
        let mode = fs::metadata(state.join("mcp.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1);
        fs::write(state.join("mcp.key"), "short").unwrap();
        assert_ne!(kept(&state), kept(&state), "what cannot be used is not overwritten");
        assert_eq!(fs::read(state.join("mcp.key")).unwrap(), b"short");
    }
}
