//! Who leaves first.

use std::collections::BTreeMap;

use super::member::Member;
use super::{Fleet, Stage};
use crate::scale::VictimOrder;

impl Fleet {
    /// The `count` that should leave first, the first of them first, as places in the list of members.
    ///
    /// Places of failed instances go before starts, starts (the newest first) before unhealthy ones, then those that are to be replaced
    /// anyway, then those that slow start still holds back, then by the operator's order. Nobody is the last of its zone while another zone
    /// has two.
    pub(super) fn victims(&self, count: usize, now: f64) -> Vec<usize> {
        let members = &self.saved.members;
        let mut candidates: Vec<usize> = (0..members.len()).filter(|at| !members[*at].stage.is_leaving()).collect();
        candidates.sort_by_cached_key(|at| self.key(&members[*at], now));
        let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
        for member in members.iter().filter(|member| member.stage.is_serving()) {
            *zones.entry(member.zone.as_deref().unwrap_or_default()).or_default() += 1;
        }
        let mut victims = Vec::new();
        while victims.len() < count && !candidates.is_empty() {
            let others_have_two = zones.values().any(|members| *members > 1);
            let spared = |at: &usize| {
                let member = &members[*at];
                let zone = member.zone.as_deref();
                member.stage.is_serving() && others_have_two && zone.is_some_and(|zone| zones.get(zone) == Some(&1))
            };
            let place = candidates.iter().position(|at| self.settings.ordinal || !spared(at)).unwrap_or(0);
            let victim = candidates.remove(place);
            if members[victim].stage.is_serving() {
                let zone = members[victim].zone.as_deref().unwrap_or_default();
                zones.entry(zone).and_modify(|members| *members -= 1);
            }
            victims.push(victim);
        }
        victims
    }

    /// The smallest leaves first.
    fn key(&self, member: &Member, now: f64) -> (u8, bool, u64, u64, i64) {
        // Milliseconds are fine enough to tell instances apart.
        let ordered = (member.ordered * 1000.0) as i64;
        if self.settings.ordinal {
            return (0, false, u64::MAX - member.number(), 0, 0);
        }
        let class = match member.stage {
            Stage::Backoff | Stage::Quarantined => 0,
            _ if member.is_unproved() => 1,
            Stage::Unhealthy => 2,
            _ if self.is_due(member, now).is_some() => 3,
            Stage::Requested | Stage::Starting | Stage::Probing => 4,
            Stage::Warming => 5,
            _ => 6,
        };
        let (first, second) = match self.settings.victim {
            _ if class < 2 => (0, 0),
            VictimOrder::FewestSessions => (member.load.sessions, member.load.in_flight),
            VictimOrder::LeastInFlight => (member.load.in_flight, member.load.sessions),
            VictimOrder::Oldest | VictimOrder::Newest => (0, 0),
        };
        let age = if self.settings.victim == VictimOrder::Oldest && class >= 2 { ordered } else { -ordered };
        // Those that are cordoned stay so: work that comes and goes must not change the choice every second.
        (class, !member.cordoned, first, second, age)
    }

    /// The first `count` victims get no new work where others have room.
    pub(super) fn cordon(&mut self, count: usize) {
        let now = self.listed.unwrap_or_default();
        let victims = if count > 0 { self.victims(count, now) } else { Vec::new() };
        for (at, member) in self.saved.members.iter_mut().enumerate() {
            member.cordoned = victims.contains(&at) && !member.stage.is_vacant();
        }
    }

    /// Why a member is to be replaced, where it is.
    pub(super) fn is_due(&self, member: &Member, now: f64) -> Option<String> {
        let settings = &self.settings;
        if member.stage.is_leaving() || member.stage.is_vacant() || member.held {
            return None;
        }
        if self.is_outdated(member) {
            return Some("its settings have changed".to_owned());
        }
        if member.recycle {
            return Some("its replacement was asked for".to_owned());
        }
        let stuck = member.stage == Stage::Unhealthy || (member.stage == Stage::Probing && member.proved.is_some());
        if stuck && now - member.since > settings.unhealthy_for {
            return Some(format!("unhealthy for {:.0} s: {}", now - member.since, member.why));
        }
        let deadline = self.start_deadline();
        if settings.by_count
            && member.stage == Stage::Probing
            && member.is_unproved()
            && now - member.awaited > deadline
        {
            return Some(format!("no good health check within {deadline:.0} s (last: {})", member.why));
        }
        if let Some(most) = settings.max_age.filter(|most| member.proved.is_some() && now - member.ordered > *most) {
            return Some(format!("it is older than {most:.0} s"));
        }
        let requests = member.requests.total;
        if let Some(most) = settings.max_requests.filter(|most| requests >= *most) {
            return Some(format!("it has had {requests} requests of at most {most}"));
        }
        let memory = member.load.memory.unwrap_or(0);
        if settings.max_memory.is_some_and(|most| memory > most) {
            return Some(format!("it uses {} MiB of memory", memory >> 20));
        }
        None
    }

    /// Whether it runs another spec than is configured now.
    pub(super) fn is_outdated(&self, member: &Member) -> bool {
        !self.settings.by_count && member.spec.as_ref().is_some_and(|spec| *spec != self.settings.spec)
    }
}
