//! The number is set, and nothing else; who goes is told before; nobody is fought.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate::scaler::kubernetes::Bounds;
use tidegate::scaler::{Driver, ErrorKind};

use super::cluster::*;
use super::support::eventually;
use super::world::{key, right};

const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

fn marked(cluster: &Cluster) -> Vec<String> {
    let is_marked = |pod: &String| !cluster.object("pods", pod)["metadata"]["annotations"][COST].is_null();
    cluster.pods().into_iter().filter(is_marked).collect()
}

#[tokio::test]
async fn only_the_number_changes_and_it_is_known_who_changed_it() {
    let cluster = Cluster::new().await.with(deployment(2));
    let before = cluster.object("deployments", "app");
    let driver = cluster.driver("deployment/app");
    listed(&driver, "two run", |found| running(found) == 2).await;
    driver.scale(&to(5)).await.unwrap();
    listed(&driver, "five run", |found| running(found) == 5).await;
    let written = cluster.world.look(|state| state.written.clone());
    assert_eq!(written, [("deployments/scale".to_owned(), "app".to_owned(), Some("tidegate".to_owned()))]);
    let mut after = cluster.object("deployments", "app");
    assert_eq!(after["spec"]["replicas"], json!(5));
    after["spec"]["replicas"] = json!(2);
    assert_eq!((&after["spec"], &after["metadata"]["labels"]), (&before["spec"], &before["metadata"]["labels"]));
    // The same again writes nothing.
    driver.scale(&to(5)).await.unwrap();
    assert_eq!(cluster.world.look(|state| state.written.len()), 1);
    driver.scale(&to(0)).await.unwrap();
    listed(&driver, "none is left", <[_]>::is_empty).await;
    driver.scale(&to(1)).await.unwrap();
    listed(&driver, "one runs", |found| running(found) == 1).await;
}

#[tokio::test]
async fn the_marked_go_first_and_marks_are_taken_back() {
    let cluster = Cluster::new().await.with(deployment(5));
    let driver = cluster.driver("deployment/app");
    let found = listed(&driver, "five run", |found| running(found) == 5).await;
    let name = |n: usize| found[n].id.clone();
    driver.mark(&[name(1), name(3)]).await.unwrap();
    assert_eq!(marked(&cluster), [name(1), name(3)]);
    let cost: i64 =
        cluster.object("pods", &name(1))["metadata"]["annotations"][COST].as_str().unwrap().parse().unwrap();
    assert!(i32::try_from(cost).is_ok_and(|cost| cost < 0), "{cost}");
    // The load is back: one of them stays. That need not wait for the watch to show the marks.
    driver.mark(&[name(3)]).await.unwrap();
    assert_eq!(marked(&cluster), [name(3)]);
    let writes = cluster.asked(&right("patch", "", "pods"));
    driver.mark(&[name(3)]).await.unwrap();
    assert_eq!(cluster.asked(&right("patch", "", "pods")), writes, "what is so already is not written again");
    driver.scale(&to(4)).await.unwrap();
    let left = listed(&driver, "four run", |found| running(found) == 4).await;
    assert!(left.iter().all(|pod| pod.id != name(3)));
    // Victims who were not marked before are marked before the number falls.
    let mut request = to(2);
    request.victims = vec![name(0), name(4)];
    driver.scale(&request).await.unwrap();
    let left = listed(&driver, "two run", |found| running(found) == 2).await;
    assert_eq!(left.iter().map(|pod| pod.id.clone()).collect::<Vec<_>>(), [name(1), name(2)]);
    driver.mark(&[name(0), "app-5f-gone".to_owned()]).await.unwrap();
}

#[tokio::test]
async fn marks_of_a_tidegate_before_this_one_are_known_again() {
    let cluster = Cluster::new().await.with(deployment(3));
    let driver = cluster.driver("deployment/app");
    let found = listed(&driver, "three run", |found| running(found) == 3).await;
    in_time(driver.mark(&[found[0].id.clone(), found[1].id.clone()])).await.unwrap();
    drop(driver);
    let driver = cluster.driver("deployment/app");
    listed(&driver, "three run", |found| running(found) == 3).await;
    in_time(driver.mark(&[found[1].id.clone()])).await.unwrap();
    assert_eq!(marked(&cluster), [found[1].id.clone()]);
}

#[tokio::test]
async fn somebody_elses_deletion_cost_is_left_alone() {
    let cluster = Cluster::new().await.with(deployment(2));
    let driver = cluster.driver("deployment/app");
    let found = listed(&driver, "two run", |found| running(found) == 2).await;
    let theirs = key("pods", NAMESPACE, &found[0].id);
    cluster.world.change(|state| state.edit(&theirs, |pod| pod["metadata"]["annotations"] = json!({ COST: "100" })));
    driver.mark(&[found[1].id.clone()]).await.unwrap();
    driver.mark(&[]).await.unwrap();
    assert!(cluster.object("pods", &found[1].id)["metadata"]["annotations"][COST].is_null());
    assert_eq!(cluster.object("pods", &theirs.2)["metadata"]["annotations"][COST], json!("100"));
}

#[tokio::test]
async fn pods_that_are_not_ready_go_in_any_case() {
    let cluster = Cluster::new().await.with(deployment(2));
    let driver = cluster.driver("deployment/app");
    let running_ones = listed(&driver, "two run", |found| running(found) == 2).await;
    assert_eq!(driver.forced_victims(&running_ones, 1), None);
    cluster.world.change(|state| state.slow_pods = true);
    driver.scale(&to(3)).await.unwrap();
    let found = listed(&driver, "there is a third", |found| found.len() == 3).await;
    let forced = driver.forced_victims(&found, 2).unwrap();
    assert_eq!(forced.len(), 1);
    // Even a mark does not change that: the controller is believed, not we.
    driver.mark(&[running_ones[0].id.clone()]).await.unwrap();
    driver.scale(&to(2)).await.unwrap();
    let left = listed(&driver, "two are left", |found| found.len() == 2).await;
    assert!(left.iter().all(|pod| pod.id != forced[0]) && running(&left) == 2);
}

#[tokio::test]
async fn a_statefulset_loses_its_highest_ordinals_and_says_so_before() {
    let cluster = Cluster::new().await.with(stateful_set(12));
    let driver = cluster.driver("statefulset/db");
    let found = listed(&driver, "twelve run", |found| running(found) == 12).await;
    let forced = driver.forced_victims(&found, 3).unwrap();
    assert_eq!(forced, ["db-11", "db-10", "db-9"]);
    driver.mark(&forced).await.unwrap();
    assert!(marked(&cluster).is_empty(), "it would be of no use");
    driver.scale(&to(9)).await.unwrap();
    let left = listed(&driver, "nine run", |found| running(found) == 9).await;
    assert!(left.iter().all(|pod| !forced.contains(&pod.id) && pod.spec.as_deref() == Some("5f")));
}

#[tokio::test]
async fn a_conflict_is_read_again_and_another_hand_is_noticed() {
    let cluster = Cluster::new().await.with(deployment(2));
    let driver = cluster.driver("deployment/app");
    listed(&driver, "two run", |found| running(found) == 2).await;
    eventually("the survey is done", || cluster.asked(&right("get", "apps", "deployments/scale")) == 2).await;
    // The workload's status changes between our reading and our writing.
    cluster.world.change(|state| state.touched_after_get = 3);
    driver.scale(&to(4)).await.unwrap();
    assert_eq!(cluster.asked(&right("update", "apps", "deployments/scale")), 4);
    listed(&driver, "four run", |found| running(found) == 4).await;
    // It never stops changing.
    cluster.world.change(|state| state.touched_after_get = 100);
    let error = driver.scale(&to(3)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    // The number itself changes: somebody applies a manifest with replicas.
    cluster.world.change(|state| {
        state.touched_after_get = 1;
        state.interfering = Some(9);
    });
    let error = driver.scale(&to(3)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::OtherScaler);
    assert!(error.what.contains("from 4 to 9") && error.advice.contains("`replicas`"), "{error}");
    assert_eq!(cluster.object("deployments", "app")["spec"]["replicas"], json!(9));
    driver.scale(&to(3)).await.unwrap();
}

#[tokio::test]
async fn an_order_of_a_former_leader_is_void() {
    let cluster = Cluster::new().await.with(deployment(2));
    let driver = cluster.driver("deployment/app");
    let at = |generation: u64, desired: u32| tidegate::scaler::ScaleRequest { generation, ..to(desired) };
    in_time(driver.scale(&at(7, 3))).await.unwrap();
    assert_eq!(driver.scale(&at(6, 1)).await.unwrap_err().kind, ErrorKind::Fenced);
    driver.scale(&at(7, 4)).await.unwrap();
    assert_eq!(cluster.object("deployments", "app")["spec"]["replicas"], json!(4));
}

fn hpa(kind: &str, name: &str) -> Value {
    json!({ "spec": { "maxReplicas": 10, "scaleTargetRef": { "apiVersion": "apps/v1", "kind": kind, "name": name } } })
}

#[tokio::test]
async fn a_workload_that_an_hpa_scales_is_left_to_it() {
    let ours = key("horizontalpodautoscalers", NAMESPACE, "app-hpa");
    let cluster = Cluster::new().await.with(deployment(2)).with(|state| {
        state.put(&key("horizontalpodautoscalers", NAMESPACE, "another"), hpa("Deployment", "other"));
        state.put(&key("horizontalpodautoscalers", NAMESPACE, "same-name"), hpa("StatefulSet", "app"));
        state.put(&ours, hpa("Deployment", "app"));
    });
    let driver = cluster.driver_within("deployment/app", Bounds { check: Duration::from_millis(100), ..quick() });
    let error = in_time(driver.scale(&to(3))).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::OtherScaler);
    assert!(error.what.contains("HorizontalPodAutoscaler \"app-hpa\"") && error.advice.contains("observe"), "{error}");
    assert_eq!(driver.hindrance(), Some(error.clone()));
    let found = listed(&driver, "its pods are listed all the same", |found| running(found) == 2).await;
    assert_eq!(driver.mark(&[found[0].id.clone()]).await, Err(error));
    assert!(cluster.world.look(|state| state.written.is_empty()));
    cluster.world.change(|state| state.remove(&ours));
    not_hindered(&driver, "the HPA is gone").await;
    driver.scale(&to(3)).await.unwrap();
    listed(&driver, "three run", |found| running(found) == 3).await;
    // … and comes back while we scale.
    cluster.world.change(|state| drop(state.put(&ours, hpa("Deployment", "app"))));
    assert_eq!(hindered(&driver, "the HPA is back").await.kind, ErrorKind::OtherScaler);
}

#[tokio::test]
async fn a_workload_that_keda_scales_is_left_to_it() {
    let scaled = key("scaledobjects", NAMESPACE, "app-keda");
    let object = json!({ "spec": { "scaleTargetRef": { "name": "app" }, "triggers": [] } });
    let cluster = Cluster::new().await.with(deployment(1)).with(|state| {
        state.keda = true;
        state.put(&scaled, object);
        state.put(&key("horizontalpodautoscalers", NAMESPACE, "keda-hpa-app-keda"), hpa("Deployment", "app"));
    });
    let driver = cluster.driver("deployment/app");
    let error = in_time(driver.scale(&to(3))).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::OtherScaler);
    assert!(
        error.what.contains("ScaledObject \"app-keda\" (KEDA)"),
        "it is not its HPA that is to be deleted: {error}"
    );
}

#[tokio::test]
async fn who_may_not_ask_for_rivals_is_warned_and_scales() {
    let cluster = Cluster::new().await.with(deployment(1)).with(|state| {
        state.keda = true;
        state.denied.insert(right("list", "autoscaling", "horizontalpodautoscalers"));
        state.denied.insert(right("list", "keda.sh", "scaledobjects"));
    });
    let driver = cluster.driver("deployment/app");
    in_time(driver.scale(&to(2))).await.unwrap();
    listed(&driver, "two run", |found| running(found) == 2).await;
    assert_eq!(driver.hindrance(), None);
}

#[tokio::test]
async fn nothing_is_scaled_before_it_is_known_who_else_does() {
    let cluster = Cluster::new().await.with(deployment(1)).with(|state| {
        state.stuck.insert(right("list", "autoscaling", "horizontalpodautoscalers"));
    });
    let driver = cluster.driver_within("deployment/app", Bounds { call: Duration::from_millis(300), ..quick() });
    let error = in_time(driver.scale(&to(2))).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    assert!(error.what.contains("not known yet"), "{error}");
    cluster.world.change(|state| state.stuck.clear());
    super::support::until("it scales", async || driver.scale(&to(2)).await.ok()).await;
}

#[tokio::test]
async fn a_full_quota_is_told_and_no_more_is_asked_for() {
    for target in ["deployment/app", "statefulset/db"] {
        let cluster =
            Cluster::new().await.with(|state| state.quota = Some(3)).with(deployment(0)).with(stateful_set(0));
        let cluster = cluster.with(|state| {
            let which = if target.starts_with("dep") {
                key("deployments", NAMESPACE, "app")
            } else {
                key("statefulsets", NAMESPACE, "db")
            };
            state.edit(&which, |workload| workload["spec"]["replicas"] = json!(2));
        });
        let driver = cluster.driver(target);
        listed(&driver, "two run", |found| running(found) == 2).await;
        in_time(driver.scale(&to(5))).await.unwrap();
        let full = hindered(&driver, "the quota is full").await;
        assert_eq!(full.kind, ErrorKind::Full);
        assert!(full.what.contains("exceeded quota") && full.advice.contains("ResourceQuota"), "{full}");
        listed(&driver, "three run", |found| running(found) == 3).await;
        assert_eq!(driver.scale(&to(6)).await, Err(full.clone()), "no more");
        assert_eq!(driver.scale(&to(5)).await, Err(full), "nor the same again");
        driver.scale(&to(3)).await.unwrap();
        not_hindered(&driver, "as many as there is room for").await;
        cluster.world.change(|state| state.quota = None);
        driver.scale(&to(6)).await.unwrap();
        listed(&driver, "six run", |found| running(found) == 6).await;
        not_hindered(&driver, "there is room").await;
    }
}
