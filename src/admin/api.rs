use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};

use super::access::Denial;
use super::model::{PoolStatus, Status, UpstreamStatus};
use super::{Access, Change, ChangeError, Control, MAX_WEIGHT, scaling_api};
use crate::health;
use crate::telemetry;
use crate::types::parse_duration;

/// How often a caller that waits for a drain looks whether it is done.
const LOOK: Duration = Duration::from_millis(100);

/// All paths of the API.
pub(super) fn router<C: Control>(control: C, access: Arc<Access>) -> Router {
    let guarded = Router::new()
        .route("/status", get(status::<C>))
        .route("/pools", get(pools::<C>))
        .route("/pools/{pool}", get(pool::<C>))
        .route("/pools/{pool}/upstreams/{upstream}/{change}", post(change::<C>))
        .route("/reload", post(reload::<C>))
        .route("/config", get(config::<C>))
        .route("/metrics", get(metrics::<C>))
        .merge(scaling_api::routes())
        .layer(from_fn_with_state(access, guard));
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready::<C>))
        .merge(guarded)
        .fallback(async || Failed(StatusCode::NOT_FOUND, "there is no such path".to_owned()))
        .method_not_allowed_fallback(async || Failed(StatusCode::METHOD_NOT_ALLOWED, "not with this method".to_owned()))
        .layer(axum::middleware::map_response(plain))
        .with_state(control)
}

/// An error as the API tells it.
pub(super) struct Failed(pub(super) StatusCode, pub(super) String);

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Told {
            error: String,
        }
        (self.0, Json(Told { error: self.1 })).into_response()
    }
}

impl From<ChangeError> for Failed {
    fn from(error: ChangeError) -> Self {
        let status = match error {
            ChangeError::NoPool(_) | ChangeError::NoUpstream { .. } => StatusCode::NOT_FOUND,
            ChangeError::Impossible(_) => StatusCode::CONFLICT,
        };
        Failed(status, error.to_string())
    }
}

/// Nothing here is to be kept or to be taken for anything else by a browser.
async fn plain(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn guard(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let denial = match access.check(request.method(), request.headers()) {
        Ok(()) => return next.run(request).await,
        Err(denial) => denial,
    };
    tracing::warn!(?denial, path = request.uri().path(), "admin API: refused a caller");
    let (status, text) = match denial {
        Denial::NoToken => (StatusCode::UNAUTHORIZED, "send the token: Authorization: Bearer TOKEN"),
        Denial::WrongToken => (StatusCode::UNAUTHORIZED, "this is not the token"),
        Denial::ForeignHost => {
            (StatusCode::FORBIDDEN, "without a token only 127.0.0.1, [::1] and localhost are served")
        }
        Denial::ForeignOrigin => (StatusCode::FORBIDDEN, "pages of other origins may not change anything"),
    };
    let mut response = Failed(status, text.to_owned()).into_response();
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"tidegate\""));
    }
    response
}

async fn look<C: Control>(control: &C) -> Result<Status, Failed> {
    let ended = || Failed(StatusCode::SERVICE_UNAVAILABLE, "Tidegate is shutting down".to_owned());
    control.status().await.ok_or_else(ended)
}

async fn status<C: Control>(State(control): State<C>) -> Result<Json<Status>, Failed> {
    look(&control).await.map(Json)
}

async fn pools<C: Control>(State(control): State<C>) -> Result<Json<Vec<PoolStatus>>, Failed> {
    Ok(Json(look(&control).await?.pools))
}

async fn pool<C: Control>(State(control): State<C>, Path(name): Path<String>) -> Result<Json<PoolStatus>, Failed> {
    let found = look(&control).await?.pools.into_iter().find(|pool| pool.name == name);
    found.map(Json).ok_or_else(|| ChangeError::NoPool(name).into())
}

#[derive(Deserialize)]
struct Asked {
    deadline: Option<String>,
    wait: Option<String>,
    value: Option<String>,
}

impl Asked {
    fn change(&self, word: &str) -> Result<Change, Failed> {
        let bad = |text: String| Failed(StatusCode::BAD_REQUEST, text);
        match word {
            "drain" => {
                let deadline = self.deadline.as_deref().map(parse_duration).transpose();
                let deadline = deadline.map_err(|error| bad(format!("deadline: {error}")))?;
                Ok(Change::Drain { deadline })
            }
            "undrain" | "ready" => Ok(Change::Ready),
            "maintenance" => Ok(Change::Maintenance),
            "weight" => {
                let value = self.value.as_deref().map(str::parse).transpose();
                match value {
                    Ok(weight) if weight.is_none_or(|weight| weight <= MAX_WEIGHT) => Ok(Change::Weight(weight)),
                    _ => Err(bad(format!("value: expected a whole number from 0 to {MAX_WEIGHT}"))),
                }
            }
            _ => Err(Failed(StatusCode::NOT_FOUND, format!("there is no change `{word}`"))),
        }
    }

    fn waits(&self) -> bool {
        // `?wait` alone is an empty value.
        self.wait.as_deref().is_some_and(|wait| !matches!(wait, "false" | "0" | "no"))
    }
}

async fn change<C: Control>(
    State(control): State<C>,
    Path((pool, upstream, word)): Path<(String, String, String)>,
    Query(asked): Query<Asked>,
) -> Result<Json<UpstreamStatus>, Failed> {
    let change = asked.change(&word)?;
    let mut after = control.change(&pool, &upstream, change).await?;
    while asked.waits() && matches!(change, Change::Drain { .. }) && after.state == health::State::Draining {
        tokio::time::sleep(LOOK).await;
        match find(&control, &pool, &upstream).await? {
            Some(now) => after = now,
            // One that a reload has removed goes once it is empty.
            None => after.state = health::State::Drained,
        }
    }
    Ok(Json(after))
}

async fn find<C: Control>(control: &C, pool: &str, upstream: &str) -> Result<Option<UpstreamStatus>, Failed> {
    let pool = look(control).await?.pools.into_iter().find(|known| known.name == pool);
    Ok(pool.and_then(|pool| pool.upstreams.into_iter().find(|known| known.address == upstream)))
}

async fn reload<C: Control>(State(control): State<C>) -> Response {
    let verdict = control.reload().await;
    let status = if verdict.accepted { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    (status, Json(verdict)).into_response()
}

async fn config<C: Control>(State(control): State<C>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/toml")], control.config().await)
}

async fn metrics<C: Control>(State(control): State<C>) -> impl IntoResponse {
    ([(CONTENT_TYPE, telemetry::CONTENT_TYPE)], control.metrics().await)
}

async fn ready<C: Control>(State(control): State<C>) -> Response {
    if control.ready() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
}

#[cfg(test)]
#[path = "api_tests.rs"]
mod tests;
