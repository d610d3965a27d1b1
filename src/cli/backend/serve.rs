use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::Shared;
use super::answer::answer;
use crate::types::{Address, Bind};

/// A bound socket.
pub(super) enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listening {
    pub(super) async fn bind(bind: &Bind) -> io::Result<(Listening, Address)> {
        match bind {
            Bind::Tcp(address) => {
                let listener = TcpListener::bind(address).await?;
                let address = Address::Ip(listener.local_addr()?);
                Ok((Listening::Tcp(listener), address))
            }
            Bind::Unix(path) => {
                // A killed process leaves its socket's file behind; only a socket is ever removed.
                use std::os::unix::fs::FileTypeExt;
                if path.symlink_metadata().is_ok_and(|file| file.file_type().is_socket()) {
                    std::fs::remove_file(path)?;
                }
                Ok((Listening::Unix(UnixListener::bind(path)?), Address::Unix(path.clone())))
            }
        }
    }

    async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match self {
            Listening::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), Some(peer)))
            }
            Listening::Unix(listener) => Ok((Stream::Unix(listener.accept().await?.0), None)),
        }
    }
}

/// What the requests of one connection know about it, and can do to it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) peer: Option<SocketAddr>,
    /// Close with a reset instead of an orderly end.
    reset: AtomicBool,
    cut: Notify,
}

impl Connection {
    /// Ends the connection now, in the middle of whatever it is doing, with a TCP reset.
    pub(super) fn reset(&self) {
        self.reset.store(true, Relaxed);
        self.cut.notify_one();
    }
}

/// Accepts until it is aborted; all connections end with it.
pub(super) async fn accept(listener: Listening, tls: Option<Arc<rustls::ServerConfig>>, shared: Arc<Shared>) {
    let tls = tls.map(TlsAcceptor::from);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, peer)) => {
                let connection = Arc::new(Connection { peer, reset: AtomicBool::new(false), cut: Notify::new() });
                connections.spawn(serve(stream, connection, tls.clone(), shared.clone()));
            }
            // Out of file descriptors, most likely: others must close first.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn serve(stream: Stream, connection: Arc<Connection>, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let wire = Wire::new(stream, connection.clone(), shared.clone());
    match tls {
        None => speak(wire, connection, shared).await,
        Some(tls) => {
            if let Ok(stream) = tls.accept(wire).await {
                speak(stream, connection, shared).await;
            }
        }
    }
}

async fn speak<S>(stream: S, connection: Arc<Connection>, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let facts = connection.clone();
    let service = service_fn(move |request| answer(request, facts.clone(), shared.clone()));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::select! {
        // A connection that breaks is the peer's business; the requests on it counted themselves.
        _ = serving => {}
        () = connection.cut.notified() => {}
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// An accepted socket that counts itself and can end with a reset.
struct Wire {
    stream: Stream,
    connection: Arc<Connection>,
    shared: Arc<Shared>,
}

impl Wire {
    fn new(stream: Stream, connection: Arc<Connection>, shared: Arc<Shared>) -> Self {
        shared.stats.connections.fetch_add(1, Relaxed);
        shared.stats.open_connections.fetch_add(1, Relaxed);
        Wire { stream, connection, shared }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.stats.open_connections.fetch_sub(1, Relaxed);
        if self.connection.reset.load(Relaxed)
            && let Stream::Tcp(stream) = &self.stream
        {
            // Lingering for no time makes the close a reset; where that fails, it is an orderly close.
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Polls the socket, whichever kind it is.
macro_rules! either {
    ($self:expr, $stream:ident => $call:expr) => {
        match &mut $self.stream {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
