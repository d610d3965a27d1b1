//! Started as root: the process goes on as the user it was told, with nothing of root but the right to listen on low ports.

mod support;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
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
        "user = \"{user}\"\n[listener.web]\nbind = \"{address}\"\n[[route]]\nrespond = {{ status = 200, body = \"here\" }}\n"
    )
}

/// A line of what the kernel says of each thread of a process.
fn told(pid: u32, line: &str) -> Vec<(String, String)> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads").flatten();
    let line = format!("{line}:");
    let told = threads.map(|thread| {
        let status = std::fs::read_to_string(thread.path().join("status")).expect("its status");
        let find =
            |start: &str| status.lines().find_map(|text| text.strip_prefix(start)).expect("told").trim().to_owned();
        (find("Name:"), find(&line))
    });
    told.collect()
}

#[tokio::test]
async fn root_is_given_up_and_low_ports_can_still_be_listened_on() {
    if !can_become_nobody() {
        return;
    }
    let (first, second) = (low_port(800..900), low_port(900..1024));
    let proxy = proxy(&listening_on(first, "nobody"));
    // What a reload reads, and where the admin API's socket lies, is to be nobody's.
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
    // CAP_NET_BIND_SERVICE is number 10 (capabilities(7)).
    for (thread, capabilities) in told(pid, "CapPrm").into_iter().chain(told(pid, "CapEff")) {
        let held = u64::from_str_radix(&capabilities, 16).expect("hexadecimal");
        assert_eq!(held & !(1 << 10), 0, "{thread} has {capabilities}");
    }
    assert_eq!(client(first).get("/").await.text(), "here");

    let verdict = proxy.edit(&listening_on(second, "nobody")).await;
    assert!(verdict.accepted, "{verdict:?}");
    assert_eq!(client(second).get("/").await.text(), "here");
    let verdict = proxy.edit(&listening_on(second, "root")).await;
    assert!(verdict.accepted && proxy.log().contains("`user` is read at start only"), "{}", proxy.log());
    assert!(told(pid, "Uid").iter().all(|(_, ids)| ids.starts_with(&NOBODY.to_string())));
}

#[tokio::test]
async fn files_that_the_user_cannot_read_are_named() {
    if !can_become_nobody() {
        return;
    }
    let address = low_port(700..800);
    let roots = |command: &mut std::process::Command| {
        let file = command.get_args().last().expect("the configuration");
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).expect("root's alone");
    };
    let proxy = proxy(&listening_on(address, "nobody:daemon")).spawn_with(roots).await;
    assert!(proxy.log().contains("going on as user \"nobody:daemon\""), "{}", proxy.log());
    let file = proxy.file().display().to_string();
    assert!(proxy.log().contains(&format!("cannot read {file}: an edit would be refused")), "{}", proxy.log());
    let verdict = proxy.reload().await;
    assert!(!verdict.accepted && verdict.problems.contains(&file), "{verdict:?}");
    assert_eq!(client(address).get("/").await.text(), "here");
}

#[test]
fn who_is_not_there_cannot_be_gone_on_as() {
    let folder = tempfile::tempdir().expect("a folder");
    let file: &Path = &folder.path().join("tidegate.toml");
    let address = free_address();
    let text = format!("admin = {{ bind = \"off\" }}\n{}", listening_on(address, "nobody-here"));
    std::fs::write(file, text).expect("written");
    let run =
        std::process::Command::new(env!("CARGO_BIN_EXE_tidegate")).arg("run").arg(file).output().expect("it runs");
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(!run.status.success() && said.contains("this machine has no user \"nobody-here\""), "{said}");
    TcpListener::bind(address).expect("nothing is left behind");
}
