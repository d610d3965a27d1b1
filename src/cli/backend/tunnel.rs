//! Upgrades: WebSocket echo (RFC 6455), and byte echo for every other protocol name.

use std::io;
use std::sync::Arc;

use http::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Shared;
use super::answer::status;
use super::body::{Reply, Running, full};

const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
/// A longer frame is an error; an echo needs to hold one whole.
const MAX_FRAME: u64 = 16 << 20;

/// Answers 101 and echoes until either side ends the tunnel.
pub(super) fn open(mut request: Request<Incoming>, mut running: Running, shared: Arc<Shared>) -> Response<Reply> {
    let Some(protocol) = request.headers().get(UPGRADE).cloned() else {
        running.finish();
        return status(StatusCode::BAD_REQUEST, "no Upgrade\n".to_owned());
    };
    let websocket = protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, protocol);
    if websocket {
        let Some(accept) = request.headers().get(KEY).and_then(|key| accept_key(key.as_bytes()).parse().ok()) else {
            running.finish();
            return status(StatusCode::BAD_REQUEST, "no Sec-WebSocket-Key\n".to_owned());
        };
        response.headers_mut().insert(ACCEPT, accept);
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        tokio::select! {
            // However the tunnel ends, its end is the other side's to judge.
            _ = run(upgrade, websocket) => running.finish(),
            () = shared.killed() => {}
        }
    });
    response
}

async fn run(upgrade: OnUpgrade, websocket: bool) -> io::Result<()> {
    let mut stream = TokioIo::new(upgrade.await.map_err(io::Error::other)?);
    if websocket {
        return echo_frames(&mut stream).await;
    }
    let mut buffer = vec![0; 16 << 10];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return stream.shutdown().await,
            length => stream.write_all(&buffer[..length]).await?,
        }
    }
}

/// Sends every data frame back as it came but unmasked, answers pings and the close.
async fn echo_frames(stream: &mut TokioIo<Upgraded>) -> io::Result<()> {
    const CLOSE: u8 = 8;
    const PING: u8 = 9;
    const PONG: u8 = 10;
    loop {
        let (first, payload) = read_frame(stream).await?;
        match first & 0x0f {
            PONG => {}
            PING => write_frame(stream, first & 0xf0 | PONG, &payload).await?,
            CLOSE => {
                write_frame(stream, first, &payload).await?;
                return stream.shutdown().await;
            }
            _ => write_frame(stream, first, &payload).await?,
        }
    }
}

async fn read_frame(stream: &mut TokioIo<Upgraded>) -> io::Result<(u8, Vec<u8>)> {
    let first = stream.read_u8().await?;
    let second = stream.read_u8().await?;
    let length = match second & 0x7f {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        short => u64::from(short),
    };
    // Clients must mask (RFC 6455 §5.1).
    if second & 0x80 == 0 || length > MAX_FRAME {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut mask = [0; 4];
    stream.read_exact(&mut mask).await?;
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Ok((first, payload))
}

async fn write_frame(stream: &mut TokioIo<Upgraded>, first: u8, payload: &[u8]) -> io::Result<()> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    frame.push(first);
    match payload.len() {
        length @ 0..126 => frame.push(length as u8),
        length @ 126..65536 => {
            frame.push(126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    stream.write_all(&frame).await
}

/// The handshake's answer to a key (RFC 6455 §4.2.2).
fn accept_key(key: &[u8]) -> String {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key);
    digest.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    base64(digest.finish().as_ref())
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= group.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_is_that_of_the_rfc() {
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn base64_pads() {
        assert_eq!([base64(b""), base64(b"f"), base64(b"fo"), base64(b"foo")], ["", "Zg==", "Zm8=", "Zm9v"]);
    }
}
