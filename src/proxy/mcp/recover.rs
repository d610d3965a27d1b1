//! Moving a session: it is initialized again where there is room for it, with what its client said when it began.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};

use super::exchange::only_message;
use super::reply::End;
use super::talk::Talk;
use super::{SESSION, VERSION};
use crate::config::model::SessionLoss;
use crate::health::State;
use crate::mcp::answer::{self, outcome};
use crate::mcp::{Era, Live, Place};
use crate::proxy::Refusal;
use crate::proxy::attempt;
use crate::proxy::pick::{Affinity, Slot};
use crate::proxy::wait::wakes;
use crate::snapshot::Member;
use crate::types::Clock;

/// How soon it is looked again where nobody could take the session.
const AGAIN: Duration = Duration::from_millis(150);
/// How long the servers have to take a session over, one after the other.
const PATIENCE: Duration = Duration::from_secs(10);
/// The id of our own requests.
const ID: &str = "\"tidegate\"";

impl Talk {
    /// Whether sessions that are lost are begun again.
    pub(super) fn recovers(&self) -> bool {
        self.settings().session_loss == SessionLoss::Reinit
    }

    /// Whether a session has to leave its upstream now.
    pub(super) fn is_to_move(&self, place: &Place) -> bool {
        let (view, pool) = self.newest();
        let pool = &view.pools[pool];
        let Some(member) = pool.by_identity.get(&place.upstream).map(|index| &pool.members[*index as usize]) else {
            return true;
        };
        member.upstream.is_cut() || member.state == State::Drained || pool.settings.drain.portable && is_going(member)
    }

    /// Begins the session anew at another upstream than the one where it was `lost`; once, whoever notices.
    pub(super) async fn recover(&mut self, lost: &Place) -> Result<(), End> {
        let Some(session) = self.session.as_ref().map(|session| session.0.clone()) else {
            return Err(Refusal::NoSession.into());
        };
        let going = self.going(lost);
        if !self.recovers() || session.is_ended() || going && !self.settings().drain.migrate {
            return Err(Refusal::NoSession.into());
        }
        let _moving = session.moving.lock().await;
        if *session.place() != *lost {
            return Ok(());
        }
        let patience = self.hold_until().since(self.life.started);
        let mut until = Clock::now() + patience;
        loop {
            // A server that takes the question and never answers must not hold the session for as long as a call may last.
            let begun = tokio::time::timeout(PATIENCE, self.begin_again(&session, lost)).await;
            if let Ok(Some(place)) = begun {
                session.moved(place);
                self.kept().moved();
                if going {
                    self.say_goodbye(lost);
                }
                return Ok(());
            }
            if Clock::now() >= until {
                return Err(Refusal::NoUpstream.into());
            }
            if self.sleeps() {
                self.wake().await?;
                until = Clock::now() + patience;
            } else {
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    /// Whether nobody is there because nobody was needed.
    fn sleeps(&self) -> bool {
        let (view, pool) = self.newest();
        let pool = &view.pools[pool];
        wakes(&pool.settings) && !pool.table.is_open()
    }

    /// Stands in the pool's line until there is an instance.
    async fn wake(&mut self) -> Result<(), End> {
        let (view, pool) = self.newest();
        let of_request = self.view.clone();
        let route = &of_request.routes[self.errand.route];
        self.errand.exchange.affinity = Affinity::Free;
        Ok(attempt::until_room(&mut self.life, view, route, pool, &mut self.errand.exchange).await?)
    }

    /// Whether the upstream is still there, on its way out.
    fn going(&self, place: &Place) -> bool {
        let (view, pool) = self.newest();
        let pool = &view.pools[pool];
        pool.by_identity.get(&place.upstream).is_some_and(|index| is_going(&pool.members[*index as usize]))
    }

    /// Tries one upstream after another.
    async fn begin_again(&self, session: &Arc<Live>, lost: &Place) -> Option<Place> {
        let newest = self.newest();
        let now = Clock::now();
        let members = newest.0.pools[newest.1].members.iter().map(|member| &member.upstream);
        let mut shun: Vec<u64> = members
            .filter(|upstream| !upstream.spoken.may_speak(Era::Sessions, now))
            .map(|upstream| upstream.identity)
            .collect();
        shun.push(lost.upstream);
        let mut alone = false;
        loop {
            let mut slot = match self.place_at(&newest, Affinity::Free, &shun) {
                Ok(slot) => slot,
                // It may have come back without its sessions.
                Err(_) if !alone => {
                    alone = true;
                    self.place_at(&newest, Affinity::Prefer(lost.upstream), &[]).ok()?
                }
                Err(_) => return None,
            };
            let identity = slot.member().upstream.identity;
            match self.initialize(session, &mut slot).await {
                Some(id) => {
                    let upstream = &slot.member().upstream;
                    tracing::info!(pool = %upstream.pool, upstream = %upstream.address, "a session that was lost is begun again here");
                    return Some(Place { upstream: identity, id });
                }
                None if alone => return None,
                None => shun.push(identity),
            }
        }
    }

    /// The session's id at the upstream of `slot`, once it is initialized there.
    async fn initialize(&self, session: &Live, slot: &mut Slot) -> Option<Box<str>> {
        let sealed = &session.sealed;
        let plain = || {
            let version = answer::quoted(&sealed.version);
            format!(
                r#"{{"protocolVersion":{version},"capabilities":{{}},"clientInfo":{{"name":"tidegate","version":"1"}}}}"#
            )
        };
        let params = if sealed.params.is_empty() { plain() } else { sealed.params.to_string() };
        let headers = self.headers_of_ours();
        let body = answer::request(ID, "initialize", Some(&params));
        let got = self.ask(slot, &Method::POST, headers.clone(), body).await.ok()?;
        let (success, id) = (got.head.status.is_success(), got.head.headers.get(SESSION).cloned());
        let text = only_message(got).await?;
        let said = outcome(&text)?;
        if !success || said.error_code.is_some() {
            return None;
        }
        let version = said.protocol_version.as_deref().unwrap_or(&sealed.version);
        let headers = session_headers(headers, id.as_ref(), version);
        let body = answer::notification("notifications/initialized", None);
        self.tell_session(slot, &headers, body).await?;
        for soft in session.soft() {
            let params = std::str::from_utf8(&soft.params).ok();
            // A setting that is refused is worth less than the session.
            let _ = self.tell_session(slot, &headers, answer::request(ID, soft.method, params)).await;
        }
        Some(id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default().into())
    }

    async fn tell_session(&self, slot: &mut Slot, headers: &HeaderMap, body: Bytes) -> Option<()> {
        let got = self.ask(slot, &Method::POST, headers.clone(), body).await.ok()?;
        let success = got.head.status.is_success();
        only_message(got).await;
        success.then_some(())
    }

    /// Ends the session where it was, so that its server does not keep it; nobody waits for that.
    fn say_goodbye(&self, place: &Place) {
        let Ok(id) = HeaderValue::from_str(&place.id) else { return };
        if place.id.is_empty() {
            return;
        }
        let newest = self.newest();
        let Ok(mut slot) = self.place_at(&newest, Affinity::Only(place.upstream), &[]) else { return };
        let version = self.live().map(|live| live.sealed.version.clone()).unwrap_or_default();
        let headers = session_headers(self.headers_of_ours(), Some(&id), &version);
        let target = self.errand.exchange.target.clone();
        let worker = self.life.worker.clone();
        tokio::task::spawn_local(async move {
            let member_target = slot.member().target.clone();
            let patience = Some(Duration::from_secs(5));
            let outgoing = crate::upstream::Outgoing {
                method: &Method::DELETE,
                target: &target,
                headers: &headers,
                lines: None,
                answer_in_lines: false,
                upgrade: false,
                first_byte: patience,
                idle: patience,
            };
            let sent = worker.far.send(&member_target, outgoing, crate::proxy::RequestBody::EMPTY).await;
            let outcome = if sent.is_ok() { crate::health::Outcome::Good } else { crate::health::Outcome::Unknown };
            slot.went(outcome, Clock::now());
        });
    }
}

fn is_going(member: &Member) -> bool {
    member.leaving || matches!(member.state, State::Draining | State::Drained)
}

fn session_headers(mut headers: HeaderMap, id: Option<&HeaderValue>, version: &str) -> HeaderMap {
    if let Some(id) = id {
        headers.insert(SESSION, id.clone());
    }
    if let Ok(version) = HeaderValue::from_str(version) {
        headers.insert(VERSION, version);
    }
    headers
}
