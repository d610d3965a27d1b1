/// What is to grow, from where, and within what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Growth {
    /// The largest load measured, in erlangs.
    pub peak: f64,
    /// Slots of one instance.
    pub capacity: f64,
    /// Growth in a month: 0.15 is 15 %.
    pub rate: f64,
    /// How many months to look ahead; 0 to 600.
    pub months: u32,
    /// Room on top: 0.2 is 20 %.
    pub margin: f64,
    /// The most instances that the configuration allows.
    pub max: u32,
    /// One instance for one hour, in money.
    pub instance_hour: f64,
    /// The mean fleet for each instance of the peak's; 1 for a fixed fleet.
    pub mean_share: f64,
}

/// A month to come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Milestone {
    /// From now; 0 is today.
    pub month: u32,
    /// The largest load, in erlangs.
    pub load: f64,
    /// Instances for it, the margin included.
    pub instances: u32,
    /// Money a month, scaled as today.
    pub cost: f64,
    /// Whether the configuration's maximum is too small for it.
    pub beyond: bool,
}

/// Hours of a month: a twelfth of 365.25 days.
const MONTH: f64 = 730.5;

/// Today and each month to come. Empty where load or capacity are not known.
pub fn grow(plan: &Growth) -> Vec<Milestone> {
    if !(plan.peak.is_finite() && plan.capacity > 0.0 && plan.rate > -1.0) {
        return Vec::new();
    }
    let month = |month: u32| {
        let load = plan.peak * (1.0 + plan.rate).powi(month.min(600) as i32);
        let instances = instances(load, plan.capacity, plan.margin);
        let cost = f64::from(instances) * plan.mean_share * plan.instance_hour * MONTH;
        Milestone { month, load, instances, cost, beyond: instances > plan.max }
    };
    (0..=plan.months.min(600)).map(month).collect()
}

/// Instances for a load, at least one.
fn instances(load: f64, capacity: f64, margin: f64) -> u32 {
    // The cast saturates: growth of decades is no number of machines anyway.
    ((load * (1.0 + margin) / capacity - 1e-9).ceil() as u32).max(1)
}

/// The month in which the configuration's maximum is exceeded, also beyond the months looked at; none where load does not grow that far in 50 years.
pub fn beyond_in(plan: &Growth) -> Option<u32> {
    grow(&Growth { months: 600, ..*plan }).iter().find(|milestone| milestone.beyond).map(|milestone| milestone.month)
}

/// In how many zones so many instances are worth spreading: one up to 3, two up to 10, then three.
pub fn zones(instances: u32) -> u32 {
    match instances {
        0..=3 => 1,
        4..=10 => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Growth = Growth {
        peak: 20.0,
        capacity: 4.0,
        rate: 0.15,
        months: 12,
        margin: 0.2,
        max: 12,
        instance_hour: 0.1,
        mean_share: 0.5,
    };

    #[test]
    fn load_compounds_and_instances_follow() {
        let months = grow(&PLAN);
        assert_eq!(months.len(), 13);
        assert_eq!((months[0].instances, months[0].load), (6, 20.0));
        assert!((months[12].load - 20.0 * 1.15f64.powi(12)).abs() < 1e-9);
        assert_eq!(months[12].instances, 33);
        assert!((months[0].cost - 6.0 * 0.5 * 0.1 * 730.5).abs() < 1e-9);
        assert!(months.is_sorted_by_key(|milestone| milestone.instances));
    }

    #[test]
    fn the_month_beyond_the_maximum_is_found_also_past_the_horizon() {
        assert_eq!(beyond_in(&PLAN), Some(5));
        assert!(!grow(&PLAN)[4].beyond && grow(&PLAN)[5].beyond);
        assert_eq!(beyond_in(&Growth { months: 1, ..PLAN }), Some(5));
        assert_eq!(beyond_in(&Growth { rate: 0.0, ..PLAN }), None);
        assert_eq!(beyond_in(&Growth { max: 3, ..PLAN }), Some(0));
    }

    #[test]
    fn what_is_not_known_is_not_planned_with() {
        for plan in [
            Growth { capacity: 0.0, ..PLAN },
            Growth { peak: f64::NAN, ..PLAN },
            Growth { rate: -1.0, ..PLAN },
            Growth { capacity: f64::NAN, ..PLAN },
        ] {
            assert_eq!(grow(&plan), []);
        }
        let huge = grow(&Growth { rate: 1e9, months: 500, ..PLAN });
        assert_eq!(huge.last().unwrap().instances, u32::MAX);
        assert_eq!(grow(&Growth { peak: 0.0, ..PLAN })[0].instances, 1);
    }

    #[test]
    fn exact_multiples_need_no_further_instance() {
        assert_eq!(grow(&Growth { peak: 10.0, margin: 0.2, capacity: 4.0, ..PLAN })[0].instances, 3);
        assert_eq!([3, 4, 10, 11].map(zones), [1, 2, 2, 3]);
    }
}
