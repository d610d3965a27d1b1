use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::containers::Containers;
use super::mine::POOL;

const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What of an engine's events may change what a listing says.
const CHANGES: [&str; 9] = ["create", "destroy", "die", "oom", "pause", "restart", "start", "stop", "unpause"];

/// Calls `changed` for each event of the pool's containers, until nobody has the containers any more. A stream that ends is opened again,
/// later each time; what happened in between is told as one change.
pub(super) async fn watch(containers: Weak<Containers>, changed: Rc<Notify>) {
    let mut wait = FIRST_WAIT;
    while let Some(these) = containers.upgrade() {
        let label = format!("{POOL}={}", these.pool);
        let filters = [
            ("type", vec!["container".to_owned()]),
            ("label", vec![label]),
            ("event", CHANGES.map(str::to_owned).to_vec()),
        ];
        let filters: HashMap<&str, Vec<String>> = filters.into();
        let mut events = these.engine.client().events(Some(EventsOptionsBuilder::default().filters(&filters).build()));
        drop(these);
        while let Some(Ok(event)) = events.next().await {
            let Some(these) = containers.upgrade() else { return };
            if let Some(container) = event.actor.and_then(|actor| actor.id) {
                these.forget(&container);
            }
            changed.notify_one();
            wait = FIRST_WAIT;
        }
        sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
        changed.notify_one();
    }
}
