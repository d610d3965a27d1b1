use std::rc::Rc;
use std::time::Duration;

use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt;
use tokio::time::timeout;

use super::container::tagged;
use super::containers::{Containers, Image, no_image};
use super::trouble::Trouble;
use crate::scaler::{DriverError, ErrorKind};

/// A pull that tells of no progress for so long has failed.
const STALLED: Duration = Duration::from_secs(120);

impl Containers {
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
