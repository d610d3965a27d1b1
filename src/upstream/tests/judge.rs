//! hyper's client judges ours: both read the same answers, in the same pieces. Ours is stricter; what it takes, it reads as hyper does.

use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::*;
use crate::judge::{Answered, content, fields};
use crate::upstream::http1::{Outcome, agree};

async fn seen<B>(response: http::Response<B>) -> Answered
where
    B: Body<Data = Bytes> + Unpin,
{
    let (head, body) = response.into_parts();
    Answered { status: head.status.as_u16(), headers: fields(&head.headers), body: content(body).await }
}

/// Says `answer` in two pieces once it has been asked, and closes.
async fn say(mut stream: UnixStream, answer: &[u8], cut: usize) {
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") && stream.read_buf(&mut asked).await.is_ok_and(|read| read > 0) {}
    let _ = stream.write_all(&answer[..cut]).await;
    // Long enough that the first piece is read by itself.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let _ = stream.write_all(&answer[cut..]).await;
    let _ = stream.shutdown().await;
    let _ = stream.read_to_end(&mut asked).await;
}

async fn ours(method: &Method, answer: &[u8], cut: usize) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let settings = Settings::of(&Pool::default(), None);
    let target = Arc::new(Target::new("pool", "s", Place::Unix(path.into()), "localhost", &settings).unwrap());
    let side = side();
    let told = async { say(listener.accept().await.unwrap().0, answer, cut).await };
    let asked = async {
        let answer = get("/").method(method.clone()).over(&side, &target).await.map_err(|error| match error.kind {
            SendErrorKind::BadResponse(bad) => Some(bad),
            _ => None,
        })?;
        let seen = seen(answer.response).await;
        side.connections.retain(|_| false);
        Ok(seen)
    };
    tokio::join!(asked, told).0
}

async fn hypers(method: &Method, answer: &[u8], cut: usize) -> Result<Answered, hyper::Error> {
    let (near, far) = UnixStream::pair().unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await?;
    let driver = tokio::task::spawn_local(connection);
    let request = http::Request::builder().method(method.clone()).uri("/").header("host", "shop.test");
    let asked = async {
        let seen = seen(sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await?).await;
        drop(sender);
        Ok(seen)
    };
    let seen = tokio::join!(asked, say(far, answer, cut)).0;
    driver.abort();
    seen
}

/// Both read `answer`, cut there.
async fn compare(method: Method, answer: Vec<u8>, cut: usize) {
    let (ours, hypers) = tokio::join!(ours(&method, &answer, cut), hypers(&method, &answer, cut));
    let (hypers, text) = (hypers.ok(), String::from_utf8_lossy(&answer));
    assert!(agree(&answer, &ours, hypers.as_ref()), "{method} {text:?} cut at {cut}: {ours:?} {hypers:?}");
}

const ANSWERS: [&str; 16] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\nx-a: c\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 404 Not Found\r\nX: \t a b \r\nEmpty:\r\nContent-Length: 3\r\n\r\nno!more",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n3;a=b\r\nyes\r\n0\r\nX-T: u\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.0 200\r\n\r\nrest",
    "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nnothing said of its length",
    "HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\n",
    "HTTP/1.1 299 Fine, so to speak\r\nContent-Length: 10\r\n\r\nshort",
    "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nA: é\r\nContent-Length: 2\r\n\r\nok",
];

/// Compares them all, some at a time.
async fn compare_all(cases: Vec<(Method, Vec<u8>, usize)>) {
    for some in cases.chunks(64) {
        let compared = some.iter().map(|(method, answer, cut)| compare(method.clone(), answer.clone(), *cut));
        futures_util::future::join_all(compared).await;
    }
}

#[tokio::test(flavor = "local")]
async fn answers_cut_at_every_byte_are_read_as_hyper_reads_them() {
    let cuts = |answer: &'static str| (0..=answer.len()).map(move |cut| (answer.as_bytes().to_vec(), cut));
    let all = ANSWERS.into_iter().flat_map(cuts);
    compare_all(all.map(|(answer, cut)| (Method::GET, answer, cut)).collect()).await;
    let heads = ANSWERS.into_iter().map(|answer| (Method::HEAD, answer.as_bytes().to_vec(), 9));
    compare_all(heads.collect()).await;
}

#[tokio::test(flavor = "local")]
async fn spoilt_answers_are_read_as_hyper_reads_them_or_refused() {
    const SPICE: &[u8] = b"\r\n\t :;,0159aF\0\xff";
    let mut random = fastrand::Rng::with_seed(11);
    let mut spoilt = || {
        let mut bytes = ANSWERS[random.usize(..ANSWERS.len())].as_bytes().to_vec();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            match random.u8(..3) {
                0 => bytes[at] = SPICE[random.usize(..SPICE.len())],
                1 => bytes.insert(at, SPICE[random.usize(..SPICE.len())]),
                _ => drop(bytes.remove(at)),
            }
        }
        let cut = random.usize(..bytes.len());
        (Method::GET, bytes, cut)
    };
    compare_all((0..1500).map(|_| spoilt()).collect()).await;
}
