//! Instances that are containers of a Docker engine, or of Podman's socket that speaks as one.
//!
//! Who a container is stands in its labels, so any Tidegate that comes later finds all of a pool's again; what does not have the pool's
//! label is never touched. It never restarts a container, and never chooses one to stop: the fleet does.
//!
//! Two Tidegates that are no leader and follower of each other must not have pools of the same name on one engine: each would take the
//! other's containers for its own. Why the owner's label does not decide: a proxy that lost its state, or took over as leader, would
//! find its own instances' names taken and start nothing.

mod container;
mod containers;
mod engine;
mod events;
mod mine;
mod pull;
mod trouble;
mod usage;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, spawn_local};

use self::containers::{Containers, Image, no_image};
use self::engine::Engine;
use self::trouble::Trouble;
use self::usage::Meter;
use crate::config::model;
use crate::scaler::{Driver, DriverError, ErrorKind, Found, InstanceId, Order, Usage};

/// Makes a pool's instances as containers.
///
/// **Bounds**: each call ends within 10 s, and within 2 s where the engine takes no connection; pulls and stops go on in the background.
/// **Panics**: outside a `LocalRuntime` or `LocalSet`, because that is where the background is.
pub struct DockerDriver {
    containers: Rc<Containers>,
    meter: Meter,
    changed: Rc<Notify>,
    watch: RefCell<Option<AbortHandle>>,
    pull: RefCell<Option<AbortHandle>>,
}

impl DockerDriver {
    /// A driver for `pool`; `proxy_id` is what containers say they were made by. Talks to nobody yet.
    ///
    /// **Errors**: settings that no container can be made of.
    pub fn new(pool: &str, settings: &model::Docker, proxy_id: &str) -> Result<Self, DriverError> {
        check(settings)?;
        let engine = Engine::at(&settings.socket)
            .map_err(|trouble| trouble.tell("cannot use the engine", &settings.socket, settings))?;
        Ok(DockerDriver {
            containers: Rc::new(Containers::new(engine, pool, proxy_id, settings)),
            meter: Meter::default(),
            changed: Rc::default(),
            watch: RefCell::default(),
            pull: RefCell::default(),
        })
    }

    /// `talk` within the usual time, its trouble in words.
    async fn call<T>(&self, task: &str, talk: impl Future<Output = Result<T, Trouble>>) -> Result<T, DriverError> {
        self.containers.engine.within(talk).await.map_err(|trouble| self.containers.tell(task, trouble))
    }

    async fn order(&self, order: &Order) -> Result<(), DriverError> {
        let task = format!("cannot start {}", order.id);
        match self.call(&task, self.containers.start(order)).await? {
            Image::There => Ok(()),
            Image::Missing if self.containers.settings.pull => {
                self.containers.wait(order);
                let mut pull = self.pull.borrow_mut();
                if pull.as_ref().is_none_or(AbortHandle::is_finished) {
                    *pull = Some(spawn_local(self.containers.clone().pull()).abort_handle());
                }
                Ok(())
            }
            Image::Missing => Err(no_image(&self.containers.settings)),
        }
    }
}

impl Driver for DockerDriver {
    fn kind(&self) -> &'static str {
        "docker"
    }

    fn list(&self) -> LocalBoxFuture<'_, Result<Vec<Found>, DriverError>> {
        Box::pin(self.call("cannot list containers", self.containers.list()))
    }

    fn start<'a>(&'a self, order: &'a Order) -> LocalBoxFuture<'a, Result<(), DriverError>> {
        Box::pin(self.order(order))
    }

    fn stop<'a>(&'a self, id: &'a InstanceId, grace: Duration) -> LocalBoxFuture<'a, Result<(), DriverError>> {
        Box::pin(async move { self.call(&format!("cannot stop {id}"), self.containers.stop(id, grace)).await })
    }

    fn usage(&self) -> LocalBoxFuture<'_, Result<Vec<(InstanceId, Usage)>, DriverError>> {
        Box::pin(self.call("cannot ask what containers use", self.meter.read(&self.containers)))
    }

    fn changed(&self) -> LocalBoxFuture<'_, ()> {
        let containers = Rc::downgrade(&self.containers);
        let watch = || spawn_local(events::watch(containers, self.changed.clone())).abort_handle();
        self.watch.borrow_mut().get_or_insert_with(watch);
        Box::pin(self.changed.notified())
    }
}

impl Drop for DockerDriver {
    fn drop(&mut self) {
        // Stops that were asked for go on; the engine would see to them even without us.
        for task in [&self.watch, &self.pull] {
            if let Some(task) = task.borrow_mut().take() {
                task.abort();
            }
        }
    }
}

/// What no engine would refuse in words that lead to the configuration.
fn check(settings: &model::Docker) -> Result<(), DriverError> {
    let refused =
        |what: String, advice: &str| Err(DriverError { what, advice: advice.to_owned(), kind: ErrorKind::Refused });
    if settings.image.trim().is_empty() {
        return refused("no image is given".to_owned(), "name one with `image`");
    }
    if let Some(label) = settings.labels.keys().find(|label| label.starts_with("tidegate.")) {
        return refused(format!("the label {label} is ours"), "give your own labels other names");
    }
    if let Some(network) = settings.network.as_deref()
        && (matches!(network, "host" | "none") || network.starts_with("container:"))
    {
        let advice =
            "leave `network` out, or name one that gives each container an own address (`docker network create apps`)";
        return refused(format!("containers have no own address on the network {network:?}"), advice);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest settings, changed.
    pub(super) fn settings(change: impl FnOnce(&mut model::Docker)) -> model::Docker {
        let mut settings = model::Docker {
            image: "shop:1".to_owned(),
            command: vec![],
            port: 8000,
            network: None,
            env: Default::default(),
            labels: Default::default(),
            volumes: vec![],
            user: None,
            memory: None,
            cpus: None,
            grace: Duration::from_secs(30),
            socket: "/var/run/docker.sock".into(),
            pull: true,
        };
        change(&mut settings);
        settings
    }

    #[test]
    fn settings_that_no_container_can_be_made_of_are_refused() {
        let refusal = |change: fn(&mut model::Docker)| DockerDriver::new("tools", &settings(change), "a").err();
        assert_eq!(refusal(|_| ()), None);
        assert_eq!(refusal(|docker| docker.network = Some("apps".to_owned())), None);
        for (change, word) in [
            ((|docker| docker.image = " ".to_owned()) as fn(&mut model::Docker), "`image`"),
            (|docker| docker.network = Some("host".to_owned()), "`network`"),
            (|docker| drop(docker.labels.insert("tidegate.pool".to_owned(), "x".to_owned())), "labels"),
        ] {
            assert!(refusal(change).is_some_and(|error| error.advice.contains(word)), "{word}");
        }
    }
}
