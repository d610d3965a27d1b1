use std::time::Duration;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::Failure;
use super::place::{Place, Reach};
use crate::admin::model::{Status, UpstreamStatus, Verdict};
use crate::types::format_duration;

/// Everything but what RFC 3986 leaves as it is in a path segment and every server agrees on.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');
/// For all but drains, which may take as long as their deadline.
const PATIENCE: Duration = Duration::from_secs(60);

/// The admin API, as the commands use it.
#[derive(Debug)]
pub(super) struct Client {
    place: Place,
}

impl Client {
    pub(super) fn new(place: Place) -> Self {
        Client { place }
    }

    /// `GET /status`, and its text as it came.
    pub(super) async fn status(&self) -> Result<(Status, Bytes), Failure> {
        let (_, body) = self.ask(Method::GET, "/status", Some(PATIENCE)).await?;
        Ok((parse(&body)?, body))
    }

    /// `POST /reload`; a refusal is a verdict, not a failure.
    pub(super) async fn reload(&self) -> Result<Verdict, Failure> {
        let (_, body) = self.ask(Method::POST, "/reload", Some(PATIENCE)).await?;
        parse(&body)
    }

    /// `POST …/{word}?{query}`.
    pub(super) async fn change(&self, pool: &str, upstream: &str, word: &str) -> Result<UpstreamStatus, Failure> {
        let target = format!("{}/{word}", path_of(pool, upstream));
        let (_, body) = self.ask(Method::POST, &target, Some(PATIENCE)).await?;
        parse(&body)
    }

    /// `POST …/drain`.
    pub(super) async fn drain(
        &self,
        pool: &str,
        upstream: &str,
        deadline: Option<Duration>,
        wait: bool,
    ) -> Result<UpstreamStatus, Failure> {
        let mut target = format!("{}/drain?wait={wait}", path_of(pool, upstream));
        if let Some(deadline) = deadline {
            target += &format!("&deadline={}", format_duration(deadline));
        }
        let patience = if wait { None } else { Some(PATIENCE) };
        let (_, body) = self.ask(Method::POST, &target, patience).await?;
        parse(&body)
    }

    /// `GET` of any path: the answer, and its text as it came.
    pub(super) async fn look<T: DeserializeOwned>(&self, target: &str) -> Result<(T, Bytes), Failure> {
        let (_, body) = self.ask(Method::GET, target, Some(PATIENCE)).await?;
        Ok((parse(&body)?, body))
    }

    /// `GET` of any path that answers with a text.
    pub(super) async fn text(&self, target: &str) -> Result<String, Failure> {
        let (_, body) = self.ask(Method::GET, target, Some(PATIENCE)).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// `POST` of any path.
    pub(super) async fn order<T: DeserializeOwned>(&self, target: &str) -> Result<(T, Bytes), Failure> {
        let (_, body) = self.ask(Method::POST, target, Some(PATIENCE)).await?;
        Ok((parse(&body)?, body))
    }

    async fn ask(
        &self,
        method: Method,
        target: &str,
        patience: Option<Duration>,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let asking = async {
            match &self.place.address {
                Reach::Tcp(authority) => {
                    let stream = TcpStream::connect(authority).await.with_context(|| self.unreachable())?;
                    self.converse(stream, authority, method, target).await
                }
                Reach::Unix(path) => {
                    let stream = UnixStream::connect(path).await.with_context(|| self.unreachable())?;
                    self.converse(stream, "localhost", method, target).await
                }
            }
        };
        let answer = match patience {
            Some(patience) => tokio::time::timeout(patience, asking).await.with_context(|| self.unreachable())?,
            None => asking.await,
        };
        let (status, body) = answer?;
        if status.is_success() || status == StatusCode::UNPROCESSABLE_ENTITY {
            return Ok((status, body));
        }
        let told = serde_json::from_slice::<serde_json::Value>(&body).unwrap_or_default();
        let reason = told["error"].as_str().unwrap_or("no reason given").to_owned();
        Err(match status {
            StatusCode::UNAUTHORIZED => anyhow!("{}: {reason} (--token, TIDEGATE_TOKEN)", self.place.address).into(),
            _ => anyhow!("{reason}").into(),
        })
    }

    fn unreachable(&self) -> String {
        format!("no answer from Tidegate's admin API at {}; does it run, or is --admin another?", self.place.address)
    }

    async fn converse<S>(
        &self,
        stream: S,
        host: &str,
        method: Method,
        target: &str,
    ) -> Result<(StatusCode, Bytes), anyhow::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(target).header(HOST, host);
        if let Some(token) = &self.place.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await;
        let response = response.with_context(|| self.unreachable())?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        connection.abort();
        Ok((status, body))
    }
}

/// A name as a path's segment.
pub(super) fn segment(name: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(name, SEGMENT)
}

fn path_of(pool: &str, upstream: &str) -> String {
    format!("/pools/{}/upstreams/{}", utf8_percent_encode(pool, SEGMENT), utf8_percent_encode(upstream, SEGMENT))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    Ok(serde_json::from_slice(body).context("the answer is not one of Tidegate's admin API")?)
}
