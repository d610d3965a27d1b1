use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tidegate::admin::scaling::{Outcome, Record, Sample};
use tidegate::scale::Decision;
use tidegate::scaler::Store;

const YEAR: Duration = Duration::from_secs(365 * 86400);
const PATIENCE: Duration = Duration::from_secs(20);
const DAY: f64 = 86400.0;

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64().floor()
}

fn record(at: f64, from: u32, to: u32) -> Record {
    let decision = Decision { at, current: from, desired: to, apply: true, ..Decision::default() };
    Record { id: format!("{at:016.3}"), pool: "tools".to_owned(), decision, ..Record::default() }
}

fn open(folder: &Path) -> Store {
    Store::open(folder, YEAR).unwrap()
}

fn written(store: Store) {
    assert!(store.flush(PATIENCE), "{:?}", store.findings());
}

fn times(store: &Store, since: Option<f64>, until: Option<f64>, limit: usize, all: bool) -> (Vec<f64>, bool) {
    let history = store.history("tools", since, until, limit, all);
    (history.records.iter().map(|record| record.decision.at).collect(), history.more)
}

#[test]
fn history_survives_and_is_found_by_time() {
    let folder = tempfile::tempdir().unwrap();
    let start = now() - 5.0 * DAY;
    let store = open(folder.path());
    // Every other one changes something; they lie on six days.
    for step in 0..240u32 {
        store.record(record(start + f64::from(step) * 1800.0, 3, 3 + step % 2));
    }
    let late = start + 239.0 * 1800.0;
    store.outcome("tools", &record(late, 0, 0).id, Outcome { verdict: "good".into(), ..Outcome::default() });
    let recent = times(&store, Some(start), None, 10_000, true);
    written(store);

    let store = open(folder.path());
    assert_eq!(times(&store, None, None, 10_000, true), recent);
    assert_eq!(recent.0.len(), 240);
    let (changes, more) = times(&store, None, None, 5, false);
    assert_eq!(changes, [231, 233, 235, 237, 239].map(|step| start + f64::from(step) * 1800.0));
    assert!(more);
    let (between, more) = times(&store, Some(start + 1800.0), Some(start + 7200.0), 100, true);
    assert_eq!((between, more), (vec![start + 1800.0, start + 3600.0, start + 5400.0, start + 7200.0], false));
    assert_eq!(store.at("tools", start + 2.5 * 1800.0).unwrap().decision.at, start + 2.0 * 1800.0);
    assert_eq!(store.at("tools", start - 1.0), None);
    assert_eq!(store.at("tools", f64::INFINITY).unwrap().outcome.unwrap().verdict, "good");
    assert_eq!(store.history("other", None, None, 10, true).records, []);
}

#[test]
fn an_outcome_that_came_after_a_restart_is_merged() {
    let folder = tempfile::tempdir().unwrap();
    let at = now() - 1.5 * DAY;
    let store = open(folder.path());
    store.record(record(at, 1, 2));
    written(store);
    let store = open(folder.path());
    store.outcome("tools", &record(at, 0, 0).id, Outcome { ready_after: Some(2.0), ..Outcome::default() });
    written(store);
    // Told on a later day than the record's, and found beside it.
    let found = open(folder.path()).at("tools", at).unwrap();
    assert_eq!(found.outcome.map(|outcome| outcome.ready_after), Some(Some(2.0)));
}

#[test]
fn a_state_is_replaced_whole_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    assert_eq!(store.load_pool("a/../b"), None);
    store.keep_pool("a/../b", &json!({ "seen": 1 }));
    store.keep_pool("a/../b", &json!({ "seen": 2 }));
    assert_eq!(store.load_pool("a/../b"), Some(json!({ "seen": 1 })), "kept again within five seconds");
    store.save_pool("a/../b", &json!({ "seen": 3 }));
    written(store);
    assert_eq!(open(folder.path()).load_pool("a/../b"), Some(json!({ "seen": 3 })));
    assert!(fs::read_dir(folder.path()).unwrap().all(|entry| entry.unwrap().file_name() != "b"));
}

#[test]
fn two_processes_do_not_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path());
    let error = Store::open(folder.path(), YEAR).unwrap_err().to_string();
    assert!(error.contains(&format!("process {}", std::process::id())) && error.contains("scaler.state"), "{error}");
    drop(first);
    open(folder.path());
}

#[test]
fn half_a_line_is_passed_over_and_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    // All on one day.
    let at = (now() / DAY).floor() * DAY + 60.0;
    let store = open(folder.path());
    store.record(record(at - 2.0, 1, 2));
    store.record(record(at - 1.0, 2, 3));
    written(store);
    let mut entries = fs::read_dir(folder.path().join("tools")).unwrap().map(|entry| entry.unwrap().path());
    let file = entries.find(|path| path.to_string_lossy().ends_with(".history.jsonl")).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, &text[..text.len() - 20]).unwrap();

    let store = open(folder.path());
    let seen = times(&store, None, None, 10, true).0;
    assert_eq!(seen.last(), Some(&(at - 2.0)));
    store.record(record(at, 2, 4));
    written(store);
    let all = fs::read_to_string(&file).unwrap();
    assert!(all.ends_with("}\n") && all.lines().all(|line| serde_json::from_str::<Record>(line).is_ok()), "{all}");
    assert_eq!(times(&open(folder.path()), None, None, 10, true).0, [at - 2.0, at]);
}

#[test]
fn what_is_too_old_goes() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let at = now();
    store.record(record(at - 20.0 * DAY, 1, 2));
    store.record(record(at, 2, 3));
    written(store);
    assert_eq!(times(&open(folder.path()), None, None, 10, true).0.len(), 2);
    let store = Store::open(folder.path(), Duration::from_secs(10 * 86400)).unwrap();
    store.save_pool("tools", &1);
    assert!(store.flush(PATIENCE));
    assert_eq!(times(&store, None, None, 10, true).0, [at]);
}

#[test]
fn a_series_is_finer_the_younger_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let start = (now() / 300.0).floor() * 300.0 - 7200.0;
    let store = open(folder.path());
    for second in 1..=7200 {
        let at = start + f64::from(second);
        store.sample("tools", Sample { at, span: 1.0, arrivals: 1.0, ready: 2.0, ..Sample::default() });
    }
    let all = store.series("tools", None, None).samples;
    assert!((500..2000).contains(&all.len()), "{}", all.len());
    assert_eq!(all.iter().map(|sample| sample.arrivals).sum::<f64>(), 7200.0);
    let last = store.series("tools", Some(start + 7190.5), None).samples;
    assert_eq!((last.len(), last[0].span), (10, 1.0));
    drop(store);

    // Seconds are gone with the process; tens are there, also the one that was not over.
    let store = open(folder.path());
    let all = store.series("tools", None, None).samples;
    assert_eq!(all.iter().map(|sample| sample.arrivals).sum::<f64>(), 7200.0);
    assert!(all.iter().all(|sample| sample.span == 10.0), "{all:?}");
}

#[test]
fn a_folder_that_cannot_be_written_is_told_and_used_as_soon_as_it_can() {
    let place = tempfile::tempdir().unwrap();
    // Even root cannot make a folder below a file.
    let file = place.path().join("state");
    fs::write(&file, "in the way").unwrap();
    let folder = file.join("scaler");
    let store = open(&folder);
    let at = now();
    store.record(record(at, 1, 2));
    store.save_pool("tools", &json!(5));
    let findings = store.findings();
    assert_eq!(findings[0].code, "HISTORY_NOT_WRITTEN");
    assert!(findings[0].text.contains("state/scaler") && !findings[0].advice.is_empty(), "{findings:?}");
    assert_eq!(times(&store, None, None, 10, true).0, [at]);

    fs::remove_file(&file).unwrap();
    recovers(&store);
    drop(store);
    let store = open(&folder);
    assert_eq!((times(&store, None, None, 10, true).0, store.load_pool("tools")), (vec![at], Some(json!(5))));
}

fn recovers(store: &Store) {
    let deadline = Instant::now() + PATIENCE;
    while !store.findings().is_empty() || !store.flush(PATIENCE) {
        assert!(Instant::now() < deadline, "{:?}", store.findings());
        std::thread::yield_now();
    }
}

/// A real file system of 256 KiB that fills up. Needs the right to mount.
#[test]
fn a_full_disk_stops_nothing_and_is_caught_up_with() {
    let place = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::tmpfs(place.path(), "256k") else { return };
    let folder = place.path().join("scaler");
    let store = open(&folder);
    let start = now() - 5000.0;
    fs::write(place.path().join("ballast"), vec![0; 200 << 10]).unwrap();
    let mut count = 0u32;
    let full = Instant::now() + PATIENCE;
    while store.findings().is_empty() {
        assert!(Instant::now() < full && count < 5000, "{count} records fitted");
        store.record(record(start + f64::from(count), 1, 2));
        store.flush(PATIENCE);
        count += 1;
    }
    let finding = store.findings().remove(0);
    assert!(finding.text.contains("No space left") && finding.advice.contains("make room"), "{finding:?}");
    assert_eq!(store.at("tools", f64::INFINITY).unwrap().decision.at, start + f64::from(count - 1));

    fs::remove_file(place.path().join("ballast")).unwrap();
    recovers(&store);
    drop(store);
    let (kept, _) = times(&open(&folder), None, None, 10_000, true);
    assert_eq!(kept, (0..count).map(|step| start + f64::from(step)).collect::<Vec<_>>());
    drop(mount);
}

struct Mount<'a>(&'a Path);

impl Mount<'_> {
    fn tmpfs<'a>(at: &'a Path, size: &str) -> Option<Mount<'a>> {
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tidegate-test"]).arg(at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Mount(at));
        }
        super::skipped("the test with a full disk", "this user may not mount a tmpfs");
        None
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

const CHILD: &str = "TIDEGATE_TEST_STORE_CHILD";

/// Not a test of its own: what the test below starts and kills.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Ok(folder) = std::env::var(CHILD) else { return };
    let store = open(Path::new(&folder));
    let mut at = store.at("tools", f64::INFINITY).map_or(now() - 100_000.0, |last| last.decision.at);
    loop {
        at += 1.0;
        store.record(record(at, 1, 2));
        store.save_pool("tools", &json!({ "at": at, "padding": "x".repeat(2000) }));
        assert!(store.flush(PATIENCE));
        println!("written {at}");
    }
}

#[test]
fn what_was_acknowledged_outlives_twenty_kills() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<f64> = Vec::new();
    for round in 0..20u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "store::child_that_writes_until_it_is_killed"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let times = |line: String| line.split("written ").nth(1).map(|at| at.parse::<f64>().unwrap());
        // Killed in the middle of its work, each time at another place.
        let enough = acknowledged.len() + 2 + (round as usize * 3) % 11;
        while acknowledged.len() < enough {
            acknowledged.extend(times(lines.next().expect("the child writes").unwrap()));
        }
        child.kill().unwrap();
        acknowledged.extend(lines.map_while(Result::ok).filter_map(times));
        child.wait().unwrap();

        let store = open(folder.path());
        let kept = times_of_all(&store);
        assert!(
            acknowledged.iter().all(|at| kept.contains(at)),
            "round {round}: {} of {}",
            kept.len(),
            acknowledged.len()
        );
        let state = store.load_pool("tools").expect("a whole state");
        assert!(state["at"].as_f64().unwrap() >= *acknowledged.last().unwrap(), "round {round}");
    }
}

fn times_of_all(store: &Store) -> Vec<f64> {
    times(store, None, None, 100_000, true).0
}
