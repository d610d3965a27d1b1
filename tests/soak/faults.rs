//! What is done to the proxy and its upstreams meanwhile. Each loop waits for traffic between two deeds, and for what each deed is to lead to.

use std::net::SocketAddr;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};

use crate::ledger::Ledger;
use crate::support::*;

/// An address of a port that is held, but not listened on, for as long as the socket is there.
pub fn held_port() -> (SocketAddr, Socket) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("an option of every socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    let address = socket.local_addr().expect("a bound socket");
    (address.as_socket().expect("an IP address"), socket)
}

/// What has been done.
#[derive(Debug, Default)]
pub struct Done {
    /// From the beginning to the end of each kill.
    pub kills: Vec<(Instant, Instant)>,
    pub drains: u64,
    pub edits: u64,
    pub refused: u64,
    pub removals: u64,
    pub signals: u64,
    pub rotations: u64,
}

/// Everything that can be done, and to whom.
pub struct Faults<'a> {
    pub proxy: &'a Proxy,
    pub pid: u32,
    pub ledger: &'a Ledger,
    pub b: &'a Upstream,
    pub drained: Upstream,
    pub killed: Upstream,
    pub done: Done,
}

impl Faults<'_> {
    /// Until the ledger is over; everybody is back then.
    pub async fn run(&mut self) {
        let (mut edits, b) = (Done::default(), self.b.address());
        let kills = kills(self.proxy, self.ledger, &mut self.killed);
        let drains = drains(self.proxy, self.ledger, &self.drained);
        let edited = edit(self.proxy, self.ledger, self.pid, &b, &mut edits);
        let (kills, drains, ()) = tokio::join!(kills, drains, edited);
        self.done = Done { kills, drains, ..edits };
    }
}

/// Kills the upstream when it is busy, waits until the proxy knows, and starts it again.
async fn kills(proxy: &Proxy, ledger: &Ledger, upstream: &mut Upstream) -> Vec<(Instant, Instant)> {
    let mut kills = Vec::new();
    let address = upstream.address();
    let failed =
        format!("tidegate_upstream_health_checks_total{{pool=\"app\",upstream=\"{address}\",outcome=\"failed\"}}");
    loop {
        ledger.another(400).await;
        until("it is busy", async || (upstream.stats().in_flight() >= 4 || !ledger.goes_on()).then_some(())).await;
        if !ledger.goes_on() {
            return kills;
        }
        let before = proxy.metric(&failed).await.unwrap_or(0.0);
        let began = Instant::now();
        upstream.kill().await;
        kills.push((began, Instant::now()));
        // Not only ejected by requests: then its return would be a matter of time.
        until("checks have found it down", async || {
            (proxy.metric(&failed).await.unwrap_or(0.0) >= before + 2.0).then_some(())
        })
        .await;
        proxy.until_state("app", &address, "down").await;
        ledger.another(200).await;
        upstream.restart().await;
        proxy.until_state("app", &address, "ready").await;
    }
}

/// Drains the upstream while it is busy, sees that it is left alone, and takes it back.
async fn drains(proxy: &Proxy, ledger: &Ledger, upstream: &Upstream) -> u64 {
    let (mut drains, address) = (0, upstream.address());
    loop {
        ledger.another(300).await;
        if !ledger.goes_on() {
            return drains;
        }
        proxy.operate("app", &address, "drain").await;
        let drained = proxy.until_state("app", &address, "drained").await;
        assert_eq!(drained.in_flight, 0, "{drained:?}");
        let requests = upstream.requests();
        ledger.another(200).await;
        assert_eq!(upstream.requests(), requests, "nothing new comes to a drained upstream");
        proxy.operate("app", &address, "undrain").await;
        proxy.until_state("app", &address, "ready").await;
        drains += 1;
    }
}

/// Edits the file: most take `b` in or out or change a weight; some are wrong; some are followed by a signal or a rotation of the log.
async fn edit(proxy: &Proxy, ledger: &Ledger, pid: u32, b: &str, done: &mut Done) {
    let pid = Pid::from_raw(pid.try_into().expect("a process id")).expect("no zero");
    for number in 1.. {
        ledger.another(250).await;
        if !ledger.goes_on() {
            return;
        }
        let before = proxy.status().await;
        if number % 5 == 4 {
            proxy.save(&crate::text(number, true).replace("health =", "helth ="));
            until("the edit is refused", async || {
                (proxy.status().await.reloads_refused > before.reloads_refused).then_some(())
            })
            .await;
            done.refused += 1;
            continue;
        }
        let with_b = number % 3 != 1;
        proxy.save(&crate::text(number, with_b));
        until("the edit is in force", async || {
            (proxy.status().await.reloads_accepted > before.reloads_accepted).then_some(())
        })
        .await;
        done.edits += 1;
        if with_b {
            proxy.until_state("app", b, "ready").await;
        } else {
            until("b has finished what it had", async || proxy.upstream("app", b).await.is_none().then_some(())).await;
            done.removals += 1;
        }
        if number % 4 == 2 {
            let before = proxy.status().await.reloads_accepted;
            kill_process(pid, Signal::HUP).expect("the process lives");
            until("the signal is heeded", async || (proxy.status().await.reloads_accepted > before).then_some(()))
                .await;
            done.signals += 1;
        }
        if number % 4 == 3 {
            let log = proxy.folder().join("access.log");
            std::fs::rename(&log, proxy.folder().join(format!("access.log.{number}"))).expect("the log is there");
            kill_process(pid, Signal::USR1).expect("the process lives");
            eventually("the log is written anew", || log.exists()).await;
            done.rotations += 1;
        }
    }
}
