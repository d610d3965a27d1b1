//! Lists that their servers allow to be kept, given again without asking.
//!
//! A request with credentials that nobody here has checked gets nothing that was kept: its server may know it and refuse.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};

use super::JSON;
use super::talk::Talk;
use crate::mcp::Era;
use crate::mcp::answer::Outcome;
use crate::mcp::cache::{Changed, Key, Ticket};
use crate::mcp::peek::peek;
use crate::types::Clock;

/// A list that is asked for, and when.
#[derive(Debug)]
pub(super) struct Asked {
    key: Key,
    ticket: Ticket,
}

impl Talk {
    /// Answers from what is kept; whether it could. Where not, the answer may be kept.
    pub(super) fn answer_kept(&mut self) -> bool {
        let Some(message) = self.message.as_ref().filter(|message| message.whole && self.era == Era::Stateless) else {
            return false;
        };
        let principal = self.life.principal();
        let brings = |name| self.headers().contains_key(name);
        let unchecked = principal.is_none() && (brings(header::AUTHORIZATION) || brings(header::COOKIE));
        let (Some(id), false) = (message.id.as_deref(), unchecked) else { return false };
        let Some(key) = peek(&message.body, true).ok().and_then(|seen| Key::of(&seen, &message.body, principal)) else {
            return false;
        };
        let bounds = &self.settings().list_cache;
        let found = self.kept().cache(bounds, |cache| cache.find(&key, id, Clock::now()));
        match found {
            Some(body) => {
                let mut head = Response::new(()).into_parts().0;
                head.headers.insert(header::CONTENT_TYPE, JSON);
                head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
                self.life.status = Some(StatusCode::OK);
                self.say(head, body);
                true
            }
            None => {
                let ticket = self.kept().cache(bounds, |cache| cache.ask());
                self.list = Some(Asked { key, ticket });
                false
            }
        }
    }

    /// Keeps an answer, if its server allows it.
    pub(super) fn keep_list(&mut self, answer: &Bytes) {
        if let Some(Asked { key, ticket }) = self.list.take() {
            self.kept().cache(&self.settings().list_cache, |cache| cache.store(key, ticket, answer, Clock::now()));
        }
    }

    /// A server tells everybody who listens that a list has changed: what was kept of it is nothing any more.
    pub(super) fn heed(&self, said: &Outcome<'_>) {
        if let Some(changed) = said.method.as_deref().and_then(|method| Changed::of(method, said.uri.as_deref())) {
            self.kept().changed(changed);
        }
    }
}
