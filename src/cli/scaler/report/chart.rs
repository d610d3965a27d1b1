//! Charts as inline SVG. Colours come from the page's style, so that they follow light and dark.

use std::fmt::Write;

use super::html::escape;

/// What is drawn over time.
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    /// How values are written at the axis.
    pub(super) write: fn(f64) -> String,
    pub(super) lines: Vec<Line<'a>>,
    /// When something happened, and what.
    pub(super) marks: Vec<(f64, String)>,
    pub(super) from: f64,
    pub(super) until: f64,
    /// How a time is written below, and how many seconds local time is ahead.
    pub(super) tick: &'a dyn Fn(f64) -> String,
    pub(super) offset: f64,
}

/// One curve.
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    /// Its colour: `c1` to `c5`.
    pub(super) class: &'static str,
    pub(super) form: Form,
    /// From, until, value.
    pub(super) pieces: Vec<(f64, f64, f64)>,
}

/// How a curve is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// From middle to middle.
    Curve,
    /// Level over each piece.
    Steps,
    /// Level, and filled to the ground.
    Area,
    /// A bound: dashed.
    Bound,
}

/// A size to draw in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) class: &'static str,
    width: f64,
    height: f64,
    /// Ticks below at most.
    ticks: f64,
}

/// For screens and for phones; the style shows one of them.
pub(super) const SIZES: [Size; 2] = [
    Size { class: "wide", width: 900.0, height: 230.0, ticks: 9.0 },
    Size { class: "narrow", width: 380.0, height: 210.0, ticks: 4.0 },
];

const LEFT: f64 = 52.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 24.0;
/// Steps of the time axis in seconds.
const TIMES: [f64; 13] =
    [60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 10800.0, 21600.0, 43200.0, 86400.0, 172_800.0, 604_800.0, 2_592_000.0];

/// The chart in both sizes with its legend; a sentence where there is nothing to draw.
pub(super) fn draw(chart: &Chart<'_>) -> String {
    let mut out = format!("<figure><figcaption>{}</figcaption>", escape(chart.title));
    let drawable = |line: &Line<'_>| line.form != Form::Bound && line.pieces.iter().any(|piece| piece.2.is_finite());
    if !chart.lines.iter().any(drawable) || chart.until <= chart.from {
        out += "<p class=\"none\">Nothing was recorded in this time.</p></figure>\n";
        return out;
    }
    out += "<ul class=\"legend\">";
    for line in &chart.lines {
        let kind = if line.form == Form::Bound { " dashed" } else { "" };
        _ = write!(out, "<li><i class=\"{}{kind}\"></i>{}</li>", line.class, escape(line.name));
    }
    out += "</ul>";
    for size in SIZES {
        out += &svg(chart, size);
    }
    out += "</figure>\n";
    out
}

struct Frame {
    size: Size,
    from: f64,
    until: f64,
    top: f64,
}

impl Frame {
    fn x(&self, at: f64) -> f64 {
        let share = ((at - self.from) / (self.until - self.from)).clamp(0.0, 1.0);
        LEFT + share * (self.size.width - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let share = (value / self.top).clamp(0.0, 1.0);
        self.size.height - BOTTOM - share * (self.size.height - TOP - BOTTOM)
    }
}

fn svg(chart: &Chart<'_>, size: Size) -> String {
    let values =
        chart.lines.iter().flat_map(|line| &line.pieces).map(|piece| piece.2).filter(|value| value.is_finite());
    let step = nice(values.fold(0.0, f64::max));
    let frame = Frame { size, from: chart.from, until: chart.until, top: step * 4.0 };
    let mut out = format!(
        "<svg class=\"{}\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">",
        size.class,
        size.width,
        size.height,
        escape(chart.title)
    );
    for number in 0..=4 {
        let value = step * f64::from(number);
        let y = frame.y(value);
        let right = size.width - RIGHT;
        _ = write!(out, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>");
        let text = escape(&(chart.write)(value));
        _ = write!(out, "<text class=\"left\" x=\"{}\" y=\"{:.1}\">{text}</text>", LEFT - 6.0, y + 4.0);
    }
    times(&mut out, chart, &frame);
    for line in &chart.lines {
        curve(&mut out, line, &frame);
    }
    for (at, what) in chart.marks.iter().filter(|(at, _)| (chart.from..=chart.until).contains(at)) {
        let (x, y) = (frame.x(*at), size.height - BOTTOM);
        _ = write!(out, "<path class=\"mark\" d=\"M{x:.1} {TOP}V{y:.1}\"><title>{}</title></path>", escape(what));
    }
    out += "</svg>";
    out
}

/// A round quarter of an axis that holds this value.
fn nice(most: f64) -> f64 {
    let quarter = if most > 0.0 && most < 1e300 { most / 4.0 } else { 0.25 };
    let power = 10f64.powf(quarter.log10().floor());
    // Without the last digits' error 10 / 10^1 may be a bit more than 1.
    let digit = quarter / power - 1e-9;
    let digit = [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0].into_iter().find(|nice| digit <= *nice).unwrap_or(10.0);
    digit * power
}

fn times(out: &mut String, chart: &Chart<'_>, frame: &Frame) {
    let span = chart.until - chart.from;
    let step = TIMES.into_iter().find(|step| span / step <= frame.size.ticks).unwrap_or(span / frame.size.ticks);
    // Round local times, not round UTC ones.
    let mut at = ((chart.from + chart.offset) / step).ceil() * step - chart.offset;
    let mut drawn = 0;
    while at <= chart.until && drawn < 50 {
        let (x, y) = (frame.x(at), frame.size.height - BOTTOM);
        _ = write!(out, "<path class=\"grid\" d=\"M{x:.1} {y}v4\"/>");
        let anchor = if x > frame.size.width - 30.0 { " class=\"left\"" } else { "" };
        _ = write!(out, "<text{anchor} x=\"{x:.1}\" y=\"{:.1}\">{}</text>", y + 17.0, escape(&(chart.tick)(at)));
        at += step;
        drawn += 1;
    }
}

/// A stretch without a gap.
type Run = Vec<(f64, f64, f64)>;

/// The pieces as stretches without gaps, at most one piece a pixel; the largest value of each pixel stays.
fn runs(line: &Line<'_>, frame: &Frame) -> Vec<Run> {
    let pixel = (frame.until - frame.from) / (frame.size.width - LEFT - RIGHT);
    let mut runs: Vec<Run> = Vec::new();
    let seen = |piece: &&(f64, f64, f64)| piece.2.is_finite() && piece.1 > frame.from && piece.0 < frame.until;
    for &(from, until, value) in line.pieces.iter().filter(seen) {
        let slack = (until - from).max(pixel) * 0.6;
        match runs.last_mut().and_then(|run| run.last_mut()) {
            Some(last) if from - last.1 > slack => runs.push(vec![(from, until, value)]),
            Some(last) if until - last.0 < pixel => {
                last.1 = until;
                last.2 = last.2.max(value);
            }
            Some(_) => {
                if let Some(run) = runs.last_mut() {
                    run.push((from, until, value));
                }
            }
            None => runs.push(vec![(from, until, value)]),
        }
    }
    runs
}

fn curve(out: &mut String, line: &Line<'_>, frame: &Frame) {
    let class = line.class;
    for run in runs(line, frame) {
        let mut path = String::new();
        for (index, &(from, until, value)) in run.iter().enumerate() {
            let (a, b, y) = (frame.x(from), frame.x(until), frame.y(value));
            let first = if index == 0 { 'M' } else { 'L' };
            _ = match line.form {
                Form::Curve => write!(path, "{first}{:.1} {y:.1}", (a + b) / 2.0),
                Form::Steps | Form::Area | Form::Bound => write!(path, "{first}{a:.1} {y:.1}H{b:.1}"),
            };
        }
        if line.form == Form::Area {
            let (begin, end) = (run.first().map_or(0.0, |piece| piece.0), run.last().map_or(0.0, |piece| piece.1));
            let (ground, left, right) = (frame.y(0.0), frame.x(begin), frame.x(end));
            _ = write!(out, "<path class=\"area {class}\" d=\"{path}L{right:.1} {ground:.1}H{left:.1}Z\"/>");
        }
        if let (Form::Curve, [(from, until, value)]) = (line.form, &run[..]) {
            let (x, y) = (frame.x((from + until) / 2.0), frame.y(*value));
            _ = write!(out, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>");
            continue;
        }
        let dashed = if line.form == Form::Bound { " dashed" } else { "" };
        _ = write!(out, "<path class=\"line {class}{dashed}\" d=\"{path}\"/>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(pieces: Vec<(f64, f64, f64)>, form: Form) -> Chart<'static> {
        Chart {
            title: "A & B",
            write: |value| format!("{value}"),
            lines: vec![Line { name: "a<b", class: "c1", form, pieces }],
            marks: vec![(50.0, "2 -> 3".to_owned()), (500.0, "later".to_owned())],
            from: 0.0,
            until: 100.0,
            tick: &|at| format!("t{at}"),
            offset: 0.0,
        }
    }

    #[test]
    fn axes_end_at_round_numbers() {
        assert_eq!([0.0, 4.0, 9.0, 10.0, 0.13, f64::INFINITY].map(nice), [0.25, 1.0, 2.5, 2.5, 0.04, 0.25]);
        for most in [1e-9, 0.7, 1.0, 3.3, 39.0, 41.0, 99.0, 1e12] {
            let step = nice(most);
            assert!(step * 4.0 >= most && step * 4.0 <= most * 2.0, "{most}: {step}");
        }
    }

    #[test]
    fn a_gap_is_a_gap_and_a_lonely_sample_is_a_dot() {
        let pieces = vec![(0.0, 10.0, 1.0), (10.0, 20.0, 2.0), (60.0, 70.0, 3.0)];
        let text = draw(&chart(pieces.clone(), Form::Curve));
        assert_eq!((text.matches("class=\"line c1\"").count(), text.matches("<circle").count()), (2, 2), "{text}");
        let steps = draw(&chart(pieces, Form::Area));
        assert_eq!(steps.matches("class=\"area c1\"").count(), 4, "two stretches in two sizes");
        assert!(text.contains("A &amp; B") && text.contains("a&lt;b") && !text.contains("later"));
    }

    #[test]
    fn nothing_to_draw_is_said() {
        for pieces in [vec![], vec![(0.0, 1.0, f64::NAN)]] {
            assert!(draw(&chart(pieces, Form::Curve)).contains("Nothing was recorded"));
        }
        let bound = draw(&chart(vec![(0.0, 100.0, 5.0)], Form::Bound));
        assert!(bound.contains("Nothing was recorded"), "a bound alone is nothing");
    }

    #[test]
    fn many_samples_are_as_many_points_as_pixels_and_peaks_stay() {
        let pieces = (0..100_000).map(|n| {
            let at = f64::from(n) / 1000.0;
            (at, at + 0.001, if n == 70_000 { 80.0 } else { 1.0 })
        });
        let frame = Frame { size: SIZES[0], from: 0.0, until: 100.0, top: 100.0 };
        let line = Line { name: "", class: "c1", form: Form::Curve, pieces: pieces.collect() };
        let runs = runs(&line, &frame);
        assert_eq!(runs.len(), 1);
        assert!(runs[0].len() <= 900, "{}", runs[0].len());
        assert!(runs[0].iter().any(|piece| piece.2 == 80.0));
    }

    #[test]
    fn numbers_beyond_all_bounds_stay_within_the_picture() {
        let text = draw(&chart(vec![(0.0, 50.0, 1e300), (50.0, 100.0, -5.0)], Form::Steps));
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }
}
