use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method};

use super::driver::{DriverError, ErrorKind};
use super::hook::{Carrier, Hook};
use super::http::{Call, HttpClient, HttpError, SIGNATURE, first_line, signature};
use crate::config::model;

/// The decision's id: whoever has seen it before has nothing to do.
const DECISION: HeaderName = HeaderName::from_static("x-tidegate-decision");

/// Scales by telling an HTTP server.
///
/// **Shape**: POST of `{ pool, desired, current, decision_id, generation, reason, victims, dry_run }`; the answer may be
/// `{"instances": [{"id": "a", "address": "10.0.0.1:80", "state": "running"}]}` (or `pending`, `stopping`, and a `zone`).
///
/// **Errors**: by status: 409 means that a later leader has spoken, 429 and 507 that there is no room for more, other 4xx that it refuses; 5xx and
/// silence that nothing is known.
pub type Webhook = Hook<Post>;

/// The way of a [`Webhook`].
#[derive(Debug)]
pub struct Post {
    settings: model::Webhook,
    client: HttpClient,
}

impl Hook<Post> {
    /// For a pool, as it is configured.
    pub fn new(pool: &str, settings: &model::Webhook, client: &HttpClient) -> Webhook {
        let carrier = Post { settings: settings.clone(), client: client.clone() };
        Hook::with(pool, carrier, settings.converge)
    }
}

impl Post {
    async fn post(&self, decision: &str, message: Bytes) -> Result<Bytes, DriverError> {
        let mut headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        headers.extend(HeaderValue::from_str(decision).ok().map(|decision| (DECISION, decision)));
        headers.extend(self.settings.secret.as_ref().map(|secret| (SIGNATURE, signature(secret, &message))));
        let (url, timeout) = (self.settings.url.as_str(), self.settings.timeout);
        let call = Call { method: Method::POST, url, headers, body: message, timeout };
        let answer = self.client.call(call).await.map_err(|error| unanswered(&error))?;
        match answer.status {
            200..300 => Ok(answer.body),
            status => Err(refused(status, &first_line(&answer.body))),
        }
    }
}

impl Carrier for Post {
    fn kind(&self) -> &'static str {
        "webhook"
    }

    fn carry<'a>(&'a self, decision: &'a str, message: Bytes) -> LocalBoxFuture<'a, Result<Bytes, DriverError>> {
        Box::pin(self.post(decision, message))
    }
}

fn unanswered(error: &HttpError) -> DriverError {
    let (advice, kind) = match error {
        HttpError::Url { .. } => ("correct the scaler's `webhook.url`", ErrorKind::Refused),
        HttpError::Timeout(..) => (
            "see why it is slow, or raise `webhook.timeout`; it is told again under the same decision id",
            ErrorKind::Unreachable,
        ),
        _ => (
            "see that it runs and is reached at the scaler's `webhook.url`; it is told again under the same decision id",
            ErrorKind::Unreachable,
        ),
    };
    DriverError { what: format!("the webhook was not told: {error}"), advice: advice.to_owned(), kind }
}

fn refused(status: u16, said: &str) -> DriverError {
    let (kind, advice) = match status {
        409 => (ErrorKind::Fenced, "another proxy leads by now; see `scaler.leader` where that cannot be"),
        429 | 507 => (ErrorKind::Full, "make room there, or lower the scaler's `max`"),
        401 | 403 => (ErrorKind::Refused, "see that both sides have the same `webhook.secret`"),
        300..500 => (
            ErrorKind::Refused,
            "see in its log why it refuses, and that `webhook.url` is right (redirects are not followed)",
        ),
        _ => (ErrorKind::Unreachable, "see its log; it is told again under the same decision id"),
    };
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    DriverError { what: format!("the webhook answers {status}{said}"), advice: advice.to_owned(), kind }
}
