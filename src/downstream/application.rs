use std::error::Error;
use std::future::Future;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;

use super::client_body::ClientBody;
use super::connection::Connection;
use super::objection::Objection;
use super::terms::Terms;
use super::tls::HandshakeError;
use crate::telemetry::Closed;
use crate::types::Lines;

/// What answers the requests that come in through a [`Door`](super::Door): one for each listener and worker.
///
/// Not a `tower` service on purpose: nothing here is boxed, cloned or `Send`, and what a connection needs besides answers
/// (terms, refusals, counting) has its own words.
pub trait Application: 'static {
    /// The body of its answers.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin + 'static;
    /// What it keeps for each connection.
    type State: 'static;

    /// Whether it can do with a plain request's headers as text: then they are in [`ClientBody::take_lines`], and the request has none.
    const READS_LINES: bool = false;

    /// The terms for the next connection, or a new bound while all seats are taken.
    fn terms(&self) -> Arc<Terms>;

    /// Lets a connection from this client in, with what is to be kept for it; `None` closes it at once.
    fn admit(&self, terms: &Terms, client: IpAddr) -> Option<Self::State>;

    /// Answers a request. Dropped where the client leaves. A panic in it costs this request alone.
    fn answer(
        self: Rc<Self>,
        connection: Rc<Connection<Self::State>>,
        request: Request<ClientBody>,
    ) -> impl Future<Output = Response<Self::Body>> + 'static;

    /// An answer's headers, where they are still text: then the answer itself has none. Only to a request whose own were text.
    fn take_lines(body: &mut Self::Body) -> Option<Lines> {
        let _ = body;
        None
    }

    /// The answer to a request that was refused before it could be handed over, or whose [`answer`](Self::answer) panicked.
    /// The connection closes behind all but the latter.
    fn refuse(&self, connection: &Rc<Connection<Self::State>>, objection: Objection) -> Response<Self::Body>;

    /// Hears of what happens to connections: for counters and logs.
    fn observe(&self, event: Event<'_>) {
        let _ = event;
    }
}

/// What happens to connections besides their requests.
#[derive(Debug)]
pub enum Event<'a> {
    /// One was accepted.
    Accepted,
    /// A TLS handshake was completed.
    Handshake,
    /// A TLS handshake failed; the connection closes.
    HandshakeFailed(&'a HandshakeError),
    /// Something of an HTTP/1 request was no HTTP, and hyper answered it by itself: 400, 414 or 431. The connection closes.
    Unparsable(&'a hyper::Error),
    /// Something panicked while a connection was served; the text is its message.
    Panicked(&'a str),
    /// One was closed.
    Closed {
        /// Why.
        why: Closed,
        /// Bytes read from it, TLS and all.
        received: u64,
        /// Bytes written to it, TLS and all.
        sent: u64,
    },
    /// None can be accepted just now, such as for want of file descriptors.
    AcceptFailed(&'a std::io::Error),
}
