//! Worker threads: how many there are, and that each has its part of the connections.

mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

const OPEN: &str = "tidegate_worker_connections_open";

/// Asks something, and gets the beginning of an answer.
async fn is_answered(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
    let mut answer = [0; 12];
    soon("an answer", stream.read_exact(&mut answer)).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
}

/// So many connections, one after the other, each answered once.
async fn served(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        is_answered(&mut stream).await;
        streams.push(stream);
    }
    streams
}

async fn open(proxy: &Proxy, workers: usize) -> Vec<f64> {
    let mut open = Vec::new();
    for worker in 0..workers {
        open.push(proxy.metric(&format!("{OPEN}{{worker=\"{worker}\"}}")).await.unwrap_or(0.0));
    }
    open
}

#[tokio::test]
async fn few_long_connections_are_spread_over_the_workers() {
    const TEXT: &str = r#"
        workers = 4
        [listener.web]
        bind = ["127.0.0.1:0", "unix:{socket}"]
        [[route]]
        respond = { status = 200, body = "here" }
    "#;
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("web.sock");
    let proxy = proxy(TEXT).with("socket", socket.as_path()).start().await;
    let web = proxy.address_of("web").await;
    let mut clients = served(web, 8).await;
    assert_eq!(open(&proxy, 4).await, [2.0; 4]);
    // Who goes makes room where it was, and who comes gets it.
    clients.truncate(4);
    until("half of them have gone", async || (open(&proxy, 4).await.iter().sum::<f64>() == 4.0).then_some(())).await;
    clients.extend(served(web, 4).await);
    assert_eq!(open(&proxy, 4).await, [2.0; 4]);
    drop(clients);
    until("all have gone", async || (open(&proxy, 4).await == [0.0; 4]).then_some(())).await;

    // The one queue of a Unix socket, from which any worker takes.
    let mut streams = Vec::new();
    for _ in 0..8 {
        let mut stream = tokio::net::UnixStream::connect(&socket).await.expect("connected");
        is_answered(&mut stream).await;
        streams.push(stream);
    }
    assert_eq!(open(&proxy, 4).await, [2.0; 4]);
}

/// A connection that is passed on takes its seat along: the bound of the listener holds on the way too.
#[tokio::test]
async fn passing_on_lets_nobody_past_the_listeners_bound() {
    const TEXT: &str = r#"
        workers = 3
        [listener.web]
        bind = "127.0.0.1:0"
        max_connections = 6
        keepalive_timeout = "60s"
        [[route]]
        respond = 200
    "#;
    let proxy = proxy(TEXT).start().await;
    let web = proxy.address_of("web").await;
    let mut streams = Vec::new();
    for _ in 0..30 {
        let mut stream = TcpStream::connect(web).await.expect("the queue takes it");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
        streams.push(stream);
    }
    let all = async || open(&proxy, 3).await.iter().sum::<f64>();
    until("six are served", async || (all().await >= 6.0).then_some(())).await;
    assert_eq!(open(&proxy, 3).await.iter().sum::<f64>(), 6.0);
    // One after the other, whoever goes leaves its seat to another.
    let mut answered = 0;
    while !streams.is_empty() {
        until("one more is answered", async || {
            let at = streams.iter().position(|stream| stream.try_read(&mut [0; 12]).is_ok_and(|read| read == 12))?;
            streams.swap_remove(at);
            Some(())
        })
        .await;
        answered += 1;
        assert!(all().await <= 6.0);
    }
    assert_eq!(answered, 30);
}

/// Connections are passed from worker to worker while the address goes from listener to listener, is given up and comes back: whoever is
/// let in is answered.
#[tokio::test]
async fn nobody_is_lost_between_workers_while_listeners_change() {
    let text = |listener: &str, binds: &[SocketAddr]| {
        let binds: Vec<String> = binds.iter().map(|bind| format!("\"{bind}\"")).collect();
        format!("workers = 3\n[listener.{listener}]\nbind = [{}]\n[[route]]\nrespond = 200\n", binds.join(", "))
    };
    let (kept, other) = (free_address(), free_address());
    let proxy = proxy(&text("web0", &[kept])).start().await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let callers: Vec<_> = (0..6)
        .map(|number| {
            let stop = stop.clone();
            tokio::spawn(async move {
                let address = if number % 2 == 0 { kept } else { other };
                let mut answered = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    // The other address is closed at times.
                    let Ok(mut stream) = TcpStream::connect(address).await else {
                        assert_eq!(address, other);
                        tokio::task::yield_now().await;
                        continue;
                    };
                    is_answered(&mut stream).await;
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    for round in 1..=20 {
        let binds = if round % 2 == 1 { &[kept, other][..] } else { &[kept] };
        let text = text(&format!("web{}", round / 4), binds);
        // An address that has just been given up is still ours for a moment.
        until("the edit is taken", async || proxy.edit(&text).await.accepted.then_some(())).await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for caller in callers {
        assert!(caller.await.expect("each that was let in got its answer") > 0);
    }
}

/// `workers = "auto"` in a cgroup with a quota of one CPU, on a machine that has more.
#[tokio::test]
async fn as_many_workers_as_the_quota_has_cpus() {
    const TEXT: &str = "workers = \"auto\"\n[listener.web]\nbind = \"127.0.0.1:0\"\n[[route]]\nrespond = 200";
    let cpus = std::thread::available_parallelism().expect("the CPUs").get();
    let all = proxy(TEXT).spawn().await;
    assert_eq!(all.metric("tidegate_workers").await, Some(cpus as f64));
    if cpus == 1 {
        eprintln!("SKIPPED: a quota of one CPU changes nothing where there is only one");
        return;
    }
    let Some(group) = Group::of_one_cpu() else {
        eprintln!("SKIPPED: no cgroup with a CPU quota can be made here");
        return;
    };
    let limited = proxy(TEXT).spawn_with(|command| group.put(command)).await;
    assert_eq!(limited.metric("tidegate_workers").await, Some(1.0), "of {cpus}");
}

/// A cgroup with a quota of one CPU; gone when dropped.
struct Group(PathBuf);

impl Group {
    fn of_one_cpu() -> Option<Group> {
        let name = format!("tidegate-test-{}", std::process::id());
        let [first, second] = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup"].map(|root| Path::new(root).join(&name));
        let make = |folder: PathBuf, quota: &str, value: &str| {
            std::fs::create_dir(&folder).ok()?;
            let group = Group(folder);
            std::fs::write(group.0.join(quota), value).ok().map(|()| group)
        };
        make(first, "cpu.cfs_quota_us", "100000").or_else(|| make(second, "cpu.max", "100000 100000"))
    }

    /// The command will run in it.
    fn put(&self, command: &mut Command) {
        let mut inside = Command::new("sh");
        inside.arg("-c").arg(format!("echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"", self.0.display()));
        inside.arg(command.get_program()).args(command.get_args());
        *command = inside;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What ran in it was killed a moment ago.
        for _ in 0..200 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}
