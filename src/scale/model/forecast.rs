use super::past::Past;

/// How many requests a second there are, and what that was taken from.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Level {
    /// Requests a second.
    pub(super) rate: f64,
    /// The same over the longest window.
    pub(super) base: f64,
    /// The window that was believed, in seconds.
    pub(super) window: f64,
    /// By how many standard deviations the longer ones were contradicted.
    pub(super) surprise: f64,
}

/// Multiples of the service time, rounded up to seconds: a shorter window sees noise, a longer one yesterday.
const WINDOWS: [f64; 5] = [32.0, 16.0, 8.0, 4.0, 2.0];
const SIGMAS: f64 = 3.0;

/// The longest window that no shorter one contradicts upwards.
pub(super) fn level(past: &Past, scale: f64) -> Level {
    let longest = past.last((WINDOWS[0] * scale).min(Past::LONGEST));
    let base = longest.rate();
    let mut level = Level { rate: base, base, window: longest.span, surprise: 0.0 };
    let dispersion = past.dispersion(base);
    for window in WINDOWS[1..].iter().map(|window| (window * scale).min(Past::LONGEST)) {
        let recent = past.last(window);
        if recent.span + 1e-6 < window {
            continue;
        }
        let sigma = (level.rate.max(0.5) * dispersion / window).sqrt();
        let surprise = (recent.rate() - level.rate) / sigma;
        if surprise > SIGMAS {
            level = Level { rate: recent.rate(), window, surprise, ..level };
        }
    }
    level
}

/// What the trend adds within `ahead` seconds, in requests a second; 0 where it is flat, falls, or is not to be told from noise (t < 2).
///
/// Damped: of each second's growth 98 % is expected of the next (Gardner and McKenzie's), since over a long start-up time nothing grows on
/// in a straight line.
pub(super) fn trend(past: &Past, scale: f64, ahead: f64) -> f64 {
    const PARTS: usize = 6;
    const SIGNIFICANT: f64 = 2.0;
    const DAMPING: f64 = 0.98;
    let part = 5.0 * scale;
    if part * PARTS as f64 > Past::LONGEST {
        return 0.0;
    }
    let Some(rates) = past.rates(PARTS, part) else { return 0.0 };
    let count = PARTS as f64;
    let mean = rates.iter().sum::<f64>() / count;
    let place = |index: usize| (index as f64 - (count - 1.0) / 2.0) * part;
    let spread: f64 = (0..PARTS).map(|index| place(index).powi(2)).sum();
    let slope = rates.iter().enumerate().map(|(index, rate)| place(index) * (rate - mean)).sum::<f64>() / spread;
    let residue = |(index, rate): (usize, &f64)| (rate - mean - slope * place(index)).powi(2);
    let left: f64 = rates.iter().enumerate().map(residue).sum();
    let error = ((left / (count - 2.0)).max(1e-9) / spread).sqrt();
    if slope <= 0.0 || slope / error <= SIGNIFICANT {
        return 0.0;
    }
    // What jumped half a minute ago and has been level since is no trend: the last of the parts must rise as well.
    let recent = (rates[PARTS - 1] - rates[PARTS - 2]) / part;
    let noise = (2.0 * rates[PARTS - 1].max(0.5) / part).sqrt() / part;
    let slope = slope.min(recent + noise).max(0.0);
    slope * (1.0 - DAMPING.powf(ahead)) / (1.0 - DAMPING)
}
