use std::rc::Rc;
use std::time::Duration;

use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt;
use tokio::time::timeout;

use super::container::tagged;
use super::containers::{Containers, Image, no_image};
use super::trouble::Trouble;
use crate::scaler::{DriverError, ErrorKind, Found, InstanceId, Life, Order};

/// A pull that tells of no progress for so long has failed.
const STALLED: Duration = Duration::from_secs(120);

/// An order whose image is not there.
pub(super) enum Waiting {
    For(Order),
    /// It never came, which has still to be told.
    InVain(DriverError),
}

impl Containers {
    /// Those whose image is being pulled, and once those whose image never came.
    pub(super) fn waiting(&self) -> Vec<Found> {
        let mut notes = self.notes.borrow_mut();
        let found = |(id, waiting): (&InstanceId, &Waiting)| {
            let (life, generation) = match waiting {
                Waiting::For(order) => (Life::Pending, order.generation),
                Waiting::InVain(error) => (Life::Ended { how: error.to_string(), asked: false }, 0),
            };
            let detail = match waiting {
                Waiting::For(_) => format!("pulling image {}", self.settings.image),
                Waiting::InVain(_) => format!("image {} could not be pulled", self.settings.image),
            };
            let spec = Some(self.spec.clone());
            Found { id: id.clone(), address: None, life, spec, started: None, generation, detail, zone: None }
        };
        let found = notes.waiting.iter().map(found).collect();
        notes.waiting.retain(|_, waiting| matches!(waiting, Waiting::For(_)));
        found
    }

    /// From now on the order waits for its image.
    pub(super) fn wait(&self, order: &Order) {
        self.notes.borrow_mut().waiting.insert(order.id.clone(), Waiting::For(order.clone()));
    }

    /// The orders that wait for the image.
    fn waiters(&self) -> Vec<Order> {
        let notes = self.notes.borrow();
        let orders = notes.waiting.values().filter_map(|waiting| match waiting {
            Waiting::For(order) => Some(order.clone()),
            Waiting::InVain(_) => None,
        });
        orders.collect()
    }

    /// The order does not wait any more; `error` says why it never will be.
    fn waited(&self, id: &InstanceId, error: Option<DriverError>) {
        let mut notes = self.notes.borrow_mut();
        // Stopped in between.
        if !matches!(notes.waiting.get(id), Some(Waiting::For(_))) {
            return;
        }
        match error {
            Some(error) => notes.waiting.insert(id.clone(), Waiting::InVain(error)),
            None => notes.waiting.remove(id),
        };
    }

    /// Pulls the image, then starts all that wait for it. May take minutes.
    pub(super) async fn pull(self: Rc<Self>) {
        tracing::info!(pool = self.pool, image = self.settings.image, "pulling the image");
        if let Err(error) = self.fetch().await {
            tracing::warn!(pool = self.pool, "{error}");
            for order in self.waiters() {
                self.waited(&order.id, Some(error.clone()));
            }
            return;
        }
        // Further ones may come to wait while some are started.
        while let Some(order) = self.waiters().into_iter().next() {
            let error = match self.engine.within(self.make(&order)).await {
                Ok(Image::There) => None,
                Ok(Image::Missing) => Some(no_image(&self.settings)),
                Err(trouble) => Some(self.tell(&format!("cannot start {}", order.id), trouble)),
            };
            self.waited(&order.id, error);
        }
    }

    async fn fetch(&self) -> Result<(), DriverError> {
        let task = format!("cannot pull image {}", self.settings.image);
        let options = CreateImageOptionsBuilder::default().from_image(&tagged(&self.settings.image)).build();
        let mut progress = self.engine.client().create_image(Some(options), None, None);
        loop {
            match timeout(STALLED, progress.next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(error))) => return Err(self.tell(&task, error.into())),
                Err(_) => {
                    let told = self.tell(&task, Trouble::Slow(STALLED));
                    // The engine itself has answered: it is the registry that is slow.
                    let advice = format!("see whether `docker pull {}` gets on", self.settings.image);
                    return Err(DriverError { kind: ErrorKind::Refused, advice, ..told });
                }
            }
        }
    }
}
