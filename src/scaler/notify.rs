//! Tells people by webhook what the scalers do that is worth being told.
//!
//! What is worth it is found by [`Watch`], which is pure; telling happens on a task of its own behind a bounded queue, so that nobody waits for it.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use serde::Serialize;
use tokio::sync::Notify as Bell;
use tokio::task::JoinHandle;

use super::http::{Call, HttpClient, SIGNATURE, signature};
use crate::admin::scaling::{Finding, Record};
use crate::config::model;

/// So many wait; then the oldest are dropped.
const WAITING: usize = 256;
const TIMEOUT: Duration = Duration::from_secs(10);
/// The pauses between the attempts of one event.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(15), Duration::from_secs(60)];
/// Changes of direction are counted over so many seconds.
const FLAPPING: f64 = 600.0;

/// Something worth telling.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// `large_change`, `flapping`, `condition` or `condition_over`.
    pub event: &'static str,
    /// Seconds since 1970.
    pub at: f64,
    /// The pool, where it is about one.
    pub pool: Option<String>,
    /// In one sentence, with numbers.
    pub text: String,
    /// How bad it is: `critical`, `warning` or `info`.
    pub severity: String,
    /// The condition's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// The decision's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision_id: Option<String>,
    /// How many instances there were, and how many there are to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<(u32, u32)>,
}

/// Finds what is worth telling in decisions and conditions. Pure.
#[derive(Debug, Default)]
pub struct Watch {
    large_change: u32,
    flapping: u32,
    pools: BTreeMap<String, Turns>,
    /// What is the matter now, by code and pool.
    conditions: BTreeMap<(String, Option<String>), Finding>,
}

/// A pool's changes of direction.
#[derive(Debug, Default)]
struct Turns {
    /// Whether the last change was upwards.
    up: Option<bool>,
    at: VecDeque<f64>,
    /// It was told and has not ended.
    told: bool,
}

impl Watch {
    /// With these bounds.
    pub fn new(settings: &model::Notify) -> Watch {
        Watch { large_change: settings.large_change, flapping: settings.flapping, ..Watch::default() }
    }

    /// Takes the bounds over without forgetting anything.
    pub fn configure(&mut self, settings: &model::Notify) {
        (self.large_change, self.flapping) = (settings.large_change, settings.flapping);
    }

    /// What is worth telling of a decision.
    pub fn decided(&mut self, record: &Record) -> Vec<Event> {
        let (at, from, to) = (record.decision.at, record.decision.current, record.decision.desired);
        let mut events = Vec::new();
        if !record.is_change() {
            return events;
        }
        let event = |event, text| Event {
            event,
            at,
            pool: Some(record.pool.clone()),
            text,
            severity: "warning".to_owned(),
            code: None,
            advice: None,
            decision_id: Some(record.id.clone()),
            change: Some((from, to)),
        };
        if from.abs_diff(to) >= self.large_change {
            let text =
                format!("the pool {} goes from {from} to {to} instances ({})", record.pool, record.decision.reason);
            events.push(event("large_change", text));
        }
        let turns = self.pools.entry(record.pool.clone()).or_default();
        if turns.turn(to > from, at, self.flapping) {
            let count = turns.at.len();
            let text = format!("the pool {} has changed its direction {count} times within ten minutes", record.pool);
            let advice = "give it `profile = \"calm\"` or a longer `hold`, or look at what its load does".to_owned();
            events.push(Event { advice: Some(advice), ..event("flapping", text) });
        }
        events
    }

    /// What is worth telling of all conditions that hold now: those that are new, and those that are over.
    pub fn conditions(&mut self, now: f64, findings: &[Finding]) -> Vec<Event> {
        let worth = findings.iter().filter(|finding| finding.severity != "info");
        let current: BTreeMap<_, _> =
            worth.map(|finding| ((finding.code.clone(), finding.pool.clone()), finding.clone())).collect();
        let before = std::mem::replace(&mut self.conditions, current);
        let came = self.conditions.iter().filter(|(key, _)| !before.contains_key(*key));
        let went = before.iter().filter(|(key, _)| !self.conditions.contains_key(*key));
        let event = |event, finding: &Finding| Event {
            event,
            at: now,
            pool: finding.pool.clone(),
            text: finding.text.clone(),
            severity: finding.severity.clone(),
            code: Some(finding.code.clone()),
            advice: Some(finding.advice.clone()),
            decision_id: None,
            change: None,
        };
        let came = came.map(|(_, finding)| event("condition", finding));
        let went = went.map(|(_, finding)| Event {
            severity: "info".to_owned(),
            advice: None,
            ..event("condition_over", finding)
        });
        came.chain(went).collect()
    }
}

impl Turns {
    /// Takes a change in; whether it has become flapping with it.
    fn turn(&mut self, up: bool, at: f64, bound: u32) -> bool {
        if self.up.replace(up).is_some_and(|before| before != up) {
            self.at.push_back(at);
        }
        while self.at.front().is_some_and(|first| at - first > FLAPPING) {
            self.at.pop_front();
        }
        let flaps = self.at.len() >= bound as usize;
        let began = flaps && !self.told;
        self.told = flaps;
        began
    }
}

/// Sends events to a webhook, as long as it lives.
///
/// Each is tried five times over a minute and a half; what still fails is logged and left.
#[derive(Debug)]
pub struct Notifier {
    queue: Rc<Queue>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: RefCell<VecDeque<Event>>,
    bell: Bell,
}

impl Notifier {
    /// For the webhook that is configured; none where there is none.
    ///
    /// Has to be called within a local runtime (`LocalRuntime` or `LocalSet`).
    pub fn new(settings: &model::Notify, client: &HttpClient) -> Option<Notifier> {
        let url = settings.webhook.clone()?;
        let queue = Rc::new(Queue::default());
        let sender = Sender { url, secret: settings.secret.clone(), client: client.clone(), queue: queue.clone() };
        Some(Notifier { queue, task: tokio::task::spawn_local(sender.send_on()) })
    }

    /// Queues events; never waits.
    pub fn tell(&self, events: impl IntoIterator<Item = Event>) {
        let mut waiting = self.queue.waiting.borrow_mut();
        waiting.extend(events);
        let surplus = waiting.len().saturating_sub(WAITING);
        if surplus > 0 {
            waiting.drain(..surplus);
            tracing::warn!("the webhook of `scaler.notify` is too slow or silent; {surplus} events were not told");
        }
        self.queue.bell.notify_one();
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Sender {
    url: String,
    secret: Option<model::Secret>,
    client: HttpClient,
    queue: Rc<Queue>,
}

impl Sender {
    async fn send_on(self) {
        loop {
            let next = self.queue.waiting.borrow_mut().pop_front();
            match next {
                Some(event) => self.send(&event).await,
                None => self.queue.bell.notified().await,
            }
        }
    }

    async fn send(&self, event: &Event) {
        let body = Bytes::from(serde_json::to_vec(event).unwrap_or_default());
        let mut pauses = PAUSES.iter();
        loop {
            let Err(why) = self.attempt(body.clone()).await else { return };
            let Some(pause) = pauses.next() else {
                tracing::warn!(
                    "could not tell the webhook of `scaler.notify` that {}: {why}; see that it runs and is reached",
                    event.text
                );
                return;
            };
            tokio::time::sleep(*pause).await;
        }
    }

    async fn attempt(&self, body: Bytes) -> Result<(), String> {
        let mut headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        headers.extend(self.secret.as_ref().map(|secret| (SIGNATURE, signature(secret, &body))));
        let call = Call { method: Method::POST, url: &self.url, headers, body, timeout: TIMEOUT };
        let answer = self.client.call(call).await.map_err(|error| error.to_string())?;
        if (200..300).contains(&answer.status) { Ok(()) } else { Err(format!("status {}", answer.status)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scale::Decision;

    fn step(at: f64, from: u32, to: u32) -> Record {
        let decision = Decision { at, current: from, desired: to, apply: true, ..Decision::default() };
        Record { id: format!("d{at}"), pool: "tools".to_owned(), decision, ..Record::default() }
    }

    fn names(events: &[Event]) -> Vec<&'static str> {
        events.iter().map(|event| event.event).collect()
    }

    #[test]
    fn a_large_step_is_told_a_small_one_or_one_that_was_not_made_is_not() {
        let mut watch = Watch::new(&model::Notify::default());
        assert_eq!(names(&watch.decided(&step(1.0, 2, 6))), Vec::<&str>::new());
        assert_eq!(watch.decided(&step(2.0, 6, 1))[0].change, Some((6, 1)));
        let mut dry = step(3.0, 1, 9);
        dry.decision.apply = false;
        assert_eq!(watch.decided(&dry), []);
    }

    #[test]
    fn flapping_is_told_once_until_it_has_ended() {
        let mut watch = Watch::new(&model::Notify::default());
        let mut told = Vec::new();
        let mut go = |watch: &mut Watch, at: f64, up: bool| {
            let (from, to) = if up { (2, 3) } else { (3, 2) };
            told.extend(watch.decided(&step(at, from, to)).into_iter().map(|event| (event.event, event.at)));
        };
        for turn in 0..8 {
            go(&mut watch, f64::from(turn) * 60.0, turn % 2 == 0);
        }
        // Steps in one direction are no flapping, and an hour later the count starts anew.
        for turn in 0..5 {
            go(&mut watch, 4000.0 + f64::from(turn) * 60.0, turn % 2 == 0);
        }
        assert_eq!(told, [("flapping", 240.0), ("flapping", 4180.0)]);
    }

    #[test]
    fn conditions_are_told_when_they_come_and_when_they_go() {
        let mut watch = Watch::new(&model::Notify::default());
        let finding = |code: &str, severity: &str, text: &str| Finding {
            code: code.to_owned(),
            severity: severity.to_owned(),
            pool: Some("tools".to_owned()),
            text: text.to_owned(),
            advice: "do".to_owned(),
        };
        let one = [finding("AT_MAX", "warning", "at 10"), finding("DRY_RUN", "info", "dry")];
        assert_eq!(names(&watch.conditions(1.0, &one)), ["condition"]);
        assert_eq!(watch.conditions(2.0, &[finding("AT_MAX", "warning", "still at 10")]), []);
        let over = watch.conditions(3.0, &[finding("START_FAILURES", "critical", "3 failed")]);
        assert_eq!(names(&over), ["condition", "condition_over"]);
        assert_eq!((over[1].text.as_str(), over[1].severity.as_str()), ("still at 10", "info"));
    }
}
