//! Streamable HTTP: what is answered to POST, GET and DELETE.

use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::answer::Body;
use super::batch;
use super::call::{Call, Exchange};
use super::message::{
    self, HEADER_MISMATCH, INTERNAL_ERROR, INVALID_REQUEST, Kind, LEGACY, MODERN, Message, NO_SESSION,
    UNSUPPORTED_VERSION,
};
use super::queue::Queue;
use super::room::Room;
use super::server::{Key, Server, Unready};
use super::session::{Held, Session};
use super::settings::Share;

const SESSION: &str = "mcp-session-id";
const VERSION: &str = "mcp-protocol-version";

/// An answer of our own instead of the server's.
pub(super) type Refusal = Box<Response<Body>>;

/// Answers a request.
pub(super) async fn serve<B>(room: Rc<Room>, request: Request<B>) -> Result<Response<Body>, Infallible>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let head = Head::of(&room, request.headers());
    let answered = match *request.method() {
        Method::POST => head.post(request.into_body()).await,
        Method::GET if !head.is_modern() => head.get(),
        Method::DELETE if !head.is_modern() => head.delete(),
        _ => {
            let mut refusal = refused(StatusCode::METHOD_NOT_ALLOWED, "null", INVALID_REQUEST, "use POST");
            let methods = if head.is_modern() { "POST" } else { "POST, GET, DELETE" };
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
            Err(refusal)
        }
    };
    Ok(answered.unwrap_or_else(|refusal| *refusal))
}

/// What the head of a request says.
pub(super) struct Head {
    room: Rc<Room>,
    principal: String,
    session: Option<String>,
    pub(super) version: Option<String>,
    method: Option<String>,
    json: bool,
    events: bool,
}

impl Head {
    fn of(room: &Rc<Room>, headers: &HeaderMap) -> Head {
        let text = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        Head {
            principal: text(&room.settings().principal_header).unwrap_or_default(),
            room: room.clone(),
            session: text(SESSION),
            version: text(VERSION),
            method: text("mcp-method"),
            json: accepts(headers, "application/json"),
            events: accepts(headers, "text/event-stream"),
        }
    }

    fn is_modern(&self) -> bool {
        self.version.as_deref() == Some(MODERN)
    }

    async fn post<B>(self, body: B) -> Result<Response<Body>, Refusal>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if !self.json && !self.events {
            let what = "accept application/json, text/event-stream, or best both";
            return Err(refused(StatusCode::NOT_ACCEPTABLE, "null", INVALID_REQUEST, what));
        }
        let text = read(body, self.room.settings().max_body).await?;
        if !self.is_modern()
            && let Some(members) = batch::members(&text)
        {
            let members = members.map_err(|fault| refused(StatusCode::BAD_REQUEST, "null", fault.code, &fault.what))?;
            return self.batch(members).await;
        }
        let message =
            Message::parse(text).map_err(|fault| refused(StatusCode::BAD_REQUEST, "null", fault.code, &fault.what))?;
        if self.is_modern() {
            return self.modern(message).await;
        }
        if let Some(version) = self.version.as_deref().filter(|version| !LEGACY.contains(version)) {
            return Err(unsupported(&message, version));
        }
        if message.kind == Kind::Request && message.method == "initialize" {
            return self.initialize(&message).await;
        }
        let session = self.session(&message)?;
        let held = session.hold();
        match message.kind {
            Kind::Request => self.call(message, held).await,
            Kind::Notification => Ok(notified(&session, &message)),
            Kind::Response => Ok(responded(&session, &message)),
        }
    }

    /// The session that the request names.
    fn session(&self, message: &Message) -> Result<Rc<Session>, Refusal> {
        let id = if message.kind == Kind::Request { message.id() } else { "null" };
        self.named_session(id)
    }

    pub(super) fn named_session(&self, id: &str) -> Result<Rc<Session>, Refusal> {
        let Some(session) = &self.session else {
            let what = "the request names no session (Mcp-Session-Id); begin with initialize";
            return Err(refused(StatusCode::BAD_REQUEST, id, INVALID_REQUEST, what));
        };
        let found = self.room.session(session, &self.principal);
        found.ok_or_else(|| refused(StatusCode::NOT_FOUND, id, NO_SESSION, "Session not found"))
    }

    async fn initialize(self, message: &Message) -> Result<Response<Body>, Refusal> {
        let params = message.params().unwrap_or("{}").to_owned();
        let failed = |why: String| self.whole(message::error(message.id(), INTERNAL_ERROR, &why, None));
        let (id, server) = self.room.server_of(&self.principal, &params).map_err(|why| Box::new(failed(why)))?;
        match server.ready(true).await {
            Ok(_) => {}
            Err(Unready::Declined(answer)) => return Ok(self.whole(answer.answered(message.id()))),
            Err(Unready::Failed(why)) => return Ok(failed(why)),
            Err(Unready::Legacy) => return Ok(failed("the MCP server could not be initialized".to_owned())),
        }
        let Some(agreed) = server.agreed() else {
            return Ok(failed("the MCP server could not be initialized".to_owned()));
        };
        let session = self.room.admit(id, &server, &self.principal, &params);
        let session = session.map_err(|why| Box::new(failed(why)))?;
        let mut response = self.whole(if server.is_dedicated() {
            agreed.answered(message.id())
        } else {
            let (asked, speaks) = (message.version().unwrap_or_default(), agreed.version().unwrap_or_default());
            let version = message::negotiated(&asked, &speaks);
            message::result(message.id(), &agreed.result_with_version(version))
        });
        if let Ok(id) = HeaderValue::from_str(&session.id) {
            response.headers_mut().insert(SESSION, id);
        }
        Ok(response)
    }

    /// A request of a session.
    async fn call(self, message: Message, held: Held) -> Result<Response<Body>, Refusal> {
        let session = held.0.clone();
        let server = session.server.clone();
        if is_ours(&session, &message) {
            return Ok(self.whole(message::result(message.id(), "{}")));
        }
        let exchange = Exchange::new(self.events);
        let call = Call { exchange: exchange.clone(), server: server.clone(), cancels: false, _held: Some(held) };
        tokio::task::spawn_local(server.call(message, exchange, Some(session)));
        Ok(self.answer(call).await)
    }

    /// A request of the stateless revision.
    async fn modern(self, message: Message) -> Result<Response<Body>, Refusal> {
        if message.kind != Kind::Request {
            // Who leaves cancels; nothing else is told this way.
            return Ok(accepted());
        }
        let mismatch = |what: &str| Err(refused(StatusCode::BAD_REQUEST, message.id(), HEADER_MISMATCH, what));
        if message.meta_version().as_deref() != Some(MODERN) {
            return mismatch("the header MCP-Protocol-Version and the version in the body's _meta differ");
        }
        if self.method.as_ref().is_some_and(|method| *method != message.method) {
            return mismatch("the header Mcp-Method and the body's method differ");
        }
        if self.room.is_legacy() {
            return Err(unsupported(&message, MODERN));
        }
        let everybody = self.room.settings().share == Share::All;
        let principal = if everybody { String::new() } else { self.principal.clone() };
        let server = self.room.server(Key::Modern(principal));
        match server.ready(false).await {
            Ok(_) => {}
            Err(Unready::Legacy) => return Err(unsupported(&message, MODERN)),
            Err(Unready::Failed(why)) => {
                return Ok(self.whole(message::error(message.id(), INTERNAL_ERROR, &why, None)));
            }
            Err(Unready::Declined(answer)) => return Ok(self.whole(answer.answered(message.id()))),
        }
        let exchange = Exchange::new(self.events);
        let call = Call { exchange: exchange.clone(), server: server.clone(), cancels: true, _held: None };
        tokio::task::spawn_local(server.call(message, exchange, None));
        let mut response = self.answer(call).await;
        if let Some(status) = response.body().whole().and_then(status_of) {
            *response.status_mut() = status;
        }
        Ok(response)
    }

    /// An answer that is there as a whole.
    pub(super) fn whole(&self, message: Bytes) -> Response<Body> {
        if self.json { json(StatusCode::OK, message) } else { events(Body::event(&message)) }
    }

    /// Waits for the answer, or for what makes it a stream.
    async fn answer(&self, call: Call) -> Response<Body> {
        let queue = &call.exchange.queue;
        let first = if self.events {
            tokio::time::timeout(self.room.settings().silence, queue.next()).await.ok().flatten()
        } else {
            queue.next().await
        };
        match first {
            Some(message) if queue.is_over() => self.whole(message),
            first => events(Body::answers(first, call)),
        }
    }

    fn get(self) -> Result<Response<Body>, Refusal> {
        if !self.events {
            let what = "accept text/event-stream";
            return Err(refused(StatusCode::NOT_ACCEPTABLE, "null", INVALID_REQUEST, what));
        }
        let session = self.named_session("null")?;
        if session.stream.borrow().is_some() {
            let what = "the session has a stream already; close it first";
            return Err(refused(StatusCode::CONFLICT, "null", INVALID_REQUEST, what));
        }
        let queue = Rc::new(Queue::default());
        queue.take(&session.waiting);
        *session.stream.borrow_mut() = Some(queue.clone());
        let mut response = events(Body::streams(queue, session.hold()));
        if let Ok(id) = HeaderValue::from_str(&session.id) {
            response.headers_mut().insert(SESSION, id);
        }
        Ok(response)
    }

    fn delete(self) -> Result<Response<Body>, Refusal> {
        let session = self.named_session("null")?;
        self.room.dismiss(&session);
        Ok(empty(StatusCode::NO_CONTENT))
    }
}

/// A request that its server has not to be asked: whether what is not there lives, or an end of what others still want.
pub(super) fn is_ours(session: &Rc<Session>, message: &Message) -> bool {
    let server: &Server = &session.server;
    match message.method.as_str() {
        "ping" => server.live().is_none(),
        "logging/setLevel" => {
            *session.level.borrow_mut() = message.params().map(str::to_owned);
            false
        }
        "resources/subscribe" => {
            session.subscriptions.borrow_mut().extend(message.uri());
            false
        }
        "resources/unsubscribe" => {
            let Some(uri) = message.uri() else { return false };
            session.subscriptions.borrow_mut().remove(&uri);
            server.sessions().iter().any(|other| other.subscriptions.borrow().contains(&uri))
        }
        _ => false,
    }
}

pub(super) fn notified(session: &Rc<Session>, message: &Message) -> Response<Body> {
    let server = &session.server;
    match message.method.as_str() {
        "notifications/cancelled" => {
            let is_its = |other: Option<&Rc<Session>>| other.is_some_and(|other| Rc::ptr_eq(other, session));
            let pending = server.pending.borrow();
            let number =
                pending.iter().find(|(_, one)| is_its(one.session()) && message.request() == Some(one.id.as_str()));
            let number = number.map(|(number, _)| number.to_string());
            drop(pending);
            if let Some(number) = number {
                server.tell(message.with_request(&number));
            }
        }
        // A process that many share has been told by us.
        "notifications/initialized" if !server.is_dedicated() => {}
        _ => server.tell(message.text.clone()),
    }
    accepted()
}

pub(super) fn responded(session: &Rc<Session>, message: &Message) -> Response<Body> {
    let server = &session.server;
    let mut all = server.asked.borrow_mut();
    let is_its = |number: &u64| all.get(number).is_some_and(|asked| asked.session.as_ptr() == Rc::as_ptr(session));
    let asked = message.number().filter(is_its).and_then(|number| all.remove(&number));
    drop(all);
    if let Some(asked) = asked {
        server.tell(message.with_id(&asked.id));
    }
    accepted()
}

async fn read<B>(body: B, most: usize) -> Result<Bytes, Refusal>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let body = std::pin::pin!(body);
    let size = body.size_hint().lower();
    let large = || {
        let what = format!("the message is longer than {most} bytes");
        refused(StatusCode::PAYLOAD_TOO_LARGE, "null", INVALID_REQUEST, &what)
    };
    if size > most as u64 {
        return Err(large());
    }
    match Limited::new(body, most).collect().await {
        Ok(read) => Ok(read.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(large()),
        Err(_) => Err(refused(StatusCode::BAD_REQUEST, "null", message::PARSE_ERROR, "the body ended too early")),
    }
}

/// The status that the stateless revision wants for an error.
fn status_of(answer: &Bytes) -> Option<StatusCode> {
    match Message::parse(answer.clone()).ok()?.error_code()? {
        message::METHOD_NOT_FOUND => Some(StatusCode::NOT_FOUND),
        -32700 | -32600 | -32602 | -32020 | -32021 | -32022 => Some(StatusCode::BAD_REQUEST),
        _ => None,
    }
}

fn accepts(headers: &HeaderMap, wanted: &str) -> bool {
    let mut all = headers.get_all(ACCEPT).iter().peekable();
    if all.peek().is_none() {
        return true;
    }
    let main = wanted.split('/').next().unwrap_or_default();
    let texts = all.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let mut kinds = texts.map(|text| text.split(';').next().unwrap_or_default().trim());
    kinds.any(|kind| {
        let any =
            kind.split_once('/').is_some_and(|(of, any)| any == "*" && (of == "*" || of.eq_ignore_ascii_case(main)));
        any || kind.eq_ignore_ascii_case(wanted)
    })
}

fn unsupported(message: &Message, requested: &str) -> Refusal {
    let supported: Vec<String> = LEGACY.iter().map(|version| message::quoted(version)).collect();
    let data = format!(r#"{{"supported":[{}],"requested":{}}}"#, supported.join(","), message::quoted(requested));
    let id = if message.kind == Kind::Request { message.id() } else { "null" };
    let body = message::error(id, UNSUPPORTED_VERSION, "Unsupported protocol version", Some(&data));
    Box::new(json(StatusCode::BAD_REQUEST, body))
}

pub(super) fn invalid(id: &str, what: &str) -> Refusal {
    refused(StatusCode::BAD_REQUEST, id, INVALID_REQUEST, what)
}

fn refused(status: StatusCode, id: &str, code: i64, what: &str) -> Refusal {
    Box::new(json(status, message::error(id, code, what, None)))
}

pub(super) fn accepted() -> Response<Body> {
    empty(StatusCode::ACCEPTED)
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::new()));
    *response.status_mut() = status;
    response
}

fn json(status: StatusCode, message: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(message));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn events(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    response
}
