//! The docker driver on a real engine: containers are made, found again, seen to die, stopped.
//!
//! Tests that need an engine skip where none answers; `.ci/dockerd` starts one.
#![cfg(feature = "docker")]

mod engine;
mod support;

use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use bollard::models::{ContainerCreateBody, NetworkCreateRequest};
use bollard::query_parameters::{CreateContainerOptionsBuilder, KillContainerOptionsBuilder};
use engine::*;
use support::*;
use tidegate::config::model;
use tidegate::scaler::docker::DockerDriver;
use tidegate::scaler::{Driver, ErrorKind, Found, Life, Order, spec_hash};
use tidegate::types::{Address, Size};

fn socket_address(found: &Found) -> std::net::SocketAddr {
    match &found.address {
        Some(Address::Ip(address)) => *address,
        other => panic!("{other:?} is no IP address"),
    }
}

/// Waits until the instance answers, and who does.
async fn answer_of(found: &Found) -> String {
    let client = client(socket_address(found));
    until("the instance answers", async || client.get("/").attempt().await.ok()).await.upstream()
}

fn now() -> f64 {
    SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs_f64()
}

#[test]
fn instances_are_made_and_reached_on_ports_of_this_host() {
    on_engine(&["made"], async |engine| {
        let driver = engine.driver("made", |docker| {
            docker.env.insert("MODE".to_owned(), "test".to_owned());
            docker.labels.insert("team".to_owned(), "web".to_owned());
        });
        assert_eq!((driver.kind(), driver.by_count()), ("docker", false));
        assert_eq!(driver.list().await, Ok(vec![]));
        let before = now();
        for id in ["made-1", "made-2"] {
            driver.start(&order(id)).await.unwrap();
        }
        let (one, two) = (running(&driver, "made-1").await, running(&driver, "made-2").await);
        assert_ne!(one.address, two.address);
        for found in [&one, &two] {
            assert!(socket_address(found).ip().is_loopback());
            assert_eq!(answer_of(found).await, "inside");
            assert_eq!(
                found.spec,
                Some(spec_hash(&engine.settings(|docker| {
                    docker.env.insert("MODE".to_owned(), "test".to_owned());
                    docker.labels.insert("team".to_owned(), "web".to_owned());
                })))
            );
            assert_eq!((found.generation, &found.zone), (1, &None));
            // The engine's clock is this machine's.
            assert!(found.started.is_some_and(|at| at > before - 1.0 && at < now() + 1.0), "{found:?}");
            assert!(found.detail.starts_with("container "), "{}", found.detail);
        }
        // What is there already is not made again.
        driver.start(&order("made-1")).await.unwrap();
        assert_eq!(driver.list().await.unwrap().len(), 2);
        let ids = engine.containers_of("made").await;
        let seen = engine.docker.inspect_container(&ids[0], None).await.unwrap();
        let config = seen.config.unwrap();
        assert_eq!(config.labels.unwrap()["team"], "web");
        assert!(config.env.unwrap().contains(&"MODE=test".to_owned()));
        let policy = seen.host_config.unwrap().restart_policy.unwrap();
        assert_eq!(policy.name.unwrap().to_string(), "no");
    });
}

#[test]
fn on_a_network_instances_have_their_own_addresses() {
    on_engine(&["net"], async |engine| {
        let name = "tidegate-test".to_owned();
        // What a test that failed has left.
        engine.docker.remove_network(&name).await.ok();
        let network = NetworkCreateRequest { name: name.clone(), ..Default::default() };
        engine.docker.create_network(network).await.unwrap();
        let driver = engine.driver("net", |docker| docker.network = Some(name.clone()));
        for id in ["net-1", "net-2"] {
            driver.start(&order(id)).await.unwrap();
        }
        let (one, two) = (running(&driver, "net-1").await, running(&driver, "net-2").await);
        assert_ne!(socket_address(&one).ip(), socket_address(&two).ip());
        for found in [&one, &two] {
            assert!(!socket_address(found).ip().is_loopback());
            assert_eq!(socket_address(found).port(), 8000);
            assert_eq!(answer_of(found).await, "inside");
        }
        for id in engine.containers_of("net").await {
            engine.remove(&id).await;
        }
        engine.docker.remove_network(&name).await.unwrap();

        let error = driver.start(&order("net-3")).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused);
        assert!(error.advice.contains(&format!("docker network create {name}")), "{error}");
        // Nothing is left of what could not be started.
        assert_eq!(engine.containers_of("net").await, [""; 0]);
    });
}

#[test]
fn a_crash_is_seen_once_with_how_it_was() {
    on_engine(&["crash"], async |engine| {
        let driver = engine.driver("crash", |_| ());
        driver.start(&order("crash-1")).await.unwrap();
        running(&driver, "crash-1").await;
        let kill = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
        engine.docker.kill_container("tidegate-crash-1", Some(kill)).await.unwrap();
        let (how, asked) = end(&driver, "crash-1").await;
        assert!(how.starts_with("exit code 137 (SIGKILL)"), "{how}");
        assert!(!asked);
        gone(&driver, "crash-1").await;
        until("its container is removed", async || engine.containers_of("crash").await.is_empty().then_some(())).await;

        // One that does not come up says why, and its name is free again at once.
        let wrong = engine.driver("crash", |docker| docker.command = vec!["/tidegate".into(), "frobnicate".into()]);
        wrong.start(&order("crash-1")).await.unwrap();
        let (how, asked) = end(&wrong, "crash-1").await;
        assert!(how.starts_with("exit code 64: "), "{how}");
        assert!(!asked);
        driver.start(&order("crash-1")).await.unwrap();
        running(&driver, "crash-1").await;
    });
}

#[test]
fn running_out_of_memory_is_told() {
    on_engine(&["oom"], async |engine| {
        let driver = engine.driver("oom", |docker| {
            // A line without an end.
            docker.command = vec!["/tail".into(), "/dev/zero".into()];
            docker.memory = Some(Size(32 << 20));
        });
        driver.start(&order("oom-1")).await.unwrap();
        assert_eq!(end(&driver, "oom-1").await, ("out of memory".to_owned(), false));
    });
}

#[test]
fn a_stop_is_waited_for_elsewhere_and_then_kills() {
    on_engine(&["stop"], async |engine| {
        let kind = engine.driver("stop", |_| ());
        // The first process of a container ignores what it has no handler for.
        let deaf = engine.driver("stop", |docker| {
            docker.command = vec!["/tail".into(), "-f".into(), "/dev/null".into()];
        });
        kind.start(&order("stop-1")).await.unwrap();
        deaf.start(&order("stop-2")).await.unwrap();
        running(&kind, "stop-1").await;
        running(&deaf, "stop-2").await;

        kind.stop(&"stop-1".to_owned(), Duration::from_secs(30)).await.unwrap();
        assert_eq!(
            end(&kind, "stop-1").await,
            ("exit code 0: upstream inside listening on 0.0.0.0:8000".to_owned(), true)
        );
        gone(&kind, "stop-1").await;

        let asked = Instant::now();
        deaf.stop(&"stop-2".to_owned(), Duration::from_secs(600)).await.unwrap();
        assert!(asked.elapsed() < Duration::from_secs(10));
        found(&deaf, "stop-2", "stops", |found| found.life == Life::Stopping && found.address.is_some()).await;
        // Less time than it has counts, more does not.
        deaf.stop(&"stop-2".to_owned(), Duration::from_secs(900)).await.unwrap();
        deaf.stop(&"stop-2".to_owned(), Duration::from_millis(500)).await.unwrap();
        assert_eq!(end(&deaf, "stop-2").await, ("exit code 137 (SIGKILL)".to_owned(), true));
        gone(&deaf, "stop-2").await;
        until("both are removed", async || engine.containers_of("stop").await.is_empty().then_some(())).await;
        // Stopping what is gone is no error.
        kind.stop(&"stop-1".to_owned(), Duration::ZERO).await.unwrap();
    });
}

#[test]
fn what_an_earlier_driver_made_is_found_again() {
    on_engine(&["again", "again2"], async |engine| {
        let first = engine.driver("again", |_| ());
        first.start(&Order { generation: 5, ..order("again-1") }).await.unwrap();
        let before = running(&first, "again-1").await;
        drop(first);
        let other = engine.driver("again2", |_| ());
        assert_eq!(other.list().await, Ok(vec![]));

        let settings = engine.settings(|docker| docker.grace = Duration::from_secs(7));
        let second = DockerDriver::new("again", &settings, "proxy-b").unwrap();
        let list = second.list().await.unwrap();
        assert_eq!(list.len(), 1);
        assert_eq!((&list[0].id, &list[0].address, list[0].started), (&before.id, &before.address, before.started));
        assert!(list[0].detail.contains("made by proxy-a"), "{}", list[0].detail);
        // How it is stopped is no part of what it is: it need not be replaced.
        assert_eq!(list[0].spec, Some(spec_hash(&settings)));
        let third = engine.driver("again", |docker| drop(docker.env.insert("NEW".to_owned(), "1".to_owned())));
        assert_eq!(third.list().await.unwrap()[0].spec.as_deref().map(str::len), Some(16));
        assert_ne!(
            third.list().await.unwrap()[0].spec,
            Some(spec_hash(&engine.settings(|docker| drop(docker.env.insert("NEW".to_owned(), "1".to_owned())))))
        );
        let error = third.start(&Order { generation: 5, ..order("again-1") }).await.unwrap_err();
        assert!(error.kind == ErrorKind::Refused && error.what.contains("other settings"), "{error}");

        // A leader that is none any more is told so, also by a driver that has just begun.
        let late = DockerDriver::new("again", &settings, "proxy-a").unwrap();
        let error = late.start(&Order { generation: 4, ..order("again-2") }).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Fenced, "{error}");
        late.start(&Order { generation: 6, ..order("again-2") }).await.unwrap();
        assert_eq!(running(&second, "again-2").await.generation, 6);
    });
}

#[test]
fn what_is_not_ours_is_left_alone() {
    on_engine(&["foreign"], async |engine| {
        let name = "tidegate-foreign-1";
        engine.remove(name).await;
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        let body = ContainerCreateBody {
            image: Some(engine.settings(|_| ()).image),
            cmd: Some(vec!["/tail".to_owned()]),
            ..Default::default()
        };
        let made = engine.docker.create_container(Some(options), body).await.unwrap();
        let driver = engine.driver("foreign", |_| ());
        let error = driver.start(&order("foreign-1")).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused);
        assert!(error.what.contains("not pool foreign's") && error.advice.contains("docker rename"), "{error}");
        driver.stop(&"foreign-1".to_owned(), Duration::ZERO).await.unwrap();
        assert_eq!(driver.list().await, Ok(vec![]));
        assert!(engine.docker.inspect_container(&made.id, None).await.is_ok());
        engine.remove(&made.id).await;
    });
}

#[test]
fn what_cannot_be_started_is_refused_with_advice() {
    on_engine(&["wrong"], async |engine| {
        let refusal = async |change: fn(&mut model::Docker)| {
            let error = engine.driver("wrong", change).start(&order("wrong-1")).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Refused, "{error}");
            assert_eq!(engine.containers_of("wrong").await, [""; 0], "{error}");
            error.to_string()
        };
        for (change, word) in [
            (
                (|docker| docker.image = "localhost/tidegate-test:none".to_owned()) as fn(&mut model::Docker),
                "docker pull localhost/tidegate-test:none",
            ),
            (|docker| docker.command = vec!["/nothing".to_owned()], "`command`"),
            (|docker| docker.user = Some("nobody-here".to_owned()), "`user`"),
            (|docker| docker.memory = Some(Size(1 << 20)), "`memory`"),
            (|docker| docker.cpus = Some(9999.0), "`cpus`"),
            (|docker| docker.volumes = vec!["not:a:volume:at:all".to_owned()], "`volumes`"),
        ] {
            let text = refusal(change).await;
            assert!(text.contains(word), "{text}");
        }
    });
}

#[test]
fn a_missing_image_is_pulled_while_the_instance_is_pending() {
    on_engine(&["pull"], async |engine| {
        let registry = Registry::start().await;
        let driver = engine.driver("pull", |docker| {
            (docker.image, docker.pull) = (registry.image.clone(), true);
            docker.command = vec!["/tail".into(), "-f".into(), "/dev/null".into()];
        });
        for id in ["pull-1", "pull-2", "pull-3"] {
            driver.start(&order(id)).await.unwrap();
        }
        let list = driver.list().await.unwrap();
        assert_eq!(list.len(), 3);
        for found in &list {
            assert_eq!((&found.life, &found.address, found.started), (&Life::Pending, &None, None));
            assert_eq!(found.detail, format!("pulling image {}", registry.image));
        }
        // Who is not wanted any more is not started after all.
        driver.stop(&"pull-3".to_owned(), Duration::ZERO).await.unwrap();
        assert_eq!(driver.list().await.unwrap().len(), 2);
        let opened = now();
        registry.open();
        for id in ["pull-1", "pull-2"] {
            let found = running(&driver, id).await;
            // Pulling is no part of starting.
            assert!(found.started.is_some_and(|at| at > opened), "{found:?}");
        }
        assert_eq!(engine.containers_of("pull").await.len(), 2);
        drop(driver);
        for id in engine.containers_of("pull").await {
            engine.remove(&id).await;
        }
        engine.remove_image(&registry.image).await;
    });
}

#[test]
fn an_image_that_cannot_be_pulled_is_told_once_and_tried_again_when_asked() {
    on_engine(&["vain"], async |engine| {
        // Nobody listens there.
        let vacant = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let image = format!("{vacant}/shop:1");
        let driver = engine.driver("vain", |docker| (docker.image, docker.pull) = (image.clone(), true));
        for _ in 0..2 {
            driver.start(&order("vain-1")).await.unwrap();
            let (how, asked) = end(&driver, "vain-1").await;
            assert!(
                how.contains(&format!("cannot pull image {image}")) && how.contains("reaches the registry"),
                "{how}"
            );
            assert!(!asked);
            assert_eq!(driver.list().await, Ok(vec![]));
        }
    });
}

#[test]
fn what_instances_use_is_measured() {
    on_engine(&["usage"], async |engine| {
        let driver = engine.driver("usage", |docker| {
            docker.command = vec!["/sha256sum".into(), "/dev/zero".into()];
            docker.cpus = Some(0.5);
            docker.memory = Some(Size(64 << 20));
        });
        driver.start(&order("usage-1")).await.unwrap();
        running(&driver, "usage-1").await;
        let first = driver.usage().await.unwrap();
        assert_eq!((first.len(), first[0].0.as_str(), first[0].1.cpus), (1, "usage-1", None));
        let usage = until("it has used a CPU", async || {
            let usage = driver.usage().await.unwrap()[0].1;
            usage.cpus.is_some_and(|cpus| cpus > 0.05).then_some(usage)
        })
        .await;
        let (cpus, share) = (usage.cpus.unwrap(), usage.cpu_share.unwrap());
        assert!((share - cpus / 0.5).abs() < 1e-9, "{usage:?}");
        let memory = usage.memory.unwrap();
        assert!(memory > 0 && memory < 64 << 20, "{usage:?}");
        assert!((usage.memory_share.unwrap() - memory as f64 / f64::from(64 << 20)).abs() < 1e-9, "{usage:?}");
    });
}

#[test]
fn changes_are_told_as_they_happen() {
    on_engine(&["changes"], async |engine| {
        let driver = engine.driver("changes", |_| ());
        driver.start(&order("changes-1")).await.unwrap();
        running(&driver, "changes-1").await;
        let restart = async || engine.docker.restart_container("tidegate-changes-1", None).await.unwrap();
        // What happens before the driver has begun to listen is not told.
        until("a change is told", async || {
            restart().await;
            tokio::time::timeout(Duration::from_millis(200), driver.changed()).await.ok()
        })
        .await;
        let before = running(&driver, "changes-1").await;
        restart().await;
        soon("another change", driver.changed()).await;
        // Same container, other process: what was known of it is asked again.
        found(&driver, "changes-1", "has started anew", |found| found.started > before.started).await;
    });
}

#[test]
fn an_engine_that_goes_and_comes_back_changes_nothing() {
    on_engine_alone(&["gone"], async |engine| {
        let Some(pid_file) = engine.pid_file() else {
            let text = "skipped: the engine is not one that `.ci/dockerd` has started, so it is not ours to end";
            assert!(std::env::var_os("TIDEGATE_TEST_ALL").is_none(), "{text}");
            return eprintln!("{text}");
        };
        let driver = engine.driver("gone", |_| ());
        for id in ["gone-1", "gone-2"] {
            driver.start(&order(id)).await.unwrap();
        }
        let (one, two) = (running(&driver, "gone-1").await, running(&driver, "gone-2").await);
        answer_of(&one).await;

        let pid: i32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL)
            .unwrap();
        until("the engine is out of reach", async || {
            let error = driver.list().await.err()?;
            assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
            error.advice.contains("systemctl start docker").then_some(())
        })
        .await;
        assert_eq!(driver.start(&order("gone-3")).await.unwrap_err().kind, ErrorKind::Unreachable);
        assert_eq!(driver.stop(&"gone-1".to_owned(), Duration::ZERO).await.unwrap_err().kind, ErrorKind::Unreachable);
        assert_eq!(driver.usage().await.unwrap_err().kind, ErrorKind::Unreachable);

        let folder = engine.socket.parent().unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/.ci/dockerd");
        let output = Command::new(script).arg("start").arg(folder).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let again = running(&driver, "gone-1").await;
        assert_eq!((again.started, again.spec), (one.started, one.spec));
        assert_eq!(running(&driver, "gone-2").await.started, two.started);
        assert_eq!(answer_of(&running(&driver, "gone-2").await).await, "inside");
        driver.stop(&"gone-1".to_owned(), Duration::from_secs(5)).await.unwrap();
        gone(&driver, "gone-1").await;
    });
}

/// A driver for whatever is, or is not, at this socket.
fn driver_at(socket: &std::path::Path) -> DockerDriver {
    DockerDriver::new("app", &settings_at(socket), "proxy-a").unwrap()
}

#[test]
fn an_engine_that_is_not_there_is_told_with_advice() {
    on_runtime(async {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("engine.sock");
        let driver = driver_at(&socket);
        let error = driver.list().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unreachable);
        assert!(error.what.contains("no such socket") && error.advice.contains("systemctl start docker"), "{error}");

        drop(UnixListener::bind(&socket).unwrap());
        let error = driver.list().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unreachable);
        assert!(error.what.contains("nobody listens"), "{error}");

        // One whose queue is full, because it has hung for long.
        std::fs::remove_file(&socket).unwrap();
        let full = UnixListener::bind(&socket).unwrap();
        rustix::net::listen(&full, 0).unwrap();
        let _first = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        let error = driver.list().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unreachable);
        assert!(error.what.contains("takes no connections"), "{error}");
    });
}

#[test]
fn an_engine_that_hangs_is_waited_for_ten_seconds() {
    on_runtime(async {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("engine.sock");
        // Connections are taken by the kernel, and nobody reads them.
        let _deaf = UnixListener::bind(&socket).unwrap();
        let driver = driver_at(&socket);
        let begun = Instant::now();
        let error = driver.list().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unreachable);
        assert!(error.what.contains("within 10 s"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(15));
    });
}
