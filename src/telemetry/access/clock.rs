use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use tz::TimeZone;

use crate::types::{Clock, Moment};

/// Moments as people write them; formatted once a second.
#[derive(Debug)]
pub(super) struct WallClock {
    /// A moment, and nanoseconds since 1970 at it.
    anchor: (Moment, i64),
    /// The second that the texts are of.
    second: i64,
    local: [u8; 26],
    utc: [u8; 19],
}

/// What `TZ` or `/etc/localtime` says; UTC where neither says anything that can be read. Read once, as NGINX does.
static ZONE: LazyLock<TimeZone> = LazyLock::new(|| {
    let zone = match std::env::var("TZ") {
        Ok(zone) if zone.is_empty() => Ok(TimeZone::utc()),
        Ok(zone) => TimeZone::from_posix_tz(&zone),
        Err(_) => TimeZone::local(),
    };
    zone.unwrap_or_else(|_| TimeZone::utc())
});

impl WallClock {
    pub(super) fn new() -> Self {
        let mut clock = WallClock { anchor: (Moment::START, 0), second: i64::MIN, local: [0; 26], utc: [0; 19] };
        clock.set();
        clock
    }

    /// Follows the system's clock, which people and NTP set; called a few times a second.
    pub(super) fn set(&mut self) {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.anchor = (Clock::now(), i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX));
    }

    /// Writes `2026-10-10T13:55:36.123Z`.
    pub(super) fn utc(&mut self, at: Moment, out: &mut Vec<u8>) {
        let millis = self.turn(at);
        out.extend_from_slice(&self.utc);
        let digit = |place: i64| b'0' + (millis / place % 10) as u8;
        out.extend_from_slice(&[b'.', digit(100), digit(10), digit(1), b'Z']);
    }

    /// Writes `10/Oct/2026:13:55:36 +0200`.
    pub(super) fn local(&mut self, at: Moment, out: &mut Vec<u8>) {
        self.turn(at);
        out.extend_from_slice(&self.local);
    }

    /// Makes the texts those of the moment's second; milliseconds within it.
    fn turn(&mut self, at: Moment) -> i64 {
        let (anchor, wall) = self.anchor;
        let ahead = i64::try_from(at.since(anchor).as_nanos()).unwrap_or(i64::MAX);
        let behind = i64::try_from(anchor.since(at).as_nanos()).unwrap_or(i64::MAX);
        let nanos = wall.saturating_add(ahead).saturating_sub(behind);
        let second = nanos.div_euclid(1_000_000_000);
        if second != self.second {
            self.second = second;
            self.utc = utc_text(second);
            self.local = local_text(second, &ZONE);
        }
        nanos.rem_euclid(1_000_000_000) / 1_000_000
    }
}

/// `2026-10-10T13:55:36`.
fn utc_text(second: i64) -> [u8; 19] {
    let (year, month, day, [hour, minute, second]) = civil(second);
    let mut text = *b"0000-00-00T00:00:00";
    digits(&mut text[0..4], year);
    for (at, value) in [(5, month), (8, day), (11, hour), (14, minute), (17, second)] {
        digits(&mut text[at..at + 2], value);
    }
    text
}

/// `10/Oct/2026:13:55:36 +0200`.
fn local_text(second: i64, zone: &TimeZone) -> [u8; 26] {
    const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let offset = zone.find_local_time_type(second).map_or(0, |kind| kind.ut_offset());
    let (year, month, day, [hour, minute, second]) = civil(second + i64::from(offset));
    let mut text = *b"00/Jan/0000:00:00:00 +0000";
    let name = (month as usize - 1) * 3;
    text[3..6].copy_from_slice(&MONTHS[name..name + 3]);
    digits(&mut text[7..11], year);
    let east = i64::from(offset).abs() / 60;
    for (at, value) in [(0, day), (12, hour), (15, minute), (18, second), (22, east / 60), (24, east % 60)] {
        digits(&mut text[at..at + 2], value);
    }
    if offset < 0 {
        text[21] = b'-';
    }
    text
}

fn digits(place: &mut [u8], mut value: i64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Year, month, day and `[hour, minute, second]` in the proleptic Gregorian calendar (Howard Hinnant, "chrono-Compatible Low-Level
/// Date Algorithms", `civil_from_days`), within years 0 to 9999.
fn civil(second: i64) -> (i64, i64, i64, [i64; 3]) {
    let second = second.clamp(-62_167_219_200, 253_402_300_799);
    let (days, time) = (second.div_euclid(86_400), second.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day, [time / 3600, time / 60 % 60, time % 60])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn utc(second: i64) -> String {
        String::from_utf8(utc_text(second).to_vec()).unwrap()
    }

    fn local(second: i64, zone: &str) -> String {
        let zone = TimeZone::from_posix_tz(zone).unwrap();
        String::from_utf8(local_text(second, &zone).to_vec()).unwrap()
    }

    #[test]
    fn dates_are_right_at_their_borders() {
        assert_eq!(utc(0), "1970-01-01T00:00:00");
        assert_eq!(utc(951_782_399), "2000-02-28T23:59:59");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00");
        assert_eq!(utc(1_767_225_599), "2025-12-31T23:59:59");
        assert_eq!(utc(4_107_542_400), "2100-03-01T00:00:00");
        assert_eq!((utc(i64::MAX), utc(i64::MIN)), ("9999-12-31T23:59:59".into(), "0000-01-01T00:00:00".into()));
    }

    #[test]
    fn local_time_is_written_as_nginx_does() {
        assert_eq!(local(1_760_104_536, "UTC0"), "10/Oct/2025:13:55:36 +0000");
        let berlin = "CET-1CEST,M3.5.0,M10.5.0/3";
        assert_eq!(local(1_760_104_536, berlin), "10/Oct/2025:15:55:36 +0200");
        assert_eq!(local(1_767_225_599, berlin), "01/Jan/2026:00:59:59 +0100");
        assert_eq!(local(1_767_225_599, "<-0330>3:30"), "31/Dec/2025:20:29:59 -0330");
    }

    #[test]
    fn every_hour_of_a_century_agrees_with_a_reference() {
        // httpdate formats `Fri, 10 Oct 2025 13:55:36 GMT`.
        for hour in (0..880_000).step_by(7) {
            let second = hour * 3600 + hour % 3600;
            let theirs = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second as u64));
            let ours = local(second, "UTC0");
            let [day, month, year] = [5..7, 8..11, 12..16].map(|at| &theirs[at]);
            assert_eq!(ours, format!("{day}/{month}/{year}:{} +0000", &theirs[17..25]));
        }
    }

    #[test]
    fn the_wall_clock_goes_on_between_settings() {
        let mut clock = WallClock::new();
        clock.anchor = (Moment::from_nanos(5_000_000_000), 1_760_104_536_250_000_000);
        let mut text = |nanos| {
            let mut out = Vec::new();
            clock.utc(Moment::from_nanos(nanos), &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(5_000_000_000), "2025-10-10T13:55:36.250Z");
        assert_eq!(text(5_749_999_999), "2025-10-10T13:55:36.999Z");
        assert_eq!(text(5_750_000_000), "2025-10-10T13:55:37.000Z");
        assert_eq!(text(4_700_000_000), "2025-10-10T13:55:35.950Z");
    }
}
