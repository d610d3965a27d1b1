//! Looks, once a minute, at what is around the workload: who else scales it, why pods are missing, in which zones its nodes are.

use std::collections::BTreeSet;
use std::time::Instant;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Event, Node};
use kube::Api;
use kube::api::{DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;

use super::follow::Subject;
use super::problem::{self, Doing};
use super::target::Kind;
use super::{DriverError, ErrorKind};

/// Asks, and remembers what it may not ask.
pub(super) struct Survey {
    subject: Subject,
    /// What has been complained about already; once is enough for each.
    warned: BTreeSet<&'static str>,
}

/// Never ends; whoever starts it aborts it.
pub(super) async fn survey(subject: Subject) {
    let mut survey = Survey { subject, warned: BTreeSet::new() };
    loop {
        let begun = Instant::now();
        survey.rivals().await;
        survey.zones().await;
        let bounds = survey.subject.link.bounds().clone();
        // Nothing is scaled before it is known who else does.
        let check = if survey.subject.view.known().asked_for_rivals { bounds.check } else { bounds.retry };
        while begun.elapsed() < check {
            survey.shortage().await;
            let pause = if survey.subject.view.known().is_short() { bounds.short_check } else { check };
            let left = pause.min(check.saturating_sub(begun.elapsed()));
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                // An order was given. What comes of it shows after a moment.
                () = survey.subject.view.look_wanted() => tokio::time::sleep(bounds.short_check.min(bounds.retry)).await,
            }
        }
    }
}

impl Survey {
    fn warn(&mut self, what: &'static str, error: &DriverError) {
        if self.warned.insert(what) {
            tracing::warn!(workload = %self.subject.target, "{what} is not possible: {error}");
        }
    }

    /// Who else scales the workload: a ScaledObject of KEDA, else an HPA.
    async fn rivals(&mut self) {
        let scaled_object = self.scaled_object().await;
        let autoscaler = self.autoscaler().await;
        let answers = [scaled_object, autoscaler];
        // Where nobody could be asked the last answer stands; only where we may not ask at all there is none.
        let unknown =
            answers.iter().any(|answer| answer.as_ref().is_err_and(|error| error.kind == ErrorKind::Unreachable));
        // What is out of reach is told elsewhere, and not for the last time.
        let errors = answers.iter().filter_map(|answer| answer.as_ref().err());
        for error in errors.filter(|error| error.kind != ErrorKind::Unreachable) {
            self.warn("looking for another scaler of the same workload", error);
        }
        let rival = answers.into_iter().flatten().flatten().next().map(|rival| self.advise(&rival));
        let view = &self.subject.view;
        if rival.is_some() && rival != view.known().rival {
            tracing::warn!(workload = %self.subject.target, "{}", rival.as_ref().map(ToString::to_string).unwrap_or_default());
        }
        if !unknown || rival.is_some() {
            view.learn(|known| {
                known.rival = rival;
                known.asked_for_rivals = true;
            });
        }
    }

    fn advise(&self, rival: &str) -> DriverError {
        let target = &self.subject.target;
        let what = format!("{rival} scales {target} already, and two scalers of one workload fight");
        let advice = format!("delete {rival}, or set mode = \"observe\" for this pool to see what Tidegate would do");
        DriverError { what, advice, kind: ErrorKind::OtherScaler }
    }

    async fn scaled_object(&self) -> Result<Option<String>, DriverError> {
        let doing = Doing { verb: "list", resource: "scaledobjects", group: "keda.sh", subject: "the ScaledObjects" };
        let kind = ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk("keda.sh", "v1alpha1", "ScaledObject"),
            "scaledobjects",
        );
        let link = &self.subject.link;
        let list = async |session: std::sync::Arc<super::access::Session>| {
            Api::<DynamicObject>::namespaced_with(session.client.clone(), &session.namespace, &kind)
                .list(&ListParams::default())
                .await
        };
        let all = match link.attempt(list, link.bounds().call).await? {
            Ok(all) => all,
            // KEDA is not installed.
            Err(failed) if failed.code() == Some(404) => return Ok(None),
            Err(failed) => return Err(failed.into_driver_error(doing)),
        };
        let ours = |object: &&DynamicObject| {
            let text = |pointer: &str| object.data.pointer(pointer).and_then(Value::as_str);
            let kind = text("/spec/scaleTargetRef/kind").unwrap_or("Deployment");
            self.is_target(
                text("/spec/scaleTargetRef/apiVersion"),
                kind,
                text("/spec/scaleTargetRef/name").unwrap_or_default(),
            )
        };
        let name = |object: &DynamicObject| object.metadata.name.clone().unwrap_or_default();
        Ok(all.items.iter().find(ours).map(|object| format!("the ScaledObject \"{}\" (KEDA)", name(object))))
    }

    async fn autoscaler(&self) -> Result<Option<String>, DriverError> {
        let doing = Doing {
            verb: "list",
            resource: "horizontalpodautoscalers",
            group: "autoscaling",
            subject: "the HorizontalPodAutoscalers",
        };
        let list = async |session: std::sync::Arc<super::access::Session>| {
            let all: Api<HorizontalPodAutoscaler> = Api::namespaced(session.client.clone(), &session.namespace);
            all.list(&ListParams::default()).await
        };
        let all = self.subject.link.call(doing, list).await?;
        let ours = |hpa: &&HorizontalPodAutoscaler| {
            let target = hpa.spec.as_ref().map(|spec| &spec.scale_target_ref);
            target.is_some_and(|target| self.is_target(target.api_version.as_deref(), &target.kind, &target.name))
        };
        let name = |hpa: &HorizontalPodAutoscaler| hpa.metadata.name.clone().unwrap_or_default();
        Ok(all.items.iter().find(ours).map(|hpa| format!("the HorizontalPodAutoscaler \"{}\"", name(hpa))))
    }

    fn is_target(&self, api_version: Option<&str>, kind: &str, name: &str) -> bool {
        let target = &self.subject.target;
        let group = api_version.is_none_or(|version| version.starts_with("apps/"));
        group && kind == target.kind.kind() && name == target.name
    }

    /// How many there are to be and, if there are fewer, what is in the way.
    async fn shortage(&mut self) {
        match self.subject.get_scale().await {
            Ok(scale) => {
                self.subject.view.known().replicas = Some(scale.spec.and_then(|spec| spec.replicas).unwrap_or(0))
            }
            // The watch will say so too, if it lasts.
            Err(_) => return,
        }
        let reason = if self.subject.view.known().is_short() { self.why_short().await } else { Ok(None) };
        let full = match reason {
            Ok(reason) => reason.map(|reason| self.cannot_be_made(&reason)),
            Err(error) => {
                self.warn("finding out why pods are missing", &error);
                return;
            }
        };
        let changed = self.subject.view.known().full != full;
        if changed {
            if let Some(full) = &full {
                tracing::warn!(workload = %self.subject.target, "{full}");
            }
            self.subject.view.learn(|known| known.full = full);
        }
    }

    fn cannot_be_made(&self, reason: &str) -> DriverError {
        let what = format!("pods of {} cannot be made: {reason}", self.subject.target);
        if problem::is_quota(reason) {
            return problem::full(what);
        }
        let advice = format!(
            "see `kubectl describe {} {}`; no more are asked for meanwhile",
            self.subject.target.kind.kind().to_lowercase(),
            self.subject.target.name
        );
        DriverError { what, advice, kind: ErrorKind::Full }
    }

    async fn why_short(&self) -> Result<Option<String>, DriverError> {
        match self.subject.target.kind {
            Kind::Deployment => self.replica_failure().await,
            Kind::StatefulSet => self.failed_create().await,
        }
    }

    /// A Deployment says it in a condition, for as long as it is so.
    async fn replica_failure(&self) -> Result<Option<String>, DriverError> {
        let subject = self.subject.target.to_string();
        let doing = Doing { verb: "get", resource: "deployments", group: "apps", subject: &subject };
        let get = async |session: std::sync::Arc<super::access::Session>| {
            self.subject.workloads(&session.client, &session.namespace).get(&self.subject.target.name).await
        };
        let deployment = self.subject.link.call(doing, get).await?;
        let conditions = deployment.data.pointer("/status/conditions").and_then(Value::as_array);
        let failing = |condition: &&Value| condition["type"] == "ReplicaFailure" && condition["status"] == "True";
        let condition = conditions.into_iter().flatten().find(failing);
        Ok(condition.map(|condition| condition["message"].as_str().unwrap_or("it does not say why").to_owned()))
    }

    /// A StatefulSet only leaves an event.
    async fn failed_create(&self) -> Result<Option<String>, DriverError> {
        let doing = Doing { verb: "list", resource: "events", group: "", subject: "the events" };
        let of = format!(
            "involvedObject.kind=StatefulSet,involvedObject.name={},reason=FailedCreate",
            self.subject.target.name
        );
        let params = ListParams::default().fields(&of).limit(100);
        let list = async |session: std::sync::Arc<super::access::Session>| {
            let all: Api<Event> = Api::namespaced(session.client.clone(), &session.namespace);
            all.list(&params).await
        };
        let events = self.subject.link.call(doing, list).await?;
        let when = |event: &Event| {
            let time =
                event.last_timestamp.as_ref().map(|time| time.0).or(event.event_time.as_ref().map(|time| time.0));
            time.map_or(0.0, |time| time.as_millisecond() as f64 / 1e3)
        };
        // What has been made since shows that it is over; a StatefulSet that makes one after the other is short without being stuck.
        let newest = {
            let known = self.subject.view.known();
            known.pods.iter().flatten().filter_map(|(_, pod)| pod.found.started).fold(0.0, f64::max)
        };
        let last =
            events.items.into_iter().filter(|event| when(event) > newest).max_by(|a, b| when(a).total_cmp(&when(b)));
        Ok(last.and_then(|event| event.message))
    }

    /// Zones of nodes that are not known yet, where the pods do not carry them and we may ask.
    async fn zones(&mut self) {
        let missing: BTreeSet<String> = {
            let known = self.subject.view.known();
            let without = known.pods.iter().flatten().filter(|(_, pod)| pod.found.zone.is_none());
            without.filter_map(|(_, pod)| pod.node.clone()).filter(|node| !known.zones.contains_key(node)).collect()
        };
        for node in missing {
            let doing = Doing { verb: "get", resource: "nodes", group: "", subject: &node };
            let get = async |session: std::sync::Arc<super::access::Session>| {
                Api::<Node>::all(session.client.clone()).get_metadata(&node).await
            };
            match self.subject.link.call(doing, get).await {
                Ok(found) => {
                    let zone =
                        found.metadata.labels.and_then(|labels| labels.get("topology.kubernetes.io/zone").cloned());
                    self.subject.view.learn(|known| known.zones.insert(node.clone(), zone));
                }
                // Zones are a convenience: most of those who do not allow it know why.
                Err(error) => return tracing::debug!(%node, "the node's zone is not known: {error}"),
            }
        }
    }
}
