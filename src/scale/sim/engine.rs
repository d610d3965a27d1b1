use std::collections::VecDeque;

use super::contestant::{Contestant, Victims, View};
use super::outcome::Outcome;
use super::random::Random;
use super::workload::{Request, Workload};
use super::world::World;
use crate::scale::{Instance, Observed, Phase};

/// One second of a run. Means where it says nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Second {
    /// Requests that came.
    pub arrivals: f64,
    /// Requests that were done.
    pub completions: f64,
    /// How long those had held their slots, together.
    pub held: f64,
    /// Requests in progress.
    pub in_flight: f64,
    /// Requests that waited.
    pub queue: f64,
    /// The longest wait of the first in the queue.
    pub oldest_wait: f64,
    /// Cores in use, of all instances.
    pub busy: f64,
    /// Instances that were ready.
    pub ready: f64,
    /// Instances that were starting.
    pub starting: f64,
    /// Instances that were draining.
    pub draining: f64,
    /// Requests that were too late or lost.
    pub violated: f64,
    /// Requests that were lost.
    pub dropped: f64,
}

/// An instance.
#[derive(Debug, Clone)]
pub struct Member {
    /// The how manieth it is.
    pub id: u64,
    /// What it does.
    pub phase: Phase,
    /// When it was ordered.
    pub ordered: f64,
    /// When it is ready.
    pub ready: f64,
    /// Core-seconds it has used.
    pub busy: f64,
    /// Requests in progress.
    pub in_flight: usize,
    drains_until: f64,
    jobs: Vec<Job>,
    /// How much a request that is in progress all the time has been given so far; all get the same.
    given: f64,
    at: f64,
    /// When the next of its requests is done.
    next: f64,
}

#[derive(Debug, Clone, Copy)]
struct Job {
    request: Request,
    started: f64,
    /// Done when `given` is so much.
    done: f64,
}

impl Member {
    fn new(id: u64, phase: Phase, ordered: f64, ready: f64) -> Self {
        let (busy, in_flight, jobs) = (0.0, 0, Vec::new());
        let (drains_until, given, at, next) = (f64::INFINITY, 0.0, ordered, f64::INFINITY);
        Member { id, phase, ordered, ready, busy, in_flight, drains_until, jobs, given, at, next }
    }

    /// Whether it takes requests.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Whether it is leaving.
    pub fn is_draining(&self) -> bool {
        self.phase == Phase::Draining
    }

    fn advance(&mut self, now: f64, cores: f64) {
        let count = self.jobs.len() as f64;
        if count > 0.0 {
            let used = count.min(cores);
            self.given += (now - self.at) * used / count;
            self.busy += (now - self.at) * used;
        }
        self.at = now;
    }

    fn plan(&mut self, cores: f64) {
        self.in_flight = self.jobs.len();
        if self.jobs.is_empty() {
            self.given = 0.0;
            self.next = f64::INFINITY;
            return;
        }
        let first = self.jobs.iter().fold(f64::INFINITY, |first, job| first.min(job.done));
        let count = self.jobs.len() as f64;
        self.next = self.at + (first - self.given).max(0.0) * count / count.min(cores);
    }

    fn take(&mut self, request: Request, now: f64, cores: f64) {
        self.advance(now, cores);
        self.jobs.push(Job { request, started: now, done: self.given + request.demand });
        self.plan(cores);
    }

    fn finish(&mut self, now: f64, cores: f64) -> Job {
        self.advance(now, cores);
        let first = (0..self.jobs.len()).min_by(|a, b| self.jobs[*a].done.total_cmp(&self.jobs[*b].done));
        let job = self.jobs.swap_remove(first.unwrap_or(0));
        self.plan(cores);
        job
    }
}

/// Plays a load against a contestant.
///
/// **Cost**: some 150 ns a request where there are ten instances.
pub fn run(workload: &Workload, world: &World, contestant: &mut dyn Contestant) -> Outcome {
    let mut play = Play::new(workload, world);
    for second in 1..=workload.seconds {
        play.until(f64::from(second));
        let seen = play.close();
        let view = View { now: second, seen: &seen, seconds: &play.seconds, members: &play.members, world };
        let wanted = contestant.wants(&view);
        play.scale_to(wanted, contestant.victims());
    }
    play.outcome(contestant.name())
}

struct Play<'a> {
    world: &'a World,
    requests: &'a [Request],
    next: usize,
    now: f64,
    random: Random,
    ids: u64,
    members: Vec<Member>,
    /// When a member is next ready or has drained long enough.
    turn: f64,
    queue: VecDeque<Request>,
    in_flight: usize,
    /// Where the search for the least busy begins.
    cursor: usize,
    second: Second,
    seconds: Vec<Second>,
    started: Vec<f64>,
    answers: Vec<f64>,
    lateness: Lateness,
    outcome: Outcome,
    last_change: Option<(f64, bool)>,
    /// Starting, ready and draining ones.
    counts: [f64; 3],
    /// Core-seconds up to the last second's end.
    used: f64,
    used_by_gone: f64,
}

impl<'a> Play<'a> {
    fn new(workload: &'a Workload, world: &'a World) -> Self {
        let mut play = Play {
            world,
            requests: &workload.requests,
            next: 0,
            now: 0.0,
            random: Random::new(world.seed ^ 0x7919),
            ids: 0,
            members: Vec::new(),
            turn: f64::INFINITY,
            queue: VecDeque::new(),
            in_flight: 0,
            cursor: 0,
            second: Second::default(),
            seconds: Vec::with_capacity(workload.seconds as usize),
            started: Vec::new(),
            answers: Vec::new(),
            lateness: Lateness::default(),
            outcome: Outcome { hours: f64::from(workload.seconds) / 3600.0, ..Outcome::default() },
            last_change: None,
            counts: [0.0; 3],
            used: 0.0,
            used_by_gone: 0.0,
        };
        (0..world.first).for_each(|_| play.add(Phase::Ready, 0.0));
        play.turn_over();
        play
    }

    fn add(&mut self, phase: Phase, after: f64) {
        self.ids += 1;
        self.members.push(Member::new(self.ids, phase, self.now, self.now + after));
    }

    /// Everything that happens before `end`.
    fn until(&mut self, end: f64) {
        loop {
            let arrival = self.requests.get(self.next).map_or(f64::INFINITY, |request| request.at);
            let timeout = self.queue.front().map_or(f64::INFINITY, |first| first.at + self.world.queue_timeout);
            let (done, member) = self.first_done();
            let at = arrival.min(timeout).min(done).min(self.turn);
            if at >= end {
                break self.pass(end);
            }
            self.pass(at);
            if at == done {
                self.finish(member);
            } else if at == self.turn {
                self.turn_over();
            } else if at == timeout {
                self.leave_queue();
                self.lose(1);
            } else {
                self.arrive();
            }
        }
    }

    fn first_done(&self) -> (f64, usize) {
        let each = self.members.iter().map(|member| member.next).enumerate();
        each.fold((f64::INFINITY, 0), |best, (index, next)| if next < best.0 { (next, index) } else { best })
    }

    /// Lets time go by.
    fn pass(&mut self, to: f64) {
        let span = to - self.now;
        self.second.in_flight += span * self.in_flight as f64;
        self.second.queue += span * self.queue.len() as f64;
        self.second.starting += span * self.counts[0];
        self.second.ready += span * self.counts[1];
        self.second.draining += span * self.counts[2];
        self.now = to;
    }

    fn arrive(&mut self) {
        let request = self.requests[self.next];
        self.next += 1;
        self.second.arrivals += 1.0;
        if self.queue.len() >= self.world.queue_size {
            return self.lose(1);
        }
        self.queue.push_back(request);
        if self.queue.len() == 1 {
            self.dispatch();
        }
    }

    fn leave_queue(&mut self) -> Option<Request> {
        let request = self.queue.pop_front()?;
        self.second.oldest_wait = self.second.oldest_wait.max(self.now - request.at);
        Some(request)
    }

    /// Gives what waits to whoever has the fewest requests and room for one more.
    fn dispatch(&mut self) {
        while !self.queue.is_empty() {
            let count = self.members.len();
            let order = (0..count).map(|step| (self.cursor + step) % count);
            let open = order.filter(|index| {
                self.members[*index].is_ready() && self.members[*index].in_flight < self.world.slots as usize
            });
            let Some(index) = open.min_by_key(|index| self.members[*index].in_flight) else { return };
            self.cursor = index + 1;
            self.give(index);
        }
    }

    fn give(&mut self, index: usize) {
        if let Some(request) = self.leave_queue() {
            self.in_flight += 1;
            self.members[index].take(request, self.now, self.world.cores);
        }
    }

    fn finish(&mut self, index: usize) {
        let job = self.members[index].finish(self.now, self.world.cores);
        self.in_flight -= 1;
        let latency = self.now - job.request.at;
        let late = latency - job.request.demand;
        self.second.completions += 1.0;
        self.second.held += self.now - job.started;
        self.answers.push(latency);
        self.lateness.add(late);
        if late > self.world.slack {
            self.second.violated += 1.0;
        }
        match self.members[index].phase {
            Phase::Ready => self.give(index),
            _ if self.members[index].jobs.is_empty() => self.turn_over(),
            _ => {}
        }
    }

    fn lose(&mut self, count: usize) {
        self.second.violated += count as f64;
        self.second.dropped += count as f64;
        (0..count).for_each(|_| self.lateness.add(f64::INFINITY));
    }

    /// Instances become ready, and those that have drained go.
    fn turn_over(&mut self) {
        let (now, cores) = (self.now, self.world.cores);
        for index in (0..self.members.len()).rev() {
            let member = &mut self.members[index];
            if member.phase == Phase::Starting && member.ready <= now {
                member.phase = Phase::Ready;
                self.started.push(member.ready - member.ordered);
            } else if member.is_draining() && (member.jobs.is_empty() || member.drains_until <= now) {
                member.advance(now, cores);
                let member = self.members.remove(index);
                self.in_flight -= member.jobs.len();
                self.lose(member.jobs.len());
                self.bill(&member);
            }
        }
        self.recount();
        self.dispatch();
    }

    fn recount(&mut self) {
        let count = |phase| self.members.iter().filter(|member| member.phase == phase).count() as f64;
        self.counts = [count(Phase::Starting), count(Phase::Ready), count(Phase::Draining)];
        let turn = |member: &Member| match member.phase {
            Phase::Starting => member.ready,
            _ => member.drains_until,
        };
        self.turn = self.members.iter().map(turn).fold(f64::INFINITY, f64::min);
    }

    fn bill(&mut self, member: &Member) {
        self.outcome.instance_hours += (self.now - member.ordered) / 3600.0;
        self.used_by_gone += member.busy;
        self.outcome.busy_hours += member.busy / self.world.cores / 3600.0;
    }

    /// Ends a second: its row, and what a scaler sees of it.
    fn close(&mut self) -> Observed {
        let mut second = std::mem::take(&mut self.second);
        if let Some(first) = self.queue.front() {
            second.oldest_wait = second.oldest_wait.max(self.now - first.at);
        }
        self.members.iter_mut().for_each(|member| member.advance(self.now, self.world.cores));
        let used = self.used_by_gone + self.members.iter().map(|member| member.busy).sum::<f64>();
        second.busy = used - std::mem::replace(&mut self.used, used);
        self.outcome.requests += second.arrivals as u64;
        self.outcome.violated += second.violated as u64;
        self.outcome.dropped += second.dropped as u64;
        self.seconds.push(second);
        let instance = |member: &Member| Instance { phase: member.phase, age: self.now - member.ordered };
        Observed {
            span: 1.0,
            arrivals: second.arrivals,
            completions: second.completions,
            held: second.held,
            in_flight: second.in_flight,
            queue: self.queue.len() as f64,
            oldest_wait: second.oldest_wait,
            saturated: second.dropped,
            latency_p95: percentile(&mut self.answers, 0.95),
            cpu: (second.ready > 0.0).then(|| second.busy / (second.ready * self.world.cores)),
            instances: self.members.iter().map(instance).collect(),
            started: std::mem::take(&mut self.started),
            complete: true,
            ..Observed::default()
        }
    }

    fn scale_to(&mut self, wanted: Option<u32>, victims: Victims) {
        let current = self.members.iter().filter(|member| !member.is_draining()).count();
        let wanted = wanted.map_or(current, |wanted| wanted.clamp(self.world.min, self.world.max) as usize);
        self.outcome.peak = self.outcome.peak.max(wanted as u32);
        if wanted == current {
            return;
        }
        let up = wanted > current;
        self.outcome.changes += 1;
        if self.last_change.is_some_and(|(at, was_up)| was_up != up && self.now - at <= 600.0) {
            self.outcome.reversals += 1;
        }
        self.last_change = Some((self.now, up));
        if up {
            self.outcome.starts += (wanted - current) as u64;
            for _ in current..wanted {
                let varied = 1.0 + self.world.startup_jitter * (2.0 * self.random.uniform() - 1.0);
                self.add(Phase::Starting, self.world.startup * varied);
            }
            self.recount();
        } else {
            self.outcome.stops += (current - wanted) as u64;
            (wanted..current).for_each(|_| self.send_away(victims));
            self.turn_over();
        }
    }

    fn send_away(&mut self, victims: Victims) {
        let of = |phase| self.members.iter().enumerate().filter(move |(_, member)| member.phase == phase);
        let late = |a: &&Member, b: &&Member| a.ready.total_cmp(&b.ready);
        if let Some((index, _)) = of(Phase::Starting).max_by(|(_, a), (_, b)| late(a, b)) {
            let member = self.members.remove(index);
            return self.bill(&member);
        }
        let victim = match victims {
            Victims::Newest => of(Phase::Ready).max_by(|(_, a), (_, b)| late(a, b)),
            Victims::LeastInFlight => of(Phase::Ready).min_by_key(|(_, member)| member.in_flight),
        };
        if let Some((index, _)) = victim {
            self.members[index].phase = Phase::Draining;
            self.members[index].drains_until = self.now + self.world.drain;
        }
    }

    fn outcome(mut self, name: String) -> Outcome {
        for member in std::mem::take(&mut self.members) {
            self.bill(&member);
        }
        let (p95, p99) = (self.lateness.quantile(0.95), self.lateness.quantile(0.99));
        Outcome { name, p95, p99, ..self.outcome }
    }
}

fn percentile(values: &mut Vec<f64>, share: f64) -> Option<f64> {
    let rank = (values.len() as f64 * share) as usize;
    let found = (rank < values.len()).then(|| *values.select_nth_unstable_by(rank, f64::total_cmp).1);
    values.clear();
    found
}

/// How late answers were: a histogram from 1 ms up whose steps are 10 %.
#[derive(Default)]
struct Lateness(Vec<u64>);

impl Lateness {
    const FIRST: f64 = 1e-3;
    const STEP: f64 = 1.1;
    const BINS: usize = 140;

    fn add(&mut self, late: f64) {
        self.0.resize(Self::BINS, 0);
        let bin = (late.max(Self::FIRST) / Self::FIRST).ln() / Self::STEP.ln();
        self.0[(bin as usize).min(Self::BINS - 1)] += 1;
    }

    fn quantile(&self, share: f64) -> f64 {
        let all: u64 = self.0.iter().sum();
        let mut below = 0;
        let bin = self.0.iter().position(|count| {
            below += count;
            below as f64 >= share * all as f64
        });
        Self::FIRST * Self::STEP.powi(bin.unwrap_or(0) as i32)
    }
}
