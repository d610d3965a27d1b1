use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Why a quantity could not be read; its text says what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub struct UnitError {
    /// What a right value looks like, with an example.
    pub expected: &'static str,
}

const DURATION: UnitError = UnitError { expected: "a duration such as \"500ms\", \"5s\", \"2m\", \"1h30m\" or \"1d\"" };
const SIZE: UnitError = UnitError { expected: "a size such as \"512\", \"64KiB\", \"4MiB\" or \"1GB\"" };
const RATE: UnitError = UnitError { expected: "a rate such as \"100/s\", \"10/min\" or \"1000/h\"" };
const SHARE: UnitError = UnitError { expected: "a share such as \"20%\"" };

/// Reads `1h30m`, `5s`, `250ms`, `1.5s`; units are ns, us, ms, s, m or min, h, d.
///
/// **Errors**: no unit, an unknown unit, nothing at all, or more than 100 years.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(DURATION);
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let (number, tail) = split_number(rest).ok_or(DURATION)?;
        let unit_end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let seconds = match &tail[..unit_end] {
            "ns" => 1e-9,
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" | "sec" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return Err(DURATION),
        };
        total += number * seconds;
        rest = tail[unit_end..].trim_start();
    }
    // A century is the bound: beyond it arithmetic on moments would only ever saturate.
    if total > 100.0 * 365.25 * 86400.0 {
        return Err(DURATION);
    }
    Ok(Duration::from_nanos((total * 1e9).round() as u64))
}

/// Writes a duration as [`parse_duration`] reads it, in the largest units that are exact.
pub fn format_duration(span: Duration) -> String {
    let mut nanos = span.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    let units: [(&str, u128); 7] = [
        ("d", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ];
    for (unit, size) in units {
        if nanos >= size {
            out.push_str(&(nanos / size).to_string());
            out.push_str(unit);
            nanos %= size;
        }
    }
    out
}

fn split_number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..end].parse().ok()?;
    Some((number, &text[end..]))
}

/// A number of bytes.
///
/// Written `512`, `64KiB`, `4MiB`, `1GB`: `K`/`M`/`G`/`T` with `iB` are powers of 1024, with `B` powers of 1000;
/// a bare letter (`8k`, `1m`) is a power of 1024, as NGINX has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split_number(text.trim()).ok_or(SIZE)?;
        let unit = unit.trim().to_ascii_lowercase();
        let factor: u64 = match unit.as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(SIZE),
        };
        let bytes = number * factor as f64;
        if bytes.fract() != 0.0 || bytes > i64::MAX as f64 {
            return Err(SIZE);
        }
        Ok(Size(bytes as u64))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
            let size = 1u64 << shift;
            if self.0 >= size && self.0.is_multiple_of(size) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// So many things in each stretch of time: `100/s`, `10/min`, `1000/h`, `5/10s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many; at least 1.
    pub count: u32,
    /// In how long; above zero.
    pub per: Duration,
}

impl Rate {
    /// The time one of them takes at this rate.
    pub fn interval(self) -> Duration {
        self.per / self.count
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (count, per) = text.split_once('/').ok_or(RATE)?;
        let count: u32 = count.trim().parse().map_err(|_| RATE)?;
        let per = per.trim();
        let per = if per.starts_with(|c: char| c.is_ascii_digit()) {
            parse_duration(per).map_err(|_| RATE)?
        } else {
            parse_duration(&format!("1{per}")).map_err(|_| RATE)?
        };
        if count == 0 || per.is_zero() {
            return Err(RATE);
        }
        Ok(Rate { count, per })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = format_duration(self.per);
        write!(
            f,
            "{}/{}",
            self.count,
            per.strip_prefix('1').filter(|u| !u.starts_with(|c: char| c.is_ascii_digit())).unwrap_or(&per)
        )
    }
}

/// A part of a whole, `0.0 ..= 1.0`, written in percent: `20%`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
pub struct Share(pub f64);

impl FromStr for Share {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let percent: f64 = text.trim().strip_suffix('%').ok_or(SHARE)?.trim().parse().map_err(|_| SHARE)?;
        if !(0.0..=100.0).contains(&percent) {
            return Err(SHARE);
        }
        Ok(Share(percent / 100.0))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The fewest decimals that read back as the same, which hides the binary tail of 0.07 * 100.
        let texts = (0..17).map(|decimals| format!("{:.decimals$}%", self.0 * 100.0));
        let exact = texts.into_iter().find(|text| text.parse() == Ok(*self));
        f.write_str(&exact.unwrap_or_else(|| format!("{}%", self.0 * 100.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantities_read_as_people_write_them() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!("4MiB".parse(), Ok(Size(4 << 20)));
        assert_eq!("8k".parse(), Ok(Size(8192)));
        assert_eq!("10/min".parse(), Ok(Rate { count: 10, per: Duration::from_secs(60) }));
        assert_eq!("5/10s".parse(), Ok(Rate { count: 5, per: Duration::from_secs(10) }));
        assert_eq!("20%".parse(), Ok(Share(0.2)));
        assert_eq!((Share(0.07).to_string(), Share(0.125).to_string()), ("7%".to_owned(), "12.5%".to_owned()));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "5", "s", "5 parsecs", "-5s", "1e9s", "40000d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for text in ["", "x", "1.0001KiB", "5XB", "-1"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        for text in ["", "5", "0/s", "5/0s", "5/", "x/s"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        for text in ["20", "101%", "-1%", "x%"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn shares_read_back(percent in 0.0f64..=100.0) {
            let share: Share = format!("{percent}%").parse().unwrap();
            prop_assert_eq!(share.to_string().parse(), Ok(share));
        }

        #[test]
        fn what_is_written_reads_back(secs in 0u64..100_000_000, bytes in 0u64..1 << 52, count in 1u32.., ms in 1u64..100_000_000) {
            let span = Duration::from_secs(secs);
            prop_assert_eq!(parse_duration(&format_duration(span)), Ok(span));
            prop_assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
            let rate = Rate { count, per: Duration::from_millis(ms) };
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        }
    }
}
