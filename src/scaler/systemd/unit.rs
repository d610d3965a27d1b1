use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::scaler::driver::Life;

/// A unit as `systemctl show` tells it.
#[derive(Debug, Default)]
pub(super) struct Unit(BTreeMap<String, String>);

impl Unit {
    /// From `NAME=VALUE` lines.
    pub(super) fn read(text: &str) -> Unit {
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Unit(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A number; none where it is not kept (`[not set]`) or has no bound (`infinity`).
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok().filter(|number| *number != u64::MAX)
    }

    /// When it was started, in seconds since 1970.
    pub(super) fn started(&self) -> Option<f64> {
        let micros = self.number("InactiveExitTimestampMonotonic").filter(|micros| *micros > 0)?;
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let age = now.tv_sec as f64 + now.tv_nsec as f64 / 1e9 - micros as f64 / 1e6;
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        // To the millisecond: two clocks are read, one after the other.
        Some(((unix - age.max(0.0)) * 1000.0).round() / 1000.0)
    }

    /// Whether systemd itself will start it again.
    pub(super) fn restarts(&self) -> bool {
        self.get("SubState").is_some_and(|state| state.starts_with("auto-restart"))
    }

    /// CPUs that may be used at most, from `1.500000s` or `500ms` each second.
    pub(super) fn quota(&self) -> Option<f64> {
        let span = self.get("CPUQuotaPerSecUSec")?;
        crate::types::parse_duration(span).ok().map(|span| span.as_secs_f64()).filter(|cpus| *cpus > 0.0)
    }

    /// What it is doing; none where there is nothing: never started, or ended in peace long ago.
    pub(super) fn life(&self) -> Option<Life> {
        Some(match self.get("ActiveState")? {
            "activating" => Life::Pending,
            "active" | "reloading" | "refreshing" => Life::Running,
            "deactivating" => Life::Stopping,
            "failed" => Life::Ended { how: self.how(), asked: false },
            // Units that have ended well are forgotten by systemd at once, unless something else holds them.
            _ => return None,
        })
    }

    /// How it has ended, in words.
    pub(super) fn how(&self) -> String {
        let status = self.get("ExecMainStatus").unwrap_or("0");
        match self.get("Result").unwrap_or_default() {
            "oom-kill" => "out of memory".to_owned(),
            "timeout" => "it did not start or stop in time".to_owned(),
            "watchdog" => "it did not answer its watchdog".to_owned(),
            "start-limit-hit" => "started too often in too short a time".to_owned(),
            "resources" => {
                format!("the system could not start it: {}", self.get("LoadError").unwrap_or("see its journal"))
            }
            // Since systemd gives codes from 200 on to what failed before the program ran.
            "exit-code" if status == "203" => "its program cannot be run (exit code 203)".to_owned(),
            "exit-code" if status == "200" => "its working directory is missing (exit code 200)".to_owned(),
            "exit-code" => format!("exit code {status}"),
            "signal" | "core-dump" => format!("signal {status}{}", if status == "9" { " (SIGKILL)" } else { "" }),
            "" | "success" => "it ended by itself".to_owned(),
            other => other.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(lines: &str) -> Unit {
        Unit::read(&lines.replace(' ', "\n"))
    }

    #[test]
    fn how_a_unit_has_ended_is_said_in_words() {
        for (lines, how) in [
            ("ActiveState=failed Result=exit-code ExecMainStatus=3", "exit code 3"),
            ("ActiveState=failed Result=signal ExecMainStatus=9", "signal 9 (SIGKILL)"),
            ("ActiveState=failed Result=oom-kill ExecMainStatus=9", "out of memory"),
            ("ActiveState=failed Result=exit-code ExecMainStatus=203", "its program cannot be run (exit code 203)"),
            ("ActiveState=failed Result=start-limit-hit", "started too often in too short a time"),
        ] {
            assert_eq!(shown(lines).life(), Some(Life::Ended { how: how.to_owned(), asked: false }));
        }
        assert_eq!(shown("ActiveState=activating SubState=auto-restart").life(), Some(Life::Pending));
        assert_eq!(shown("ActiveState=inactive SubState=dead").life(), None);
    }
}
