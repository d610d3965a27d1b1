use std::hash::RandomState;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dashmap::{DashMap, Entry as Place};

use super::ClientKey;
use super::permit::Seats;
use crate::types::Moment;

/// The clients of one rule.
///
/// **Bounds**: about `bound` clients; beyond it only clients with something in use are remembered, each of which costs far less
/// than the request or connection it has open. Memory is taken at the first client.
/// **Cost**: one SipHash (keyed: clients choose their addresses) and one shard lock.
#[derive(Debug)]
pub(super) struct Table {
    id: u64,
    clients: OnceLock<DashMap<ClientKey, Client, RandomState>>,
    size: AtomicUsize,
    /// How far above its bound the table may grow before clients are forgotten again.
    slack: AtomicUsize,
    forgetting: AtomicBool,
    evicted: AtomicU64,
}

/// What is remembered of a client.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// From when on it owes nothing (GCRA's theoretical arrival time); never before its last use.
    pub(super) clear: Moment,
    /// What it has in use; only made for rules that count it.
    pub(super) seats: Option<Arc<Seats>>,
}

impl Client {
    pub(super) fn seats(&mut self) -> &Arc<Seats> {
        self.seats.get_or_insert_default()
    }

    fn in_use(&self) -> bool {
        self.seats.as_ref().is_some_and(|seats| seats.in_use())
    }
}

impl Table {
    /// How long a client that owes nothing and has nothing in use is kept, so that the next request finds its entry.
    const KEEP: Duration = Duration::from_secs(60);

    pub(super) fn new() -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Arc::new(Table {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            clients: OnceLock::new(),
            size: AtomicUsize::new(0),
            slack: AtomicUsize::new(0),
            forgetting: AtomicBool::new(false),
            evicted: AtomicU64::new(0),
        })
    }

    /// A name that no other table of this process has or had.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// How many clients are remembered.
    pub(super) fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    /// How many were forgotten for want of room, ever.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Runs `decide` on the client, who is made where unknown, while nobody else can.
    pub(super) fn with<R>(
        &self,
        key: ClientKey,
        bound: usize,
        now: Moment,
        decide: impl FnOnce(&mut Client) -> R,
    ) -> R {
        let clients = self.clients.get_or_init(|| clients(bound));
        if let Some(mut client) = clients.get_mut(&key) {
            return decide(&mut client);
        }
        if self.size() >= bound.saturating_add(self.slack.load(Ordering::Relaxed)) {
            self.make_room(clients, bound, now);
        }
        match clients.entry(key) {
            Place::Occupied(mut known) => decide(known.get_mut()),
            Place::Vacant(place) => {
                self.size.fetch_add(1, Ordering::Relaxed);
                decide(place.insert(Client::default()).value_mut())
            }
        }
    }

    /// Runs `look` on the client if it is known.
    pub(super) fn look<R>(&self, key: ClientKey, look: impl FnOnce(&Client) -> R) -> Option<R> {
        self.clients.get()?.get(&key).map(|client| look(&client))
    }

    /// Forgets an eighth of the bound: clients who owe nothing, longest unused first, then those who owe least.
    ///
    /// A client can so buy itself a fresh start only with more clients who owe more than it does. Clients with something in
    /// use stay. Done in bulk, so that each new client of a flood pays 200 ns more, measured in a table of 100,000.
    fn make_room(&self, clients: &DashMap<ClientKey, Client, RandomState>, bound: usize, now: Moment) {
        if self.forgetting.swap(true, Ordering::Acquire) {
            return;
        }
        let mut ranks = [0u32; RANKS];
        for client in clients.iter().filter(|client| !client.in_use()) {
            ranks[rank(client.clear, now)] += 1;
        }
        let wanted = (bound / 8).max(1) + self.size().saturating_sub(bound);
        let (border, mut from_border) = border(&ranks, wanted);
        let forgotten = self.retain(clients, |client| {
            let rank = rank(client.clear, now);
            let forget = !client.in_use() && (rank < border || (rank == border && from_border > 0));
            from_border -= usize::from(forget && rank == border);
            !forget
        });
        self.evicted.fetch_add(forgotten as u64, Ordering::Relaxed);
        // Where most clients are in use there is little to gain: look again only after some more have come.
        let slack = (self.size() + bound / 16 + 16).saturating_sub(bound);
        self.slack.store(if forgotten * 2 >= wanted { 0 } else { slack }, Ordering::Relaxed);
        self.forgetting.store(false, Ordering::Release);
    }

    /// Forgets clients that are as good as unknown and were so for a while; gives memory back after a flood.
    ///
    /// In a table that fills up it is all who are as good as unknown: cheaper here than where a request waits for it.
    pub(super) fn sweep(&self, bound: usize, now: Moment) {
        let Some(clients) = self.clients.get() else { return };
        let keep = if self.size() > bound / 4 * 3 { Duration::ZERO } else { Self::KEEP };
        self.retain(clients, |client| client.in_use() || client.clear + keep > now);
        self.slack.store(0, Ordering::Relaxed);
        if clients.capacity() > 1024 + 4 * clients.len() {
            clients.shrink_to_fit();
        }
    }

    /// Changes every client, one shard after another.
    pub(super) fn for_each(&self, mut change: impl FnMut(&mut Client)) {
        for mut client in self.clients.get().into_iter().flat_map(DashMap::iter_mut) {
            change(&mut client);
        }
    }

    fn retain(
        &self,
        clients: &DashMap<ClientKey, Client, RandomState>,
        mut keep: impl FnMut(&Client) -> bool,
    ) -> usize {
        let mut forgotten = 0;
        clients.retain(|_, client| {
            let keep = keep(client);
            forgotten += usize::from(!keep);
            keep
        });
        self.size.fetch_sub(forgotten, Ordering::Relaxed);
        forgotten
    }
}

/// More shards for more clients, so that a pass over one holds its lock for some ten microseconds at most.
fn clients(bound: usize) -> DashMap<ClientKey, Client, RandomState> {
    let shards = (bound / 1024).next_power_of_two().clamp(4, 128);
    DashMap::with_hasher_and_shard_amount(RandomState::new(), shards)
}

const RANKS: usize = 512;

/// Orders clients by who is forgotten first: below 256 those who owe nothing, the longest unused lowest; above, by debt.
/// Four ranks to each doubling of time.
fn rank(clear: Moment, now: Moment) -> usize {
    if clear <= now { 255 - steps(now.nanos() - clear.nanos()) } else { 256 + steps(clear.nanos() - now.nanos()) }
}

fn steps(span: u64) -> usize {
    if span < 4 {
        return span as usize;
    }
    let octave = 63 - span.leading_zeros();
    ((octave - 1) * 4) as usize + (span >> (octave - 2) & 3) as usize
}

/// The rank up to which `wanted` clients are found, and how many of that rank itself are among them.
fn border(ranks: &[u32; RANKS], wanted: usize) -> (usize, usize) {
    let mut below = 0;
    for (rank, count) in ranks.iter().enumerate() {
        if below + *count as usize >= wanted {
            return (rank, wanted - below);
        }
        below += *count as usize;
    }
    (RANKS, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn key(n: u32) -> ClientKey {
        ClientKey::address(IpAddr::V4(n.into()))
    }

    fn at(seconds: u64) -> Moment {
        Moment::START + Duration::from_secs(seconds)
    }

    fn owe(table: &Table, n: u32, bound: usize, now: Moment, clear: Moment) {
        table.with(key(n), bound, now, |client| client.clear = clear);
    }

    fn knows(table: &Table, n: u32) -> bool {
        table.look(key(n), |_| ()).is_some()
    }

    #[test]
    fn ranks_go_from_the_longest_unused_to_the_deepest_in_debt() {
        let now = at(1000);
        let mut last = 0;
        for clear in (0..2000).map(at).chain([Moment::NEVER]) {
            assert!(rank(clear, now) >= last && rank(clear, now) < RANKS);
            last = rank(clear, now);
        }
        assert!(rank(now, now) < rank(now + Duration::from_nanos(1), now));
        assert_eq!((rank(Moment::START, Moment::NEVER), rank(Moment::NEVER, Moment::START)), (4, 507));
    }

    #[test]
    fn a_full_table_forgets_who_owes_nothing_and_was_longest_unused() {
        let table = Table::new();
        for n in 0..64 {
            let unused_since = if n < 8 { n } else { 60 + n };
            owe(&table, n, 64, at(100), at(u64::from(unused_since)));
        }
        assert_eq!((table.size(), table.evicted()), (64, 0));
        owe(&table, 1000, 64, at(100), at(101));
        assert_eq!((table.size(), table.evicted()), (57, 8));
        for n in 8..64 {
            assert!(knows(&table, n), "{n}");
        }
    }

    #[test]
    fn a_flood_of_new_clients_does_not_buy_an_old_debtor_a_fresh_start() {
        let (table, now) = (Table::new(), at(100));
        owe(&table, 1, 1000, now, at(160));
        for n in 10..200_000 {
            owe(&table, n, 1000, now, now + Duration::from_secs(1));
        }
        assert!(knows(&table, 1));
        assert!(table.size() <= 1000);
    }

    #[test]
    fn clients_with_something_in_use_stay_and_the_table_grows_only_by_them() {
        let (table, now) = (Table::new(), at(1000));
        for n in 0..300 {
            table.with(key(n), 100, now, |client| client.seats().enter_request());
        }
        assert_eq!((table.size(), table.evicted()), (300, 0));
        table.sweep(100, at(2000));
        assert_eq!(table.size(), 300);
        table.with(key(7), 100, now, |client| client.seats().leave_request());
        table.sweep(100, at(2000));
        assert_eq!(table.size(), 299);
        assert!(!knows(&table, 7));
    }

    #[test]
    fn a_sweep_forgets_the_idle_and_no_debtor() {
        let table = Table::new();
        owe(&table, 1, 100, at(100), at(100));
        owe(&table, 2, 100, at(100), at(150));
        table.sweep(100, at(159));
        assert_eq!(table.size(), 2);
        table.sweep(100, at(160));
        assert!(!knows(&table, 1) && knows(&table, 2));
        table.sweep(100, at(210));
        assert_eq!(table.size(), 0);
    }

    #[test]
    fn a_sweep_of_a_table_that_fills_up_forgets_all_who_owe_nothing() {
        let table = Table::new();
        for n in 0..80 {
            owe(&table, n, 100, at(100), at(if n < 10 { 101 } else { 100 }));
        }
        table.sweep(100, at(100));
        assert_eq!((table.size(), table.evicted()), (10, 0));
    }

    #[test]
    fn memory_is_given_back_after_a_flood() {
        let table = Table::new();
        for n in 0..50_000 {
            owe(&table, n, 100_000, at(1), at(1));
        }
        table.sweep(100_000, at(100));
        assert!(table.clients.get().unwrap().capacity() <= 1024);
    }

    #[test]
    fn a_table_for_one_client_holds_one() {
        let table = Table::new();
        for n in 0..100 {
            owe(&table, n, 1, at(100), at(101));
            assert_eq!(table.size(), 1);
        }
        assert!(knows(&table, 99));
    }
}
