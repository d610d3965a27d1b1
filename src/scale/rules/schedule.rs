use std::collections::BTreeMap;
use std::str::FromStr;

use croner::Cron;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::scale::{Schedule, Source};

/// Where a schedule is: looked up once for each time it begins, because that is dear.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Course {
    /// When it was looked up.
    looked: f64,
    /// When it began last.
    began: Option<f64>,
    /// When it will begin next.
    next: Option<f64>,
}

/// A lookup that found nothing is done again after so long, because the time zones of the machine may have been mended.
const AGAIN: f64 = 3600.0;

impl Course {
    fn at(schedule: &Schedule, now: f64) -> Course {
        let times = || {
            let (cron, zone) = parse(&schedule.cron, &schedule.tz).ok()?;
            let moment = Timestamp::from_second(now.floor() as i64).ok()?.to_zoned(zone);
            let seconds = |moment: jiff::Zoned| moment.timestamp().as_second() as f64;
            let began = cron.find_previous_occurrence(&moment, true).ok().map(seconds);
            Some((began, cron.find_next_occurrence(&moment, false).ok().map(seconds)))
        };
        let (began, next) = times().unwrap_or((None, None));
        Course { looked: now, began, next: Some(next.unwrap_or(now + AGAIN)) }
    }

    fn stale(&self, now: f64) -> bool {
        now < self.looked || self.next.is_none_or(|next| now >= next)
    }
}

/// What makes a schedule the same one in the next configuration.
pub(super) fn key(schedule: &Schedule) -> String {
    format!("{} {}", schedule.cron, schedule.tz)
}

/// Until when a schedule holds, if it holds now.
fn holds_until(courses: &mut BTreeMap<String, Course>, schedule: &Schedule, now: f64) -> Option<f64> {
    let course = courses.entry(key(schedule)).or_default();
    if course.stale(now) {
        *course = Course::at(schedule, now);
    }
    course.began.map(|began| began + schedule.lasting).filter(|end| now < *end)
}

/// The floor of a schedule, as long as it holds.
pub(super) fn floor(courses: &mut BTreeMap<String, Course>, schedule: &Schedule, now: f64) -> Option<Source> {
    let end = holds_until(courses, schedule, now)?;
    let left = crate::types::format_duration(std::time::Duration::from_secs((end - now).round() as u64));
    let why = format!("at least {} by \"{}\" ({}), {left} more", schedule.min?, schedule.cron, schedule.tz);
    Some(Source { name: format!("schedule:{}", schedule.name), wants: schedule.min, why })
}

/// The lowest ceiling of those that hold.
pub(crate) fn ceiling(memory: &mut super::Memory, schedules: &[Schedule], now: f64) -> Option<u32> {
    let courses = &mut memory.schedules;
    let ceilings = schedules.iter().filter_map(|schedule| {
        let max = schedule.max?;
        holds_until(courses, schedule, now).map(|_| max)
    });
    ceilings.min()
}

fn parse(cron: &str, tz: &str) -> Result<(Cron, TimeZone), String> {
    let cron = Cron::from_str(cron).map_err(|error| error.to_string())?;
    let zone = if tz == "UTC" { TimeZone::UTC } else { TimeZone::get(tz).map_err(|error| error.to_string())? };
    Ok((cron, zone))
}

/// What is wrong with a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScheduleError {
    /// It cannot be read, with the reason.
    Cron(String),
    /// It can be read, but there is no such time.
    Never,
    /// This machine knows no such time zone.
    Zone,
}

/// Whether a schedule can be followed, at some time after `now`.
pub fn check(cron: &str, tz: &str, now: f64) -> Vec<ScheduleError> {
    let mut errors = Vec::new();
    match parse(cron, "UTC") {
        Err(error) => errors.push(ScheduleError::Cron(error)),
        Ok((cron, zone)) => {
            let moment = Timestamp::from_second(now as i64).map(|moment| moment.to_zoned(zone));
            if moment.is_ok_and(|moment| cron.find_next_occurrence(&moment, false).is_err()) {
                errors.push(ScheduleError::Never);
            }
        }
    }
    if parse("* * * * *", tz).is_err() {
        errors.push(ScheduleError::Zone);
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> f64 {
        text.parse::<Timestamp>().unwrap().as_second() as f64
    }

    fn schedule(cron: &str, tz: &str, lasting: f64) -> Schedule {
        let name = "day".to_owned();
        Schedule { name, cron: cron.to_owned(), lasting, tz: tz.to_owned(), min: Some(6), max: Some(9) }
    }

    fn holds(schedule: &Schedule, now: f64) -> bool {
        holds_until(&mut BTreeMap::new(), schedule, now).is_some()
    }

    #[test]
    fn it_holds_for_its_time_after_each_beginning() {
        let day = schedule("0 8 * * 1-5", "UTC", 3600.0);
        // 2026-11-26 is a Thursday.
        assert!(!holds(&day, at("2026-11-26T07:59:59Z")));
        assert!(holds(&day, at("2026-11-26T08:00:00Z")));
        assert!(holds(&day, at("2026-11-26T08:59:59Z")));
        assert!(!holds(&day, at("2026-11-26T09:00:00Z")));
        assert!(!holds(&day, at("2026-11-28T08:30:00Z")));
    }

    #[test]
    fn it_goes_by_its_time_zone_and_its_summer() {
        if TimeZone::get("Europe/Berlin").is_err() {
            assert_eq!(check("0 8 * * *", "Europe/Berlin", 0.0), [ScheduleError::Zone]);
            return;
        }
        let day = schedule("0 8 * * *", "Europe/Berlin", 60.0);
        assert!(holds(&day, at("2026-11-26T07:00:00Z")));
        assert!(!holds(&day, at("2026-11-26T06:00:00Z")));
        assert!(holds(&day, at("2026-07-26T06:00:00Z")));
    }

    #[test]
    fn what_was_looked_up_is_looked_up_again_in_time() {
        let often = schedule("*/10 * * * *", "UTC", 120.0);
        let mut courses = BTreeMap::new();
        let begin = at("2026-11-26T07:00:00Z");
        for second in 0..3600 {
            let expected = second % 600 < 120;
            assert_eq!(holds_until(&mut courses, &often, begin + f64::from(second)).is_some(), expected, "{second}");
        }
        assert_eq!(courses.len(), 1);
    }

    #[test]
    fn what_cannot_be_followed_is_told() {
        assert_eq!(check("0 8 * * 1-5", "UTC", 0.0), []);
        assert_eq!(check("0 8 * * 1-5", "Europe/Atlantis", 0.0), [ScheduleError::Zone]);
        assert_eq!(check("0 0 31 2 *", "UTC", 1.8e9), [ScheduleError::Never]);
        assert!(matches!(check("0 8", "UTC", 0.0).as_slice(), [ScheduleError::Cron(_)]));
        assert!(matches!(check("0 99 * * *", "UTC", 0.0).as_slice(), [ScheduleError::Cron(_)]));
    }

    #[test]
    fn the_floor_says_until_when() {
        let floor =
            floor(&mut BTreeMap::new(), &schedule("0 8 * * *", "UTC", 3600.0), at("2026-11-26T08:10:00Z")).unwrap();
        assert_eq!(floor.why, "at least 6 by \"0 8 * * *\" (UTC), 50m more");
        assert_eq!((floor.name.as_str(), floor.wants), ("schedule:day", Some(6)));
    }
}
