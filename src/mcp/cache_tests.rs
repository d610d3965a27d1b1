use serde_json::{Value, json};

use super::*;
use crate::mcp::peek::peek;
use crate::mcp::samples;

const NOW: Moment = Moment::from_nanos(1_000_000_000);
const SECOND: Duration = Duration::from_secs(1);

fn key(method: &str, params: Value, principal: Option<&str>) -> Option<Key> {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
    Key::of(&peek(body.as_bytes(), true).unwrap(), body.as_bytes(), principal)
}

fn tools(principal: Option<&str>) -> Key {
    key("tools/list", json!({}), principal).unwrap()
}

fn read(uri: &str) -> Key {
    key("resources/read", json!({ "uri": uri }), None).unwrap()
}

fn answer(scope: &str, ttl_ms: u64, text: &str) -> Bytes {
    format!(
        r#"{{"jsonrpc":"2.0","id":7,"result":{{"ttlMs":{ttl_ms},"tools":[],"cacheScope":"{scope}","text":"{text}"}}}}"#
    )
    .into()
}

/// Asks and stores at once.
fn keep(cache: &mut Cache, key: Key, response: &Bytes) -> bool {
    let ticket = cache.ask();
    cache.store(key, ticket, response, NOW)
}

fn text(found: Option<Bytes>) -> Option<String> {
    found.map(|found| serde_json::from_slice::<Value>(&found).unwrap()["result"]["text"].as_str().unwrap().to_owned())
}

fn cache() -> Cache {
    Cache::new(Bounds::default())
}

#[test]
fn a_public_answer_is_for_everybody_with_their_own_id_and_what_is_left_of_its_life() {
    let mut cache = cache();
    assert!(keep(&mut cache, tools(Some("ann")), &answer("public", 5000, "a")));
    let found = cache.find(&tools(None), "\"x\"", NOW + 2 * SECOND).unwrap();
    let whole: &[u8] =
        br#"{"jsonrpc":"2.0","id":"x","result":{"ttlMs":3000,"tools":[],"cacheScope":"public","text":"a"}}"#;
    assert_eq!(&found[..], whole);
    assert!(cache.find(&tools(Some("bob")), "1", NOW + 5 * SECOND - Duration::from_millis(1)).is_some());
    assert!(cache.find(&tools(None), "1", NOW + 5 * SECOND).is_none(), "its time is over");
    assert_eq!((cache.len(), cache.bytes(), cache.order.len()), (0, 0, 0));
}

#[test]
fn a_private_answer_is_for_its_principal_alone() {
    let mut cache = cache();
    assert!(!keep(&mut cache, tools(None), &answer("private", 5000, "nobody's")));
    assert!(keep(&mut cache, tools(Some("ann")), &answer("private", 5000, "ann's")));
    assert_eq!(text(cache.find(&tools(Some("ann")), "1", NOW)).as_deref(), Some("ann's"));
    assert_eq!(cache.find(&tools(Some("bob")), "1", NOW), None);
    assert_eq!(cache.find(&tools(None), "1", NOW), None);
    assert!(keep(&mut cache, tools(None), &answer("public", 5000, "all's")));
    assert_eq!(text(cache.find(&tools(Some("ann")), "1", NOW)).as_deref(), Some("ann's"), "her own first");
    assert_eq!(text(cache.find(&tools(Some("bob")), "1", NOW)).as_deref(), Some("all's"));
}

#[test]
fn only_what_a_server_allows_is_kept() {
    let mut cache = cache();
    for refused in [
        r#"{"id":1,"result":{"tools":[]}}"#,
        r#"{"id":1,"result":{"ttlMs":5000}}"#,
        r#"{"id":1,"result":{"cacheScope":"public"}}"#,
        r#"{"id":1,"result":{"ttlMs":0,"cacheScope":"public"}}"#,
        r#"{"id":1,"result":{"ttlMs":5000,"cacheScope":"shared"}}"#,
        r#"{"id":1,"result":{"ttlMs":5000,"cacheScope":"public","resultType":"input_required"}}"#,
        r#"{"id":1,"error":{"code":1},"result":{"ttlMs":5000,"cacheScope":"public"}}"#,
        r#"{"result":{"ttlMs":5000,"cacheScope":"public"}}"#,
        r#"{"id":1,"id":2,"result":{"ttlMs":5000,"cacheScope":"public"}}"#,
        r#"{"id":1,"result":{"ttlMs":5000,"cacheScope":"public"}"#,
        "",
    ] {
        assert!(!keep(&mut cache, tools(None), &Bytes::from_static(refused.as_bytes())), "{refused}");
    }
    let kept = br#"{"id":1,"result":{"ttlMs":5000,"cacheScope":"public","resultType":"complete"}}"#;
    assert!(keep(&mut cache, tools(None), &Bytes::from_static(kept)));
}

#[test]
fn which_questions_are_the_same() {
    let base =
        || json!({ "cursor": "1", "_meta": { "io.modelcontextprotocol/clientCapabilities": {}, "progressToken": 1 } });
    let with = |place: &str, value: Value| {
        let mut params = base();
        *params.pointer_mut(place).unwrap() = value;
        key("tools/list", params, None)
    };
    let same = key("tools/list", base(), None);
    assert_eq!(with("/_meta/progressToken", json!("other")), same);
    assert_ne!(with("/cursor", json!("2")), same);
    assert_ne!(with("/_meta/io.modelcontextprotocol~1clientCapabilities", json!({ "elicitation": {} })), same);
    assert_ne!(key("prompts/list", base(), None), same);
    assert_ne!(key("tools/list", base(), Some("ann")), same);
    let mut other = base();
    other["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
    assert_ne!(key("tools/list", other, None), same);
    assert_eq!(key("tools/call", json!({ "name": "a" }), None), None);
    assert_eq!(key("resources/read", json!({ "uri": "a", "requestState": "s" }), None), None);
    assert_eq!(key("resources/read", json!({ "uri": "a", "inputResponses": {} }), None), None);
    assert_ne!(key("tools/list", json!({ "a\":1,\"b": 2 }), None), key("tools/list", json!({ "a": 1, "b": 2 }), None));
}

#[test]
fn a_change_takes_away_its_kind_and_what_is_on_its_way() {
    let mut cache = cache();
    let public = answer("public", 5000, "a");
    let prompts = || key("prompts/list", json!({}), None).unwrap();
    let templates = || key("resources/templates/list", json!({}), None).unwrap();
    let fill = |cache: &mut Cache| {
        for key in [tools(None), prompts(), templates(), read("a"), read("b")] {
            assert!(keep(cache, key, &public));
        }
    };
    fill(&mut cache);
    let asked = cache.ask();
    assert_eq!(cache.invalidate(Changed::Tools), 1);
    assert_eq!(cache.find(&tools(None), "1", NOW), None);
    assert!(cache.find(&prompts(), "1", NOW).is_some());
    assert!(!cache.store(tools(None), asked, &public, NOW), "it was made before the change");
    assert!(cache.store(prompts(), asked, &public, NOW));
    assert!(keep(&mut cache, tools(None), &public));
    assert_eq!(cache.invalidate(Changed::Resource("a")), 1);
    assert!(cache.find(&read("b"), "1", NOW).is_some() && cache.find(&read("a"), "1", NOW).is_none());
    assert_eq!(cache.invalidate(Changed::Resources), 1);
    assert!(cache.find(&read("b"), "1", NOW).is_some());
    let asked = cache.ask();
    cache.clear();
    assert!(cache.is_empty() && !cache.store(read("a"), asked, &public, NOW));
    assert_eq!(Changed::of("notifications/resources/updated", Some("a")), Some(Changed::Resource("a")));
    assert_eq!(Changed::of("notifications/resources/updated", None), None);
    assert_eq!(Changed::of("notifications/tools/list_changed", None), Some(Changed::Tools));
    assert_eq!(Changed::of("notifications/message", None), None);
}

#[test]
fn the_least_recently_used_goes_and_the_bounds_hold() {
    let bounds = Bounds { entries: 3, bytes: 100_000, ttl: SECOND };
    let mut cache = Cache::new(bounds);
    let public = answer("public", u64::MAX, "a");
    for uri in ["a", "b", "c"] {
        assert!(keep(&mut cache, read(uri), &public));
    }
    assert!(cache.find(&read("a"), "1", NOW).is_some());
    assert!(keep(&mut cache, read("d"), &public));
    assert!(cache.find(&read("b"), "1", NOW).is_none() && cache.find(&read("a"), "1", NOW).is_some());
    assert!(cache.find(&read("a"), "1", NOW + SECOND).is_none(), "no longer than the bound, whatever the server says");
    assert!(!keep(&mut cache, read("e"), &answer("public", 1000, &"x".repeat(25_000))), "too large for one");
    for round in 0..100 {
        let large = answer("public", 1000, &"x".repeat(round * 200));
        assert!(keep(&mut cache, read(&round.to_string()), &large));
        let real: usize = cache.entries.iter().map(|(key, entry)| entry.response.len() + key.size() + ENTRY).sum();
        assert_eq!((cache.bytes(), cache.order.len()), (real, cache.len()));
        assert!(cache.len() <= 3 && cache.bytes() <= bounds.bytes);
    }
}

#[test]
fn an_id_is_spliced_wherever_it_is() {
    let spliced =
        |text: &str| splice_id(text.as_bytes(), "\"n\"").map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
    assert_eq!(
        spliced(r#"{"result":{"id":1,"ttlMs":5}, "id" : 12 }"#).as_deref(),
        Some(r#"{"result":{"id":1,"ttlMs":5}, "id" : "n" }"#)
    );
    assert_eq!(spliced(r#"{"\u0069d":null,"result":{}}"#).as_deref(), Some(r#"{"\u0069d":"n","result":{}}"#));
    assert_eq!(spliced(r#"{"result":{}}"#), None);
    assert_eq!(spliced("[]"), None);
}

#[test]
fn a_hundred_thousand_mutations_neither_panic_nor_break_the_bounds() {
    let mut random = fastrand::Rng::with_seed(6);
    let (asked, answers) = (samples::client(), samples::server());
    let mut cache = Cache::new(Bounds { entries: 8, bytes: 20_000, ttl: SECOND });
    let mut kept = 0;
    for round in 0..100_000 {
        let mut body = asked[round % asked.len()].as_bytes().to_vec();
        let mut response = answers[random.usize(..answers.len())].replace("\"ttlMs\":0", "\"ttlMs\":9").into_bytes();
        match random.u8(..4) {
            0 => samples::mutate(&mut body, &mut random),
            1 => samples::mutate(&mut response, &mut random),
            _ => {}
        }
        let key = peek(&body, true).ok().and_then(|seen| Key::of(&seen, &body, Some("ann").filter(|_| random.bool())));
        let Some(key) = key else { continue };
        let ticket = cache.ask();
        if let Some(found) = cache.find(&key, "1", NOW) {
            assert!(outcome(&found).is_some_and(|seen| seen.id == Some("1")), "{}", String::from_utf8_lossy(&found));
        }
        kept += usize::from(cache.store(key, ticket, &response.into(), NOW));
        assert!(cache.len() <= 8 && cache.bytes() <= 20_000);
    }
    assert!(kept > 1000, "{kept} were kept");
}
