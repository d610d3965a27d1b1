//! Follows the workload's pods: one list, then a watch that goes on from where the last one ended.
//!
//! Why not kube's `runtime::reflector`: it brings a dozen crates for what is a page here, and hides how old what it knows is.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DynamicObject, ListParams, WatchEvent, WatchParams};

use super::access::{Failed, Link};
use super::pods::{Seen, look};
use super::problem::{Doing, refused};
use super::target::{Port, Target};
use super::view::View;
use super::{Bounds, DriverError};

/// Pods asked for at once.
const PAGE: u32 = 500;

/// Whose pods are followed.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) target: Target,
    pub(super) port: Port,
    pub(super) link: Arc<Link>,
    pub(super) view: Arc<View>,
}

/// Why a watch ended without having failed.
enum End {
    /// It has had its time, or the connection was lost: another one goes on from there.
    Over,
    /// What it was to go on from is forgotten (410): only a list helps.
    Expired,
}

/// Never ends; whoever starts it aborts it.
pub(super) async fn follow(subject: Subject) {
    let mut wait = subject.link.bounds().retry;
    loop {
        let begun = Instant::now();
        let Err(error) = subject.pass().await else {
            wait = subject.link.bounds().retry;
            continue;
        };
        let known = subject.view.known().blind.as_ref() == Some(&error);
        if !known {
            tracing::warn!(workload = %subject.target, "the pods cannot be followed: {error}");
        }
        subject.view.learn(|known| known.blind = Some(error));
        let Bounds { retry, longest_retry, .. } = *subject.link.bounds();
        wait = if begun.elapsed() > longest_retry { retry } else { (wait * 2).min(longest_retry) };
        // The others need not come back all at the same moment.
        tokio::time::sleep(wait.mul_f64(fastrand::f64().mul_add(0.5, 0.5))).await;
    }
}

impl Subject {
    /// Lists, and watches until a list is needed again.
    async fn pass(&self) -> Result<(), DriverError> {
        let selector = self.selector().await?;
        let (pods, mut version) = self.list(&selector).await?;
        let was_blind = self.view.learn(|known| {
            known.pods = Some(pods);
            known.blind.take()
        });
        if was_blind.is_some() {
            tracing::info!(workload = %self.target, "the pods can be followed again");
        }
        loop {
            let begun = Instant::now();
            let before = version.clone();
            if matches!(self.watch(&selector, &mut version).await?, End::Expired) {
                return Ok(());
            }
            // A server, or something between, that ends each watch at once is not to be asked in a tight loop.
            if version == before && begun.elapsed() < self.link.bounds().retry {
                tokio::time::sleep(self.link.bounds().retry).await;
            }
        }
    }

    /// By the scale subresource, which is the one place where all workloads have it in the same shape.
    async fn selector(&self) -> Result<String, DriverError> {
        let scale = self.get_scale().await?;
        let selector = scale.status.and_then(|status| status.selector).filter(|selector| !selector.is_empty());
        self.view.learn(|known| known.replicas = Some(scale.spec.and_then(|spec| spec.replicas).unwrap_or(0)));
        selector.ok_or_else(|| {
            let what = format!(
                "{} says no selector in its scale subresource, so which pods are its own is not known",
                self.target
            );
            refused(what, "give the workload a selector (spec.selector.matchLabels)")
        })
    }

    pub(super) async fn get_scale(&self) -> Result<k8s_openapi::api::autoscaling::v1::Scale, DriverError> {
        let (resource, subject) = (format!("{}/scale", self.target.kind.plural()), self.target.to_string());
        let doing = Doing { verb: "get", resource: &resource, group: "apps", subject: &subject };
        self.link
            .call(doing, async |session| {
                self.workloads(&session.client, &session.namespace).get_scale(&self.target.name).await
            })
            .await
    }

    pub(super) fn workloads(&self, client: &kube::Client, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(client.clone(), namespace, &self.target.kind.resource())
    }

    async fn list(&self, selector: &str) -> Result<(BTreeMap<String, Seen>, String), DriverError> {
        let mut pods = BTreeMap::new();
        let mut params = ListParams::default().labels(selector).limit(PAGE);
        loop {
            let doing = Doing { verb: "list", resource: "pods", group: "", subject: "the pods" };
            let page = self
                .link
                .call(doing, async |session| pods_of(&session.client, &session.namespace).list(&params).await)
                .await?;
            pods.extend(page.items.iter().map(|pod| look(pod, &self.port)).map(|pod| (pod.found.id.clone(), pod)));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok((pods, page.metadata.resource_version.unwrap_or_default())),
            }
        }
    }

    /// Watches from `version` on, which moves along.
    async fn watch(&self, selector: &str, version: &mut String) -> Result<End, DriverError> {
        let bounds = self.link.bounds();
        let seconds = u32::try_from(bounds.watch.as_secs()).unwrap_or(u32::MAX).max(1);
        let params = WatchParams::default().labels(selector).timeout(seconds);
        let doing = Doing { verb: "watch", resource: "pods", group: "", subject: "the pods" };
        let open = async |session: Arc<super::access::Session>| {
            pods_of(&session.client, &session.namespace).watch(&params, version).await
        };
        let events = match self.link.attempt(open, bounds.call).await? {
            Ok(events) => events,
            Err(failed) if failed.code() == Some(410) => return Ok(End::Expired),
            Err(failed) => return Err(failed.into_driver_error(doing)),
        };
        let mut events = pin!(events);
        // The server ends it after `watch`; a connection that has gone silently is given up a little later.
        let deadline = tokio::time::Instant::now() + bounds.watch + bounds.call;
        loop {
            let event = match tokio::time::timeout_at(deadline, events.try_next()).await {
                Ok(Ok(Some(event))) => event,
                Ok(Ok(None)) | Err(_) => return Ok(End::Over),
                Ok(Err(error)) => {
                    tracing::debug!(workload = %self.target, %error, "a watch of the pods was cut off");
                    return Ok(End::Over);
                }
            };
            match event {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) => self.put(&pod, version),
                WatchEvent::Deleted(pod) => self.remove(&pod, version),
                WatchEvent::Bookmark(mark) => *version = mark.metadata.resource_version,
                WatchEvent::Error(status) if status.code == 410 => return Ok(End::Expired),
                WatchEvent::Error(status) => {
                    let server = self.link.session().await?.server.clone();
                    return Err(Failed { error: kube::Error::Api(status), server }.into_driver_error(doing));
                }
            }
        }
    }

    fn put(&self, pod: &Pod, version: &mut String) {
        move_on(pod, version);
        let seen = look(pod, &self.port);
        self.change(|pods| pods.insert(seen.found.id.clone(), seen.clone()) != Some(seen));
    }

    fn remove(&self, pod: &Pod, version: &mut String) {
        move_on(pod, version);
        self.change(|pods| pods.remove(pod.metadata.name.as_deref().unwrap_or_default()).is_some());
    }

    /// Not each event is news: kubelets write much that nobody here wants to know.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Seen>) -> bool) {
        let changed = self.view.known().pods.as_mut().is_some_and(change);
        if changed {
            self.view.learn(|_| ());
        }
    }
}

fn pods_of(client: &kube::Client, namespace: &str) -> Api<Pod> {
    Api::namespaced(client.clone(), namespace)
}

fn move_on(pod: &Pod, version: &mut String) {
    if let Some(newer) = &pod.metadata.resource_version {
        version.clone_from(newer);
    }
}
