use std::rc::Rc;

use super::shared::Shared;
use crate::config::model;
use crate::scaler::process::ProcessDriver;
use crate::scaler::{Driver, DriverError, ErrorKind};
use crate::types::Address;

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
}

/// What of a pool's configuration its driver is made of: another one is built only where this has changed.
pub(super) fn part(pool: &model::Pool) -> impl PartialEq {
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

/// Builds the driver that a pool's scaler names.
pub(super) fn driver(name: &str, pool: &model::Pool, shared: &Shared) -> Built {
    let (kind, is_local, made) = make(name, pool, shared);
    let (driver, problem) = match made {
        Ok(driver) => (Some(driver), None),
        Err(error) => {
            tracing::error!(pool = name, driver = kind, "cannot scale: {error}");
            (None, Some(error))
        }
    };
    Built { kind, driver, problem, is_local }
}

type Made = Result<Rc<dyn Driver>, DriverError>;

fn make(name: &str, pool: &model::Pool, shared: &Shared) -> (&'static str, bool, Made) {
    let Some(scaler) = &pool.scaler else { return ("none", true, Err(missing("no scaler is configured"))) };
    if let Some(process) = &scaler.process {
        let folder = shared.folder.borrow().clone();
        let driver = ProcessDriver::new(name, process, &folder, &shared.owner());
        return ("process", true, driver.map(|driver| Rc::new(driver) as Rc<dyn Driver>));
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
    /// Where the pool's other members are, for drivers that others make instances for.
    pub(super) fn discovered(&self, addresses: Vec<Address>) {
        let _ = addresses;
    }
}
