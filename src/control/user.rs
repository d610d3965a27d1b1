//! Giving up root: once what needs it is open, the process goes on as another user.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User, initgroups, setgid, setuid};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_keep_capabilities};

/// What is kept: a reload may listen on another port below 1024.
const KEPT: CapabilitySet = CapabilitySet::NET_BIND_SERVICE;

/// Makes the process go on as `wanted`, which is `USER` or `USER:GROUP`, with the groups that user is in. Threads that exist go on as that
/// user with no capability at all; the calling one, and those it starts, may still listen on ports below 1024.
///
/// Who is not root stays who they are, and is told so where that is somebody else. `files` are those a reload reads: which of them
/// that user could not read is said.
///
/// **Errors**: there is no such user or group, or the system does not allow it; the process is not to go on then.
pub(super) fn go_on_as(wanted: &str, files: &BTreeSet<PathBuf>) -> Result<(), String> {
    let user = Wanted::look_up(wanted)?;
    let ours = Uid::effective();
    if user.uid == ours {
        return Ok(());
    }
    if !ours.is_root() {
        tracing::warn!("`user` is \"{wanted}\", and only root can become another user: going on as user {ours}");
        return Ok(());
    }
    user.become_it().map_err(|error| {
        format!("cannot go on as `user` \"{wanted}\": {error}; it takes CAP_SETUID and CAP_SETGID, or leave `user` out")
    })?;
    tracing::info!("going on as user \"{wanted}\"");
    for file in files.iter().filter(|file| File::open(file).is_err()) {
        let file = file.display();
        tracing::warn!(
            "user \"{wanted}\" cannot read {file}: an edit would be refused; make it readable for that user"
        );
    }
    Ok(())
}

/// A user and its group.
#[derive(Debug, PartialEq)]
struct Wanted {
    name: String,
    uid: Uid,
    gid: Gid,
}

impl Wanted {
    fn look_up(wanted: &str) -> Result<Wanted, String> {
        let (name, group) = match wanted.split_once(':') {
            Some((name, group)) => (name, Some(group)),
            None => (wanted, None),
        };
        let missing = |what: &str, name: &str| {
            format!("`user` is \"{wanted}\", and this machine has no {what} \"{name}\": make it, or name one it has")
        };
        let user = User::from_name(name).ok().flatten().ok_or_else(|| missing("user", name))?;
        let gid = match group {
            Some(group) => Group::from_name(group).ok().flatten().ok_or_else(|| missing("group", group))?.gid,
            None => user.gid,
        };
        Ok(Wanted { name: user.name, uid: user.uid, gid })
    }

    fn become_it(&self) -> std::io::Result<()> {
        let name = std::ffi::CString::new(self.name.as_str())?;
        // What the container or the service manager has taken away stays away.
        let kept = capabilities(None)?.permitted & KEPT;
        set_keep_capabilities(true)?;
        // The groups first: afterwards nothing of this is allowed any more.
        initgroups(&name, self.gid)?;
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
        let root = Wanted { name: "root".to_owned(), uid: Uid::from_raw(0), gid: Gid::from_raw(0) };
        assert_eq!(Wanted::look_up("root").unwrap(), root);
        assert_eq!(Wanted::look_up("root:root").unwrap(), root);
        for (wanted, said) in [("nobody-here", "no user \"nobody-here\""), ("root:none-such", "no group \"none-such\"")]
        {
            let error = Wanted::look_up(wanted).unwrap_err();
            assert!(error.contains(said) && error.contains(&format!("`user` is \"{wanted}\"")), "{error}");
        }
    }
}
