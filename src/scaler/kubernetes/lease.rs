//! Leader election by a Lease of coordination.k8s.io/v1, with the meaning that client-go gives its fields.
//!
//! Clocks are never compared: a lease has run out when *we* have seen it unchanged for as long as it says. A leader counts from before it asked for its
//! renewal, and is told that it leads only while it will ask again before nine tenths of the lease are over; so it has stopped before anybody else begins.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use k8s_openapi::api::coordination::v1::{Lease as Record, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};

use super::access::{Access, Link, Session};
use super::orders::FIELD_MANAGER;
use super::problem::Doing;
use super::{Bounds, DriverError};
use crate::scaler::leader::{Election, ElectionError, Standing};

/// The share of the lease after which nobody is to believe any more that we lead.
const BELIEVED: f64 = 0.9;
/// The share of the lease until which a failed renewal is forgiven: a third of it later we are asked again.
const HELD: f64 = 0.55;

/// A candidate for the leadership that a Lease gives.
#[derive(Debug)]
pub struct Lease {
    link: Link,
    name: String,
    identity: String,
    length: Duration,
    /// What was seen last, and since when it has been so.
    observed: Option<Observed>,
    /// When we began the campaign that gave us the leadership or renewed it; none while we do not lead.
    renewed: Option<Instant>,
    /// The generation that we have led, or lead.
    term: Option<u64>,
    /// The highest generation that was seen.
    generation: u64,
}

#[derive(Debug)]
struct Observed {
    spec: LeaseSpec,
    since: Instant,
}

impl Lease {
    /// A candidate of this identity. Another one of the same identity, such as this process before its restart, is somebody else all the same.
    ///
    /// **Units**: `length` is how long a leader that is not heard of stays leader; rounded up to whole seconds where others are told.
    pub fn new(access: Access, name: impl Into<String>, identity: impl Into<String>, length: Duration) -> Self {
        // A campaign is a read and a write, and may take half a lease.
        let bounds = Bounds { connect: length / 5, call: length / 5, ..Bounds::default() };
        Lease {
            link: Link::new(access, bounds),
            name: name.into(),
            identity: identity.into(),
            length,
            observed: None,
            renewed: None,
            term: None,
            generation: 0,
        }
    }

    async fn run(&mut self) -> Result<Standing, ElectionError> {
        let begun = Instant::now();
        let end = self.renewed.map(|renewed| renewed + self.length.mul_f64(BELIEVED));
        if end.is_some_and(|end| end <= begun) {
            // Somebody else may lead by now. Whoever asks is told before we try again.
            self.renewed = None;
            let what = format!("the leadership was not renewed for most of its {:?}", self.length);
            let advice = "see what kept this process: the machine, or the API server; another proxy leads meanwhile";
            return Err(ElectionError { what, advice: advice.to_owned() });
        }
        let bound = end.map_or(self.length / 2, |end| (end - begun).min(self.length / 2));
        let outcome = match tokio::time::timeout(bound, self.attempt(begun)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(super::problem::too_slow("of the Lease", bound)),
        };
        let can_wait = self.renewed.is_some_and(|renewed| renewed.elapsed() < self.length.mul_f64(HELD));
        match outcome {
            Ok(standing) => Ok(standing),
            Err(error) if can_wait => {
                tracing::warn!(lease = %self.name, "the leadership was not renewed, and is held for now: {error}");
                Ok(self.standing(true))
            }
            Err(DriverError { what, advice, .. }) => {
                self.renewed = None;
                Err(ElectionError { what, advice })
            }
        }
    }

    fn standing(&self, leads: bool) -> Standing {
        let holder = self.observed.as_ref().and_then(|observed| holder(&observed.spec)).map(str::to_owned);
        Standing { leads, leader: holder, generation: self.generation }
    }

    async fn attempt(&mut self, begun: Instant) -> Result<Standing, DriverError> {
        // Who writes to it between our read and our write has either taken it, or only put a label on it.
        for _ in 0..2 {
            let Some(mut record) = self.read().await? else {
                let spec = self.claim(None);
                if self.create(&spec).await? {
                    return Ok(self.lead(spec, begun));
                }
                continue;
            };
            let spec = record.spec.take().unwrap_or_default();
            self.observe(&spec);
            if !self.is_free(&spec) {
                self.renewed = None;
                return Ok(self.standing(false));
            }
            let claimed = self.claim(Some(&spec));
            record.spec = Some(claimed.clone());
            if self.replace(&record).await? {
                return Ok(self.lead(claimed, begun));
            }
        }
        self.renewed = None;
        Ok(self.standing(false))
    }

    fn lead(&mut self, spec: LeaseSpec, begun: Instant) -> Standing {
        self.observe(&spec);
        self.term = Some(transitions(&spec));
        self.renewed = Some(begun);
        self.standing(true)
    }

    fn observe(&mut self, spec: &LeaseSpec) {
        self.generation = self.generation.max(transitions(spec));
        if self.observed.as_ref().is_none_or(|observed| observed.spec != *spec) {
            self.observed = Some(Observed { spec: spec.clone(), since: Instant::now() });
        }
    }

    /// Whether it may be taken: ours, nobody's, or not renewed for as long as it says, by our own clock.
    fn is_free(&self, spec: &LeaseSpec) -> bool {
        if holder(spec).is_none() {
            return true;
        }
        let length =
            spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
        let age = self.observed.as_ref().map_or(Duration::ZERO, |observed| observed.since.elapsed());
        self.is_ours(spec) || age >= length.unwrap_or(self.length)
    }

    /// Whether this very candidate has taken it: a name alone can be borne by two, one after the other.
    fn is_ours(&self, spec: &LeaseSpec) -> bool {
        holder(spec) == Some(&self.identity) && self.term == Some(transitions(spec))
    }

    /// What it says once it is ours.
    fn claim(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let kept = before.filter(|spec| self.is_ours(spec));
        // Also a Lease that somebody has deleted does not make generations grow smaller.
        let generation = match kept {
            Some(spec) => transitions(spec).max(self.generation),
            None if before.is_none() && self.generation == 0 => 1,
            None => before.map_or(0, transitions).max(self.generation) + 1,
        };
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(self.length.as_secs_f64().ceil() as i32),
            acquire_time: kept.and_then(|spec| spec.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: i32::try_from(generation).ok(),
            ..before.cloned().unwrap_or_default()
        }
    }

    async fn read(&self) -> Result<Option<Record>, DriverError> {
        let get = async |session: Arc<Session>| leases(&session).get(&self.name).await;
        match self.link.attempt(get, self.link.bounds().call).await? {
            Ok(record) => Ok(Some(record)),
            Err(failed) if failed.code() == Some(404) => Ok(None),
            Err(failed) => Err(failed.into_driver_error(doing("get", &self.subject()))),
        }
    }

    /// Whether nobody was faster.
    async fn create(&self, spec: &LeaseSpec) -> Result<bool, DriverError> {
        let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
        let record = Record { metadata, spec: Some(spec.clone()) };
        let create = async |session: Arc<Session>| leases(&session).create(&parameters(), &record).await;
        self.write("create", self.link.attempt(create, self.link.bounds().call).await?)
    }

    /// Whether nobody was faster.
    async fn replace(&self, record: &Record) -> Result<bool, DriverError> {
        let replace = async |session: Arc<Session>| leases(&session).replace(&self.name, &parameters(), record).await;
        self.write("update", self.link.attempt(replace, self.link.bounds().call).await?)
    }

    fn write(&self, verb: &'static str, answer: Result<Record, super::access::Failed>) -> Result<bool, DriverError> {
        match answer {
            Ok(_) => Ok(true),
            // Taken, or gone, meanwhile.
            Err(failed) if failed.code() == Some(409) || verb == "update" && failed.code() == Some(404) => Ok(false),
            Err(failed) => Err(failed.into_driver_error(doing(verb, &self.subject()))),
        }
    }

    fn subject(&self) -> String {
        format!("Lease \"{}\"", self.name)
    }

    /// Nobody's, so that the next one need not wait.
    async fn release(&mut self) -> Result<(), DriverError> {
        let Some(mut record) = self.read().await? else { return Ok(()) };
        let spec = record.spec.take().unwrap_or_default();
        if !self.is_ours(&spec) {
            return Ok(());
        }
        let now = MicroTime(Timestamp::now());
        let (acquire_time, renew_time) = (Some(now.clone()), Some(now));
        record.spec = Some(LeaseSpec {
            holder_identity: None,
            lease_duration_seconds: Some(1),
            acquire_time,
            renew_time,
            ..spec
        });
        self.replace(&record).await.map(drop)
    }
}

impl Election for Lease {
    fn campaign(&mut self) -> LocalBoxFuture<'_, Result<Standing, ElectionError>> {
        Box::pin(self.run())
    }

    fn resign(&mut self) -> LocalBoxFuture<'_, ()> {
        Box::pin(async {
            if self.renewed.take().is_none() {
                return;
            }
            let bound = self.length / 2;
            match tokio::time::timeout(bound, self.release()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(lease = %self.name, "the leadership was not given up and runs out by itself: {error}")
                }
                Err(_) => {
                    tracing::warn!(lease = %self.name, "the leadership was not given up within {bound:?} and runs out by itself")
                }
            }
        })
    }
}

/// Nobody is written as nothing, or as an empty string.
fn holder(spec: &LeaseSpec) -> Option<&str> {
    spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

fn transitions(spec: &LeaseSpec) -> u64 {
    spec.lease_transitions.and_then(|transitions| u64::try_from(transitions).ok()).unwrap_or(0)
}

fn leases(session: &Session) -> Api<Record> {
    Api::namespaced(session.client.clone(), &session.namespace)
}

fn parameters() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

fn doing<'a>(verb: &'static str, subject: &'a str) -> Doing<'a> {
    Doing { verb, resource: "leases", group: "coordination.k8s.io", subject }
}
