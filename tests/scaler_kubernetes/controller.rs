//! Deployments and StatefulSets as their controllers see them: which pods are made, and which go first.

use serde_json::{Value, json};

use super::world::{Key, State, key, labels_match};

const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// What the pods' port is called and is.
pub const PORT: u16 = 8080;

/// Makes everything as it is to be, and says how it is.
pub fn reconcile(state: &mut State) {
    let kinds = ["deployments", "statefulsets"];
    let workloads: Vec<Key> = state.objects.keys().filter(|key| kinds.contains(&key.0.as_str())).cloned().collect();
    for workload in workloads {
        // A StatefulSet makes one pod after the other.
        while step(state, &workload) {}
        tell(state, &workload);
    }
}

pub fn selector(workload: &Value) -> String {
    let labels = workload["spec"]["selector"]["matchLabels"].as_object().expect("labels");
    let pairs: Vec<String> =
        labels.iter().map(|(name, value)| format!("{name}={}", value.as_str().expect("text"))).collect();
    pairs.join(",")
}

/// Pods that count: not over and not being deleted.
fn active<'a>(state: &'a State, workload: &Value, namespace: &str) -> Vec<(&'a Key, &'a Value)> {
    let selector = selector(workload);
    let pods = state.of("pods", namespace).into_iter().filter(|(_, pod)| labels_match(&selector, pod));
    let over = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"));
    pods.filter(|(_, pod)| pod["metadata"]["deletionTimestamp"].is_null() && !over(pod)).collect()
}

pub fn is_ready(pod: &Value) -> bool {
    pod["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// One pod less, or as many more as may be made at once; whether there was anything to do.
fn step(state: &mut State, at: &Key) -> bool {
    let workload = &state.objects[at];
    let by_ordinal = at.0 == "statefulsets";
    let wanted = workload["spec"]["replicas"].as_u64().unwrap_or(1) as usize;
    let mut pods = active(state, workload, &at.1);
    if pods.len() > wanted {
        rank(&mut pods, by_ordinal);
        let first = pods[0].0.clone();
        delete(state, &first);
        return true;
    }
    let waits = by_ordinal && !pods.iter().all(|(_, pod)| is_ready(pod));
    if pods.len() == wanted || waits {
        return false;
    }
    let missing = if by_ordinal { 1 } else { wanted - pods.len() };
    let is_free = |ordinal: &usize| !pods.iter().any(|(key, _)| key.2 == format!("{}-{ordinal}", at.2));
    let ordinal = (0..).find(is_free).expect("a number");
    let labels = workload["spec"]["selector"]["matchLabels"].clone();
    for used in (state.of("pods", &at.1).len()..).take(missing) {
        if let Some(limit) = state.quota.filter(|limit| used >= *limit) {
            fail(state, at, used, limit);
            return false;
        }
        make(state, at, labels.clone(), ordinal);
    }
    true
}

/// First to go first, as `kubernetes/pkg/controller/controller_utils.go` (ActivePodsWithRanks) and the StatefulSet's controller have it.
fn rank(pods: &mut [(&Key, &Value)], by_ordinal: bool) {
    let ordinal = |key: &Key| key.2.rsplit('-').next().and_then(|ordinal| ordinal.parse::<i64>().ok()).unwrap_or(0);
    let cost = |pod: &Value| {
        pod["metadata"]["annotations"][COST].as_str().and_then(|cost| cost.parse::<i64>().ok()).unwrap_or(0)
    };
    let placed = |pod: &Value| !pod["spec"]["nodeName"].is_null();
    let runs = |pod: &Value| pod["status"]["phase"] == "Running";
    if by_ordinal {
        pods.sort_by_key(|(key, _)| -ordinal(key));
    } else {
        pods.sort_by_key(|(key, pod)| (placed(pod), runs(pod), is_ready(pod), cost(pod), key.2.clone()));
    }
}

fn delete(state: &mut State, pod: &Key) {
    state.edit(pod, |pod| pod["metadata"]["deletionTimestamp"] = json!("2026-11-26T11:00:00Z"));
    if !state.lingering {
        state.remove(pod);
    }
}

fn fail(state: &mut State, at: &Key, used: usize, limit: usize) {
    let quota =
        format!("is forbidden: exceeded quota: small, requested: pods=1, used: pods={used}, limited: pods={limit}");
    let message = format!("pods \"{}-x\" {quota}", at.2);
    if at.0 == "deployments" {
        let condition =
            json!([{ "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message }]);
        state.edit(at, |workload| workload["status"]["conditions"] = condition);
        return;
    }
    let event = key("events", &at.1, &format!("{}.failed", at.2));
    if !state.objects.contains_key(&event) {
        let object = json!({
            "kind": "Event", "apiVersion": "v1", "reason": "FailedCreate", "message": message, "lastTimestamp": "2026-11-26T10:30:00Z",
            "involvedObject": { "kind": "StatefulSet", "name": at.2, "namespace": at.1 },
        });
        state.put(&event, object);
    }
}

fn make(state: &mut State, at: &Key, mut labels: Value, ordinal: usize) {
    state.made += 1;
    let (name, hash) = if at.0 == "deployments" {
        (format!("{}-5f-{}", at.2, state.made), "pod-template-hash")
    } else {
        (format!("{}-{ordinal}", at.2), "controller-revision-hash")
    };
    labels[hash] = json!("5f");
    let pod = json!({
        "metadata": { "labels": labels },
        "spec": { "containers": [{ "name": "app", "ports": [{ "name": "http", "containerPort": PORT }] }] },
        "status": { "phase": "Pending" },
    });
    let pod_key = key("pods", &at.1, &name);
    state.put(&pod_key, pod);
    if !state.slow_pods {
        become_ready(state, &pod_key);
    }
}

/// Gives a pod a node and an address, and lets it pass its probes.
pub fn become_ready(state: &mut State, pod: &Key) {
    let number = state.version % 60_000;
    state.edit(pod, |pod| {
        pod["spec"]["nodeName"] = json!("node-1");
        pod["status"] = json!({
            "phase": "Running", "podIP": format!("10.1.{}.{}", number / 250, number % 250 + 1), "startTime": "2026-11-26T10:00:02Z",
            "conditions": [{ "type": "PodScheduled", "status": "True" }, { "type": "Ready", "status": "True" }],
        });
    });
}

/// The workload's status; each change of it is a new version of the workload.
fn tell(state: &mut State, at: &Key) {
    let workload = &state.objects[at];
    let pods = active(state, workload, &at.1);
    let wanted = workload["spec"]["replicas"].as_u64().unwrap_or(1) as usize;
    let (count, ready) = (pods.len(), pods.iter().filter(|(_, pod)| is_ready(pod)).count());
    state.edit(at, |workload| {
        workload["status"]["replicas"] = json!(count);
        workload["status"]["readyReplicas"] = json!(ready);
        if count == wanted {
            workload["status"].as_object_mut().expect("a status").remove("conditions");
        }
    });
}
