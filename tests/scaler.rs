//! The scaler whole: real processes behind a real proxy, under load, killed, reloaded, put to sleep and woken.

mod support;

use std::collections::BTreeSet;
use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::*;
use tidegate::admin::scaling::{Finding, History, InstanceStatus, PoolScaler, Record, ScalerStatus};
use tokio::task::JoinHandle;

/// A word in the command line of every process that a test has had started: what is left of them ends with the test.
struct Mark(String);

impl Mark {
    fn new() -> Mark {
        Mark(format!("mark{:016x}", fastrand::u64(..)))
    }

    /// Those that live.
    fn alive(&self) -> BTreeSet<i32> {
        let Ok(folder) = std::fs::read_dir("/proc") else { return BTreeSet::new() };
        let pids = folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let marked = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.windows(self.0.len()).any(|part| part == self.0.as_bytes())
        };
        pids.filter(marked).collect()
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.alive().into_iter().for_each(kill);
    }
}

fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended meanwhile.
        let _ = kill_process(pid, Signal::KILL);
    }
}

const ROUTE: &str = "[listener.web]\nbind = \"127.0.0.1:0\"\n[[route]]\npool = \"app\"\n";

/// A pool of processes that answer after `latency`, four requests at once each.
fn app(mark: &Mark, latency: &str, settings: &str) -> String {
    let command = format!(
        "[\"{}\", \"upstream\", \"--bind\", \"127.0.0.1:{{port}}\", \"--name\", \"{{id}}-{}\", \"--latency\", \"{latency}\"]",
        env!("CARGO_BIN_EXE_tidegate"),
        mark.0
    );
    format!(
        "{ROUTE}[pool.app]\nmax_concurrency = 4\nqueue = {{ size = 5000, timeout = \"20s\" }}\n\
         health = {{ path = \"/health\", interval = \"500ms\" }}\n\
         [pool.app.scaler]\nstop_on_exit = true\nhold = \"2s\"\n{settings}\n\
         [pool.app.scaler.process]\ncommand = {command}\n"
    )
}

async fn scalers(proxy: &Proxy) -> ScalerStatus {
    proxy.admin().get("/scaler").await.parsed()
}

async fn scaler(proxy: &Proxy) -> Option<PoolScaler> {
    let answer = proxy.admin().get("/scaler").attempt().await.ok().filter(|answer| answer.status == 200)?;
    answer.parsed::<ScalerStatus>().pools.into_iter().find(|pool| pool.pool == "app")
}

async fn until_scaler<T>(proxy: &Proxy, what: &str, look: impl Fn(&PoolScaler) -> Option<T>) -> T {
    until(what, async || look(&scaler(proxy).await?)).await
}

fn ready(pool: &PoolScaler) -> Vec<&InstanceStatus> {
    pool.instances.iter().filter(|instance| instance.state == "ready").collect()
}

/// For what takes its time on purpose: a load that has gone is believed only when it has stayed away for a while.
async fn patiently<T>(proxy: &Proxy, what: &str, look: impl Fn(&PoolScaler) -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        if let Some(found) = scaler(proxy).await.and_then(|pool| look(&pool)) {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn until_ready(proxy: &Proxy, count: usize) -> Vec<InstanceStatus> {
    until_scaler(proxy, &format!("{count} instances are ready"), |pool| {
        let ready = ready(pool);
        (ready.len() == count).then(|| ready.into_iter().cloned().collect())
    })
    .await
}

fn pid_of(instance: &InstanceStatus) -> i32 {
    let (_, rest) = instance.detail.split_once("pid ").expect("its driver tells its pid");
    rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default().parse().expect("a pid")
}

fn has(pool: &PoolScaler, code: &str) -> Option<Finding> {
    pool.conditions.iter().find(|finding| finding.code == code).cloned()
}

/// Clients that ask without a pause until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(address: std::net::SocketAddr, clients: usize) -> Load {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let ask = |_| {
            let (stop, answered) = (stop.clone(), answered.clone());
            tokio::spawn(async move {
                let client = client(address);
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match client.get("/").attempt().await {
                        Ok(answer) if answer.status == 200 => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        Ok(answer) => failures.push(format!("{}: {}", answer.status, answer.text())),
                        Err(error) => failures.push(error.to_string()),
                    }
                }
                failures
            })
        };
        Load { tasks: (0..clients).map(ask).collect(), stop, answered }
    }

    /// Ends it; not one request has failed.
    async fn ends_well(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            let failures = soon("a client ends", task).await.expect("a client does not panic");
            assert!(
                failures.is_empty(),
                "{} requests failed: {:?}",
                failures.len(),
                &failures[..failures.len().min(3)]
            );
        }
        self.answered.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_brings_instances_and_its_end_drains_them_and_no_request_fails() {
    let mark = Mark::new();
    let proxy = proxy(&app(&mark, "100ms", "min = 1\nmax = 6")).start().await;
    until_ready(&proxy, 1).await;
    let load = Load::start(proxy.address("web"), 16);
    until_scaler(&proxy, "four are ready", |pool| (ready(pool).len() >= 4).then_some(())).await;
    assert!(load.ends_well().await > 20);
    let last = patiently(&proxy, "one is left", |pool| (pool.instances.len() == 1).then(|| pool.clone())).await;
    assert_eq!((last.desired, last.min, last.max, last.driver.as_str()), (1, 1, 6, "process"));
    eventually("the processes are gone", || mark.alive().len() == 1).await;

    let history: History = proxy.admin().get("/scaler/app/history").await.parsed();
    let steps: Vec<_> =
        history.records.iter().map(|record| (record.decision.current, record.decision.desired)).collect();
    assert!(steps.iter().any(|(from, to)| to > from) && steps.iter().any(|(from, to)| to < from), "{steps:?}");
    assert!(steps.iter().all(|(_, to)| (1..=6).contains(to)), "{steps:?}");
    let up = history.records.iter().find(|record| record.decision.desired >= 2).expect("a step up");
    assert!(up.decision.terms.slots > 0.0 && !up.decision.reason.is_empty() && !up.decision.sources.is_empty());
    let then: Record = proxy.admin().get(&format!("/scaler/app/explain?at={}", up.decision.at + 0.01)).await.parsed();
    assert_eq!(then.id, up.id);
    assert_eq!(proxy.metric("tidegate_scaler_desired{pool=\"app\"}").await, Some(1.0));
    assert!(proxy.metric("tidegate_scaler_starts_total{pool=\"app\",result=\"ready\"}").await >= Some(4.0));
    proxy.stop().await;
    eventually("with the proxy its instances end", || mark.alive().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_is_killed_is_replaced_and_no_request_fails() {
    let mark = Mark::new();
    let proxy = proxy(&app(&mark, "20ms", "min = 3\nmax = 3")).start().await;
    let before = until_ready(&proxy, 3).await;
    let load = Load::start(proxy.address("web"), 6);
    for victim in &before[..2] {
        let pid = pid_of(victim);
        kill(pid);
        until_scaler(&proxy, "another is there", |pool| {
            let all = ready(pool);
            (all.len() == 3 && all.iter().all(|instance| pid_of(instance) != pid)).then_some(())
        })
        .await;
    }
    assert!(load.ends_well().await > 10);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_outlive_a_killed_proxy_and_the_next_one_finds_them() {
    let mark = Mark::new();
    let text = app(&mark, "1ms", "min = 2\nmax = 2").replace("stop_on_exit = true", "");
    let mut first = proxy(&text).spawn().await;
    until_ready(&first, 2).await;
    let pids = mark.alive();
    assert_eq!(pids.len(), 2);
    first.signal(Signal::KILL);
    first.ended().await;
    assert_eq!(mark.alive(), pids, "they go on without their proxy");
    let mut second = first.again().await;
    let found = until_ready(&second, 2).await;
    assert_eq!(found.iter().map(pid_of).collect::<BTreeSet<_>>(), pids);
    assert_eq!(mark.alive(), pids, "nobody is there twice");
    // One that has died meanwhile is noticed and replaced, though it is nobody's child.
    let gone = pid_of(&found[0]);
    kill(gone);
    until_scaler(&second, "it is replaced", |pool| {
        let all = ready(pool);
        (all.len() == 2 && all.iter().all(|instance| pid_of(instance) != gone)).then_some(())
    })
    .await;
    let history: History = second.admin().get("/scaler/app/history?all=true").await.parsed();
    assert!(history.records.iter().any(|record| record.decision.current == 0), "what the first one decided is known");
    second.signal(Signal::TERM);
    second.ended().await;
    assert_eq!(mark.alive().len(), 2, "an orderly end leaves them too, unless it is told otherwise");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_pool_sleeps_and_the_first_request_wakes_it() {
    let mark = Mark::new();
    let settings = "min = 0\nmax = 2\nsleep = { idle_for = \"1s\" }";
    let proxy = proxy(&app(&mark, "1ms", settings)).start().await;
    until_scaler(&proxy, "it is known", |pool| pool.last.is_some().then_some(())).await;
    assert!(mark.alive().is_empty());
    let probe = proxy.client().get("/").header("user-agent", "kube-probe/1.30").await;
    assert_eq!(probe.status, 503);
    assert!(probe.headers.contains_key("retry-after"));
    assert!(mark.alive().is_empty(), "a probe does not wake it");
    let asked: Vec<_> = (0..8).map(|_| tokio::spawn(proxy.client().get("/").into_future())).collect();
    for answer in asked {
        assert_eq!(soon("an answer", answer).await.unwrap().status, 200);
    }
    patiently(&proxy, "it sleeps again", |pool| pool.instances.is_empty().then_some(())).await;
    eventually("the process is gone", || mark.alive().is_empty()).await;
    assert_eq!(proxy.client().get("/").await.status, 200, "and is woken again");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_starts_is_told_harms_nobody_and_is_put_right_by_an_edit() {
    let mark = Mark::new();
    let good = app(&mark, "1ms", "min = 1\nmax = 2\nrestart = { backoff = \"50ms\", quarantine_after = 3 }");
    let proxy = proxy(&good).start().await;
    until_ready(&proxy, 1).await;
    let bad = good.replace("\"upstream\"", "\"no-such-command\"");
    assert!(proxy.edit(&bad).await.accepted);
    let finding = until_scaler(&proxy, "the failures are told", |pool| has(pool, "START_FAILURES")).await;
    assert!(finding.severity == "critical" && !finding.advice.is_empty(), "{finding:?}");
    assert_eq!(proxy.client().get("/").await.status, 200, "what works goes on");
    let doctor: Vec<Finding> = proxy.admin().get("/scaler/doctor").await.parsed();
    assert!(doctor.iter().any(|finding| finding.code == "START_FAILURES"));
    assert_eq!(proxy.metric("tidegate_scaler_condition{pool=\"app\",code=\"START_FAILURES\"}").await, Some(1.0));
    assert!(proxy.edit(&good).await.accepted);
    until_scaler(&proxy, "all is well", |pool| pool.conditions.is_empty().then_some(())).await;
    assert_eq!(proxy.client().get("/").await.status, 200);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_command_rolls_through_and_no_request_fails() {
    let mark = Mark::new();
    let text = app(&mark, "5ms", "min = 2\nmax = 3");
    let proxy = proxy(&text).start().await;
    let before: BTreeSet<i32> = until_ready(&proxy, 2).await.iter().map(pid_of).collect();
    let load = Load::start(proxy.address("web"), 3);
    assert!(proxy.edit(&text.replace("\"5ms\"", "\"6ms\"")).await.accepted);
    until_scaler(&proxy, "all are new", |pool| {
        let all = ready(pool);
        let new = all.iter().all(|instance| !before.contains(&pid_of(instance)) && !instance.outdated);
        (pool.instances.len() == 2 && all.len() == 2 && new).then_some(())
    })
    .await;
    assert!(load.ends_well().await > 10);
    eventually("the old ones are gone", || mark.alive().is_disjoint(&before)).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scaler_that_is_taken_out_drains_and_stops_what_it_made() {
    let mark = Mark::new();
    let text = app(&mark, "1ms", "min = 2\nmax = 2");
    let proxy = proxy(&text).start().await;
    until_ready(&proxy, 2).await;
    let bare = format!("{ROUTE}[pool.app]\nupstreams = []\n");
    assert!(proxy.edit(&bare).await.accepted);
    eventually("they are gone", || mark.alive().is_empty()).await;
    until("the scaler is gone", async || scaler(&proxy).await.is_none().then_some(())).await;
    assert!(proxy.edit(&text).await.accepted);
    until_ready(&proxy, 2).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_pause_set_and_recycle() {
    let mark = Mark::new();
    let proxy = proxy(&app(&mark, "1ms", "min = 1\nmax = 4")).start().await;
    let first = until_ready(&proxy, 1).await;
    let post = async |path: &str| proxy.admin().post(&format!("/scaler/app/{path}"), "").await;
    let set: PoolScaler = post("set?to=3&for=1h").await.parsed();
    assert_eq!(set.set.map(|(to, _)| to), Some(3));
    until_ready(&proxy, 3).await;
    assert_eq!(post("set?to=9").await.status, 409, "more than the most");
    assert_eq!(post("set?to=x").await.status, 400);
    assert!(post("set").await.parsed::<PoolScaler>().set.is_none());
    assert!(post("pause?for=1h").await.parsed::<PoolScaler>().paused.is_some());
    assert!(post("resume").await.parsed::<PoolScaler>().paused.is_none());
    until_ready(&proxy, 1).await;
    assert_eq!(post("recycle").await.status, 200);
    until_scaler(&proxy, "it is another one", |pool| {
        let all = ready(pool);
        (pool.instances.len() == 1 && all.len() == 1 && pid_of(all[0]) != pid_of(&first[0])).then_some(())
    })
    .await;
    assert_eq!(proxy.admin().post("/scaler/nobody/pause", "").await.status, 404);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looking_on_changes_nothing_and_tells_what_would_be() {
    let mark = Mark::new();
    let proxy = proxy(&app(&mark, "1ms", "mode = \"dry_run\"\nmin = 2\nmax = 4")).start().await;
    let told = until_scaler(&proxy, "it tells", |pool| has(pool, "DRY_RUN")).await;
    assert!(told.text.contains('2'), "{}", told.text);
    assert!(mark.alive().is_empty());
    assert_eq!(proxy.client().get("/").await.status, 503);
    assert!(proxy.edit(&app(&mark, "1ms", "min = 2\nmax = 4")).await.accepted);
    until_ready(&proxy, 2).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_proxies_one_decides_and_the_other_takes_over() {
    let mark = Mark::new();
    let text = app(&mark, "1ms", "min = 2\nmax = 2").replace("stop_on_exit = true", "");
    let folder = tempfile::tempdir().unwrap();
    let shared = format!(
        "[scaler]\nstate = \"{0}/state\"\nleader = {{ kind = \"file\", file = \"{0}/leader\", lease = \"1s\" }}\n{text}",
        folder.path().display()
    );
    let mut one = proxy(&shared).spawn().await;
    until("the first one leads", async || (scalers(&one).await.leadership == "leader").then_some(())).await;
    until_ready(&one, 2).await;
    let other = proxy(&shared).spawn().await;
    until("the second one follows", async || (scalers(&other).await.leadership == "follower").then_some(())).await;
    let web = client(other.address_of("web").await);
    until("it uses what the first one has made", async || {
        web.get("/").attempt().await.ok().filter(|answer| answer.status == 200)
    })
    .await;
    assert_eq!(mark.alive().len(), 2, "it makes none of its own");
    assert_eq!(other.admin().post("/scaler/app/pause", "").await.status, 409, "who follows is not asked to steer");
    let generation = scalers(&one).await.generation;
    one.signal(Signal::KILL);
    one.ended().await;
    until("the second one leads", async || (scalers(&other).await.leadership == "leader").then_some(())).await;
    assert!(scalers(&other).await.generation > generation);
    let victim = until_ready(&other, 2).await.iter().map(pid_of).min().unwrap();
    kill(victim);
    until_scaler(&other, "it replaces", |pool| {
        let all = ready(pool);
        (all.len() == 2 && all.iter().all(|instance| pid_of(instance) != victim)).then_some(())
    })
    .await;
    assert_eq!(mark.alive().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_the_same_state_only_looks_on() {
    let mark = Mark::new();
    let text = app(&mark, "1ms", "min = 1\nmax = 1").replace("stop_on_exit = true", "");
    let folder = tempfile::tempdir().unwrap();
    let shared = format!("[scaler]\nstate = \"{}\"\n{text}", folder.path().display());
    let mut one = proxy(&shared).spawn().await;
    until_ready(&one, 1).await;
    let other = proxy(&shared).spawn().await;
    until("it says why it does nothing", async || {
        let findings: Vec<Finding> = other.admin().get("/scaler/doctor").await.parsed();
        findings.iter().any(|finding| finding.code == "STATE_IN_USE").then_some(())
    })
    .await;
    assert_eq!(mark.alive().len(), 1);
    one.signal(Signal::TERM);
    one.ended().await;
    let instance = until_ready(&other, 1).await;
    assert_eq!(mark.alive(), BTreeSet::from([pid_of(&instance[0])]), "the next one has taken it over");
}
