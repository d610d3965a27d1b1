//! The load model: how many instances the load asks for by the time they can be there.

mod error;
mod forecast;
mod hold;
mod knee;
mod past;
mod period;
mod season;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use self::error::Errors;
use self::hold::Hold;
use self::knee::Knee;
use self::past::{Past, Slice};
use self::period::Periods;
use self::season::Season;
use super::{Capacity, Observed, Phase, Settings, Terms};

/// What the load model remembers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Model {
    /// Seconds that were looked at, all together.
    clock: f64,
    /// The last step, in seconds since 1970.
    last: Option<f64>,
    /// Since when there was no gap, by `clock`.
    whole_since: f64,
    past: Past,
    service_time: Option<f64>,
    errors: Errors,
    hold: Hold,
    knee: Knee,
    seasons: Vec<Season>,
    periods: Periods,
    starts: VecDeque<f32>,
    /// When a request last waited for long, by `clock`.
    waited: Option<f64>,
    /// When a start last failed, by `clock`.
    failed: Option<f64>,
    /// When there was last something to do, by `clock`.
    active: f64,
    /// Unhealthy instances that are made up for.
    ailing: u32,
}

/// What the load asks for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Proposal {
    /// Instances wanted now, the short boost for the backlog included.
    pub up: u32,
    /// The fewest that may be left now: what the load, the hold and regret allow. As many as there are where nothing may go.
    pub down: u32,
    /// The fewest that would be left if the hold were over: those above it can be packed away in advance.
    pub soon: u32,
    /// The terms.
    pub terms: Terms,
    /// What decided: `level`, `trend`, `season`, `period`, `backlog`, `wake`, `idle`.
    pub reason: &'static str,
    /// What keeps it from shrinking: `hold`, `queue`, `incomplete`, `start_failures`; none where nothing does.
    pub held_by: Option<&'static str>,
    /// When it could shrink at the earliest.
    pub next_down_at: Option<f64>,
}

/// A step's numbers, made sane.
struct Look {
    complete: bool,
    slice: Slice,
    queue: f64,
    ready: f64,
    /// How old those are that are starting.
    starting: Vec<f64>,
}

impl Model {
    /// A wait of so much of the one that is allowed is one.
    const WAITS: f64 = 0.2;
    const QUIET: f64 = 3.0;
    const FAILURE_MEMORY: f64 = 30.0;
    /// No step down before so many seconds were looked at without a gap.
    const WHOLE: f64 = 30.0;
    const STARTS: usize = 20;
    const YOUNG: f64 = 600.0;

    /// Takes in what was seen and says what the load asks for, between `settings.min` and `settings.max`.
    pub(super) fn step(&mut self, seen: &Observed, settings: &Settings, now: f64) -> Proposal {
        let before = self.last.unwrap_or(0.0);
        let now = if now.is_finite() { now.clamp(before, 1e12) } else { before };
        let look = self.look(seen, now);
        self.take_in(seen, &look, settings);
        let lead = self.lead(settings);
        let mut terms = Terms { lead, ..Terms::default() };
        let (slots, base) = self.slots(&look, settings, now, &mut terms);
        let capacity = terms.capacity;
        let current = seen.current();
        let bounds =
            |count: f64| count.clamp(f64::from(settings.min), f64::from(settings.max.max(settings.min))) as u32;
        let count = |slots: f64| (slots / capacity - 1e-9).ceil().max(0.0);
        let extra = f64::from(self.ailing);
        let mut steady = bounds(count(slots) + extra);
        let mut up = bounds(count(slots + terms.backlog / drain(settings, terms.service_time)) + extra);
        let mut reason = if up > steady { "backlog" } else { base };
        let loose = bounds(count(slots * (1.0 + settings.down.tolerance.clamp(0.0, 1.0))) + extra);

        // Who has only just begun to look keeps twice as long.
        let young = 2.0 - (self.clock / Self::YOUNG).min(1.0);
        let least = young * settings.hold.min.max(settings.hold.leads * lead);
        let expected = matches!(base, "season" | "period");
        self.hold.look(self.clock, loose, if expected { loose } else { current }, least, &settings.hold);
        terms.hold = self.hold.length(self.clock, least, &settings.hold);
        let kept = |seconds: f64| up.max(self.hold.most(self.clock, seconds).min(settings.max));
        let (mut floor, mut soon) = (kept(terms.hold), kept((terms.hold / 3.0).min(15.0)));
        if settings.min == 0 {
            let idle = self.clock - self.active;
            if idle >= settings.idle_for.max(terms.hold) {
                (up, steady, floor, soon, reason) = (0, 0, 0, 0, "idle");
            } else if current == 0 && self.active == self.clock {
                up = bounds(f64::from(up.max(settings.wake_to)));
                (floor, reason) = (floor.max(up), "wake");
            }
        }
        terms.base = steady;
        self.propose(
            Proposal { up, down: floor, soon, terms, reason, ..Proposal::default() },
            &look,
            settings,
            current,
            now,
        )
    }

    /// What may go, and what keeps it.
    fn propose(&self, mut proposal: Proposal, look: &Look, settings: &Settings, current: u32, now: f64) -> Proposal {
        let recent = |at: Option<f64>, memory: f64| at.is_some_and(|at| self.clock - at < memory);
        let held_by = if !look.complete {
            Some("incomplete")
        } else if look.queue > 0.0 || recent(self.waited, Self::QUIET) {
            Some("queue")
        } else if recent(self.failed, Self::FAILURE_MEMORY) {
            Some("start_failures")
        } else if proposal.down >= current || self.clock - self.whole_since < Self::WHOLE {
            (proposal.soon < current).then_some("hold")
        } else {
            None
        };
        proposal.held_by = held_by;
        if held_by.is_some() {
            proposal.down = proposal.down.max(current);
        }
        if held_by.is_some_and(|why| why != "hold") {
            proposal.soon = proposal.soon.max(current);
        }
        if held_by == Some("hold") {
            proposal.next_down_at = self.hold.left(self.clock, current, proposal.terms.hold).map(|left| now + left);
        }
        let step = f64::from(current) * (1.0 - settings.max_step_down.clamp(0.0, 1.0));
        // One may always go: the last one, too, where it may sleep.
        proposal.down =
            proposal.down.max((step.ceil() as u32).min(current.saturating_sub(1))).min(settings.max.max(settings.min));
        proposal
    }

    fn look(&mut self, seen: &Observed, now: f64) -> Look {
        let sane = |value: f64| if value.is_finite() { value.clamp(0.0, 1e9) } else { 0.0 };
        let span = sane(seen.span).min(3600.0);
        let elapsed = self.last.map_or(f64::INFINITY, |last| now - last);
        self.last = Some(now);
        if elapsed > span + 5.0 {
            self.whole_since = self.clock;
            self.errors.interrupt();
        }
        let ages = seen
            .instances
            .iter()
            .filter(|instance| instance.phase == Phase::Starting)
            .map(|instance| sane(instance.age));
        Look {
            complete: seen.complete && span > 0.0,
            slice: Slice {
                span,
                arrivals: sane(seen.arrivals),
                completions: sane(seen.completions),
                held: sane(seen.held),
                in_flight: sane(seen.in_flight) * span,
                queue: sane(seen.queue) * span,
            },
            queue: sane(seen.queue),
            ready: f64::from(seen.count(Phase::Ready)),
            starting: ages.collect(),
        }
    }

    fn take_in(&mut self, seen: &Observed, look: &Look, settings: &Settings) {
        let slice = &look.slice;
        self.clock += slice.span;
        for started in seen.started.iter().filter(|time| time.is_finite() && **time >= 0.0) {
            self.starts.push_back(started.min(3600.0) as f32);
        }
        let excess = self.starts.len().saturating_sub(Self::STARTS);
        self.starts.drain(..excess);
        if look.queue > 0.0 || seen.oldest_wait > Self::WAITS * settings.slo.wait {
            self.waited = Some(self.clock);
        }
        if seen.start_failures > 0 || seen.start_blocked {
            self.failed = Some(self.clock);
        }
        if slice.arrivals > 0.0 || look.queue > 0.0 || slice.in_flight > 0.0 || seen.streams > 0.0 {
            self.active = self.clock;
        }
        let unhealthy = seen.count(Phase::Unhealthy);
        self.ailing = unhealthy.min(self.ailing + 1).min(look.ready as u32 + 1);
        if slice.span > 0.0 {
            let mut slice = *slice;
            if !look.complete {
                // What is missing is taken to be as it was.
                let before = self.past.last(32.0);
                slice.arrivals = slice.arrivals.max(before.rate() * slice.span);
                slice.in_flight = slice.in_flight.max(before.mean_in_flight() * slice.span);
            }
            self.past.push(slice);
            if look.complete && look.ready > 0.0 && slice.completions > 0.0 {
                self.knee.note(slice.mean_in_flight() / look.ready, slice.completions, slice.held / slice.completions);
            }
        }
    }

    /// The 90th percentile of the last start-up times.
    fn lead(&self, settings: &Settings) -> f64 {
        let mut starts: Vec<f32> = self.starts.iter().copied().collect();
        if starts.is_empty() {
            return if settings.first_lead.is_finite() { settings.first_lead.clamp(0.0, 3600.0) } else { 10.0 };
        }
        starts.sort_by(f32::total_cmp);
        let place = 0.9 * (starts.len() - 1) as f64;
        let (low, share) = (f64::from(starts[place as usize]), place.fract());
        (low + share * (f64::from(starts[place.ceil() as usize]) - low)).min(3600.0)
    }

    /// How long a request holds a slot: over two minutes, since after a burst the short ones are done first.
    fn measure_service_time(&mut self) -> Option<f64> {
        let past = self.past.last(120.0);
        if past.completions > 0.0 {
            let mut time = past.held / past.completions;
            // Slots used for each that was given back: what is known of those that are still in progress, as it is told of a half-observed
            // lifetime. Without it the short ones, which are done first, would be all there is to see after a burst.
            time = time.max(past.in_flight / (past.completions + 1.0));
            self.service_time = Some(time);
        }
        self.service_time
    }

    /// Slots that are wanted, without the boost for the backlog, and what decided them.
    fn slots(&mut self, look: &Look, settings: &Settings, now: f64, terms: &mut Terms) -> (f64, &'static str) {
        let beta = settings.headroom.beta.clamp(0.0, 100.0);
        let measured = self.measure_service_time();
        let mut service_time = measured.unwrap_or(0.0);
        terms.capacity = match settings.capacity {
            Capacity::Fixed(slots) => slots.max(1.0),
            Capacity::Learned { most } => {
                let found = self.knee.find(most);
                terms.learned = found.is_some();
                service_time = found.map_or(service_time, |(_, light)| light);
                found.map_or(most.max(1.0), |(capacity, _)| capacity)
            }
        };
        let capacity = terms.capacity;
        let scale = measured.unwrap_or(1.0).ceil().clamp(1.0, Past::LONGEST);
        let level = forecast::level(&self.past, scale);
        let grown = if settings.trend { forecast::trend(&self.past, scale, terms.lead + 1.0) } else { 0.0 };
        let calm = (level.rate + grown).min(level.rate * 3.0 + 5.0);
        let season = self.season(look, settings, now, terms.lead, level.base);
        let (periodic, period) = self.periodic(look, settings, now, terms.lead);
        let rate = calm.max(season).max(periodic);

        let recent = self.past.last(5.0);
        // While a queue is worked off there is more in progress than comes.
        let flying = if recent.queue > 0.0 && measured.is_some() { 0.0 } else { recent.mean_in_flight() };
        let flying = if terms.learned { flying.min(look.ready * capacity) } else { flying };
        let waiting = if measured.is_none() { look.queue } else { 0.0 };
        let here = (level.rate * service_time).max(flying + waiting);
        let forecast = (rate * service_time).max(flying + waiting);
        let real = (self.past.last(3.0 * scale).rate() * service_time).max(flying);
        if look.complete && measured.is_some() {
            self.errors.note(self.clock, real, forecast, terms.lead.round() + 1.0);
        }
        terms.error = match settings.headroom.quantile {
            Some(share) => self.errors.quantile(share, forecast).unwrap_or_else(|| forecast.max(0.25).sqrt()),
            None => 0.0,
        };
        terms.staffing = beta * (forecast + terms.error).max(0.25).sqrt();
        terms.slots = forecast + terms.error + terms.staffing;
        terms.rate = level.rate;
        terms.window = level.window;
        terms.surprise = level.surprise;
        terms.service_time = service_time;
        terms.level = here;
        terms.trend = (calm - level.rate) * service_time;
        terms.season = season.max(periodic) * service_time;
        terms.period = period;
        terms.forecast = forecast;
        if measured.is_some() && (look.queue > 0.0 || here > look.ready * capacity) {
            terms.backlog = backlog(look, here, settings, terms);
        }
        let reason = if periodic > calm.max(season) {
            "period"
        } else if season > calm {
            "season"
        } else if terms.trend > 0.0 {
            "trend"
        } else {
            "level"
        };
        (terms.slots, reason)
    }

    /// The rate that a period found in the load asks for, and that period.
    fn periodic(&mut self, look: &Look, settings: &Settings, now: f64, lead: f64) -> (f64, f64) {
        if !settings.periods {
            return (0.0, 0.0);
        }
        if look.complete {
            self.periods.note(now, look.slice.arrivals, look.slice.span);
        }
        self.periods.floor(lead + 3.0).unwrap_or_default()
    }

    fn season(&mut self, look: &Look, settings: &Settings, now: f64, lead: f64, base: f64) -> f64 {
        let known = |period: &&f64| period.is_finite() && **period >= 1.0;
        self.seasons.retain(|season| settings.seasonal.contains(&season.period));
        for period in settings.seasonal.iter().filter(known) {
            if !self.seasons.iter().any(|season| season.period == *period) {
                self.seasons.push(Season::new(*period, now));
            }
        }
        let floor = self.seasons.iter().map(|season| season.floor(now, lead + 3.0, base)).fold(0.0, f64::max);
        if look.complete {
            let (rate, span) = (look.slice.rate(), look.slice.span);
            self.seasons.iter_mut().for_each(|season| season.note(now, rate, span));
        }
        floor
    }
}

/// In how many seconds what waits is to be worked off.
fn drain(settings: &Settings, service_time: f64) -> f64 {
    (8.0 * settings.slo.wait).clamp(1.0, 10.0).max(service_time)
}

/// The work that would wait by the time new capacity lands if there were only what the load itself asks for, so that a boost does not call
/// itself off; in seconds of service.
fn backlog(look: &Look, load: f64, settings: &Settings, terms: &Terms) -> f64 {
    let (lead, capacity) = (terms.lead, terms.capacity);
    let room = settings.headroom.beta.clamp(0.0, 100.0) * load.max(0.25).sqrt();
    let fleet = ((load + room) / capacity).ceil().clamp(1.0, f64::from(settings.max.max(1)));
    let mut ready = look.ready.min(fleet);
    let mut coming: Vec<f64> = look.starting.iter().map(|age| (lead - age).max(0.0)).collect();
    coming.sort_by(f64::total_cmp);
    let missing = (fleet - ready).max(0.0) as usize;
    coming.truncate(missing);
    coming.resize(missing, lead);
    coming.push(lead);
    let (mut work, mut at) = (look.queue * terms.service_time, 0.0);
    for next in coming {
        let next = next.min(lead);
        work = (work + (load - capacity * ready) * (next - at)).max(0.0);
        at = next;
        ready += 1.0;
    }
    work
}
