//! Fetching an issuer's keys: at the start, from time to time, and when a token names one that is not known.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::access::{Jwks, KeySet};
use crate::scaler::HttpClient;

/// One question takes no longer than this.
const TIMEOUT: Duration = Duration::from_secs(10);
/// After a failure the next question comes after a second, then after twice as long, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Somebody who fetches one issuer's keys; ends when this is dropped.
#[derive(Debug)]
pub(super) struct Fetching {
    /// The keys.
    pub(super) jwks: Arc<Jwks>,
    task: JoinHandle<()>,
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fetching {
    /// Begins to fetch. Has to be called within control's runtime.
    pub(super) fn start(client: HttpClient, url: String, refresh: Duration, jwks: Arc<Jwks>) -> Self {
        let task = tokio::task::spawn_local(fetch_on(client, url, refresh, jwks.clone()));
        Fetching { jwks, task }
    }
}

async fn fetch_on(client: HttpClient, url: String, refresh: Duration, jwks: Arc<Jwks>) {
    let mut failures = 0u32;
    loop {
        jwks.begins();
        let fetched = fetch(&client, &url).await;
        let pause = match fetched {
            Ok(set) => {
                let count = set.len();
                if jwks.replace(set) {
                    tracing::info!(%url, keys = count, "the issuer's keys are known");
                } else if failures > 0 {
                    tracing::info!(%url, "the issuer's keys can be fetched again");
                }
                failures = 0;
                refresh
            }
            Err(why) => {
                let meanwhile =
                    if jwks.is_known() { "those from before stay" } else { "until then nobody comes in by token" };
                if failures == 0 {
                    tracing::warn!(%url, "the issuer's keys cannot be fetched ({why}); {meanwhile}");
                }
                let pause = Duration::from_secs(1 << failures.min(5)).min(LONGEST_PAUSE);
                failures += 1;
                pause.min(refresh)
            }
        };
        jwks.ended();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = jwks.wanted() => {}
        }
    }
}

async fn fetch(client: &HttpClient, url: &str) -> Result<KeySet, String> {
    let answer = client.get(url, TIMEOUT).await.map_err(|error| error.to_string())?;
    if answer.status != 200 {
        return Err(format!("it answered {}", answer.status));
    }
    KeySet::parse(&answer.body).map_err(|error| error.to_string())
}
