//! What webhooks and programs that scale have in common: they are told how many instances there are to be, and somebody else makes them.

use std::cell::RefCell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use serde::{Deserialize, Serialize};

use super::driver::{Driver, DriverError, ErrorKind, Found, InstanceId, Life, Order, ScaleRequest};
use crate::admin::scaling::Finding;
use crate::types::Address;

/// The first pause behind a failed call, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How often somebody who answers with instances is asked for news of them: while something is on its way, and else.
const NEWS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));

/// A way to tell somebody.
pub trait Carrier {
    /// `webhook`, `exec`.
    fn kind(&self) -> &'static str;

    /// Hands a message over and returns the answer; within its own time bound.
    fn carry<'a>(&'a self, decision: &'a str, message: Bytes) -> LocalBoxFuture<'a, Result<Bytes, DriverError>>;
}

/// Scales by telling somebody who can, [`webhook`](super::Webhook) or [`exec`](super::Exec).
///
/// The same request is told under the same decision id until it has been taken, with growing pauses, and never again once it has: except that
/// somebody who answers with instances is asked for news under that id, and one who does not bring it about within `converge` is reminded.
#[derive(Debug)]
pub struct Hook<C> {
    pool: String,
    carrier: C,
    converge: Duration,
    state: RefCell<State>,
    /// Held while somebody is being told.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// What is to be told or was told last.
    request: Option<ScaleRequest>,
    /// Whether it has been taken.
    taken: bool,
    /// When it was first told, in seconds since 1970.
    told: f64,
    /// When it was last taken.
    asked: Option<Instant>,
    failures: u32,
    /// The last failure, and until when it stands for the next calls.
    wrong: Option<(DriverError, Instant)>,
    /// What the last answer said, if it named instances.
    instances: Option<Vec<Found>>,
    /// What discovery says.
    discovered: Vec<Address>,
}

/// What somebody is told.
#[derive(Debug, Serialize)]
struct Message<'a> {
    pool: &'a str,
    desired: u32,
    current: u32,
    decision_id: &'a str,
    generation: u64,
    reason: &'a str,
    victims: &'a [InstanceId],
    dry_run: bool,
}

/// What somebody may answer. Other keys are not read.
#[derive(Debug, Deserialize)]
struct Reply {
    instances: Option<Vec<Told>>,
}

#[derive(Debug, Deserialize)]
struct Told {
    id: String,
    address: Option<Address>,
    #[serde(default)]
    state: ToldState,
    zone: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ToldState {
    Pending,
    #[default]
    Running,
    Stopping,
}

impl<C: Carrier> Hook<C> {
    pub(super) fn with(pool: &str, carrier: C, converge: Duration) -> Hook<C> {
        Hook {
            pool: pool.to_owned(),
            carrier,
            converge,
            state: RefCell::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// What the pool's own upstreams are now (as they were configured or found by name): the instances of somebody who does not name any.
    pub fn discovered(&self, addresses: Vec<Address>) {
        self.state.borrow_mut().discovered = addresses;
    }

    /// What the last process has asked for: it is asked again, under the same decision id, so that [`Driver::list`] knows the instances after a restart.
    pub fn resume(&self, request: ScaleRequest) {
        let mut state = self.state.borrow_mut();
        if state.request.is_none() {
            state.ask_for(request);
        }
    }

    /// Tells what would be asked for, with `dry_run` set; the answer is not looked at.
    ///
    /// **Errors**: as [`Driver::scale`].
    pub async fn propose(&self, request: &ScaleRequest) -> Result<(), DriverError> {
        let message = self.message(request, true);
        self.carrier.carry(&request.decision, message).await.map(drop)
    }

    /// What was asked for and has not been brought about within the time for it; `now` in seconds since 1970.
    pub fn diverging(&self, now: f64) -> Option<Finding> {
        let state = self.state.borrow();
        let request = state.request.as_ref()?;
        let (desired, running, seconds) = (request.desired, state.running(), now - state.told);
        let settled = state.taken && running == desired as usize;
        if settled || seconds < self.converge.as_secs_f64() {
            return None;
        }
        let kind = self.carrier.kind();
        let so = match &state.wrong {
            Some((error, _)) => error.what.clone(),
            None => format!("{running} are there"),
        };
        Some(Finding {
            code: "NOT_CONVERGING".to_owned(),
            severity: "warning".to_owned(),
            pool: Some(self.pool.clone()),
            text: format!("{desired} instances were asked for by {kind} {seconds:.0} s ago: {so}"),
            advice: format!("look at what it does with decision {}; it is reminded under that id", request.decision),
        })
    }

    /// Tells the request that is due, if one is.
    async fn tell(&self) -> Result<(), DriverError> {
        let Ok(_turn) = self.turn.try_lock() else { return Ok(()) };
        let request = {
            let state = self.state.borrow();
            if let Some((error, until)) = &state.wrong
                && Instant::now() < *until
            {
                return Err(error.clone());
            }
            match state.request.clone().filter(|_| state.is_due(self.converge)) {
                Some(request) => request,
                None => return Ok(()),
            }
        };
        let answer = self.carrier.carry(&request.decision, self.message(&request, false)).await;
        let read = answer.and_then(|answer| self.read(&answer, request.generation));
        let mut state = self.state.borrow_mut();
        // It may have been replaced meanwhile; then the answer is to a question that nobody has any more.
        if state.request.as_ref() != Some(&request) {
            return Ok(());
        }
        match read {
            Ok(instances) => state.was_taken(instances),
            Err(error) => return Err(state.was_not_taken(error)),
        }
        Ok(())
    }

    fn message(&self, request: &ScaleRequest, dry_run: bool) -> Bytes {
        let message = Message {
            pool: &self.pool,
            desired: request.desired,
            current: request.current,
            decision_id: &request.decision,
            generation: request.generation,
            reason: &request.reason,
            victims: &request.victims,
            dry_run,
        };
        serde_json::to_vec(&message).unwrap_or_default().into()
    }

    /// The instances of an answer; none where it does not speak of any.
    fn read(&self, answer: &[u8], generation: u64) -> Result<Option<Vec<Found>>, DriverError> {
        let trimmed = answer.trim_ascii();
        // An answer that is no object (`ok`, nothing) says that it was taken.
        if !trimmed.starts_with(b"{") {
            return Ok(None);
        }
        let reply: Reply = serde_json::from_slice(trimmed).map_err(|error| DriverError {
            what: format!("the {} answers with JSON that cannot be used: {error}", self.carrier.kind()),
            advice: r#"let it answer {"instances": [{"id": "a", "address": "10.0.0.1:80", "state": "running"}]}, or nothing at all"#.to_owned(),
            kind: ErrorKind::Unreachable,
        })?;
        let found = |told: Told| Found {
            id: told.id,
            address: told.address,
            life: match told.state {
                ToldState::Pending => Life::Pending,
                ToldState::Running => Life::Running,
                ToldState::Stopping => Life::Stopping,
            },
            spec: None,
            started: None,
            generation,
            detail: format!("as its {} says", self.carrier.kind()),
            zone: told.zone,
        };
        Ok(reply.instances.map(|instances| instances.into_iter().map(found).collect()))
    }
}

impl State {
    /// Takes a request in. The same number asked for by the same leader is the request that there is already, whatever its id.
    fn ask_for(&mut self, request: ScaleRequest) {
        let same = |known: &ScaleRequest| (known.desired, known.generation) == (request.desired, request.generation);
        if self.request.as_ref().is_some_and(same) {
            return;
        }
        self.request = Some(request);
        self.told = unix_seconds();
        self.taken = false;
        self.asked = None;
        // Somebody who cannot be reached is not asked more often because more is wanted; somebody who refused may take this one.
        if self.wrong.as_ref().is_some_and(|(error, _)| error.kind != ErrorKind::Unreachable) {
            self.wrong = None;
            self.failures = 0;
        }
    }

    fn is_due(&self, converge: Duration) -> bool {
        if !self.taken {
            return true;
        }
        let Some(asked) = self.asked else { return true };
        let (Some(request), age) = (&self.request, asked.elapsed()) else { return false };
        let settled = self.running() == request.desired as usize;
        match &self.instances {
            Some(instances) => {
                let moving = !settled || instances.iter().any(|instance| instance.life != Life::Running);
                age >= if moving { NEWS.0 } else { NEWS.1 }
            }
            None => !settled && age >= converge,
        }
    }

    fn was_taken(&mut self, instances: Option<Vec<Found>>) {
        self.taken = true;
        self.asked = Some(Instant::now());
        self.failures = 0;
        self.wrong = None;
        // Somebody who did not name any this time still has them.
        self.instances = instances.or(self.instances.take());
    }

    fn was_not_taken(&mut self, error: DriverError) -> DriverError {
        let pause = PAUSE.0.saturating_mul(1 << self.failures.min(6)).min(PAUSE.1);
        self.failures += 1;
        self.wrong = Some((error.clone(), Instant::now() + pause));
        error
    }

    fn found(&self) -> Vec<Found> {
        self.instances.clone().unwrap_or_else(|| {
            let one = |address: &Address| Found {
                id: address.to_string(),
                address: Some(address.clone()),
                life: Life::Running,
                spec: None,
                started: None,
                generation: self.request.as_ref().map_or(0, |request| request.generation),
                detail: "found by the pool's upstreams".to_owned(),
                zone: None,
            };
            self.discovered.iter().map(one).collect()
        })
    }

    fn running(&self) -> usize {
        match &self.instances {
            Some(instances) => instances.iter().filter(|instance| instance.life == Life::Running).count(),
            None => self.discovered.len(),
        }
    }
}

impl<C: Carrier> Driver for Hook<C> {
    fn kind(&self) -> &'static str {
        self.carrier.kind()
    }

    fn discovered(&self, addresses: Vec<Address>) {
        Hook::discovered(self, addresses);
    }

    fn resume(&self, request: ScaleRequest) {
        Hook::resume(self, request);
    }

    fn propose<'a>(&'a self, request: &'a ScaleRequest) -> LocalBoxFuture<'a, Result<(), DriverError>> {
        Box::pin(Hook::propose(self, request))
    }

    fn diverging(&self, now: f64) -> Option<Finding> {
        Hook::diverging(self, now)
    }

    fn by_count(&self) -> bool {
        true
    }

    fn list(&self) -> LocalBoxFuture<'_, Result<Vec<Found>, DriverError>> {
        Box::pin(async {
            // Whoever names its instances is the only one to know them; whoever does not is not needed for a list.
            let told = self.tell().await;
            let state = self.state.borrow();
            match told {
                Err(error) if state.instances.is_some() && error.kind == ErrorKind::Unreachable => Err(error),
                _ => Ok(state.found()),
            }
        })
    }

    fn start<'a>(&'a self, _: &'a Order) -> LocalBoxFuture<'a, Result<(), DriverError>> {
        Box::pin(async { Err(self.only_counts()) })
    }

    fn stop<'a>(&'a self, _: &'a InstanceId, _: Duration) -> LocalBoxFuture<'a, Result<(), DriverError>> {
        Box::pin(async { Err(self.only_counts()) })
    }

    fn scale<'a>(&'a self, request: &'a ScaleRequest) -> LocalBoxFuture<'a, Result<(), DriverError>> {
        self.state.borrow_mut().ask_for(request.clone());
        Box::pin(self.tell())
    }
}

impl<C: Carrier> Hook<C> {
    fn only_counts(&self) -> DriverError {
        DriverError {
            what: format!("a {} cannot start or stop a single instance", self.carrier.kind()),
            advice: "scale the pool instead: `tidegate scaler set POOL N`".to_owned(),
            kind: ErrorKind::Refused,
        }
    }
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
