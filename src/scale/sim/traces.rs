//! Loads as code: requests a second, by second.

use std::f64::consts::TAU;

use super::random::Random;

/// 40 a second, for twenty minutes 400, and 40 again.
pub fn step() -> Vec<f64> {
    (0..2400).map(|second| if (600..1800).contains(&second) { 400.0 } else { 40.0 }).collect()
}

/// From 40 to 500 within a quarter of an hour, and back.
pub fn ramp() -> Vec<f64> {
    let share = |second: i32| match second {
        ..300 | 2700.. => 0.0,
        300..1200 => f64::from(second - 300) / 900.0,
        1200..1800 => 1.0,
        1800..2700 => 1.0 - f64::from(second - 1800) / 900.0,
    };
    (0..3000).map(|second| 40.0 + 460.0 * share(second)).collect()
}

/// Days that last an hour each, between 60 and 500 a second, with noise.
pub fn diurnal(days: usize, seed: u64) -> Vec<f64> {
    const DAY: usize = 3600;
    let mut random = Random::new(seed);
    let noise: Vec<f64> = (0..=days * DAY / 30).map(|_| 1.0 + 0.05 * random.normal()).collect();
    let share = |second: usize| (0.5 - 0.5 * (TAU * second as f64 / DAY as f64).cos()).powf(1.5);
    (0..days * DAY).map(|second| ((60.0 + 440.0 * share(second)) * noise[second / 30]).max(1.0)).collect()
}

/// 50 a second, and four flash crowds that come within ten seconds and go within minutes.
pub fn flash(seconds: usize) -> Vec<f64> {
    const CROWDS: [(f64, f64, f64); 4] =
        [(500.0, 300.0, 120.0), (1400.0, 500.0, 60.0), (2200.0, 200.0, 240.0), (3000.0, 450.0, 90.0)];
    let crowd = |second: f64, (at, size, fading): (f64, f64, f64)| match second - at {
        since if since < 0.0 => 0.0,
        since => size * (since / 10.0).min(1.0) * (-(since - 10.0).max(0.0) / fading).exp(),
    };
    (0..seconds).map(|second| 50.0 + CROWDS.iter().map(|each| crowd(second as f64, *each)).sum::<f64>()).collect()
}

/// From 40 to 360 within two minutes, again and again.
pub fn saw() -> Vec<f64> {
    (0..2400).map(|second| 40.0 + 320.0 * f64::from(second % 120) / 120.0).collect()
}

/// 200 a second in the mean, another rate every five seconds.
pub fn noisy(seed: u64) -> Vec<f64> {
    let mut random = Random::new(seed);
    let rates: Vec<f64> = (0..480).map(|_| 200.0 * random.erlang(8)).collect();
    (0..2400).map(|second| rates[second / 5]).collect()
}

/// 300 a second for so many seconds, 20 for so many.
pub fn on_off(seconds: usize, on: usize, off: usize) -> Vec<f64> {
    (0..seconds).map(|second| if second % (on + off) < on { 300.0 } else { 20.0 }).collect()
}

/// A walk whose steps are proportions, with bursts that nothing announces: they last between ten seconds and two minutes.
pub fn walk(seconds: usize, seed: u64) -> Vec<f64> {
    let mut random = Random::new(seed);
    let (mut level, mut burst, mut left) = (150.0_f64, 0.0, 0.0);
    (0..seconds)
        .map(|_| {
            // Drawn back to 150, so that it neither dies out nor runs away.
            level = (level * (0.02 * random.normal()).exp() * (150.0 / level).powf(0.002)).clamp(10.0, 450.0);
            left -= 1.0;
            if left <= 0.0 && random.uniform() < 1.0 / 600.0 {
                left = 10.0 + 110.0 * random.uniform();
                burst = level * (0.5 + 1.5 * random.uniform());
            }
            if left > 0.0 { (level + burst).min(600.0) } else { level }
        })
        .collect()
}

/// Weeks of seven days that last 25 minutes each: nights, two peaks a day, two quiet days at the end.
pub fn weekly(days: usize, seed: u64) -> Vec<f64> {
    const DAY: usize = 1500;
    let mut random = Random::new(seed);
    let noise: Vec<f64> = (0..=days * DAY / 20).map(|_| 1.0 + 0.06 * random.normal()).collect();
    let peak = |phase: f64, at: f64, width: f64| (-((phase - at) / width).powi(2)).exp();
    let rate = |second: usize| {
        let phase = (second % DAY) as f64 / DAY as f64;
        let busy = if second / DAY % 7 < 5 { 1.0 } else { 0.35 };
        40.0 + busy * (330.0 * peak(phase, 0.4, 0.12) + 260.0 * peak(phase, 0.7, 0.1))
    };
    (0..days * DAY).map(|second| (rate(second) * noise[second / 20]).max(1.0)).collect()
}

/// A sine of twenty minutes, and flash crowds at random.
pub fn crowded_sine(seconds: usize, seed: u64) -> Vec<f64> {
    let mut random = Random::new(seed);
    let mut crowd = 0.0;
    (0..seconds)
        .map(|second| {
            crowd *= 1.0 - 1.0 / 80.0;
            if random.uniform() < 1.0 / 900.0 {
                crowd += 100.0 + 200.0 * random.uniform();
            }
            180.0 - 110.0 * (TAU * second as f64 / 1200.0).cos() + crowd
        })
        .collect()
}

/// Seconds of much, minutes of nearly nothing, at times that cannot be known: what code assistants send to a model.
pub fn bursts(seconds: usize, seed: u64) -> Vec<f64> {
    let mut random = Random::new(seed);
    let (mut until, mut next, mut height) = (0.0, 60.0, 0.0);
    (0..seconds)
        .map(|second| {
            let now = second as f64;
            if now >= next {
                until = now + 5.0 + 15.0 * random.uniform();
                next = until + 60.0 + 180.0 * random.exponential();
                height = 60.0 + 160.0 * random.uniform();
            }
            if now < until { height } else { 1.0 }
        })
        .collect()
}
