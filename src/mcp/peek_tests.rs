use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::*;
use crate::mcp::samples;

fn whole(text: &str) -> Result<Peek<'_>, Malformed> {
    peek(text.as_bytes(), true)
}

#[test]
fn a_tool_call_of_2025_11_25() {
    let text = r#" {"method":"tools/call","params":{"name":"run_sql","arguments":{"name":"x","method":"y"},"_meta":{"progressToken":7}},"jsonrpc":"2.0","id":"a\"1"}
"#;
    let seen = whole(text).unwrap();
    assert_eq!(seen.shape, Shape::Request);
    assert_eq!(seen.method.as_deref(), Some("tools/call"));
    assert_eq!(seen.id, Some(r#""a\"1""#));
    assert_eq!(seen.name.as_deref(), Some("run_sql"));
    assert_eq!((seen.version, seen.request_state), (None, None));
    assert_eq!(seen.progress_token, Some("7"));
    assert_eq!(seen.members, 1);
    let params = &text[seen.params.unwrap()];
    assert!(params.starts_with(r#"{"name""#) && params.ends_with(r#":7}}"#), "{params}");
}

#[test]
fn the_version_is_in_meta_or_in_initialize_only() {
    let modern = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"protocolVersion":"no","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
    assert_eq!(whole(modern).unwrap().version.as_deref(), Some("2026-07-28"));
    let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#;
    assert_eq!(whole(initialize).unwrap().version.as_deref(), Some("2025-06-18"));
    let neither = initialize.replace("initialize", "tools/list");
    assert_eq!(whole(&neither).unwrap().version, None);
}

#[test]
fn what_a_message_is_about() {
    let name = |method: &str| {
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":1,"params":{{"name":"n","uri":"u","taskId":"t","requestState":"s"}},"method":"{method}"}}"#
        );
        let seen = peek(text.as_bytes(), true).unwrap();
        assert_eq!(seen.request_state.as_deref(), Some("s"));
        seen.name.map(Cow::into_owned)
    };
    assert_eq!(name("tools/call").as_deref(), Some("n"));
    assert_eq!(name("prompts/get").as_deref(), Some("n"));
    assert_eq!(name("resources/read").as_deref(), Some("u"));
    assert_eq!(name("resources/subscribe").as_deref(), Some("u"));
    assert_eq!(name("tasks/cancel").as_deref(), Some("t"));
    assert_eq!(name("resources/list"), None);
    assert_eq!(name("custom/thing"), None);
}

#[test]
fn shapes() {
    let shape = |text: &str| peek(text.as_bytes(), true).map(|seen| seen.shape);
    assert_eq!(shape(r#"{"jsonrpc":"2.0","id":0,"method":"m"}"#), Ok(Shape::Request));
    assert_eq!(shape(r#"{"jsonrpc":"2.0","method":"m"}"#), Ok(Shape::Notification));
    assert_eq!(shape(r#"{"jsonrpc":"2.0","method":"m","id":null,"params":null}"#), Ok(Shape::Notification));
    assert_eq!(shape(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#), Ok(Shape::Response));
    assert_eq!(shape(r#"{"jsonrpc":"2.0","id":null,"error":{"code":1}}"#), Ok(Shape::Response));
    assert_eq!(shape(r#"{"jsonrpc":"2.0","id":1,"method":"m","params":[1,{"name":2}]}"#), Ok(Shape::Request));
    let batch = r#" [ {"jsonrpc":"2.0","method":"m"} , {"jsonrpc":"2.0","id":2,"method":"n"} ] "#;
    assert_eq!(whole(batch).map(|seen| (seen.shape, seen.members, seen.method)), Ok((Shape::Batch, 2, None)));
    let each: Vec<_> = members(batch.as_bytes()).map(|member| member.unwrap()).collect();
    assert_eq!((each.len(), each[1].id, each[1].method.as_deref()), (2, Some("2"), Some("n")));
    assert_eq!(members(br#"{"jsonrpc":"2.0","method":"m"}"#).count(), 1);
}

#[test]
fn what_is_refused() {
    let cases: [(&str, Malformed); 27] = [
        ("", Malformed::Empty),
        (" \r\n\t", Malformed::Empty),
        ("[]", Malformed::Empty),
        ("[[]]", Malformed::NotAMessage),
        ("[1]", Malformed::NotAMessage),
        ("\"text\"", Malformed::NotAMessage),
        ("null ", Malformed::NotAMessage),
        ("<html>", Malformed::Json),
        ("{", Malformed::Json),
        ("{}", Malformed::NotAMessage),
        (r#"{"jsonrpc":"2.0","id":1}"#, Malformed::NotAMessage),
        (r#"{"jsonrpc":"1.0","id":1,"method":"m"}"#, Malformed::NotAMessage),
        (r#"{"id":1,"method":"m"}"#, Malformed::NotAMessage),
        (r#"{"jsonrpc":"2.0","id":true,"method":"m"}"#, Malformed::NotAMessage),
        (r#"{"jsonrpc":"2.0","id":1,"method":{}}"#, Malformed::NotAMessage),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":"p"}"#, Malformed::NotAMessage),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","result":{}}"#, Malformed::NotAMessage),
        (r#"{"jsonrpc":"2.0","method":"m"} x"#, Malformed::Json),
        (r#"{"jsonrpc":"2.0","method":"m"}{}"#, Malformed::Json),
        (r#"{"jsonrpc":"2.0","method":"m",}"#, Malformed::Json),
        (r#"{"jsonrpc":"2.0","method":"\ud800"}"#, Malformed::Json),
        (r#"{"jsonrpc":"2.0","method":"m","method":"m"}"#, Malformed::Duplicate("method")),
        (r#"{"jsonrpc":"2.0","method":"m","m\u0065thod":"m"}"#, Malformed::Duplicate("method")),
        (r#"{"jsonrpc":"2.0","method":"m","Method":"n"}"#, Malformed::Duplicate("method")),
        (
            r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"a","arguments":{},"name":"b"}}"#,
            Malformed::Duplicate("name"),
        ),
        (r#"{"jsonrpc":"2.0","method":"tools/call","params":{"taſkId":"","NAME":"b"}}"#, Malformed::Duplicate("name")),
        (r#"{"jsonrpc":"2.0","method":"m","paramſ":{}}"#, Malformed::Duplicate("params")),
    ];
    for (text, why) in cases {
        assert_eq!(whole(text).map(|seen| seen.shape), Err(why), "{text}");
    }
    assert_eq!(peek(b"{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"x\":\"\xff\"}", true), Err(Malformed::Json));
}

#[test]
fn what_passes_although_it_looks_strange() {
    for text in [
        r#"{"jsonrpc":"2.0","method":"m","extra":{"a":1,"a":2}}"#,
        r#"{"jsonrpc":"2.0","method":"m","params":{"text":"\ud83d"}}"#,
        r#"{"jsonrpc":"2.0","method":"custom","params":{"Name":"x","URI":"y"}}"#,
        r#"{"jsonrpc":"2.0","method":"m","params":{"n":1e999}}"#,
        r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":5,"_meta":[]}}"#,
    ] {
        assert!(whole(text).is_ok(), "{text}");
    }
}

#[test]
fn depth_has_a_bound_and_takes_no_stack() {
    let nested = |levels: usize| {
        format!(r#"{{"jsonrpc":"2.0","method":"m","params":{{"a":{}{}}}}}"#, "[".repeat(levels), "]".repeat(levels))
    };
    assert!(whole(&nested(126)).is_ok());
    assert_eq!(whole(&nested(127)), Err(Malformed::TooDeep));
    assert_eq!(whole(&nested(1_000_000)), Err(Malformed::TooDeep));
    assert_eq!(whole(&"[".repeat(1_000_000)), Err(Malformed::TooDeep));
}

#[test]
fn a_key_that_comes_again_behind_what_was_seen_is_refused() {
    let first =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"cheap","arguments":{"name":"x","t":""#;
    assert_eq!(peek(first.as_bytes(), false).unwrap().name.as_deref(), Some("cheap"));
    for (rest, refused) in [
        (r#""},"name":"dear"}}"#, Some("name")),
        (r#""}},"params":{"name":"dear"}}"#, Some("params")),
        (r#""},"Name":"dear"}}"#, Some("name")),
        (r#""}},"method":"tools/call"}"#, Some("method")),
        (r#"\"},"name":1,"","name":"dear"},"x":{"name":"dear"}},"y":{"params":{}}}"#, None),
    ] {
        let mut follow = Follow::new();
        assert_eq!(follow.feed(first.as_bytes()), Ok(()));
        let refused = refused.map_or(Ok(()), |key| Err(Malformed::Duplicate(key)));
        assert_eq!(follow.feed(rest.as_bytes()), refused, "{rest}");
    }
    assert_eq!(Follow::new().feed("[".repeat(1_000_000).as_bytes()), Err(Malformed::TooDeep));
    assert_eq!(Follow::new().feed("]".repeat(1_000_000).as_bytes()), Ok(()));
}

#[test]
fn a_part_shows_what_it_reaches() {
    let text =
        r#"{"method":"tools/call","params":{"name":"a","arguments":{"t":"xxxxxxxxxxxxx"}},"jsonrpc":"2.0","id":12}"#;
    let part = |length: usize| peek(&text.as_bytes()[..length], false).unwrap();
    assert_eq!((part(0).shape, part(0).method), (Shape::Request, None));
    assert_eq!(part(15).method, None);
    let most = part(60);
    assert_eq!((most.method.as_deref(), most.name.as_deref(), most.id), (Some("tools/call"), Some("a"), None));
    assert_eq!((most.shape, most.params), (Shape::Request, None));
    // A number that ends with the part may go on.
    let id = text.find("12").unwrap();
    assert_eq!((part(id + 1).id, part(id + 2).id, part(id + 3).id), (None, None, Some("12")));
    assert!(part(id).params.is_some());
    assert_eq!(peek(b"{\"method\":\"a\",,", false), Err(Malformed::Json));
    let batch = r#"[{"jsonrpc":"2.0","method":"m"},{"jsonrpc":"2.0","#;
    assert_eq!(peek(batch.as_bytes(), false).map(|seen| (seen.shape, seen.members)), Ok((Shape::Batch, 1)));
}

/// The same by way of serde_json; `None` where the text is no JSON or no object.
fn reference(bytes: &[u8]) -> Option<Value> {
    serde_json::from_slice::<Value>(bytes).ok().filter(Value::is_object)
}

fn raw_id(value: &Value) -> Option<Value> {
    (value.is_string() || value.is_number()).then(|| value.clone())
}

/// Holds what is seen in `bytes` against serde_json.
fn hold_against_serde(bytes: &[u8]) {
    let grammatical = serde_json::from_slice::<IgnoredAny>(bytes).is_ok() && std::str::from_utf8(bytes).is_ok();
    let seen = peek(bytes, true);
    match &seen {
        Ok(_) => assert!(grammatical, "accepted, but it is no JSON: {:?}", String::from_utf8_lossy(bytes)),
        Err(Malformed::Json) if grammatical => {
            // Only half a surrogate pair in a string that is read.
            let refused = serde_json::from_slice::<Value>(bytes);
            assert!(refused.is_err(), "refused, but it is JSON: {:?}", String::from_utf8_lossy(bytes));
        }
        Err(_) => {}
    }
    let (Ok(seen), Some(value)) = (seen, reference(bytes)) else { return };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let parsed = |raw: Option<&str>| raw.and_then(|raw| serde_json::from_str::<Value>(raw).ok());
    assert_eq!(seen.method.map(Cow::into_owned), text(&value["method"]));
    assert_eq!(parsed(seen.id), raw_id(&value["id"]));
    let params = &value["params"];
    assert_eq!(seen.request_state.map(Cow::into_owned), text(&params["requestState"]));
    assert_eq!(parsed(seen.progress_token), raw_id(&params["_meta"]["progressToken"]));
    let key = match value["method"].as_str().unwrap_or_default() {
        "tools/call" | "prompts/get" => "name",
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => "uri",
        method if method.starts_with("tasks/") => "taskId",
        _ => "nothing",
    };
    assert_eq!(seen.name.map(Cow::into_owned), text(&params[key]));
    if let Some(range) = seen.params {
        assert_eq!(serde_json::from_slice::<Value>(&bytes[range]).unwrap(), *params);
    } else {
        assert!(!params.is_object());
    }
}

#[test]
fn real_messages_are_seen_as_serde_sees_them() {
    for sample in samples::client() {
        let seen = whole(sample).unwrap_or_else(|why| panic!("{why}: {sample}"));
        assert!(seen.method.is_some() || seen.shape == Shape::Response, "{sample}");
        hold_against_serde(sample.as_bytes());
    }
}

#[test]
fn a_hundred_thousand_mutations_of_real_messages() {
    let mut random = fastrand::Rng::with_seed(4);
    let messages = samples::client();
    for round in 0..100_000 {
        let mut bytes = messages[round % messages.len()].as_bytes().to_vec();
        samples::mutate(&mut bytes, &mut random);
        hold_against_serde(&bytes);
        let _ = members(&bytes).count();
        let cut = random.usize(..=bytes.len());
        let part = peek(&bytes[..cut], false);
        let mut follow = Follow::new();
        let followed = follow.feed(&bytes[..cut]).and_then(|()| follow.feed(&bytes[cut..]));
        if peek(&bytes, true).is_ok() {
            assert_eq!(followed, Ok(()), "{:?}", String::from_utf8_lossy(&bytes));
            assert!(part.is_ok(), "a part of a right message is right: {:?}", String::from_utf8_lossy(&bytes[..cut]));
        }
    }
}

/// Any JSON value, with keys that are read among its keys.
fn any_json() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        prop::sample::select(vec!["jsonrpc", "method", "id", "params", "name", "_meta", "result", "a", "b"])
            .prop_map(str::to_owned),
        ".{0,12}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e300..1e300f64).prop_map(Value::from),
        ".{0,80}".prop_map(Value::from),
        "[ -~\\n\\t\"\\\\é]{0,300}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_is_gone_over_as_serde_does(value in any_json(), pretty in any::<bool>(), hits in prop::collection::vec((any::<u16>(), any::<u8>()), 0..3)) {
        let mut bytes = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.unwrap();
        hold_against_serde(&bytes);
        for (place, byte) in hits {
            let place = usize::from(place) % bytes.len();
            bytes[place] = byte;
            hold_against_serde(&bytes);
        }
    }

    #[test]
    fn any_value_passes_inside_a_message(value in any_json(), method in ".{0,20}") {
        let text = json!({ "params": { "arguments": value }, "id": 1, "jsonrpc": "2.0", "method": method }).to_string();
        let seen = peek(text.as_bytes(), true);
        prop_assert!(seen.is_ok(), "{:?}: {}", seen, text);
        hold_against_serde(text.as_bytes());
    }

    #[test]
    fn who_follows_a_body_refuses_the_duplicates_that_who_sees_it_whole_refuses(
        text in message_with_any_keys(), batch in any::<bool>(), cuts in prop::collection::vec(any::<usize>(), 0..8)
    ) {
        let text = if batch { format!("[{text},{text}]") } else { text };
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % text.len()).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let mut follow = Follow::new();
        let followed = cuts.windows(2).try_for_each(|pair| follow.feed(&text.as_bytes()[pair[0]..pair[1]]));
        match whole(&text) {
            Ok(_) => prop_assert_eq!(followed, Ok(()), "{}", text),
            Err(Malformed::Duplicate(_)) => prop_assert!(matches!(followed, Err(Malformed::Duplicate(_))), "{}", text),
            Err(why) => prop_assert!(false, "{}: {}", why, text),
        }
    }
}

/// An object as text with these members, in this order and as often.
fn object(members: &[(String, String)]) -> String {
    let members: Vec<String> = members.iter().map(|(key, value)| format!("\"{key}\" : {value}")).collect();
    format!("{{{}}}", members.join(","))
}

/// Right messages but for keys that are there twice or look like others, some of them escaped, at all levels and in any order.
fn message_with_any_keys() -> impl Strategy<Value = String> {
    let members = |keys: Vec<&'static str>, value: BoxedStrategy<String>| {
        let key = prop::sample::select(keys).prop_map(str::to_owned);
        prop::collection::vec((key, value), 0..4)
    };
    let leaf = prop::sample::select(vec!["1", "\"a\\\"{\"", "{\"name\":1,\"name\":2}", "[{\"id\":1},[\",\"]]", "[]"])
        .prop_map(str::to_owned)
        .boxed();
    let meta = members(vec!["progressToken", "progresstoken", "x", "y", "name"], leaf.clone())
        .prop_map(|meta| object(&meta))
        .boxed();
    let inner = members(vec!["name", "n\\u0061me", "Name", "uri", "x", "method", "_Meta"], leaf.clone());
    let params = (inner, prop::option::of(meta), any::<bool>()).prop_map(|(mut members, meta, again)| {
        members.extend(meta.into_iter().flat_map(|meta| vec![("_meta".to_owned(), meta); 1 + usize::from(again)]));
        object(&members)
    });
    let outer = members(vec!["x", "ID", "name", "_meta", "y"], leaf);
    let method = prop::sample::select(vec!["tools/call", "resources\\/read", "other"]);
    (outer, method, params, prop::option::of(0usize..4), any::<prop::sample::Index>()).prop_map(
        |(mut members, method, params, again, turn)| {
            let right = [
                ("jsonrpc", "\"2.0\"".to_owned()),
                ("method", format!("\"{method}\"")),
                ("id", "1".to_owned()),
                ("params", params),
            ];
            let right = right.map(|(key, value)| (key.to_owned(), value));
            members.extend(again.map(|again| right[again].clone()));
            members.extend(right);
            let by = turn.index(members.len());
            members.rotate_left(by);
            object(&members)
        },
    )
}
