//! A stand-in until the application is wired to [`Door`](super::Door).
#![allow(missing_docs)]
use std::cell::RefCell;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use crate::limit::ConnectionSeats;

#[derive(Debug)]
pub struct Connection {
    listener: usize,
    peer: SocketAddr,
    pub seats: ConnectionSeats,
    pub introduction: RefCell<Option<Rc<crate::proxy::client::Introduction>>>,
}
impl Connection {
    pub fn listener(&self) -> usize {
        self.listener
    }
    pub fn client(&self) -> IpAddr {
        self.peer.ip()
    }
    pub fn peer_port(&self) -> u16 {
        self.peer.port()
    }
    pub fn local_port(&self) -> u16 {
        0
    }
    pub fn seats(&self) -> &ConnectionSeats {
        &self.seats
    }
    pub fn introduction(&self, networks: &[ipnet::IpNet]) -> Rc<crate::proxy::client::Introduction> {
        self.introduction
            .borrow_mut()
            .get_or_insert_with(|| Rc::new(crate::proxy::client::Introduction::new(self.peer.ip(), false, networks)))
            .clone()
    }
    pub fn scheme(&self) -> &'static str {
        "http"
    }
    pub fn tls_version(&self) -> &'static str {
        ""
    }
}

#[derive(Clone, Copy)]
struct Local;
impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, f: F) {
        tokio::task::spawn_local(async move {
            f.await;
        });
    }
}

pub async fn accept<H, F, B>(listener: std::net::TcpListener, index: usize, handler: H)
where
    H: Fn(Rc<Connection>, Request<Incoming>) -> F + Clone + 'static,
    F: Future<Output = Response<B>> + 'static,
    B: http_body::Body<Data = bytes::Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((stream, peer)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let handler = handler.clone();
        tokio::task::spawn_local(async move {
            let connection = Rc::new(Connection {
                listener: index,
                peer,
                seats: ConnectionSeats::new(),
                introduction: RefCell::default(),
            });
            let service = hyper::service::service_fn(move |request| {
                let answer = handler(connection.clone(), request);
                async move { Ok::<_, std::convert::Infallible>(answer.await) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
        });
    }
}

pub fn listen(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}
