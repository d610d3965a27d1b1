//! What is played again: recordings of the running proxy, files of rates, and shapes that are made up.

use super::arguments::Shape;
use super::times::Times;
use crate::admin::scaling::{Sample, Series};
use crate::cli::Failure;
use crate::scale::plan;
use crate::scale::sim::{self, Service, Workload};

/// More requests than this are not played: they would not fit into memory. The latest part that does is.
const MOST: f64 = 20e6;
/// A file of rates covers at most so many seconds: a quarter of a year.
const LONGEST: f64 = 90.0 * 86_400.0;

/// What comes, and where it is from.
#[derive(Debug)]
pub(super) struct Traffic {
    pub(super) workload: Workload,
    /// In words.
    pub(super) source: String,
}

/// What the pool itself has recorded.
///
/// **Errors**: nothing came in that time.
pub(super) fn recorded(series: &Series, times: &Times, seed: u64) -> Result<Traffic, Failure> {
    let samples = latest(&series.samples);
    let steps: Vec<sim::Step> = samples.iter().map(step).collect();
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
        return Err(Failure::Failed(anyhow::anyhow!(
            "pool `{}` has no requests on record in that time; look further back with --from, or make traffic up with --shape",
            series.pool
        )));
    };
    let mut source = format!(
        "what pool {} recorded from {} to {}",
        series.pool,
        times.clock(first.at - first.span),
        times.clock(last.at)
    );
    if samples.len() < series.samples.len() {
        source += " (the latest part that fits into memory)";
    }
    Ok(Traffic { workload: Workload::of_steps(&steps, 1.0, seed), source })
}

/// From the first request on, and no more than can be played.
fn latest(samples: &[Sample]) -> &[Sample] {
    let Some(first) = samples.iter().position(|sample| sample.arrivals > 0.0) else { return &[] };
    let samples = &samples[first..];
    let mut sum = 0.0;
    let fitting = samples.iter().rev().take_while(|sample| {
        sum += sample.arrivals;
        sum <= MOST
    });
    let count = fitting.count();
    &samples[samples.len() - count..]
}

fn step(sample: &Sample) -> sim::Step {
    let service_time = (sample.completions > 0.0 && sample.held > 0.0).then(|| sample.held / sample.completions);
    sim::Step { at: sample.at, span: sample.span, arrivals: sample.arrivals, service_time }
}

/// A recording as planning sees it.
pub(super) fn steps(samples: &[Sample]) -> Vec<plan::Step> {
    let step = |sample: &Sample| plan::Step {
        at: sample.at,
        span: sample.span,
        load: if sample.span > 0.0 { (sample.held / sample.span).max(sample.in_flight) } else { 0.0 },
        fleet: sample.ready + sample.starting + sample.draining,
        ready: sample.ready,
        capacity: sample.capacity,
        wait: sample.wait,
    };
    samples.iter().filter(|sample| sample.span > 0.0 && sample.at.is_finite()).map(step).collect()
}

/// A file: lines of time and requests a second, which hold until the next line's time.
///
/// **Errors**: a line is something else; it is named.
pub(super) fn file(name: &str, text: &str, service: Service, seed: u64) -> Result<Traffic, Failure> {
    let mut points: Vec<(f64, f64)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match point(line) {
            Some(point) if points.last().is_none_or(|last| last.0 < point.0) => points.push(point),
            Some(_) => return Err(wrong(name, number, "times must go up")),
            // A headline.
            None if points.is_empty() && !line.starts_with(|c: char| c.is_ascii_digit()) => {}
            None => return Err(wrong(name, number, "expected TIME,REQUESTS-A-SECOND such as 60,125.5")),
        }
    }
    let [(begin, _), .., (end, _)] = points[..] else {
        return Err(Failure::Usage(format!("{name}: expected at least two lines of TIME,REQUESTS-A-SECOND")));
    };
    // The last rate holds as long as the one before it.
    let end = end + (end - points[points.len() - 2].0);
    if end - begin > LONGEST {
        return Err(Failure::Usage(format!("{name}: covers more than 90 days")));
    }
    let mut rates = vec![0.0; (end - begin).ceil() as usize];
    for (index, (at, rate)) in points.iter().enumerate() {
        let until = points.get(index + 1).map_or(end, |next| next.0);
        rates[(at - begin) as usize..(until - begin).ceil() as usize].fill(*rate);
    }
    playable(&rates, service, seed, format!("the rates of {name}"))
}

fn wrong(name: &str, number: usize, what: &str) -> Failure {
    Failure::Usage(format!("{name}:{}: {what}", number + 1))
}

fn point(line: &str) -> Option<(f64, f64)> {
    let mut cells = line.split([',', ';', '\t']).map(|cell| cell.trim().trim_matches('"'));
    let (time, rate) = (cells.next()?, cells.next()?);
    let seconds = time.parse::<f64>().ok();
    let at = seconds.or_else(|| Some(time.parse::<jiff::Timestamp>().ok()?.as_duration().as_secs_f64()))?;
    let rate: f64 = rate.parse().ok()?;
    (at.is_finite() && rate.is_finite() && rate >= 0.0).then_some((at, rate))
}

/// Traffic that is made up.
pub(super) fn shape(shape: Shape, peak: f64, seconds: usize, service: Service, seed: u64) -> Result<Traffic, Failure> {
    if !(peak > 0.0 && peak.is_finite()) {
        return Err(Failure::Usage("--peak: expected requests a second above zero".to_owned()));
    }
    let (form, again) = match shape {
        Shape::Step => (sim::traces::step(), false),
        Shape::Ramp => (sim::traces::ramp(), false),
        Shape::Diurnal => (sim::traces::diurnal(4, seed), false),
        Shape::Flash => (sim::traces::flash(3600), false),
        Shape::Sawtooth => (sim::traces::saw(), true),
        Shape::OnOff => (sim::traces::on_off(1800, 90, 90), true),
    };
    let highest = form.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let seconds = seconds.clamp(1, LONGEST as usize);
    let at = |second: usize| if again { second % form.len() } else { second * form.len() / seconds };
    let rates: Vec<f64> = (0..seconds).map(|second| form[at(second)] / highest * peak).collect();
    playable(&rates, service, seed, format!("made up: {shape:?}, at most {peak} requests/s").to_lowercase())
}

fn playable(rates: &[f64], service: Service, seed: u64, source: String) -> Result<Traffic, Failure> {
    let sum: f64 = rates.iter().sum();
    if sum > MOST {
        return Err(Failure::Usage(format!(
            "{source}: {sum:.0} requests are more than can be played ({MOST:.0}); take less of it, or lower rates"
        )));
    }
    Ok(Traffic { workload: Workload::of_rates(rates, service, seed), source })
}

#[cfg(test)]
mod tests {
    use super::super::sample::day;
    use super::super::times::tests::berlin;
    use super::*;

    fn words(failure: Failure) -> String {
        match failure {
            Failure::Usage(text) | Failure::Configuration(text) => text,
            Failure::Failed(error) => error.to_string(),
        }
    }

    #[test]
    fn a_recording_is_played_with_as_many_requests_as_came() {
        let day = day();
        let traffic = recorded(&day, &berlin(), 1).unwrap();
        let came: f64 = day.samples.iter().map(|sample| sample.arrivals).sum();
        let played = traffic.workload.requests.len() as f64;
        assert!((played / came - 1.0).abs() < 0.01, "{played} of {came}");
        assert_eq!(traffic.workload.seconds, 86_400);
        assert_eq!(traffic.source, "what pool mcp recorded from 2026-11-25 13:00:00 to 13:00:00");
        let nothing = recorded(&Series { pool: "x".to_owned(), samples: Vec::new() }, &berlin(), 1).unwrap_err();
        assert!(words(nothing).contains("pool `x` has no requests on record"));
    }

    #[test]
    fn what_does_not_fit_is_cut_at_its_beginning() {
        let huge = |at| Sample { at, span: 10.0, arrivals: 9e6, ..Sample::default() };
        let samples = [1.0, 2.0, 3.0].map(huge);
        assert_eq!(latest(&samples).iter().map(|sample| sample.at).collect::<Vec<_>>(), [2.0, 3.0]);
        assert_eq!(latest(&[Sample { arrivals: 1e12, ..Sample::default() }]), []);
    }

    #[test]
    fn a_file_of_rates_holds_each_rate_until_the_next() {
        let text = "# by hand\ntime,rate\n0,100\n10,200\n\n20,0\n";
        let traffic = file("r.csv", text, Service::default(), 1).unwrap();
        assert_eq!(traffic.workload.seconds, 30);
        let within = |from: f64, to: f64| {
            traffic.workload.requests.iter().filter(|request| (from..to).contains(&request.at)).count() as f64
        };
        assert!((within(0.0, 10.0) / 1000.0 - 1.0).abs() < 0.15 && (within(10.0, 20.0) / 2000.0 - 1.0).abs() < 0.1);
        assert_eq!(within(20.0, 30.0), 0.0);
        let stamps = "2026-11-26T12:00:00Z,5\n2026-11-26T12:01:00Z,5\n";
        assert_eq!(file("r", stamps, Service::default(), 1).unwrap().workload.seconds, 120);
    }

    #[test]
    fn a_file_that_is_none_is_refused_with_its_line() {
        for (text, told) in [
            ("", "at least two lines"),
            ("0,1\n", "at least two lines"),
            ("0,1\n5,x\n", "r.csv:2: expected TIME"),
            ("0,1\n0,2\n", "r.csv:2: times must go up"),
            ("0,1\n1,-5\n", "r.csv:2"),
            ("0,1\n99999999999,5\n", "more than 90 days"),
            ("0,1e9\n100,1\n", "more than can be played"),
        ] {
            let failure = words(file("r.csv", text, Service::default(), 1).unwrap_err());
            assert!(failure.contains(told), "{text:?}: {failure}");
        }
    }

    #[test]
    fn shapes_have_the_peak_and_length_that_were_asked_for() {
        use clap::ValueEnum;
        for form in Shape::value_variants() {
            let traffic = shape(*form, 50.0, 600, Service::default(), 1).unwrap();
            assert_eq!(traffic.workload.seconds, 600, "{form:?}");
            let mean = traffic.workload.requests.len() as f64 / 600.0;
            assert!((5.0..50.0).contains(&mean), "{form:?}: {mean}");
        }
        assert!(shape(Shape::Step, f64::NAN, 600, Service::default(), 1).is_err());
    }
}
