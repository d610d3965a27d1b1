//! Times as people write and read them: local, and never in the future where they say when something was.

use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

use crate::cli::Failure;
use crate::types::parse_duration;

/// What time it is, and where.
#[derive(Debug, Clone)]
pub(super) struct Times {
    /// Seconds since 1970.
    pub(super) now: f64,
    zone: TimeZone,
}

impl Times {
    /// This machine's: `TZ`, else `/etc/localtime`.
    pub(super) fn local() -> Self {
        let now = Timestamp::now().as_duration().as_secs_f64();
        Times { now, zone: TimeZone::system() }
    }

    /// The same zone at another time.
    pub(super) fn at(&self, now: f64) -> Self {
        Times { now, zone: self.zone.clone() }
    }

    #[cfg(test)]
    pub(super) fn fixed(now: f64, zone: TimeZone) -> Self {
        Times { now, zone }
    }

    /// A time that is meant by a text.
    ///
    /// **Errors**: it is none; the text says what would be.
    pub(super) fn read(&self, key: &str, text: &str) -> Result<f64, Failure> {
        self.meant(text.trim()).ok_or_else(|| {
            Failure::Usage(format!(
                "{key} {text}: expected a time such as 14:02:11, -5m, 2026-11-26T14:02:11Z or seconds since 1970"
            ))
        })
    }

    fn meant(&self, text: &str) -> Option<f64> {
        if text == "now" {
            return Some(self.now);
        }
        if let Ok(seconds) = text.parse::<f64>() {
            // A small number is a slip (of the unit, most likely), no time in 1970.
            return (seconds.is_finite() && seconds >= 1e8).then_some(seconds);
        }
        if let Ok(span) = parse_duration(text.trim_start_matches('-')) {
            return Some(self.now - span.as_secs_f64());
        }
        if let Ok(at) = text.parse::<Timestamp>() {
            return Some(at.as_duration().as_secs_f64());
        }
        if let Ok(time) = text.parse::<Time>() {
            let today = self.zoned(self.now)?.date().to_datetime(time);
            let at = self.moment(today)?;
            return if at <= self.now { Some(at) } else { self.moment(today.yesterday().ok()?) };
        }
        self.moment(text.parse::<DateTime>().ok()?)
    }

    fn moment(&self, at: DateTime) -> Option<f64> {
        Some(at.to_zoned(self.zone.clone()).ok()?.timestamp().as_duration().as_secs_f64())
    }

    fn zoned(&self, at: f64) -> Option<Zoned> {
        let span = SignedDuration::try_from_secs_f64(at).ok()?;
        Some(Timestamp::from_duration(span).ok()?.to_zoned(self.zone.clone()))
    }

    fn write(&self, at: f64, form: &str) -> String {
        // What is no time at all (a broken record) is shown as what it is.
        self.zoned(at).map_or_else(|| format!("{at}"), |zoned| zoned.strftime(form).to_string())
    }

    /// `12:41:07`, with the date before it if it is another day than today.
    pub(super) fn clock(&self, at: f64) -> String {
        let today = self.write(self.now, "%F") == self.write(at, "%F");
        self.write(at, if today { "%T" } else { "%F %T" })
    }

    /// `2026-11-26 12:41:07 +01:00`.
    pub(super) fn full(&self, at: f64) -> String {
        self.write(at, "%F %T %:z")
    }

    /// `12:41`, or `Nov 26` at midnight: below a chart.
    pub(super) fn tick(&self, at: f64) -> String {
        let clock = self.write(at, "%H:%M");
        if clock == "00:00" { self.write(at, "%b %-d") } else { clock }
    }

    /// Seconds that local time is ahead of UTC.
    pub(super) fn offset(&self, at: f64) -> f64 {
        self.zoned(at).map_or(0.0, |zoned| f64::from(zoned.offset().seconds()))
    }
}

/// `2026-11-26T12:41:07.25Z`, for programs.
pub(super) fn utc(at: f64) -> String {
    let stamp = SignedDuration::try_from_secs_f64(at).ok().and_then(|span| Timestamp::from_duration(span).ok());
    let millis = stamp.and_then(|stamp| stamp.round(jiff::Unit::Millisecond).ok());
    millis.map_or_else(|| format!("{at}"), |stamp| stamp.to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// 2026-11-26 13:00:00 in Berlin.
    pub(in crate::cli::scaler) const NOON: f64 = 1_795_694_400.0;

    pub(in crate::cli::scaler) fn berlin() -> Times {
        Times::fixed(NOON, TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap())
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        let times = berlin();
        for (text, at) in [
            ("now", NOON),
            ("-5m", NOON - 300.0),
            ("24h", NOON - 86_400.0),
            ("12:30", NOON - 1800.0),
            ("12:59:59", NOON - 1.0),
            ("14:00", NOON + 3600.0 - 86_400.0),
            ("2026-11-26T12:00:00Z", NOON),
            ("2026-11-26T13:00:00+01:00", NOON),
            ("2026-11-26T13:00:00", NOON),
            ("2026-11-26 12:59", NOON - 60.0),
            ("1795694400.5", NOON + 0.5),
        ] {
            assert_eq!(times.meant(text), Some(at), "{text}");
        }
        for text in ["", "soon", "25:00", "7", "inf", "-", "2026-13-01"] {
            assert_eq!(times.meant(text), None, "{text}");
        }
        assert!(matches!(times.read("--at", "soon"), Err(Failure::Usage(text)) if text.starts_with("--at soon")));
    }

    #[test]
    fn times_are_written_in_local_time() {
        let times = berlin();
        assert_eq!(times.clock(NOON + 7.0), "13:00:07");
        assert_eq!(times.clock(NOON - 86_400.0), "2026-11-25 13:00:00");
        assert_eq!(times.full(NOON), "2026-11-26 13:00:00 +01:00");
        assert_eq!((times.tick(NOON), times.tick(NOON - 13.0 * 3600.0)), ("13:00".into(), "Nov 26".into()));
        assert_eq!(times.offset(NOON), 3600.0);
        assert_eq!(utc(NOON + 0.25), "2026-11-26T12:00:00.25Z");
        assert_eq!((times.clock(f64::NAN), times.clock(1e300)), ("NaN".to_owned(), format!("{}", 1e300)));
    }
}
