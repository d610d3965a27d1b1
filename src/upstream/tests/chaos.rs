//! Upstreams that do anything at all: every request ends, and no answer goes to another's request.

use super::*;

#[tokio::test(flavor = "local")]
async fn any_bytes_at_all_end_a_request() {
    const ANSWERS: [&str; 4] = [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n3;a=b\r\nyes\r\n0\r\nX-T: u\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 404 Not Found\r\nConnection: close\r\n\r\nnothing",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    ];
    const SPICE: &[u8] = b"\r\n\t :;,0159aF\0\xff";
    let mut random = fastrand::Rng::with_seed(7);
    let mut answers = move || {
        let mut bytes = ANSWERS[random.usize(..ANSWERS.len())].as_bytes().to_vec();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            match random.u8(..4) {
                0 => bytes[at] = SPICE[random.usize(..SPICE.len())],
                1 => bytes.insert(at, SPICE[random.usize(..SPICE.len())]),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at + 1),
            }
        }
        bytes
    };
    let target = upstream(move |mut stream, _| {
        let bytes = answers();
        async move {
            head(&mut stream).await;
            let _ = stream.write_all(&bytes).await;
        }
    })
    .await;
    let side = side();
    for number in 0..500 {
        let ask = if number % 2 == 0 { get("/") } else { get("/").method(Method::HEAD) };
        let asked = async { outcome_of_bytes(ask.over(&side, &target).await).await };
        tokio::time::timeout(Duration::from_secs(2), asked).await.expect("it ends");
    }
}

async fn outcome_of_bytes(result: Result<Answer<Sent>, SendError>) {
    if let Ok(answer) = result {
        let _ = answer.response.into_body().collect().await;
    }
}

#[tokio::test(flavor = "local")]
async fn no_answer_goes_to_another_request() {
    let target = upstream(|mut stream, number| async move {
        let mut random = fastrand::Rng::with_seed(number as u64);
        while let Some(head) = head(&mut stream).await {
            let path = head.split(' ').nth(1).unwrap_or_default();
            let length = path.len();
            let answer = match random.u8(..8) {
                0 => format!("HTTP/1.1 200 OK\r\n\r\n{path}"),
                1 => format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{path}"),
                2 => format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{path}HTTP/1.1 200 OK\r\n"),
                3 | 4 => {
                    format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{path}\r\n0\r\n\r\n")
                }
                _ => format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{path}"),
            };
            let cut = if random.u8(..10) == 0 { random.usize(..answer.len()) } else { answer.len() };
            let closes = !answer.contains("\r\nTransfer") && !answer.contains("\r\nContent");
            let written = stream.write_all(&answer.as_bytes()[..cut]).await;
            if written.is_err() || cut < answer.len() || closes || random.u8(..10) == 0 {
                return;
            }
        }
    })
    .await;
    let side = Rc::new(side());
    let paths: Vec<&'static str> =
        (0..32).map(|number| &*Box::leak(format!("/{number:032}").into_boxed_str())).collect();
    let clients = paths.into_iter().map(|path| {
        let (side, target) = (side.clone(), target.clone());
        tokio::task::spawn_local(async move {
            let mut good = 0;
            for _ in 0..50 {
                // A body that was delimited by the connection's end may be cut without anybody knowing.
                match outcome(get(path).over(&side, &target).await).await {
                    Ok((_, body)) if body == path => good += 1,
                    Ok((_, body)) => assert!(path.starts_with(&body), "{body:?} is not for {path:?}"),
                    Err(_) => {}
                }
            }
            good
        })
    });
    let good: usize = futures_util::future::join_all(clients).await.into_iter().map(Result::unwrap).sum();
    assert!(good > 1000, "{good}");
}
