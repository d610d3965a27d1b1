use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tidegate::admin::model::{Status, UpstreamStatus, Verdict};
use tidegate::control::{Options, Running, StartError};
use tidegate::types::Bind;

use super::{Client, PATIENCE, Scripted, Upstream, client, until};

/// Tidegate on a configuration in which `{name}` stands for what [`ProxyBuilder::with`] gave that name.
///
/// The admin API is on a Unix socket and there are two workers, unless the text says otherwise.
pub fn proxy(text: &str) -> ProxyBuilder {
    let folder = tempfile::tempdir().expect("a temporary folder");
    ProxyBuilder { text: text.to_owned(), folder, values: Vec::new() }
}

pub struct ProxyBuilder {
    text: String,
    folder: TempDir,
    values: Vec<(String, String)>,
}

/// What a configuration can name by an address.
pub trait Addressed {
    fn address_text(&self) -> String;
}

impl Addressed for Upstream {
    fn address_text(&self) -> String {
        self.address()
    }
}

impl Addressed for Scripted {
    fn address_text(&self) -> String {
        self.address()
    }
}

impl Addressed for SocketAddr {
    fn address_text(&self) -> String {
        self.to_string()
    }
}

impl Addressed for str {
    fn address_text(&self) -> String {
        self.to_owned()
    }
}

impl Addressed for Path {
    fn address_text(&self) -> String {
        self.display().to_string()
    }
}

impl ProxyBuilder {
    /// `{name}` in the text is this address or text.
    pub fn with(mut self, name: &str, what: &(impl Addressed + ?Sized)) -> Self {
        self.values.push((format!("{{{name}}}"), what.address_text()));
        self
    }

    /// A file beside the configuration, which can name it by its bare name.
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        std::fs::write(self.folder.path().join(name), content).expect("a file is written");
        self
    }

    /// In this process.
    pub async fn start(self) -> Proxy {
        match self.try_start().await {
            Ok(proxy) => proxy,
            Err(StartError::Config(problems)) => panic!("{}", tidegate::config::render(&problems, false)),
            Err(error) => panic!("{error}"),
        }
    }

    /// In this process, or why not.
    pub async fn try_start(self) -> Result<Proxy, StartError> {
        // Tests are read by their failures; TIDEGATE_TEST_LOG=debug shows what went on inside.
        let level = std::env::var("TIDEGATE_TEST_LOG").unwrap_or("off".to_owned());
        let (file, values) = self.write(&level);
        let started = tokio::task::spawn_blocking(move || tidegate::control::start(Options::embedded(file))).await;
        let running = started.expect("starting does not panic")?;
        let admin = match running.admin_address() {
            Some(Bind::Unix(path)) => Some(Client::over_unix(path)),
            Some(Bind::Tcp(address)) => Some(client(*address)),
            None => None,
        };
        Ok(Proxy { folder: self.folder, values, level, admin, runs: Runs::Here(Some(running)) })
    }

    /// As a process of its own, for what only a process has: signals, exit codes, sudden death.
    pub async fn spawn(self) -> Proxy {
        self.spawn_with(|_| {}).await
    }

    /// The same with a say in how: environment, inherited sockets, limits.
    pub async fn spawn_with(self, prepare: impl FnOnce(&mut Command)) -> Proxy {
        let (file, values) = self.write("info");
        let log = std::fs::File::create(self.folder.path().join("log")).expect("a log is written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.arg("run").arg(file).stdin(Stdio::null());
        prepare(&mut command);
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("the program starts");
        let admin = Some(Client::over_unix(&self.folder.path().join("admin.sock")));
        let level = "info".to_owned();
        let mut proxy = Proxy { folder: self.folder, values, level, admin, runs: Runs::Apart(child) };
        until("the process answers", async || {
            proxy.assert_alive();
            let answer = proxy.admin().get("/readyz").attempt().await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        proxy
    }

    fn write(&self, level: &str) -> (PathBuf, Vec<(String, String)>) {
        let file = self.folder.path().join("tidegate.toml");
        let text = completed(&filled(&self.text, &self.values), self.folder.path(), level);
        std::fs::write(&file, text).expect("the configuration is written");
        (file, self.values.clone())
    }
}

fn filled(text: &str, values: &[(String, String)]) -> String {
    values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
}

/// With what a test does not want to say each time.
fn completed(text: &str, folder: &Path, level: &str) -> String {
    let mut lead = String::new();
    if !text.contains("[admin]") && !text.contains("admin =") {
        lead += &format!("admin = {{ bind = \"unix:{}\" }}\n", folder.join("admin.sock").display());
    }
    if !text.contains("workers =") {
        lead += "workers = 2\n";
    }
    if !text.contains("[log]") && !text.lines().any(|line| line.trim_start().starts_with("log =")) {
        lead += &format!("log = {{ level = \"{level}\" }}\n");
    }
    lead + text
}

/// A running Tidegate; gone when dropped, without farewell.
pub struct Proxy {
    folder: TempDir,
    values: Vec<(String, String)>,
    level: String,
    admin: Option<Client>,
    runs: Runs,
}

enum Runs {
    Here(Option<Running>),
    Apart(Child),
}

impl Proxy {
    /// The admin API.
    pub fn admin(&self) -> &Client {
        self.admin.as_ref().expect("the admin API is on")
    }

    /// In the same process: what the API is made of.
    pub fn running(&self) -> &Running {
        match &self.runs {
            Runs::Here(Some(running)) => running,
            _ => panic!("it does not run in this process"),
        }
    }

    /// Where a listener accepts.
    pub fn address(&self, listener: &str) -> SocketAddr {
        match &self.runs {
            Runs::Here(_) => self.running().address(listener).expect("there is such a listener"),
            Runs::Apart(_) => panic!("ask it: address_of"),
        }
    }

    /// Where a listener accepts, as the status tells.
    pub async fn address_of(&self, listener: &str) -> SocketAddr {
        let status = self.status().await;
        let found = status.listeners.iter().find(|known| known.name == listener).expect("there is such a listener");
        found.addresses[0].parse().expect("an IP address")
    }

    /// A client of the listener `web`.
    pub fn client(&self) -> Client {
        client(self.address("web"))
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join("tidegate.toml")
    }

    /// What a process of its own has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub async fn status(&self) -> Status {
        self.admin().get("/status").await.parsed()
    }

    /// How an upstream is; `None` where the pool has it no more.
    pub async fn upstream(&self, pool: &str, address: &str) -> Option<UpstreamStatus> {
        let status = self.status().await;
        let pool = status.pools.into_iter().find(|known| known.name == pool)?;
        pool.upstreams.into_iter().find(|known| known.address == address)
    }

    /// Returns once an upstream is in this state.
    pub async fn until_state(&self, pool: &str, address: &str, state: &str) -> UpstreamStatus {
        until(&format!("{address} is {state}"), async || {
            self.upstream(pool, address).await.filter(|upstream| upstream.state.word() == state)
        })
        .await
    }

    /// Returns once no upstream is starting any more.
    pub async fn settled(&self) {
        until("every upstream has been checked", async || {
            let status = self.status().await;
            let mut upstreams = status.pools.iter().flat_map(|pool| &pool.upstreams);
            upstreams.all(|upstream| upstream.state != tidegate::health::State::Starting).then_some(())
        })
        .await;
    }

    /// The value of a metric of exactly these labels: `metric("tidegate_reloads_total{outcome=\"ok\"}")`.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let page = self.admin().get("/metrics").await.text();
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned))?;
        line.parse().ok()
    }

    /// Does something with an upstream: `operate("app", &a.address(), "drain?deadline=1s")`.
    pub async fn operate(&self, pool: &str, address: &str, change: &str) -> UpstreamStatus {
        let address = address.replace('/', "%2F");
        let answer = self.admin().post(&format!("/pools/{pool}/upstreams/{address}/{change}"), "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.parsed()
    }

    /// Has the configuration read again and gives the verdict.
    pub async fn reload(&self) -> Verdict {
        self.admin().post("/reload", "").await.parsed()
    }

    /// Saves another configuration (as in [`proxy`]) and returns the verdict of having it read.
    pub async fn edit(&self, text: &str) -> Verdict {
        self.save(text);
        self.reload().await
    }

    /// Saves another configuration and leaves it to the file watch.
    pub fn save(&self, text: &str) {
        let text = completed(&filled(text, &self.values), self.folder.path(), &self.level);
        // As careful editors do: never half a file.
        let beside = self.folder.path().join(".tidegate.toml.new");
        std::fs::write(&beside, text).expect("the configuration is written");
        std::fs::rename(&beside, self.file()).expect("the configuration is replaced");
    }

    /// Ends it in order: what runs finishes.
    pub async fn stop(mut self) {
        match &mut self.runs {
            Runs::Here(running) => {
                let running = running.take().expect("it runs");
                super::soon("the end", tokio::task::spawn_blocking(move || running.stop())).await.expect("no panic");
            }
            Runs::Apart(_) => {
                self.signal(rustix::process::Signal::TERM);
                assert!(self.ended().await.success());
            }
        }
    }

    /// Another process on the same folder, after this one has ended.
    pub async fn again(self) -> Proxy {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.arg("run").arg(self.file()).stdin(Stdio::null()).stdout(Stdio::null());
        let log = std::fs::File::options().append(true).open(self.folder.path().join("log")).expect("the log is there");
        let child = command.stderr(log).spawn().expect("the program starts");
        let mut this = self;
        this.runs = Runs::Apart(child);
        until("the process answers", async || {
            this.assert_alive();
            let answer = this.admin().get("/readyz").attempt().await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        this
    }

    fn child(&mut self) -> &mut Child {
        match &mut self.runs {
            Runs::Apart(child) => child,
            Runs::Here(_) => panic!("it is not a process of its own"),
        }
    }

    pub fn pid(&mut self) -> u32 {
        self.child().id()
    }

    pub fn signal(&mut self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(self.child());
        rustix::process::kill_process(pid, signal).expect("the process lives");
    }

    /// How the process ended; waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        until("the process has ended", async || self.child().try_wait().expect("it is our child")).await
    }

    fn assert_alive(&mut self) {
        let log = self.log();
        if let Some(status) = self.child().try_wait().expect("it is our child") {
            panic!("the process ended with {status} (signal {:?}):\n{log}", status.signal());
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        match &mut self.runs {
            // Its threads end by themselves; nobody waits for them.
            Runs::Here(running) => {
                if let Some(running) = running.take() {
                    std::thread::spawn(move || running.stop());
                }
            }
            Runs::Apart(child) => {
                let _ = child.kill();
                let _ = child.wait();
                if std::thread::panicking() {
                    eprintln!("--- the proxy's log:\n{}", self.log());
                }
            }
        }
    }
}

/// Runs a command of the program to its end.
pub async fn tidegate(arguments: &[&str]) -> Finished {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments).stdin(Stdio::null()).env_remove("TIDEGATE_TOKEN").kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE + Duration::from_secs(20), command.output()).await;
    let output = output.expect("the command ends").expect("the program starts");
    Finished {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}
