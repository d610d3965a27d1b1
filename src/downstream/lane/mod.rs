//! The fast lane: serves plain HTTP/1.1 requests without hyper, and hands a connection on to hyper, with what was read of it, at the
//! first request that is not plain. It stays there.
//!
//! ```text
//!           plain ─▶ Application::answer ─▶ head and body, written here
//!  Link ─▶ ───────
//!           other ─▶ Gate ─▶ hyper, for the rest of the connection
//! ```
//!
//! [`plain`] alone says what is plain. It is a whitelist, and refuses nothing: so what is refused, and how, stays in one place, behind the
//! gate. An idle connection has no buffer, no future of an answer and no place in hyper.
//!
//! Never here: chunked request bodies, upgrades, expectations, trailers, HTTP/1.0. Why not a whole server of our own: what is rare is not
//! worth a second implementation that has to be as right as the first.

mod answer;
mod channel;
mod plain;
#[cfg(test)]
mod same;
mod session;

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

pub(super) use self::answer::{Date, Size};
use self::channel::Channel;
pub(super) use self::channel::Inflow;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::plain::law;
use self::session::{End, Session};
use super::application::Application;
use super::connection::Connection;
use super::gate::Gate;
use super::http1::is_gone;
use super::pulse::Pulse;
use super::roster::Entry;
use super::service;
use super::socket::Link;
use super::stock::Stock;
use super::terms::Terms;
use super::watch::{Overdue, State, Watch};
use crate::telemetry::Closed;

/// Serves a connection as long as its requests are plain. Where the next one is not, or has not come in time, the rest is hyper's.
///
/// **Errors**: why the connection has ended.
pub(super) async fn serve<A: Application>(
    link: Link,
    connection: &Rc<Connection<A::State>>,
    app: &Rc<A>,
    stock: &Rc<Stock<A>>,
    entry: &Entry,
    watch: &mut Watch,
) -> Result<Gate, Closed> {
    let channel = Channel::new(link, connection.activity.clone());
    let sweep = watch.sweep().clone();
    let session = Session::new(app.clone(), connection.clone(), stock.clone(), sweep, channel.clone());
    let (pulse, terms) = (connection.pulse.clone(), connection.terms().clone());
    let mut drive = Drive { session, pulse, terms, why: None };
    let last = poll_fn(|cx| drive.poll(cx, entry, watch)).await;
    let asked = drive.why.or(entry.roster().until().map(|_| Closed::Drained));
    if matches!(last, Last::Overdue(_) | Last::Panicked(_)) {
        channel.abort();
    }
    // The answer in progress first: nothing of it may look at a connection that has ended.
    drop(drive);
    let rest = channel.end();
    Err(match (last, rest) {
        (Last::End(End::Onward), Some((link, kept))) => {
            let Connection { facts, pulse, .. } = &**connection;
            return Ok(Gate::resume(link, pulse.clone(), facts.terms.head, connection.requests(), kept));
        }
        (Last::End(End::Closed | End::Onward), _) => asked.unwrap_or(Closed::Client),
        (Last::End(End::Lost(error)), _) => {
            asked.unwrap_or(if is_gone(&error) { Closed::Client } else { Closed::Error })
        }
        (Last::End(End::Broken), _) => asked.unwrap_or(Closed::Error),
        (Last::Overdue(why), _) => asked.unwrap_or(why),
        (Last::Panicked(panic), _) => {
            service::panicked(&**app, &*panic);
            Closed::Error
        }
    })
}

/// The session and what bounds it.
struct Drive<A: Application> {
    session: Session<A>,
    pulse: Arc<Pulse>,
    terms: Arc<Terms>,
    /// Why we have asked it to end.
    why: Option<Closed>,
}

enum Last {
    End(End),
    Overdue(Closed),
    Panicked(Box<dyn Any + Send>),
}

impl<A: Application> Drive<A> {
    fn poll(&mut self, cx: &mut Context<'_>, entry: &Entry, watch: &mut Watch) -> Poll<Last> {
        loop {
            let session = &mut self.session;
            let polled = entry.activity().attended(|| {
                // After a panic the session is only dropped.
                catch_unwind(AssertUnwindSafe(|| session.poll(cx)))
            });
            match polled {
                Ok(Poll::Pending) => {}
                Ok(Poll::Ready(end)) => return Poll::Ready(Last::End(end)),
                Err(panic) => return Poll::Ready(Last::Panicked(panic)),
            }
            let state = State::of(entry, &self.pulse).or_closing(self.why.is_some());
            match ready!(watch.poll(cx, state, entry, &self.terms)) {
                Overdue::Close(why) => {
                    self.why = Some(why);
                    self.session.close();
                }
                // hyper's side of the house knows how to say so.
                Overdue::Refuse => {
                    self.pulse.expire();
                    return Poll::Ready(Last::End(End::Onward));
                }
                Overdue::Cut(why) => return Poll::Ready(Last::Overdue(why)),
            }
        }
    }
}
