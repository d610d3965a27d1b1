use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use http_body_util::Full;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::arguments::{BenchArguments, LONGEST};
use super::schedule::Schedule;
use crate::cli::Failure;
use crate::config::model::{Protocol, UpstreamTls};
use crate::types::format_duration;
use crate::upstream::ClientTls;

/// How long a load lasts unless told.
const USUAL: Duration = Duration::from_secs(10);
/// The largest body that is sent.
const LARGEST_BODY: u64 = 64 << 20;
/// Requests in progress at once: each takes a few kilobytes.
const MOST_AT_ONCE: u32 = 100_000;

/// What is to be done, checked; the same for all threads.
pub(super) struct Plan {
    pub(super) url: String,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    pub(super) http2: bool,
    pub(super) request: Request<Full<Bytes>>,
    pub(super) connections: u32,
    pub(super) streams: u32,
    pub(super) threads: u32,
    /// Requests a second, in an open loop.
    pub(super) rate: Option<f64>,
    /// No more are sent after so long.
    pub(super) duration: Duration,
    /// No more are sent than so many.
    pub(super) requests: Option<u64>,
    pub(super) timeout: Duration,
}

impl Plan {
    /// **Errors**: arguments that cannot be meant, a file that cannot be read, a name that nobody knows.
    pub(super) fn of(arguments: &BenchArguments) -> Result<Plan, Failure> {
        let target = Target::read(&arguments.url)?;
        let request = request(arguments, &target)?;
        let at_once = arguments.connections * arguments.streams;
        if at_once > MOST_AT_ONCE {
            return Err(Failure::Usage(format!("{at_once} requests at once: expected at most {MOST_AT_ONCE}")));
        }
        let duration = length(arguments)?;
        let requests = match arguments.rate {
            Some(rate) => Some(Schedule::total(rate, duration).min(arguments.requests.unwrap_or(u64::MAX))),
            None => arguments.requests,
        };
        Ok(Plan {
            url: arguments.url.clone(),
            tls: tls(arguments, &target)?,
            addresses: target.resolve()?,
            http2: arguments.http2,
            request,
            connections: arguments.connections,
            streams: arguments.streams,
            // A thread without a connection has nothing to do.
            threads: arguments.threads.min(arguments.connections),
            rate: arguments.rate,
            duration,
            requests,
            timeout: arguments.timeout,
        })
    }

    /// The connections of a thread: as many as any other's, or one more.
    pub(super) fn connections_of(&self, thread: u32) -> u32 {
        (self.connections - thread).div_ceil(self.threads)
    }

    /// The open loop's schedule for a thread.
    pub(super) fn schedule(&self, thread: u32) -> Option<Schedule> {
        let total = self.requests.unwrap_or(u64::MAX);
        self.rate.map(|rate| Schedule::new(rate, total, thread.into(), self.threads.into()))
    }
}

/// A URL's parts.
struct Target {
    secure: bool,
    authority: Authority,
    path: PathAndQuery,
}

impl Target {
    fn read(url: &str) -> Result<Target, Failure> {
        let wrong = || Failure::Usage(format!("{url}: expected a URL such as http://127.0.0.1:8080/path"));
        let uri: Uri = url.split('#').next().unwrap_or_default().parse().map_err(|_| wrong())?;
        let parts = uri.into_parts();
        let secure = match parts.scheme.as_ref().map(Scheme::as_str) {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        let authority = parts.authority.filter(|authority| !authority.host().is_empty()).ok_or_else(wrong)?;
        if authority.as_str().contains('@') {
            return Err(Failure::Usage(format!("{url}: expected no user; give --header \"Authorization: …\"")));
        }
        let path = parts.path_and_query.unwrap_or(PathAndQuery::from_static("/"));
        Ok(Target { secure, authority, path })
    }

    fn resolve(&self) -> Result<Vec<SocketAddr>, Failure> {
        let port = self.authority.port_u16().unwrap_or(if self.secure { 443 } else { 80 });
        let host = self.authority.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found = (bare, port).to_socket_addrs().with_context(|| format!("cannot resolve {host}"))?;
        Ok(found.collect())
    }
}

/// How long the load lasts at most.
fn length(arguments: &BenchArguments) -> Result<Duration, Failure> {
    let needed = arguments.requests.zip(arguments.rate).map(|(requests, rate)| requests as f64 / rate);
    match (arguments.duration, arguments.requests) {
        (Some(duration), _) => Ok(duration),
        (None, Some(requests)) if needed.is_some_and(|seconds| seconds > LONGEST.as_secs_f64()) => {
            let longest = format_duration(LONGEST);
            Err(Failure::Usage(format!(
                "{requests} requests at this rate take longer than {longest}: give a --duration"
            )))
        }
        (None, Some(_)) => Ok(LONGEST),
        (None, None) => Ok(USUAL),
    }
}

fn tls(
    arguments: &BenchArguments,
    target: &Target,
) -> Result<Option<(Arc<ClientConfig>, ServerName<'static>)>, Failure> {
    if !target.secure {
        return Ok(None);
    }
    let settings = UpstreamTls { verify: !arguments.insecure, ..UpstreamTls::default() };
    let protocol = if arguments.http2 { Protocol::Http2 } else { Protocol::Http1 };
    let client = ClientTls::build(&settings, protocol, |path| std::fs::read(path))?;
    let name = client.server_name(target.authority.host()).map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(Some((client.config().clone(), name)))
}

/// The request that is sent again and again.
fn request(arguments: &BenchArguments, target: &Target) -> Result<Request<Full<Bytes>>, Failure> {
    let body = arguments.body.as_deref().map(body).transpose()?;
    let usual = if body.is_some() { Method::POST } else { Method::GET };
    let mut headers = headers(&arguments.headers)?;
    // A Host of one's own is for virtual hosts; the connection goes to the URL's.
    let host = match headers.remove(HOST) {
        Some(host) => host,
        None => HeaderValue::from_str(target.authority.as_str())?,
    };
    let mut request = Request::new(Full::new(body.unwrap_or_default()));
    *request.method_mut() = arguments.method.clone().unwrap_or(usual);
    if arguments.http2 {
        *request.version_mut() = Version::HTTP_2;
        let scheme = if target.secure { "https" } else { "http" };
        let wrong = || Failure::Usage(format!("--header \"Host: {}\": expected a host", host.to_str().unwrap_or("…")));
        let uri = Uri::builder().scheme(scheme).authority(host.as_bytes()).path_and_query(target.path.clone());
        *request.uri_mut() = uri.build().map_err(|_| wrong())?;
    } else {
        headers.insert(HOST, host);
        *request.uri_mut() = target.path.clone().into();
    }
    if !headers.contains_key(USER_AGENT) {
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("tidegate/", env!("CARGO_PKG_VERSION"))));
    }
    *request.headers_mut() = headers;
    Ok(request)
}

fn headers(lines: &[String]) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let wrong = || Failure::Usage(format!("--header {line:?}: expected \"Name: value\""));
        let (name, value) = line.split_once(':').ok_or_else(wrong)?;
        let name: HeaderName = name.trim().parse().map_err(|_| wrong())?;
        if name == CONTENT_LENGTH || name == TRANSFER_ENCODING {
            return Err(Failure::Usage(format!("--header {line:?}: --body decides how a request is framed")));
        }
        headers.append(name, HeaderValue::from_str(value.trim()).map_err(|_| wrong())?);
    }
    Ok(headers)
}

fn body(text: &str) -> Result<Bytes, Failure> {
    let Some(file) = text.strip_prefix('@') else {
        return Ok(Bytes::copy_from_slice(text.as_bytes()));
    };
    let read = || -> std::io::Result<Vec<u8>> {
        use std::io::Read;
        let mut bytes = Vec::new();
        std::fs::File::open(file)?.take(LARGEST_BODY + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| Failure::Usage(format!("--body {text}: cannot read {file}: {error}")))?;
    if bytes.len() as u64 > LARGEST_BODY {
        return Err(Failure::Usage(format!("--body {text}: expected at most 64MiB")));
    }
    Ok(bytes.into())
}

#[cfg(test)]
impl Plan {
    /// A plan that nobody carries out.
    pub(super) fn example(rate: Option<f64>) -> Plan {
        Plan {
            url: "http://127.0.0.1/".to_owned(),
            addresses: Vec::new(),
            tls: None,
            http2: false,
            request: Request::default(),
            connections: 1,
            streams: 1,
            threads: 1,
            rate,
            duration: USUAL,
            requests: None,
            timeout: USUAL,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        bench: BenchArguments,
    }

    fn plan(arguments: &[&str]) -> Result<Plan, String> {
        let line = Line::try_parse_from([&["bench"], arguments].concat()).map_err(|error| error.to_string())?;
        Plan::of(&line.bench).map_err(|failure| match failure {
            Failure::Usage(text) | Failure::Configuration(text) => text,
            Failure::Failed(error) => format!("{error:#}"),
        })
    }

    #[test]
    fn a_request_is_made_from_the_url_and_the_arguments() {
        let plan =
            plan(&["http://127.0.0.1:81/a?b=c#d", "-H", "X-One: 1", "-H", "host: app.test", "--body", "abc"]).unwrap();
        assert_eq!(plan.addresses, ["127.0.0.1:81".parse().unwrap()]);
        assert_eq!((plan.request.method(), plan.request.uri().to_string()), (&Method::POST, "/a?b=c".to_owned()));
        let header = |name: &str| plan.request.headers()[name].to_str().unwrap();
        assert_eq!((header("x-one"), header("host")), ("1", "app.test"));
        assert_eq!((plan.duration, plan.requests, plan.rate), (USUAL, None, None));
        let plan = self::plan(&["https://[::1]", "--http2", "--insecure", "-X", "PUT", "-H", "Host: a.test"]).unwrap();
        assert_eq!(plan.addresses, ["[::1]:443".parse().unwrap()]);
        assert_eq!(
            (plan.request.method().as_str(), plan.request.uri().to_string()),
            ("PUT", "https://a.test/".to_owned())
        );
        assert!(plan.tls.is_some() && !plan.request.headers().contains_key("host"));
    }

    #[test]
    fn a_load_always_has_an_end() {
        let of = |arguments: &[&str]| {
            let plan = plan(&[&["http://127.0.0.1"], arguments].concat()).unwrap();
            (plan.duration, plan.requests)
        };
        let seconds = Duration::from_secs;
        assert_eq!(of(&["--requests", "7"]), (LONGEST, Some(7)));
        assert_eq!(of(&["--requests", "7", "--duration", "2s"]), (seconds(2), Some(7)));
        assert_eq!(of(&["--rate", "50"]), (seconds(10), Some(500)));
        assert_eq!(of(&["--rate", "50", "--requests", "7"]), (LONGEST, Some(7)));
        assert_eq!(of(&["--rate", "50", "--requests", "700", "--duration", "2s"]), (seconds(2), Some(100)));
    }

    #[test]
    fn connections_are_spread_evenly() {
        let plan = plan(&["http://127.0.0.1", "--connections", "10", "--threads", "4"]).unwrap();
        assert_eq!([0, 1, 2, 3].map(|thread| plan.connections_of(thread)), [3, 3, 2, 2]);
        let few = self::plan(&["http://127.0.0.1", "--connections", "2", "--threads", "4"]).unwrap();
        assert_eq!((few.threads, few.connections_of(0), few.connections_of(1)), (2, 1, 1));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (arguments, words) in [
            (&["127.0.0.1:80"][..], "expected a URL"),
            (&["ftp://127.0.0.1"], "expected a URL"),
            (&["http:///x"], "expected a URL"),
            (&["http://me:secret@127.0.0.1"], "Authorization"),
            (&["http://127.0.0.1", "-H", "x"], "\"Name: value\""),
            (&["http://127.0.0.1", "-H", "Content-Length: 5"], "--body decides"),
            (&["http://127.0.0.1", "--body", "@/nonexistent"], "/nonexistent"),
            (&["http://127.0.0.1", "--body", "@/dev/zero"], "64MiB"),
            (&["http://127.0.0.1", "--rate", "1", "-n", "3601"], "longer than 1h"),
            (&["http://127.0.0.1", "--streams", "2"], "--http2"),
            (&["http://127.0.0.1", "--http2", "--streams", "1000", "--connections", "101"], "at most 100000"),
            (&["http://127.0.0.1", "--duration", "61m"], "1ms to 1h"),
        ] {
            let Err(text) = plan(arguments) else { panic!("{arguments:?} is taken") };
            assert!(text.contains(words), "{arguments:?}: {text}");
        }
    }
}
