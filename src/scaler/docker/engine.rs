use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderValue};
use hyper::{Response, Uri};
use hyper_util::rt::TokioIo;
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
