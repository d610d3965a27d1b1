//! What a pool's scaler is told: the model's keys, its profile expanded, in the words of [`scale`](crate::scale).

use std::time::Duration;

use super::model::{Headroom, MaxConcurrency, Pool, Rules, Scaler};
use crate::scale;

/// The settings of a pool's scaler, every default and profile filled in; none where the pool has no scaler.
pub fn settings(pool: &Pool) -> Option<scale::Settings> {
    let scaler = pool.scaler.as_ref()?;
    let profile = scale::Settings::of_profile(scaler.profile);
    let capacity = match pool.max_concurrency {
        Some(MaxConcurrency::Count(count)) => scale::Capacity::Fixed(f64::from(count)),
        Some(MaxConcurrency::Learn) | None => profile.capacity,
    };
    let down = &scaler.behavior.scale_down;
    Some(scale::Settings {
        mode: scaler.mode,
        min: scaler.min,
        max: scaler.max,
        capacity,
        slo: scale::Slo { wait: scaler.slo.wait.as_secs_f64(), target: scaler.slo.target.0 },
        headroom: match scaler.headroom {
            Headroom::Learned => profile.headroom,
            Headroom::Beta(beta) => scale::Headroom { quantile: None, beta },
        },
        hold: scaler.hold.map_or(profile.hold, |hold| fixed(hold, profile.hold)),
        trend: scaler.predict.trend,
        periods: scaler.predict.periods,
        seasonal: scaler.predict.seasonal.iter().map(Duration::as_secs_f64).collect(),
        first_lead: first_lead(scaler),
        // Paces of the operator's own say how fast; without them no step takes more than the profile allows.
        max_step_down: if down.policies.0.is_empty() { profile.max_step_down } else { 1.0 },
        max_step_up: scaler.behavior.max_step_ratio,
        idle_for: scaler.sleep.idle_for.as_secs_f64(),
        wake_to: scaler.sleep.wake_to,
        signals: signals(scaler),
        policies: policies(scaler),
        schedules: schedules(scaler),
        up: rules(&scaler.behavior.scale_up, &profile.up),
        down: rules(down, &profile.down),
        max_changes_per_hour: scaler.max_changes_per_hour,
        verify: scale::Verify {
            window: scaler.verify.window.as_secs_f64(),
            ready_within: scaler.restart.start_deadline.unwrap_or_default().as_secs_f64(),
            rollback: scaler.verify.rollback,
            freeze: scaler.verify.freeze.as_secs_f64(),
        },
    })
}

/// A hold of the operator's own: it still grows with regret, as far as the profile's does.
fn fixed(hold: Duration, profile: scale::Hold) -> scale::Hold {
    let hold = hold.as_secs_f64();
    scale::Hold { leads: 0.0, min: hold, max: hold.max(profile.max), regret: profile.regret }
}

/// What starts take by their kind, until some were measured.
fn first_lead(scaler: &Scaler) -> f64 {
    if scaler.process.is_some() || scaler.systemd.is_some() {
        3.0
    } else if scaler.docker.is_some() {
        5.0
    } else {
        15.0
    }
}

fn signals(scaler: &Scaler) -> Vec<scale::Signal> {
    let signal = |signal: &super::model::Signal| scale::Signal {
        metric: signal.metric.clone(),
        target: signal.target,
        up_only: signal.up_only,
    };
    scaler.signal.iter().map(signal).collect()
}

fn policies(scaler: &Scaler) -> Vec<scale::Policy> {
    let policy = |policy: &super::model::Policy| scale::Policy {
        name: policy.name.clone(),
        when: policy.when.clone(),
        lasting: policy.r#for.as_secs_f64(),
        adjust: policy.adjust,
        cooldown: policy.cooldown.as_secs_f64(),
        min: policy.min,
        max: policy.max,
    };
    scaler.policy.iter().filter(|policy| policy.enabled).map(policy).collect()
}

fn schedules(scaler: &Scaler) -> Vec<scale::Schedule> {
    let schedule = |schedule: &super::model::Schedule| scale::Schedule {
        name: schedule.name.clone().unwrap_or_else(|| schedule.cron.clone()),
        cron: schedule.cron.clone(),
        lasting: schedule.r#for.as_secs_f64(),
        tz: schedule.tz.clone(),
        min: schedule.min,
        max: schedule.max,
    };
    scaler.schedule.iter().map(schedule).collect()
}

fn rules(rules: &Rules, profile: &scale::Rules) -> scale::Rules {
    scale::Rules {
        stabilization: rules.stabilization.map(|window| window.as_secs_f64()),
        policies: rules.policies.0.clone(),
        select: rules.select,
        tolerance: rules.tolerance.map_or(profile.tolerance, |tolerance| tolerance.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Memory, read_text};

    fn settings_of(text: &str) -> scale::Settings {
        let text = format!("[listener.web]\nbind = \":80\"\n[[route]]\npool = \"a\"\n[pool.a]\n{text}");
        let outcome = read_text("t.toml", &text, &Memory::default());
        let config = outcome.config.unwrap_or_else(|| panic!("{}", crate::config::render(&outcome.problems, false)));
        settings(&config.pool["a"]).unwrap()
    }

    const PROCESS: &str = "process = { command = [\"app\", \"{port}\"] }\n";

    #[test]
    fn what_is_not_said_is_the_profile_s() {
        for (word, profile) in scale::Profile::WORDS {
            let found = settings_of(&format!("[pool.a.scaler]\nprofile = \"{word}\"\n{PROCESS}"));
            let expected = scale::Settings { first_lead: 3.0, ..scale::Settings::of_profile(*profile) };
            assert_eq!(found, expected, "{word}");
        }
        let text = "upstreams = \"127.0.0.1:1\"\n";
        let config = read_text(
            "t.toml",
            &format!("[listener.web]\nbind = \":80\"\n[[route]]\npool = \"a\"\n[pool.a]\n{text}"),
            &Memory::default(),
        )
        .config;
        assert_eq!(settings(&config.unwrap().pool["a"]), None);
    }

    #[test]
    fn what_is_said_counts() {
        let found = settings_of(
            "max_concurrency = 8\n[pool.a.scaler]\nmode = \"up_only\"\nmin = 2\nmax = 30\nslo = \"100ms\"\nheadroom = 1.5\nhold = \"2m\"\n\
             max_changes_per_hour = 9\nsignal = { metric = \"cpu\", target = \"70%\" }\n\
             behavior = { max_step_ratio = 3, scale_up = { policies = \"50% or 4 pods per minute\", tolerance = \"5%\" }, scale_down = { stabilization = \"5m\", policies = [\"10%/1m\"], select = \"min\" } }\n\
             policy = [{ name = \"p\", when = \"queue_wait > 1s\", for = \"30s\", adjust = \"+2\" }, { name = \"q\", when = \"rps > 1\", adjust = \"=5\", enabled = false }]\n\
             schedule = { cron = \"0 8 * * *\", min = 6 }\nrestart = { start_deadline = \"4m\" }\nsleep = { idle_for = \"10m\" }\n\
             predict = { trend = false, seasonal = \"1d\" }\nexec = { command = [\"scale\"] }\nverify = { rollback = false }\n[pool.a.health]\n",
        );
        assert_eq!((found.mode, found.min, found.max), (scale::Mode::UpOnly, 2, 30));
        assert_eq!(found.capacity, scale::Capacity::Fixed(8.0));
        assert_eq!(found.slo, scale::Slo { wait: 0.1, target: 0.99 });
        assert_eq!(found.headroom, scale::Headroom { quantile: None, beta: 1.5 });
        assert_eq!(found.hold, scale::Hold { leads: 0.0, min: 120.0, max: 300.0, regret: true });
        assert_eq!((found.trend, found.seasonal, found.first_lead), (false, vec![86400.0], 15.0));
        assert_eq!((found.max_step_down, found.max_step_up, found.max_changes_per_hour), (1.0, Some(3.0), Some(9)));
        assert_eq!(found.signals[0].target, scale::Target::Utilization(0.7));
        assert_eq!(found.policies.len(), 1);
        assert_eq!((found.policies[0].lasting, found.policies[0].cooldown), (30.0, 300.0));
        assert_eq!((found.schedules[0].name.as_str(), found.schedules[0].lasting), ("0 8 * * *", 3600.0));
        assert_eq!((found.up.policies.len(), found.up.tolerance, found.up.stabilization), (2, 0.05, None));
        assert_eq!(
            (found.down.select, found.down.tolerance, found.down.stabilization),
            (scale::Select::Min, 0.1, Some(300.0))
        );
        assert_eq!((found.verify.rollback, found.verify.ready_within), (false, 240.0));
        assert_eq!(found.idle_for, 600.0);
    }
}
