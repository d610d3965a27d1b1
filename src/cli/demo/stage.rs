use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};

use crate::admin::Control;
use crate::cli::Failure;
use crate::cli::backend::{Backend, Settings};
use crate::cli::place::usual_file;
use crate::cli::run::start;
use crate::control::{Handle, Options, Running};
use crate::health::State;
use crate::types::{Bind, format_duration};

/// The configuration that people read; the addresses in it are replaced by those that are free.
const SCRIPT: &str = include_str!("../../../conf/demo.toml");
const MCP_SCRIPT: &str = include_str!("../../../conf/demo-mcp.toml");
const SCALE_SCRIPT: &str = include_str!("../../../conf/demo-scale.toml");
const NAMES: [&str; 3] = ["a", "b", "c"];
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything that the demo runs.
pub(super) struct Stage {
    backends: Vec<Player>,
    folder: Folder,
    running: Option<Running>,
    handle: Handle,
    pub(super) web: SocketAddr,
    admin: SocketAddr,
    notes: Vec<String>,
}

/// One upstream, on stage or killed.
struct Player {
    settings: Settings,
    address: String,
    backend: Option<Backend>,
}

impl Stage {
    /// What people read: requests of all kinds.
    pub(super) const HTTP: &str = SCRIPT;
    /// What people read: MCP servers.
    pub(super) const MCP: &str = MCP_SCRIPT;

    /// Starts the upstreams, writes the file, starts the proxy on it and waits until all of it is well.
    pub(super) async fn set(script: &str) -> Result<Stage, Failure> {
        let mut notes = Vec::new();
        let mut backends = Vec::new();
        for name in NAMES {
            backends.push(Player::start(name).await?);
        }
        let web = prefer(8080, &mut notes)?;
        let admin = prefer(9900, &mut notes)?;
        let mut text = script.replace("127.0.0.1:8080", &web.to_string()).replace("127.0.0.1:9900", &admin.to_string());
        for (number, player) in backends.iter().enumerate() {
            text = text.replace(&format!("127.0.0.1:{}", 9001 + number), &player.address);
        }
        let folder = Folder::create()?;
        let file = folder.file();
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        // On another thread: the upstreams that it may ask whether they are well are on this one.
        let running = tokio::task::spawn_blocking(move || start(Options::embedded(file))).await??;
        let handle = running.handle().clone();
        let stage = Stage { backends, folder, running: Some(running), handle, web, admin, notes };
        stage.until_ready().await?;
        Ok(stage)
    }

    async fn until_ready(&self) -> Result<(), Failure> {
        let ready = async {
            while !self.all_ready().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, ready).await;
        Ok(waited.map_err(|_| anyhow!("the upstreams were not well within {}", format_duration(PATIENCE)))?)
    }

    async fn all_ready(&self) -> bool {
        let Some(status) = self.handle.status().await else { return false };
        let mut upstreams = status.pools.iter().flat_map(|pool| &pool.upstreams);
        upstreams.all(|upstream| upstream.state == State::Ready)
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// What the person at the terminal is told.
    pub(super) fn invitation(&self, lasting: bool) -> String {
        let Stage { web, admin, .. } = self;
        let file = self.folder.file();
        let mut text = format!("\nTidegate listens on http://{web}; behind it are three upstreams:");
        for player in &self.backends {
            text += &format!(" {} ({})", player.settings.name, player.address);
        }
        text += ".\n";
        for note in &self.notes {
            text += &format!("{note}\n");
        }
        if !lasting {
            return text;
        }
        let program = program();
        // What the commands find without being told must be this demo.
        let known = admin.port() == 9900 && usual_file(None).is_none();
        let there = if known { String::new() } else { format!(" --admin http://{admin}") };
        let (b, c) = (&self.backends[1].address, &self.backends[2].address);
        text + &format!(
            "
Ask it something (here, in another terminal):
  curl http://{web}/                          one of a, b, c answers; ask again
  curl -N http://{web}/sse                    a stream, event by event
  curl -i http://{web}/limited                more than 5 a second: 429
  curl -i -X POST http://{web}/mcp            a session; send its Mcp-Session-Id back

Change something while it runs:
  edit {file}       a weight, a route; or break it
  {program} drain tools {c} --wait{there}
  {program} undrain tools {c}{there}
  curl -X POST http://{b}/health/down        make b sick; /health/up heals it

Look:
  {program} status{there}
  curl http://{admin}/metrics

Ctrl-C ends it.
",
            file = file.display(),
        )
    }

    /// Ends one upstream as `kill -9` does.
    pub(super) async fn kill(&mut self, name: &str) {
        if let Some(backend) = self.player(name).and_then(|player| player.backend.take()) {
            backend.kill().await;
        }
    }

    /// Brings a killed upstream back.
    pub(super) async fn revive(&mut self, name: &str) -> Result<(), Failure> {
        if let Some(player) = self.player(name) {
            player.backend = Some(Backend::start(player.settings.clone()).await?);
        }
        Ok(())
    }

    fn player(&mut self, name: &str) -> Option<&mut Player> {
        self.backends.iter_mut().find(|player| player.settings.name == name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.backends.iter().map(|player| player.settings.name.as_str())
    }

    pub(super) fn address(&self, name: &str) -> &str {
        let player = self.backends.iter().find(|player| player.settings.name == name);
        player.map_or("", |player| &player.address)
    }

    /// Changes the file, as an editor does.
    pub(super) fn edit(&self, change: impl FnOnce(String) -> String) -> Result<(), Failure> {
        let file = self.folder.file();
        let text = std::fs::read_to_string(&file)?;
        Ok(std::fs::write(&file, change(text))?)
    }

    /// Ends everything in order.
    pub(super) async fn strike(mut self) {
        if let Some(running) = self.running.take() {
            // The upstreams must go on meanwhile: what runs finishes.
            let _ = tokio::task::spawn_blocking(move || running.stop()).await;
        }
    }
}

/// The proxy of the scaling demo: its upstreams are its own business.
pub(super) struct ScaledStage {
    pub(super) folder: Folder,
    running: Running,
    pub(super) handle: Handle,
    pub(super) web: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) notes: Vec<String>,
}

impl ScaledStage {
    /// Writes the file, starts the proxy on it and waits until its first instance is well.
    pub(super) async fn set() -> Result<ScaledStage, Failure> {
        let mut notes = Vec::new();
        let web = prefer(8080, &mut notes)?;
        let admin = prefer(9900, &mut notes)?;
        let program = std::env::current_exe().context("this program's file is not known")?;
        let folder = Folder::create()?;
        let state = format!("[scaler]\nstate = {:?}\n\n[admin]", folder.0.join("state").display().to_string());
        let text = SCALE_SCRIPT
            .replace("127.0.0.1:8080", &web.to_string())
            .replace("127.0.0.1:9900", &admin.to_string())
            .replace("\"tidegate\", \"upstream\"", &format!("{:?}, \"upstream\"", program.display().to_string()))
            .replace("[admin]", &state);
        let file = folder.file();
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        let running = tokio::task::spawn_blocking(move || start(Options::embedded(file))).await??;
        let handle = running.handle().clone();
        let stage = ScaledStage { folder, running, handle, web, admin, notes };
        let ready = async {
            while !stage.is_ready().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, ready).await;
        match waited {
            Ok(()) => Ok(stage),
            Err(_) => Err(anyhow!("the first instance was not well within {}", format_duration(PATIENCE)).into()),
        }
    }

    async fn is_ready(&self) -> bool {
        let Some(status) = self.handle.status().await else { return false };
        status.pools.iter().flat_map(|pool| &pool.upstreams).any(|upstream| upstream.state == State::Ready)
    }

    /// Ends the proxy, and with it its instances.
    pub(super) async fn strike(self) {
        let running = self.running;
        // The folder goes after the proxy that writes into it.
        let _ = tokio::task::spawn_blocking(move || running.stop()).await;
    }
}

impl Player {
    async fn start(name: &str) -> Result<Player, Failure> {
        let mut settings = Settings { name: name.to_owned(), ..Settings::ephemeral() };
        let backend = Backend::start(settings.clone()).await.context("cannot start an upstream")?;
        let address = backend.address().to_string();
        settings.bind = Bind::Tcp(address.parse()?);
        Ok(Player { settings, address, backend: Some(backend) })
    }
}

/// This port if nobody has it, else any.
fn prefer(port: u16, notes: &mut Vec<String>) -> Result<SocketAddr, Failure> {
    let wanted = SocketAddr::from(([127, 0, 0, 1], port));
    let free = |address: SocketAddr| TcpListener::bind(address).and_then(|listener| listener.local_addr());
    if let Ok(address) = free(wanted) {
        return Ok(address);
    }
    let instead = free(SocketAddr::from(([127, 0, 0, 1], 0))).context("no port is free")?;
    notes.push(format!("Port {port} is taken, so it is {} here.", instead.port()));
    Ok(instead)
}

/// How this program is called from where the person is.
pub(super) fn program() -> String {
    let Ok(program) = std::env::current_exe() else { return "tidegate".to_owned() };
    let folder = std::env::current_dir().unwrap_or_default();
    program.strip_prefix(&folder).unwrap_or(&program).display().to_string()
}

/// A folder of our own for the file; gone with the demo.
pub(super) struct Folder(PathBuf);

impl Folder {
    fn create() -> Result<Folder, Failure> {
        use std::os::unix::fs::DirBuilderExt;
        let base = std::env::temp_dir();
        let mut builder = std::fs::DirBuilder::new();
        builder.mode(0o700);
        // A folder that exists is somebody else's, perhaps one that a killed demo left.
        for attempt in 0..100 {
            let path = base.join(format!("tidegate-demo-{}-{attempt}", std::process::id()));
            match builder.create(&path) {
                Ok(()) => return Ok(Folder(path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(anyhow!(error).context(format!("cannot create {}", path.display())).into()),
            }
        }
        Err(anyhow!("cannot create a folder in {}", base.display()).into())
    }

    pub(super) fn file(&self) -> PathBuf {
        Path::join(&self.0, "demo.toml")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is a small file in a temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
