//! `tidegate scaler …` as a person uses it, against an admin API whose scaler answers what the test says.

mod support;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use support::*;
use tidegate::admin::model::{Status, UpstreamStatus, Verdict};
use tidegate::admin::scaling::{
    Answer, Ask, AskError, Finding, History, InstanceStatus, Outcome, PoolScaler, Record, Sample, ScalerStatus, Series,
};
use tidegate::admin::{Bound, Change, ChangeError, Control};
use tidegate::config::model::Admin;
use tidegate::scale::{Decision, Observed, Source, Terms};
use tidegate::types::Bind;

/// A control whose scaler has one pool, `mcp`, and writes down what it is asked.
#[derive(Clone)]
struct Scaling {
    asked: Arc<Mutex<Vec<Ask>>>,
    now: f64,
}

/// In whole seconds, which JSON carries exactly.
fn now() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is later than 1970");
    since.as_secs() as f64
}

impl Scaling {
    fn record(&self) -> Record {
        let terms = Terms { level: 21.3, capacity: 4.0, lead: 2.1, slots: 29.0, base: 8, ..Terms::default() };
        let source = Source { name: "load".to_owned(), wants: Some(9), why: "29 slots".to_owned() };
        Record {
            id: "01JXA".to_owned(),
            pool: "mcp".to_owned(),
            generation: 1,
            decision: Decision {
                at: self.now - 60.0,
                current: 7,
                raw: 9,
                wanted: 9,
                desired: 9,
                apply: true,
                reason: "trend".to_owned(),
                terms,
                sources: vec![source],
                ..Decision::default()
            },
            seen: Observed { span: 1.0, in_flight: 20.0, complete: true, ..Observed::default() },
            outcome: Some(Outcome { ready_after: Some(2.2), verdict: "verified".to_owned(), ..Outcome::default() }),
        }
    }

    fn pool(&self) -> PoolScaler {
        PoolScaler {
            pool: "mcp".to_owned(),
            mode: "on".to_owned(),
            min: 2,
            max: 20,
            desired: 9,
            counts: [("ready".to_owned(), 7)].into(),
            instances: vec![InstanceStatus { id: "mcp-1".to_owned(), ..InstanceStatus::default() }],
            last: Some(self.record()),
            last_change: Some(self.record()),
            ..PoolScaler::default()
        }
    }

    /// Two hours, a sample a minute.
    fn series(&self) -> Series {
        let sample = |n: u32| Sample {
            at: self.now - 60.0 * f64::from(120 - n),
            span: 60.0,
            arrivals: 600.0,
            completions: 600.0,
            held: 480.0,
            in_flight: 8.0,
            ready: 3.0,
            desired: 3,
            capacity: 4.0,
            ..Sample::default()
        };
        Series { pool: "mcp".to_owned(), samples: (0..120).map(sample).collect() }
    }
}

impl Control for Scaling {
    async fn status(&self) -> Option<Status> {
        None
    }

    async fn change(&self, pool: &str, _: &str, _: Change) -> Result<UpstreamStatus, ChangeError> {
        Err(ChangeError::NoPool(pool.to_owned()))
    }

    async fn scaler(&self, ask: Ask) -> Result<Answer, AskError> {
        self.asked.lock().unwrap().push(ask.clone());
        let known = |pool: &str| if pool == "mcp" { Ok(()) } else { Err(AskError::NoPool(pool.to_owned())) };
        Ok(match ask {
            Ask::Status => Answer::Status(ScalerStatus {
                now: self.now,
                instance_hour: 0.5,
                currency: "USD".to_owned(),
                pools: vec![self.pool()],
                ..ScalerStatus::default()
            }),
            Ask::Explain { pool, .. } => known(&pool).map(|()| Answer::Record(self.record().into()))?,
            Ask::History { pool, .. } => {
                known(&pool)?;
                Answer::History(History { pool, records: vec![self.record()], more: false })
            }
            Ask::Series { .. } => Answer::Series(self.series()),
            Ask::Doctor => Answer::Findings(vec![Finding {
                code: "AT_MAX".to_owned(),
                severity: "warning".to_owned(),
                pool: Some("mcp".to_owned()),
                text: "20 are there".to_owned(),
                advice: "raise max".to_owned(),
            }]),
            Ask::Signals => return Err(AskError::NoScaler),
            Ask::Pause { pool, r#for } => {
                known(&pool)?;
                Answer::Pool(PoolScaler { paused: Some(r#for.as_secs_f64()), ..self.pool() }.into())
            }
            Ask::Set { to, r#for, .. } => {
                let set = to.zip(r#for).map(|(to, span)| (to, span.as_secs_f64()));
                Answer::Pool(PoolScaler { set, ..self.pool() }.into())
            }
            Ask::Resume { .. } => Answer::Pool(self.pool().into()),
            Ask::Recycle { .. } => return Err(AskError::Impossible("a recycle runs already".to_owned())),
        })
    }

    async fn reload(&self) -> Verdict {
        unreachable!("no command here reloads")
    }

    async fn config(&self) -> String {
        "[pool.mcp.scaler]\nmin = 2\nprofile = \"calm\"\n".to_owned()
    }

    async fn metrics(&self) -> Bytes {
        Bytes::new()
    }

    fn ready(&self) -> bool {
        true
    }
}

/// Commands against a running admin API.
struct Asking {
    folder: tempfile::TempDir,
    control: Scaling,
}

impl Asking {
    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn written(&self, name: &str, text: &str) -> String {
        std::fs::write(self.file(name), text).unwrap();
        self.file(name).display().to_string()
    }

    /// `tidegate scaler …`, with where the admin API is.
    async fn run(&self, arguments: &[&str]) -> Finished {
        let admin = format!("unix:{}", self.file("admin.sock").display());
        let mut all = vec!["scaler"];
        all.extend(arguments);
        all.extend(["--admin", &admin, "--token", "none"]);
        tidegate(&all).await
    }

    /// The same, which must succeed: what it printed.
    async fn told(&self, arguments: &[&str]) -> String {
        let done = self.run(arguments).await;
        assert_eq!(done.code, Some(0), "{arguments:?}: {done:?}");
        done.out
    }

    fn last_asked(&self) -> Option<Ask> {
        self.control.asked.lock().unwrap().last().cloned()
    }
}

/// Plays `test` while the API is served.
async fn with_api(test: impl AsyncFnOnce(&Asking)) {
    let folder = tempfile::tempdir().unwrap();
    let bind = Bind::Unix(folder.path().join("admin.sock"));
    let bound = Bound::bind(&Admin { bind: Some(bind), ..Admin::default() }).unwrap().expect("it is on");
    let control = Scaling { asked: Arc::default(), now: now() };
    let asking = Asking { folder, control: control.clone() };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = bound.serve(control, async {
        // Whatever ends the test ends the API.
        let _ = stopped.await;
    });
    let testing = async {
        test(&asking).await;
        drop(stop);
    };
    tokio::task::LocalSet::new().run_until(async { tokio::join!(serving, testing) }).await;
}

#[tokio::test]
async fn looking_is_for_people_and_for_programs() {
    with_api(async |asking| {
        let table = asking.told(&["status"]).await;
        assert!(table.starts_with("POOL  MODE  READY") && table.contains("+2 1m 0s ago (trend)"), "{table}");
        assert!(asking.told(&["status", "mcp"]).await.contains("mcp-1"));
        let status: ScalerStatus = serde_json::from_str(&asking.told(&["status", "--json"]).await).unwrap();
        assert_eq!(status.pools[0].last, Some(asking.control.record()));
        let explained = asking.told(&["explain", "mcp", "--at", "-5m"]).await;
        assert!(explained.contains(": 7 -> 9, applied"), "{explained}");
        match asking.last_asked() {
            Some(Ask::Explain { pool, at: Some(at) }) if pool == "mcp" => {
                assert!((asking.control.now - 300.0 - at).abs() < 20.0, "{at}");
            }
            other => panic!("{other:?}"),
        }
        assert!(asking.told(&["explain", "mcp", "--why-not"]).await.contains("why not more than 9:"));
        assert!(asking.told(&["explain", "mcp", "--settings"]).await.contains("profile = \"calm\""));
        let record: Record = serde_json::from_str(&asking.told(&["explain", "mcp", "--json"]).await).unwrap();
        assert_eq!(record.id, "01JXA");
        assert!(asking.told(&["history"]).await.contains("01JXA"));
        assert!(asking.told(&["history", "mcp", "--all", "--since", "2h", "--effect"]).await.contains("verified"));
        assert!(matches!(asking.last_asked(), Some(Ask::History { all: true, since: Some(_), .. })));
        assert_eq!(asking.told(&["history", "--csv"]).await.lines().count(), 2);
        let histories: Vec<History> = serde_json::from_str(&asking.told(&["history", "--json"]).await).unwrap();
        assert_eq!(histories[0].records.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn steering_asks_for_what_was_typed() {
    with_api(async |asking| {
        let mcp = || "mcp".to_owned();
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        let told = asking.told(&["pause", "mcp", "5m"]).await;
        assert_eq!(told, "mcp: on, 9 wanted of 2 to 20, paused for 5m 0s\n");
        assert_eq!(asking.last_asked(), Some(Ask::Pause { pool: mcp(), r#for: minutes(5) }));
        asking.told(&["pause", "mcp"]).await;
        assert_eq!(asking.last_asked(), Some(Ask::Pause { pool: mcp(), r#for: minutes(30) }));
        asking.told(&["resume", "mcp"]).await;
        assert_eq!(asking.last_asked(), Some(Ask::Resume { pool: mcp() }));
        let told = asking.told(&["set", "mcp", "4", "--for", "2h"]).await;
        assert!(told.ends_with("set to 4 for 2h 0m\n"), "{told}");
        assert_eq!(asking.last_asked(), Some(Ask::Set { pool: mcp(), to: Some(4), r#for: Some(minutes(120)) }));
        asking.told(&["set", "mcp", "--end"]).await;
        assert_eq!(asking.last_asked(), Some(Ask::Set { pool: mcp(), to: None, r#for: None }));
        let refused = asking.run(&["recycle", "mcp"]).await;
        assert_eq!((refused.code, refused.err.as_str()), (Some(1), "error: a recycle runs already\n"));
    })
    .await;
}

#[tokio::test]
async fn mistakes_end_with_the_right_code() {
    with_api(async |asking| {
        for (arguments, code, words) in [
            (&["explain", "mpc"][..], 1, "there is no pool `mpc`"),
            (&["status", "mpc"], 1, "those that have: mcp"),
            (&["explain", "mcp", "--at", "soon"], 64, "14:02:11"),
            (&["history", "--since", "25:00"], 64, "--since 25:00"),
            (&["history", "--json", "--csv"], 64, "cannot be used"),
            (&["set", "mcp"], 64, "<TO>"),
            (&["set", "mcp", "3", "--end"], 64, "cannot be used"),
            (&["pause", "mcp", "soon"], 64, "soon"),
            (&["report"], 64, "--html"),
            (&["plan", "growth", "--rate", "much"], 64, "15%/month"),
            (&["simulate", "--profile", "slow"], 64, "fast, balanced or calm"),
            (&["simulate", "--min", "5", "--max", "2"], 64, "--min 5 --max 2"),
            (&["report", "--html", "/nonexistent/x.html"], 1, "/nonexistent/x.html"),
        ] {
            let done = asking.run(arguments).await;
            assert_eq!(done.code, Some(code), "{arguments:?}: {done:?}");
            assert!(done.err.contains(words), "{arguments:?}: {}", done.err);
        }
    })
    .await;
}

#[tokio::test]
async fn a_doctor_looks_at_the_proxy_and_at_this_machine() {
    with_api(async |asking| {
        let told = asking.told(&["doctor"]).await;
        assert_eq!(told, "warning  AT_MAX mcp: 20 are there\n         -> raise max\n");
        let config = asking.written(
            "t.toml",
            "[listener.web]\nbind = \"127.0.0.1:0\"\n[[route]]\npool = \"a\"\n[pool.a.scaler]\nprocess = { command = [\"/no/such/program\", \"{port}\"] }\n",
        );
        let done = asking.run(&["doctor", "--config", &config]).await;
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.out.starts_with("critical NO_PROGRAM a: there is no program `/no/such/program`"), "{done:?}");
        assert!(done.out.contains("AT_MAX"), "{done:?}");
        // Without a running proxy the machine is looked at all the same.
        let arguments = ["scaler", "doctor", "--json", "--config", &config, "--admin", "unix:/nonexistent"];
        let alone = tidegate(&arguments).await;
        let found: Vec<Finding> = serde_json::from_str(&alone.out).unwrap();
        let codes: Vec<&str> = found.iter().map(|finding| finding.code.as_str()).collect();
        assert!(codes.contains(&"NO_PROGRAM") && codes.contains(&"NOT_ASKED"), "{codes:?}");
    })
    .await;
}

#[tokio::test]
async fn plans_and_simulations_are_made_from_what_was_recorded() {
    with_api(async |asking| {
        let growth = asking.told(&["plan", "growth", "--rate", "10%/month", "--months", "3"]).await;
        assert!(
            growth.starts_with("pool mcp: peak 8 erl, 4 requests at once an instance, +10.0 % a month"),
            "{growth}"
        );
        assert!(growth.contains("\n+3 "), "{growth}");
        let cost = asking.told(&["plan", "cost", "mcp", "--scenario", "fast"]).await;
        assert!(cost.contains("now (calm)") && cost.contains("worth reserving: 3 instances"), "{cost}");
        let advice = asking.told(&["plan", "right-size"]).await;
        assert_eq!(advice, "nothing to change: sizes suit what was recorded\n");
        let hpa = asking.written(
            "hpa.yaml",
            "kind: HorizontalPodAutoscaler\nspec: { maxReplicas: 9, targetCPUUtilizationPercentage: 70 }\n",
        );
        let json = asking.told(&["simulate", "--from", "2h", "--hpa", &hpa, "--kpa", "60", "--json"]).await;
        let told: serde_json::Value = serde_json::from_str(&json).unwrap();
        let names: Vec<&str> = told["rows"].as_array().unwrap().iter().filter_map(|row| row["name"].as_str()).collect();
        assert_eq!(names, ["now (calm)", "fast", "balanced", "hpa.yaml", "kpa 60%"]);
        // Times of the recording are not exact.
        assert!((7200..=7201).contains(&told["seconds"].as_u64().unwrap()), "{told}");
    })
    .await;
}

#[tokio::test]
async fn simulations_of_files_and_shapes_ask_no_proxy() {
    let folder = tempfile::tempdir().unwrap();
    let rates = folder.path().join("rates.csv");
    std::fs::write(&rates, "0,20\n60,80\n120,20\n").unwrap();
    let rates = rates.display().to_string();
    let done = tidegate(&["scaler", "simulate", "--rates", &rates, "--profile", "fast"]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.out.contains("in 3m 0s: the rates of") && done.out.contains("now (balanced)"), "{}", done.out);
    let shape = ["scaler", "simulate", "--shape", "on-off", "--peak", "20", "--length", "6m", "--seed", "7"];
    let done = tidegate(&shape).await;
    assert!(done.out.contains("made up: onoff, at most 20 requests/s"), "{done:?}");
    assert_eq!(tidegate(&shape).await.out, done.out, "the same seed, the same result");
}

#[tokio::test]
async fn a_report_is_written_as_a_page_as_markdown_and_as_json() {
    with_api(async |asking| {
        let path = |name: &str| asking.file(name).display().to_string();
        let (html, md, json) = (path("r.html"), path("r.md"), path("r.json"));
        asking.told(&["report", "--since", "2h", "--html", &html, "--md", &md, "--json", &json]).await;
        let page = std::fs::read_to_string(&html).unwrap();
        assert!(
            page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n") && page.contains("Instances and load")
        );
        assert!(std::fs::read_to_string(&md).unwrap().starts_with("# Scaling report"));
        let value: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
        assert_eq!(value["pools"][0]["reserved_floor"], 3);
        assert!(asking.told(&["report", "mcp", "--md", "-"]).await.contains("## Pool mcp"));
    })
    .await;
}

#[tokio::test]
async fn others_configurations_are_made_ours_and_ours_makes_rules() {
    let folder = tempfile::tempdir().unwrap();
    let written = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name).display().to_string()
    };
    let hpa = written(
        "hpa.yaml",
        "apiVersion: autoscaling/v1\nkind: HorizontalPodAutoscaler\nmetadata: { name: web }\nspec: { minReplicas: 2, maxReplicas: 9, targetCPUUtilizationPercentage: 70 }\n",
    );
    let done = tidegate(&["scaler", "import", &hpa]).await;
    assert!(done.code == Some(0) && done.out.contains("[pool.web.scaler]"), "{done:?}");
    assert!(tidegate(&["scaler", "import", &hpa, "--pool", "mine"]).await.out.contains("[pool.mine.scaler]"));
    let nothing = written("x.yaml", "a: 1\n");
    assert_eq!(tidegate(&["scaler", "import", &nothing]).await.code, Some(78));
    let config = written(
        "t.toml",
        "[listener.web]\nbind = \"127.0.0.1:0\"\n[[route]]\npool = \"a\"\n[pool.a.scaler]\nprocess = { command = [\"app\", \"{port}\"] }\n",
    );
    let rules = tidegate(&["scaler", "alerts", &config]).await;
    assert!(rules.out.contains("TidegateScalerAtMax") && rules.out.contains("TidegateScalerWaitAboveSlo"), "{rules:?}");
    let board: serde_json::Value = serde_json::from_str(&tidegate(&["scaler", "dashboard"]).await.out).unwrap();
    assert_eq!(board["uid"], "tidegate-scaler");
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/grafana/tidegate-scaler.json").exists());
}

#[tokio::test]
async fn a_proxy_without_scalers_says_how_a_pool_gets_one() {
    let proxy = proxy("[listener.web]\nbind = \"127.0.0.1:0\"\n[[route]]\nrespond = 204\n").start().await;
    let admin = format!("unix:{}", proxy.folder().join("admin.sock").display());
    let done = tidegate(&["scaler", "status", "--admin", &admin]).await;
    assert!(format!("{}{}", done.out, done.err).contains("[pool.NAME.scaler]"), "{done:?}");
}

#[tokio::test]
async fn every_command_has_help() {
    for (command, word) in [
        (&["scaler"][..], "simulate"),
        (&["scaler", "status"], "--json"),
        (&["scaler", "explain"], "--why-not"),
        (&["scaler", "history"], "--effect"),
        (&["scaler", "doctor"], "Exit codes"),
        (&["scaler", "pause"], "30m"),
        (&["scaler", "resume"], "pause"),
        (&["scaler", "set"], "--end"),
        (&["scaler", "recycle"], "one at a time"),
        (&["scaler", "import"], "--pool"),
        (&["scaler", "simulate"], "--shape"),
        (&["scaler", "plan"], "right-size"),
        (&["scaler", "plan", "growth"], "--margin"),
        (&["scaler", "plan", "cost"], "--scenario"),
        (&["scaler", "plan", "right-size"], "--since"),
        (&["scaler", "report"], "--html"),
        (&["scaler", "alerts"], "Prometheus"),
        (&["scaler", "dashboard"], "Grafana"),
    ] {
        let mut all = command.to_vec();
        all.push("--help");
        let done = tidegate(&all).await;
        assert_eq!(done.code, Some(0), "{command:?}");
        assert!(done.out.contains(word), "{command:?}: {}", done.out);
    }
}
