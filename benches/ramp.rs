//! **Claim**: real processes are there when a rising load needs them, at the latest two seconds after a start-up time; and no request fails.
//!
//! `cargo bench --bench ramp`: one instance takes four requests at once, each of 100 ms; clients that ask without a pause grow from 1 to 30 in 20 s. For
//! each number of instances the table says when the load first needed it and when so many were ready.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tidegate::admin::Control;
use tidegate::admin::scaling::{Answer, Ask, PoolScaler};
use tidegate::control::{Options, start};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SLOTS: usize = 4;
const MOST: usize = 30;
const RISE: Duration = Duration::from_secs(20);
const STAY: Duration = Duration::from_secs(5);

fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("ramp.toml");
    let text = format!(
        "[listener.web]\nbind = \"127.0.0.1:0\"\n[admin]\nbind = \"off\"\n[log]\nlevel = \"warn\"\n[[route]]\npool = \"app\"\n\
         [pool.app]\nmax_concurrency = {SLOTS}\nhealth = {{ path = \"/health\", interval = \"500ms\" }}\n\
         [pool.app.scaler]\nmin = 1\nmax = 12\nstop_on_exit = true\n[pool.app.scaler.process]\n\
         command = [\"{}\", \"upstream\", \"--bind\", \"127.0.0.1:{{port}}\", \"--name\", \"{{id}}\", \"--latency\", \"100ms\"]\n",
        env!("CARGO_BIN_EXE_tidegate"),
    );
    std::fs::write(&file, text).expect("the configuration is written");
    let running = start(Options::embedded(&file)).unwrap_or_else(|error| panic!("{error}"));
    let web = running.address("web").expect("a listener");
    let handle = running.handle().clone();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let look = async || match handle.scaler(Ask::Status).await {
            Ok(Answer::Status(status)) => status.pools.into_iter().next(),
            _ => None,
        };
        while look().await.is_none_or(|pool| ready(&pool) == 0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (asked, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let clients = Arc::new(AtomicUsize::new(0));
        let begun = Instant::now();
        let (mut needed, mut there) = (vec![None; 64], vec![None; 64]);
        let mut lead = 0.0f64;
        while begun.elapsed() < RISE + STAY {
            let wanted =
                1 + ((begun.elapsed().as_secs_f64() / RISE.as_secs_f64()).min(1.0) * (MOST - 1) as f64) as usize;
            while clients.load(Ordering::Relaxed) < wanted {
                clients.fetch_add(1, Ordering::Relaxed);
                let (asked, failed) = (asked.clone(), failed.clone());
                tokio::spawn(async move {
                    while begun.elapsed() < RISE + STAY {
                        let outcome = ask_on(web, begun, &asked).await;
                        failed.fetch_add(u64::from(outcome.is_err()), Ordering::Relaxed);
                    }
                });
            }
            needed[wanted.div_ceil(SLOTS)].get_or_insert(begun.elapsed());
            if let Some(pool) = look().await {
                there[..=ready(&pool)].iter_mut().filter(|at| at.is_none()).for_each(|at| *at = Some(begun.elapsed()));
                lead = lead.max(pool.last.map_or(0.0, |record| record.decision.terms.lead));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!("instances  needed at  ready at   behind");
        let mut worst = f64::MIN;
        for (count, needed) in needed.iter().enumerate() {
            let Some(needed) = needed.map(|at: Duration| at.as_secs_f64()) else { continue };
            let Some(ready) = there[count].map(|at: Duration| at.as_secs_f64()) else {
                println!("{count:>9}  {needed:>8.1}s     never");
                worst = f64::INFINITY;
                continue;
            };
            worst = worst.max(ready - needed);
            println!("{count:>9}  {needed:>8.1}s  {ready:>7.1}s  {:>6.1}s", ready - needed);
        }
        let (asked, failed) = (asked.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
        println!("start-up {lead:.2} s; at the worst {worst:.2} s behind; {asked} requests, {failed} failed");
    });
    running.stop();
}

fn ready(pool: &PoolScaler) -> usize {
    pool.counts.get("ready").copied().unwrap_or(0) as usize
}

/// Asks on one connection until the end.
async fn ask_on(web: std::net::SocketAddr, begun: Instant, asked: &AtomicU64) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(web).await?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 16 << 10];
    while begun.elapsed() < RISE + STAY {
        stream.write_all(b"GET /status/204 HTTP/1.1\r\nHost: bench\r\n\r\n").await?;
        let mut read = 0;
        while !buffer[..read].ends_with(b"\r\n\r\n") {
            let more = stream.read(&mut buffer[read..]).await?;
            if more == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            read += more;
        }
        if !buffer.starts_with(b"HTTP/1.1 204") {
            return Err(std::io::Error::other("another status"));
        }
        asked.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
