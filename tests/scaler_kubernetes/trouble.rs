//! Slow, refusing, misconfigured: each says what it is and what to do.

use std::time::{Duration, Instant};

use serde_json::json;
use tidegate::scaler::kubernetes::{Bounds, KubernetesDriver};
use tidegate::scaler::{Driver, DriverError, ErrorKind};

use super::cluster::*;
use super::support::{Authority, until};
use super::world::right;

#[tokio::test]
async fn a_silent_api_server_is_not_waited_for_longer_than_the_bounds() {
    let cluster = Cluster::new().await.with(deployment(2));
    let bounds = Bounds { call: Duration::from_millis(300), ..quick() };
    let driver = cluster.driver_within("deployment/app", bounds.clone());
    listed(&driver, "two run", |found| running(found) == 2).await;
    until("it scales", async || driver.scale(&to(2)).await.ok()).await;
    cluster.door.go_dark(true);
    let begun = Instant::now();
    let error = driver.scale(&to(3)).await.unwrap_err();
    assert!(begun.elapsed() < bounds.call * 6, "{:?}", begun.elapsed());
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.what.contains("has not answered within 300ms"), "{error}");
    // A driver that starts now says so too.
    let late = cluster.driver_within("deployment/app", bounds.clone());
    let begun = Instant::now();
    assert_eq!(late.list().await.unwrap_err().kind, ErrorKind::Unreachable);
    assert!(begun.elapsed() < bounds.call * 6, "{:?}", begun.elapsed());
    cluster.door.go_dark(false);
    listed(&late, "two run", |found| running(found) == 2).await;
}

#[tokio::test]
async fn a_watch_whose_connection_has_gone_silently_is_given_up() {
    let cluster = Cluster::new().await.with(deployment(2));
    let bounds = Bounds { watch: Duration::from_secs(1), call: Duration::from_millis(300), ..quick() };
    let driver = cluster.driver_within("deployment/app", bounds);
    listed(&driver, "two run", |found| running(found) == 2).await;
    cluster.door.go_dark(true);
    let error = not_listed(&driver, "it is noticed").await;
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    cluster.scale_by_hand("deployments", "app", 3);
    cluster.door.go_dark(false);
    listed(&driver, "three run", |found| running(found) == 3).await;
}

#[tokio::test]
async fn each_missing_permission_is_named() {
    let for_list = [right("get", "apps", "deployments/scale"), right("list", "", "pods"), right("watch", "", "pods")];
    for missing in for_list {
        let cluster = Cluster::new().await.with(deployment(1)).with(|state| state.denied.extend([missing.clone()]));
        let driver = cluster.driver("deployment/app");
        let error = not_listed(&driver, "it is refused").await;
        names(&error, &missing.verb, &missing.resource);
        cluster.world.change(|state| state.denied.clear());
        listed(&driver, "it is allowed", |found| running(found) == 1).await;
    }
    let denied = [right("update", "apps", "deployments/scale"), right("patch", "", "pods")];
    let cluster = Cluster::new().await.with(deployment(1)).with(|state| state.denied.extend(denied));
    let driver = cluster.driver("deployment/app");
    let found = listed(&driver, "one runs", |found| running(found) == 1).await;
    names(&driver.scale(&to(2)).await.unwrap_err(), "update", "deployments/scale");
    names(&driver.mark(&[found[0].id.clone()]).await.unwrap_err(), "patch", "pods");
}

fn names(error: &DriverError, verb: &str, resource: &str) {
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
    assert!(error.what.contains(&format!("cannot {verb} resource \"{resource}\"")), "{error}");
    let advice = format!("allow the verb \"{verb}\" on the resource \"{resource}\"");
    assert!(error.advice.contains(&advice) && error.advice.contains("conf/kubernetes/rbac.yaml"), "{error}");
}

#[tokio::test]
async fn a_token_that_was_renewed_in_its_file_is_read_again() {
    let cluster = Cluster::new().await.with(deployment(1)).with(|state| state.token = Some("first".to_owned()));
    let file = cluster.path("token");
    std::fs::write(&file, "first").unwrap();
    let kubeconfig = cluster.kubeconfig_for(&cluster.door.url(), "", &format!("tokenFile: {}", file.display()));
    let driver = KubernetesDriver::within(&settings("deployment/app", &kubeconfig), quick()).unwrap();
    listed(&driver, "one runs", |found| running(found) == 1).await;
    cluster.world.change(|state| state.token = Some("second".to_owned()));
    assert_eq!(in_time(driver.scale(&to(2))).await.unwrap_err().kind, ErrorKind::Refused);
    cluster.door.cut();
    let error = not_listed(&driver, "the old token is refused").await;
    assert!(error.what.contains("does not know us") && error.advice.contains("expired"), "{error}");
    std::fs::write(&file, "second").unwrap();
    listed(&driver, "the new token is read", |found| running(found) == 1).await;
    until("it scales", async || driver.scale(&to(2)).await.ok()).await;
}

#[tokio::test]
async fn an_unhealthy_api_server_is_told_from_a_refusing_one() {
    let cluster = Cluster::new().await.with(deployment(1)).with(|state| state.failing = Some(503));
    let driver = cluster.driver("deployment/app");
    let error = not_listed(&driver, "it fails").await;
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.what.contains("answers 503"), "{error}");
    cluster.world.change(|state| state.failing = None);
    listed(&driver, "it is well again", |found| running(found) == 1).await;
}

#[tokio::test]
async fn a_workload_that_is_not_there_is_waited_for() {
    let cluster = Cluster::new().await;
    let driver = cluster.driver("deployment/app");
    let error = not_listed(&driver, "it is not there").await;
    assert_eq!((error.kind, error.what.as_str()), (ErrorKind::Refused, "there is no Deployment \"app\""));
    assert_eq!(in_time(driver.scale(&to(2))).await.unwrap_err().what, error.what);
    cluster.world.change(deployment(2));
    listed(&driver, "it is there", |found| running(found) == 2).await;
}

#[tokio::test]
async fn wrong_settings_say_what_would_be_right() {
    let cluster = Cluster::new().await;
    let kubeconfig = cluster.kubeconfig();
    for (target, port, words) in
        [("app", "80", "deployment/NAME"), ("job/app", "80", "statefulset/NAME"), ("deployment/app", "0", "1 to 65535")]
    {
        let mut settings = settings(target, &kubeconfig);
        settings.port = port.to_owned();
        let error = KubernetesDriver::new(&settings).unwrap_err();
        assert!(error.kind == ErrorKind::Refused && error.what.contains(words), "{error}");
    }
    let mut wrong = settings("deployment/app", &cluster.path("none"));
    let driver = KubernetesDriver::within(&wrong, quick()).unwrap();
    let error = not_listed(&driver, "there is no such file").await;
    assert!(
        error.kind == ErrorKind::Refused && error.what.contains("cannot be used") && error.advice.contains("exists"),
        "{error}"
    );
    wrong.kubeconfig = Some(kubeconfig);
    wrong.context = Some("nowhere".to_owned());
    let driver = KubernetesDriver::within(&wrong, quick()).unwrap();
    let error = not_listed(&driver, "there is no such context").await;
    assert!(error.what.contains("nowhere"), "{error}");
}

#[tokio::test]
async fn another_namespace_than_the_contexts_can_be_set() {
    let cluster = Cluster::new().await.with(deployment(1));
    let mut elsewhere = settings("deployment/app", &cluster.kubeconfig());
    elsewhere.namespace = Some("attic".to_owned());
    let driver = KubernetesDriver::within(&elsewhere, quick()).unwrap();
    assert!(not_listed(&driver, "it is another namespace").await.what.contains("there is no"));
    elsewhere.namespace = Some(NAMESPACE.to_owned());
    elsewhere.port = "9000".to_owned();
    let driver = KubernetesDriver::within(&elsewhere, quick()).unwrap();
    let found = listed(&driver, "one runs", |found| running(found) == 1).await;
    assert!(found[0].address.as_ref().unwrap().to_string().ends_with(":9000"));
}

#[tokio::test]
async fn tls_is_checked_by_the_kubeconfigs_authority() {
    let (authority, another) = (Authority::new(), Authority::new());
    let cluster = Cluster::behind(authority.server_that_asks("127.0.0.1")).await.with(deployment(1));
    let (ca, certificate, own_key) = (cluster.path("ca"), cluster.path("certificate"), cluster.path("key"));
    let ours = authority.signs("tidegate");
    std::fs::write(&ca, &authority.pem).unwrap();
    std::fs::write(&certificate, &ours.certificate).unwrap();
    std::fs::write(&own_key, &ours.key).unwrap();
    let trust = format!("certificate-authority: {}", ca.display());
    let user = format!("{{ client-certificate: {}, client-key: {} }}", certificate.display(), own_key.display());
    let kubeconfig = cluster.kubeconfig_for(&cluster.door.url(), &trust, &user);
    let driver = KubernetesDriver::within(&settings("deployment/app", &kubeconfig), quick()).unwrap();
    listed(&driver, "one runs", |found| running(found) == 1).await;
    until("it scales", async || driver.scale(&to(2)).await.ok()).await;
    // Somebody else's authority.
    std::fs::write(&ca, &another.pem).unwrap();
    let driver = KubernetesDriver::within(&settings("deployment/app", &kubeconfig), quick()).unwrap();
    let error = not_listed(&driver, "it is not trusted").await;
    assert!(error.kind == ErrorKind::Unreachable && error.what.contains("certificate"), "{error}");
}

/// As the scaler's thread has it: one thread, whose tasks need not be `Send`.
#[tokio::test(flavor = "local")]
async fn it_lives_on_a_local_runtime() {
    let cluster = Cluster::new().await.with(deployment(1));
    let driver = std::rc::Rc::new(cluster.driver("deployment/app"));
    let another = driver.clone();
    let listing =
        tokio::task::spawn_local(async move { listed(&another, "one runs", |found| running(found) == 1).await });
    assert_eq!(listing.await.unwrap().len(), 1);
    in_time(driver.scale(&to(2))).await.unwrap();
    listed(&driver, "two run", |found| running(found) == 2).await;
    assert_eq!(cluster.object("deployments", "app")["spec"]["replicas"], json!(2));
}
