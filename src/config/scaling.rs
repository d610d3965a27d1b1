//! The scaler's part of the model: `[scaler]` and `[pool.NAME.scaler]`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::model::Secret;
use super::section::{MILLISECOND, section};
use crate::scale::{
    Adjust, Condition, LeaderKind, Metric, Mode, Paces, Profile, Select, StopSignal, Target, VictimOrder,
};
use crate::types::{Share, Size};

/// What is remembered for windows and paces.
const HOUR: Duration = Duration::from_secs(3600);

section! {
    /// What holds for the scalers of all pools.
    pub struct Scalers ("scaler") {
        /// The folder that state and decision history are kept in; unless given systemd's state directory, else `tidegate-state` beside the configuration.
        state: Option<PathBuf> = None,
        /// How long decisions are kept.
        retention: Duration = Duration::from_secs(90 * 86400),
        /// Instances of all pools together; further ones are not started.
        max_total: Option<u32> [1..] = None,
        /// No instance is started while the machine has less free memory than this.
        host_memory_floor: Size = Size(0),
        /// Which of several proxies decides.
        leader: Leader = Leader::default(),
        /// The admin APIs of the other proxies in front of the same pools, whose signals are summed: `["http://10.0.0.2:9900"]`.
        peers: Vec<String> = vec![],
        /// The token that peers ask for; this proxy's own `admin.token` unless given.
        peer_token: Option<Secret> = None,
        /// Who is told of large or flapping changes and of conditions.
        notify: Notify = Notify::default(),
        /// What instances cost, for reports and plans.
        cost: Cost = Cost::default(),
    }
}

impl Scalers {
    /// Where state is kept: as configured, else where systemd wants it, else in `base`, the configuration's own folder.
    pub fn state_folder(&self, base: &std::path::Path) -> PathBuf {
        let systemd = || std::env::var_os("STATE_DIRECTORY").filter(|folder| !folder.is_empty()).map(PathBuf::from);
        self.state.clone().or_else(systemd).unwrap_or_else(|| base.join("tidegate-state"))
    }
}

section! {
    /// Leader election on something that is there already.
    pub struct Leader ("scaler.leader", short kind) {
        /// `"none"` (this proxy is alone), `"file"` (proxies of one host), `"redis"` or `"kubernetes"` (a Lease).
        kind: LeaderKind = LeaderKind::None,
        /// With `"file"`: the file that is locked.
        file: Option<PathBuf> = None,
        /// With `"redis"`: where, as `redis://[:password@]host:port/db`.
        redis: Option<Secret> = None,
        /// With `"kubernetes"`: the Lease's namespace; the pod's own unless given.
        namespace: Option<String> = None,
        /// The name of the Lease or key.
        name: String = "tidegate".to_owned(),
        /// How long a leader that is not heard of stays leader.
        lease: Duration [Duration::from_secs(1)..] = Duration::from_secs(10),
    }
}

section! {
    /// Telling others.
    pub struct Notify ("scaler.notify") {
        /// Gets a JSON object by POST for each event.
        webhook: Option<String> = None,
        /// Signs the webhook's body: `X-Tidegate-Signature: sha256=HEX` (HMAC-SHA256).
        secret: Option<Secret> = None,
        /// A step of so many instances or more is told.
        large_change: u32 [1..] = 5,
        /// So many changes of direction within ten minutes are told as flapping.
        flapping: u32 [1..] = 4,
    }
}

section! {
    /// What instances cost.
    pub struct Cost ("scaler.cost") {
        /// As it is written behind the numbers.
        currency: String = "USD".to_owned(),
        /// One instance for one hour.
        instance_hour: f64 [0.0..] = 0.0,
    }
}

section! {
    /// The pool's own scaler: it adds and removes upstreams by the pool's load. One of `process`, `docker`, `kubernetes`, `systemd`, `webhook` and `exec` says how.
    pub struct Scaler ("pool.NAME.scaler") {
        /// `"off"`, `"observe"` (look and learn), `"dry_run"` (decide and tell), `"up_only"` or `"on"`.
        mode: Mode = Mode::On,
        /// The fewest instances; 0 lets the pool sleep, and the first request wakes it.
        min: u32 [0..=10_000] = 1,
        /// The most instances.
        max: u32 [1..=10_000] = 10,
        /// `"fast"`, `"balanced"` or `"calm"`: what everything below is unless given.
        profile: Profile = Profile::Balanced,
        /// What counts as good enough.
        slo: Slo = Slo::default(),
        /// Room above the expected load: `"learned"` from the forecast's own errors, or a number (β of square-root staffing).
        headroom: Headroom = Headroom::Learned,
        /// Further signals beside the load, each with its target; the largest wish counts.
        signal: Vec<Signal> = vec![],
        /// How many may be added and removed in which time: the vocabulary and meaning of Kubernetes' HPA.
        behavior: Behavior = Behavior::default(),
        /// Threshold policies.
        policy: Vec<Policy> = vec![],
        /// Floors and ceilings by the clock.
        schedule: Vec<Schedule> = vec![],
        /// Looking ahead.
        predict: Predict = Predict::default(),
        /// How long too many instances are kept before they go; by the profile and the start-up time unless given.
        hold: Option<Duration> = None,
        /// No more changes than this in an hour; then the larger size is held.
        max_changes_per_hour: Option<u32> [1..] = None,
        /// Watching each step, and taking back one that made things worse.
        verify: Verify = Verify::default(),
        /// How instances leave.
        drain: Drain = Drain::default(),
        /// Replacing instances that have lived long enough, one at a time, the replacement first.
        recycle: Recycle = Recycle::default(),
        /// What happens when they die or do not come up.
        restart: Restart = Restart::default(),
        /// Sleeping and waking, with `min = 0`.
        sleep: Sleep = Sleep::default(),
        /// What becomes of the instances when this scaler is taken out of the configuration: `false` leaves them running (they stay until they are stopped by hand), `true` drains and stops them.
        stop_on_remove: bool = true,
        /// Whether instances are drained and stopped when Tidegate itself ends in order. Otherwise they go on, and the next Tidegate finds them again.
        stop_on_exit: bool = false,
        /// Instances are processes of this machine.
        process: Option<Process> = None,
        /// Instances are containers.
        docker: Option<Docker> = None,
        /// Instances are pods of a Kubernetes workload.
        kubernetes: Option<Kubernetes> = None,
        /// Instances are units made of a systemd template.
        systemd: Option<Systemd> = None,
        /// Somebody else makes them, told by HTTP.
        webhook: Option<Webhook> = None,
        /// Somebody else makes them, told by running a program.
        exec: Option<Exec> = None,
    }
}

section! {
    /// What counts as good enough.
    pub struct Slo ("pool.NAME.scaler.slo", short wait) {
        /// A request may wait so long for a slot.
        wait: Duration [MILLISECOND..] = Duration::from_millis(250),
        /// This share of them must not wait longer.
        target: Share = Share(0.99),
    }
}

section! {
    /// A signal with its target.
    pub struct Signal ("pool.NAME.scaler.signal", short metric) {
        /// `"load"`, `"rps"`, `"in_flight"`, `"connections"`, `"queue_depth"`, `"queue_wait"`, `"latency_p95"`, `"saturation"`, `"errors"`, `"sessions"`, `"cpu"`, `"memory"`, `"pool_utilisation"` or `"external:NAME"`.
        metric: Metric,
        /// `"70%"` (utilization), `30` (for each instance) or `"value:500"` (of the whole). A utilization of `load`, `in_flight` or `connections` is one of the slots.
        target: Target,
        /// Where an external metric comes from: the URL of a Prometheus server, or of a JSON document.
        url: Option<String> = None,
        /// A PromQL expression, asked at `url` + `/api/v1/query`.
        query: Option<String> = None,
        /// The value's place in the JSON document at `url`: a JSON pointer (RFC 6901).
        pointer: Option<String> = None,
        /// How often it is asked for.
        interval: Duration [Duration::from_secs(1)..] = Duration::from_secs(15),
        /// Older values count as missing.
        max_age: Duration [Duration::from_secs(1)..] = Duration::from_secs(60),
        /// It may only add instances, never remove any; otherwise nothing is removed while its value is missing. Memory is always so.
        up_only: bool = false,
    }
}

section! {
    /// How fast the number may change. Meaning and defaults are those of Kubernetes' HPA `behavior`, where given.
    pub struct Behavior ("pool.NAME.scaler.behavior") {
        /// Upwards.
        scale_up: Rules = Rules::default(),
        /// Downwards.
        scale_down: Rules = Rules::default(),
        /// No step up is to more than this many times the instances that are ready.
        max_step_ratio: Option<f64> [1.0..] = None,
    }
}

section! {
    /// The rules of one direction.
    pub struct Rules ("pool.NAME.scaler.behavior.scale_up") {
        /// The window over which the least (up) or greatest (down) wish counts. Unless given there is none upwards, and downwards the `hold` stands for it.
        stabilization: Option<Duration> [..=HOUR] = None,
        /// `["100%/15s", "4/15s"]`, or `"50% or 4 pods per minute"`; unbounded unless given (but no step down takes more than half). Periods are an hour at most.
        policies: Paces = Paces::default(),
        /// Which of several policies counts: `"max"` (the one that allows most), `"min"` or `"disabled"` (none at all).
        select: Select = Select::Max,
        /// A wish within this share of what there is is no change; 10 % down and 0 up unless given.
        tolerance: Option<Share> = None,
    }
}

section! {
    /// A threshold policy: when something has been so for a while, change the number.
    pub struct Policy ("pool.NAME.scaler.policy") {
        /// Its name in history and metrics.
        name: String,
        /// `"pool_utilisation > 85%"`, `"queue_wait > 500ms and ready < 10"`, `"cpu < 30% or rps < 5"`.
        when: Condition,
        /// It must have been so for so long without a break.
        r#for: Duration = Duration::ZERO,
        /// `"+2"`, `"-1"`, `"+50%"` (rounded up), `"-10%"` (rounded down, at least one) or `"=10"`. One for fewer lets go what only the `hold` keeps, never what the load needs.
        adjust: Adjust,
        /// After it has acted it rests for so long, and what it has added stays.
        cooldown: Duration = Duration::from_secs(300),
        /// Whether it is used.
        enabled: bool = true,
        /// It never asks for fewer.
        min: Option<u32> = None,
        /// It never asks for more.
        max: Option<u32> = None,
    }
}

section! {
    /// A floor or a ceiling by the clock.
    pub struct Schedule ("pool.NAME.scaler.schedule") {
        /// Its name in history.
        name: Option<String> = None,
        /// When it begins, as cron has it: `"0 8 * * 1-5"`.
        cron: String,
        /// How long it holds.
        r#for: Duration [Duration::from_secs(60)..] = Duration::from_secs(3600),
        /// The time zone, such as `"Europe/Berlin"`.
        tz: String = "UTC".to_owned(),
        /// At least so many then.
        min: Option<u32> = None,
        /// At most so many then.
        max: Option<u32> [1..] = None,
    }
}

section! {
    /// Looking ahead.
    pub struct Predict ("pool.NAME.scaler.predict") {
        /// Extrapolate the trend over the time that a start takes.
        trend: bool = true,
        /// Find periods of minutes to an hour in the load by itself, and be ready before they come round.
        periods: bool = true,
        /// Known periods, such as `["1d", "7d"]`: a floor under the forecast, never a reason for fewer.
        seasonal: Vec<Duration> = vec![],
    }
}

section! {
    /// Watching each step.
    pub struct Verify ("pool.NAME.scaler.verify") {
        /// How long after a step before and after are compared.
        window: Duration [Duration::from_secs(1)..] = Duration::from_secs(30),
        /// Take back a step that made things worse.
        rollback: bool = true,
        /// How long nothing is added after a step up was taken back.
        freeze: Duration = Duration::from_secs(600),
    }
}

section! {
    /// How instances leave.
    pub struct Drain ("pool.NAME.scaler.drain") {
        /// Requests may finish for so long.
        requests: Duration = Duration::from_secs(30),
        /// … and for so long while clients are stuck to the instance (sessions).
        sessions: Duration = Duration::from_secs(1800),
        /// Who leaves first: `"fewest_sessions"`, `"least_in_flight"`, `"oldest"` or `"newest"`.
        victim: VictimOrder = VictimOrder::FewestSessions,
        /// Whether new work is sent to the others already while the scaler waits to remove somebody.
        pack: bool = true,
    }
}

section! {
    /// Replacing instances.
    pub struct Recycle ("pool.NAME.scaler.recycle") {
        /// After so long.
        max_age: Option<Duration> [Duration::from_secs(1)..] = None,
        /// After so many requests.
        max_requests: Option<u32> [1..] = None,
        /// When it uses more memory than this.
        max_memory: Option<Size> = None,
    }
}

section! {
    /// What happens to instances that die or do not come up.
    pub struct Restart ("pool.NAME.scaler.restart") {
        /// The first wait before it is tried again; doubled each time, with some chance in it.
        backoff: Duration [MILLISECOND..] = Duration::from_secs(1),
        /// The longest wait.
        max_backoff: Duration [MILLISECOND..] = Duration::from_secs(300),
        /// So many failures of one build within five minutes stop the scaling up.
        quarantine_after: u32 [1..] = 3,
        /// An instance that has not passed its health check by then has failed; 60 s or four times the usual start-up unless given.
        start_deadline: Option<Duration> [MILLISECOND..] = None,
        /// An instance whose checks fail for so long is replaced.
        unhealthy_for: Duration [MILLISECOND..] = Duration::from_secs(60),
    }
}

section! {
    /// Sleeping and waking, with `min = 0`.
    pub struct Sleep ("pool.NAME.scaler.sleep") {
        /// After so long without a request the last instance goes.
        idle_for: Duration [Duration::from_secs(1)..] = Duration::from_secs(300),
        /// A first request waits so long for an instance; then 503.
        wake_timeout: Duration [MILLISECOND..] = Duration::from_secs(60),
        /// How many instances are started at the first request.
        wake_to: u32 [1..] = 1,
        /// Requests whose User-Agent begins with one of these do not wake the pool.
        ignore_agents: Vec<String> = vec!["kube-probe/".to_owned(), "ELB-HealthChecker/".to_owned(), "GoogleHC/".to_owned(), "Consul Health Check".to_owned(), "Amazon-Route53-Health-Check".to_owned(), "UptimeRobot/".to_owned(), "Prometheus/".to_owned(), "Blackbox Exporter/".to_owned()],
        /// Paths that do not wake the pool.
        ignore_paths: Vec<String> = vec![],
    }
}

section! {
    /// Processes of this machine. They go on when Tidegate restarts, and are found again.
    pub struct Process ("pool.NAME.scaler.process") {
        /// The program and its arguments; `{port}`, `{socket}`, `{id}` and `{pool}` are filled in.
        command: Vec<String>,
        /// Where `{port}` comes from; free ports of the kernel's choice unless given.
        ports: Option<String> = None,
        /// Its working directory.
        directory: Option<PathBuf> = None,
        /// Its environment, added to ours; `{port}` and the others are filled in.
        env: BTreeMap<String, String> = BTreeMap::new(),
        /// Whether it gets our environment too.
        inherit_env: bool = true,
        /// Where its output goes: `"log"` (ours), `"off"` or a file, in which `{id}` is filled in.
        output: String = "log".to_owned(),
        /// How it is told to stop.
        signal: StopSignal = StopSignal::Term,
        /// How long it may take to stop; then its whole process group is killed.
        grace: Duration = Duration::from_secs(30),
        /// The most memory it may use, where cgroups can be written.
        memory: Option<Size> = None,
        /// The most CPUs it may use, where cgroups can be written.
        cpus: Option<f64> [0.01..] = None,
    }
}

section! {
    /// Containers.
    pub struct Docker ("pool.NAME.scaler.docker") {
        /// The image.
        image: String,
        /// Its command instead of the image's.
        command: Vec<String> = vec![],
        /// The port that it listens on inside.
        port: u16 [1..],
        /// The network to reach it on by its own address; a free port of this host on 127.0.0.1 unless given.
        network: Option<String> = None,
        /// Its environment.
        env: BTreeMap<String, String> = BTreeMap::new(),
        /// Further labels.
        labels: BTreeMap<String, String> = BTreeMap::new(),
        /// `["/srv/data:/data:ro"]`.
        volumes: Vec<String> = vec![],
        /// The user it runs as.
        user: Option<String> = None,
        /// The most memory it may use.
        memory: Option<Size> = None,
        /// The most CPUs it may use.
        cpus: Option<f64> [0.01..] = None,
        /// How long it may take to stop; then it is killed.
        grace: Duration = Duration::from_secs(30),
        /// The engine's socket.
        socket: PathBuf = PathBuf::from("/var/run/docker.sock"),
        /// Whether a missing image is pulled.
        pull: bool = true,
    }
}

section! {
    /// Pods of a workload whose number we set through its scale subresource.
    pub struct Kubernetes ("pool.NAME.scaler.kubernetes") {
        /// `"deployment/NAME"` or `"statefulset/NAME"`.
        target: String,
        /// Its namespace; the pod's own (or the kubeconfig's) unless given.
        namespace: Option<String> = None,
        /// The port of the pods: a number, or the name of a container port.
        port: String,
        /// Where the cluster is reached; by the pod's service account unless given.
        kubeconfig: Option<PathBuf> = None,
        /// The kubeconfig's context.
        context: Option<String> = None,
    }
}

section! {
    /// Units of a systemd template, `app@PORT.service`.
    pub struct Systemd ("pool.NAME.scaler.systemd") {
        /// The template: `"app@.service"`. An instance's name is its port.
        unit: String,
        /// The ports to use: `"8101-8199"`.
        ports: String,
        /// The user's own manager instead of the system's.
        user: bool = false,
        /// How long a unit may take to stop before it is killed.
        grace: Duration = Duration::from_secs(30),
    }
}

section! {
    /// Somebody else makes instances; the pool's `upstreams` (a name, say) tell where they are, or the answer does.
    pub struct Webhook ("pool.NAME.scaler.webhook", short url) {
        /// Gets `{ pool, desired, current, decision_id, generation, reason, victims, dry_run }` by POST.
        url: String,
        /// Signs the body: `X-Tidegate-Signature: sha256=HEX` (HMAC-SHA256).
        secret: Option<Secret> = None,
        /// How long one call may take.
        timeout: Duration [MILLISECOND..] = Duration::from_secs(10),
        /// What it has not brought about by then is told as a condition.
        converge: Duration = Duration::from_secs(300),
    }
}

section! {
    /// A program that makes instances; it gets the same JSON as a webhook on its standard input.
    pub struct Exec ("pool.NAME.scaler.exec") {
        /// The program and its arguments.
        command: Vec<String>,
        /// How long one call may take; then it is killed.
        timeout: Duration [MILLISECOND..] = Duration::from_secs(30),
        /// What it has not brought about by then is told as a condition.
        converge: Duration = Duration::from_secs(300),
    }
}

/// Room above the expected load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Headroom {
    /// The 95th percentile of the forecast's own errors, and a little square-root staffing.
    Learned,
    /// β of square-root staffing.
    Beta(f64),
}

/// How many requests an instance takes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxConcurrency {
    /// Found out from how the service time grows with it.
    Learn,
    /// So many.
    Count(u32),
}

section! {
    /// Where requests wait while every upstream has as many as it may have: first come, first served.
    pub struct Queue ("pool.NAME.queue", short size) {
        /// At most so many wait; further ones are answered 503 at once.
        size: u32 [1..=1_000_000] = 1000,
        /// A request waits so long at most; then 503.
        timeout: Duration [MILLISECOND..] = Duration::from_secs(10),
    }
}

/// Why a word could not be read; its text says what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct ScalingError(&'static str);

impl FromStr for Headroom {
    type Err = ScalingError;

    fn from_str(text: &str) -> Result<Self, ScalingError> {
        let beta = || text.parse().ok().filter(|beta| (0.0..=100.0).contains(beta)).map(Headroom::Beta);
        let learned = (text == "learned").then_some(Headroom::Learned);
        learned.or_else(beta).ok_or(ScalingError("\"learned\" or a number from 0 to 100 such as 1.0"))
    }
}

impl fmt::Display for Headroom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Headroom::Learned => f.write_str("learned"),
            Headroom::Beta(beta) => write!(f, "{beta:?}"),
        }
    }
}

impl FromStr for MaxConcurrency {
    type Err = ScalingError;

    fn from_str(text: &str) -> Result<Self, ScalingError> {
        let count = || text.parse().ok().filter(|count| (1..=1_000_000).contains(count)).map(MaxConcurrency::Count);
        let learn = (text == "learn").then_some(MaxConcurrency::Learn);
        learn.or_else(count).ok_or(ScalingError("\"learn\" or a number from 1 to 1000000"))
    }
}

impl fmt::Display for MaxConcurrency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MaxConcurrency::Learn => f.write_str("learn"),
            MaxConcurrency::Count(count) => write!(f, "{count}"),
        }
    }
}
