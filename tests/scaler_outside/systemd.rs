//! The driver against a real systemd: a user's manager of our own, in a mount namespace and a control group of its own.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tidegate::config::model;
use tidegate::scaler::{Driver, ErrorKind, Found, Life, Order, Systemd};

use super::http::{local, until};
use super::skipped;

/// Where the manager that a test has made is; the tests below run in processes that have it in their environment.
const INSIDE: &str = "TIDEGATE_TEST_SYSTEMD";

const MANAGER: &str = r#"
mount -t tmpfs tidegate-test /run && mkdir -p /run/systemd/system || exit 77
for group in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup/memory; do
    mkdir "$group/tidegate-test-$$" && echo $$ > "$group/tidegate-test-$$/cgroup.procs"
done 2> /dev/null
exec /lib/systemd/systemd --user --log-target=console
"#;

struct Manager {
    folder: tempfile::TempDir,
    process: Child,
}

impl Manager {
    fn start() -> Option<Manager> {
        let missing = |why: &str| {
            skipped("the driver for systemd", why);
            None
        };
        if !Path::new("/lib/systemd/systemd").exists() {
            return missing("systemd is not installed");
        }
        let folder = tempfile::tempdir().unwrap();
        units(folder.path());
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", MANAGER])
            .env("XDG_RUNTIME_DIR", folder.path())
            .env("SYSTEMD_UNIT_PATH", folder.path().join("units"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        let Ok(process) = process else { return missing("there is no unshare") };
        let mut manager = Manager { folder, process };
        let deadline = Instant::now() + Duration::from_secs(20);
        while !manager.systemctl(&["list-units"]) {
            let ended = manager.process.try_wait().unwrap();
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(manager.folder.path().join("log")).unwrap();
                return missing(&format!("a manager cannot be started here ({ended:?}): {log}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(manager)
    }

    fn systemctl(&self, arguments: &[&str]) -> bool {
        let mut command = Command::new("systemctl");
        command.arg("--user").args(arguments).env("XDG_RUNTIME_DIR", self.folder.path());
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    /// Runs a test of this file in a process whose systemd this is.
    fn run(&self, test: &str) {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", &format!("systemd::{test}")])
            .env(INSIDE, self.folder.path())
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap();
        assert!(output.status.success(), "{text}\n{log}");
        assert!(text.contains("1 passed"), "{text}");
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.systemctl(&["kill", "--signal=KILL", "*@*.service"]);
        self.systemctl(&["stop", "*@*.service"]);
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn units(folder: &Path) {
    let units = folder.join("units");
    fs::create_dir(&units).unwrap();
    let write = |name: &str, text: &str| fs::write(units.join(name), text).unwrap();
    for target in ["default", "basic", "shutdown", "sysinit", "exit"] {
        write(&format!("{target}.target"), "[Unit]\nDescription=Nothing\n");
    }
    let service = |name: &str, lines: &str| write(name, &format!("[Service]\nMemoryAccounting=yes\n{lines}\n"));
    service("app@.service", "ExecStart=/bin/sleep 1000");
    service("bad@.service", "ExecStart=/bin/sh -c 'exit 3'");
    service("none@.service", "ExecStart=/no/such/program");
    service("deaf@.service", "ExecStart=/bin/sh -c 'trap \"\" TERM; while :; do sleep 1; done'");
    service("again@.service", "ExecStart=/bin/sh -c 'exit 4'\nRestart=always\nRestartSec=1000");
}

fn inside() -> Option<PathBuf> {
    std::env::var_os(INSIDE).map(PathBuf::from)
}

/// A range of three ports that nobody else uses; nothing listens there, and nothing has to.
fn driver(unit: &str) -> Systemd {
    let first = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().min(65_000);
    let ports = format!("{first}-{}", first + 2);
    let settings = model::Systemd { unit: unit.to_owned(), ports, user: true, grace: Duration::from_secs(5) };
    Systemd::new("tools", &settings).unwrap()
}

fn order(id: &str) -> Order {
    Order { id: id.to_owned(), decision: "d1".to_owned(), generation: 1 }
}

async fn found(driver: &Systemd, what: &str, holds: impl Fn(&[Found]) -> bool) -> Vec<Found> {
    until(what, async || Some(driver.list().await.unwrap()).filter(|found| holds(found))).await
}

#[test]
fn units_live_as_instances() {
    let Some(manager) = Manager::start() else { return };
    manager.run("inside_units_are_started_found_again_measured_and_stopped");
    manager.run("inside_what_fails_is_told_in_words_and_forgotten_when_it_is_not_wanted");
    manager.run("inside_a_unit_that_does_not_stop_is_killed_after_its_grace");
}

#[test]
fn inside_units_are_started_found_again_measured_and_stopped() {
    if inside().is_none() {
        return;
    }
    local(async {
        let tools = driver("app@.service");
        assert_eq!(tools.list().await.unwrap(), []);
        for id in ["tools-1", "tools-3"] {
            tools.start(&order(id)).await.unwrap();
        }
        // Starting what is there is no error.
        tools.start(&order("tools-1")).await.unwrap();
        let two =
            found(&tools, "two run", |found| found.iter().filter(|one| one.life == Life::Running).count() == 2).await;
        let mut ids: Vec<_> = two.iter().map(|one| one.id.as_str()).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["tools-1", "tools-3"]);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - two[0].started.unwrap();
        assert!((-1.0..30.0).contains(&age), "{age}");
        assert!(two[0].detail.contains(".service, pid "), "{}", two[0].detail);
        assert!(two[0].address.is_some() && two[0].spec.is_some());

        let usage = tools.usage().await.unwrap();
        assert_eq!(usage.len(), 2);
        // Only where its control group has a memory controller.
        assert!(usage.iter().all(|(_, usage)| usage.memory.is_none_or(|bytes| bytes > 4096)), "{usage:?}");

        tools.stop(&"tools-1".to_owned(), Duration::from_secs(5)).await.unwrap();
        let left = found(&tools, "one is left", |found| found.len() == 1).await;
        assert_eq!((left[0].id.as_str(), &left[0].life), ("tools-3", &Life::Running));
        tools.stop(&"tools-1".to_owned(), Duration::from_secs(5)).await.unwrap();
        tools.stop(&"tools-3".to_owned(), Duration::from_secs(5)).await.unwrap();
        found(&tools, "nothing is left", <[Found]>::is_empty).await;
        let full = tools.start(&order("tools-4")).await.unwrap_err();
        assert_eq!(full.kind, ErrorKind::Full);
    });
}

#[test]
fn inside_what_fails_is_told_in_words_and_forgotten_when_it_is_not_wanted() {
    if inside().is_none() {
        return;
    }
    local(async {
        for (unit, expected) in [("bad@.service", "exit code 3"), ("none@.service", "exit code 203")] {
            let driver = driver(unit);
            driver.start(&order("tools-1")).await.unwrap();
            let ended =
                found(&driver, "it has failed", |found| matches!(found, [Found { life: Life::Ended { .. }, .. }]))
                    .await;
            let Life::Ended { how, asked } = &ended[0].life else { unreachable!() };
            assert!(how.contains(expected) && !asked, "{how}");
            // As often as it is wanted: systemd's own bound of starts is lifted each time.
            for _ in 0..8 {
                driver.start(&order("tools-1")).await.unwrap();
            }
            driver.stop(&"tools-1".to_owned(), Duration::from_secs(1)).await.unwrap();
            found(&driver, "it is forgotten", <[Found]>::is_empty).await;
        }
        let again = driver("again@.service");
        again.start(&order("tools-2")).await.unwrap();
        let waits =
            |found: &[Found]| found.iter().any(|one| one.life == Life::Pending && one.detail.contains(", systemd"));
        let waits = found(&again, "systemd waits to start it again", waits).await;
        assert!(waits[0].detail.ends_with("systemd starts it again after exit code 4"), "{}", waits[0].detail);
        again.stop(&"tools-2".to_owned(), Duration::from_secs(1)).await.unwrap();
        found(&again, "it is gone", <[Found]>::is_empty).await;

        let error = driver("absent@.service").start(&order("tools-1")).await.unwrap_err();
        assert!(error.kind == ErrorKind::Refused && error.what.contains("not found"), "{error}");
        assert!(error.advice.contains("daemon-reload"), "{error}");
    });
}

#[test]
fn inside_a_unit_that_does_not_stop_is_killed_after_its_grace() {
    if inside().is_none() {
        return;
    }
    local(async {
        let deaf = driver("deaf@.service");
        deaf.start(&order("tools-1")).await.unwrap();
        found(&deaf, "it runs", |found| found.iter().any(|one| one.life == Life::Running)).await;
        // Its shell has to come to its trap first, else it is not deaf yet.
        tokio::time::timeout(Duration::from_secs(20), async {
            while !traps(&deaf.list().await.unwrap()) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        let began = Instant::now();
        deaf.stop(&"tools-1".to_owned(), Duration::from_secs(1)).await.unwrap();
        found(&deaf, "it is stopping", |found| found.iter().any(|one| one.life == Life::Stopping)).await;
        found(&deaf, "it is gone", <[Found]>::is_empty).await;
        assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    });
}

/// Whether the process of the only instance ignores SIGTERM.
fn traps(found: &[Found]) -> bool {
    let pid = found[0].detail.rsplit("pid ").next().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or("0").trim();
    u64::from_str_radix(ignored, 16).unwrap() & (1 << 14) != 0
}

/// No systemd where it is looked for: the real client says so.
#[test]
fn without_a_manager_nothing_is_known() {
    if Command::new("systemctl").arg("--version").output().is_err() {
        skipped("the driver for systemd", "systemctl is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "systemd::outside_nothing_is_known"])
        .env(INSIDE, folder.path())
        .env("XDG_RUNTIME_DIR", folder.path())
        .env_remove("DBUS_SESSION_BUS_ADDRESS")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn outside_nothing_is_known() {
    if inside().is_none() {
        return;
    }
    local(async {
        let error = driver("app@.service").list().await.unwrap_err();
        assert!(error.kind == ErrorKind::Unreachable && error.advice.contains("enable-linger"), "{error}");
    });
}
