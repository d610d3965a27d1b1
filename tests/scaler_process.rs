//! The process driver on real processes: well-behaved servers and rude scripts, and what becomes of them when their proxy is gone.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use support::{client, soon, until};
use tempfile::TempDir;
use tidegate::config::model;
use tidegate::health::State;
use tidegate::scale::{StopSignal, VictimOrder};
use tidegate::scaler::fleet::{Action, Input, Saved, Seen};
use tidegate::scaler::{Driver, DriverError, ErrorKind, Fleet, FleetSettings, Found, Life, Order, ProcessDriver};
use tidegate::snapshot::{Intent, Replica};
use tidegate::types::{Address, Size};

const TIDEGATE: &str = env!("CARGO_BIN_EXE_tidegate");
/// In the environment of everything that a test starts.
const MARK: &str = "SCALER_PROCESS_TEST";

/// A state folder and all that was started from it; what is left of that is killed at the end, also of a test that fails.
struct Ground {
    folder: TempDir,
}

impl Ground {
    fn new() -> Ground {
        Ground { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    fn settings(&self, command: &[&str]) -> model::Process {
        let mark = self.folder.path().display().to_string();
        model::Process {
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            ports: None,
            directory: None,
            env: BTreeMap::from([(MARK.to_owned(), mark)]),
            inherit_env: true,
            output: "log".to_owned(),
            signal: StopSignal::Term,
            grace: Duration::from_secs(10),
            memory: None,
            cpus: None,
        }
    }

    /// A script that gets its port as `$0`.
    fn script(&self, text: &str) -> model::Process {
        self.settings(&["sh", "-c", text, "{port}"])
    }

    fn server(&self) -> model::Process {
        self.settings(&[TIDEGATE, "upstream", "--bind", "127.0.0.1:{port}", "--name", "{id} of {pool}"])
    }

    fn driver(&self, settings: &model::Process) -> ProcessDriver {
        ProcessDriver::new("app", settings, self.folder.path(), "proxy-1")
    }

    /// The numbers of all living processes that were started here.
    fn living(&self) -> Vec<i32> {
        let mark = format!("{MARK}={}", self.folder.path().display());
        let entries = fs::read_dir("/proc").expect("/proc").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let ours = pids.filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|text| text == mark.as_bytes()) && is_alive(*pid)
        });
        ours.collect()
    }

    fn records(&self) -> PathBuf {
        self.folder.path().join("process/app")
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // Those that are being made by others of them are found by another look.
        for _ in 0..10 {
            for pid in self.living() {
                let _ = kill_process(pid_of(pid), Signal::KILL);
            }
        }
    }
}

fn pid_of(pid: i32) -> Pid {
    Pid::from_raw(pid).expect("a process number")
}

fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

fn order(id: &str) -> Order {
    Order { id: id.to_owned(), decision: "d1".to_owned(), generation: 3 }
}

async fn only(driver: &ProcessDriver) -> Found {
    let mut found = driver.list().await.expect("a list");
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn pid(found: &Found) -> i32 {
    found.detail.strip_prefix("pid ").and_then(|pid| pid.parse().ok()).expect("its number")
}

/// How the only instance ended, and whether it was asked to.
async fn end(driver: &ProcessDriver) -> (String, bool) {
    until("it has ended", async || match only(driver).await.life {
        Life::Ended { how, asked } => Some((how, asked)),
        _ => None,
    })
    .await
}

async fn answers(found: &Found) -> String {
    let Some(Address::Ip(address)) = found.address.clone() else { panic!("{found:?}") };
    until("it answers", async || {
        tokio::net::TcpStream::connect(address).await.ok()?;
        Some(client(address).get("/").await.text())
    })
    .await
}

async fn refusal(ground: &Ground, settings: &model::Process) -> DriverError {
    let driver = ground.driver(settings);
    let error = driver.start(&order("app-1")).await.expect_err("it cannot be started");
    assert_eq!(driver.list().await, Ok(vec![]), "nothing is left of it");
    error
}

#[tokio::test]
async fn a_server_is_started_serves_and_is_stopped() {
    let ground = Ground::new();
    let driver = ground.driver(&ground.server());
    driver.start(&order("app-1")).await.expect("started");
    let found = only(&driver).await;
    assert_eq!((found.id.as_str(), &found.life, found.generation), ("app-1", &Life::Running, 3));
    assert_eq!(found.spec, Some(tidegate::scaler::process::spec(&ground.server())));
    assert!(answers(&found).await.contains("app-1 of app"));
    driver.start(&order("app-1")).await.expect("starting what is there is no error");
    assert_eq!(pid(&only(&driver).await), pid(&found));
    driver.usage().await.expect("figures");
    let usage = until("a second look tells what is used", async || {
        let (_, usage) = driver.usage().await.expect("figures").into_iter().next().expect("one");
        usage.cpus.map(|_| usage)
    })
    .await;
    assert!(usage.memory.is_some_and(|bytes| bytes > 1 << 20), "{usage:?}");
    driver.stop(&"app-1".to_owned(), Duration::from_secs(10)).await.expect("stopped");
    assert_eq!(end(&driver).await, ("exit code 0".to_owned(), true));
    assert_eq!(ground.living(), Vec::<i32>::new());
    driver.stop(&"app-1".to_owned(), Duration::ZERO).await.expect("cleared away");
    assert_eq!(driver.list().await, Ok(vec![]));
    assert_eq!(fs::read_dir(ground.records()).expect("the folder").count(), 0, "nothing is left behind");
}

#[tokio::test]
async fn a_server_on_a_socket() {
    let ground = Ground::new();
    let settings = ground.settings(&[TIDEGATE, "upstream", "--bind", "unix:{socket}"]);
    let driver = ground.driver(&settings);
    driver.start(&order("app-1")).await.expect("started");
    let Some(Address::Unix(path)) = only(&driver).await.address else { panic!("a socket") };
    until("it accepts", async || tokio::net::UnixStream::connect(&path).await.ok()).await;
    driver.stop(&"app-1".to_owned(), Duration::from_secs(10)).await.expect("stopped");
    end(&driver).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn another_driver_on_the_same_folder_finds_them_again() {
    let ground = Ground::new();
    let first = ground.driver(&ground.server());
    for id in ["app-1", "app-2"] {
        first.start(&order(id)).await.expect("started");
    }
    let before = first.list().await.expect("a list");
    drop(first);
    let second = ground.driver(&ground.server());
    assert_eq!(second.list().await.expect("a list"), before);
    assert!(answers(&before[0]).await.contains("app-1"));
    second.stop(&"app-2".to_owned(), Duration::from_secs(10)).await.expect("stopped");
    until("it has ended", async || {
        let found = second.list().await.expect("a list");
        found.iter().any(|one| one.id == "app-2" && matches!(one.life, Life::Ended { asked: true, .. })).then_some(())
    })
    .await;
    assert_eq!(ground.living(), [pid(&before[0])]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_one_proxy_has_cleared_away_is_not_written_down_anew_by_another() {
    let ground = Ground::new();
    let settings = ground.script("exec sleep 1000");
    let others: Vec<ProcessDriver> = (0..3).map(|_| ground.driver(&settings)).collect();
    let driver = ground.driver(&settings);
    for round in 0..20 {
        let id = format!("app-{round}");
        driver.start(&order(&id)).await.expect("started");
        for one in &others {
            until("the others have found it", async || {
                one.list().await.expect("a list").iter().any(|found| found.id == id).then_some(())
            })
            .await;
        }
        driver.stop(&id, Duration::from_secs(10)).await.expect("stopped");
        // Looked without a pause: what is cleared away at once is what the others are just looking at.
        let ends = async { while !matches!(only(&driver).await.life, Life::Ended { .. }) {} };
        soon("it has ended", ends).await;
        driver.stop(&id, Duration::ZERO).await.expect("cleared away");
        for one in &others {
            until("the others have seen its end", async || {
                let found = one.list().await.expect("a list");
                found.iter().all(|found| matches!(found.life, Life::Ended { .. })).then_some(())
            })
            .await;
        }
        let found = driver.list().await.expect("a list");
        assert!(found.is_empty(), "round {round}: {found:?}");
    }
}

#[tokio::test]
async fn another_proxy_finds_the_next_bearer_of_a_name() {
    let ground = Ground::new();
    let settings = ground.script("exec sleep 1000");
    let (driver, other) = (ground.driver(&settings), ground.driver(&settings));
    driver.start(&order("app-1")).await.expect("started");
    let first = only(&other).await;
    driver.stop(&"app-1".to_owned(), Duration::from_secs(10)).await.expect("stopped");
    end(&driver).await;
    end(&other).await;
    driver.stop(&"app-1".to_owned(), Duration::ZERO).await.expect("cleared away");
    driver.start(&order("app-1")).await.expect("started anew");
    let second = only(&driver).await;
    assert_ne!(first.detail, second.detail, "another process");
    let found = only(&other).await;
    assert_eq!((&found.detail, &found.life), (&second.detail, &Life::Running));
    // What the other one still knew of the first takes nothing from the second.
    assert!(ground.records().join("app-1.json").exists() && ground.records().join("app-1.out").exists());
}

#[tokio::test]
async fn they_are_found_without_any_record() {
    let ground = Ground::new();
    let settings = ground.script("sleep 1000 & sleep 1000 & wait");
    let first = ground.driver(&settings);
    first.start(&order("app-7")).await.expect("started");
    let before = only(&first).await;
    until("its children run", async || (ground.living().len() == 3).then_some(())).await;
    drop(first);
    fs::remove_dir_all(ground.records()).expect("the records are lost");
    let second = ground.driver(&settings);
    let after = only(&second).await;
    assert_eq!(after, before, "its port, spec and age too");
    let change = second.changed();
    second.stop(&"app-7".to_owned(), Duration::from_secs(10)).await.expect("stopped");
    soon("news of its end", change).await;
    let (how, asked) = end(&second).await;
    assert!(asked && how.contains("earlier Tidegate"), "{how}");
    assert_eq!(ground.living(), Vec::<i32>::new());
}

#[tokio::test]
async fn a_proxy_killed_between_its_note_and_the_number_finds_the_process() {
    let ground = Ground::new();
    let first = ground.driver(&ground.server());
    first.start(&order("app-1")).await.expect("started");
    let before = only(&first).await;
    drop(first);
    let path = ground.records().join("app-1.json");
    let text = fs::read_to_string(&path).expect("the record");
    let mut record: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    record["process"] = serde_json::Value::Null;
    fs::write(&path, record.to_string()).expect("written");
    assert_eq!(only(&ground.driver(&ground.server())).await, before);
}

/// Not a test of its own: what `they_outlive_a_proxy_that_is_killed` runs as a process, and kills.
#[tokio::test]
async fn proxy_to_be_killed() {
    let Some(folder) = std::env::var_os("SCALER_PROCESS_FOLDER") else { return };
    let text = fs::read_to_string(Path::new(&folder).join("mark")).expect("the mark");
    let ground = Ground::new();
    let mut settings = ground.server();
    settings.env = BTreeMap::from([(MARK.to_owned(), text)]);
    let driver = ProcessDriver::new("app", &settings, Path::new(&folder), "proxy-1");
    driver.start(&order("app-1")).await.expect("started");
    answers(&only(&driver).await).await;
    println!("STARTED");
    io::stdout().flush().expect("flushed");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn they_outlive_a_proxy_that_is_killed() {
    let ground = Ground::new();
    fs::write(ground.folder.path().join("mark"), ground.folder.path().display().to_string()).expect("written");
    let mut proxy = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "proxy_to_be_killed", "--nocapture"])
        .env("SCALER_PROCESS_FOLDER", ground.folder.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("a proxy");
    let output = io::BufReader::new(proxy.stdout.take().expect("its output"));
    let started = io::BufRead::lines(output).map_while(Result::ok).any(|line| line.contains("STARTED"));
    proxy.kill().expect("killed with SIGKILL");
    proxy.wait().expect("waited for");
    assert!(started, "the proxy has started one");
    let driver = ground.driver(&ground.server());
    let found = only(&driver).await;
    assert_eq!(found.life, Life::Running);
    assert!(answers(&found).await.contains("app-1"), "it goes on serving, and its output goes on to be written");
    kill_process(pid_of(pid(&found)), Signal::KILL).expect("killed");
    soon("news of its end", driver.changed()).await;
    assert!(matches!(end(&driver).await, (_, false)));
}

#[tokio::test]
async fn one_that_ended_while_nobody_looked_is_told_of() {
    let ground = Ground::new();
    let first = ground.driver(&ground.script("sleep 1000 & wait"));
    first.start(&order("app-1")).await.expect("started");
    let found = only(&first).await;
    until("its child runs", async || (ground.living().len() == 2).then_some(())).await;
    // As a record looks whose process has ended, or was another boot's.
    drop(first);
    let path = ground.records().join("app-1.json");
    let text = fs::read_to_string(&path).expect("the record");
    let mut record: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    record["process"]["start"] = serde_json::Value::from(1);
    fs::write(&path, record.to_string()).expect("written");
    kill_process_group(pid_of(pid(&found)), Signal::STOP).expect("held");
    let (how, asked) = end(&ground.driver(&ground.script(""))).await;
    assert!(!asked && how.contains("while Tidegate was away"), "{how}");
    until("what was left of it is gone", async || ground.living().is_empty().then_some(())).await;
}

#[tokio::test]
async fn whoever_ignores_the_signal_is_killed_after_its_grace() {
    let ground = Ground::new();
    let driver = ground.driver(&ground.script("trap '' TERM; echo deaf; while :; do sleep 0.1; done"));
    driver.start(&order("app-1")).await.expect("started");
    until("it is deaf", async || {
        fs::read_to_string(ground.records().join("app-1.out")).ok().filter(|text| text.contains("deaf"))
    })
    .await;
    let begun = Instant::now();
    driver.stop(&"app-1".to_owned(), Duration::from_millis(500)).await.expect("asked");
    assert_eq!(only(&driver).await.life, Life::Stopping);
    let (how, asked) = end(&driver).await;
    assert!(asked && how.contains("within its grace"), "{how}");
    assert!(begun.elapsed() >= Duration::from_millis(500));
    assert_eq!(ground.living(), Vec::<i32>::new());
}

#[tokio::test]
async fn a_stop_goes_on_after_a_restart() {
    let ground = Ground::new();
    let settings = ground.script("trap '' TERM; echo deaf; while :; do sleep 0.1; done");
    let first = ground.driver(&settings);
    first.start(&order("app-1")).await.expect("started");
    until("it is deaf", async || {
        fs::read_to_string(ground.records().join("app-1.out")).ok().filter(|text| text.contains("deaf"))
    })
    .await;
    first.stop(&"app-1".to_owned(), Duration::from_secs(2)).await.expect("asked");
    drop(first);
    let second = ground.driver(&settings);
    assert_eq!(only(&second).await.life, Life::Stopping);
    assert!(matches!(end(&second).await, (_, true)));
    assert_eq!(ground.living(), Vec::<i32>::new());
}

#[tokio::test]
async fn one_that_ends_at_once_says_why() {
    let ground = Ground::new();
    let driver = ground.driver(&ground.script("echo starting; echo 'no database at db:5432' >&2; exit 3"));
    let change = driver.changed();
    driver.start(&order("app-1")).await.expect("started");
    soon("news of its end", change).await;
    assert_eq!(end(&driver).await, ("exit code 3; its last line: no database at db:5432".to_owned(), false));
    // The same name again is another one.
    driver.start(&order("app-1")).await.expect("started again");
    assert!(matches!(end(&driver).await, (_, false)));
}

#[tokio::test]
async fn the_whole_family_goes() {
    let ground = Ground::new();
    // One that stays in the group, one that leaves it, and one that leaves it and outlives its parent.
    let settings = ground.script("sleep 1000 & setsid sleep 1000 & setsid sh -c 'sleep 1000 & sleep 1000' & wait");
    for killed in [false, true] {
        let driver = ground.driver(&settings);
        driver.start(&order("app-1")).await.expect("started");
        until("all of it runs", async || (ground.living().len() == 6).then_some(())).await;
        if killed {
            kill_process(pid_of(pid(&only(&driver).await)), Signal::KILL).expect("killed");
        } else {
            driver.stop(&"app-1".to_owned(), Duration::from_secs(1)).await.expect("stopped");
        }
        assert_eq!(end(&driver).await.1, !killed);
        assert_eq!(ground.living(), Vec::<i32>::new());
        driver.stop(&"app-1".to_owned(), Duration::ZERO).await.expect("cleared away");
    }
}

#[tokio::test]
async fn what_cannot_be_started_says_what_to_do() {
    let ground = Ground::new();
    let plain = ground.folder.path().join("plain");
    fs::write(&plain, "#!/nowhere/interpreter\n").expect("written");
    let plain = plain.display().to_string();
    let refused = async |settings: &model::Process, what: &str, advice: &str| {
        let error = refusal(&ground, settings).await;
        assert_eq!(error.kind, ErrorKind::Refused, "{error}");
        assert!(error.what.contains(what) && error.advice.contains(advice), "{error}");
    };
    refused(&ground.settings(&["no-such-program", "{port}"]), "`no-such-program` is not there", "install it").await;
    refused(&ground.settings(&[&plain, "{port}"]), "may not be run", "chmod +x").await;
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o755)).expect("made executable");
    refused(&ground.settings(&[&plain, "{port}"]), "interpreter in its first line", "install").await;
    let nowhere = model::Process { directory: Some("/nowhere/at/all".into()), ..ground.server() };
    refused(&nowhere, "/nowhere/at/all is not there", "directory").await;
    refused(&ground.settings(&["sleep", "1000"]), "where the instance would listen", "{port}").await;
    refused(&ground.settings(&[]), "where the instance would listen", "{port}").await;
    let unwritable = model::Process { output: "/nowhere/{id}.log".into(), ..ground.server() };
    refused(&unwritable, "/nowhere/app-1.log cannot be opened", "output").await;
    let odd = model::Process { ports: Some("many".into()), ..ground.server() };
    refused(&odd, "`many` is no range", "18100-18199").await;
    assert_eq!(ground.living(), Vec::<i32>::new());
}

#[tokio::test]
async fn a_socket_with_too_long_a_path_is_refused() {
    let ground = Ground::new();
    let deep = ground.folder.path().join("x".repeat(100));
    let driver = ProcessDriver::new("app", &ground.settings(&["true", "{socket}"]), &deep, "proxy-1");
    let error = driver.start(&order("app-1")).await.expect_err("too long");
    assert!(error.what.contains("cannot be as long") && error.advice.contains("scaler.state"), "{error}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_told() {
    let ground = Ground::new();
    fs::write(ground.folder.path().join("process"), "a file where a folder should be").expect("written");
    let error = refusal(&ground, &ground.server()).await;
    assert!(error.what.contains("cannot be written") && error.advice.contains("scaler.state"), "{error}");
}

#[tokio::test]
async fn ports_of_a_range_are_given_once_and_never_taken_ones() {
    let ground = Ground::new();
    let (somebody, first) = two_in_a_row();
    let range = format!("{first}-{}", first + 1);
    let driver = ground.driver(&model::Process { ports: Some(range), ..ground.server() });
    driver.start(&order("app-1")).await.expect("started");
    let found = only(&driver).await;
    assert_eq!(found.address, Some(Address::Ip(([127, 0, 0, 1], first + 1).into())), "the other one is taken");
    let error = driver.start(&order("app-2")).await.expect_err("there is no third");
    assert_eq!(error.kind, ErrorKind::Full);
    drop(somebody);
    driver.start(&order("app-2")).await.expect("the first is free now");
}

/// A listener, with its port, whose next port is free: below those that are given to whoever asks for any, where there are such, so that
/// no other test's comes between.
fn two_in_a_row() -> (TcpListener, u16) {
    let given = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("the range of given ports");
    let lowest: u16 = given.split_whitespace().next().and_then(|port| port.parse().ok()).expect("its lowest");
    let mut below = (1024..lowest.saturating_sub(1)).rev().chain(lowest..u16::MAX);
    let found = below.find_map(|port| {
        let listener = TcpListener::bind(("127.0.0.1", port)).ok()?;
        TcpListener::bind(("127.0.0.1", port + 1)).is_ok().then_some((listener, port))
    });
    found.expect("two ports in a row that are free")
}

#[tokio::test]
async fn a_port_taken_in_the_meantime_is_a_failed_start() {
    let ground = Ground::new();
    // It waits until the test has taken its port.
    let script = format!("while [ ! -e \"$GO\" ]; do sleep 0.02; done; exec {TIDEGATE} upstream --bind 127.0.0.1:$0");
    let mut settings = ground.script(&script);
    let go = ground.folder.path().join("go");
    settings.env.insert("GO".to_owned(), go.display().to_string());
    let driver = ground.driver(&settings);
    driver.start(&order("app-1")).await.expect("started");
    let Some(Address::Ip(address)) = only(&driver).await.address else { panic!("an address") };
    let _somebody = TcpListener::bind(address).expect("faster");
    fs::write(&go, "").expect("written");
    let (how, asked) = end(&driver).await;
    assert!(!asked && how.contains("in use"), "{how}");
    driver.start(&order("app-1")).await.expect("again");
    let again = only(&driver).await;
    assert_ne!(again.address, Some(Address::Ip(address)), "with another port");
    answers(&again).await;
}

#[tokio::test]
async fn the_signal_is_the_configured_one_and_reaches_the_group() {
    let ground = Ground::new();
    let script = "trap 'echo interrupted; exit 7' INT; sh -c 'trap \"echo child too; exit 0\" INT; echo up; while :; do sleep 0.05; done' & wait; wait";
    // A shell starts its background jobs deaf to SIGINT, so the child is given SIGQUIT's sibling instead.
    let script = script.replace("INT", "USR1");
    let settings = model::Process { signal: StopSignal::Usr1, ..ground.script(&script) };
    let driver = ground.driver(&settings);
    driver.start(&order("app-1")).await.expect("started");
    let output = ground.records().join("app-1.out");
    until("both are up", async || fs::read_to_string(&output).ok().filter(|text| text.contains("up"))).await;
    driver.stop(&"app-1".to_owned(), Duration::from_secs(10)).await.expect("stopped");
    assert_eq!(end(&driver).await, ("exit code 7".to_owned(), true));
    let text = fs::read_to_string(&output).expect("its output");
    assert!(text.contains("interrupted") && text.contains("child too"), "{text}");
}

#[tokio::test]
async fn the_environment_is_what_was_asked_for() {
    let ground = Ground::new();
    let mut settings = ground.script("env; sleep 1000");
    settings.inherit_env = false;
    settings.env.insert("LISTEN_ON".to_owned(), "127.0.0.1:{port}".to_owned());
    settings.env.insert("PATH".to_owned(), std::env::var("PATH").expect("a path"));
    settings.output = ground.folder.path().join("{id}.txt").display().to_string();
    settings.directory = Some("/".into());
    let driver = ground.driver(&settings);
    driver.start(&order("app-1")).await.expect("started");
    let Some(Address::Ip(address)) = only(&driver).await.address else { panic!("an address") };
    let path = ground.folder.path().join("app-1.txt");
    let text =
        until("it has told", async || fs::read_to_string(&path).ok().filter(|text| text.contains("LISTEN_ON"))).await;
    let text =
        until("it has told all", async || Some(text.clone()).filter(|text| text.contains("TIDEGATE_INSTANCE=app-1")))
            .await;
    assert!(text.contains(&format!("LISTEN_ON={address}")), "{text}");
    assert!(!text.contains("CARGO"), "nothing of ours: {text}");
    driver.stop(&"app-1".to_owned(), Duration::from_secs(10)).await.expect("stopped");
    end(&driver).await;
    driver.stop(&"app-1".to_owned(), Duration::ZERO).await.expect("cleared away");
    assert!(path.exists(), "the operator's file stays");
}

#[tokio::test]
async fn memory_of_the_whole_group_counts() {
    let ground = Ground::new();
    // `tail` keeps the last line, which has no end.
    let driver = ground.driver(&ground.script("{ head -c 67108864 /dev/zero; sleep 1000; } | tail"));
    driver.start(&order("app-1")).await.expect("started");
    until("the memory is seen", async || {
        let (_, usage) = driver.usage().await.expect("figures").into_iter().next()?;
        usage.memory.filter(|bytes| *bytes > 64 << 20)
    })
    .await;
}

#[tokio::test]
async fn limits_are_enforced_where_cgroups_can_be_written() {
    logged();
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    if !controllers.contains("memory") {
        println!(
            "SKIPPED: /sys/fs/cgroup is no cgroup v2 with a memory controller; that limits are not enforced is tested instead"
        );
    }
    let ground = Ground::new();
    let script = ground.script("{ head -c 134217728 /dev/zero; sleep 1000; } | tail");
    let driver = ground.driver(&model::Process { memory: Some(Size(64 << 20)), ..script });
    driver.start(&order("app-1")).await.expect("started, with limits or without");
    let unenforced = || logged().contains("of this pool's processes are not enforced");
    let how =
        until("it is out of memory, or it is told that there are no limits", async || match only(&driver).await.life {
            Life::Ended { how, .. } => Some(how),
            _ => unenforced().then(String::new),
        })
        .await;
    assert!(how.is_empty() || how.contains("out of memory"), "{how}");
}

#[tokio::test]
async fn output_comes_into_our_log_and_stays_small() {
    logged();
    let ground = Ground::new();
    let flood = "head -c 20000000 /dev/zero | tr '\\0' 'x' | fold -w 100; echo; echo 'the end'; sleep 1000";
    let script = format!("echo 'hello from the instance'; while [ ! -e \"$GO\" ]; do sleep 0.02; done; {flood}");
    let mut settings = ground.script(&script);
    let go = ground.folder.path().join("go");
    settings.env.insert("GO".to_owned(), go.display().to_string());
    let driver = ground.driver(&settings);
    driver.start(&order("app-1")).await.expect("started");
    driver.list().await.expect("a list");
    until("its first line is logged", async || logged().contains("hello from the instance").then_some(())).await;
    fs::write(&go, "").expect("written");
    until("the flood is cut", async || logged().contains("bytes of output are skipped").then_some(())).await;
    until("its last line is logged", async || logged().contains("the end").then_some(())).await;
    let path = ground.records().join("app-1.out");
    until("its file is emptied", async || fs::metadata(&path).ok().filter(|file| file.len() < 8 << 20)).await;
}

/// What has been logged so far.
fn logged() -> String {
    static LOG: OnceLock<&'static Mutex<Vec<u8>>> = OnceLock::new();
    let log = LOG.get_or_init(|| {
        let log: &'static Mutex<Vec<u8>> = Box::leak(Box::default());
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || Into(log)).finish();
        tracing::subscriber::set_global_default(subscriber).expect("the only one");
        log
    });
    String::from_utf8_lossy(&log.lock().expect("the log")).into_owned()
}

struct Into(&'static Mutex<Vec<u8>>);

impl Write for Into {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("the log").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The fleet's life with real processes; control's checks are connections.
struct Loop {
    fleet: Fleet,
    driver: ProcessDriver,
    begun: Instant,
    wanted: u32,
    draining: BTreeSet<Address>,
    starts: usize,
    /// The fewest that answered at a time, since it was last set.
    fewest: usize,
}

impl Loop {
    fn new(ground: &Ground, settings: &model::Process, saved: Saved) -> Loop {
        Loop {
            fleet: Fleet::restore("app", saved, fleet_settings(settings)),
            driver: ground.driver(settings),
            begun: Instant::now(),
            wanted: 3,
            draining: BTreeSet::new(),
            starts: 0,
            fewest: 0,
        }
    }

    async fn step(&mut self) -> Vec<Found> {
        let now = 1e6 + self.begun.elapsed().as_secs_f64();
        let found = self.driver.list().await.expect("a list");
        let mut seen = BTreeMap::new();
        for address in found.iter().filter_map(|one| one.address.clone()) {
            let Address::Ip(place) = address else { continue };
            let up = tokio::net::TcpStream::connect(place).await.is_ok();
            let state = if up { State::Ready } else { State::Starting };
            let state = if self.draining.contains(&address) { State::Drained } else { state };
            let (since, reason) = (None, state.to_string());
            let counts = Seen { state, since, in_flight: 0, requests: 0, sessions: 0, warming: false, reason };
            seen.insert(address, counts);
        }
        self.fewest = self.fewest.min(seen.values().filter(|seen| seen.state == State::Ready).count());
        let input = Input {
            found: Some(&found),
            seen: &seen,
            usage: &BTreeMap::new(),
            wanted: Some(self.wanted),
            cordon: 0,
            decision: "d1",
            generation: 1,
            reason: "level",
            may_start: 10,
            may_stop: true,
            random: 7,
        };
        let plan = self.fleet.step(&input, now);
        for news in &plan.news {
            println!("{} {} → {}: {}", news.id, news.from, news.to, news.why);
        }
        let drains = |replica: &&Replica| matches!(replica.intent, Intent::Drain { .. });
        self.draining = plan.replicas.iter().filter(drains).map(|replica| replica.address.clone()).collect();
        for action in plan.actions {
            let result = match &action {
                Action::Start(order) => {
                    self.starts += 1;
                    self.driver.start(order).await
                }
                Action::Stop { id, grace } => self.driver.stop(id, *grace).await,
                Action::Scale(_) | Action::Mark(_) => unreachable!("they are started one by one"),
            };
            self.fleet.acted(&action, &result, now);
        }
        found
    }

    /// Steps until all that are wanted are ready and nobody else is there. Answers their process numbers.
    async fn settle(&mut self) -> BTreeSet<i32> {
        self.fewest = usize::MAX;
        until("all are ready", async || {
            let found = self.step().await;
            let status = self.fleet.status(0.0);
            let ready = status.iter().filter(|one| one.state == "ready" && !one.outdated).count();
            let rest = ready == self.wanted as usize && status.len() == ready && found.len() == ready;
            rest.then(|| found.iter().map(pid).collect())
        })
        .await
    }
}

fn fleet_settings(process: &model::Process) -> FleetSettings {
    FleetSettings {
        spec: tidegate::scaler::process::spec(process),
        by_count: false,
        ordinal: false,
        max: 10,
        drain_requests: Duration::from_secs(5),
        drain_sessions: Duration::from_secs(5),
        grace: process.grace,
        victim: VictimOrder::Newest,
        max_age: None,
        max_requests: None,
        max_memory: None,
        backoff: 0.05,
        max_backoff: 0.5,
        quarantine_after: 3,
        start_deadline: None,
        unhealthy_for: 60.0,
        converge: 300.0,
    }
}

#[tokio::test]
async fn a_fleet_of_real_processes_is_replaced_found_again_and_rolled() {
    let ground = Ground::new();
    let settings = ground.server();
    let mut fleet = Loop::new(&ground, &settings, Saved::default());
    let first = fleet.settle().await;
    assert_eq!((first.len(), fleet.starts), (3, 3));

    let killed = *first.first().expect("one of them");
    kill_process(pid_of(killed), Signal::KILL).expect("killed");
    until("it is gone", async || (!is_alive(killed)).then_some(())).await;
    let second = fleet.settle().await;
    assert_eq!((second.intersection(&first).count(), fleet.starts), (2, 4), "one was replaced, once");

    // Another proxy, with the state and without.
    for saved in [fleet.fleet.save(), Saved::default()] {
        fleet = Loop::new(&ground, &settings, saved);
        assert_eq!((fleet.settle().await, fleet.starts), (second.clone(), 0));
    }

    let mut other = settings.clone();
    other.env.insert("BUILD".to_owned(), "2".to_owned());
    fleet.driver.configure(&other);
    fleet.fleet.adopt(fleet_settings(&other));
    let third = fleet.settle().await;
    assert_eq!((third.intersection(&second).count(), fleet.starts), (0, 3));
    assert!(fleet.fewest >= 3, "{} answered at a time", fleet.fewest);

    fleet.wanted = 0;
    fleet.settle().await;
    assert_eq!(ground.living(), Vec::<i32>::new());
}
