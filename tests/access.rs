//! Who may ask: pages of which origins, and people with which keys and tokens.

mod support;

#[path = "access/issuer.rs"]
mod issuer;

use issuer::{Issuer, Signer, in_seconds};
use serde_json::json;
use support::*;
use tidegate::access::new_key;

const WEB: &str = "[listener.web]\nbind = \"127.0.0.1:0\"\n[pool.app]\nupstreams = \"{a}\"\n";

/// A proxy with one route for everything; `rules` are keys of that route.
async fn guarded(a: &Upstream, rules: &str, file: (&str, &str)) -> Proxy {
    let text = format!("{WEB}[[route]]\nname = \"all\"\npool = \"app\"\n{rules}\n");
    proxy(&text).file(file.0, file.1).with("a", a).start().await
}

/// A proxy that takes tokens of this issuer for `/mcp`.
async fn with_issuer(a: &Upstream, issuer: &Issuer, jwt: &str) -> Proxy {
    let text = format!(
        r#"{WEB}
        [[route]]
        name = "mcp"
        path = "/mcp"
        pool = "app"
        response_headers = {{ set = {{ x-who = "{{principal}}" }} }}
        resource = {{ authorization_servers = ["https://login.test"], scopes = ["read"] }}
        [route.auth]
        principal_header = "x-principal"
        [route.auth.jwt]
        jwks = "http://{{issuer}}/jwks.json"
        issuer = "https://login.test"
        audience = ["https://mcp.test/mcp"]
        {jwt}
        "#
    );
    proxy(&text).with("a", a).with("issuer", &issuer.address()).start().await
}

fn claims() -> serde_json::Value {
    json!({ "iss": "https://login.test", "aud": "https://mcp.test/mcp", "sub": "alice", "exp": in_seconds(300), "scope": "read" })
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[tokio::test]
async fn a_foreign_page_is_refused_before_any_upstream_is_asked() {
    let a = upstream().start().await;
    let rules = r#"origins = ["https://app.test", "http://localhost:*"]"#;
    let proxy = guarded(&a, rules, ("x", "")).await;
    for origin in ["https://evil.test", "null", "https://app.test.evil.test", "https://app.test:8443"] {
        let refused = proxy.client().post("/mcp", "{}").header("origin", origin).await;
        assert_eq!(refused.status, 403, "{origin}");
        assert_eq!(refused.header("proxy-status"), Some("tidegate; error=http_request_denied"));
    }
    assert_eq!(a.requests(), 0);
    for origin in ["https://app.test", "http://localhost:5173"] {
        assert_eq!(proxy.client().post("/mcp", "{}").header("origin", origin).await.status, 200, "{origin}");
    }
    assert_eq!(proxy.client().get("/").await.status, 200);
    assert_eq!(a.requests(), 3);
    assert_eq!(proxy.metric("tidegate_refusals_total{reason=\"foreign_origin\"}").await, Some(4.0));
}

#[tokio::test]
async fn a_browser_s_preflight_passes_with_all_headers_of_mcp() {
    let a = upstream().start().await;
    let rules = "cors = \"mcp\"\norigins = \"https://app.test\"\nauth = { keys = \"keys.txt\" }";
    let (key, line) = new_key("alice", &[]).unwrap();
    let proxy = guarded(&a, rules, ("keys.txt", &line)).await;
    let asked = "authorization,content-type,accept,last-event-id,mcp-method,mcp-name,mcp-param-region,mcp-protocol-version,mcp-session-id";
    let preflight = |origin: &str| {
        proxy
            .client()
            .call(http::Method::OPTIONS, "/mcp")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", asked)
    };
    let answer = preflight("https://app.test").await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.test"));
    let allowed = answer.header("access-control-allow-headers").unwrap().to_ascii_lowercase();
    let allowed: Vec<&str> = allowed.split(", ").collect();
    assert!(asked.split(',').all(|name| allowed.contains(&name)), "{allowed:?}");
    let methods = answer.header("access-control-allow-methods").unwrap();
    assert!(["GET", "POST", "DELETE"].iter().all(|method| methods.contains(method)), "{methods}");
    assert_eq!(answer.header("access-control-max-age"), Some("86400"));
    assert_eq!(preflight("https://evil.test").await.status, 403);
    assert_eq!(a.requests(), 0);

    // What comes after it, whether it is let in or not, can be read by the page.
    let post = || proxy.client().post("/mcp", "{}").header("origin", "https://app.test");
    for (answer, status) in [(post().await, 401), (post().header("authorization", &bearer(&key)).await, 200)] {
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.test"));
        let exposed = answer.header("access-control-expose-headers").unwrap();
        assert!(
            ["Mcp-Session-Id", "WWW-Authenticate", "Mcp-Protocol-Version"].iter().all(|name| exposed.contains(name))
        );
        assert_eq!(answer.header("vary"), Some("origin"));
    }
    assert_eq!(a.requests(), 1);
}

#[tokio::test]
async fn what_an_upstream_says_of_origins_is_replaced_and_redirects_say_it_too() {
    let a = scripted()
        .reads_request()
        .sends("HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://theirs.test\r\nAccess-Control-Allow-Credentials: true\r\nVary: Accept\r\nContent-Length: 2\r\n\r\nok")
        .start()
        .await;
    let text = r#"
        [listener.web]
        bind = "127.0.0.1:0"
        [pool.app]
        upstreams = "{a}"
        [[route]]
        pool = "app"
        cors = { origins = "https://app.test", methods = ["PUT"], headers = ["X-*"], max_age = "5m" }
        [[route]]
        path = "/old"
        redirect = "/new"
        cors = {}
    "#;
    let proxy = proxy(text).with("a", &a).start().await;
    let answer = proxy.client().get("/").header("origin", "https://app.test").await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.test"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    let vary: Vec<_> = answer.headers.get_all("vary").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(vary, ["Accept", "origin"]);
    let moved = proxy.client().get("/old").header("origin", "https://any.test").await;
    assert_eq!((moved.status.as_u16(), moved.header("access-control-allow-origin")), (308, Some("*")));
    assert_eq!(moved.header("vary"), None);
}

#[tokio::test]
async fn a_key_lets_in_and_stays_here() {
    let a = upstream().start().await;
    let (key, line) = new_key("alice", &["read".to_owned()]).unwrap();
    let (less, less_line) = new_key("bob", &[]).unwrap();
    let rules = r#"auth = { keys = "keys.txt", header = "x-api-key", scopes = ["read"], principal_header = "x-principal" }
response_headers = { set = { x-who = "{principal}" } }"#;
    let proxy = guarded(&a, rules, ("keys.txt", &format!("# people\n{line}\n{less_line}\n"))).await;
    let get = |name: &str, value: &str| proxy.client().get("/").header("x-principal", "root").header(name, value);
    for (name, value) in [("x-api-key", key.clone()), ("authorization", bearer(&key))] {
        let answer = get(name, &value).await;
        assert_eq!(answer.status, 200, "{name}");
        assert_eq!(answer.upstream_saw("x-principal"), ["alice"]);
        assert_eq!(answer.upstream_saw(name), [""; 0]);
        assert_eq!(answer.header("x-who"), Some("alice"));
    }
    // A token for somebody else that comes beside the key is not ours to take.
    let both = get("x-api-key", &key).header("authorization", "Bearer theirs").await;
    assert_eq!(both.upstream_saw("authorization"), ["Bearer theirs"]);
    assert_eq!(a.requests(), 3);
    for (name, value, status, challenge) in [
        ("x-other", "", 401, "Bearer scope=\"read\""),
        ("authorization", "Basic YWxpY2U6eA==", 401, "Bearer scope=\"read\""),
        (
            "authorization",
            "Bearer tg_wrong",
            401,
            "Bearer error=\"invalid_token\", error_description=\"the key is not known\", scope=\"read\"",
        ),
        (
            "x-api-key",
            "tg_wrong",
            401,
            "Bearer error=\"invalid_token\", error_description=\"the key is not known\", scope=\"read\"",
        ),
        ("x-api-key", &less, 403, "Bearer error=\"insufficient_scope\", scope=\"read\""),
    ] {
        let refused = get(name, value).await;
        assert_eq!((refused.status.as_u16(), refused.header("www-authenticate")), (status, Some(challenge)), "{name}");
    }
    assert_eq!(a.requests(), 3);
}

#[tokio::test]
async fn the_key_file_is_read_again_when_it_changes() {
    let a = upstream().start().await;
    let ((old, old_line), (new, new_line)) = (new_key("old", &[]).unwrap(), new_key("new", &[]).unwrap());
    let proxy = guarded(&a, "auth = { keys = \"keys.txt\" }", ("keys.txt", &old_line)).await;
    let status = async |key: &str| proxy.client().get("/").header("authorization", &bearer(key)).await.status.as_u16();
    assert_eq!((status(&old).await, status(&new).await), (200, 401));
    std::fs::write(proxy.folder().join("keys.txt"), new_line).unwrap();
    until("the new key is good", async || (status(&new).await == 200).then_some(())).await;
    assert_eq!(status(&old).await, 401);
    // What cannot be used changes nothing, and is not shown.
    std::fs::write(proxy.folder().join("keys.txt"), "new hunter2\n").unwrap();
    let verdict = proxy.reload().await;
    assert!(!verdict.accepted && verdict.problems.contains("keys.txt: line 1"), "{}", verdict.problems);
    assert!(!verdict.problems.contains("hunter2"));
    assert_eq!(status(&new).await, 200);
}

#[tokio::test]
async fn each_key_has_a_limit_of_its_own_wherever_it_comes_from() {
    let a = upstream().start().await;
    let ((alice, one), (bob, two)) = (new_key("alice", &[]).unwrap(), new_key("bob", &[]).unwrap());
    let rules = "auth = { keys = \"keys.txt\", header = \"x-api-key\" }\nlimit = { rate = \"1/h\", burst = 1, per = \"principal\" }";
    let proxy = guarded(&a, rules, ("keys.txt", &format!("{one}\n{two}"))).await;
    let status = async |name: &str, value: &str, from: &str| {
        let client = client(proxy.address("web")).from(from.parse().unwrap());
        client.get("/").header(name, value).await.status.as_u16()
    };
    assert_eq!(status("x-api-key", &alice, "127.0.0.1:0").await, 200);
    assert_eq!(status("authorization", &bearer(&alice), "127.0.0.2:0").await, 200);
    assert_eq!(status("x-api-key", &alice, "127.0.0.3:0").await, 429);
    assert_eq!(status("x-api-key", &bob, "127.0.0.1:0").await, 200);
    // Who is not let in uses up nobody's limit.
    assert_eq!(status("x-api-key", "wrong", "127.0.0.1:0").await, 401);
    assert_eq!(status("x-api-key", &bob, "127.0.0.1:0").await, 200);
    assert_eq!(a.requests(), 4);
}

#[tokio::test]
async fn a_token_of_the_issuer_lets_in_and_goes_on() {
    let a = upstream().start().await;
    let signer = Signer::new("k1");
    let issuer = Issuer::start(&[&signer]).await;
    let proxy = with_issuer(&a, &issuer, "scopes = [\"read\"]").await;
    let send = |token: String| proxy.client().post("/mcp", "{}").header("authorization", &bearer(&token));
    let good = signer.sign(&claims());
    for _ in 0..2 {
        let answer = send(good.clone()).header("x-principal", "root").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.upstream_saw("authorization"), [bearer(&good)]);
        assert_eq!(answer.upstream_saw("x-principal"), ["alice"]);
        assert_eq!(answer.header("x-who"), Some("alice"));
    }
    let metadata =
        format!("resource_metadata=\"http://{}/.well-known/oauth-protected-resource/mcp\"", proxy.address("web"));
    let changed = |name: &str, value: serde_json::Value| {
        let mut claims = claims();
        claims[name] = value;
        signer.sign(&claims)
    };
    let mut none = good.split('.').map(str::to_owned).collect::<Vec<_>>();
    none[0] = issuer::encoded(&json!({ "alg": "none", "kid": "k1" }));
    for (token, status, error) in [
        (changed("exp", json!(in_seconds(-61))), 401, "invalid_token"),
        (changed("nbf", json!(in_seconds(3600))), 401, "invalid_token"),
        (changed("aud", json!("https://other.test")), 401, "invalid_token"),
        (changed("iss", json!("https://other.test")), 401, "invalid_token"),
        (format!("{}.{}.", none[0], none[1]), 401, "invalid_token"),
        (Signer::new("k1").sign(&claims()), 401, "invalid_token"),
        ("nonsense".to_owned(), 401, "invalid_token"),
        (changed("scope", json!("write")), 403, "insufficient_scope"),
    ] {
        let refused = send(token).await;
        let challenge = refused.header("www-authenticate").unwrap();
        assert_eq!(refused.status, status, "{challenge}");
        assert!(challenge.starts_with(&format!("Bearer error=\"{error}\"")), "{challenge}");
        assert!(challenge.contains("scope=\"read\"") && challenge.contains(&metadata), "{challenge}");
    }
    let missing = proxy.client().post("/mcp", "{}").await;
    let challenge = format!("Bearer scope=\"read\", {metadata}");
    assert_eq!((missing.status.as_u16(), missing.header("www-authenticate")), (401, Some(challenge.as_str())));
    assert_eq!(a.requests(), 2);
}

#[tokio::test]
async fn a_key_that_is_not_known_yet_is_asked_for_once() {
    let a = upstream().start().await;
    let (first, second, never) = (Signer::new("k1"), Signer::new("k2"), Signer::new("k3"));
    let issuer = Issuer::start(&[&first]).await;
    let proxy = with_issuer(&a, &issuer, "").await;
    let status = async |signer: &Signer| {
        let token = bearer(&signer.sign(&claims()));
        proxy.client().post("/mcp", "{}").header("authorization", &token).await.status.as_u16()
    };
    assert_eq!(status(&first).await, 200);
    assert_eq!(issuer.asked(), 1);
    issuer.has(&[&second]);
    let many = futures_util::future::join_all((0..8).map(|_| status(&second))).await;
    assert_eq!(many, [200; 8]);
    assert_eq!(issuer.asked(), 2);
    // The old one is gone, though its token had been good; invented ones do not make us ask.
    assert_eq!(status(&first).await, 401);
    assert_eq!(status(&never).await, 401);
    assert_eq!(issuer.asked(), 2);
}

#[tokio::test]
async fn while_the_keys_cannot_be_fetched_the_old_ones_stay() {
    let a = upstream().start().await;
    let signer = Signer::new("k1");
    let issuer = Issuer::start(&[&signer]).await;
    let proxy = with_issuer(&a, &issuer, "refresh = \"1s\"").await;
    let status = async || {
        let token = bearer(&signer.sign(&claims()));
        proxy.client().post("/mcp", "{}").header("authorization", &token).await.status.as_u16()
    };
    assert_eq!(status().await, 200);
    for broken in [
        Some("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"),
        Some("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"keys\":[]}"),
    ] {
        let before = issuer.asked();
        issuer.answers(broken);
        eventually("it has been asked in vain", || issuer.asked() >= before + 2).await;
        assert_eq!(status().await, 200);
    }
}

#[tokio::test]
async fn before_there_are_keys_nobody_is_let_in() {
    let a = upstream().start().await;
    let signer = Signer::new("k1");
    let issuer = Issuer::start(&[&signer]).await;
    issuer.answers(Some("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"));
    let proxy = with_issuer(&a, &issuer, "").await;
    let call = || proxy.client().post("/mcp", "{}").header("authorization", &bearer(&signer.sign(&claims())));
    let refused = call().await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("proxy-status"), Some("tidegate; error=proxy_configuration_error"));
    assert_eq!(proxy.client().post("/mcp", "{}").await.status, 401);
    assert_eq!(a.requests(), 0);
    issuer.answers(None);
    until("there are keys", async || (call().await.status == 200).then_some(())).await;
    // A reload keeps them, and whoever fetches them.
    let asked = issuer.asked();
    assert!(proxy.reload().await.accepted);
    assert_eq!(call().await.status, 200);
    assert_eq!(issuer.asked(), asked);
}

#[tokio::test]
async fn a_key_set_can_be_a_file() {
    let a = upstream().start().await;
    let (first, second) = (Signer::new("k1"), Signer::new("k2"));
    let rules = r#"auth = { jwt = { jwks = "jwks.json", issuer = "https://login.test", audience = "https://mcp.test/mcp" }, forward = false }"#;
    let proxy = guarded(&a, rules, ("jwks.json", &issuer::set(&[&first]))).await;
    let call = |signer: &Signer| proxy.client().get("/").header("authorization", &bearer(&signer.sign(&claims())));
    let answer = call(&first).await;
    assert_eq!((answer.status.as_u16(), answer.upstream_saw("authorization").len()), (200, 0));
    assert_eq!(call(&second).await.status, 401);
    std::fs::write(proxy.folder().join("jwks.json"), issuer::set(&[&second])).unwrap();
    until("the new key is good", async || (call(&second).await.status == 200).then_some(())).await;
    assert_eq!(call(&first).await.status, 401);
}

#[tokio::test]
async fn the_resource_is_described_to_everybody_under_its_external_name() {
    let a = upstream().start().await;
    let (_, line) = new_key("alice", &[]).unwrap();
    let text = format!(
        r#"{WEB}
        [[route]]
        pool = "app"
        [[route]]
        host = "one.test"
        path = "/mcp"
        pool = "app"
        auth = {{ keys = "keys.txt" }}
        resource = {{ url = "https://mcp.example.com/mcp", authorization_servers = ["https://login.test"], scopes = ["read"], documentation = "https://docs.test/x?y" }}
        [[route]]
        host = "two.test"
        path = "/a"
        pool = "app"
        resource = {{ authorization_servers = ["https://a.test"] }}
        [[route]]
        host = "two.test"
        path = "/b"
        pool = "app"
        resource = {{ authorization_servers = ["https://b.test"] }}
        "#
    );
    let proxy = proxy(&text).file("keys.txt", line).with("a", &a).start().await;
    const AT: &str = "/.well-known/oauth-protected-resource";
    let get =
        |host: &str, path: &str| proxy.client().get(path).header("host", host).header("origin", "https://any.test");
    for path in [format!("{AT}/mcp"), AT.to_owned()] {
        let answer = get("one.test", &path).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, Some("application/json")));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        let document = json!({
            "resource": "https://mcp.example.com/mcp",
            "authorization_servers": ["https://login.test"],
            "scopes_supported": ["read"],
            "bearer_methods_supported": ["header"],
            "resource_documentation": "https://docs.test/x?y",
        });
        assert_eq!(answer.json(), document);
    }
    let refused = get("one.test", "/mcp").await;
    let challenge = format!("Bearer resource_metadata=\"https://mcp.example.com{AT}/mcp\"");
    assert_eq!((refused.status.as_u16(), refused.header("www-authenticate")), (401, Some(challenge.as_str())));
    assert_eq!(get("two.test:8080", &format!("{AT}/b")).await.json()["resource"], "http://two.test:8080/b");
    let preflight = proxy
        .client()
        .call(http::Method::OPTIONS, &format!("{AT}/a"))
        .header("host", "two.test")
        .header("origin", "https://any.test")
        .header("access-control-request-method", "GET");
    assert_eq!(preflight.await.status, 204);
    assert_eq!(a.requests(), 0);
    // Of two nobody can say which is meant; and what is no resource of ours is the upstream's.
    for (host, path) in
        [("two.test", AT.to_owned()), ("one.test", format!("{AT}/other")), ("three.test", AT.to_owned())]
    {
        assert_eq!(get(host, &path).await.upstream_saw("host"), [host]);
    }
}

#[tokio::test]
async fn the_access_log_says_who_it_was() {
    let a = upstream().start().await;
    let (key, line) = new_key("alice", &[]).unwrap();
    let text = format!(
        "access_log = {{ target = \"access.log\", format = \"json\" }}\n{WEB}[[route]]\npool = \"app\"\nauth = {{ keys = \"keys.txt\" }}\n"
    );
    let proxy = proxy(&text).file("keys.txt", line).with("a", &a).start().await;
    assert_eq!(proxy.client().get("/in").header("authorization", &bearer(&key)).await.status, 200);
    assert_eq!(proxy.client().get("/out").await.status, 401);
    let log = proxy.folder().join("access.log");
    let lines: Vec<serde_json::Value> = until("both are logged", async || {
        let text = std::fs::read_to_string(&log).ok()?;
        let lines: Vec<_> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (lines.len() == 2).then_some(lines)
    })
    .await;
    let of = |target: &str| lines.iter().find(|line| line["target"] == target).unwrap();
    assert_eq!(of("/in")["principal"], "alice");
    assert_eq!((&of("/out")["principal"], &of("/out")["refusal"]), (&json!(null), &json!("unauthorized")));
    assert!(!std::fs::read_to_string(&log).unwrap().contains(&key));
}

#[tokio::test]
async fn the_command_makes_a_key_and_its_line() {
    let made = tidegate(&["key", "carol", "--scope", "read", "--scope", "write"]).await;
    assert_eq!(made.code, Some(0), "{}", made.err);
    let lines: Vec<&str> = made.out.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let [key, line] = lines[..] else { panic!("{}", made.out) };
    assert!(line.starts_with("carol ") && line.ends_with(" read,write"), "{line}");
    let a = upstream().start().await;
    let proxy = guarded(&a, "auth = { keys = \"keys.txt\", scopes = \"write\" }", ("keys.txt", line)).await;
    assert_eq!(proxy.client().get("/").header("authorization", &bearer(key)).await.status, 200);
    for wrong in [&["key", "two words"][..], &["key", "#carol"], &["key", "carol", "--scope", "a,b"], &["key", ""]] {
        assert_eq!(tidegate(wrong).await.code, Some(64), "{wrong:?}");
    }
}
