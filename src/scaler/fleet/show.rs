//! What the fleet tells: control its replicas, the decision its instances, people how everybody is.

use std::collections::HashMap;
use std::sync::Arc;

use super::member::Member;
use super::{Fleet, Stage};
use crate::admin::scaling::{Finding, InstanceStatus};
use crate::scale::{Instance, Phase};
use crate::snapshot::{Intent, Replica};
use crate::types::Address;

/// Having been asked to, an instance should have stopped so long after its grace.
const STOPS_WITHIN: f64 = 60.0;

impl Fleet {
    /// The whole set for control. An address is there once.
    pub(super) fn replicas(&self) -> Vec<Replica> {
        let mut replicas: Vec<Replica> = Vec::new();
        let mut places: HashMap<&Address, usize> = HashMap::new();
        let drain = Intent::Drain { requests: self.settings.drain_requests, sessions: self.settings.drain_sessions };
        for member in &self.saved.members {
            let intent = match member.stage {
                Stage::Probing | Stage::Warming | Stage::Ready | Stage::Unhealthy if member.cordoned => Intent::Cordon,
                Stage::Probing | Stage::Warming | Stage::Ready | Stage::Unhealthy => Intent::Serve,
                Stage::Draining => drain,
                _ => continue,
            };
            let Some(address) = &member.address else { continue };
            let replica = Replica { id: Arc::from(&*member.id), address: address.clone(), intent };
            match places.get(address).map(|place| &mut replicas[*place]) {
                // Somebody leaves and the next has its address already.
                Some(other) if matches!(other.intent, Intent::Drain { .. }) => *other = replica,
                Some(_) => {}
                None => {
                    places.insert(address, replicas.len());
                    replicas.push(replica);
                }
            }
        }
        replicas
    }

    /// The instances as a decision is to see them. While somebody is replaced there is one more than wanted; that one is not shown, so that
    /// it is never taken for the new size.
    pub fn instances(&self, now: f64) -> Vec<Instance> {
        let extra = self.present() > self.saved.base.unwrap_or(0) && self.target > self.saved.base.unwrap_or(0);
        let hidden = if extra { self.hidden(now) } else { None };
        let mut instances = Vec::with_capacity(self.saved.members.len());
        for (at, member) in self.saved.members.iter().enumerate() {
            let (phase, since) = phase(member);
            let phase = match hidden {
                Some((place, None)) if place == at => continue,
                Some((place, Some(phase))) if place == at => phase,
                _ => phase,
            };
            instances.push(Instance { phase, age: (now - since).max(0.0) });
        }
        if let Some((missing, span)) = self.announced(now) {
            instances.extend((0..missing).map(|_| Instance { phase: Phase::Starting, age: span.max(0.0) }));
        }
        instances
    }

    /// Who is the one more: the replacement while it does not work yet (as nothing), then the replaced one (as leaving).
    fn hidden(&self, now: f64) -> Option<(usize, Option<Phase>)> {
        let present = |member: &Member| !member.stage.is_leaving();
        let is_due = |member: &Member| self.is_due(member, now).is_some();
        let members = &self.saved.members;
        let replacement =
            members.iter().rposition(|member| present(member) && !is_due(member) && !member.stage.is_serving());
        let replaced = || members.iter().position(|member| present(member) && is_due(member));
        replacement.map(|at| (at, None)).or_else(|| replaced().map(|at| (at, Some(Phase::Draining))))
    }

    /// Everybody, for people.
    pub fn status(&self, now: f64) -> Vec<InstanceStatus> {
        let mut all: Vec<&Member> = self.saved.members.iter().collect();
        all.sort_by_key(|member| (member.number(), member.id.clone()));
        let shown = |member: &Member| InstanceStatus {
            id: member.id.clone(),
            address: member.address.as_ref().map(ToString::to_string),
            state: member.stage.word().to_owned(),
            since_seconds: (now - member.since).max(0.0),
            age_seconds: (now - member.ordered).max(0.0),
            detail: self.detail(member, now),
            in_flight: member.load.in_flight,
            requests: member.requests.total,
            sessions: member.load.sessions,
            cpus: member.load.cpus,
            memory: member.load.memory,
            cordoned: member.cordoned,
            outdated: self.is_outdated(member),
            attempts: member.attempts,
        };
        all.into_iter().map(shown).collect()
    }

    fn detail(&self, member: &Member, now: f64) -> String {
        let mut parts = vec![member.why.clone(), member.detail.clone()];
        if member.stage == Stage::Backoff {
            parts.push(format!("tried again in {:.0} s", (member.again - now).max(0.0)));
        }
        if let Some(why) = self.is_due(member, now) {
            parts.push(format!("to be replaced: {why}"));
        }
        parts.retain(|part| !part.is_empty());
        parts.join("; ")
    }

    /// What needs attention now.
    pub(super) fn findings(&self, now: f64) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut add = |code: &str, severity: &str, text: String, advice: &str| {
            let pool = Some(self.pool.clone());
            let (code, severity, advice) = (code.to_owned(), severity.to_owned(), advice.to_owned());
            findings.push(Finding { code, severity, pool, text, advice });
        };
        if let Some(block) = &self.saved.blocked {
            let text = format!(
                "{} starts have failed within 5 minutes, so nothing is added; the last was {}; one is tried again in {:.0} s",
                block.failures,
                block.last,
                (block.trial - now).max(0.0)
            );
            let advice = "read what the instance has written, put right its command or settings (a changed one is tried at once), and see `tidegate scaler status`";
            add("START_FAILURES", "critical", text, advice);
        }
        let trouble = &self.trouble;
        if now < trouble.full_until {
            add("QUOTA", "warning", trouble.full.clone(), &trouble.advice);
        }
        if now < trouble.other_until {
            add("OTHER_SCALER", "critical", trouble.other.clone(), &trouble.other_advice);
        }
        let named = |stage: Stage, after: f64| -> Vec<&str> {
            let late = self.saved.members.iter().filter(|member| member.stage == stage && now - member.since >= after);
            late.map(|member| member.id.as_str()).collect()
        };
        let orphans = named(Stage::Orphan, 0.0);
        if !orphans.is_empty() {
            let text = format!("{} run and nobody wants them: {}", orphans.len(), orphans.join(", "));
            add(
                "ORPHAN",
                "warning",
                text,
                "they are drained and stopped as soon as this proxy may do so; it may not while it is not the leader or lacks data",
            );
        }
        let stubborn = named(Stage::Stopping, self.settings.grace.as_secs_f64() + STOPS_WITHIN);
        if !stubborn.is_empty() && !self.settings.by_count {
            let text = format!("{} have been told to stop and have not: {}", stubborn.len(), stubborn.join(", "));
            add(
                "NOT_STOPPING",
                "warning",
                text,
                "it is tried again and again; see what keeps them, and end them by hand if need be",
            );
        }
        if let Some((missing, span)) = self.announced(now).filter(|(_, span)| *span > self.settings.converge) {
            let text = format!("{missing} instances that were asked for {span:.0} s ago are not there");
            add(
                "NOT_CONVERGING",
                "critical",
                text,
                "see what whoever makes them says: quota, image, scheduling; and whether the pool is told of new ones",
            );
        }
        findings
    }
}

/// What a decision takes a member for, and since when.
fn phase(member: &Member) -> (Phase, f64) {
    match member.stage {
        Stage::Requested | Stage::Starting => (Phase::Starting, member.ordered),
        // One that had worked before is looked at anew after a restart of ours: that takes no start-up time.
        Stage::Probing if member.proved.is_some() => (Phase::Starting, member.since),
        Stage::Probing => (Phase::Starting, member.ordered),
        Stage::Warming | Stage::Ready => (Phase::Ready, member.ordered),
        Stage::Unhealthy | Stage::Backoff | Stage::Quarantined => (Phase::Unhealthy, member.ordered),
        Stage::Draining | Stage::Stopping | Stage::Orphan => (Phase::Draining, member.ordered),
    }
}
