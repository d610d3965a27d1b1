//! What the other proxies of the same pools have seen.
//!
//! Each serves its counters since its start; whoever leads asks all of them each second and sums. Counters and not rates, so that a question that
//! got lost loses nothing: the next answer has it all.

mod sum;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Method};
use tokio::task::JoinHandle;

use self::sum::Sum;
pub use self::sum::{Heard, PoolHeard};
use super::http::{Call, HttpClient, first_line};
use crate::admin::scaling::Signals;
use crate::config::model::Secret;

const EVERY: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_millis(900);

/// Asks the other proxies once a second, as long as it lives.
#[derive(Debug)]
pub struct Peers {
    sum: Rc<RefCell<Sum>>,
    began: Instant,
    tasks: Vec<JoinHandle<()>>,
}

impl Peers {
    /// Begins to ask the admin APIs at these URLs. What they have counted before is not summed. Where this proxy itself, called `own`, answers, it is
    /// not asked again: several proxies may have the same list.
    ///
    /// Has to be called within a local runtime (`LocalRuntime` or `LocalSet`).
    pub fn new(urls: &[String], own: &str, token: Option<&Secret>, client: &HttpClient) -> Peers {
        let (sum, began) = (Rc::new(RefCell::new(Sum::new(urls))), Instant::now());
        let token = token.and_then(|token| HeaderValue::from_str(&format!("Bearer {}", token.expose())).ok());
        let ask = |url: &String| {
            let (own, token, client) = (own.to_owned(), token.clone(), client.clone());
            let peer = Peer { url: url.clone(), own, token, client, sum: sum.clone(), began };
            tokio::task::spawn_local(peer.ask_on())
        };
        Peers { tasks: urls.iter().map(ask).collect(), began, sum: sum.clone() }
    }

    /// What they have seen since the last call of this.
    pub fn take(&self) -> Heard {
        self.sum.borrow_mut().take(self.began.elapsed().as_secs_f64())
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

struct Peer {
    url: String,
    own: String,
    token: Option<HeaderValue>,
    client: HttpClient,
    sum: Rc<RefCell<Sum>>,
    began: Instant,
}

impl Peer {
    async fn ask_on(self) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut told = None;
        loop {
            ticks.tick().await;
            let answer = self.ask().await;
            let wrong = answer.as_ref().err().cloned();
            // Said once for each reason, not each second.
            if let Some(why) = wrong.as_ref().filter(|_| wrong != told) {
                tracing::warn!(
                    peer = self.url,
                    "cannot read another proxy's signals: {why}; until it answers no instance is removed. Take it out of `scaler.peers` if it is gone for good"
                );
            }
            told = wrong;
            let mut sum = self.sum.borrow_mut();
            match answer {
                Ok(signals) if signals.proxy == self.own => return sum.forget(&self.url),
                Ok(signals) => sum.hear(&self.url, signals, self.began.elapsed().as_secs_f64()),
                Err(why) => sum.miss(&self.url, why),
            }
        }
    }

    async fn ask(&self) -> Result<Signals, String> {
        let url = format!("{}/scaler/signals", self.url.trim_end_matches('/'));
        let headers = self.token.iter().map(|token| (AUTHORIZATION, token.clone())).collect();
        let call = Call { method: Method::GET, url: &url, headers, body: Bytes::new(), timeout: TIMEOUT };
        let answer = self.client.call(call).await.map_err(|error| error.to_string())?;
        match answer.status {
            200 => {
                serde_json::from_slice(&answer.body).map_err(|error| format!("it answers what are no signals: {error}"))
            }
            401 | 403 => Err(format!(
                "it refuses our token (status {}); set `scaler.peer_token` to its `admin.token`",
                answer.status
            )),
            status => Err(format!("status {status}: {}", first_line(&answer.body))),
        }
    }
}
