use serde_json::Value;

use super::*;
use crate::mcp::peek::{Shape, peek};
use crate::mcp::samples;

fn read(text: &str) -> Outcome<'_> {
    outcome(text.as_bytes()).unwrap_or_else(|| panic!("not read: {text}"))
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// Holds what is read against serde_json, where both read it.
fn hold_against_serde(bytes: &[u8]) {
    let (Some(seen), Ok(value)) = (outcome(bytes), serde_json::from_slice::<Value>(bytes)) else { return };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let result = &value["result"];
    assert_eq!(seen.method.as_deref(), value["method"].as_str());
    assert_eq!(seen.error_code, value["error"]["code"].as_i64().or(seen.error_code));
    assert_eq!(seen.is_error, result["isError"] == Value::Bool(true));
    assert_eq!(seen.result_type.map(Cow::into_owned), text(&result["resultType"]));
    assert_eq!(seen.request_state.map(Cow::into_owned), text(&result["requestState"]));
    assert_eq!(seen.protocol_version.map(Cow::into_owned), text(&result["protocolVersion"]));
    assert_eq!(seen.uri.map(Cow::into_owned), text(&value["params"]["uri"]));
    let id = seen.id.map(|raw| serde_json::from_str::<Value>(raw).unwrap());
    assert_eq!(id, Some(value["id"].clone()).filter(|id| id.is_string() || id.is_number()));
}

#[test]
fn real_answers() {
    for sample in samples::server() {
        let seen = read(sample);
        assert!(seen.id.is_some() || seen.method.is_some(), "{sample}");
        hold_against_serde(sample.as_bytes());
    }
    let find = |part: &str| read(samples::server().into_iter().find(|sample| sample.contains(part)).unwrap());
    let discover = find("supportedVersions");
    assert_eq!(discover.supported_versions, ["2026-07-28"]);
    assert_eq!((discover.ttl_ms, discover.cache_scope), (Some(0), Some(Scope::Private)));
    let unsupported = find("-32022");
    assert_eq!(unsupported.error_code, Some(-32022));
    assert_eq!(unsupported.supported_versions, ["2026-07-28", "2025-11-25"]);
    assert_eq!(find("input_required").request_state.as_deref(), Some("v1.bG9j+YWw"));
    assert_eq!(find("createdAt").task_id.as_deref(), Some("786512e2-9e0d"));
    assert_eq!(find(r#""resultType":"task""#).task_id.as_deref(), Some("786512e2-9e0d"));
    assert_eq!(find(r#""protocolVersion":"2025"#).protocol_version.as_deref(), Some("2025-11-25"));
    assert!(find(r#""isError":true"#).is_error);
    let updated = find("resources/updated");
    assert_eq!((updated.uri.as_deref(), updated.is_response()), (Some("test://one"), false));
    let public = find(r#""cacheScope":"public""#);
    assert_eq!((public.ttl_ms, public.cache_scope, public.is_response()), (Some(30_000), Some(Scope::Public), true));
}

#[test]
fn what_is_no_message_says_nothing() {
    for text in ["", "[]", "1", "{", "{\"id\":1}x", "<html>", "{\"id\":1,}"] {
        assert_eq!(outcome(text.as_bytes()), None, "{text}");
    }
    let odd = read(
        r#"{"id":null,"result":{"ttlMs":-1,"cacheScope":"all","isError":"true","taskId":1,"task":[]},"error":"no"}"#,
    );
    assert_eq!(odd, Outcome::default());
    assert_eq!(read(r#"{"result":{"ttlMs":3e4}}"#).ttl_ms, Some(30_000));
    assert_eq!(read(r#"{"result":{"ttlMs":1e300}}"#).ttl_ms, Some(u64::MAX));
    assert_eq!(read(r#"{"error":{"code":-3.2022e4}}"#).error_code, Some(-32022));
    assert_eq!(read(r#"{"error":{"code":1.5}}"#).error_code, None);
}

#[test]
fn a_batch_has_several_outcomes() {
    let text = br#"[{"id":1,"result":{}},{"id":2,"error":{"code":-1}}]"#;
    let all: Vec<_> = outcomes(text).map(|one| (one.id, one.error_code)).collect();
    assert_eq!(all, [(Some("1"), None), (Some("2"), Some(-1))]);
    assert_eq!(outcomes(br#"{"id":3}"#).count(), 1);
    assert_eq!(outcomes(br#"[{"id":3},4,{"id":5}]"#).count(), 1);
    assert_eq!(outcomes(b"[]").count(), 0);
}

#[test]
fn names_of_tools() {
    let list = samples::server().into_iter().find(|sample| sample.contains("inputSchema")).unwrap();
    assert_eq!(tool_names(list.as_bytes()).collect::<Vec<_>>(), ["add", "fail"]);
    assert_eq!(
        tool_names(br#"{"result":{"tools":[{"name":"a\u0062"},5,{"name":[{"name":"x"}]}]}}"#).collect::<Vec<_>>(),
        ["ab"]
    );
    for none in [
        "",
        r#"{"result":{"tools":{"name":"a"}}}"#,
        r#"{"tools":[{"name":"a"}]}"#,
        r#"{"result":{"tools":[{"name":"a"}]"#,
    ] {
        assert_eq!(tool_names(none.as_bytes()).count(), 0, "{none}");
    }
}

#[test]
fn our_own_messages() {
    let text = "a \"b\"\n\u{1}é";
    let written = error(Some("\"x\""), -32001, text, Some(r#"{"retry":1}"#));
    let seen = outcome(&written).unwrap();
    assert_eq!((seen.id, seen.error_code), (Some("\"x\""), Some(-32001)));
    assert_eq!(parsed(&written)["error"]["message"], text);
    assert_eq!(parsed(&written)["error"]["data"]["retry"], 1);
    assert_eq!(
        &error(None, -32700, "m", None)[..],
        br#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"m"}}"#
    );
    let written = tool_error("7", text);
    assert!(outcome(&written).unwrap().is_error);
    assert_eq!(parsed(&written)["result"]["content"][0]["text"], text);
    let written = request("1", "initialize", Some(r#"{"protocolVersion":"2025-11-25"}"#));
    let seen = peek(&written, true).unwrap();
    assert_eq!((seen.shape, seen.version.as_deref()), (Shape::Request, Some("2025-11-25")));
    let written = notification("notifications/initialized", None);
    assert_eq!(peek(&written, true).map(|seen| seen.shape), Ok(Shape::Notification));
}

#[test]
fn a_hundred_thousand_mutations_of_real_answers() {
    let mut random = fastrand::Rng::with_seed(5);
    let messages = samples::server();
    for round in 0..100_000 {
        let mut bytes = messages[round % messages.len()].as_bytes().to_vec();
        samples::mutate(&mut bytes, &mut random);
        hold_against_serde(&bytes);
        let _ = (outcomes(&bytes).count(), tool_names(&bytes).count());
    }
}
