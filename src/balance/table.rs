use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crossbeam_utils::CachePadded;

use super::dice::Dice;
use super::ewma::Ewma;
use super::least::Least;
use super::load::Load;
use super::random::Random;
use super::ring::Ring;
use super::round_robin::RoundRobin;
use super::setting::Algorithm;
use crate::types::Moment;

/// An upstream that may be picked.
#[derive(Debug, Clone)]
pub struct Member {
    /// What a pick gives back; unique in its table.
    pub id: u32,
    /// Its counters.
    pub load: Arc<Load>,
    /// Its part of the load, slow start applied; with 0 it is only entered by id. Whatever is no positive number counts
    /// as 0.
    pub weight: f64,
    /// Requests it may have at once.
    pub max: Option<u32>,
    /// Only used while no other can take a request.
    pub backup: bool,
    /// A hash of its address that does not change; see [`stable_hash`](super::stable_hash).
    pub identity: u64,
}

/// Where a pool's turns stand. One for each pool; it survives reloads and is shared by all workers.
#[derive(Debug, Default)]
pub struct Cursor {
    // One for each tier: otherwise a full first tier would draw a turn before each of the second's, and make it skip.
    turns: [CachePadded<AtomicU64>; 2],
}

/// What a pick is made with.
#[derive(Debug, Clone, Copy)]
pub struct Draw<'a> {
    /// Now.
    pub now: Moment,
    /// 64 random bits, new for each pick.
    pub random: u64,
    /// The hash of the request's key, for [`Algorithm::Hash`]; without one it falls back to chance.
    pub hash: Option<u64>,
    /// Whoever has been tried for this request already.
    pub tried: &'a [u32],
}

/// Why nobody was picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPick {
    /// Nobody is there, or everybody who is has been tried.
    #[error("no upstream is left to try")]
    Empty,
    /// Everybody who has not been tried has as many requests as allowed.
    #[error("every upstream has as many requests as it may have")]
    Full,
}

/// Which upstream takes the next request, among those that are fit. Immutable; built for each snapshot.
#[derive(Debug)]
pub struct Table {
    tiers: [Tier; 2],
    /// Every member, also those of weight 0, by id.
    by_id: Box<[Member]>,
}

impl Cursor {
    /// At the first turn.
    pub fn new() -> Self {
        Cursor::default()
    }
}

impl Member {
    /// Whether it may be proposed: not tried, and with room when looked at.
    pub(super) fn is_open(&self, draw: &Draw<'_>) -> bool {
        !draw.tried.contains(&self.id) && self.max.is_none_or(|max| self.load.in_flight() < max)
    }

    /// Requests in flight for its weight.
    pub(super) fn crowding(&self) -> f64 {
        f64::from(self.load.in_flight()) / self.weight
    }
}

impl Table {
    /// A table of the members that are fit. `hash_bound` is how far above its fair share a member may be loaded, for
    /// [`Algorithm::Hash`].
    ///
    /// **Cost**: for turns and rings as their types say; milliseconds for a thousand members.
    pub fn new(algorithm: Algorithm, hash_bound: Option<f64>, mut members: Vec<Member>) -> Table {
        for member in &mut members {
            // Beyond 2^32, which no configured weight reaches, sums of weights could lose their meaning.
            member.weight = if member.weight > 0.0 { member.weight.min(4_294_967_296.0) } else { 0.0 };
        }
        let tier = |backup: bool| {
            let seats: Vec<Member> =
                members.iter().filter(|member| member.backup == backup && member.weight > 0.0).cloned().collect();
            Tier::new(algorithm, hash_bound, seats)
        };
        let tiers = [tier(false), tier(true)];
        members.sort_by_key(|member| member.id);
        Table { tiers, by_id: members.into() }
    }

    /// The id of the member that takes the request. Its [`Load`] has been entered, and is to be left once.
    ///
    /// **Errors**: see [`NoPick`]. Backups are picked where no other member can take it: none there, all tried, or all
    /// full.
    /// **Cost**: about 20 ns for turns, chance and hashes (measured, with entering and leaving), and 2–3 ns for each
    /// member where all are looked at. No allocation, no lock.
    pub fn pick(&self, cursor: &Cursor, draw: &Draw<'_>) -> Result<u32, NoPick> {
        let [first, second] = &self.tiers;
        match first.pick(&cursor.turns[0], draw) {
            Ok(id) => Ok(id),
            Err(reason) => second.pick(&cursor.turns[1], draw).map_err(|second| match (reason, second) {
                (NoPick::Empty, NoPick::Empty) => NoPick::Empty,
                _ => NoPick::Full,
            }),
        }
    }

    /// Whether there is anybody who takes new requests, with room or without.
    pub fn is_open(&self) -> bool {
        self.tiers.iter().any(|tier| !tier.members.is_empty())
    }

    /// Enters a certain member, for stickiness; weight and tier do not matter.
    ///
    /// **Errors**: [`NoPick::Empty`] if it is not (or no longer) in the table, or shut; [`NoPick::Full`] if it has no room.
    pub fn enter(&self, id: u32) -> Result<(), NoPick> {
        let member = self.member(id).ok_or(NoPick::Empty)?;
        match member.load.enter(member.max) {
            true => Ok(()),
            false if member.load.is_shut() => Err(NoPick::Empty),
            false => Err(NoPick::Full),
        }
    }

    /// The member of this id.
    pub fn member(&self, id: u32) -> Option<&Member> {
        self.by_id.binary_search_by_key(&id, |member| member.id).ok().map(|index| &self.by_id[index])
    }

    /// All members, by id.
    pub fn members(&self) -> &[Member] {
        &self.by_id
    }
}

/// Members that stand in for one another at once: the primaries, or the backups.
#[derive(Debug)]
struct Tier {
    members: Box<[Member]>,
    chooser: Chooser,
}

#[derive(Debug)]
enum Chooser {
    RoundRobin(RoundRobin),
    Least(Least),
    Ewma(Ewma),
    Random(Random),
    Ring(Ring),
    First,
}

/// Proposals that may turn out to be taken by another worker, before the tier is walked.
const PROPOSALS: usize = 3;

impl Tier {
    fn new(algorithm: Algorithm, hash_bound: Option<f64>, members: Vec<Member>) -> Self {
        let chooser = match algorithm {
            // An empty tier is never asked, so it needs no tables.
            _ if members.is_empty() => Chooser::First,
            Algorithm::RoundRobin | Algorithm::Weighted => Chooser::RoundRobin(RoundRobin::new(&members)),
            Algorithm::LeastConnections => Chooser::Least(Least::new(&members)),
            Algorithm::Ewma => Chooser::Ewma(Ewma::new(&members)),
            Algorithm::Random => Chooser::Random(Random::new(&members)),
            Algorithm::Hash => Chooser::Ring(Ring::new(&members, hash_bound)),
            Algorithm::First => Chooser::First,
        };
        Tier { members: members.into(), chooser }
    }

    fn pick(&self, turn: &AtomicU64, draw: &Draw<'_>) -> Result<u32, NoPick> {
        if self.members.is_empty() {
            return Err(NoPick::Empty);
        }
        for _ in 0..PROPOSALS {
            let Some(index) = self.propose(turn, draw) else { break };
            let member = &self.members[index];
            if member.load.enter(member.max) {
                return Ok(member.id);
            }
        }
        self.walk(draw)
    }

    fn propose(&self, turn: &AtomicU64, draw: &Draw<'_>) -> Option<usize> {
        let members = &self.members;
        match &self.chooser {
            Chooser::RoundRobin(turns) => turns.propose(members, turn, draw),
            Chooser::Least(least) => least.propose(members, turn, draw),
            Chooser::Ewma(ewma) => ewma.propose(members, draw),
            Chooser::Random(random) => random.propose(members, draw),
            Chooser::Ring(ring) => ring.propose(members, draw),
            Chooser::First => members.iter().position(|member| member.is_open(draw)),
        }
    }

    /// The first that lets us in, each asked once.
    fn walk(&self, draw: &Draw<'_>) -> Result<u32, NoPick> {
        let start = match &self.chooser {
            Chooser::First => 0,
            Chooser::Ring(ring) => ring.home(draw),
            _ => Dice::new(draw.random).below(self.members.len()),
        };
        let mut reason = NoPick::Empty;
        let (before, after) = self.members.split_at(start);
        for member in after.iter().chain(before).filter(|member| !draw.tried.contains(&member.id)) {
            if member.load.enter(member.max) {
                return Ok(member.id);
            }
            reason = NoPick::Full;
        }
        Err(reason)
    }
}
