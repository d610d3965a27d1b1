//! Floods over HTTP/2, frame by frame: each either ends its own connection with a reason or is simply served; none costs memory without
//! bound, and nobody else waits.

mod support;

use std::time::{Duration, Instant};

use support::frames::*;
use support::*;

/// One worker, so that everybody shares it with the attacker.
const APP: &str = r#"
    workers = 1
    [listener.web]
    bind = "127.0.0.1:0"
    max_streams = 50
    send_timeout = "1s"
    body_timeout = "2s"
    [pool.app]
    upstreams = ["{a}"]
    [[route]]
    pool = "app"
"#;
const MOST_STREAMS: u64 = 50;
/// More than a connection may cost, and far less than a flood brings. The program is not optimized here.
const MOST_KIB: u64 = 48 << 10;

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Frames for each round; the streams that clients begin are odd.
struct Flood {
    name: &'static str,
    first: Vec<u8>,
    round: fn(u32) -> Vec<u8>,
    rounds: u32,
    /// Whether it reads what is said to it.
    deaf: bool,
    may_end: &'static [Ending],
}

/// How a flood may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// All of it was taken, and the next request on the connection is answered.
    Served,
    /// The connection ends with this reason.
    GoAway(u32),
    /// Nothing more is taken from who does not listen.
    Held,
}

use Ending::{GoAway, Held, Served};

fn flood(name: &'static str, rounds: u32, round: fn(u32) -> Vec<u8>, may_end: &'static [Ending]) -> Flood {
    Flood { name, first: Vec::new(), round, rounds, deaf: false, may_end }
}

impl Flood {
    /// Begins with these frames.
    fn behind(mut self, first: Vec<u8>) -> Self {
        self.first = first;
        self
    }

    fn deaf(mut self) -> Self {
        self.deaf = true;
        self
    }

    /// A stream that no round has used.
    fn unused(&self) -> u32 {
        id(self.rounds + 10)
    }

    async fn runs_against(&self, client: &mut Frames) -> Option<Ending> {
        let mut pieces = vec![self.first.clone()];
        for number in 0..self.rounds {
            if pieces.last().is_none_or(|piece| piece.len() > 16 << 10) {
                pieces.push(Vec::new());
            }
            pieces.last_mut()?.extend((self.round)(number));
        }
        for piece in pieces {
            match client.push(&piece, self.deaf).await {
                Pushed::Taken => {}
                Pushed::Held => return Some(Held),
                Pushed::Ended => break,
            }
        }
        // Behind an end this goes nowhere.
        let _ = client.try_send(get(self.unused(), "/behind")).await;
        loop {
            let received = client.next().await?;
            match received.kind {
                GOAWAY if code(&received.payload) != 0 => return Some(GoAway(code(&received.payload))),
                DATA if received.stream == self.unused() && received.flags & END_STREAM != 0 => return Some(Served),
                _ => {}
            }
        }
    }
}

/// The stream of a round.
fn id(number: u32) -> u32 {
    number * 2 + 1
}

fn open(stream: u32, flags: u8, path: &str) -> Vec<u8> {
    let method = if flags & END_STREAM != 0 { "GET" } else { "POST" };
    let fields = [(":method", method), (":scheme", "http"), (":authority", "a"), (":path", path)];
    frame(HEADERS, END_HEADERS | flags, stream, &block(&fields))
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())
}

fn window(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

fn setting(number: u16, value: u32) -> Vec<u8> {
    [&number.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// A field of four kilobytes that goes into the decoder's table, and then is meant a thousand times by one byte each.
fn bomb(number: u32) -> Vec<u8> {
    let mut bytes = block(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")]);
    let (name, value) = ("x-bomb", "x".repeat(3900));
    bytes.push(0x40);
    bytes.push(name.len() as u8);
    bytes.extend(name.as_bytes());
    bytes.extend([127, ((value.len() - 127) % 128) as u8 | 128, ((value.len() - 127) / 128) as u8]);
    bytes.extend(value.as_bytes());
    // The newest entry of the table is 62.
    bytes.extend([0xbe; 1000]);
    frame(HEADERS, END_HEADERS | END_STREAM, id(number), &bytes)
}

/// Runs each flood against one process and asserts how it ends, what it costs, and that others are answered meanwhile.
async fn assert_harmless(floods: Vec<Flood>) {
    let a = upstream().named("a").start().await;
    let mut proxy = proxy(APP).with("a", &a).spawn().await;
    let web = proxy.address_of("web").await;
    let (other, pid) = (client(web), proxy.pid());
    for _ in 0..50 {
        assert_eq!(other.get("/").await.status, 200);
    }
    let mut ended = [("flood", 0.0), ("protocol", 0.0)];
    for flood in floods {
        let (before, logged) = (resident(pid), proxy.log().len());
        let mut attacker = http2_client(web).await;
        let runs = async {
            let end = soon(flood.name, flood.runs_against(&mut attacker)).await;
            (end, resident(pid).saturating_sub(before))
        };
        let mut runs = Box::pin(runs);
        let (mut answered, mut longest) = (0, Duration::ZERO);
        let began = Instant::now();
        let (end, grown) = loop {
            tokio::select! {
                done = runs.as_mut() => break done,
                (answer, took) = timed(other.get("/").attempt()) => {
                    assert_eq!(answer.expect("an answer").status, 200, "{}", flood.name);
                    answered += 1;
                    longest = longest.max(took);
                }
            }
            assert!(a.stats().in_flight() <= MOST_STREAMS + 1, "{}: {} at once", flood.name, a.stats().in_flight());
        };
        let span = began.elapsed();
        println!("{}: {end:?}, {grown} KiB, {answered} others answered in {span:?}, at most {longest:?}", flood.name);
        assert!(end.is_some_and(|end| flood.may_end.contains(&end)), "{}: {end:?}", flood.name);
        assert!(grown < MOST_KIB, "{}: {grown} KiB more", flood.name);
        drop(runs);
        drop(attacker);
        if let Some(GoAway(code)) = end {
            ended[usize::from(code != ENHANCE_YOUR_CALM)].1 += 1.0;
        }
        for (reason, count) in ended {
            let metric = format!("tidegate_listener_connections_closed_total{{listener=\"web\",reason=\"{reason}\"}}");
            until("it is counted by its reason", async || proxy.metric(&metric).await.filter(|now| *now == count))
                .await;
        }
        assert_eq!(other.get("/").await.status, 200, "{}", flood.name);
        until("nothing of it is left", async || {
            proxy.upstream("app", &a.address()).await.filter(|upstream| upstream.in_flight == 0)
        })
        .await;
        // Nobody may fill our disk by what he sends.
        let logged = proxy.log().len() - logged;
        assert!(logged < 16 << 10, "{}: {logged} bytes in the log", flood.name);
    }
    until("no connection is left", async || {
        proxy.metric("tidegate_listener_connections_open{listener=\"web\"}").await.filter(|open| *open <= 2.0)
    })
    .await;
    assert!(!proxy.log().contains("panic"), "{}", proxy.log());
    proxy.stop().await;
}

async fn timed<T>(future: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    (future.await, began.elapsed())
}

#[tokio::test]
async fn streams_that_are_begun_and_reset_are_bounded() {
    assert_harmless(vec![
        // CVE-2023-44487.
        flood(
            "rapid reset",
            20_000,
            |number| [open(id(number), END_STREAM, "/"), reset(id(number))].concat(),
            &[GoAway(ENHANCE_YOUR_CALM), Served],
        ),
        flood(
            "rapid reset of uploads",
            20_000,
            |number| [open(id(number), 0, "/upload"), frame(DATA, 0, id(number), b"x"), reset(id(number))].concat(),
            &[GoAway(ENHANCE_YOUR_CALM), Served],
        ),
        flood(
            "rapid reset, deaf",
            20_000,
            |number| [open(id(number), END_STREAM, "/"), reset(id(number))].concat(),
            &[GoAway(ENHANCE_YOUR_CALM), Served, Held],
        )
        .deaf(),
        // CVE-2025-8671: what makes the other side reset its stream, once it has begun to work on it.
        flood(
            "made to reset by a window of nothing",
            5_000,
            |number| [open(id(number), END_STREAM, "/hang"), window(id(number), 0)].concat(),
            &[GoAway(ENHANCE_YOUR_CALM), GoAway(PROTOCOL_ERROR), Served],
        ),
        flood(
            "made to reset by too large a window",
            5_000,
            |number| {
                [
                    open(id(number), END_STREAM, "/hang"),
                    window(id(number), 0x7fff_ffff),
                    window(id(number), 0x7fff_ffff),
                ]
                .concat()
            },
            &[GoAway(ENHANCE_YOUR_CALM), GoAway(FLOW_CONTROL_ERROR), Served],
        ),
        flood(
            "made to reset by data behind the end",
            5_000,
            |number| [open(id(number), END_STREAM, "/hang"), frame(DATA, 0, id(number), b"x")].concat(),
            &[GoAway(ENHANCE_YOUR_CALM), GoAway(PROTOCOL_ERROR), GoAway(STREAM_CLOSED), Served],
        ),
        flood(
            "made to reset by headers behind the end",
            5_000,
            |number| [open(id(number), END_STREAM, "/hang"), open(id(number), END_STREAM, "/hang")].concat(),
            &[GoAway(ENHANCE_YOUR_CALM), GoAway(STREAM_CLOSED), GoAway(PROTOCOL_ERROR), Served],
        ),
        flood(
            "made to reset by a priority of its own",
            5_000,
            |number| {
                [
                    open(id(number), END_STREAM, "/hang"),
                    frame(PRIORITY, 0, id(number), &[id(number).to_be_bytes().as_slice(), &[0]].concat()),
                ]
                .concat()
            },
            &[GoAway(ENHANCE_YOUR_CALM), GoAway(PROTOCOL_ERROR), Served],
        ),
        flood(
            "made to reset by a short priority",
            5_000,
            |number| [open(id(number), END_STREAM, "/hang"), frame(PRIORITY, 0, id(number), b"x")].concat(),
            &[GoAway(ENHANCE_YOUR_CALM), GoAway(PROTOCOL_ERROR), GoAway(FRAME_SIZE_ERROR), Served],
        ),
        flood(
            "malformed requests",
            5_000,
            |number| frame(HEADERS, END_HEADERS | END_STREAM, id(number), &block(&[("X", "y")])),
            &[GoAway(ENHANCE_YOUR_CALM), GoAway(PROTOCOL_ERROR), Served],
        ),
        flood(
            "more streams than are allowed",
            5_000,
            |number| open(id(number), END_STREAM, "/hang"),
            &[GoAway(ENHANCE_YOUR_CALM), GoAway(PROTOCOL_ERROR)],
        ),
        flood(
            "resets of streams that are over",
            20_000,
            |_| reset(1),
            &[GoAway(ENHANCE_YOUR_CALM), GoAway(STREAM_CLOSED), Served],
        )
        .behind([open(1, END_STREAM, "/"), reset(1)].concat()),
        flood("resets of streams that never were", 5_000, |number| reset(id(number)), &[GoAway(PROTOCOL_ERROR)]),
    ])
    .await;
}

#[tokio::test]
async fn heads_without_end_are_bounded() {
    const FEW: &[Ending] = &[GoAway(ENHANCE_YOUR_CALM), GoAway(PROTOCOL_ERROR), GoAway(COMPRESSION_ERROR)];
    let unended = || frame(HEADERS, END_STREAM, 1, &block(&[(":method", "GET"), (":scheme", "http"), (":path", "/")]));
    assert_harmless(vec![
        // CVE-2024-27316.
        flood("continuations of one field", 20_000, |_| frame(CONTINUATION, 0, 1, &block(&[("x", "y")])), FEW)
            .behind(unended()),
        flood("continuations of nothing", 50_000, |_| frame(CONTINUATION, 0, 1, b""), FEW).behind(unended()),
        flood("large continuations", 5_000, |_| frame(CONTINUATION, 0, 1, &block(&[("x", "y".repeat(16_000))])), FEW)
            .behind(unended()),
        flood(
            "one field over all continuations",
            5_000,
            |number| {
                frame(
                    CONTINUATION,
                    0,
                    1,
                    &if number == 0 {
                        [&[0, 1, b'x', 127, 0xff, 0xff, 0xff, 0x7f][..], &[b'y'; 16_000]].concat()
                    } else {
                        vec![b'y'; 16_000]
                    },
                )
            },
            FEW,
        )
        .behind(unended()),
        flood("a request amid a head", 100, |number| get(id(number + 1), "/"), &[GoAway(PROTOCOL_ERROR)])
            .behind(unended()),
        flood("HPACK bombs", 300, bomb, &[GoAway(ENHANCE_YOUR_CALM), Served]),
        flood(
            "a table without bound",
            10,
            |number| frame(HEADERS, END_HEADERS | END_STREAM, id(number), &[0x3f, 0xff, 0xff, 0xff, 0xff, 0x07]),
            &[GoAway(COMPRESSION_ERROR), GoAway(PROTOCOL_ERROR)],
        ),
        flood(
            "an index of nothing",
            10,
            |number| frame(HEADERS, END_HEADERS | END_STREAM, id(number), &[0x80]),
            &[GoAway(COMPRESSION_ERROR), GoAway(PROTOCOL_ERROR)],
        ),
        flood(
            "an index without end",
            10,
            |number| frame(HEADERS, END_HEADERS | END_STREAM, id(number), &[0xff; 64]),
            &[GoAway(COMPRESSION_ERROR), GoAway(PROTOCOL_ERROR)],
        ),
    ])
    .await;
}

#[tokio::test]
async fn frames_that_cost_their_sender_nothing_are_bounded() {
    let upload = || open(1, 0, "/upload");
    assert_harmless(vec![
        flood("settings", 50_000, |_| frame(SETTINGS, 0, 0, b""), &[GoAway(ENHANCE_YOUR_CALM), Served]),
        flood("settings, deaf", 200_000, |_| frame(SETTINGS, 0, 0, b""), &[GoAway(ENHANCE_YOUR_CALM), Served, Held])
            .deaf(),
        flood(
            "settings of many values",
            500,
            |_| frame(SETTINGS, 0, 0, &setting(4, 65_535).repeat(2700)),
            &[GoAway(ENHANCE_YOUR_CALM), Served],
        ),
        flood(
            "acknowledgements of nothing",
            20_000,
            |_| frame(SETTINGS, ACK, 0, b""),
            &[GoAway(ENHANCE_YOUR_CALM), GoAway(PROTOCOL_ERROR), Served],
        ),
        flood("pings", 50_000, |_| frame(PING, 0, 0, b"12345678"), &[GoAway(ENHANCE_YOUR_CALM), Served]),
        flood("pings, deaf", 300_000, |_| frame(PING, 0, 0, b"12345678"), &[GoAway(ENHANCE_YOUR_CALM), Served, Held])
            .deaf(),
        flood("pings back", 50_000, |_| frame(PING, ACK, 0, b"12345678"), &[GoAway(ENHANCE_YOUR_CALM), Served]),
        flood("empty data", 50_000, |_| frame(DATA, 0, 1, b""), &[GoAway(ENHANCE_YOUR_CALM), Served]).behind(upload()),
        flood(
            "data of padding",
            2_000,
            |_| frame(DATA, 8, 1, &[200; 201]),
            &[GoAway(ENHANCE_YOUR_CALM), GoAway(FLOW_CONTROL_ERROR), Served],
        )
        .behind(upload()),
        flood("data of one byte", 20_000, |_| frame(DATA, 0, 1, b"x"), &[GoAway(ENHANCE_YOUR_CALM), Served])
            .behind(upload()),
        flood("data for nobody", 5_000, |_| frame(DATA, 0, 9, b"x"), &[GoAway(PROTOCOL_ERROR), GoAway(STREAM_CLOSED)]),
        flood(
            "priorities",
            50_000,
            |number| frame(PRIORITY, 0, id(number), &[0, 0, 0, 0, 1]),
            &[GoAway(ENHANCE_YOUR_CALM), Served],
        ),
        flood("windows of one byte", 50_000, |_| window(0, 1), &[GoAway(ENHANCE_YOUR_CALM), Served]),
        flood("windows of nothing", 10, |_| window(0, 0), &[GoAway(PROTOCOL_ERROR)]),
        flood("windows past all bounds", 10, |_| window(0, 0x7fff_ffff), &[GoAway(FLOW_CONTROL_ERROR)]),
        flood("unknown frames", 20_000, |_| frame(0xfa, 0xff, 0, b"unknown"), &[GoAway(ENHANCE_YOUR_CALM), Served]),
        flood("too large frames", 10, |_| frame(DATA, 0, 1, &[0; 20_000]), &[GoAway(FRAME_SIZE_ERROR)])
            .behind(upload()),
        flood(
            "data past the window",
            1_000,
            |_| frame(DATA, 0, 1, &[0; 16_384]),
            &[GoAway(FLOW_CONTROL_ERROR), Served, GoAway(ENHANCE_YOUR_CALM)],
        )
        .behind(open(1, 0, "/hang")),
    ])
    .await;
}

#[tokio::test]
async fn who_takes_nothing_is_cut_and_its_answers_wait_in_little_room() {
    let a = upstream().named("a").start().await;
    let mut proxy = proxy(APP).with("a", &a).spawn().await;
    let web = proxy.address_of("web").await;
    assert_eq!(client(web).get("/bytes/1MiB").await.status, 200);
    let before = resident(proxy.pid());
    for stalled in [setting(4, 0), setting(4, 1)] {
        let mut attacker = http2_client(web).await;
        attacker.send(frame(SETTINGS, 0, 0, &stalled)).await;
        for number in 0..MOST_STREAMS as u32 {
            attacker.send(get(id(number), "/bytes/8MiB")).await;
        }
        eventually("all are at the upstream", || a.requests() % (MOST_STREAMS + 1) >= 1 && a.stats().in_flight() > 0)
            .await;
        let mut most = 0;
        until("all have been given up", async || {
            most = most.max(resident(proxy.pid()).saturating_sub(before));
            assert_eq!(client(web).get("/").await.status, 200);
            (a.stats().in_flight() == 0).then_some(())
        })
        .await;
        println!("{} streams that take nothing hold {most} KiB", MOST_STREAMS);
        assert!(most < MOST_KIB, "{most} KiB more");
        let ends = attacker.find(|received| matches!(received.kind, RST_STREAM | GOAWAY)).await;
        assert!(ends.is_some(), "it is told");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn streams_that_are_reset_once_they_are_at_work_leave_nothing_behind() {
    let a = upstream().named("a").start().await;
    let mut proxy = proxy(APP).with("a", &a).spawn().await;
    let web = proxy.address_of("web").await;
    assert_eq!(client(web).get("/").await.status, 200);
    let before = resident(proxy.pid());
    let streams = MOST_STREAMS as u32;
    // By the client's own word, and by what makes the proxy say it.
    let ends: [fn(u32) -> Vec<u8>; 2] = [reset, |stream| window(stream, 0x7fff_ffff)];
    for end in ends {
        let mut attacker = http2_client(web).await;
        for round in 0..10 {
            let ids = (0..streams).map(|number| id(round * streams + number));
            attacker.send(ids.clone().flat_map(|id| open(id, END_STREAM, "/hang")).collect::<Vec<u8>>()).await;
            eventually("all are at the upstream", || a.stats().in_flight() == MOST_STREAMS).await;
            attacker.send(ids.flat_map(end).collect::<Vec<u8>>()).await;
            eventually("none is left there", || a.stats().in_flight() == 0).await;
        }
        attacker.send(get(id(10_000), "/")).await;
        assert_eq!(attacker.outcome(id(10_000)).await, Some(Outcome::Answered(Status::Known(200))));
    }
    let upstream = proxy.upstream("app", &a.address()).await.unwrap();
    assert_eq!((upstream.state.word(), upstream.in_flight), ("ready", 0), "no client's doing is an upstream's fault");
    let grown = resident(proxy.pid()).saturating_sub(before);
    assert!(grown < MOST_KIB, "{grown} KiB more");
    proxy.stop().await;
}

#[tokio::test]
async fn a_connection_that_floods_is_counted_by_why_it_ended() {
    let a = upstream().named("a").start().await;
    let proxy = proxy(APP).with("a", &a).start().await;
    let mut attacker = http2_client(proxy.address("web")).await;
    let flood = flood("resets of nothing", 1, |number| reset(id(number)), &[]);
    assert_eq!(flood.runs_against(&mut attacker).await, Some(GoAway(PROTOCOL_ERROR)));
    drop(attacker);
    until("it is counted", async || {
        let closed = "tidegate_listener_connections_closed_total{listener=\"web\",reason=\"protocol\"}";
        proxy.metric(closed).await.filter(|count| *count == 1.0)
    })
    .await;
}
