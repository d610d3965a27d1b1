use super::{Member, Second, World};
use crate::scale::{Decision, Observed, Settings, State, decide};

/// Somebody who says once a second how many instances there should be.
pub trait Contestant {
    /// Its name in tables.
    fn name(&self) -> String;

    /// How many there should be; `None` where nothing is to change. The world's bounds hold in any case.
    fn wants(&mut self, view: &View<'_>) -> Option<u32>;

    /// Who leaves first.
    fn victims(&self) -> Victims {
        Victims::Newest
    }
}

/// Who leaves first. Those that are still starting do anyway, the last ordered before the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victims {
    /// Whoever came last, whatever it does: what a ReplicaSet does among equals.
    Newest,
    /// Whoever has the fewest requests.
    LeastInFlight,
}

/// What a contestant may look at.
#[derive(Debug)]
pub struct View<'a> {
    /// Seconds since the beginning; whole ones.
    pub now: u32,
    /// What the production scaler sees of the last second.
    pub seen: &'a Observed,
    /// All seconds so far, the last one last.
    pub seconds: &'a [Second],
    /// Who is there.
    pub members: &'a [Member],
    /// What is known of the world: its bounds and slots. `cores` is what only CPU metrics know.
    pub world: &'a World,
}

impl View<'_> {
    /// The last so many seconds; fewer where there were not so many yet.
    pub fn last(&self, seconds: usize) -> &[Second] {
        &self.seconds[self.seconds.len().saturating_sub(seconds)..]
    }

    /// Within the world's bounds.
    pub fn clamp(&self, wanted: f64) -> u32 {
        wanted.clamp(f64::from(self.world.min), f64::from(self.world.max)) as u32
    }
}

/// The production decision.
#[derive(Debug)]
pub struct Ours {
    name: String,
    settings: Settings,
    state: State,
    last: Decision,
}

impl Ours {
    /// When the simulation begins, in seconds since 1970: a midnight.
    const BEGIN: f64 = 1_700_006_400.0;

    /// With these settings; its bounds are the settings' own.
    pub fn new(settings: Settings) -> Self {
        Ours { name: "tidegate".to_owned(), settings, state: State::default(), last: Decision::default() }
    }

    /// Under another name.
    pub fn named(self, name: &str) -> Self {
        Ours { name: name.to_owned(), ..self }
    }

    /// With what it remembers of an earlier life.
    pub fn with_state(self, state: State) -> Self {
        Ours { state, ..self }
    }

    /// What it remembers.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The last decision.
    pub fn last(&self) -> &Decision {
        &self.last
    }
}

impl Contestant for Ours {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn wants(&mut self, view: &View<'_>) -> Option<u32> {
        self.last = decide(view.seen, &mut self.state, &self.settings, Self::BEGIN + f64::from(view.now));
        self.last.apply.then_some(self.last.desired)
    }

    fn victims(&self) -> Victims {
        Victims::LeastInFlight
    }
}
