use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::support::Addressed;

/// An upstream that answers each request with `ok`, remembers every byte, and reads nothing that has a second meaning.
pub(crate) struct Recorder {
    address: SocketAddr,
    connections: Connections,
    accepting: JoinHandle<()>,
}

type Connections = Arc<Mutex<Vec<Vec<u8>>>>;

/// A request as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

/// Everything that came in.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) requests: Vec<Request>,
    /// Requests that were begun and never ended.
    pub(crate) begun: Vec<String>,
    /// What no sender may send.
    pub(crate) wrong: Vec<String>,
}

impl Recorder {
    pub(crate) async fn start() -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let connections = Connections::default();
        let accepting = tokio::spawn(accept(listener, connections.clone()));
        Recorder { address, connections, accepting }
    }

    pub(crate) fn record(&self) -> Record {
        let mut record = Record::default();
        for bytes in self.connections.lock().unwrap().iter() {
            let mut rest = &bytes[..];
            loop {
                match read(rest) {
                    Ok(Some((request, length))) => {
                        record.requests.push(request);
                        rest = &rest[length..];
                    }
                    Ok(None) if rest.is_empty() => break,
                    Ok(None) => {
                        record.begun.push(String::from_utf8_lossy(rest).into_owned());
                        break;
                    }
                    Err(why) => {
                        record.wrong.push(format!("{why} in {:?}", String::from_utf8_lossy(rest)));
                        break;
                    }
                }
            }
        }
        record
    }
}

impl Addressed for Recorder {
    fn address_text(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Request {
    /// The values of a header, whatever its spelling.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        let lines = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        lines.map(|(_, value)| value.as_str()).collect()
    }

    /// The names of its headers, in small letters.
    pub(crate) fn names(&self) -> Vec<String> {
        self.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect()
    }
}

async fn accept(listener: TcpListener, connections: Connections) {
    let mut running = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let number = {
            let mut all = connections.lock().unwrap();
            all.push(Vec::new());
            all.len() - 1
        };
        running.spawn(converse(stream, number, connections.clone()));
    }
}

/// Answers until the other side closes, or says what cannot be read.
async fn converse(mut stream: TcpStream, number: usize, connections: Connections) -> Option<()> {
    let mut consumed = 0;
    loop {
        let mut piece = [0; 16 << 10];
        let length = stream.read(&mut piece).await.ok().filter(|length| *length > 0)?;
        let mut answers = Vec::new();
        {
            let mut all = connections.lock().unwrap();
            all[number].extend_from_slice(&piece[..length]);
            while let Some((request, length)) = read(&all[number][consumed..]).ok()? {
                consumed += length;
                answers.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
                answers.extend_from_slice(if request.line.starts_with("HEAD ") { b"" } else { b"ok" });
            }
        }
        stream.write_all(&answers).await.ok()?;
    }
}

/// The request that these bytes begin with, and its length; nothing while more of it is to come.
///
/// **Errors**: whatever RFC 9112 does not let a sender say, or lets two readers understand differently.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<(Request, usize)>, String> {
    let Some((lines, mut at)) = section(bytes)? else { return Ok(None) };
    let (line, headers) = lines.split_first().ok_or("an empty line before a request")?;
    let parts: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else { return Err(format!("a request line {line:?}")) };
    if !is_token(method) || !target.starts_with('/') {
        return Err(format!("a request line {line:?}"));
    }
    let headers = fields(headers)?;
    let mut request = Request { line: line.clone(), headers, body: Vec::new(), trailers: Vec::new() };
    if request.values("host").len() != 1 {
        return Err(format!("{} hosts", request.values("host").len()));
    }
    match (&request.values("content-length")[..], &request.values("transfer-encoding")[..]) {
        ([], []) => {}
        ([length], []) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
            let length: usize = length.parse().map_err(|_| format!("a length of {length}"))?;
            let Some(body) = bytes[at..].get(..length) else { return Ok(None) };
            request.body = body.to_vec();
            at += length;
        }
        ([], ["chunked"]) => {
            let Some(length) = chunks(&bytes[at..], &mut request)? else { return Ok(None) };
            at += length;
        }
        framing => return Err(format!("a framing of {framing:?}")),
    }
    Ok(Some((request, at)))
}

/// Lines up to an empty one, and the length of it all.
fn section(bytes: &[u8]) -> Result<Option<(Vec<String>, usize)>, String> {
    let (mut lines, mut at) = (Vec::new(), 0);
    loop {
        let Some((line, length)) = line(&bytes[at..])? else { return Ok(None) };
        at += length;
        if line.is_empty() {
            return Ok(Some((lines, at)));
        }
        lines.push(line);
    }
}

/// A line without its end, and its length with it.
fn line(bytes: &[u8]) -> Result<Option<(String, usize)>, String> {
    let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else { return Ok(None) };
    let line = &bytes[..end];
    match &bytes[end..] {
        [b'\r', b'\n', ..] => {}
        [b'\r'] => return Ok(None),
        _ => return Err(format!("a bare line end behind {:?}", String::from_utf8_lossy(line))),
    }
    if line.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
        return Err(format!("control bytes in {:?}", String::from_utf8_lossy(line)));
    }
    Ok(Some((String::from_utf8_lossy(line).into_owned(), end + 2)))
}

fn fields(lines: &[String]) -> Result<Vec<(String, String)>, String> {
    let field = |line: &String| {
        let (name, value) = line.split_once(':').filter(|(name, _)| is_token(name))?;
        Some((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
    };
    lines.iter().map(|line| field(line).ok_or(format!("a header {line:?}"))).collect()
}

fn is_token(text: &str) -> bool {
    let may_be = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(may_be)
}

/// The length of a chunked body, once it is there.
fn chunks(bytes: &[u8], request: &mut Request) -> Result<Option<usize>, String> {
    let mut at = 0;
    loop {
        let Some((size, length)) = line(&bytes[at..])? else { return Ok(None) };
        at += length;
        if size.is_empty() || size.len() > 15 || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("a chunk of the size {size:?}"));
        }
        let size = usize::from_str_radix(&size, 16).map_err(|error| error.to_string())?;
        if size == 0 {
            let Some((lines, length)) = section(&bytes[at..])? else { return Ok(None) };
            request.trailers = fields(&lines)?;
            return Ok(Some(at + length));
        }
        let Some(chunk) = bytes[at..].get(..size + 2) else { return Ok(None) };
        let (data, end) = chunk.split_at(size);
        if end != b"\r\n" {
            return Err(format!("a chunk that ends in {end:?}"));
        }
        request.body.extend_from_slice(data);
        at += size + 2;
    }
}
