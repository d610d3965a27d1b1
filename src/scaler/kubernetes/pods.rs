//! What a pod is doing, in the scaler's words. Pure.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::target::Port;
use super::{Found, Life};
use crate::types::Address;

/// Which pods a ReplicaSet removes first: the ones with the least of these.
pub(super) const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const ZONE: &str = "topology.kubernetes.io/zone";

/// A pod, as much of it as anybody here wants to know.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    pub(super) found: Found,
    /// The node it has been given to.
    pub(super) node: Option<String>,
    /// What its annotation says about being removed first.
    pub(super) deletion_cost: Option<String>,
    /// Whether the workload's controller counts it: also a crash loop is an attempt to run.
    pub(super) active: bool,
}

pub(super) fn look(pod: &Pod, port: &Port) -> Seen {
    let metadata = &pod.metadata;
    let status = pod.status.clone().unwrap_or_default();
    let label = |name: &str| metadata.labels.as_ref().and_then(|labels| labels.get(name)).cloned();
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let (life, words) = life(pod, &status);
    let detail = match (&node, words) {
        (Some(node), Some(words)) => format!("on node {node}; {words}"),
        (Some(node), None) => format!("on node {node}"),
        (None, Some(words)) => words,
        (None, None) => "not on a node yet".to_owned(),
    };
    let found = Found {
        id: metadata.name.clone().unwrap_or_default(),
        address: address(pod, &status, port),
        life,
        spec: label("pod-template-hash").or_else(|| label("controller-revision-hash")),
        started: status.start_time.as_ref().or(metadata.creation_timestamp.as_ref()).map(seconds),
        generation: 0,
        detail,
        zone: label(ZONE),
    };
    let deletion_cost = metadata.annotations.as_ref().and_then(|all| all.get(DELETION_COST)).cloned();
    let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    Seen { found, node, deletion_cost, active: !over && metadata.deletion_timestamp.is_none() }
}

fn seconds(time: &Time) -> f64 {
    time.0.as_millisecond() as f64 / 1e3
}

fn address(pod: &Pod, status: &PodStatus, port: &Port) -> Option<Address> {
    let ip: IpAddr = status.pod_ip.as_deref()?.parse().ok()?;
    let port = match port {
        Port::Number(number) => *number,
        Port::Name(name) => named_port(pod, name)?,
    };
    Some(Address::Ip(SocketAddr::new(ip, port)))
}

fn named_port(pod: &Pod, name: &str) -> Option<u16> {
    let spec = pod.spec.as_ref()?;
    // Init containers can be sidecars that go on running.
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    let port = ports.find(|port| port.name.as_deref() == Some(name))?;
    u16::try_from(port.container_port).ok()
}

/// The life and, for people, why.
fn life(pod: &Pod, status: &PodStatus) -> (Life, Option<String>) {
    let asked = pod.metadata.deletion_timestamp.is_some();
    let phase = status.phase.as_deref().unwrap_or("Pending");
    if matches!(phase, "Succeeded" | "Failed") {
        let how = how_it_ended(status, phase);
        return (Life::Ended { how: how.clone(), asked }, Some(how));
    }
    if asked {
        return (Life::Stopping, None);
    }
    let containers = || status.container_statuses.iter().flatten();
    // The kubelet starts it again, and the controller goes on counting it: it has not ended, it is still being made.
    if let Some(how) = containers().chain(status.init_container_statuses.iter().flatten()).find_map(broken) {
        return (Life::Pending, Some(how));
    }
    if phase == "Unknown" {
        return (Life::Pending, Some("its node is not heard of".to_owned()));
    }
    match condition(status, "Ready") {
        Some(("True", _, _)) => (Life::Running, containers().find_map(restarted)),
        ready => (Life::Pending, Some(why_not_ready(status, ready))),
    }
}

type Condition<'a> = (&'a str, Option<&'a str>, Option<&'a str>);

/// Status, reason and message of a condition.
fn condition<'a>(status: &'a PodStatus, name: &str) -> Option<Condition<'a>> {
    let found = status.conditions.iter().flatten().find(|condition| condition.type_ == name)?;
    Some((found.status.as_str(), found.reason.as_deref(), found.message.as_deref()))
}

fn why_not_ready(status: &PodStatus, ready: Option<Condition<'_>>) -> String {
    if let Some(("False", reason, message)) = condition(status, "PodScheduled") {
        let reason = if reason == Some("Unschedulable") { "unschedulable" } else { reason.unwrap_or("not scheduled") };
        return message.map_or(reason.to_owned(), |message| format!("{reason}: {message}"));
    }
    let all = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let waiting = all.filter_map(|container| Some((container, container.state.as_ref()?.waiting.as_ref()?)));
    // "PodInitializing" and "ContainerCreating" only say that it takes its time; anything else is the reason.
    let mut reasons = waiting.filter_map(|(container, waiting)| Some((container, waiting.reason.as_deref()?, waiting)));
    let telling = reasons.find(|(_, reason, _)| !matches!(*reason, "PodInitializing" | "ContainerCreating"));
    if let Some((container, reason, waiting)) = telling {
        let message = waiting.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
        return format!("container {} waits: {reason}{message}", container.name);
    }
    match ready {
        Some((_, _, Some(message))) => format!("not ready: {message}"),
        Some((_, Some(reason), None)) => format!("not ready: {reason}"),
        _ => "not ready".to_owned(),
    }
}

fn how_it_ended(status: &PodStatus, phase: &str) -> String {
    let containers = status.container_statuses.iter().flatten();
    let mut ends = containers.filter_map(|container| container.state.as_ref()?.terminated.as_ref());
    // Evicted, NodeLost, Shutdown … are said of the whole pod.
    let whole = status.reason.as_ref().map(|reason| match &status.message {
        Some(message) => format!("{reason}: {message}"),
        None => reason.clone(),
    });
    whole
        .or_else(|| ends.clone().find(|end| end.exit_code != 0).or_else(|| ends.next()).map(ended))
        .unwrap_or_else(|| phase.to_ascii_lowercase())
}

/// How a container ended that is to run and does not.
fn broken(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref()?;
    let last = container.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    let (name, restarts) = (&container.name, container.restart_count);
    if state.waiting.as_ref().is_some_and(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff")) {
        let how = last.map_or("it ends again and again".to_owned(), ended);
        return Some(format!("crash loop: container {name}: {how}, restarted {restarts} times"));
    }
    // An init container that has done its work has ended too.
    let end =
        state.terminated.as_ref().filter(|end| end.exit_code != 0 || end.signal.is_some_and(|signal| signal != 0))?;
    Some(format!("container {name}: {}", ended(end)))
}

fn restarted(container: &ContainerStatus) -> Option<String> {
    let last = container.last_state.as_ref()?.terminated.as_ref()?;
    Some(format!("container {} was restarted {} times, last: {}", container.name, container.restart_count, ended(last)))
}

fn ended(end: &ContainerStateTerminated) -> String {
    match (end.reason.as_deref(), end.signal) {
        (Some("OOMKilled"), _) => "out of memory".to_owned(),
        (_, Some(signal)) if signal != 0 => format!("signal {signal}"),
        // What a shell and container runtimes make of a signal.
        (_, _) if end.exit_code == 137 => "exit code 137 (SIGKILL)".to_owned(),
        (_, _) if end.exit_code == 143 => "exit code 143 (SIGTERM)".to_owned(),
        (Some(reason), _) if !matches!(reason, "Error" | "Completed") => {
            format!("{reason}, exit code {}", end.exit_code)
        }
        _ => format!("exit code {}", end.exit_code),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn seen(mut status: Value, metadata: Value, port: &str) -> Seen {
        let mut whole = json!({
            "metadata": { "name": "app-5f-x1", "labels": { "pod-template-hash": "5f" }, "creationTimestamp": "2026-11-26T10:00:00Z" },
            "spec": { "nodeName": "n1", "containers": [
                { "name": "side", "ports": [{ "name": "metrics", "containerPort": 9000 }] },
                { "name": "app", "ports": [{ "name": "http", "containerPort": 8080 }] },
            ] },
        });
        if status["podIP"].is_null() {
            status["podIP"] = json!("10.1.0.7");
        }
        whole["status"] = status;
        for (key, value) in metadata.as_object().unwrap() {
            whole["metadata"][key] = value.clone();
        }
        look(&serde_json::from_value(whole).unwrap(), &port.parse().unwrap())
    }

    fn life(status: Value) -> (Life, String) {
        let seen = seen(status, json!({}), "8080");
        (seen.found.life, seen.found.detail)
    }

    fn ready(status: &str) -> Value {
        json!([{ "type": "PodScheduled", "status": "True" }, { "type": "Ready", "status": status, "message": "containers with unready status: [app]" }])
    }

    fn container(state: Value, last: Value) -> Value {
        json!([{ "name": "app", "image": "", "imageID": "", "ready": false, "restartCount": 4, "state": state, "lastState": last }])
    }

    #[test]
    fn a_ready_pod_runs_and_is_found_at_its_port() {
        let status = json!({ "phase": "Running", "conditions": ready("True"), "startTime": "2026-11-26T10:00:02Z" });
        let pod = seen(status.clone(), json!({}), "http");
        assert_eq!(pod.found.life, Life::Running);
        assert_eq!(pod.found.address.unwrap().to_string(), "10.1.0.7:8080");
        assert_eq!((pod.found.spec.as_deref(), pod.found.detail.as_str()), (Some("5f"), "on node n1"));
        assert_eq!(pod.found.started, Some(1_795_687_202.0));
        assert_eq!(seen(status.clone(), json!({}), "grpc").found.address, None, "no such port");
        let zoned = seen(
            status,
            json!({ "labels": { "controller-revision-hash": "r2", "topology.kubernetes.io/zone": "z1" } }),
            "9000",
        );
        assert_eq!((zoned.found.spec.as_deref(), zoned.found.zone.as_deref()), (Some("r2"), Some("z1")));
        let six = json!({ "phase": "Running", "conditions": ready("True"), "podIP": "fd00::7" });
        assert_eq!(seen(six, json!({}), "80").found.address.unwrap().to_string(), "[fd00::7]:80");
    }

    #[test]
    fn a_pod_is_pending_until_it_is_ready_and_says_why() {
        let unready = life(json!({ "phase": "Running", "conditions": ready("False") }));
        assert_eq!(unready, (Life::Pending, "on node n1; not ready: containers with unready status: [app]".to_owned()));
        let conditions = json!([{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient cpu." }]);
        let (pending, words) = life(json!({ "phase": "Pending", "conditions": conditions }));
        assert_eq!(pending, Life::Pending);
        assert!(words.ends_with("unschedulable: 0/3 nodes are available: 3 Insufficient cpu."), "{words}");
        let image =
            container(json!({ "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } }), json!({}));
        let (pending, words) =
            life(json!({ "phase": "Pending", "conditions": ready("False"), "containerStatuses": image }));
        assert_eq!(pending, Life::Pending);
        assert!(words.ends_with("container app waits: ImagePullBackOff: no such image"), "{words}");
        let creating = container(json!({ "waiting": { "reason": "ContainerCreating" } }), json!({}));
        let (_, words) =
            life(json!({ "phase": "Pending", "conditions": ready("False"), "containerStatuses": creating }));
        assert!(words.contains("not ready"), "{words}");
        assert_eq!(life(json!({})).0, Life::Pending, "a pod that nobody has looked at yet");
    }

    #[test]
    fn a_pod_that_is_being_deleted_stops_whatever_else_it_does() {
        let metadata = json!({ "deletionTimestamp": "2026-11-26T11:00:00Z" });
        let running = json!({ "phase": "Running", "conditions": ready("True") });
        assert_eq!(seen(running, metadata.clone(), "80").found.life, Life::Stopping);
        let done = json!({ "phase": "Succeeded" });
        assert!(matches!(seen(done, metadata, "80").found.life, Life::Ended { asked: true, .. }));
    }

    #[test]
    fn what_has_ended_says_how() {
        let end = |status| match life(status).0 {
            Life::Ended { how, asked: false } => how,
            other => panic!("{other:?}"),
        };
        let oom = json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } });
        let code = json!({ "terminated": { "exitCode": 3, "reason": "Error" } });
        let looping = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 5m0s" } });
        let again = |containers| {
            let status = json!({ "phase": "Running", "conditions": ready("False"), "containerStatuses": containers });
            let (life, words) = life(status);
            assert_eq!(life, Life::Pending, "the kubelet makes it anew");
            words.strip_prefix("on node n1; ").unwrap().to_owned()
        };
        let words = again(container(looping.clone(), oom.clone()));
        assert_eq!(words, "crash loop: container app: out of memory, restarted 4 times");
        let words = again(container(looping, code.clone()));
        assert_eq!(words, "crash loop: container app: exit code 3, restarted 4 times");
        assert_eq!(again(container(oom.clone(), json!({}))), "container app: out of memory");
        assert_eq!(
            end(json!({ "phase": "Failed", "reason": "Evicted", "message": "low on memory" })),
            "Evicted: low on memory"
        );
        assert_eq!(end(json!({ "phase": "Failed", "containerStatuses": container(code, json!({})) })), "exit code 3");
        assert_eq!(end(json!({ "phase": "Failed" })), "failed");
        let again = container(json!({ "running": {} }), oom);
        let (state, words) =
            life(json!({ "phase": "Running", "conditions": ready("True"), "containerStatuses": again }));
        assert_eq!(
            (state, words.as_str()),
            (Life::Running, "on node n1; container app was restarted 4 times, last: out of memory")
        );
    }
}
