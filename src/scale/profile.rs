use super::{Capacity, Headroom, Hold, Mode, Profile, Rules, Select, Settings, Slo, Verify};

impl Settings {
    /// What a profile means in numbers; everything that profiles say nothing about is as the configuration's defaults have it.
    pub fn of_profile(profile: Profile) -> Settings {
        let (quantile, beta, hold) = match profile {
            Profile::Fast => (0.90, 0.3, Hold { leads: 3.0, min: 15.0, max: 120.0, regret: true }),
            Profile::Balanced => (0.96, 0.3, Hold { leads: 6.0, min: 30.0, max: 300.0, regret: true }),
            Profile::Calm => (0.95, 0.3, Hold { leads: 6.0, min: 300.0, max: 900.0, regret: true }),
        };
        let rules = |tolerance| Rules { stabilization: None, policies: vec![], select: Select::Max, tolerance };
        Settings {
            mode: Mode::On,
            min: 1,
            max: 10,
            capacity: Capacity::Learned { most: 100.0 },
            slo: Slo { wait: 0.25, target: 0.99 },
            headroom: Headroom { quantile: Some(quantile), beta },
            hold,
            trend: true,
            periods: true,
            seasonal: vec![],
            first_lead: 10.0,
            max_step_down: 0.5,
            max_step_up: None,
            idle_for: 300.0,
            wake_to: 1,
            signals: vec![],
            policies: vec![],
            schedules: vec![],
            up: rules(0.0),
            down: rules(0.1),
            max_changes_per_hour: None,
            verify: Verify { window: 30.0, ready_within: 0.0, rollback: true, freeze: 600.0 },
        }
    }
}
