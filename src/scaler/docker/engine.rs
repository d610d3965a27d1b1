use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderValue};
use hyper::{Response, Uri};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::trouble::Trouble;

/// The engine must take a connection within this.
const CONNECT: Duration = Duration::from_secs(2);
/// … and answer within this.
pub(super) const CALL: Duration = Duration::from_secs(10);
/// bollard's own bound, which is one for all calls: out of the way, because a stop may take as long as its grace.
const NEVER: u64 = 365 * 86400;

/// The way to an engine: each call has an own connection, so an engine that was restarted is found again by the next call.
///
/// Why not bollard's own transport for Unix sockets: it wants the socket to be there when it is made, and cannot bound the connecting alone.
#[derive(Clone)]
pub(super) struct Engine {
    socket: PathBuf,
    client: Docker,
}

impl Engine {
    /// Connects to nothing yet.
    pub(super) fn at(socket: &Path) -> Result<Self, Trouble> {
        let path = socket.to_owned();
        let transport = move |request| exchange(path.clone(), request);
        let client =
            Docker::connect_with_custom_transport(transport, Some("http://engine"), NEVER, API_DEFAULT_VERSION)?;
        Ok(Engine { socket: socket.to_owned(), client })
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// For calls whose end is not to be waited for as usual: streams, stops.
    pub(super) fn client(&self) -> &Docker {
        &self.client
    }

    /// What the engine answers to a GET, read as `T`.
    ///
    /// Why not bollard's own reading: it knows certain words only, and another engine's word for one container's state would make the whole
    /// listing unreadable (Podman's `stopped` does).
    pub(super) async fn ask<T: DeserializeOwned>(&self, path: String) -> Result<T, Trouble> {
        let uri: Uri = path.parse().map_err(|_| std::io::Error::other(format!("{path} is no path")))?;
        let mut request = BollardRequest::new(bollard::body_full(Default::default()));
        *request.uri_mut() = uri;
        let answer = exchange(self.socket.clone(), request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(Error::from)?.to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| Trouble::Unreadable(error.to_string()));
        }
        let said = serde_json::from_slice(&body).map(|Said { message }| message);
        let message = said.unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned());
        Err(Error::DockerResponseServerError { status_code: status.as_u16(), message }.into())
    }

    /// A whole conversation, within the usual time.
    pub(super) async fn within<T>(&self, talk: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
        self.within_span(CALL, talk).await
    }

    /// … within `span`.
    pub(super) async fn within_span<T>(
        &self,
        span: Duration,
        talk: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Trouble> {
        timeout(span, talk).await.unwrap_or(Err(Trouble::Slow(span)))
    }
}

/// What engines say when they refuse.
#[derive(Deserialize)]
struct Said {
    message: String,
}

/// One request and its answer's head over a connection of its own.
async fn exchange(socket: PathBuf, request: BollardRequest) -> Result<Response<Incoming>, Error> {
    let stream = timeout(CONNECT, UnixStream::connect(socket)).await.map_err(std::io::Error::from)??;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // What goes wrong on the connection the request or its body tells.
    tokio::spawn(async move { drop(connection.await) });
    let (mut head, body) = request.into_parts();
    let path = head.uri.into_parts().path_and_query;
    head.uri = path.map(Uri::from).unwrap_or_default();
    head.headers.insert(HOST, HeaderValue::from_static("engine"));
    Ok(sender.send_request(BollardRequest::from_parts(head, body)).await?)
}
