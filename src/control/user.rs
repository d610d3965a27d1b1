//! Giving up root: once the configuration has been read, and before anything is opened, the process goes on as another user.
//!
//! Why not behind the opening: whatever root can open and that user cannot would fail at the next reload instead, where nobody looks.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{File, read_dir};
use std::io;
use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User, initgroups, setgid, setgroups, setuid};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_keep_capabilities};

use crate::config;

/// What is kept: to listen on ports below 1024, now and after a reload.
const KEPT: CapabilitySet = CapabilitySet::NET_BIND_SERVICE;

/// Makes the process go on as `wanted`, which is `USER` or `USER:GROUP`, by name or number, with the groups that user is in. Threads that
/// exist go on as that user with no capability at all; the calling one, and those it starts, may still listen on ports below 1024.
///
/// Who is not root stays who they are, and is told so where that is somebody else.
///
/// **Errors**: there is no such user or group, the system does not allow it, or that user could not read again what the configuration
/// depends on. The process is not to go on then.
pub(super) fn go_on_as(wanted: &str, read: &config::Outcome) -> Result<(), String> {
    let user = Wanted::look_up(wanted)?;
    if user.uid.is_root() {
        return Err(format!(
            "`user` is \"{wanted}\", which is root: name another user, or leave `user` out to stay root"
        ));
    }
    if !Uid::effective().is_root() {
        if (user.uid, user.gid) != (Uid::effective(), Gid::effective()) {
            let (uid, gid) = (Uid::effective(), Gid::effective());
            tracing::warn!("`user` is \"{wanted}\", and only root can become another user: going on as {uid}:{gid}");
        }
        return Ok(());
    }
    user.become_it().map_err(|error| {
        format!("cannot go on as `user` \"{wanted}\": {error}; it takes CAP_SETUID and CAP_SETGID, or leave `user` out")
    })?;
    tracing::info!("going on as user \"{wanted}\"");
    let closed = unreadable(&read.files, &read.folders);
    if closed.is_empty() {
        return Ok(());
    }
    Err(format!(
        "user \"{wanted}\" cannot read {}: make that readable for the user or a group it is in",
        closed.join(", ")
    ))
}

/// What of these cannot be read.
fn unreadable(files: &BTreeSet<PathBuf>, folders: &BTreeSet<PathBuf>) -> Vec<String> {
    let denied = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let files = files.iter().filter(|file| File::open(file).is_err_and(denied));
    let folders = folders.iter().filter(|folder| read_dir(folder).is_err_and(denied));
    files.chain(folders).map(|path| path.display().to_string()).collect()
}

/// A user and its group.
#[derive(Debug, PartialEq)]
struct Wanted {
    /// Nothing for one that only has a number.
    name: Option<String>,
    uid: Uid,
    gid: Gid,
}

impl Wanted {
    fn look_up(wanted: &str) -> Result<Wanted, String> {
        let (name, group) = match wanted.split_once(':') {
            Some((name, group)) => (name, Some(group)),
            None => (wanted, None),
        };
        let failed = |error: nix::Error| format!("`user` is \"{wanted}\", which cannot be looked up: {error}");
        let missing = |what: &str, name: &str| {
            format!("`user` is \"{wanted}\", and this machine has no {what} \"{name}\": make it, or name one it has")
        };
        let number = name.parse().ok().map(Uid::from_raw);
        let user = match number {
            Some(uid) => User::from_uid(uid).map_err(failed)?,
            None => Some(User::from_name(name).map_err(failed)?.ok_or_else(|| missing("user", name))?),
        };
        let gid = match (group, &user) {
            (Some(group), _) => match group.parse().ok() {
                Some(number) => Gid::from_raw(number),
                None => Group::from_name(group).map_err(failed)?.ok_or_else(|| missing("group", group))?.gid,
            },
            (None, Some(user)) => user.gid,
            (None, None) => {
                return Err(format!(
                    "`user` is \"{wanted}\", a number without a name here: say its group too, \"{wanted}:GROUP\""
                ));
            }
        };
        let uid = number.or(user.as_ref().map(|user| user.uid)).ok_or_else(|| missing("user", name))?;
        Ok(Wanted { name: user.map(|user| user.name), uid, gid })
    }

    fn become_it(&self) -> io::Result<()> {
        // What the container or the service manager has taken away stays away.
        let kept = capabilities(None)?.permitted & KEPT;
        set_keep_capabilities(true)?;
        // The groups first: afterwards nothing of this is allowed any more.
        match &self.name {
            Some(name) => initgroups(&CString::new(name.as_str())?, self.gid)?,
            None => setgroups(&[self.gid])?,
        }
        setgid(self.gid)?;
        setuid(self.uid)?;
        let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
        set_capabilities(None, sets)?;
        set_keep_capabilities(false)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_looked_up() {
        let found = |wanted: &str| {
            let Wanted { name, uid, gid } = Wanted::look_up(wanted).unwrap();
            (name, uid.as_raw(), gid.as_raw())
        };
        let root = Some("root".to_owned());
        assert_eq!(found("root"), (root.clone(), 0, 0));
        assert_eq!(found("root:root"), (root.clone(), 0, 0));
        assert_eq!(found("0:7"), (root, 0, 7));
        assert_eq!(found("4000000001:4000000002"), (None, 4_000_000_001, 4_000_000_002));
        for (wanted, said) in [
            ("nobody-here", "no user \"nobody-here\""),
            ("root:none-such", "no group \"none-such\""),
            ("", "no user \"\""),
            ("4000000001", "say its group too"),
        ] {
            let error = Wanted::look_up(wanted).unwrap_err();
            assert!(error.contains(said) && error.contains(&format!("`user` is \"{wanted}\"")), "{error}");
        }
    }
}
