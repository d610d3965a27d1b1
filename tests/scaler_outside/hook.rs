use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tidegate::config::model::{self, Secret};
use tidegate::scaler::{Driver, ErrorKind, Exec, HttpClient, Life, ScaleRequest, Webhook};

use super::http::{Reply, Server, local, ok, until};

fn request(decision: &str, desired: u32) -> ScaleRequest {
    ScaleRequest {
        desired,
        current: 2,
        decision: decision.to_owned(),
        generation: 7,
        reason: "trend".to_owned(),
        victims: vec!["b".to_owned()],
    }
}

fn webhook(url: &str, timeout: Duration, converge: Duration) -> Webhook {
    let secret = Some(Secret::new("key".to_owned()));
    let settings = model::Webhook { url: url.to_owned(), secret, timeout, converge };
    Webhook::new("tools", &settings, &HttpClient::default())
}

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_webhook_is_told_once_signed_and_names_its_instances() {
    local(async {
        let instances = json!({ "more": 1, "instances": [
            { "id": "a", "address": "127.0.0.1:8001", "state": "running", "zone": "z1" },
            { "id": "b", "address": "127.0.0.1:8002", "state": "stopping" },
            { "id": "c", "state": "pending" },
        ]});
        let server = Server::start([ok(instances.to_string())]).await;
        let driver = webhook(&format!("{}/hook?x=1", server.url()), LONG, LONG);
        assert!(driver.by_count() && driver.list().await.unwrap().is_empty());
        driver.scale(&request("d1", 3)).await.unwrap();
        // The same number under a later decision is nothing new.
        driver.scale(&request("d2", 3)).await.unwrap();
        let found = driver.list().await.unwrap();
        let lives: Vec<_> = found.iter().map(|one| (one.id.as_str(), one.life.clone())).collect();
        assert_eq!(lives, [("a", Life::Running), ("b", Life::Stopping), ("c", Life::Pending)]);
        assert_eq!(found[0].address, Some("127.0.0.1:8001".parse().unwrap()));
        assert_eq!((found[0].zone.as_deref(), found[0].generation), (Some("z1"), 7));

        let asked = server.asked.borrow().clone();
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].path, "/hook?x=1");
        let expected = json!({ "pool": "tools", "desired": 3, "current": 2, "decision_id": "d1", "generation": 7, "reason": "trend", "victims": ["b"], "dry_run": false });
        assert_eq!(asked[0].json(), expected);
        assert_eq!(asked[0].header("x-tidegate-decision").as_deref(), Some("d1"));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"key");
        let tag = ring::hmac::sign(&key, &asked[0].body);
        let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(asked[0].header("x-tidegate-signature"), Some(format!("sha256={hex}")));

        driver.propose(&request("d3", 9)).await.unwrap();
        let proposed = server.asked.borrow().last().unwrap().json();
        assert_eq!((&proposed["dry_run"], &proposed["desired"]), (&json!(true), &json!(9)));
    });
}

#[test]
fn while_something_is_on_its_way_news_are_asked_for_under_the_same_id() {
    local(async {
        let answer = |state: &str| {
            ok(json!({ "instances": [{ "id": "a", "address": "127.0.0.1:8001", "state": state }] }).to_string())
        };
        let server = Server::start([answer("pending"), answer("running")]).await;
        let driver = webhook(&server.url(), LONG, LONG);
        // A new process knows from the last one what was asked for.
        driver.resume(request("d1", 1));
        assert_eq!(driver.list().await.unwrap()[0].life, Life::Pending);
        until("it runs", async || (driver.list().await.unwrap()[0].life == Life::Running).then_some(())).await;
        let asked = server.asked.borrow();
        assert_eq!(asked.len(), 2);
        assert!(asked.iter().all(|one| one.json()["decision_id"] == "d1"));
    });
}

#[test]
fn a_webhook_that_was_slow_is_told_the_same_again_after_a_pause() {
    local(async {
        let server = Server::start([Reply::Silence, Reply::Status(503, "starting up".into()), ok("")]).await;
        let driver = webhook(&server.url(), SHORT, LONG);
        let error = driver.scale(&request("d1", 3)).await.unwrap_err();
        assert!(error.kind == ErrorKind::Unreachable && error.what.contains("within 100ms"), "{error}");
        // Asked again before its time it is the same error, and nobody is bothered.
        let began = Instant::now();
        assert_eq!(driver.scale(&request("d2", 3)).await, Err(error));
        assert_eq!(server.count(), 1);
        until("it was taken", async || driver.scale(&request("d3", 3)).await.is_ok().then_some(())).await;
        assert!(began.elapsed() > Duration::from_millis(2500), "pauses of 1 s and 2 s: {:?}", began.elapsed());
        let ids: Vec<_> = server.asked.borrow().iter().map(|one| one.json()["decision_id"].clone()).collect();
        assert_eq!(ids, ["d1", "d1", "d1"]);
    });
}

#[test]
fn what_a_webhook_says_no_with_is_understood() {
    local(async {
        let server = Server::start([ok("")]).await;
        for (status, kind) in [
            (409, ErrorKind::Fenced),
            (507, ErrorKind::Full),
            (422, ErrorKind::Refused),
            (302, ErrorKind::Refused),
            (500, ErrorKind::Unreachable),
        ] {
            server.answers([Reply::Status(status, "\nno, because\nmore".into())]);
            let error = webhook(&server.url(), LONG, LONG).scale(&request("d1", 3)).await.unwrap_err();
            assert_eq!((error.kind, error.what), (kind, format!("the webhook answers {status}: no, because")));
        }
        server.answers([ok(r#"{"instances": [{"id": "a", "address": "nowhere"}]}"#)]);
        let error = webhook(&server.url(), LONG, LONG).scale(&request("d1", 3)).await.unwrap_err();
        assert!(error.what.contains("cannot be used"), "{error}");
    });
}

#[test]
fn without_named_instances_those_that_were_discovered_count() {
    local(async {
        let server = Server::start([ok("thanks")]).await;
        let driver = webhook(&server.url(), LONG, Duration::from_millis(50));
        driver.discovered(vec!["127.0.0.1:8001".parse().unwrap()]);
        driver.scale(&request("d1", 2)).await.unwrap();
        let found = driver.list().await.unwrap();
        assert_eq!((found.len(), found[0].id.as_str(), &found[0].life), (1, "127.0.0.1:8001", &Life::Running));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let finding = driver.diverging(now + 60.0).unwrap();
        assert_eq!(finding.code, "NOT_CONVERGING");
        assert!(finding.text.contains("2 instances") && finding.text.contains("1 are there"), "{finding:?}");
        // It is reminded.
        until("it is told again", async || {
            driver.list().await.unwrap();
            (server.count() > 1).then_some(())
        })
        .await;
        driver.discovered(vec!["127.0.0.1:8001".parse().unwrap(), "127.0.0.1:8002".parse().unwrap()]);
        assert_eq!(driver.diverging(now + 60.0), None);
    });
}

fn exec(script: &str, timeout: Duration) -> Exec {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    Exec::new("tools", &model::Exec { command, timeout, converge: LONG })
}

#[test]
fn a_program_gets_the_message_and_may_answer() {
    local(async {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("got");
        // It leaves something running that keeps its output open; that is no reason to wait.
        let script = format!(
            r#"cat > {}; sleep 30 & echo '{{"instances": [{{"id": "a", "address": "127.0.0.1:8001"}}]}}'"#,
            file.display()
        );
        let driver = exec(&script, LONG);
        driver.scale(&request("d1", 3)).await.unwrap();
        let got: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!((&got["desired"], &got["decision_id"], &got["pool"]), (&json!(3), &json!("d1"), &json!("tools")));
        assert_eq!(driver.list().await.unwrap()[0].id, "a");
    });
}

#[test]
fn a_program_that_refuses_is_quoted() {
    local(async {
        let error =
            exec("echo first >&2; echo 'quota is 5' >&2; exit 3", LONG).scale(&request("d1", 3)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused);
        assert!(error.what.ends_with("exit status: 3: quota is 5"), "{error}");
        let settings = model::Exec { command: vec!["/no/such/program".into()], timeout: LONG, converge: LONG };
        let error = Exec::new("tools", &settings).scale(&request("d1", 3)).await.unwrap_err();
        assert!(error.what.contains("cannot run /no/such/program") && error.advice.contains("exec.command"), "{error}");
        // One that does not read what it gets, and says more than a pipe holds.
        let driver = exec("exec <&-; head -c 3000000 /dev/zero | tr '\\0' x", LONG);
        driver.scale(&request("d1", 3)).await.unwrap();
    });
}

#[test]
fn a_program_that_takes_too_long_is_killed_with_all_it_has_started() {
    local(async {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pids");
        let script = format!("sleep 300 & echo $$ $! > {}; wait", file.display());
        let error = exec(&script, Duration::from_secs(2)).scale(&request("d1", 3)).await.unwrap_err();
        assert!(error.kind == ErrorKind::Unreachable && error.what.contains("killed"), "{error}");
        let pids = fs::read_to_string(&file).unwrap();
        assert_eq!(pids.split_whitespace().count(), 2);
        for pid in pids.split_whitespace() {
            until("it is gone", async || is_gone(pid).then_some(())).await;
        }
    });
}

fn is_gone(pid: &str) -> bool {
    let status = fs::read_to_string(Path::new("/proc").join(pid).join("status")).unwrap_or_default();
    status.is_empty() || status.contains("State:\tZ")
}
