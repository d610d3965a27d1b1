use std::net::IpAddr;
use std::sync::Arc;

use super::ClientKey;
use super::permit::Seats;
use super::table::Table;
use crate::types::Moment;

/// How many connections a client may have open at once, whatever they do: asked at accept, before anything is read.
///
/// Who comes through a trusted proxy counts as that proxy here; what its clients do is for [`super::Limiter`].
#[derive(Debug)]
pub struct ConnectionLimiter {
    max: u32,
    table: Arc<Table>,
}

/// A connection that counts as long as this is held. `Send`: it may move to the worker that serves the connection.
#[derive(Debug)]
#[must_use = "a connection counts only as long as its permit is held"]
pub struct ConnectionPermit(Arc<Seats>);

impl ConnectionLimiter {
    /// Clients without an open connection that are remembered at once.
    const CLIENTS: usize = 10_000;

    /// At most `max` for each client address (IPv6: each /64).
    pub fn new(max: u32) -> Self {
        ConnectionLimiter { max, table: Table::new() }
    }

    /// Another bound for the same clients, as a reload makes it.
    pub fn with_max(&self, max: u32) -> Self {
        ConnectionLimiter { max, table: self.table.clone() }
    }

    /// Counts a connection of this client, or says that it has too many.
    pub fn admit(&self, client: IpAddr, now: Moment) -> Option<ConnectionPermit> {
        self.table.with(ClientKey::address(client), Self::CLIENTS, now, |client| {
            client.clear = now;
            let seats = client.seats();
            (seats.connections() < self.max).then(|| {
                seats.enter_connection();
                ConnectionPermit(seats.clone())
            })
        })
    }

    /// Forgets clients that have had no connection for a minute; called every few seconds.
    pub fn sweep(&self, now: Moment) {
        self.table.sweep(Self::CLIENTS, now);
    }

    /// How many clients are remembered.
    pub fn size(&self) -> usize {
        self.table.size()
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.leave_connection();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_so_many_connections_and_gets_one_back_when_one_closes() {
        let limiter = ConnectionLimiter::new(2);
        let (here, there) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let now = Moment::from_nanos(1);
        let first = limiter.admit(here, now).unwrap();
        let _second = limiter.admit(here, now).unwrap();
        assert!(limiter.admit(here, now).is_none());
        assert!(limiter.admit(there, now).is_some());
        std::thread::spawn(move || drop(first)).join().unwrap();
        let wider = limiter.with_max(3);
        let _third = wider.admit(here, now).unwrap();
        let _fourth = wider.admit(here, now).unwrap();
        assert!(wider.admit(here, now).is_none());
        assert_eq!(limiter.size(), 2);
    }

    #[test]
    fn threads_take_exactly_as_many_as_there_are() {
        let limiter = ConnectionLimiter::new(1000);
        let client = "2001:db8::1".parse().unwrap();
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let permits: Vec<_> = (0..500).filter_map(|_| limiter.admit(client, Moment::START)).collect();
                        permits.into_iter().map(std::mem::forget).count()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 1000);
    }
}
