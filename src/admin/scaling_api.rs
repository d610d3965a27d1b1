use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Json;
use axum::routing::{get, post};
use serde::Deserialize;

use super::Control;
use super::api::Failed;
use super::scaling::{Answer, Ask, AskError};
use crate::types::parse_duration;

/// How long a pause holds when nobody says so: one that is forgotten ends by itself.
const PAUSE: Duration = Duration::from_secs(30 * 60);
/// The same for a set number.
const SET: Duration = Duration::from_secs(3600);

/// The scaler's paths; whoever merges them guards them.
pub(super) fn routes<C: Control>() -> Router<C> {
    Router::new()
        .route("/scaler", get(status::<C>))
        .route("/scaler/doctor", get(doctor::<C>))
        .route("/scaler/signals", get(signals::<C>))
        .route("/scaler/{pool}/explain", get(explain::<C>))
        .route("/scaler/{pool}/history", get(history::<C>))
        .route("/scaler/{pool}/series", get(series::<C>))
        .route("/scaler/{pool}/pause", post(pause::<C>))
        .route("/scaler/{pool}/resume", post(resume::<C>))
        .route("/scaler/{pool}/set", post(set::<C>))
        .route("/scaler/{pool}/recycle", post(recycle::<C>))
}

type Answered = Result<Json<Answer>, Failed>;

impl From<AskError> for Failed {
    fn from(error: AskError) -> Self {
        let status = match error {
            AskError::NoPool(_) | AskError::NoScaler => StatusCode::NOT_FOUND,
            AskError::Impossible(_) => StatusCode::CONFLICT,
            AskError::Ended => StatusCode::SERVICE_UNAVAILABLE,
        };
        Failed(status, error.to_string())
    }
}

/// The query as text, so that each mistake is told by its key.
#[derive(Deserialize)]
struct Asked {
    at: Option<String>,
    since: Option<String>,
    until: Option<String>,
    limit: Option<String>,
    all: Option<String>,
    to: Option<String>,
    r#for: Option<String>,
}

fn wrong(key: &str, expected: &str) -> Failed {
    Failed(StatusCode::BAD_REQUEST, format!("{key}: expected {expected}"))
}

fn seconds(key: &str, text: Option<&str>) -> Result<Option<f64>, Failed> {
    let Some(text) = text else { return Ok(None) };
    let value = text.parse().ok().filter(|seconds: &f64| seconds.is_finite());
    value.map(Some).ok_or_else(|| wrong(key, "seconds since 1970"))
}

fn span(text: Option<&str>) -> Result<Option<Duration>, Failed> {
    let Some(text) = text else { return Ok(None) };
    let value = parse_duration(text).ok().filter(|span| !span.is_zero());
    value.map(Some).ok_or_else(|| wrong("for", "a duration above zero, such as 30m"))
}

impl Asked {
    fn since(&self) -> Result<Option<f64>, Failed> {
        seconds("since", self.since.as_deref())
    }

    fn until(&self) -> Result<Option<f64>, Failed> {
        seconds("until", self.until.as_deref())
    }

    fn limit(&self) -> Result<Option<usize>, Failed> {
        self.limit.as_deref().map(|text| text.parse().map_err(|_| wrong("limit", "a whole number"))).transpose()
    }

    /// `?all` alone is an empty value.
    fn all(&self) -> bool {
        self.all.as_deref().is_some_and(|all| !matches!(all, "false" | "0" | "no"))
    }
}

async fn put<C: Control>(control: C, ask: Ask) -> Answered {
    Ok(Json(control.scaler(ask).await?))
}

async fn status<C: Control>(State(control): State<C>) -> Answered {
    put(control, Ask::Status).await
}

async fn doctor<C: Control>(State(control): State<C>) -> Answered {
    put(control, Ask::Doctor).await
}

async fn signals<C: Control>(State(control): State<C>) -> Answered {
    put(control, Ask::Signals).await
}

async fn explain<C: Control>(
    State(control): State<C>,
    Path(pool): Path<String>,
    Query(asked): Query<Asked>,
) -> Answered {
    let at = seconds("at", asked.at.as_deref())?;
    put(control, Ask::Explain { pool, at }).await
}

async fn history<C: Control>(
    State(control): State<C>,
    Path(pool): Path<String>,
    Query(asked): Query<Asked>,
) -> Answered {
    let (since, until, limit, all) = (asked.since()?, asked.until()?, asked.limit()?, asked.all());
    put(control, Ask::History { pool, since, until, limit, all }).await
}

async fn series<C: Control>(
    State(control): State<C>,
    Path(pool): Path<String>,
    Query(asked): Query<Asked>,
) -> Answered {
    let (since, until) = (asked.since()?, asked.until()?);
    put(control, Ask::Series { pool, since, until }).await
}

async fn pause<C: Control>(State(control): State<C>, Path(pool): Path<String>, Query(asked): Query<Asked>) -> Answered {
    let span = span(asked.r#for.as_deref())?.unwrap_or(PAUSE);
    put(control, Ask::Pause { pool, r#for: span }).await
}

async fn resume<C: Control>(State(control): State<C>, Path(pool): Path<String>) -> Answered {
    put(control, Ask::Resume { pool }).await
}

async fn set<C: Control>(State(control): State<C>, Path(pool): Path<String>, Query(asked): Query<Asked>) -> Answered {
    let number = |text: &str| text.parse::<u32>().map_err(|_| wrong("to", "how many instances"));
    let to = asked.to.as_deref().map(number).transpose()?;
    let span = span(asked.r#for.as_deref())?;
    if to.is_none() && span.is_some() {
        return Err(wrong("to", "how many instances, as `for` is given"));
    }
    put(control, Ask::Set { pool, to, r#for: to.map(|_| span.unwrap_or(SET)) }).await
}

async fn recycle<C: Control>(State(control): State<C>, Path(pool): Path<String>) -> Answered {
    put(control, Ask::Recycle { pool }).await
}
