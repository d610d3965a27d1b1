//! What is written to the API server: how many there are to be, and who goes first.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use futures_util::StreamExt;
use k8s_openapi::api::autoscaling::v1::ScaleSpec;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::access::Session;
use super::pods::{DELETION_COST, Seen};
use super::problem::Doing;
use super::target::Kind;
use super::{DriverError, ErrorKind, Found, InstanceId, KubernetesDriver, Life, ScaleRequest};

/// Who has written something, as `managedFields` show it.
pub(super) const FIELD_MANAGER: &str = "tidegate";
/// What a pod that is to go first costs. Also how we know again what we have written.
const FIRST_TO_GO: &str = "-1000000007";
/// The scale subresource carries its workload's version, which changes with each pod that becomes ready: conflicts are no surprise.
const ATTEMPTS: usize = 5;
/// Pods written to at once.
const AT_ONCE: usize = 8;

impl KubernetesDriver {
    pub(super) async fn set(&self, request: &ScaleRequest) -> Result<(), DriverError> {
        self.fence(request.generation)?;
        self.no_rival().await?;
        let before = self.subject.view.known().replicas;
        let falls = before.is_some_and(|replicas| i64::from(request.desired) < i64::from(replicas));
        if falls && !request.victims.is_empty() {
            // The controller chooses the moment the number falls; what it is not told before comes too late (kubernetes#126138).
            self.mark_first(&request.victims).await?;
        }
        let mut seen = None;
        for _ in 0..ATTEMPTS {
            let mut scale = self.subject.get_scale().await?;
            let replicas = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
            if let Some(seen) = seen.filter(|seen| *seen != replicas) {
                return Err(self.interfered(seen, replicas));
            }
            seen = Some(replicas);
            let desired = i32::try_from(request.desired).unwrap_or(i32::MAX);
            self.subject.view.known().replicas = Some(replicas);
            self.room_for(desired)?;
            if replicas == desired {
                return Ok(());
            }
            scale.spec = Some(ScaleSpec { replicas: Some(desired) });
            if self.replace(&scale).await? {
                tracing::info!(workload = %self.subject.target, from = replicas, to = desired, decision = %request.decision, "scaled");
                self.subject.view.learn(|known| known.replicas = Some(desired));
                self.subject.view.look_soon();
                return Ok(());
            }
        }
        let what = format!("{} changes so often that its number could not be set", self.subject.target);
        let advice = "see who writes to it (`kubectl get … --show-managed-fields -o yaml`)".to_owned();
        Err(DriverError { what, advice, kind: ErrorKind::Unreachable })
    }

    /// Whether it was still the same object. Never touches anything but the number.
    async fn replace(&self, scale: &k8s_openapi::api::autoscaling::v1::Scale) -> Result<bool, DriverError> {
        let target = &self.subject.target;
        let (resource, subject) = (format!("{}/scale", target.kind.plural()), target.to_string());
        let doing = Doing { verb: "update", resource: &resource, group: "apps", subject: &subject };
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let replace = async |session: Arc<Session>| {
            let workloads = self.subject.workloads(&session.client, &session.namespace);
            workloads.replace_scale(&target.name, &parameters, scale).await
        };
        match self.subject.link.attempt(replace, self.subject.link.bounds().call).await? {
            Ok(_) => Ok(true),
            Err(failed) if failed.code() == Some(409) => Ok(false),
            Err(failed) => Err(failed.into_driver_error(doing)),
        }
    }

    /// An order of a leader that is none any more is void.
    fn fence(&self, generation: u64) -> Result<(), DriverError> {
        let newest = self.newest_leader.fetch_max(generation, Ordering::Relaxed);
        if generation >= newest {
            return Ok(());
        }
        Err(DriverError {
            what: format!("an order of leader generation {generation} came after one of generation {newest}"),
            advice: "nothing: another proxy leads now".to_owned(),
            kind: ErrorKind::Fenced,
        })
    }

    pub(super) async fn no_rival(&self) -> Result<(), DriverError> {
        let patience = self.subject.link.bounds().call;
        let asked = self.subject.view.once(patience, |known| known.asked_for_rivals.then(|| known.rival.clone())).await;
        match asked {
            Some(None) => Ok(()),
            Some(Some(rival)) => Err(rival),
            None => Err(DriverError {
                what: format!("whether somebody else scales {} is not known yet", self.subject.target),
                advice: "check that the API server answers; nothing is changed before that is known".to_owned(),
                kind: ErrorKind::Unreachable,
            }),
        }
    }

    /// No use asking for more than there is room for.
    fn room_for(&self, desired: i32) -> Result<(), DriverError> {
        let known = self.subject.view.known();
        match &known.full {
            Some(full) if i64::from(desired) > known.active() as i64 => Err(full.clone()),
            _ => Ok(()),
        }
    }

    fn interfered(&self, from: i32, to: i32) -> DriverError {
        let target = &self.subject.target;
        DriverError {
            what: format!(
                "somebody else changed the number of {target} from {from} to {to} while Tidegate was setting it"
            ),
            advice: "take `replicas` out of the manifest that is applied over and over, and let nothing else scale it"
                .to_owned(),
            kind: ErrorKind::OtherScaler,
        }
    }

    /// Marks these and no others.
    pub(super) async fn mark_only(&self, marked: &[InstanceId]) -> Result<(), DriverError> {
        let stale = self.that_are(true, |id| !marked.contains(id));
        self.mark_first(marked).await?;
        self.write_cost(stale, None).await
    }

    async fn mark_first(&self, victims: &[InstanceId]) -> Result<(), DriverError> {
        if self.subject.target.kind == Kind::StatefulSet {
            return Ok(());
        }
        self.write_cost(self.that_are(false, |id| victims.contains(id)), Some(FIRST_TO_GO)).await
    }

    /// The pods that are marked by us, or are not, and are among these.
    fn that_are(&self, marked: bool, among: impl Fn(&InstanceId) -> bool) -> Vec<InstanceId> {
        let known = self.subject.view.known();
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let pods = known.pods.as_ref();
        marks.retain(|id, _| pods.is_some_and(|pods| pods.contains_key(id)));
        let shown = |pod: &Seen| pod.deletion_cost.as_deref() == Some(FIRST_TO_GO);
        let is_so = |(id, pod): &(&InstanceId, &Seen)| marks.get(*id).copied().unwrap_or_else(|| shown(pod)) == marked;
        pods.into_iter()
            .flatten()
            .filter(|(_, pod)| pod.active)
            .filter(is_so)
            .map(|(id, _)| id.clone())
            .filter(among)
            .collect()
    }

    async fn write_cost(&self, pods: Vec<InstanceId>, cost: Option<&str>) -> Result<(), DriverError> {
        let patch = json!({ "metadata": { "annotations": { DELETION_COST: cost } } });
        let written = futures_util::stream::iter(pods).map(async |pod| {
            let written = self.annotate(&pod, &patch).await;
            let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
            // Where it is not known what has become of it, the watch will tell.
            if written.is_ok() {
                marks.insert(pod, cost.is_some())
            } else {
                marks.remove(&pod)
            };
            written
        });
        // All are tried before the first failure is told.
        written.buffer_unordered(AT_ONCE).fold(Ok(()), async |all, one| all.and(one)).await
    }

    async fn annotate(&self, pod: &str, patch: &Value) -> Result<(), DriverError> {
        let subject = format!("pod \"{pod}\"");
        let doing = Doing { verb: "patch", resource: "pods", group: "", subject: &subject };
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let write = async |session: Arc<Session>| {
            let pods: Api<Pod> = Api::namespaced(session.client.clone(), &session.namespace);
            pods.patch_metadata(pod, &parameters, &Patch::Merge(patch)).await
        };
        match self.subject.link.attempt(write, self.subject.link.bounds().call).await? {
            Ok(_) => Ok(()),
            // It has gone by itself.
            Err(failed) if failed.code() == Some(404) => Ok(()),
            Err(failed) => Err(failed.into_driver_error(doing)),
        }
    }
}

/// Who goes in any case where a workload's number falls by `count`.
///
/// A StatefulSet removes the highest ordinal first. A ReplicaSet removes pods that are not ready before all others, whatever they cost.
pub(super) fn forced(kind: Kind, found: &[Found], count: usize) -> Option<Vec<InstanceId>> {
    let here = found.iter().filter(|found| found.life != Life::Stopping);
    let mut first: Vec<&Found> = match kind {
        Kind::StatefulSet => here.collect(),
        Kind::Deployment => here.filter(|found| found.life != Life::Running).collect(),
    };
    let ordinal = |found: &Found| found.id.rsplit('-').next().and_then(|ordinal| ordinal.parse::<u64>().ok());
    match kind {
        Kind::StatefulSet => first.sort_by_key(|found| std::cmp::Reverse(ordinal(found))),
        // Those without a node go before those with one.
        Kind::Deployment => first.sort_by_key(|found| found.address.is_some()),
    }
    let first: Vec<InstanceId> = first.into_iter().take(count).map(|found| found.id.clone()).collect();
    (kind == Kind::StatefulSet || !first.is_empty()).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(id: &str, life: Life) -> Found {
        let address = (life == Life::Running).then(|| "10.0.0.1:80".parse().unwrap());
        Found {
            id: id.to_owned(),
            address,
            life,
            spec: None,
            started: None,
            generation: 0,
            detail: String::new(),
            zone: None,
        }
    }

    #[test]
    fn a_statefulset_loses_its_highest_ordinals() {
        let pods: Vec<Found> = [0, 1, 2, 9, 10].map(|n| found(&format!("db-{n}"), Life::Running)).to_vec();
        assert_eq!(forced(Kind::StatefulSet, &pods, 2).unwrap(), ["db-10", "db-9"]);
        let mut stopping = pods.clone();
        stopping[4].life = Life::Stopping;
        assert_eq!(forced(Kind::StatefulSet, &stopping, 2).unwrap(), ["db-9", "db-2"]);
        assert_eq!(forced(Kind::StatefulSet, &pods, 9).unwrap().len(), 5);
    }

    #[test]
    fn a_deployment_loses_what_is_not_ready_and_leaves_the_rest_to_us() {
        let mut pods = vec![
            found("a", Life::Running),
            found("b", Life::Pending),
            found("c", Life::Running),
            found("d", Life::Stopping),
        ];
        assert_eq!(forced(Kind::Deployment, &pods, 2).unwrap(), ["b"]);
        pods.remove(1);
        assert_eq!(forced(Kind::Deployment, &pods, 2), None);
    }
}
