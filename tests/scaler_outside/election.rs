use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tidegate::config::model::Secret;
use tidegate::scaler::{Alone, Election, FileLock, RedisLock};

use super::http::{local, until};
use super::skipped;

#[test]
fn whoever_is_alone_leads() {
    local(async {
        let mut alone = Alone::new("me".to_owned());
        let standing = alone.campaign().await.unwrap();
        assert!(standing.leads && standing.generation == 1 && standing.leader.as_deref() == Some("me"));
        alone.resign().await;
    });
}

const HOLDER: &str = "TIDEGATE_TEST_LOCK_HOLDER";

/// Not a test of its own: what the test below starts and kills.
#[test]
fn child_that_leads_until_it_is_killed() {
    let Ok(path) = std::env::var(HOLDER) else { return };
    local(async {
        let mut child = FileLock::new(path.into(), "child".to_owned());
        println!("leads {}", child.campaign().await.unwrap().leads);
        std::future::pending::<()>().await;
    });
}

#[test]
fn a_killed_leader_is_followed_at_once() {
    local(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("leader");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "election::child_that_leads_until_it_is_killed"])
            .env(HOLDER, &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut ours = FileLock::new(path.clone(), "ours".to_owned());
        until("the child leads", async || std::fs::read_to_string(&path).ok()?.contains("child").then_some(())).await;
        let standing = ours.campaign().await.unwrap();
        assert_eq!((standing.leads, standing.leader.as_deref(), standing.generation), (false, Some("child"), 1));
        child.kill().unwrap();
        child.wait().unwrap();
        let standing = ours.campaign().await.unwrap();
        assert_eq!((standing.leads, standing.leader.as_deref(), standing.generation), (true, Some("ours"), 2));
        ours.resign().await;
        assert_eq!(FileLock::new(path, "next".to_owned()).campaign().await.unwrap().generation, 3);
    });
}

/// A real Redis on a Unix socket.
struct Redis {
    socket: std::path::PathBuf,
    process: Option<Child>,
}

impl Redis {
    fn start(folder: &Path) -> Option<Redis> {
        if Command::new("redis-server").arg("--version").output().is_err() {
            skipped("elections in Redis", "redis-server is not installed");
            return None;
        }
        let mut redis = Redis { socket: folder.join("redis.sock"), process: None };
        redis.run();
        Some(redis)
    }

    fn run(&mut self) {
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(&self.socket)
            .stdout(Stdio::null())
            .spawn();
        self.process = Some(process.unwrap());
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
            let _ = std::fs::remove_file(&self.socket);
        }
    }

    fn candidate(&self, name: &str, lease: Duration) -> RedisLock {
        let url = Secret::new(format!("unix:{}", self.socket.display()));
        RedisLock::new(&url, "tidegate-test", name.to_owned(), lease)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn stand(candidate: &mut RedisLock) -> (bool, Option<String>, u64) {
    until("Redis answers", async || {
        let standing = candidate.campaign().await.ok()?;
        Some((standing.leads, standing.leader, standing.generation))
    })
    .await
}

#[test]
fn of_two_candidates_in_redis_one_leads_until_it_goes_or_falls_silent() {
    local(async {
        let folder = tempfile::tempdir().unwrap();
        let Some(redis) = Redis::start(folder.path()) else { return };
        let lease = Duration::from_secs(1);
        // Two processes may well have the same name.
        let (mut one, mut other) = (redis.candidate("proxy", lease), redis.candidate("proxy", lease));
        let name = Some("proxy".to_owned());
        assert_eq!(stand(&mut one).await, (true, name.clone(), 1));
        assert_eq!(stand(&mut other).await, (false, name.clone(), 1));
        assert_eq!(stand(&mut one).await, (true, name.clone(), 1));
        one.resign().await;
        assert_eq!(stand(&mut other).await, (true, name.clone(), 2));
        // `other` is not heard of any more; `one` follows when the lease is over, and no earlier than that.
        let silent = Instant::now();
        until("the lease is over", async || one.campaign().await.unwrap().leads.then_some(())).await;
        assert!(silent.elapsed() >= Duration::from_millis(900), "{:?}", silent.elapsed());
        assert_eq!(stand(&mut other).await, (false, name, 3));
        // Who does not lead cannot give up what the other one has.
        other.resign().await;
        assert!(stand(&mut one).await.0);
    });
}

#[test]
fn without_redis_nobody_leads_and_generations_still_grow_when_it_has_lost_everything() {
    local(async {
        let folder = tempfile::tempdir().unwrap();
        let Some(mut redis) = Redis::start(folder.path()) else { return };
        let lease = Duration::from_secs(2);
        let (mut one, mut other) = (redis.candidate("one", lease), redis.candidate("other", lease));
        assert_eq!(stand(&mut one).await, (true, Some("one".to_owned()), 1));
        assert!(!stand(&mut other).await.0);
        redis.kill();
        for candidate in [&mut one, &mut other] {
            let began = Instant::now();
            let error = candidate.campaign().await.unwrap_err();
            assert!(began.elapsed() < lease, "{:?}", began.elapsed());
            assert!(error.what.contains("Redis") && error.advice.contains("nobody leads"), "{error}");
        }
        redis.run();
        let (leads, leader, generation) = stand(&mut other).await;
        assert_eq!((leads, leader.as_deref(), generation), (true, Some("other"), 2));
        assert_eq!(stand(&mut one).await, (false, Some("other".to_owned()), 2));
    });
}

#[test]
fn a_redis_that_hangs_costs_half_a_lease_and_the_leadership() {
    local(async {
        let folder = tempfile::tempdir().unwrap();
        let Some(mut redis) = Redis::start(folder.path()) else { return };
        let mut one = redis.candidate("one", Duration::from_secs(2));
        assert!(stand(&mut one).await.0);
        let number = redis.process.as_ref().unwrap().id();
        let signal =
            |name: &str| assert!(Command::new("kill").args([name, &number.to_string()]).status().unwrap().success());
        signal("-STOP");
        let began = Instant::now();
        let error = one.campaign().await.unwrap_err();
        assert!((0.9..1.9).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
        assert!(error.what.contains("Redis"), "{error}");
        signal("-CONT");
        assert!(stand(&mut one).await.0);
        redis.kill();
    });
}

#[test]
fn a_wrong_address_of_redis_does_not_show_its_password() {
    local(async {
        for url in ["nonsense://:geheim@127.0.0.1", "redis://:geheim@127.0.0.1:1/0"] {
            let mut candidate =
                RedisLock::new(&Secret::new(url.to_owned()), "key", "me".to_owned(), Duration::from_secs(2));
            let error = candidate.campaign().await.unwrap_err().to_string();
            assert!(!error.contains("geheim") && error.contains("scaler.leader.redis"), "{error}");
        }
    });
}
