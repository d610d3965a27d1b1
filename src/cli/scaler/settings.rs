//! A scaler's settings as they are in force.

use std::fmt::Write;

use crate::cli::Failure;
use crate::cli::status::number;
use crate::config::{self, Disk, HIDDEN};
use crate::scale::{Profile, Settings};

/// The `[pool.NAME.scaler]` of a configuration as `tidegate show` writes it, and what its profile means in numbers.
///
/// **Errors**: the pool has no scaler there.
pub(super) fn render(config: &str, pool: &str) -> Result<String, Failure> {
    let scaler = table(config, pool).ok_or_else(|| {
        Failure::Failed(anyhow::anyhow!("pool `{pool}` has no scaler in the configuration that runs"))
    })?;
    let mut own = toml::Table::new();
    let pools =
        toml::Table::from_iter([(pool.to_owned(), toml::Table::from_iter([("scaler".to_owned(), scaler)]).into())]);
    own.insert("pool".to_owned(), pools.into());
    let mut out = toml::to_string(&own)?;
    let profile = profile(config, pool);
    let meant = Settings::of_profile(profile);
    _ = writeln!(out, "\n# What profile = \"{}\" means, where nothing above says otherwise:", profile.word());
    let quantile = meant.headroom.quantile.map_or("none".to_owned(), |quantile| number(quantile * 100.0) + " %");
    for (name, value) in [
        ("room for the forecast's errors", format!("{quantile} of them")),
        ("square-root staffing", format!("beta {}", number(meant.headroom.beta))),
        (
            "too many are kept for",
            format!(
                "{} start-up times, at least {} s, at most {} s",
                number(meant.hold.leads),
                number(meant.hold.min),
                number(meant.hold.max)
            ),
        ),
        ("a step down takes at most", format!("{} % of what is there", number(meant.max_step_down * 100.0))),
    ] {
        _ = writeln!(out, "#   {name}: {value}");
    }
    Ok(out)
}

fn table(config: &str, pool: &str) -> Option<toml::Value> {
    let table: toml::Table = config.parse().ok()?;
    table.get("pool")?.get(pool)?.get("scaler").cloned()
}

/// What a running configuration tells a pool's scaler, every default and profile filled in; none where it cannot be read here, as its files are
/// the proxy's own.
pub(super) fn in_force(config: &str, pool: &str) -> Option<Settings> {
    // Secrets are hidden in what the proxy shows; no setting depends on them.
    let text = config.replace(HIDDEN, "hidden-hidden-hidden");
    let outcome = config::read_text("running", &text, &Disk);
    config::settings(outcome.config?.pool.get(pool)?)
}

/// The profile of a pool's scaler; the default one where the configuration does not say.
pub(super) fn profile(config: &str, pool: &str) -> Profile {
    let scaler = table(config, pool);
    let word = scaler.as_ref().and_then(|scaler| scaler.get("profile")).and_then(toml::Value::as_str);
    let found = Profile::WORDS.iter().find(|(known, _)| Some(*known) == word);
    found.map_or(Profile::Balanced, |(_, profile)| *profile)
}

/// A number of a pool's scaler, by the way to it.
pub(super) fn value(config: &str, pool: &str, way: &[&str]) -> Option<toml::Value> {
    way.iter().try_fold(table(config, pool)?, |value, key| value.get(*key).cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
workers = 2
[pool."a b"]
balance = "ewma"
[pool."a b".scaler]
min = 2
profile = "calm"
process = { command = ["app", "{port}"] }
slo = { wait = "100ms", target = "99%" }
[pool.plain]
"#;

    #[test]
    fn settings_are_a_configuration_with_the_profile_in_words() {
        let text = render(CONFIG, "a b").unwrap();
        let again: toml::Table = text.parse().unwrap();
        assert_eq!(again["pool"]["a b"]["scaler"]["min"].as_integer(), Some(2));
        assert!(!text.contains("ewma"), "{text}");
        assert!(text.contains("# What profile = \"calm\" means"), "{text}");
        assert!(text.contains("too many are kept for: 6 start-up times, at least 300 s, at most 900 s"), "{text}");
        assert!(render(CONFIG, "plain").is_err() && render("not toml", "x").is_err());
    }

    #[test]
    fn what_is_in_force_is_the_configuration_s_own_meaning() {
        let text = "admin = { token = \"${HIDDEN}\" }\n[listener.web]\nbind = \"127.0.0.1:0\"\n[[route]]\npool = \"a\"\n\
            [pool.a.scaler]\nmax = 7\nprofile = \"calm\"\nhold = \"7m\"\nprocess = { command = [\"app\", \"{port}\"] }\n";
        let meant = in_force(text, "a").unwrap();
        assert_eq!((meant.max, meant.hold.min), (7, 420.0));
        assert_eq!(in_force(text, "b"), None);
        assert_eq!(in_force("[pool.a.scaler]\nmax = true", "a"), None);
    }

    #[test]
    fn values_are_found_by_their_way() {
        assert_eq!(profile(CONFIG, "a b"), Profile::Calm);
        assert_eq!(profile(CONFIG, "plain"), Profile::Balanced);
        assert_eq!(value(CONFIG, "a b", &["slo", "wait"]).unwrap().as_str(), Some("100ms"));
        assert_eq!(value(CONFIG, "a b", &["slo", "none"]), None);
    }
}
