//! What the API server answers.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::controller::selector;
use super::world::{Key, Right, State, World, fields_match, key, labels_match, merge, right, status};

/// A request, understood.
#[derive(Debug)]
pub struct Call {
    pub right: Right,
    key: Key,
    subresource: String,
    query: BTreeMap<String, String>,
    token: Option<String>,
    metadata_only: bool,
    body: Value,
}

pub enum Answer {
    Object(u16, Value),
    Text(u16, &'static str),
    Watch(Watch),
}

/// A watch, as far as it has come.
pub struct Watch {
    resource: String,
    namespace: String,
    selector: String,
    bookmarks: Option<u64>,
    version: u64,
    pub time: Duration,
    pub over: bool,
}

impl Call {
    pub fn read(parts: &http::request::Parts, body: &[u8]) -> Self {
        let path: Vec<&str> = parts.uri.path().trim_start_matches('/').split('/').collect();
        let (group, rest) = match path.as_slice() {
            ["api", "v1", rest @ ..] => ("", rest),
            ["apis", group, _version, rest @ ..] => (*group, rest),
            other => panic!("nobody should ask for {other:?}"),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let (resource, name, subresource) = match rest {
            [resource] => (*resource, "", ""),
            [resource, name] => (*resource, *name, ""),
            [resource, name, subresource] => (*resource, *name, *subresource),
            other => panic!("nobody should ask for {other:?}"),
        };
        let query = pairs(parts.uri.query().unwrap_or_default());
        let watches = query.get("watch").is_some_and(|watch| watch == "true" || watch == "1");
        let verb = match (parts.method.as_str(), name.is_empty()) {
            ("GET", true) if watches => "watch",
            ("GET", true) => "list",
            ("GET", false) => "get",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            other => panic!("nobody should ask for {other:?}"),
        };
        let asked = if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") };
        let header = |name| {
            parts.headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok()).unwrap_or_default()
        };
        Call {
            right: right(verb, group, &asked),
            key: key(resource, namespace, name),
            subresource: subresource.to_owned(),
            query,
            token: header("authorization").strip_prefix("Bearer ").map(str::to_owned),
            metadata_only: header("accept").contains("PartialObjectMetadata"),
            body: serde_json::from_slice(body).unwrap_or(Value::Null),
        }
    }

    fn query(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }
}

fn pairs(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let plain = |text: &str| {
        let text = text.replace('+', " ");
        percent_encoding::percent_decode_str(&text).decode_utf8().expect("UTF-8").into_owned()
    };
    pairs.map(|(name, value)| (plain(name), plain(value))).collect()
}

pub fn answer(world: &World, call: &Call) -> Answer {
    let Call { right, key, token, .. } = call;
    if let Some((code, body)) = world.change(|state| state.refusal(right, &key.1, &key.2, token.as_deref())) {
        return Answer::Object(code, body);
    }
    if key.0 == "scaledobjects" && !world.look(|state| state.keda) {
        return Answer::Text(404, "404 page not found\n");
    }
    let (code, mut body) = match right.verb.as_str() {
        "list" => world.look(|state| list(state, call)),
        "watch" => return world.look(|state| watch(state, call)),
        "get" if call.subresource == "scale" => world.change(|state| get_scale(state, call)),
        "get" => world.look(|state| get(state, key)),
        "create" => world.change(|state| create(state, call)),
        _ if call.subresource == "scale" => world.change(|state| write_scale(state, call)),
        _ => world.change(|state| write(state, call)),
    };
    if call.metadata_only && code < 300 {
        body = json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": body["metadata"] });
    }
    Answer::Object(code, body)
}

fn not_found(key: &Key) -> (u16, Value) {
    status(404, "NotFound", &format!("{} \"{}\" not found", key.0, key.2))
}

fn conflict(key: &Key) -> (u16, Value) {
    let text = "the object has been modified; please apply your changes to the latest version and try again";
    status(409, "Conflict", &format!("Operation cannot be fulfilled on {} \"{}\": {text}", key.0, key.2))
}

fn get(state: &State, key: &Key) -> (u16, Value) {
    state.objects.get(key).map_or_else(|| not_found(key), |object| (200, object.clone()))
}

fn list(state: &State, call: &Call) -> (u16, Value) {
    let all = state.of(&call.key.0, &call.key.1).into_iter().map(|(_, object)| object);
    let all: Vec<&Value> = all
        .filter(|object| {
            labels_match(call.query("labelSelector"), object) && fields_match(call.query("fieldSelector"), object)
        })
        .collect();
    let from: usize = call.query("continue").parse().unwrap_or(0);
    let limit: usize = call.query("limit").parse().unwrap_or(usize::MAX);
    let page: Vec<&Value> = all.iter().skip(from).take(limit).copied().collect();
    let next = if from + page.len() < all.len() { (from + page.len()).to_string() } else { String::new() };
    let metadata = json!({ "resourceVersion": state.version.to_string(), "continue": next });
    (200, json!({ "kind": "List", "apiVersion": "v1", "metadata": metadata, "items": page }))
}

fn watch(state: &State, call: &Call) -> Answer {
    let version: u64 = call.query("resourceVersion").parse().expect("a version to go on from");
    if version < state.compacted && !state.gone_as_event {
        let (code, body) = too_old(version, state.compacted);
        return Answer::Object(code, body);
    }
    Answer::Watch(Watch {
        resource: call.key.0.clone(),
        namespace: call.key.1.clone(),
        selector: call.query("labelSelector").to_owned(),
        bookmarks: (call.query("allowWatchBookmarks") == "true").then_some(state.bookmarks),
        version,
        time: Duration::from_secs(call.query("timeoutSeconds").parse().unwrap_or(1800)),
        over: false,
    })
}

fn too_old(version: u64, oldest: u64) -> (u16, Value) {
    status(410, "Expired", &format!("too old resource version: {version} ({oldest})"))
}

impl Watch {
    /// The lines that there are to send now; none if there is nothing to say.
    pub fn next(&mut self, state: &State) -> Option<String> {
        if self.over {
            return None;
        }
        if self.version < state.compacted {
            self.over = true;
            let (_, body) = too_old(self.version, state.compacted);
            return Some(format!("{}\n", json!({ "type": "ERROR", "object": body })));
        }
        let mut lines = String::new();
        let news = state.history.iter().filter(|event| event.version > self.version);
        for event in news.filter(|event| event.key.0 == self.resource && event.key.1 == self.namespace) {
            if labels_match(&self.selector, &event.object) {
                lines += &format!("{}\n", json!({ "type": event.kind, "object": event.object }));
            }
        }
        self.version = self.version.max(state.version);
        if self.bookmarks.is_some_and(|sent| sent < state.bookmarks) {
            self.bookmarks = Some(state.bookmarks);
            let mark = json!({ "kind": "Pod", "apiVersion": "v1", "metadata": { "resourceVersion": self.version.to_string(), "creationTimestamp": null } });
            lines += &format!("{}\n", json!({ "type": "BOOKMARK", "object": mark }));
        }
        (!lines.is_empty()).then_some(lines)
    }
}

fn note(state: &mut State, call: &Call) {
    let manager = call.query.get("fieldManager").cloned();
    state.written.push((call.right.resource.clone(), call.key.2.clone(), manager));
}

fn create(state: &mut State, call: &Call) -> (u16, Value) {
    let name = call.body["metadata"]["name"].as_str().expect("a name");
    let key = key(&call.key.0, &call.key.1, name);
    if state.objects.contains_key(&key) {
        return status(409, "AlreadyExists", &format!("{} \"{name}\" already exists", key.0));
    }
    note(state, call);
    (201, state.put(&key, call.body.clone()))
}

fn write(state: &mut State, call: &Call) -> (u16, Value) {
    let key = &call.key;
    let Some(before) = state.objects.get(key).cloned() else { return not_found(key) };
    let expected = &call.body["metadata"]["resourceVersion"];
    if call.right.verb == "update" && expected.is_null() {
        return status(422, "Invalid", "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update");
    }
    if !expected.is_null() && *expected != before["metadata"]["resourceVersion"] {
        return conflict(key);
    }
    let mut after = before;
    if call.right.verb == "patch" {
        merge(&mut after, &call.body);
    } else {
        after = call.body.clone();
    }
    note(state, call);
    (200, state.put(key, after))
}

fn scale_of(workload: &Value) -> Value {
    let metadata = &workload["metadata"];
    let replicas = workload["spec"]["replicas"].as_u64().unwrap_or(1);
    // Go leaves zeros out.
    let spec = if replicas == 0 { json!({}) } else { json!({ "replicas": replicas }) };
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "spec": spec,
        "metadata": { "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"] },
        "status": { "replicas": workload["status"]["replicas"].as_u64().unwrap_or(0), "selector": selector(workload) },
    })
}

fn get_scale(state: &mut State, call: &Call) -> (u16, Value) {
    let Some(workload) = state.objects.get(&call.key).cloned() else { return not_found(&call.key) };
    if state.touched_after_get > 0 {
        state.touched_after_get -= 1;
        let (count, interfering) = (state.touched_after_get, state.interfering);
        state.edit(&call.key, |workload| {
            workload["status"]["observedGeneration"] = json!(count);
            if let Some(replicas) = interfering {
                workload["spec"]["replicas"] = json!(replicas);
            }
        });
    }
    (200, scale_of(&workload))
}

fn write_scale(state: &mut State, call: &Call) -> (u16, Value) {
    let Some(workload) = state.objects.get(&call.key) else { return not_found(&call.key) };
    let expected = &call.body["metadata"]["resourceVersion"];
    if !expected.is_null() && *expected != workload["metadata"]["resourceVersion"] {
        return conflict(&call.key);
    }
    let replicas = call.body["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        return status(422, "Invalid", "spec.replicas: Invalid value: must be greater than or equal to 0");
    }
    note(state, call);
    state.edit(&call.key, |workload| workload["spec"]["replicas"] = json!(replicas));
    (200, scale_of(&state.objects[&call.key]))
}
