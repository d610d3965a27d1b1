use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// What a [`Bridge`](super::Bridge) starts, for whom, and within which bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Names the bridge in the log.
    pub pool: String,
    /// The program and its arguments; not empty.
    pub command: Vec<String>,
    /// Set for the program beside our own environment.
    pub env: BTreeMap<String, String>,
    /// Where it runs; our own working directory if unset.
    pub cwd: Option<PathBuf>,
    /// Who shares a process.
    pub share: Share,
    /// A process with nothing in progress and without a message for so long is stopped.
    pub idle_timeout: Duration,
    /// Between being asked to end and being killed.
    pub grace: Duration,
    /// Processes at the same time; who needs one more is answered with an error.
    pub max_processes: usize,
    /// A process has to have answered `initialize` within this.
    pub start_timeout: Duration,
    /// A process of one session is stopped when the session has had no open request and no stream for so long. The session may still come
    /// back.
    pub abandoned: Duration,
    /// A session with no open request and no stream for so long is forgotten.
    pub session_idle: Duration,
    /// Sessions at the same time; for one more, that which was used the longest ago is forgotten.
    pub max_sessions: usize,
    /// The longest body of a POST, in bytes.
    pub max_body: usize,
    /// The longest line of a server, in bytes; who writes a longer one is killed.
    pub max_line: usize,
    /// Requests in progress at one process.
    pub max_pending: usize,
    /// Messages that wait for one client, with at most [`max_body`](Self::max_body) bytes; more are dropped.
    pub max_queued: usize,
    /// An answer that takes longer becomes an event stream, for clients that accept one.
    pub silence: Duration,
    /// The request header that names the principal. Whoever sends requests here has to take it from clients.
    pub principal_header: String,
    /// Where the private folder of the socket is made.
    pub directory: PathBuf,
}

/// Who shares a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Share {
    /// Each session has one of its own. (Requests of the stateless revision, which have no session: one for each principal.)
    #[default]
    Session,
    /// One for each principal.
    Principal,
    /// One for everybody.
    All,
}

impl Settings {
    /// The defaults.
    pub fn new(pool: &str, command: impl IntoIterator<Item = impl Into<String>>) -> Settings {
        Settings {
            pool: pool.to_owned(),
            command: command.into_iter().map(Into::into).collect(),
            env: BTreeMap::new(),
            cwd: None,
            share: Share::default(),
            idle_timeout: Duration::from_secs(300),
            grace: Duration::from_secs(5),
            max_processes: 100,
            start_timeout: Duration::from_secs(60),
            abandoned: Duration::from_secs(20),
            session_idle: Duration::from_secs(3600),
            max_sessions: 10_000,
            max_body: 4 << 20,
            max_line: 16 << 20,
            max_pending: 1000,
            max_queued: 256,
            silence: Duration::from_secs(1),
            principal_header: "tidegate-principal".to_owned(),
            directory: std::env::temp_dir(),
        }
    }

    /// Whether the same program is run by both.
    pub(super) fn runs_the_same(&self, other: &Settings) -> bool {
        (&self.command, &self.env, &self.cwd) == (&other.command, &other.env, &other.cwd)
    }

    /// How often is looked for what is idle.
    pub(super) fn pace(&self) -> Duration {
        let least = self.idle_timeout.min(self.abandoned).min(self.session_idle);
        (least / 4).clamp(Duration::from_millis(20), Duration::from_secs(1))
    }
}
