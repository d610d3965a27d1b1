use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use bollard::query_parameters::{
    CreateContainerOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
};
use futures_util::stream::{StreamExt, iter};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::{Instant, sleep};

use super::container;
use super::engine::{CALL, Engine};
use super::mine::{Inspected, Listed, Look, Mine, POOL, State};
use super::pull::Waiting;
use super::trouble::{Trouble, missing_image};
use crate::config::model;
use crate::scaler::{DriverError, ErrorKind, Found, InstanceId, Life, Order};

/// Conversations at once, where each container has its own.
pub(super) const AT_ONCE: usize = 16;

/// The containers of one pool.
pub(super) struct Containers {
    pub(super) engine: Engine,
    pub(super) pool: String,
    pub(super) owner: String,
    pub(super) settings: model::Docker,
    /// What our containers are labelled with: a hash of what a container is made of.
    pub(super) label: String,
    /// What the fleet knows the same by: a hash of all settings.
    pub(super) spec: String,
    /// The highest generation seen.
    newest: Cell<u64>,
    pub(super) notes: RefCell<Notes>,
}

/// What would have to be asked again without them; by the container's id.
#[derive(Default)]
pub(super) struct Notes {
    /// What a closer look has told, and in which state that was.
    looks: HashMap<String, (State, Look)>,
    /// Those we have asked to stop, and when they will have been killed.
    stopping: HashMap<String, Instant>,
    /// Those whose end the fleet knows of.
    told: HashSet<String>,
    removing: HashSet<String>,
    /// Orders whose image is not there yet.
    pub(super) waiting: BTreeMap<InstanceId, Waiting>,
}

impl Containers {
    pub(super) fn new(engine: Engine, pool: &str, owner: &str, settings: &model::Docker) -> Self {
        Containers {
            engine,
            pool: pool.to_owned(),
            owner: owner.to_owned(),
            label: label(settings),
            spec: crate::scaler::spec_hash(settings),
            settings: settings.clone(),
            newest: Cell::new(0),
            notes: RefCell::default(),
        }
    }

    /// Puts trouble in words.
    pub(super) fn tell(&self, task: &str, trouble: Trouble) -> DriverError {
        trouble.tell(task, self.engine.socket(), &self.settings)
    }

    /// All of the pool's, whatever they are doing.
    pub(super) async fn mine(&self) -> Result<Vec<Mine>, Trouble> {
        let filters = serde_json::json!({ "label": [format!("{POOL}={}", self.pool)] }).to_string();
        let filters = utf8_percent_encode(&filters, NON_ALPHANUMERIC);
        let listed: Vec<Listed> = self.engine.ask(format!("/containers/json?all=true&filters={filters}")).await?;
        let mine: Vec<_> = listed.into_iter().filter_map(|it| Mine::read(it, &self.pool, &self.settings)).collect();
        let newest = mine.iter().map(|it| it.generation).max().unwrap_or(0);
        self.newest.set(self.newest.get().max(newest));
        Ok(mine)
    }

    pub(super) async fn list(self: &Rc<Self>) -> Result<Vec<Found>, Trouble> {
        let mine = self.mine().await?;
        self.forget_all_but(&mine);
        let unknown: Vec<Mine> = mine.iter().filter(|it| !self.is_known(it)).cloned().collect();
        let mut looks = iter(unknown).map(|it| self.look(it)).buffer_unordered(AT_ONCE);
        while let Some(look) = looks.next().await {
            look?;
        }
        drop(looks);
        let mut found: Vec<Found> = mine.iter().filter_map(|it| self.found(it)).collect();
        let made: HashSet<&str> = mine.iter().map(|it| it.instance.as_str()).collect();
        found.extend(self.waiting().into_iter().filter(|it| !made.contains(it.id.as_str())));
        Ok(found)
    }

    fn forget_all_but(&self, mine: &[Mine]) {
        let there: HashSet<&str> = mine.iter().map(|it| it.container.as_str()).collect();
        let ended: HashSet<&str> =
            mine.iter().filter(|it| it.state == State::Ended).map(|it| it.container.as_str()).collect();
        let mut notes = self.notes.borrow_mut();
        notes.looks.retain(|id, _| there.contains(id.as_str()));
        notes.stopping.retain(|id, _| there.contains(id.as_str()));
        notes.removing.retain(|id| there.contains(id.as_str()));
        // One that somebody has started again has not ended.
        notes.told.retain(|id| ended.contains(id.as_str()));
    }

    fn is_known(&self, it: &Mine) -> bool {
        self.notes.borrow().looks.get(&it.container).is_some_and(|(state, _)| *state == it.state)
    }

    /// Something has happened to it: what is known of it may be wrong.
    pub(super) fn forget(&self, container: &str) {
        self.notes.borrow_mut().looks.remove(container);
    }

    async fn look(&self, it: Mine) -> Result<(), Trouble> {
        let seen: Inspected = match self.engine.ask(format!("/containers/{}/json", it.container)).await {
            Ok(seen) => seen,
            // Removed in between.
            Err(trouble) if trouble.status() == Some(404) => return Ok(()),
            Err(trouble) => return Err(trouble),
        };
        let mut look = Look::at(&seen.state);
        if it.state == State::Ended
            && let Some(line) = self.last_words(&it.container).await
        {
            look.how = format!("{}: {line}", look.how);
        }
        self.notes.borrow_mut().looks.insert(it.container, (it.state, look));
        Ok(())
    }

    /// The last line of its output, which mostly says why it ended and goes with the container.
    async fn last_words(&self, container: &str) -> Option<String> {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail("3").build();
        // Not every log driver lets its lines be read: no reason to fail.
        let lines: Vec<String> = self
            .engine
            .client()
            .logs(container, Some(options))
            .filter_map(async |line| Some(line.ok()?.to_string()))
            .collect()
            .await;
        let line = lines.iter().flat_map(|text| text.lines()).map(str::trim).rfind(|line| !line.is_empty())?;
        Some(line.chars().filter(|c| !c.is_control()).take(200).collect())
    }

    /// None for what is as good as gone. An end is told once; the next time the container is removed instead.
    fn found(self: &Rc<Self>, it: &Mine) -> Option<Found> {
        let mut notes = self.notes.borrow_mut();
        let asked = notes.stopping.contains_key(&it.container);
        let (_, look) = notes.looks.get(&it.container).cloned()?;
        let life = match it.state {
            State::Removing => return None,
            State::Ended if !notes.told.insert(it.container.clone()) => {
                drop(notes);
                self.clear(&it.container);
                return None;
            }
            State::Ended => Life::Ended { how: look.how, asked },
            State::Made => Life::Pending,
            State::Stops => Life::Stopping,
            State::Runs | State::Paused if asked => Life::Stopping,
            State::Runs | State::Paused => Life::Running,
        };
        let paused = if it.state == State::Paused { ", paused" } else { "" };
        let owner = if it.owner == self.owner { String::new() } else { format!(", made by {}", it.owner) };
        let short = it.container.get(..12).unwrap_or(&it.container);
        // Who changes only how containers are stopped or pulled need not have them replaced.
        let same = it.spec.as_ref() == Some(&self.label);
        Some(Found {
            id: it.instance.clone(),
            address: it.address.clone().filter(|_| !matches!(life, Life::Ended { .. })),
            life,
            spec: if same { Some(self.spec.clone()) } else { it.spec.clone() },
            started: look.started,
            generation: it.generation,
            detail: format!("container {short}{paused}{owner}"),
            zone: None,
        })
    }

    /// Takes the order; the answer says whether an image has to be pulled for it.
    pub(super) async fn start(&self, order: &Order) -> Result<Image, Trouble> {
        let mine = self.mine().await?;
        let newest = self.newest.get();
        if order.generation < newest {
            return Err(fenced(order.generation, newest).into());
        }
        if matches!(self.notes.borrow().waiting.get(&order.id), Some(Waiting::For(_))) {
            return Ok(Image::Missing);
        }
        if let Some(it) = mine.iter().find(|it| it.instance == order.id) {
            let same = it.spec.as_ref() == Some(&self.label);
            match it.state {
                State::Runs | State::Paused | State::Stops if same => return Ok(Image::There),
                State::Runs | State::Paused | State::Stops => return Err(other_settings(&order.id).into()),
                State::Made if same => return self.run(&it.container).await,
                State::Made | State::Ended | State::Removing => self.remove(&it.container, true).await?,
            }
        }
        self.make(order).await
    }

    /// Makes and starts it.
    pub(super) async fn make(&self, order: &Order) -> Result<Image, Trouble> {
        let name = container::name(&order.id);
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let body = container::body(&self.pool, &self.owner, &self.label, &self.settings, order);
        let made = self.engine.client().create_container(Some(options), body).await.map_err(Trouble::from);
        match made {
            Ok(made) => self.run(&made.id).await,
            // All of ours are known: it is somebody else's. Podman answers 500.
            Err(trouble) if trouble.status() == Some(409) || trouble.says("name is already in use") => {
                Err(name_taken(&name, &self.pool).into())
            }
            Err(trouble) if trouble.status() == Some(404) && self.is_image_missing().await? => Ok(Image::Missing),
            Err(trouble) => Err(trouble),
        }
    }

    async fn is_image_missing(&self) -> Result<bool, Trouble> {
        let image = container::tagged(&self.settings.image);
        match self.engine.client().inspect_image(&image).await.map_err(Trouble::from) {
            Ok(_) => Ok(false),
            Err(trouble) if trouble.status() == Some(404) => Ok(true),
            Err(trouble) => Err(trouble),
        }
    }

    async fn run(&self, container: &str) -> Result<Image, Trouble> {
        let Err(trouble) = self.engine.client().start_container(container, None).await.map_err(Trouble::from) else {
            return Ok(Image::There);
        };
        if trouble.status().is_some() {
            // What cannot be started must not stay: its name would be in the way, and nobody would look after it.
            self.remove(container, true).await?;
        }
        Err(trouble)
    }

    /// Removes it and waits until it is gone; what is gone already is no error.
    async fn remove(&self, container: &str, force: bool) -> Result<(), Trouble> {
        let options = RemoveContainerOptionsBuilder::default().force(force).v(true).build();
        loop {
            let removed = self.engine.client().remove_container(container, Some(options.clone())).await;
            match removed.map_err(Trouble::from) {
                Ok(()) => return Ok(()),
                Err(trouble) if trouble.status() == Some(404) => return Ok(()),
                Err(trouble) if trouble.status() == Some(409) && trouble.says("in progress") => {
                    sleep(Duration::from_millis(50)).await;
                }
                Err(trouble) => return Err(trouble),
            }
        }
    }

    /// Removes one that has ended, in the background.
    fn clear(self: &Rc<Self>, container: &str) {
        if !self.notes.borrow_mut().removing.insert(container.to_owned()) {
            return;
        }
        let (this, container) = (self.clone(), container.to_owned());
        tokio::task::spawn_local(async move {
            if let Err(trouble) = this.engine.within(this.remove(&container, false)).await {
                let error = this.tell("cannot remove a container that has ended", trouble);
                tracing::warn!(pool = this.pool, container, "{error}");
                // The next listing tries again.
                this.notes.borrow_mut().removing.remove(&container);
            }
        });
    }

    pub(super) async fn stop(self: &Rc<Self>, id: &InstanceId, grace: Duration) -> Result<(), Trouble> {
        self.notes.borrow_mut().waiting.remove(id);
        let mine = self.mine().await?;
        let Some(it) = mine.into_iter().find(|it| it.instance == *id) else { return Ok(()) };
        match it.state {
            State::Ended | State::Removing => Ok(()),
            State::Made => self.remove(&it.container, true).await,
            State::Runs | State::Paused | State::Stops => {
                self.end(it.container, grace);
                Ok(())
            }
        }
    }

    /// Asks it to stop, in the background: the engine answers only when it has stopped.
    fn end(self: &Rc<Self>, container: String, grace: Duration) {
        let deadline = Instant::now() + grace;
        let mut notes = self.notes.borrow_mut();
        // Asked again is the same, unless less time is left to it now.
        if notes.stopping.get(&container).is_some_and(|known| *known <= deadline) {
            return;
        }
        notes.stopping.insert(container.clone(), deadline);
        let this = self.clone();
        tokio::task::spawn_local(async move {
            let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
            let span = Duration::from_secs(seconds) + CALL;
            let options = StopContainerOptionsBuilder::default().t(i32::try_from(seconds).unwrap_or(i32::MAX)).build();
            let stop = async { Ok(this.engine.client().stop_container(&container, Some(options)).await?) };
            match this.engine.within_span(span, stop).await {
                Ok(()) => {}
                Err(trouble) if trouble.status() == Some(404) => {}
                Err(trouble) => {
                    let error = this.tell("cannot stop a container", trouble);
                    tracing::warn!(pool = this.pool, container, "{error}");
                    // The fleet sees it run, and asks again.
                    this.notes.borrow_mut().stopping.remove(&container);
                }
            }
        });
    }
}

/// Whether a container's image was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Image {
    There,
    Missing,
}

/// A hash of what a container is made of; how it is stopped, and where its image and its engine are, is no part of it.
fn label(settings: &model::Docker) -> String {
    let blank = model::Docker { grace: Duration::ZERO, socket: Default::default(), pull: false, ..settings.clone() };
    crate::scaler::spec_hash(&blank)
}

fn refused(what: String, advice: String) -> DriverError {
    DriverError { what, advice, kind: ErrorKind::Refused }
}

/// The image is not there and may not be pulled.
pub(super) fn no_image(settings: &model::Docker) -> DriverError {
    refused(format!("there is no image {} on this engine", settings.image), missing_image(settings))
}

fn fenced(generation: u64, newest: u64) -> DriverError {
    DriverError {
        what: format!("an order of generation {generation} came after containers of generation {newest}"),
        advice: "another proxy leads this pool now; nothing is to be done".to_owned(),
        kind: ErrorKind::Fenced,
    }
}

fn other_settings(id: &InstanceId) -> DriverError {
    let name = container::name(id);
    let advice = format!("it is replaced when it has drained; to hurry, remove it (`docker rm -f {name}`)");
    refused(format!("{name} runs already, made with other settings"), advice)
}

fn name_taken(name: &str, pool: &str) -> DriverError {
    let advice =
        format!("remove or rename that container (`docker rename {name} OTHER`), or give the pool another name");
    refused(format!("there is a container {name} that is not pool {pool}'s"), advice)
}
