//! Between hyper and the application: numbers requests, keeps the connection busy until each answer's end, stands in for what was
//! refused, and turns panics into answers.

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use futures_util::FutureExt;
use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::activity::{Flow, Held};
use super::application::{Application, Event};
use super::client_body::ClientBody;
use super::connection::Connection;
use super::objection::Objection;
use super::stock::Stock;

/// What hyper gets for a request.
pub(super) type Answer<B> = Result<Response<Held<B>>, Infallible>;

/// Answers a request that came over HTTP/1.
pub(super) fn http1<A: Application>(
    app: &Rc<A>,
    connection: &Rc<Connection<A::State>>,
    stock: &Rc<Stock<A>>,
    request: Request<Incoming>,
) -> impl Future<Output = Answer<A::Body>> + use<A> {
    let (app, connection, stock) = (app.clone(), connection.clone(), stock.clone());
    let number = connection.activity.begin();
    let busy = connection.activity.enter();
    async move {
        let connect = *request.method() == Method::CONNECT;
        let upgrade = request.extensions().get::<OnUpgrade>().cloned();
        let mut response = match connection.pulse.objection(number) {
            Some(objection) => refuse(&*app, &connection, objection),
            None => stock.work(&app, &connection, request.map(ClientBody::from)).await,
        };
        let status = response.status();
        let tunnel = status == StatusCode::SWITCHING_PROTOCOLS || connect && status.is_success();
        if connection.pulse.answer(number, tunnel) {
            connection.activity.wake();
        }
        if !tunnel && upgrade.is_some() {
            connection.untaken.replace(upgrade);
        }
        if connection.is_draining() && !tunnel {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response.map(|body| Held::new(body, None, busy)))
    }
}

/// Answers a request that came over HTTP/2.
pub(super) fn http2<A: Application>(
    app: &Rc<A>,
    connection: &Rc<Connection<A::State>>,
    stock: &Rc<Stock<A>>,
    flow: Rc<Flow>,
    request: Request<Incoming>,
) -> impl Future<Output = Answer<A::Body>> + use<A> {
    let (app, connection, stock) = (app.clone(), connection.clone(), stock.clone());
    connection.activity.begin();
    let busy = connection.activity.enter();
    async move {
        let limits = &connection.facts.terms.head;
        let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
        let response = if target > limits.uri {
            refuse(&*app, &connection, Objection::UriTooLong)
        } else if request.headers().len() > limits.headers {
            refuse(&*app, &connection, Objection::TooManyHeaders)
        } else {
            stock.work(&app, &connection, request.map(ClientBody::from)).await
        };
        Ok(response.map(|body| Held::new(body, Some(flow), busy)))
    }
}

fn refuse<A: Application>(app: &A, connection: &Rc<Connection<A::State>>, objection: Objection) -> Response<A::Body> {
    if objection != Objection::Panicked {
        connection.objection.set(Some(objection));
    }
    app.refuse(connection, objection)
}

/// Asks the application, and answers for it where it panics: all requests come here.
pub(super) async fn guarded<A: Application>(
    app: Rc<A>,
    connection: Rc<Connection<A::State>>,
    request: Request<ClientBody>,
) -> Response<A::Body> {
    // Nothing of the application's is looked at again after a panic but its own answer to it.
    let answer = AssertUnwindSafe(app.clone().answer(connection.clone(), request)).catch_unwind();
    match answer.await {
        Ok(response) => response,
        Err(panic) => {
            panicked(&*app, &*panic);
            refuse(&*app, &connection, Objection::Panicked)
        }
    }
}

/// Tells of a panic.
pub(super) fn panicked<A: Application>(app: &A, panic: &(dyn Any + Send)) {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("of unknown cause");
    app.observe(Event::Panicked(text));
}
