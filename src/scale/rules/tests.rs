use crate::scale::{Capacity, Headroom, Hold, Instance, Mode, Observed, Phase, Rules, Select, Settings, Slo, Verify};

/// A scaler without any rule.
pub(super) fn settings() -> Settings {
    let rules = || Rules { stabilization: None, policies: Vec::new(), select: Select::Max, tolerance: 0.0 };
    Settings {
        mode: Mode::On,
        min: 1,
        max: 20,
        capacity: Capacity::Fixed(4.0),
        slo: Slo { wait: 0.25, target: 0.99 },
        headroom: Headroom { quantile: Some(0.95), beta: 0.3 },
        hold: Hold { leads: 6.0, min: 30.0, max: 300.0, regret: true },
        trend: true,
        periods: false,
        seasonal: Vec::new(),
        first_lead: 5.0,
        max_step_down: 0.5,
        max_step_up: None,
        idle_for: 300.0,
        wake_to: 1,
        signals: Vec::new(),
        policies: Vec::new(),
        schedules: Vec::new(),
        up: rules(),
        down: rules(),
        max_changes_per_hour: None,
        verify: Verify { window: 30.0, ready_within: 0.0, rollback: true, freeze: 600.0 },
    }
}

/// A pool with so many ready and so many starting instances.
pub(super) fn pool(ready: u32, starting: u32) -> Observed {
    let instance = |phase| Instance { phase, age: 100.0 };
    let ready = (0..ready).map(|_| instance(Phase::Ready));
    let instances = ready.chain((0..starting).map(|_| instance(Phase::Starting))).collect();
    Observed { span: 1.0, instances, complete: true, ..Observed::default() }
}
