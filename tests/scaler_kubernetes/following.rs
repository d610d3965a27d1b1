//! The pods are known, and stay known, at no cost.

use std::time::Duration;

use serde_json::json;
use tidegate::scaler::kubernetes::Bounds;
use tidegate::scaler::{Driver, ErrorKind, Life};

use super::cluster::*;
use super::controller::PORT;
use super::support::{eventually, soon};
use super::world::{key, right};

#[tokio::test]
async fn the_pods_of_the_workload_are_listed_with_where_they_are() {
    let cluster = Cluster::new().await.with(deployment(3)).with(|state| {
        workload(state, "deployments", "other", 2);
    });
    let driver = cluster.driver("deployment/app");
    let found = listed(&driver, "three run", |found| running(found) == 3).await;
    assert_eq!(found.len(), 3, "and none of the other workload's");
    for pod in &found {
        assert!(pod.id.starts_with("app-5f-"), "{pod:?}");
        assert!(pod.address.as_ref().unwrap().to_string().ends_with(&format!(":{PORT}")), "{pod:?}");
        assert_eq!((pod.spec.as_deref(), pod.detail.as_str()), (Some("5f"), "on node node-1"));
        assert!(pod.started.is_some());
    }
    assert_eq!((driver.kind(), driver.by_count()), ("kubernetes", true));
}

#[tokio::test]
async fn listing_costs_the_api_server_nothing() {
    let cluster = Cluster::new().await.with(deployment(3));
    let driver = cluster.driver("deployment/app");
    listed(&driver, "three run", |found| running(found) == 3).await;
    eventually("the survey has looked once", || cluster.asked(&right("get", "apps", "deployments/scale")) == 2).await;
    cluster.watched(1).await;
    let before = cluster.world.look(|state| state.asked.len());
    for _ in 0..1000 {
        assert_eq!(driver.list().await.unwrap().len(), 3);
    }
    assert_eq!(cluster.world.look(|state| state.asked.len()), before);
}

#[tokio::test]
async fn what_changes_is_told_at_once_and_what_does_not_matter_is_not() {
    let cluster = Cluster::new().await.with(deployment(1));
    let driver = cluster.driver("deployment/app");
    let found = listed(&driver, "one runs", |found| running(found) == 1).await;
    cluster.watched(1).await;
    eventually("the survey is done", || cluster.asked(&right("get", "apps", "deployments/scale")) == 2).await;
    cluster.scale_by_hand("deployments", "app", 2);
    let found_then = soon("news", async {
        loop {
            driver.changed().await;
            let found = driver.list().await.unwrap();
            if running(&found) == 2 {
                return found;
            }
        }
    })
    .await;
    assert!(found_then.contains(&found[0]));
    // A change that nobody here wants to know of, and one behind it that somebody does.
    let pod = key("pods", NAMESPACE, &found[0].id);
    cluster.world.change(|state| {
        state.edit(&pod, |pod| pod["status"]["hostIP"] = json!("192.0.2.1"));
        state.edit(&pod, |pod| pod["status"]["phase"] = json!("Failed"));
    });
    let ended =
        listed(&driver, "one has ended", |found| found.iter().any(|pod| matches!(pod.life, Life::Ended { .. }))).await;
    assert_eq!(ended.len(), 3, "the controller has made another one");
}

#[tokio::test]
async fn a_pod_says_what_it_waits_for_and_how_it_ended() {
    let cluster = Cluster::new().await.with(|state| state.slow_pods = true).with(deployment(1));
    let driver = cluster.driver("deployment/app");
    let found = listed(&driver, "there is one", |found| found.len() == 1).await;
    assert_eq!((found[0].life.clone(), found[0].address.clone()), (Life::Pending, None));
    let pod = key("pods", NAMESPACE, &found[0].id);
    let text = "0/3 nodes are available: 3 Insufficient cpu.";
    let condition = json!([{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": text }]);
    cluster.world.change(|state| state.edit(&pod, |pod| pod["status"]["conditions"] = condition));
    let found = listed(&driver, "it says why", |found| found[0].detail == format!("unschedulable: {text}")).await;
    assert_eq!(found[0].life, Life::Pending);
    let looping = json!({
        "phase": "Running", "podIP": "10.1.2.3", "containerStatuses": [{
            "name": "app", "image": "a:1", "imageID": "", "ready": false, "restartCount": 5,
            "state": { "waiting": { "reason": "CrashLoopBackOff" } }, "lastState": { "terminated": { "exitCode": 137, "reason": "OOMKilled" } },
        }],
    });
    cluster.world.change(|state| state.edit(&pod, |pod| pod["status"] = looping));
    let how = "crash loop: container app: out of memory, restarted 5 times";
    let found = listed(&driver, "it crashes", |found| found[0].detail == how).await;
    assert_eq!(found[0].life, Life::Pending, "its controller counts it");
    cluster.ready(&pod.2);
    listed(&driver, "it runs", |found| running(found) == 1).await;
    cluster.world.change(|state| state.lingering = true);
    cluster.scale_by_hand("deployments", "app", 0);
    listed(&driver, "it stops", |found| found[0].life == Life::Stopping).await;
    cluster.world.change(|state| state.remove(&pod));
    listed(&driver, "it is gone", <[_]>::is_empty).await;
}

#[tokio::test]
async fn a_lost_watch_goes_on_where_it_was_and_needs_no_list() {
    let cluster = Cluster::new().await.with(deployment(2));
    let driver = cluster.driver("deployment/app");
    listed(&driver, "two run", |found| running(found) == 2).await;
    for round in 3..8 {
        cluster.watched(round as usize - 2).await;
        cluster.door.cut();
        cluster.scale_by_hand("deployments", "app", round);
        listed(&driver, "the new one is known", |found| running(found) == round as usize).await;
    }
    assert_eq!(cluster.asked(&right("list", "", "pods")), 1);
}

#[tokio::test]
async fn a_bookmark_keeps_a_quiet_watch_from_growing_too_old() {
    let cluster = Cluster::new().await.with(deployment(2));
    let bounds = Bounds { watch: Duration::from_secs(1), ..quick() };
    let driver = cluster.driver_within("deployment/app", bounds);
    listed(&driver, "two run", |found| running(found) == 2).await;
    cluster.watched(1).await;
    // Much happens elsewhere; only the bookmark tells the watch.
    cluster.world.change(|state| {
        (0..50).for_each(|n| drop(state.put(&key("configmaps", "elsewhere", &n.to_string()), json!({}))));
        state.bookmarks += 1;
    });
    // Forgotten is what was before the bookmark, once the watch has come to its end by itself.
    cluster.watched(2).await;
    cluster.world.change(|state| state.compacted = state.version);
    cluster.watched(4).await;
    cluster.scale_by_hand("deployments", "app", 3);
    listed(&driver, "three run", |found| running(found) == 3).await;
    assert_eq!(cluster.asked(&right("list", "", "pods")), 1);
}

#[tokio::test]
async fn a_watch_that_is_too_old_lists_again_however_it_is_told() {
    for as_event in [false, true] {
        let cluster = Cluster::new().await.with(deployment(2)).with(|state| state.gone_as_event = as_event);
        let driver = cluster.driver("deployment/app");
        let found = listed(&driver, "two run", |found| running(found) == 2).await;
        cluster.watched(1).await;
        // What happens while nobody watches, and is forgotten before anybody does again.
        cluster.door.cut();
        cluster.world.change(|state| {
            state.edit(&key("deployments", NAMESPACE, "app"), |app| app["spec"]["replicas"] = json!(1));
            state.history.retain(|event| event.kind != "DELETED");
        });
        cluster.world.change(|state| {
            state.history.clear();
            state.put(&key("configmaps", "elsewhere", "a"), json!({}));
            state.compacted = state.version;
        });
        listed(&driver, "one is left", |left| left.len() == 1 && found.contains(&left[0])).await;
        assert_eq!(cluster.asked(&right("list", "", "pods")), 2, "as event: {as_event}");
    }
}

#[tokio::test]
async fn many_pods_come_in_pages() {
    let cluster = Cluster::new().await.with(deployment(1203));
    let driver = cluster.driver("deployment/app");
    assert_eq!(listed(&driver, "all run", |found| running(found) == 1203).await.len(), 1203);
    assert_eq!(cluster.asked(&right("list", "", "pods")), 3);
}

#[tokio::test]
async fn a_restart_of_the_api_server_is_told_and_survived() {
    let mut cluster = Cluster::new().await.with(deployment(2));
    let driver = cluster.driver("deployment/app");
    listed(&driver, "two run", |found| running(found) == 2).await;
    cluster.door.close().await;
    let error = not_listed(&driver, "the outage is told").await;
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.what.contains("cannot be reached") && error.what.contains("refused"), "{error}");
    assert!(error.advice.contains("stays as it is"), "{error}");
    assert_eq!(driver.hindrance(), Some(error));
    assert_eq!(driver.scale(&to(3)).await.unwrap_err().kind, ErrorKind::Unreachable);
    cluster.scale_by_hand("deployments", "app", 4);
    cluster.door.open_again().await;
    listed(&driver, "four run", |found| running(found) == 4).await;
    in_time(driver.scale(&to(3))).await.unwrap();
    listed(&driver, "three run", |found| running(found) == 3).await;
}

#[tokio::test]
async fn zones_come_from_the_pods_or_from_their_nodes() {
    let node = key("nodes", "", "node-1");
    let labels = json!({ "metadata": { "labels": { "topology.kubernetes.io/zone": "north-1" } } });
    let bounds = || Bounds { check: Duration::from_millis(100), ..quick() };
    let cluster = Cluster::new().await.with(deployment(2)).with(|state| drop(state.put(&node, labels)));
    let driver = cluster.driver_within("deployment/app", bounds());
    listed(&driver, "zones are known", |found| {
        found.len() == 2 && found.iter().all(|pod| pod.zone.as_deref() == Some("north-1"))
    })
    .await;
    eventually("the survey went round again", || {
        cluster.asked(&right("list", "autoscaling", "horizontalpodautoscalers")) >= 5
    })
    .await;
    assert_eq!(cluster.asked(&right("get", "", "nodes")), 1, "a node's zone does not change");
    // Newer clusters put it on the pods, and many do not let us see nodes.
    let cluster =
        Cluster::new().await.with(deployment(1)).with(|state| state.denied.extend([right("get", "", "nodes")]));
    let driver = cluster.driver_within("deployment/app", bounds());
    let found = listed(&driver, "one runs", |found| running(found) == 1).await;
    eventually("nodes were asked for", || cluster.asked(&right("get", "", "nodes")) >= 1).await;
    assert_eq!((driver.list().await.unwrap()[0].zone.clone(), driver.hindrance()), (None, None));
    let pod = key("pods", NAMESPACE, &found[0].id);
    cluster.world.change(|state| {
        state.edit(&pod, |pod| pod["metadata"]["labels"]["topology.kubernetes.io/zone"] = json!("south-2"))
    });
    listed(&driver, "the pod says it", |found| found[0].zone.as_deref() == Some("south-2")).await;
}
