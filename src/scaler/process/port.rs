//! Free ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::lock;
use crate::scaler::{DriverError, ErrorKind};

/// A port that was given to an instance is not given to another before it had time to take it.
const GIVEN_FOR: Duration = Duration::from_secs(60);
/// The kernel seldom names one that is taken.
const DRAWS: usize = 100;

/// Reads a range of ports: `"18100-18199"`, or a single one. Nothing where it is none.
pub fn ports(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (1 <= first && first <= last).then_some(first..=last)
}

/// A port that is free now: of the range, or one that the kernel chooses. Whoever else wants it can still be faster.
pub(super) fn free(range: Option<&str>, taken: &BTreeSet<u16>) -> Result<u16, DriverError> {
    static GIVEN: Mutex<BTreeMap<u16, Instant>> = Mutex::new(BTreeMap::new());
    let mut given = lock(&GIVEN);
    given.retain(|_, when| when.elapsed() < GIVEN_FOR);
    let usable = |port: &u16| !taken.contains(port) && !given.contains_key(port);
    let bound = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?.local_addr().ok();
    let found = match range {
        None => (0..DRAWS).filter_map(|_| bound(0)).map(|address| address.port()).find(usable),
        Some(text) => {
            let range = ports(text).ok_or_else(|| DriverError {
                what: format!("`{text}` is no range of ports"),
                advice: "write it as \"18100-18199\"".to_owned(),
                kind: ErrorKind::Refused,
            })?;
            range.filter(usable).find(|port| bound(*port).is_some())
        }
    };
    let port = found.ok_or_else(|| DriverError {
        what: format!("no port is free in {}", range.unwrap_or("the kernel's range")),
        advice: "widen the pool's `ports` or lower its `max`; `ss -ltn` shows who has them".to_owned(),
        kind: ErrorKind::Full,
    })?;
    given.insert(port, Instant::now());
    Ok(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        assert_eq!(ports("18100-18199"), Some(18100..=18199));
        assert_eq!(ports("18100"), Some(18100..=18100));
        for text in ["", "-", "2-1", "0-5", "1-70000", "a-b"] {
            assert_eq!(ports(text), None, "{text}");
        }
    }

    #[test]
    fn no_port_is_given_twice() {
        let given: BTreeSet<u16> = (0..20).map(|_| free(None, &BTreeSet::new()).expect("a port")).collect();
        assert_eq!(given.len(), 20);
    }

    #[test]
    fn a_port_that_somebody_has_is_not_given() {
        let somebody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        let port = somebody.local_addr().expect("its address").port();
        let error = free(Some(&port.to_string()), &BTreeSet::new()).expect_err("it is taken");
        assert_eq!(error.kind, ErrorKind::Full);
    }
}
