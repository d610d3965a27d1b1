//! A pool as the tests of this room show it.

use super::times::tests::NOON;
use crate::admin::scaling::{Finding, InstanceStatus, Outcome, PoolScaler, Record, Sample, ScalerStatus, Series};
use crate::scale::{Decision, Limit, Observed, Source, Terms};

pub(super) fn status(pools: Vec<PoolScaler>) -> ScalerStatus {
    ScalerStatus {
        now: NOON,
        leadership: "none".to_owned(),
        generation: 3,
        instance_hour: 0.21,
        currency: "USD".to_owned(),
        pools,
        ..ScalerStatus::default()
    }
}

/// 7 -> 9, as in the design's example.
pub(super) fn record() -> Record {
    let terms = Terms {
        rate: 10.4,
        window: 4.0,
        surprise: 3.9,
        service_time: 2.05,
        level: 21.3,
        trend: 2.8,
        forecast: 24.1,
        error: 2.0,
        staffing: 2.9,
        slots: 29.0,
        capacity: 4.0,
        learned: true,
        lead: 2.1,
        hold: 30.0,
        base: 8,
        ..Terms::default()
    };
    let source = |name: &str, wants, why: &str| Source { name: name.to_owned(), wants, why: why.to_owned() };
    let decision = Decision {
        at: NOON - 12.0,
        current: 7,
        raw: 8,
        wanted: 9,
        desired: 9,
        apply: true,
        reason: "trend".to_owned(),
        terms,
        sources: vec![
            source("load", Some(8), "29.0 slots at 4.0 an instance"),
            source("policy:pool_pressure", Some(9), "pool_utilisation 0.86 > 85%: +50%"),
            source("signal:external:jobs", None, "no value for 2m 5s"),
        ],
        next_down_at: Some(NOON + 18.0),
        ..Decision::default()
    };
    Record {
        id: "01JXA".to_owned(),
        pool: "mcp".to_owned(),
        generation: 3,
        decision,
        seen: Observed { span: 1.0, arrivals: 10.0, in_flight: 24.08, complete: true, ..Observed::default() },
        outcome: Some(Outcome {
            ready_after: Some(2.2),
            p95: (Some(0.42), Some(0.4)),
            wait: (0.18, 0.004),
            errors: (0.0, 0.0),
            verdict: "verified".to_owned(),
            rolled_back: false,
        }),
    }
}

/// 9 -> 6, held to 7.
pub(super) fn smaller() -> Record {
    let mut record = record();
    record.id = "01JXB".to_owned();
    record.outcome = None;
    let decision = &mut record.decision;
    (decision.at, decision.current, decision.raw, decision.wanted, decision.desired) = (NOON - 3600.0, 9, 6, 6, 7);
    decision.reason = "level".to_owned();
    decision.terms.trend = 0.0;
    decision.sources.clear();
    let limit = |name: &str, from, to| Limit { name: name.to_owned(), from, to };
    decision.limits = vec![limit("behavior", 6, 7), limit("budget", 7, 7)];
    record
}

pub(super) fn mcp() -> PoolScaler {
    let finding = Finding {
        code: "START_FAILURES".to_owned(),
        severity: "critical".to_owned(),
        pool: Some("mcp".to_owned()),
        text: "3 starts failed within 5 min: exit code 3".to_owned(),
        advice: "look at its output: `journalctl -u tidegate`".to_owned(),
    };
    let counts = [("ready", 6), ("warming", 1), ("starting", 1), ("probing", 1), ("draining", 1), ("backoff", 1)];
    let first = InstanceStatus {
        id: "mcp-1".to_owned(),
        address: Some("127.0.0.1:18100".to_owned()),
        state: "ready".to_owned(),
        since_seconds: 7200.0,
        age_seconds: 7202.0,
        detail: "pid 4711".to_owned(),
        in_flight: 3,
        requests: 1234,
        sessions: 12,
        cpus: Some(0.42),
        memory: Some(66 << 20),
        ..InstanceStatus::default()
    };
    let second = InstanceStatus {
        id: "mcp-2".to_owned(),
        address: Some("127.0.0.1:18101".to_owned()),
        state: "draining".to_owned(),
        since_seconds: 30.0,
        age_seconds: 5000.0,
        detail: "pid 4712".to_owned(),
        in_flight: 1,
        sessions: 1,
        cordoned: true,
        outdated: true,
        ..InstanceStatus::default()
    };
    PoolScaler {
        pool: "mcp".to_owned(),
        mode: "on".to_owned(),
        driver: "process".to_owned(),
        min: 2,
        max: 20,
        desired: 9,
        counts: counts.map(|(state, count)| (state.to_owned(), count)).into(),
        instances: vec![first, second],
        conditions: vec![finding],
        seen: record().seen,
        last: Some(record()),
        last_change: Some(record()),
        ..PoolScaler::default()
    }
}

pub(super) fn dry() -> PoolScaler {
    let finding = Finding {
        code: "DRY_RUN".to_owned(),
        severity: "info".to_owned(),
        pool: Some("api".to_owned()),
        text: "3 are wanted, 4 are there".to_owned(),
        advice: "set mode = \"on\" when you agree".to_owned(),
    };
    PoolScaler {
        pool: "api".to_owned(),
        mode: "dry_run".to_owned(),
        paused: Some(600.0),
        set: Some((3, 3600.0)),
        min: 2,
        max: 10,
        desired: 3,
        counts: [("ready".to_owned(), 4)].into(),
        conditions: vec![finding],
        ..PoolScaler::default()
    }
}

/// A day of `mcp`, a sample each five minutes: a quiet night, a busy day, an hour that was not recorded, and a crowd that had to wait.
pub(super) fn day() -> Series {
    let sample = |n: u32| {
        let x = f64::from(n) / 288.0;
        let crowd = (200..204).contains(&n);
        let load = 12.0 - 9.0 * (x * std::f64::consts::TAU).cos() + if crowd { 20.0 } else { 0.0 };
        let ready = (load * 1.25 / 4.0).ceil().clamp(2.0, 9.0);
        Sample {
            at: NOON - 86_400.0 + 300.0 * f64::from(n + 1),
            span: 300.0,
            arrivals: load * 150.0,
            completions: load * 150.0,
            held: load * 300.0,
            in_flight: load.min(ready * 4.0),
            queue: if crowd { 6.0 } else { 0.0 },
            wait: if crowd { 0.9 } else { 0.01 },
            saturated: if crowd { 3.0 } else { 0.0 },
            p95: Some(if crowd { 3.1 } else { 2.2 }),
            ready,
            starting: if n.is_multiple_of(40) { 1.0 } else { 0.0 },
            draining: 0.0,
            desired: ready as u32,
            capacity: 4.0,
            sessions: load * 2.0,
            ..Sample::default()
        }
    };
    Series { pool: "mcp".to_owned(), samples: (0..288).filter(|n| !(60..72).contains(n)).map(sample).collect() }
}
