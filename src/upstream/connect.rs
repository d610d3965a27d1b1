use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::error::{SendError, SendErrorKind, connecting};
use super::io::Stream;
use super::target::{Place, Target};
use super::tls::alpn;
use crate::config::model::Protocol;
use crate::socket::Socket;
use crate::sweep::{Deadline, Expired};

/// Opens a socket; no bound on how long that takes.
pub(super) async fn open(place: &Place) -> io::Result<Socket> {
    match place {
        Place::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix),
        Place::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            // Neither is worth losing a connection for: the socket works without them.
            let _ = stream.set_nodelay(true);
            let probes = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(10));
            let _ = SockRef::from(&stream).set_tcp_keepalive(&probes);
            Ok(Socket::Tcp(stream))
        }
    }
}

/// Makes the TLS handshake, where the target wants one; no bound on how long that takes.
pub(super) async fn secure(target: &Target, plain: Socket) -> io::Result<Stream> {
    let Some((config, name)) = &target.tls else {
        return Ok(Stream::Plain(plain));
    };
    let stream = TlsConnector::from(config.clone()).connect(name.clone(), plain).await?;
    let agreed = stream.get_ref().1.alpn_protocol();
    // An upstream that does not know ALPN speaks HTTP/1.1 (RFC 9113 §3.2).
    if agreed != Some(alpn(target.protocol)) && (target.protocol == Protocol::Http2 || agreed.is_some()) {
        return Err(io::Error::other("it does not speak the pool's protocol (ALPN)"));
    }
    Ok(Stream::Tls(Box::new(stream)))
}

/// Connects to a target within its timeouts; `clock` is used to keep them.
pub(super) async fn connect(target: &Target, clock: &Deadline) -> Result<Stream, SendError> {
    let failed = |kind: SendErrorKind| SendError::new(kind, false);
    clock.set_after(target.connect_timeout);
    let plain = match clock.bound(open(&target.place)).await {
        Ok(Ok(plain)) => plain,
        Ok(Err(error)) => return Err(failed(connecting(&error)).because(error)),
        Err(Expired) => return Err(failed(SendErrorKind::ConnectTimeout)),
    };
    clock.set_after(target.tls_timeout);
    match clock.bound(secure(target, plain)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(failed(SendErrorKind::TlsFailed).because(error)),
        Err(Expired) => Err(failed(SendErrorKind::TlsTimeout)),
    }
}
