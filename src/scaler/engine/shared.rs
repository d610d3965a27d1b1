use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::clock::Wall;
use crate::admin::scaling::{Finding, PoolScaler, PoolSignals, Record, Signals};
use crate::config::model::Config;
use crate::scaler::notify::Event;
use crate::scaler::{ElectionError, Heard, HttpClient, Notifier, PoolHeard, Standing, Store, Watch};
use crate::snapshot::{Replica, Snapshot};
use crate::telemetry::Registry;

/// Whom the scaler works for: control, which alone makes snapshots.
pub(crate) trait Host: Send {
    /// The tables in force.
    fn snapshot(&self) -> Arc<Snapshot>;

    /// The replicas of a pool, the whole set of them, and how many requests one takes at once where that is learned.
    fn replicas(&self, pool: &Arc<str>, replicas: Vec<Replica>, learned: Option<u32>);
}

/// What the scalers of all pools share. Lives on the scaler's thread.
pub(super) struct Shared {
    pub(super) host: Box<dyn Host>,
    pub(super) registry: Arc<Registry>,
    pub(super) wall: RefCell<Wall>,
    /// Who this proxy is: for labels, leases and peers.
    pub(super) proxy: String,
    /// Where state and instances' files are kept.
    pub(super) folder: RefCell<PathBuf>,
    /// None while another process has the folder, or this proxy only follows.
    pub(super) store: RefCell<Option<Store>>,
    /// Why there is no store.
    pub(super) no_store: RefCell<Option<Finding>>,
    /// Whether this proxy decides.
    pub(super) role: RefCell<Role>,
    /// Instances of each pool, for `max_total`.
    pub(super) sizes: RefCell<BTreeMap<String, u32>>,
    pub(super) statuses: RefCell<BTreeMap<String, PoolScaler>>,
    /// What this proxy has seen itself.
    pub(super) own: RefCell<BTreeMap<String, PoolSignals>>,
    /// What other proxies have seen, and this one's scalers have not taken in yet.
    pub(super) heard: RefCell<Heard>,
    /// Bytes that are free on this machine; none where that is not to be known.
    pub(super) free_memory: Cell<Option<u64>>,
    /// What webhooks, peers and external signals are asked with.
    pub(super) http: HttpClient,
    /// What others are to be told of, and who tells them.
    pub(super) watch: RefCell<Watch>,
    pub(super) notifier: RefCell<Option<Notifier>>,
    /// How far the system's clock was found off, while that is worth telling.
    pub(super) drift: Cell<Option<f64>>,
}

/// What this proxy is among those of the same pools.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Role {
    /// As the election has it.
    pub(super) standing: Standing,
    /// Whether there are others at all.
    pub(super) alone: bool,
    /// Why nobody knows who leads.
    pub(super) problem: Option<Finding>,
}

impl Role {
    /// Before the first campaign: nobody decides.
    pub(super) fn unknown(alone: bool) -> Self {
        Role { standing: Standing { leads: alone, leader: None, generation: u64::from(alone) }, alone, problem: None }
    }

    /// In one or two words.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Role { alone: true, .. } => "none",
            Role { problem: Some(_), .. } => "no leader",
            Role { standing, .. } if standing.leads => "leader",
            _ => "follower",
        }
    }
}

impl Shared {
    /// How a campaign went: this proxy decides, follows, or knows nobody who leads.
    pub(super) fn heed(&self, outcome: Result<Standing, ElectionError>) {
        let mut role = self.role.borrow_mut();
        match outcome {
            Ok(standing) => {
                if standing.leads != role.standing.leads && !role.alone {
                    let leader = standing.leader.as_deref().unwrap_or("nobody");
                    let word = if standing.leads { "this proxy decides" } else { "this proxy only follows" };
                    tracing::info!(leader, generation = standing.generation, "{word} about instances");
                }
                (role.standing, role.problem) = (standing, None);
            }
            Err(error) => {
                if role.problem.is_none() {
                    tracing::warn!(
                        "nobody knows who decides about instances, so their numbers stay as they are: {error}"
                    );
                }
                role.standing.leads = false;
                role.problem = Some(Finding {
                    code: "NO_LEADER".to_owned(),
                    severity: "critical".to_owned(),
                    pool: None,
                    text: error.what,
                    advice: error.advice,
                });
            }
        }
    }

    /// Seconds since 1970, never going back.
    pub(super) fn now(&self) -> f64 {
        self.wall.borrow().now()
    }

    /// How many instances may still be started before `max_total`.
    pub(super) fn room(&self, config: &Config) -> u32 {
        let all: u32 = self.sizes.borrow().values().sum();
        config.scaler.max_total.map_or(u32::MAX, |max| max.saturating_sub(all))
    }

    /// Whether the machine has too little memory for another instance.
    pub(super) fn short_of_memory(&self, config: &Config) -> Option<Finding> {
        let (floor, free) = (config.scaler.host_memory_floor.0, self.free_memory.get()?);
        (free < floor).then(|| Finding {
            code: "HOST_MEMORY".to_owned(),
            severity: "warning".to_owned(),
            pool: None,
            text: format!(
                "{} MiB of memory are free here, less than `host_memory_floor`: nothing is started",
                free >> 20
            ),
            advice: "free memory, or lower `scaler.host_memory_floor`".to_owned(),
        })
    }

    /// Requests in progress that other proxies have at a pool's upstreams, by address.
    pub(super) fn elsewhere(&self, pool: &str) -> BTreeMap<String, u64> {
        self.heard.borrow().pools.get(pool).map(|heard| heard.upstreams.clone()).unwrap_or_default()
    }

    /// Addresses of a pool's instances that whoever decides is about to remove.
    pub(super) fn leaving(&self, pool: &str) -> Vec<String> {
        self.heard.borrow().pools.get(pool).map(|heard| heard.leaving.clone()).unwrap_or_default()
    }

    /// What other proxies have seen of a pool since this was last asked for, and whether all of them were heard.
    pub(super) fn take_heard(&self, pool: &str) -> (Option<PoolHeard>, bool) {
        let mut heard = self.heard.borrow_mut();
        let complete = heard.complete;
        (heard.pools.get_mut(pool).map(PoolHeard::give), complete)
    }

    /// Takes in what other proxies have told.
    pub(super) fn hear(&self, news: Heard) {
        let mut heard = self.heard.borrow_mut();
        heard.pools.retain(|pool, _| news.pools.contains_key(pool));
        for (pool, later) in news.pools {
            heard.pools.entry(pool).or_default().renew(later);
        }
        (heard.complete, heard.peers, heard.findings) = (news.complete, news.peers, news.findings);
    }

    /// A name for this proxy that outlives its process: the host's, and the folder that it keeps its state in.
    pub(super) fn owner(&self) -> String {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let folder = crate::balance::stable_hash(self.folder.borrow().as_os_str().as_encoded_bytes());
        format!("{host}-{folder:08x}")
    }

    /// A step was taken: whoever wants to know of large and of flapping ones is told.
    pub(super) fn stepped(&self, record: &Record) {
        self.tell(self.watch.borrow_mut().decided(record));
    }

    /// These are all conditions now: whoever wants to know of them is told what has come and what has gone.
    pub(super) fn conditions(&self, findings: &[Finding]) {
        let now = self.now();
        self.tell(self.watch.borrow_mut().conditions(now, findings));
    }

    fn tell(&self, events: Vec<Event>) {
        if let Some(notifier) = &*self.notifier.borrow()
            && !events.is_empty()
        {
            notifier.tell(events);
        }
    }

    /// What this proxy has seen, for the other ones.
    pub(super) fn signals(&self) -> Signals {
        Signals { proxy: self.proxy.clone(), at: self.now(), pools: self.own.borrow().clone() }
    }
}
