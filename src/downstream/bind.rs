//! Binding: turns addresses into listening sockets, one for each worker, before anything else changes.
//!
//! TCP sockets share their port by SO_REUSEPORT, so each worker has a kernel queue of its own and none wakes the others. Because that
//! would also let a second process share the port unnoticed, a first bind without it must succeed. A Unix socket, and one that
//! was handed over by systemd, has a single queue; its descriptor is cloned for each worker.
//!
//! Nothing here accepts. A [`Bound`] that is dropped closes its sockets: a configuration that fails later leaves nothing behind.

use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, TcpKeepalive, Type};

use super::inherited::Inherited;
use crate::types::Bind;

/// Listening sockets on one address, one for each worker.
#[derive(Debug)]
pub struct Bound {
    /// Where: with the port that the kernel chose, if it was asked to.
    pub address: Bind,
    /// The sockets; all non-blocking.
    pub sockets: Vec<Socket>,
    /// The socket's file, if we made one.
    pub file: Option<SocketFile>,
}

/// A listening socket, non-blocking.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpListener),
    /// Unix stream.
    Unix(UnixListener),
}

/// Why an address cannot be listened on; its text is for the person who wrote it.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}{advice}")]
pub struct BindError {
    /// The address.
    pub address: Bind,
    /// What the system says.
    pub source: io::Error,
    advice: Advice,
}

/// What may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Advice {
    None,
    InUse(u16),
    Privileged,
    NotHere,
    NoSocket,
    NoFolder,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Advice::None => Ok(()),
            Advice::InUse(0) => f.write_str("; another process listens there"),
            Advice::InUse(port) => {
                write!(f, "; another process has that port, `ss -tanp 'sport = :{port}'` shows which")
            }
            Advice::Privileged => {
                f.write_str("; a port below 1024 needs CAP_NET_BIND_SERVICE or a socket handed over by systemd")
            }
            Advice::NotHere => f.write_str("; no interface of this machine has that address"),
            Advice::NoSocket => f.write_str("; a file of that name exists and is no socket"),
            Advice::NoFolder => f.write_str("; its directory does not exist"),
        }
    }
}

impl BindError {
    fn new(address: &Bind, source: io::Error) -> Self {
        let advice = match (address, source.kind()) {
            (Bind::Tcp(address), io::ErrorKind::AddrInUse) => Advice::InUse(address.port()),
            (Bind::Unix(_), io::ErrorKind::AddrInUse) => Advice::InUse(0),
            (Bind::Unix(_), io::ErrorKind::AlreadyExists) => Advice::NoSocket,
            (Bind::Unix(_), io::ErrorKind::NotFound) => Advice::NoFolder,
            (Bind::Tcp(address), io::ErrorKind::PermissionDenied) if address.port() < 1024 => Advice::Privileged,
            (Bind::Tcp(_), io::ErrorKind::AddrNotAvailable) => Advice::NotHere,
            _ => Advice::None,
        };
        BindError { address: address.clone(), source, advice }
    }
}

/// Connections that may wait to be accepted, for each socket; the system's `net.core.somaxconn` may allow fewer.
const BACKLOG: i32 = 4096;

/// Listens on `address`, with a socket for each of `workers`.
///
/// A wildcard IPv6 address takes IPv4 too; where the system has no IPv6, it means all of IPv4.
/// **Errors**: where another process listens there, live Unix sockets included.
pub fn bind(address: &Bind, workers: usize, inherited: &Inherited) -> Result<Bound, BindError> {
    bind_as(address, workers, inherited, Sharing::Nobody)
}

/// Listens on an address that this process listens on already, so that it can go from one listener to another without a gap.
/// The older sockets are to be closed soon.
pub fn rebind(address: &Bind, workers: usize, inherited: &Inherited) -> Result<Bound, BindError> {
    bind_as(address, workers, inherited, Sharing::Ourselves)
}

/// Who may listen on an address already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Nobody,
    Ourselves,
}

fn bind_as(address: &Bind, workers: usize, inherited: &Inherited, sharing: Sharing) -> Result<Bound, BindError> {
    let found = match inherited.find(address, workers) {
        Ok(Some(sockets)) => Ok((sockets, None)),
        Ok(None) => match address {
            Bind::Tcp(address) => tcp(*address, workers, sharing).map(|sockets| (sockets, None)),
            Bind::Unix(path) => unix(path, workers, sharing).map(|(sockets, file)| (sockets, Some(file))),
        },
        Err(error) => Err(error),
    };
    let (sockets, file) = found.map_err(|source| BindError::new(address, source))?;
    let address = match sockets.first() {
        Some(Socket::Tcp(listener)) => listener.local_addr().map_or_else(|_| address.clone(), Bind::Tcp),
        _ => address.clone(),
    };
    Ok(Bound { address, sockets, file })
}

fn tcp(address: SocketAddr, workers: usize, sharing: Sharing) -> io::Result<Vec<Socket>> {
    match tcp_exactly(address, workers, sharing) {
        Err(error) if address.ip().is_unspecified() && address.is_ipv6() && is_without_ipv6(&error) => {
            tcp_exactly((Ipv4Addr::UNSPECIFIED, address.port()).into(), workers, sharing)
        }
        other => other,
    }
}

fn is_without_ipv6(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].iter().any(|errno| code == Some(errno.raw_os_error()))
}

fn tcp_exactly(mut address: SocketAddr, workers: usize, sharing: Sharing) -> io::Result<Vec<Socket>> {
    if address.port() != 0 && sharing == Sharing::Nobody {
        // Finds whoever listens there, shared or not.
        tcp_socket(address, false)?;
    }
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers.max(1) {
        let socket = tcp_socket(address, true)?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        // The others share the port that the first was given.
        address.set_port(listener.local_addr()?.port());
        sockets.push(Socket::Tcp(listener));
    }
    Ok(sockets)
}

fn tcp_socket(address: SocketAddr, shared: bool) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    tune(&socket)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Sets what accepted sockets have too: on Linux they take it over from the listening one, without a system call for each.
pub(super) fn tune(socket: &socket2::Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    // Finds clients that have vanished while nothing was to be sent, such as behind a quiet stream.
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
    socket.set_tcp_keepalive(&keepalive.with_retries(4))
}

fn unix(path: &Path, workers: usize, sharing: Sharing) -> io::Result<(Vec<Socket>, SocketFile)> {
    let place = match sharing {
        Sharing::Nobody => path.to_owned(),
        // Made beside the old one and moved over it, so that at each moment one of them can be connected to.
        Sharing::Ourselves => path.with_extension("new"),
    };
    replace_stale(&place)?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(&place)?)?;
    let mut file = SocketFile::at(&place)?;
    // The owner and the group may connect. Before `listen` nobody can, so nobody gets in by the mode the umask left.
    fs::set_permissions(&place, fs::Permissions::from_mode(0o660))?;
    socket.listen(BACKLOG)?;
    if place != path {
        fs::rename(&place, path)?;
        file.path = path.to_owned();
    }
    let listener = UnixListener::from(socket);
    let sockets = clones(workers, || listener.try_clone().map(Socket::Unix))?;
    Ok((sockets, file))
}

pub(super) fn clones(workers: usize, clone: impl Fn() -> io::Result<Socket>) -> io::Result<Vec<Socket>> {
    (0..workers.max(1)).map(|_| clone()).collect()
}

/// Removes the socket file of a process that has gone; what else is there stays, and is an error.
fn replace_stale(path: &Path) -> io::Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !kind.is_socket() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    // Without waiting: a live process whose queue is full would keep us.
    let probe = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(()) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) => Err(error),
    }
}

/// A Unix socket's file; removed when dropped, if it is still ours.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(SocketFile { path: path.to_owned(), identity: (metadata.dev(), metadata.ino()) })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours =
            fs::symlink_metadata(&self.path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity);
        if ours {
            // Who cannot remove it any more leaves a stale file, which the next start replaces.
            let _ = fs::remove_file(&self.path);
        }
    }
}
