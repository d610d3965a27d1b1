use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Access, Control, api};
use crate::config::model::{Admin, Secret};
use crate::types::Bind;

/// More callers at once wait; the API is for a few people and one scraper.
const MAX_CONNECTIONS: usize = 128;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a stop waits for answers that are on their way.
const FAREWELL: Duration = Duration::from_millis(500);

/// The API's socket, bound and not yet served.
#[derive(Debug)]
pub struct Bound {
    socket: Socket,
    address: Bind,
    access: Arc<Access>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix { listener: UnixListener, _file: Unlink },
}

/// Why the API cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Everybody could reach it, and nothing would ask who they are.
    #[error("the admin API at {0} could be reached from other machines, so it needs a token: set admin.token")]
    Open(SocketAddr),
    /// The system refused.
    #[error("the admin API cannot listen on {address}: {source}")]
    Refused {
        /// Where.
        address: Bind,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Bound {
    /// Binds what the configuration asks for; `None` where it is off. Needs a tokio runtime.
    ///
    /// A Unix socket can be used by this process's user only; a file that a dead process left there is replaced.
    ///
    /// **Errors**: the address is taken or not ours, or could be reached from elsewhere while there is no token.
    pub fn bind(settings: &Admin) -> Result<Option<Bound>, BindError> {
        let Some(bind) = &settings.bind else { return Ok(None) };
        let refused = |source| BindError::Refused { address: bind.clone(), source };
        let (socket, address) = match bind {
            Bind::Tcp(address) => {
                if settings.token.is_none() && !address.ip().is_loopback() {
                    return Err(BindError::Open(*address));
                }
                let listener = listen_tcp(*address).map_err(refused)?;
                let address = listener.local_addr().map_err(refused)?;
                (Socket::Tcp(listener), Bind::Tcp(address))
            }
            Bind::Unix(path) => {
                let listener = listen_unix(path).map_err(refused)?;
                (Socket::Unix { listener, _file: Unlink(path.clone()) }, bind.clone())
            }
        };
        let access =
            Arc::new(Access::new(settings.token.as_ref().map(Secret::expose), matches!(socket, Socket::Tcp(_))));
        Ok(Some(Bound { socket, address, access }))
    }

    /// Where it listens; the real port where port 0 was asked for.
    pub fn address(&self) -> &Bind {
        &self.address
    }

    /// Who may use it, to change the token later.
    pub fn access(&self) -> Arc<Access> {
        self.access.clone()
    }

    /// Serves until `stop` is ready; then answers that are on their way get a moment to leave.
    pub async fn serve(self, control: impl Control, stop: impl Future<Output = ()>) {
        let router = api::router(control, self.access);
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let graceful = GracefulShutdown::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            // Neither fails: the semaphore is never closed.
            let place = tokio::select! {
                () = &mut stop => break,
                Ok(place) = places.clone().acquire_owned() => place,
            };
            let accepted = tokio::select! {
                () = &mut stop => break,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok(Accepted::Tcp(stream)) => speak(stream, router.clone(), &graceful, place),
                Ok(Accepted::Unix(stream)) => speak(stream, router.clone(), &graceful, place),
                Err(error) => {
                    // A connection that died while it waited, or no file descriptors left: others must close first.
                    tracing::debug!(%error, "admin API: cannot accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        // Whoever is not done by then is waiting for something long, such as a drain.
        let _ = tokio::time::timeout(FAREWELL, graceful.shutdown()).await;
    }
}

enum Accepted {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

impl Socket {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Accepted::Tcp(stream))
            }
            Socket::Unix { listener, .. } => Ok(Accepted::Unix(listener.accept().await?.0)),
        }
    }
}

fn speak<S>(stream: S, router: axum::Router, graceful: &GracefulShutdown, place: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        // How a caller's connection ends is the caller's business.
        let _ = connection.await;
        drop(place);
    });
}

fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    if path.symlink_metadata().is_ok_and(|file| file.file_type().is_socket()) {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    // Before `listen` nobody can connect, so nobody slips in while the mode is still the default one.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    socket.listen(128)?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket.into())
}

/// Removes the socket's file with its listener.
#[derive(Debug)]
struct Unlink(PathBuf);

impl Drop for Unlink {
    fn drop(&mut self) {
        // Somebody else may have removed it; then there is nothing to do.
        let _ = std::fs::remove_file(&self.0);
    }
}
