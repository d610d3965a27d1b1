//! What the API server keeps: objects with versions, their history, who may do what, and what is to go wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::controller;

/// `("pods", "shop", "app-1")`.
pub type Key = (String, String, String);

/// A verb on a resource of an API group, as a Role has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    pub verb: String,
    pub group: String,
    pub resource: String,
}

/// A rule of a Role.
#[derive(Debug, Clone)]
pub struct Rule {
    pub verbs: Vec<String>,
    pub groups: Vec<String>,
    pub resources: Vec<String>,
    /// All, where there are none.
    pub names: Vec<String>,
}

impl Rule {
    /// Verb, group and resource.
    pub fn rights(&self) -> impl Iterator<Item = (String, String, String)> + '_ {
        let of = move |verb: &'_ String| {
            let pairs =
                self.groups.iter().flat_map(|group| self.resources.iter().map(move |resource| (group, resource)));
            let verb = verb.clone();
            pairs.map(move |(group, resource)| (verb.clone(), group.clone(), resource.clone())).collect::<Vec<_>>()
        };
        self.verbs.iter().flat_map(of)
    }

    fn allows(&self, right: &Right, name: &str) -> bool {
        let named = self.names.is_empty() || self.names.iter().any(|allowed| allowed == name);
        named
            && self.verbs.contains(&right.verb)
            && self.groups.contains(&right.group)
            && self.resources.contains(&right.resource)
    }
}

pub fn right(verb: &str, group: &str, resource: &str) -> Right {
    Right { verb: verb.to_owned(), group: group.to_owned(), resource: resource.to_owned() }
}

/// Something that happened to an object.
#[derive(Debug, Clone)]
pub struct Happened {
    pub version: u64,
    pub kind: &'static str,
    pub key: Key,
    pub object: Value,
}

#[derive(Debug, Default)]
pub struct State {
    pub version: u64,
    pub objects: BTreeMap<Key, Value>,
    pub history: Vec<Happened>,
    /// Older versions cannot be watched from any more.
    pub compacted: u64,
    /// Whether "too old" comes as an event of the stream, or instead of the stream: both exist.
    pub gone_as_event: bool,
    /// Bookmarks wanted so far: each watch sends as many.
    pub bookmarks: u64,
    /// What is allowed; everything where there is no such list.
    pub allowed: Option<Vec<Rule>>,
    pub denied: BTreeSet<Right>,
    /// So much was refused.
    pub refused: usize,
    /// Never answered while it is in here.
    pub stuck: BTreeSet<Right>,
    /// What was asked for, in order.
    pub asked: Vec<Right>,
    /// Watches that were begun.
    pub watches: usize,
    /// `(resource, name, fieldManager)` of what was written by others than the controllers.
    pub written: Vec<(String, String, Option<String>)>,
    /// The only token that is known; any, where there is none.
    pub token: Option<String>,
    /// The number of pods that a quota allows.
    pub quota: Option<usize>,
    /// New pods stay pending.
    pub slow_pods: bool,
    /// Deleted pods stay for a while.
    pub lingering: bool,
    /// Whether KEDA's kinds are known.
    pub keda: bool,
    /// After so many reads of a scale subresource something else in the workload changes.
    pub touched_after_get: u32,
    /// … and the number too, to this.
    pub interfering: Option<i64>,
    /// Answered instead of what was asked.
    pub failing: Option<u16>,
    pub made: u64,
}

/// Shared by all doors of the cluster.
#[derive(Debug)]
pub struct World {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

impl World {
    pub fn new() -> Self {
        World { state: Mutex::new(State { version: 1000, ..State::default() }), changed: watch::channel(0).0 }
    }

    pub fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    /// Changes something, lets the controllers act on it, and wakes the watches.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let answer = change(&mut state);
        controller::reconcile(&mut state);
        drop(state);
        self.changed.send_modify(|count| *count += 1);
        answer
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a test has panicked")
    }
}

pub fn key(resource: &str, namespace: &str, name: &str) -> Key {
    (resource.to_owned(), namespace.to_owned(), name.to_owned())
}

impl State {
    /// Puts an object there, whatever was there before.
    pub fn put(&mut self, key: &Key, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["name"] = json!(key.2);
        object["metadata"]["namespace"] = json!(key.1);
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{}", self.version));
            object["metadata"]["creationTimestamp"] = json!("2026-11-26T10:00:00Z");
        }
        let before = self.objects.insert(key.clone(), object.clone());
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        self.history.push(Happened { version: self.version, kind, key: key.clone(), object: object.clone() });
        object
    }

    pub fn remove(&mut self, key: &Key) {
        if let Some(mut object) = self.objects.remove(key) {
            self.version += 1;
            object["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.history.push(Happened { version: self.version, kind: "DELETED", key: key.clone(), object });
        }
    }

    /// Changes an object that is there.
    pub fn edit(&mut self, key: &Key, edit: impl FnOnce(&mut Value)) {
        let mut object = self.objects.get(key).unwrap_or_else(|| panic!("there is no {key:?}")).clone();
        let before = object.clone();
        edit(&mut object);
        if object != before {
            self.put(key, object);
        }
    }

    pub fn of(&self, resource: &str, namespace: &str) -> Vec<(&Key, &Value)> {
        self.objects
            .iter()
            .filter(|(key, _)| key.0 == resource && (namespace.is_empty() || key.1 == namespace))
            .collect()
    }

    /// The answer to somebody who asks for something else to be done than may be.
    pub fn refusal(&mut self, right: &Right, namespace: &str, name: &str, token: Option<&str>) -> Option<(u16, Value)> {
        if self.token.as_deref().is_some_and(|known| token != Some(known)) {
            return Some(status(401, "Unauthorized", "Unauthorized"));
        }
        if let Some(code) = self.failing {
            return Some(status(code, "ServiceUnavailable", "the server is currently unable to handle the request"));
        }
        let allowed = self.allowed.as_ref().is_none_or(|rules| rules.iter().any(|rule| rule.allows(right, name)))
            && !self.denied.contains(right);
        if allowed {
            return None;
        }
        self.refused += 1;
        let Right { verb, group, resource } = right;
        let plural = resource.split('/').next().unwrap_or(resource);
        let of = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
        let named = if name.is_empty() { String::new() } else { format!(" \"{name}\"") };
        let place = if namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace \"{namespace}\"")
        };
        let text = format!(
            "{of}{named} is forbidden: User \"system:serviceaccount:shop:tidegate\" cannot {verb} resource \"{resource}\" in API group \"{group}\" {place}"
        );
        Some(status(403, "Forbidden", &text))
    }
}

pub fn status(code: u16, reason: &str, message: &str) -> (u16, Value) {
    let body = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code });
    (code, body)
}

/// `app=web,tier=front`.
pub fn labels_match(selector: &str, object: &Value) -> bool {
    let parts = selector.split(',').filter(|part| !part.is_empty());
    parts
        .map(|part| part.split_once('=').expect("an equality"))
        .all(|(label, value)| object["metadata"]["labels"][label] == value)
}

/// `involvedObject.name=db,reason=FailedCreate`.
pub fn fields_match(selector: &str, object: &Value) -> bool {
    let parts = selector.split(',').filter(|part| !part.is_empty());
    let mut parts = parts.map(|part| part.split_once('=').expect("an equality"));
    parts.all(|(field, value)| {
        object.pointer(&format!("/{}", field.replace('.', "/"))).is_some_and(|found| found == value)
    })
}

/// RFC 7386.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let target = target.as_object_mut().expect("an object");
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}
