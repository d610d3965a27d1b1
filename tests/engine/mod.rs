//! A Docker engine to test with, an image for it that no registry has, and a pool's driver on it.
#![allow(unreachable_pub)] // As in `support`.

mod registry;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptions,
};
use futures_util::{FutureExt, StreamExt};
use tidegate::config::model;
use tidegate::scaler::docker::DockerDriver;
use tidegate::scaler::{Driver, Found, Life, Order};

pub use registry::Registry;

use super::support::until;

/// With the host that Podman puts before the names of images that it has not pulled; to Docker it is a name like any other.
const IMAGE: &str = "localhost/tidegate-test:1";
/// Where Docker is unless `DOCKER_HOST` says otherwise.
const USUAL: &str = "unix:///var/run/docker.sock";

/// A test's engine. Tests of one engine run side by side; one that ends the engine has it for itself.
pub struct Engine {
    pub socket: PathBuf,
    pub docker: Docker,
    _share: File,
}

/// Runs `test` on a driver's kind of runtime, and removes afterwards what it has made for `pools`.
pub fn on_engine(pools: &[&str], test: impl AsyncFnOnce(&Engine)) {
    with_engine(pools, false, test);
}

/// … with nobody else using the engine.
pub fn on_engine_alone(pools: &[&str], test: impl AsyncFnOnce(&Engine)) {
    with_engine(pools, true, test);
}

fn with_engine(pools: &[&str], alone: bool, test: impl AsyncFnOnce(&Engine)) {
    let Some(socket) = socket() else {
        let text = "skipped: no Docker engine answers; start one (`export DOCKER_HOST=$(.ci/dockerd start)`)";
        assert!(std::env::var_os("TIDEGATE_TEST_ALL").is_none(), "{text}");
        eprintln!("{text}");
        return;
    };
    on_runtime(async {
        let engine = Engine::at(socket, alone).await;
        let outcome = AssertUnwindSafe(test(&engine)).catch_unwind().await;
        for pool in pools {
            engine.remove_all_of(pool).await;
        }
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs `test` on the kind of runtime that the scaler's thread has.
pub fn on_runtime<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    runtime.expect("a runtime").block_on(test)
}

/// The socket of an engine that answers.
fn socket() -> Option<PathBuf> {
    let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| USUAL.to_owned());
    let path = PathBuf::from(host.strip_prefix("unix://")?);
    UnixStream::connect(&path).is_ok().then_some(path)
}

impl Engine {
    async fn at(socket: PathBuf, alone: bool) -> Self {
        // That of an earlier run may have another build in it.
        static BROUGHT: AtomicBool = AtomicBool::new(false);
        let share = File::create(std::env::temp_dir().join("tidegate-test-engine.lock")).expect("a lock file");
        let docker = docker(&socket);
        if alone || !BROUGHT.load(Relaxed) {
            share.lock().expect("a lock");
            // Another test may have done it meanwhile.
            if !BROUGHT.load(Relaxed) {
                bring_image(&docker).await;
                BROUGHT.store(true, Relaxed);
            }
        }
        if !alone {
            share.lock_shared().expect("a lock");
        }
        Engine { socket, docker, _share: share }
    }

    pub async fn remove_image(&self, image: &str) {
        remove_image(&self.docker, image).await;
    }

    /// A driver that makes the test backend, as `change` has it.
    pub fn driver(&self, pool: &str, change: impl FnOnce(&mut model::Docker)) -> DockerDriver {
        DockerDriver::new(pool, &self.settings(change), "proxy-a").expect("the settings are right")
    }

    pub fn settings(&self, change: impl FnOnce(&mut model::Docker)) -> model::Docker {
        let mut settings = settings_at(&self.socket);
        change(&mut settings);
        settings
    }

    /// The engine's ids of the pool's containers, also of those that have ended.
    pub async fn containers_of(&self, pool: &str) -> Vec<String> {
        let label = format!("tidegate.pool={pool}");
        let filters = std::collections::HashMap::from([("label", vec![label])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        // bollard cannot read a listing in which there is a state that Docker does not have; Podman's do not last.
        let listed =
            until("the engine lists", async || self.docker.list_containers(Some(options.clone())).await.ok()).await;
        listed.into_iter().filter_map(|container| container.id).collect()
    }

    async fn remove_all_of(&self, pool: &str) {
        for id in self.containers_of(pool).await {
            self.remove(&id).await;
        }
    }

    /// Removes a container, whatever it is doing.
    pub async fn remove(&self, container: &str) {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        self.docker.remove_container(container, Some(options)).await.ok();
    }

    /// The process id file of an engine that `.ci/dockerd` has started.
    pub fn pid_file(&self) -> Option<PathBuf> {
        Some(self.socket.with_file_name("dockerd.pid")).filter(|file| file.exists())
    }
}

/// The test backend on the engine at this socket.
pub fn settings_at(socket: &Path) -> model::Docker {
    let command = ["/tidegate", "upstream", "--bind", "0.0.0.0:8000", "--name", "inside"];
    model::Docker {
        image: IMAGE.to_owned(),
        command: command.map(str::to_owned).to_vec(),
        port: 8000,
        network: None,
        env: BTreeMap::new(),
        labels: BTreeMap::new(),
        volumes: vec![],
        user: None,
        memory: None,
        cpus: None,
        grace: Duration::from_secs(30),
        socket: socket.to_owned(),
        pull: false,
    }
}

fn docker(socket: &Path) -> Docker {
    // bollard's own transport for Unix sockets is not compiled in; the driver's is not ours to use here.
    let path = socket.to_owned();
    let exchange = move |request: bollard::BollardRequest| {
        let path = path.clone();
        async move {
            let stream = tokio::net::UnixStream::connect(path).await?;
            let stream = hyper_util::rt::TokioIo::new(stream);
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
            tokio::spawn(connection);
            let (mut head, body) = request.into_parts();
            head.uri = head.uri.path_and_query().expect("a path").as_str().parse().expect("a path is a URI");
            head.headers.insert("host", "engine".parse().expect("a value"));
            Ok(sender.send_request(http::Request::from_parts(head, body)).await?)
        }
    };
    Docker::connect_with_custom_transport(exchange, Some("http://engine"), 60, bollard::API_DEFAULT_VERSION)
        .expect("a client")
}

/// Imports our own program, and a few of the system's, with the libraries they need: nothing is fetched from anywhere.
async fn bring_image(docker: &Docker) {
    remove_image(docker, IMAGE).await;
    // Podman overlooks a tag on its own.
    let options = CreateImageOptionsBuilder::default().from_src("-").repo(IMAGE).build();
    let ours = [PathBuf::from(env!("CARGO_BIN_EXE_tidegate")), system("tail"), system("sha256sum")];
    let mut answers = docker.create_image(Some(options), Some(bollard::body_full(programs(&ours).into())), None);
    while let Some(answer) = answers.next().await {
        answer.expect("the image is imported");
    }
}

async fn remove_image(docker: &Docker, image: &str) {
    docker.remove_image(image, None::<RemoveImageOptions>, None).await.ok();
}

fn system(program: &str) -> PathBuf {
    PathBuf::from("/usr/bin").join(program)
}

/// A root file system as a tar: the programs, in its topmost folder, with what they are linked to.
fn programs(programs: &[PathBuf]) -> Vec<u8> {
    let root = tempfile::tempdir().expect("a temporary folder");
    for program in programs {
        let name = program.file_name().expect("a program has a name");
        std::fs::copy(program, root.path().join(name)).expect("the program is copied");
        let linked = Command::new("ldd").arg(program).output().expect("ldd runs");
        for word in String::from_utf8_lossy(&linked.stdout).split_whitespace().filter(|word| word.starts_with('/')) {
            let to = root.path().join(&word[1..]);
            std::fs::create_dir_all(to.parent().expect("a folder")).expect("a folder is made");
            std::fs::copy(word, to).expect("the library is copied");
        }
    }
    let tar = Command::new("tar").arg("-C").arg(root.path()).args(["-cf", "-", "."]).output().expect("tar runs");
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    tar.stdout
}

pub fn order(id: &str) -> Order {
    Order { id: id.to_owned(), decision: "d1".to_owned(), generation: 1 }
}

/// The instance, as soon as it is as `holds` says.
pub async fn found(driver: &impl Driver, id: &str, what: &str, holds: impl Fn(&Found) -> bool) -> Found {
    until(&format!("{id} {what}"), async || {
        let list = driver.list().await.expect("the engine lists");
        list.into_iter().find(|found| found.id == id && holds(found))
    })
    .await
}

/// The instance, as soon as it runs.
pub async fn running(driver: &impl Driver, id: &str) -> Found {
    found(driver, id, "runs", |found| found.life == Life::Running && found.address.is_some()).await
}

/// How the instance ended, and whether it was asked to.
pub async fn end(driver: &impl Driver, id: &str) -> (String, bool) {
    let found = found(driver, id, "ends", |found| matches!(found.life, Life::Ended { .. })).await;
    match found.life {
        Life::Ended { how, asked } => (how, asked),
        life => unreachable!("{life:?}"),
    }
}

/// Returns once nothing is listed any more.
pub async fn gone(driver: &impl Driver, id: &str) {
    until(&format!("{id} is gone"), async || {
        let list = driver.list().await.expect("the engine lists");
        list.iter().all(|found| found.id != id).then_some(())
    })
    .await;
}
