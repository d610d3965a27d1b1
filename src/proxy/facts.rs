//! What templates can name about a request.

use std::fmt::Write;

use bytes::BytesMut;
use http::HeaderMap;
use regex::Regex;

use super::client::X_REQUEST_ID;
use super::life::Life;
use crate::downstream::Peer;
use crate::route::{Captured, Group, Match, Variable, Variables, cookies, parameters};

/// A request, as templates see it.
pub(super) struct Facts<'a> {
    life: &'a Life,
    headers: &'a HeaderMap,
    host: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    captured: Option<Captured<'a>>,
}

impl<'a> Facts<'a> {
    /// Of a request with these headers, for this host, path and query.
    pub(super) fn new(
        life: &'a Life,
        headers: &'a HeaderMap,
        host: &'a str,
        path: &'a str,
        query: Option<&'a str>,
    ) -> Self {
        Facts { life, headers, host, path, query, captured: None }
    }

    /// With what its route's expression captured of the path that was matched.
    pub(super) fn with_captures(mut self, found: &Match<'a>, matched: &'a str) -> Self {
        self.captured = found.captured(matched);
        self
    }

    /// With what an expression captures of the path that it has matched.
    pub(super) fn with_expression(mut self, regex: Option<&'a Regex>, matched: &'a str) -> Self {
        self.captured = regex.map(|regex| Captured::new(regex, matched));
        self
    }
}

impl Variables for Facts<'_> {
    fn append(&self, variable: &Variable, out: &mut BytesMut) {
        let life = self.life;
        let slot = life.slot.as_ref();
        let mut shown = |value: &dyn std::fmt::Display| {
            // Writing to a buffer cannot fail.
            let _ = write!(out, "{value}");
        };
        match variable {
            Variable::Client => shown(&life.client),
            Variable::ClientPort => match life.connection.peer() {
                Peer::Tcp(address) => shown(&address.port()),
                Peer::Unix => {}
            },
            Variable::ServerPort => shown(&life.connection.local().map_or(0, |local| local.port())),
            Variable::Status => shown(&life.status.map_or(0, |status| status.as_u16())),
            Variable::Principal => out.extend_from_slice(life.principal().unwrap_or_default().as_bytes()),
            Variable::Host => out.extend_from_slice(self.host.as_bytes()),
            Variable::Scheme => out.extend_from_slice(life.connection.scheme().as_bytes()),
            Variable::Method => out.extend_from_slice(life.method.as_str().as_bytes()),
            Variable::Path => out.extend_from_slice(self.path.as_bytes()),
            Variable::Query => out.extend_from_slice(self.query.unwrap_or_default().as_bytes()),
            Variable::Uri => {
                out.extend_from_slice(self.path.as_bytes());
                if let Some(query) = self.query {
                    out.extend_from_slice(b"?");
                    out.extend_from_slice(query.as_bytes());
                }
            }
            Variable::RequestId => {
                out.extend_from_slice(self.headers.get(X_REQUEST_ID).map_or(&[], |id| id.as_bytes()))
            }
            Variable::Listener => out.extend_from_slice(life.listener().name.as_bytes()),
            Variable::Route => out.extend_from_slice(life.route().map_or("", |route| &route.name).as_bytes()),
            Variable::Pool => out.extend_from_slice(slot.map_or("", |slot| &slot.pool().name).as_bytes()),
            Variable::Upstream => {
                out.extend_from_slice(slot.map_or("", |slot| &slot.member().upstream.address).as_bytes())
            }
            Variable::Header(name) => {
                out.extend_from_slice(self.headers.get(name).map_or(&[], |value| value.as_bytes()))
            }
            Variable::Cookie(name) => out.extend_from_slice(cookies(self.headers, name).next().unwrap_or_default()),
            Variable::Parameter(name) => {
                let value = parameters(self.query, name).next().map_or("", |value| value.0);
                out.extend_from_slice(value.as_bytes());
            }
        }
    }

    fn group(&self, group: &Group) -> Option<&str> {
        self.captured.as_ref()?.group(group)
    }
}
