use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use listenfd::ListenFd;

use super::bind::{Socket, clones, tune};
use crate::types::Bind;

/// Listening sockets handed over by systemd (`LISTEN_FDS`), found by the address they listen on.
///
/// They are kept for the life of the process and given out as clones: a listener that goes and comes back with a reload finds its socket
/// again, as systemd has it open all the while and nobody else could bind there.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<(Bind, Socket)>,
}

impl Inherited {
    /// Takes what the environment names, once, at start; afterwards the environment no longer does.
    ///
    /// **Errors**: a socket that cannot be used is left out, and said in the log.
    pub fn from_environment() -> Self {
        let mut handed = ListenFd::from_env();
        let sockets = (0..handed.len()).filter_map(|index| {
            take(&mut handed, index)
                .inspect_err(|error| tracing::warn!("cannot use socket {index} handed over by systemd: {error}"))
                .ok()
        });
        Inherited { sockets: sockets.collect() }
    }

    /// These.
    pub fn of(sockets: impl IntoIterator<Item = Socket>) -> io::Result<Self> {
        let named = sockets.into_iter().map(|socket| Ok((address(&socket)?, socket)));
        Ok(Inherited { sockets: named.collect::<io::Result<_>>()? })
    }

    /// The addresses of all of them.
    pub fn addresses(&self) -> impl Iterator<Item = &Bind> {
        self.sockets.iter().map(|(address, _)| address)
    }

    /// Clones of the one that listens on `wanted`, if there is one.
    pub(super) fn find(&self, wanted: &Bind, workers: usize) -> io::Result<Option<Vec<Socket>>> {
        let exact = self.sockets.iter().find(|(address, _)| address == wanted);
        let Some((_, socket)) = exact.or_else(|| self.sockets.iter().find(|(address, _)| covers(address, wanted)))
        else {
            return Ok(None);
        };
        clones(workers, || match socket {
            Socket::Tcp(listener) => listener.try_clone().map(Socket::Tcp),
            Socket::Unix(listener) => listener.try_clone().map(Socket::Unix),
        })
        .map(Some)
    }
}

/// Whether a socket takes all that is meant: `ListenStream=8080` makes `[::]:8080`, which `0.0.0.0:8080` could not be bound beside.
fn covers(address: &Bind, wanted: &Bind) -> bool {
    let (Bind::Tcp(address), Bind::Tcp(wanted)) = (address, wanted) else { return false };
    address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && wanted.ip().is_unspecified() && address.port() == wanted.port()
}

fn take(handed: &mut ListenFd, index: usize) -> io::Result<(Bind, Socket)> {
    let socket = match handed.take_tcp_listener(index) {
        Ok(Some(listener)) => Socket::Tcp(listener),
        _ => match handed.take_unix_listener(index)? {
            Some(listener) => Socket::Unix(listener),
            None => return Err(io::ErrorKind::NotFound.into()),
        },
    };
    match &socket {
        Socket::Tcp(listener) => {
            listener.set_nonblocking(true)?;
            tune(&socket2::SockRef::from(listener))?;
        }
        Socket::Unix(listener) => listener.set_nonblocking(true)?,
    }
    Ok((address(&socket)?, socket))
}

fn address(socket: &Socket) -> io::Result<Bind> {
    match socket {
        Socket::Tcp(listener) => listener.local_addr().map(Bind::Tcp),
        Socket::Unix(listener) => {
            let address = listener.local_addr()?;
            let path = address.as_pathname().map(Path::to_owned);
            path.map(Bind::Unix).ok_or_else(|| io::Error::other("it has no path"))
        }
    }
}
