//! Pods of a Kubernetes workload, whose number is set through its scale subresource; and leader election by a Lease.
//!
//! It never touches a workload's spec but for the number, never deletes a pod, and stays away from a workload that somebody else scales. The pods are
//! followed by a watch, so [`Driver::list`] costs the API server nothing. While they cannot be followed, `list` says so instead of what was once true.
//!
//! What a pod is: `Pending` until its Ready condition holds (and again when it is lost), with the reason in its detail; `Running` while ready;
//! `Stopping` once it is being deleted; `Ended` when its controller does not count it any more. A pod that waits for a node, or whose container crashes
//! over and over, is pending: it is on its way, however long that is, and not asked for again.
//!
//! Why not EndpointSlices: they do not say why something is missing, and pods have to be watched anyway for who goes first.

mod access;
mod follow;
mod lease;
mod orders;
mod pods;
mod problem;
mod survey;
mod target;
mod view;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use tokio::task::JoinHandle;

pub use access::Access;
pub use lease::Lease;
pub use target::{Kind, Port, Target, TargetError};

use super::{Driver, DriverError, ErrorKind, Found, InstanceId, Life, Order, ScaleRequest};
use crate::config::model;
use access::Link;
use follow::Subject;
use view::View;

/// The pods of one workload.
#[derive(Debug)]
pub struct KubernetesDriver {
    subject: Subject,
    /// The highest generation of a leader that has ordered anything.
    newest_leader: AtomicU64,
    /// Which pods we have marked, and unmarked: the watch shows it a little later.
    marks: Mutex<BTreeMap<InstanceId, bool>>,
    tasks: [JoinHandle<()>; 2],
}

/// How long things may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Connecting.
    pub connect: Duration,
    /// One call of the API.
    pub call: Duration,
    /// One watch; so long, and a call longer, a connection that has gone silently stays unnoticed. Whole seconds.
    pub watch: Duration,
    /// How often is looked at who else scales the workload.
    pub check: Duration,
    /// … and at why pods are missing, while some are.
    pub short_check: Duration,
    /// The first wait after a failure; doubled each time.
    pub retry: Duration,
    /// The longest wait.
    pub longest_retry: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            connect: Duration::from_secs(3),
            call: Duration::from_secs(5),
            watch: Duration::from_secs(60),
            check: Duration::from_secs(60),
            short_check: Duration::from_secs(5),
            retry: Duration::from_millis(500),
            longest_retry: Duration::from_secs(15),
        }
    }
}

impl KubernetesDriver {
    /// Begins to follow the workload.
    ///
    /// **Errors**: a target or a port that cannot be read. A cluster that cannot be reached is none: [`Driver::list`] will say so, until it can be.
    ///
    /// **Panics** outside of a tokio runtime.
    pub fn new(settings: &model::Kubernetes) -> Result<Self, DriverError> {
        Self::within(settings, Bounds::default())
    }

    /// The same with other bounds.
    pub fn within(settings: &model::Kubernetes, bounds: Bounds) -> Result<Self, DriverError> {
        let unreadable = |key: &str, text: &str, error: TargetError| {
            problem::refused(
                format!("{key} = \"{text}\" cannot be read: {error}"),
                "correct it in [pool.NAME.scaler.kubernetes]",
            )
        };
        let target = settings.target.parse().map_err(|error| unreadable("target", &settings.target, error))?;
        let port = settings.port.parse().map_err(|error| unreadable("port", &settings.port, error))?;
        let access = Access {
            kubeconfig: settings.kubeconfig.clone(),
            context: settings.context.clone(),
            namespace: settings.namespace.clone(),
        };
        let link = Arc::new(Link::new(access, bounds));
        let subject = Subject { target, port, link, view: Arc::new(View::default()) };
        let tasks = [tokio::spawn(follow::follow(subject.clone())), tokio::spawn(survey::survey(subject.clone()))];
        Ok(KubernetesDriver { subject, newest_leader: AtomicU64::new(0), marks: Mutex::default(), tasks })
    }

    async fn found(&self) -> Result<Vec<Found>, DriverError> {
        // The first list is two calls.
        let patience = self.subject.link.bounds().call * 2;
        let never = || DriverError {
            what: format!("the pods of {} are not known yet", self.subject.target),
            advice: "check that the API server answers; everything stays as it is meanwhile".to_owned(),
            kind: ErrorKind::Unreachable,
        };
        self.subject.view.found(patience, never).await
    }
}

impl Drop for KubernetesDriver {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Driver for KubernetesDriver {
    fn kind(&self) -> &'static str {
        "kubernetes"
    }

    fn by_count(&self) -> bool {
        true
    }

    fn list(&self) -> LocalBoxFuture<'_, Result<Vec<Found>, DriverError>> {
        Box::pin(self.found())
    }

    fn start<'a>(&'a self, _order: &'a Order) -> LocalBoxFuture<'a, Result<(), DriverError>> {
        Box::pin(async { Err(only_by_count()) })
    }

    fn stop<'a>(&'a self, _id: &'a InstanceId, _grace: Duration) -> LocalBoxFuture<'a, Result<(), DriverError>> {
        Box::pin(async { Err(only_by_count()) })
    }

    fn scale<'a>(&'a self, request: &'a ScaleRequest) -> LocalBoxFuture<'a, Result<(), DriverError>> {
        // Reading, marking and writing, and once more: what takes longer is not waited for.
        let bound = self.subject.link.bounds().call * 3;
        let too_slow = move || problem::too_slow("of the scale subresource", bound);
        Box::pin(
            async move { tokio::time::timeout(bound, self.set(request)).await.unwrap_or_else(|_| Err(too_slow())) },
        )
    }

    fn mark<'a>(&'a self, marked: &'a [InstanceId]) -> LocalBoxFuture<'a, Result<(), DriverError>> {
        Box::pin(async {
            self.no_rival().await?;
            self.mark_only(marked).await
        })
    }

    fn forced_victims(&self, found: &[Found], count: usize) -> Option<Vec<InstanceId>> {
        orders::forced(self.subject.target.kind, found, count)
    }

    fn hindrance(&self) -> Option<DriverError> {
        let known = self.subject.view.known();
        known.rival.clone().or_else(|| known.blind.clone()).or_else(|| known.full.clone())
    }

    fn changed(&self) -> LocalBoxFuture<'_, ()> {
        Box::pin(self.subject.view.news())
    }
}

fn only_by_count() -> DriverError {
    problem::refused("pods are not started and stopped one by one", "this is a fault of Tidegate: please report it")
}
