use std::rc::Rc;

use futures_util::future::LocalBoxFuture;

use super::shared::Shared;
use crate::config::model::{self, Leader};
use crate::scale::LeaderKind;
use crate::scaler::{
    Alone, Driver, DriverError, Election, ElectionError, ErrorKind, Exec, External, FileLock, ProcessDriver, RedisLock,
    Standing, Systemd, Webhook,
};

/// A pool's driver, made of its configuration.
pub(super) struct Built {
    /// `process`, `docker` …
    pub(super) kind: &'static str,
    /// None where it cannot be made.
    pub(super) driver: Option<Rc<dyn Driver>>,
    /// Why not.
    pub(super) problem: Option<DriverError>,
    /// Whether the instances are on this machine and for this proxy alone, so that no other proxy's traffic bears on them.
    pub(super) is_local: bool,
    /// Signals from elsewhere.
    pub(super) external: External,
    process: Option<Rc<ProcessDriver>>,
}

/// A pool's further signals: they are asked for anew only where they have changed.
pub(super) fn signals(pool: &model::Pool) -> impl PartialEq + use<> {
    pool.scaler.as_ref().map(|scaler| scaler.signal.clone())
}

/// Begins to ask for a pool's external signals.
pub(super) fn external(pool: &model::Pool, shared: &Shared) -> External {
    External::new(pool.scaler.as_ref().map_or(&[], |scaler| &scaler.signal), &shared.http)
}

/// What of a pool's configuration its driver is made of: another one is built only where this has changed.
pub(super) fn part(pool: &model::Pool) -> impl PartialEq + use<> {
    let scaler = pool.scaler.as_ref();
    scaler.map(|scaler| {
        (
            scaler.process.clone(),
            scaler.docker.clone(),
            scaler.kubernetes.clone(),
            scaler.systemd.clone(),
            scaler.webhook.clone(),
            scaler.exec.clone(),
        )
    })
}

/// The kind of driver that a pool's scaler names.
pub(super) fn kind(pool: &model::Pool) -> &'static str {
    let Some(scaler) = &pool.scaler else { return "none" };
    let named = [
        ("process", scaler.process.is_some()),
        ("webhook", scaler.webhook.is_some()),
        ("exec", scaler.exec.is_some()),
        ("systemd", scaler.systemd.is_some()),
        ("docker", scaler.docker.is_some()),
        ("kubernetes", scaler.kubernetes.is_some()),
    ];
    named.iter().find(|(_, is)| *is).map_or("none", |(kind, _)| kind)
}

/// Builds the driver that a pool's scaler names.
pub(super) fn driver(name: &str, pool: &model::Pool, shared: &Shared) -> Built {
    if let Some(process) = pool.scaler.as_ref().and_then(|scaler| scaler.process.as_ref()) {
        let driver = Rc::new(ProcessDriver::new(name, process, &shared.folder.borrow(), &shared.owner()));
        return Built {
            kind: "process",
            driver: Some(driver.clone()),
            problem: None,
            is_local: true,
            external: external(pool, shared),
            process: Some(driver),
        };
    }
    let (kind, is_local, made) = make(name, pool, shared);
    let (driver, problem) = match made {
        Ok(driver) => (Some(driver), None),
        Err(error) => {
            tracing::error!(pool = name, driver = kind, "cannot scale: {error}");
            (None, Some(error))
        }
    };
    Built { kind, driver, problem, is_local, external: external(pool, shared), process: None }
}

type Made = Result<Rc<dyn Driver>, DriverError>;

fn make(name: &str, pool: &model::Pool, shared: &Shared) -> (&'static str, bool, Made) {
    let Some(scaler) = &pool.scaler else { return ("none", true, Err(missing("no scaler is configured"))) };
    if let Some(webhook) = &scaler.webhook {
        return ("webhook", false, Ok(Rc::new(Webhook::new(name, webhook, &shared.http))));
    }
    if let Some(exec) = &scaler.exec {
        return ("exec", false, Ok(Rc::new(Exec::new(name, exec))));
    }
    if let Some(systemd) = &scaler.systemd {
        return ("systemd", true, Systemd::new(name, systemd).map(|driver| Rc::new(driver) as Rc<dyn Driver>));
    }
    if let Some(docker) = &scaler.docker {
        return ("docker", true, docker_driver(name, docker, shared));
    }
    if let Some(kubernetes) = &scaler.kubernetes {
        return ("kubernetes", false, kubernetes_driver(kubernetes));
    }
    ("none", true, Err(missing("the scaler names no driver")))
}

#[cfg(feature = "docker")]
fn docker_driver(name: &str, settings: &model::Docker, shared: &Shared) -> Made {
    let driver = crate::scaler::docker::DockerDriver::new(name, settings, &shared.owner())?;
    Ok(Rc::new(driver))
}

#[cfg(not(feature = "docker"))]
fn docker_driver(_: &str, _: &model::Docker, _: &Shared) -> Made {
    Err(missing("this Tidegate was built without its `docker` feature"))
}

#[cfg(feature = "kubernetes")]
fn kubernetes_driver(settings: &model::Kubernetes) -> Made {
    Ok(Rc::new(crate::scaler::kubernetes::KubernetesDriver::new(settings)?))
}

#[cfg(not(feature = "kubernetes"))]
fn kubernetes_driver(_: &model::Kubernetes) -> Made {
    Err(missing("this Tidegate was built without its `kubernetes` feature"))
}

fn missing(what: &str) -> DriverError {
    DriverError {
        what: what.to_owned(),
        advice: "build it with the feature, or configure another driver".to_owned(),
        kind: ErrorKind::Refused,
    }
}

impl Built {
    /// Becomes what another configuration of the pool says. Processes stay their parent's.
    pub(super) fn become_that_of(&mut self, name: &str, pool: &model::Pool, shared: &Shared) {
        let settings = pool.scaler.as_ref().and_then(|scaler| scaler.process.as_ref());
        match (&self.process, settings) {
            (Some(driver), Some(settings)) => driver.configure(settings),
            _ => *self = driver(name, pool, shared),
        }
    }
}

/// The election that a configuration asks for.
pub(super) fn election(settings: &Leader, identity: &str) -> Box<dyn Election> {
    match settings.kind {
        LeaderKind::None => Box::new(Alone::new(identity.to_owned())),
        LeaderKind::File => match &settings.file {
            Some(file) => Box::new(FileLock::new(file.clone(), identity.to_owned())),
            None => Box::new(Impossible("`leader.file` is missing")),
        },
        LeaderKind::Redis => match &settings.redis {
            Some(url) => Box::new(RedisLock::new(url, &settings.name, identity.to_owned(), settings.lease)),
            None => Box::new(Impossible("`leader.redis` is missing")),
        },
        LeaderKind::Kubernetes => lease(settings, identity),
    }
}

#[cfg(feature = "kubernetes")]
fn lease(settings: &Leader, identity: &str) -> Box<dyn Election> {
    let access =
        crate::scaler::kubernetes::Access { kubeconfig: None, context: None, namespace: settings.namespace.clone() };
    Box::new(crate::scaler::kubernetes::Lease::new(access, &*settings.name, identity, settings.lease))
}

#[cfg(not(feature = "kubernetes"))]
fn lease(_: &Leader, _: &str) -> Box<dyn Election> {
    Box::new(Impossible("this Tidegate was built without its `kubernetes` feature"))
}

/// An election that cannot be held: nobody ever leads.
struct Impossible(&'static str);

impl Election for Impossible {
    fn campaign(&mut self) -> LocalBoxFuture<'_, Result<Standing, ElectionError>> {
        let error = ElectionError { what: self.0.to_owned(), advice: "correct [scaler.leader]".to_owned() };
        Box::pin(async { Err(error) })
    }

    fn resign(&mut self) -> LocalBoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
