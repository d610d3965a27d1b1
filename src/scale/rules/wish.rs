use super::condition::short;
use super::{Memory, schedule, signal};
use crate::scale::{Observed, Proposal, Settings, Source};

/// What everybody asks for.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) sources: Vec<Source>,
    /// The largest.
    pub(crate) wanted: u32,
    /// Whose that is.
    pub(crate) reason: String,
    /// Somebody who could have asked for all there are does not know.
    pub(crate) unknown: bool,
    /// What signals have asked for lately, and until when that counts.
    pub(crate) lately: Option<(u32, f64)>,
    /// What the load needs, were it not held.
    pub(crate) unheld: u32,
    /// The largest wish beside the load's.
    pub(crate) beside: u32,
}

impl Wishes {
    fn add(&mut self, source: Source) {
        self.beside = self.beside.max(source.wants.unwrap_or(0));
        if source.wants > Some(self.wanted) {
            self.wanted = source.wants.unwrap_or(0);
            self.reason.clone_from(&source.name);
        }
        self.sources.push(source);
    }
}

/// Asks everybody.
pub(crate) fn wishes(
    memory: &mut Memory,
    seen: &Observed,
    settings: &Settings,
    proposal: &Proposal,
    size: u32,
    now: f64,
) -> Wishes {
    let capacity = proposal.terms.capacity;
    memory.keep(settings);
    let mut all = Wishes::default();
    let mut lifted = None;
    for policy in &settings.policies {
        let run = memory.policies.entry(policy.name.clone()).or_default();
        let ask = run.look(policy, seen, capacity, size, now);
        lifted = lifted.max(ask.wants.filter(|_| ask.fewer));
        all.add(Source { name: format!("policy:{}", policy.name), wants: ask.wants, why: ask.why });
    }
    let mut by_signals = None;
    for wish in &settings.signals {
        let ask = signal::ask(wish, seen, settings, capacity, size);
        all.unknown |= ask.holds;
        by_signals = by_signals.max(ask.wants);
        all.add(Source { name: format!("signal:{}", wish.metric), wants: ask.wants, why: ask.why });
    }
    all.lately = lately(memory, settings, proposal, by_signals, now);
    for schedule in settings.schedules.iter().filter(|schedule| schedule.min.is_some()) {
        if let Some(floor) = schedule::floor(&mut memory.schedules, schedule, now) {
            all.add(floor);
        }
    }
    if let Some(floor) = memory.watch.floor(now) {
        let why = "so many were needed when fewer had been tried".to_owned();
        all.add(Source { name: "verify".to_owned(), wants: Some(floor), why });
    }
    load(&mut all, proposal, settings, [size, seen.current()], lifted);
    all
}

/// The load's own wish. It comes first, and it is the reason where others ask for no more.
fn load(all: &mut Wishes, proposal: &Proposal, settings: &Settings, [size, current]: [u32; 2], lifted: Option<u32>) {
    let soon = proposal.soon.max(proposal.up);
    let held = proposal.held_by == Some("hold");
    let floor = match lifted {
        // A window of the operator's own stands for the hold.
        _ if held && settings.down.stabilization.is_some() => soon,
        Some(asked) if held => soon.max(asked),
        _ => proposal.down,
    };
    // The load does not know of those that were wanted and are missing.
    let floor = if current < size { size } else { floor.min(size) };
    let wants = floor.max(proposal.up);
    all.unheld = if current < size { wants } else { soon.min(wants) };
    let source = Source { name: "load".to_owned(), wants: Some(wants), why: words(proposal, wants) };
    all.sources.insert(0, source);
    if wants >= all.wanted {
        all.wanted = wants;
        all.reason = if held && wants > soon { "hold" } else { proposal.reason }.to_owned();
    }
}

/// The terms of the load in words.
fn words(proposal: &Proposal, wants: u32) -> String {
    let terms = &proposal.terms;
    let mut words = format!("{} erlangs", short(terms.level));
    let ahead = terms.forecast - terms.level;
    if ahead.abs() >= 0.005 {
        words += &format!(", {} in {} s", short(terms.forecast), short(terms.lead));
    }
    words += &format!(", {} slots of {} each", short(terms.slots), short(terms.capacity));
    if terms.backlog > 0.0 {
        words += &format!(", {} s of work waiting", short(terms.backlog));
    }
    match proposal.held_by {
        Some(by) if wants > proposal.up => {
            words + &format!(": {} would do, kept by {by}", proposal.soon.max(proposal.up))
        }
        _ => words,
    }
}

/// Signals have no hold of their own; without one they would take away in one second what they ask for in the next.
fn lately(
    memory: &mut Memory,
    settings: &Settings,
    proposal: &Proposal,
    by_signals: Option<u32>,
    now: f64,
) -> Option<(u32, f64)> {
    if let Some(wish) = by_signals {
        memory.signals.push(now, wish);
    }
    let hold = proposal.terms.hold.max(settings.hold.min);
    let window = settings.down.stabilization.is_none() && !settings.signals.is_empty();
    window.then(|| memory.signals.within(hold, now)).flatten().map(|(said, wish)| (wish, said + hold))
}
