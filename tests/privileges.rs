//! Started as root: the process goes on as the user it was told, with nothing of root but the right to listen on low ports.

mod support;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use support::*;

const NOBODY: u32 = 65_534;

/// Whether we are root and there is somebody else to become.
fn can_become_nobody() -> bool {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let known = passwd.lines().any(|line| line.starts_with(&format!("nobody:x:{NOBODY}:")));
    let able = rustix::process::geteuid().is_root() && known;
    if !able {
        let all = std::env::var_os("TIDEGATE_TEST_ALL").is_some_and(|all| all == "1");
        assert!(!all, "this has to run as root, on a system with a user called nobody");
        eprintln!("SKIPPED: only root can become nobody");
    }
    able
}

/// A free port below 1024. Nobody is given such a one for any; each test looks where the others do not.
fn low_port(among: std::ops::Range<u16>) -> SocketAddr {
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ([127, 0, 0, 1], among.rev().find(free).expect("one of them is free")).into()
}

fn listening_on(address: SocketAddr, user: &str) -> String {
    format!(
        "user = \"{user}\"\naccess_log = {{ target = \"{{folder}}/access.log\" }}\n[listener.web]\n\
         bind = [\"{address}\", \"unix:{{folder}}/web.sock\"]\n[[route]]\nrespond = {{ status = 200, body = \"here\" }}\n"
    )
}

/// What the kernel says of each thread of a process.
fn told(pid: u32, line: &str) -> Vec<(String, String)> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads").flatten();
    let line = format!("{line}:");
    let told = threads.filter_map(|thread| {
        // One that has just ended says nothing.
        let status = std::fs::read_to_string(thread.path().join("status")).ok()?;
        let find =
            |start: &str| status.lines().find_map(|text| text.strip_prefix(start)).map(|text| text.trim().to_owned());
        Some((find("Name:")?, find(&line)?))
    });
    told.collect()
}

fn set(text: &str) -> u64 {
    u64::from_str_radix(text, 16).expect("hexadecimal")
}

/// CAP_NET_BIND_SERVICE is number 10 (capabilities(7)).
const BIND: u64 = 1 << 10;

#[tokio::test]
async fn root_is_given_up_and_low_ports_can_still_be_listened_on() {
    if !can_become_nobody() {
        return;
    }
    let (first, second) = (low_port(800..900), low_port(900..1024));
    let folder = tempfile::tempdir().expect("a folder");
    chown(folder.path(), Some(NOBODY), None).expect("given away");
    let proxy = proxy(&listening_on(first, "nobody")).with("folder", folder.path());
    // Where the admin API's socket lies is to be nobody's too.
    let mine = |command: &mut std::process::Command| {
        let file = PathBuf::from(command.get_args().last().expect("the configuration"));
        chown(file.parent().expect("its folder"), Some(NOBODY), None).expect("given away");
    };
    let mut proxy = proxy.spawn_with(mine).await;
    let pid = proxy.pid();
    for (thread, ids) in told(pid, "Uid").into_iter().chain(told(pid, "Gid")) {
        assert_eq!(ids.split_whitespace().collect::<Vec<_>>(), ["65534"; 4], "{thread}");
    }
    for (thread, groups) in told(pid, "Groups") {
        assert_eq!(groups, NOBODY.to_string(), "{thread}");
    }
    for (thread, capabilities) in told(pid, "CapPrm").into_iter().chain(told(pid, "CapEff")) {
        let expected = if thread == "control" { BIND } else { set(&capabilities) & BIND };
        assert_eq!(set(&capabilities), expected, "{thread}");
    }
    for (thread, capabilities) in told(pid, "CapInh").into_iter().chain(told(pid, "CapAmb")) {
        assert_eq!(set(&capabilities), 0, "{thread}: what it starts has none");
    }
    assert_eq!(client(first).get("/").await.text(), "here");

    // What could be opened at the start can be at a reload too.
    let verdict = proxy.edit(&listening_on(second, "nobody")).await;
    assert!(verdict.accepted, "{verdict:?}");
    assert_eq!(client(second).get("/").await.text(), "here");
    for name in ["access.log", "web.sock"] {
        let made = std::fs::metadata(folder.path().join(name)).expect("it is there");
        assert_eq!((made.uid(), made.gid()), (NOBODY, NOBODY), "{name}");
    }
    let verdict = proxy.edit(&listening_on(second, "daemon")).await;
    assert!(verdict.accepted && proxy.log().contains("`user` is read at start only"), "{}", proxy.log());
    assert!(told(pid, "Uid").iter().all(|(_, ids)| ids.starts_with(&NOBODY.to_string())));
}

/// What `tidegate run` says of a configuration that it does not start with.
fn refused(file: &Path, text: &str) -> String {
    std::fs::write(file, text).expect("written");
    let run =
        std::process::Command::new(env!("CARGO_BIN_EXE_tidegate")).arg("run").arg(file).output().expect("it runs");
    assert!(!run.status.success());
    String::from_utf8_lossy(&run.stderr).into_owned()
}

fn alone(address: SocketAddr, user: &str) -> String {
    format!(
        "user = \"{user}\"\nadmin = {{ bind = \"off\" }}\n[listener.web]\nbind = \"{address}\"\n[[route]]\nrespond = 200\n"
    )
}

#[test]
fn what_the_user_could_not_read_again_is_named_and_nothing_starts() {
    if !can_become_nobody() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (file, more) = (folder.path().join("tidegate.toml"), folder.path().join("more.d"));
    std::fs::create_dir(&more).expect("made");
    for path in [folder.path(), &more] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("open to all");
    }
    let text = format!("include = [\"more.d/*.toml\"]\n{}", alone(free_address(), "nobody:daemon"));
    std::fs::write(&file, "").expect("made");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("root's alone");
    let said = refused(&file, &text);
    assert!(said.contains(&format!("\"nobody:daemon\" cannot read {}: make that", file.display())), "{said}");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("for all");
    std::fs::set_permissions(&more, std::fs::Permissions::from_mode(0o711)).expect("not to be listed");
    let said = refused(&file, &text);
    assert!(said.contains(&format!("\"nobody:daemon\" cannot read {}: make that", more.display())), "{said}");
}

#[test]
fn who_is_not_there_and_root_cannot_be_gone_on_as() {
    let folder = tempfile::tempdir().expect("a folder");
    let address = free_address();
    for (user, why) in [("nobody-here", "this machine has no user \"nobody-here\""), ("root:daemon", "which is root")] {
        let said = refused(&folder.path().join("tidegate.toml"), &alone(address, user));
        assert!(said.contains(why), "{said}");
    }
    TcpListener::bind(address).expect("nothing is left behind");
}
