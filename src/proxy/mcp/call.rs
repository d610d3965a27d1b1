//! Requests of our own: to begin a session anew, to follow another upstream's events.

use std::rc::Rc;

use bytes::Bytes;
use http::Method;
use http::header::{self, HeaderMap, HeaderValue};

use super::exchange::Got;
use super::talk::Talk;
use super::{JSON, LAST_EVENT, METHOD, NAME, SESSION, VERSION};
use crate::health::Outcome;
use crate::proxy::attempt::give_host;
use crate::proxy::pick::{Affinity, Choice, Miss, Slot, Tried, pick};
use crate::proxy::request_body::RequestBody;
use crate::snapshot::View;
use crate::types::Clock;
use crate::upstream::{Outgoing, SendErrorKind};

impl Talk {
    /// A place at an upstream of the newest snapshot.
    pub(super) fn place_at(
        &self,
        (view, pool): &(Rc<View>, usize),
        affinity: Affinity,
        shun: &[u64],
    ) -> Result<Slot, Miss> {
        let choice = Choice {
            headers: self.headers(),
            target: self.errand.exchange.target.as_str(),
            client: self.life.client,
            patient: false,
            affinity,
            shun,
        };
        pick(&self.life.worker, view, *pool, &choice, &mut Tried::new(), Clock::now())
    }

    /// The client's headers without what is about its own message and session.
    pub(super) fn headers_of_ours(&self) -> HeaderMap {
        let mut headers = self.headers().clone();
        for name in [SESSION, VERSION, METHOD, NAME, LAST_EVENT, header::CONTENT_LENGTH, header::CONTENT_ENCODING] {
            headers.remove(name);
        }
        headers.insert(header::CONTENT_TYPE, JSON);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        headers
    }

    /// Sends a request to the upstream of `slot`, at the client's own target.
    pub(super) async fn ask(
        &self,
        slot: &mut Slot,
        method: &Method,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Got, SendErrorKind> {
        let member = slot.member();
        let settings = &slot.pool().settings;
        give_host(&mut headers, settings, member);
        let idle = self.route().timeout.idle.unwrap_or(settings.timeout.idle);
        let outgoing = Outgoing {
            method,
            target: &self.errand.exchange.target,
            headers: &headers,
            lines: None,
            answer_in_lines: false,
            upgrade: false,
            first_byte: idle,
            idle,
        };
        let target = member.target.clone();
        let sent = self.life.worker.far.send(&target, outgoing, RequestBody::own(body)).await;
        let now = Clock::now();
        let lane = self.life.worker.lane;
        match sent {
            Ok(answer) => {
                let (head, body) = answer.response.into_parts();
                slot.member().upstream.stats.at(lane).requests.up(head.status.as_u16());
                self.tell(slot.went(Outcome::Good, now), slot);
                Ok(Got { head, read: Bytes::new(), rest: Some(body), broken: false })
            }
            Err(error) => {
                self.tell(slot.went(Outcome::Bad, now), slot);
                Err(error.kind)
            }
        }
    }

    fn tell(&self, trip: Option<crate::health::Trip>, slot: &Slot) {
        if let Some(trip) = trip {
            let upstream = slot.member().upstream.clone();
            // Control ends last; without it there is nobody to tell.
            let _ = self.life.worker.events.send(crate::control::Event::Tripped { upstream, trip });
        }
    }
}
