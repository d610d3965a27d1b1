use std::sync::Mutex;

use axum::body::Body;
use axum::http::{Method, Request as Asking};
use bytes::Bytes;
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::super::Bound;
use super::super::model::Verdict;
use super::super::scaling::{Answer, Ask, AskError, PoolScaler, ScalerStatus};
use super::*;
use crate::config::model::{Admin, Secret};
use crate::types::Bind;

/// A control that writes down what it is asked and drains in as many looks as `left`.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Record>>);

#[derive(Default)]
struct Record {
    scaler: Vec<Ask>,
    changes: Vec<(String, String, Change)>,
    left: u32,
    refuses: bool,
}

fn upstream(state: health::State) -> UpstreamStatus {
    UpstreamStatus {
        address: "unix:/run/a.sock".to_owned(),
        state,
        reason: "asked to".to_owned(),
        since_seconds: 1.0,
        in_flight: 1,
        streams: 0,
        sessions: 0,
        weight: 1.0,
        configured_weight: 1,
        backup: false,
        max_connections: None,
        ewma_seconds: 0.0,
        requests: 0,
        errors: 0,
        deadline_seconds: None,
        removed: false,
    }
}

impl Control for Asked {
    async fn status(&self) -> Option<Status> {
        let mut record = self.0.lock().unwrap();
        let state = if record.left == 0 { health::State::Drained } else { health::State::Draining };
        record.left = record.left.saturating_sub(1);
        let app = PoolStatus {
            name: "app".to_owned(),
            balance: "round_robin".to_owned(),
            panic: false,
            upstreams: vec![upstream(state)],
        };
        Some(Status {
            version: "0".to_owned(),
            pid: 1,
            uptime_seconds: 1.0,
            config_file: None,
            generation: 1,
            workers: 1,
            stopping: false,
            requests: 0,
            in_flight: 0,
            reloads_accepted: 1,
            reloads_refused: 0,
            last_reload: verdict(true),
            listeners: Vec::new(),
            pools: vec![app],
        })
    }

    async fn change(&self, pool: &str, address: &str, change: Change) -> Result<UpstreamStatus, ChangeError> {
        if pool != "app" {
            return Err(ChangeError::NoPool(pool.to_owned()));
        }
        self.0.lock().unwrap().changes.push((pool.to_owned(), address.to_owned(), change));
        Ok(upstream(health::State::Draining))
    }

    async fn scaler(&self, ask: Ask) -> Result<Answer, AskError> {
        self.0.lock().unwrap().scaler.push(ask.clone());
        match ask {
            Ask::Status => {
                Ok(Answer::Status(ScalerStatus { leadership: "none".to_owned(), ..ScalerStatus::default() }))
            }
            Ask::Explain { pool, .. } => Err(AskError::NoPool(pool)),
            Ask::Recycle { .. } => Err(AskError::Impossible("a recycle runs already".to_owned())),
            Ask::Doctor => Ok(Answer::Findings(Vec::new())),
            Ask::Signals => Err(AskError::NoScaler),
            Ask::History { .. } | Ask::Series { .. } => Err(AskError::Ended),
            Ask::Pause { pool, .. } | Ask::Resume { pool } | Ask::Set { pool, .. } => {
                Ok(Answer::Pool(PoolScaler { pool, ..PoolScaler::default() }.into()))
            }
        }
    }

    async fn reload(&self) -> Verdict {
        verdict(!self.0.lock().unwrap().refuses)
    }

    async fn config(&self) -> String {
        "workers = 1\n".to_owned()
    }

    async fn metrics(&self) -> Bytes {
        Bytes::from("up 1\n")
    }

    fn ready(&self) -> bool {
        !self.0.lock().unwrap().refuses
    }
}

fn verdict(accepted: bool) -> Verdict {
    Verdict {
        accepted,
        generation: 1,
        at: 0.0,
        cause: "admin".to_owned(),
        problems: if accepted { String::new() } else { "error: no".to_owned() },
        changes: Vec::new(),
    }
}

async fn ask(control: &Asked, method: Method, target: &str) -> (StatusCode, String) {
    let access = Arc::new(Access::new(None, true));
    let request = Asking::builder().method(method).uri(target).header("host", "127.0.0.1").body(Body::empty()).unwrap();
    let response = router(control.clone(), access).oneshot(request).await.unwrap();
    assert_eq!(response.headers()["cache-control"], "no-store");
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn an_upstream_is_named_by_its_address_whatever_is_in_it() {
    let control = Asked::default();
    let target = "/pools/app/upstreams/unix%3A%2Frun%2Fa.sock/drain?deadline=30s";
    let (status, body) = ask(&control, Method::POST, target).await;
    assert_eq!(status, 200, "{body}");
    let deadline = Some(Duration::from_secs(30));
    let asked = ("app".to_owned(), "unix:/run/a.sock".to_owned(), Change::Drain { deadline });
    assert_eq!(control.0.lock().unwrap().changes, [asked]);
    let told: UpstreamStatus = serde_json::from_str(&body).unwrap();
    assert_eq!(told.state, health::State::Draining);
}

#[tokio::test]
async fn a_caller_can_wait_until_an_upstream_is_empty() {
    let control = Asked::default();
    control.0.lock().unwrap().left = 2;
    let target = "/pools/app/upstreams/unix%3A%2Frun%2Fa.sock/drain?wait";
    let (_, body) = ask(&control, Method::POST, target).await;
    assert_eq!(serde_json::from_str::<UpstreamStatus>(&body).unwrap().state, health::State::Drained);
    assert_eq!(control.0.lock().unwrap().left, 0);
}

#[tokio::test]
async fn weights_are_set_and_taken_back() {
    let control = Asked::default();
    for query in ["?value=7", ""] {
        let (status, _) = ask(&control, Method::POST, &format!("/pools/app/upstreams/a:1/weight{query}")).await;
        assert_eq!(status, 200);
    }
    let changes: Vec<_> = control.0.lock().unwrap().changes.iter().map(|(_, _, change)| *change).collect();
    assert_eq!(changes, [Change::Weight(Some(7)), Change::Weight(None)]);
}

#[tokio::test]
async fn what_cannot_be_done_is_told_and_not_done() {
    let control = Asked::default();
    for (method, target, expected) in [
        (Method::POST, "/pools/other/upstreams/a:1/drain", 404),
        (Method::POST, "/pools/app/upstreams/a:1/explode", 404),
        (Method::POST, "/pools/app/upstreams/a:1/drain?deadline=soon", 400),
        (Method::POST, "/pools/app/upstreams/a:1/weight?value=-1", 400),
        (Method::POST, "/pools/app/upstreams/a:1/weight?value=1000001", 400),
        (Method::GET, "/pools/app/upstreams/a:1/drain", 405),
        (Method::GET, "/reload", 405),
        (Method::GET, "/pools/other", 404),
        (Method::GET, "/nothing", 404),
    ] {
        let (status, body) = ask(&control, method, target).await;
        assert_eq!(status, expected, "{target}");
        assert!(body.starts_with("{\"error\":\""), "{target}: {body}");
    }
    assert!(control.0.lock().unwrap().changes.is_empty());
}

#[tokio::test]
async fn a_reload_answers_with_its_verdict() {
    let control = Asked::default();
    assert_eq!(ask(&control, Method::POST, "/reload").await.0, 200);
    control.0.lock().unwrap().refuses = true;
    let (status, body) = ask(&control, Method::POST, "/reload").await;
    assert_eq!(status, 422);
    assert_eq!(serde_json::from_str::<Verdict>(&body).unwrap().problems, "error: no");
    assert_eq!(ask(&control, Method::GET, "/readyz").await.0, 503);
    assert_eq!(ask(&control, Method::GET, "/healthz").await.0, 200);
}

#[tokio::test]
async fn only_those_with_the_token_are_served() {
    let access = Arc::new(Access::new(Some("sixteen letters!"), true));
    let ask = async |target: &str, token: Option<&str>| {
        let mut request = Asking::builder().uri(target).header("host", "proxy");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let router = router(Asked::default(), access.clone());
        router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status()
    };
    for target in ["/status", "/pools", "/config", "/metrics", "/pools/app"] {
        assert_eq!(ask(target, None).await, 401, "{target}");
        assert_eq!(ask(target, Some("sixteen letters?")).await, 401, "{target}");
        assert_eq!(ask(target, Some("sixteen letters!")).await, 200, "{target}");
    }
    assert_eq!(ask("/healthz", None).await, 200);
}

#[tokio::test]
async fn an_open_address_needs_a_token() {
    let mut settings = Admin { bind: Some("0.0.0.0:0".parse().unwrap()), ..Admin::default() };
    let error = Bound::bind(&settings).unwrap_err();
    assert!(error.to_string().contains("needs a token"), "{error}");
    settings.token = Some(Secret::new("sixteen letters!".to_owned()));
    assert!(Bound::bind(&settings).unwrap().is_some());
    settings.bind = None;
    assert!(Bound::bind(&settings).unwrap().is_none());
}

#[tokio::test]
async fn a_unix_socket_is_its_user_s_own_and_leaves_nothing_behind() {
    use std::os::unix::fs::PermissionsExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap()); // as a killed process leaves it
    let settings = Admin { bind: Some(Bind::Unix(path.clone())), ..Admin::default() };
    let bound = Bound::bind(&settings).unwrap().unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(Bound::bind(&settings).is_err(), "it is in use");

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(bound.serve(Asked::default(), async { _ = stopped.await }));
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("ok\n"), "{answer}");
    stop.send(()).unwrap();
    serving.await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn the_scaler_is_asked_what_the_paths_say() {
    let control = Asked::default();
    let pool = || "a b".to_owned();
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    for (method, target, status, asked) in [
        (Method::GET, "/scaler", 200, Ask::Status),
        (Method::GET, "/scaler/doctor", 200, Ask::Doctor),
        (Method::GET, "/scaler/signals", 404, Ask::Signals),
        (Method::GET, "/scaler/a%20b/explain", 404, Ask::Explain { pool: pool(), at: None }),
        (Method::GET, "/scaler/a%20b/explain?at=12.5", 404, Ask::Explain { pool: pool(), at: Some(12.5) }),
        (
            Method::GET,
            "/scaler/a%20b/history?since=1&until=2&limit=3&all=true",
            503,
            Ask::History { pool: pool(), since: Some(1.0), until: Some(2.0), limit: Some(3), all: true },
        ),
        (
            Method::GET,
            "/scaler/a%20b/history",
            503,
            Ask::History { pool: pool(), since: None, until: None, limit: None, all: false },
        ),
        (Method::GET, "/scaler/a%20b/series?since=1", 503, Ask::Series { pool: pool(), since: Some(1.0), until: None }),
        (Method::POST, "/scaler/a%20b/pause?for=5m", 200, Ask::Pause { pool: pool(), r#for: minutes(5) }),
        (Method::POST, "/scaler/a%20b/pause", 200, Ask::Pause { pool: pool(), r#for: minutes(30) }),
        (Method::POST, "/scaler/a%20b/resume", 200, Ask::Resume { pool: pool() }),
        (Method::POST, "/scaler/a%20b/set?to=4", 200, Ask::Set { pool: pool(), to: Some(4), r#for: Some(minutes(60)) }),
        (
            Method::POST,
            "/scaler/a%20b/set?to=0&for=2m",
            200,
            Ask::Set { pool: pool(), to: Some(0), r#for: Some(minutes(2)) },
        ),
        (Method::POST, "/scaler/a%20b/set", 200, Ask::Set { pool: pool(), to: None, r#for: None }),
        (Method::POST, "/scaler/a%20b/recycle", 409, Ask::Recycle { pool: pool() }),
    ] {
        let (answered, body) = ask(&control, method, target).await;
        assert_eq!(answered.as_u16(), status, "{target}: {body}");
        assert_eq!(control.0.lock().unwrap().scaler.pop(), Some(asked), "{target}");
    }
    assert!(ask(&control, Method::GET, "/scaler").await.1.contains("\"leadership\":\"none\""));
    assert!(ask(&control, Method::POST, "/scaler/x/recycle").await.1.contains("runs already"));
}

#[tokio::test]
async fn what_the_scaler_cannot_be_asked_is_refused_with_words() {
    let control = Asked::default();
    for (method, target, status, word) in [
        (Method::GET, "/scaler/x/explain?at=noon", 400, "at"),
        (Method::GET, "/scaler/x/explain?at=inf", 400, "at"),
        (Method::GET, "/scaler/x/history?limit=-1", 400, "limit"),
        (Method::POST, "/scaler/x/pause?for=soon", 400, "for"),
        (Method::POST, "/scaler/x/pause?for=0s", 400, "for"),
        (Method::POST, "/scaler/x/set?to=many", 400, "to"),
        (Method::POST, "/scaler/x/set?for=1h", 400, "to"),
        (Method::GET, "/scaler/x/pause", 405, "method"),
        (Method::POST, "/scaler/x/explain", 405, "method"),
        (Method::GET, "/scaler/x/command", 404, "no such path"),
    ] {
        let (answered, body) = ask(&control, method, target).await;
        assert_eq!(answered.as_u16(), status, "{target}: {body}");
        assert!(body.contains(word), "{target}: {body}");
    }
    assert_eq!(control.0.lock().unwrap().scaler, []);
    let access = Arc::new(Access::new(None, true));
    let foreign =
        Asking::post("/scaler/x/set?to=9").header("host", "127.0.0.1").header("origin", "http://evil.example");
    let response = router(control.clone(), access).oneshot(foreign.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(control.0.lock().unwrap().scaler, []);
}
