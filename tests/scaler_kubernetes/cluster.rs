//! A cluster as the tests write it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::config::model;
use tidegate::scaler::kubernetes::{Access, Bounds, KubernetesDriver};
use tidegate::scaler::{Driver, DriverError, Found, Life, ScaleRequest};

use super::controller;
use super::door::Door;
use super::support::{PATIENCE, until};
use super::world::{Right, State, World, key};

pub const NAMESPACE: &str = "shop";

/// An API server with one door, or more.
pub struct Cluster {
    pub world: Arc<World>,
    pub door: Door,
    folder: TempDir,
}

impl Cluster {
    pub async fn new() -> Self {
        let world = Arc::new(World::new());
        let door = Door::open(world.clone(), None).await;
        Cluster { world, door, folder: tempfile::tempdir().expect("a folder") }
    }

    pub async fn behind(tls: Arc<rustls::ServerConfig>) -> Self {
        let world = Arc::new(World::new());
        let door = Door::open(world.clone(), Some(tls)).await;
        Cluster { world, door, folder: tempfile::tempdir().expect("a folder") }
    }

    /// Another way in, to the same cluster.
    pub async fn another_door(&self) -> Door {
        Door::open(self.world.clone(), None).await
    }

    pub fn with(self, change: impl FnOnce(&mut State)) -> Self {
        self.world.change(change);
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig_for(&self.door.url(), "", "token: let-me-in")
    }

    /// A kubeconfig whose current context is another cluster's, so that the one of the settings has to be followed.
    pub fn kubeconfig_for(&self, url: &str, cluster: &str, user: &str) -> PathBuf {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: elsewhere\nclusters:\n- name: here\n  cluster:\n    server: {url}\n    {cluster}\n\
             - name: elsewhere\n  cluster:\n    server: http://127.0.0.1:1\nusers:\n- name: us\n  user:\n    {user}\n\
             contexts:\n- name: here\n  context:\n    cluster: here\n    user: us\n    namespace: {NAMESPACE}\n\
             - name: elsewhere\n  context:\n    cluster: elsewhere\n    user: us\n"
        );
        let path = self.path(&format!("kubeconfig-{}", url.rsplit(':').next().expect("a port")));
        std::fs::write(&path, text).expect("a kubeconfig");
        path
    }

    pub fn access(&self, kubeconfig: &Path) -> Access {
        Access { kubeconfig: Some(kubeconfig.to_owned()), context: Some("here".to_owned()), namespace: None }
    }

    pub fn driver(&self, target: &str) -> KubernetesDriver {
        self.driver_within(target, quick())
    }

    pub fn driver_within(&self, target: &str, bounds: Bounds) -> KubernetesDriver {
        KubernetesDriver::within(&settings(target, &self.kubeconfig()), bounds).expect("settings that can be read")
    }

    /// How often this has been asked for.
    pub fn asked(&self, right: &Right) -> usize {
        self.world.look(|state| state.asked.iter().filter(|asked| *asked == right).count())
    }

    /// Returns once so many watches have been begun in all.
    pub async fn watched(&self, times: usize) {
        until("the pods are watched", async || self.world.look(|state| state.watches >= times).then_some(())).await;
    }

    pub fn object(&self, resource: &str, name: &str) -> Value {
        self.world.look(|state| state.objects.get(&key(resource, NAMESPACE, name)).cloned()).unwrap_or(Value::Null)
    }

    pub fn pods(&self) -> Vec<String> {
        self.world.look(|state| state.of("pods", NAMESPACE).into_iter().map(|(key, _)| key.2.clone()).collect())
    }

    pub fn ready(&self, pod: &str) {
        self.world.change(|state| controller::become_ready(state, &key("pods", NAMESPACE, pod)));
    }

    /// As `kubectl scale` does it.
    pub fn scale_by_hand(&self, resource: &str, name: &str, replicas: i64) {
        self.world.change(|state| {
            state.edit(&key(resource, NAMESPACE, name), |workload| workload["spec"]["replicas"] = json!(replicas))
        });
    }
}

/// Bounds that a test can wait for.
pub fn quick() -> Bounds {
    Bounds {
        connect: Duration::from_secs(10),
        call: Duration::from_secs(10),
        watch: Duration::from_secs(60),
        check: Duration::from_secs(60),
        short_check: Duration::from_millis(50),
        retry: Duration::from_millis(20),
        longest_retry: Duration::from_millis(100),
    }
}

pub fn settings(target: &str, kubeconfig: &Path) -> model::Kubernetes {
    model::Kubernetes {
        target: target.to_owned(),
        namespace: None,
        port: "http".to_owned(),
        kubeconfig: Some(kubeconfig.to_owned()),
        context: Some("here".to_owned()),
    }
}

/// A workload of this many pods, of which nothing but the number is ours.
pub fn workload(state: &mut State, resource: &str, name: &str, replicas: i64) {
    let object = json!({
        "kind": if resource == "deployments" { "Deployment" } else { "StatefulSet" }, "apiVersion": "apps/v1",
        "metadata": { "labels": { "team": "front" } },
        "spec": { "replicas": replicas, "selector": { "matchLabels": { "app": name } }, "template": { "spec": { "containers": [{ "image": "a:1" }] } } },
        "status": {},
    });
    state.put(&key(resource, NAMESPACE, name), object);
}

pub fn deployment(replicas: i64) -> impl FnOnce(&mut State) {
    move |state| workload(state, "deployments", "app", replicas)
}

pub fn stateful_set(replicas: i64) -> impl FnOnce(&mut State) {
    move |state| workload(state, "statefulsets", "db", replicas)
}

pub fn to(desired: u32) -> ScaleRequest {
    ScaleRequest {
        desired,
        current: 0,
        decision: format!("to-{desired}"),
        generation: 1,
        reason: "a test".to_owned(),
        victims: Vec::new(),
    }
}

pub fn running(found: &[Found]) -> usize {
    found.iter().filter(|found| found.life == Life::Running).count()
}

/// The list, once it is so.
pub async fn listed(driver: &KubernetesDriver, what: &str, holds: impl Fn(&[Found]) -> bool) -> Vec<Found> {
    until(what, async || driver.list().await.ok().filter(|found| holds(found))).await
}

/// Why there is no list, once there is none.
pub async fn not_listed(driver: &KubernetesDriver, what: &str) -> DriverError {
    until(what, async || driver.list().await.err()).await
}

pub async fn hindered(driver: &KubernetesDriver, what: &str) -> DriverError {
    until(what, async || driver.hindrance()).await
}

pub async fn not_hindered(driver: &KubernetesDriver, what: &str) {
    until(what, async || driver.hindrance().is_none().then_some(())).await;
}

/// What a future gives, which must not take longer than a test may.
pub async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("an answer in time")
}
