//! Pools: their members, health, stickiness and what goes with what.

use std::collections::BTreeMap;

use super::Check;
use crate::balance::Algorithm;
use crate::config::model::{CheckKind, HealthCheck, Pool, Sticky};
use crate::config::place::At;
use crate::types::Address;

impl Check<'_> {
    pub(super) fn pools(&mut self) {
        for (name, pool) in &self.config.pool {
            let at = At::root().key("pool").key(name);
            self.upstreams(pool, &at);
            self.scaling(pool, &at);
            self.balancing(pool, &at);
            self.mcp(pool, &at);
            if let Some(health) = &pool.health {
                self.health(health, &at.key("health"));
            }
            if let Some(sticky) = &pool.sticky {
                self.sticky(sticky, &at.key("sticky"));
            }
            if pool.eject.max_time < pool.eject.time && !self.failed(&at.key("eject")) {
                let (first, at) = (at.key("eject").key("time"), at.key("eject").key("max_time"));
                let at = if self.written(&at) { at } else { first };
                let label = "expected `time` to be at most `max_time`";
                self.report.error(&at, "the first ejection is longer than the longest", label);
            }
            self.statuses(&pool.retry.statuses, &at.key("retry"));
            if let Some(tls) = &pool.tls {
                self.upstream_tls(tls, pool, &at.key("tls"));
            }
        }
    }

    pub(super) fn statuses(&mut self, statuses: &[u16], retry: &At) {
        for (index, status) in statuses.iter().enumerate().filter(|(_, status)| !(400..=599).contains(*status)) {
            let at = retry.key("statuses").index(index);
            self.report.error(&at, format!("{status} is not a status of a failure"), "expected 400 to 599");
        }
    }

    fn upstreams(&mut self, pool: &Pool, at: &At) {
        let list = at.key("upstreams");
        let mut first: BTreeMap<&Address, At> = BTreeMap::new();
        for (index, upstream) in pool.upstreams.iter().enumerate() {
            let at = list.index(index);
            if let Address::Unix(path) = &upstream.address {
                self.unix_path(&at.key("address"), path);
            }
            if let Some(first) = first.get(&upstream.address) {
                let message = format!("`{}` is in the pool twice", upstream.address);
                self.report.clash(&at, first, message, ["first here", "again here"]);
            }
            first.entry(&upstream.address).or_insert(at);
        }
        if self.failed(&list) {
            return;
        }
        let grown = pool.scaler.is_some() || self.written(&at.key("scaler")) || self.written(&at.key("stdio"));
        if pool.upstreams.is_empty() {
            if grown {
                return;
            }
            let label = "it answers every request with 503";
            self.report.warning_at_key(at, format!("`{at}` has no upstreams"), label);
        } else if pool.upstreams.iter().all(|upstream| upstream.weight == 0) {
            let label = "expected a weight above 0 for at least one";
            self.report.error(&list, "no upstream of the pool takes any load", label);
        }
    }

    fn balancing(&mut self, pool: &Pool, at: &At) {
        if pool.balance == Algorithm::Hash || self.failed(&at.key("balance")) {
            return;
        }
        let default = Pool::default();
        let set = [("hash_on", pool.hash_on != default.hash_on), ("hash_bound", pool.hash_bound != default.hash_bound)];
        let label = format!("it is for `balance = \"hash\"`; here it is \"{}\"", pool.balance);
        self.no_effect(at, &set, &label);
    }

    fn health(&mut self, health: &HealthCheck, at: &At) {
        if health.timeout > health.interval && self.written(&at.key("timeout")) {
            let label = format!("checks start every {:?}, so they would overlap", health.interval);
            self.report.warning(&at.key("timeout"), "a check may take longer than the time to the next", label);
        }
        if health.kind != CheckKind::Http {
            let default = HealthCheck::default();
            let set = [
                ("path", health.kind == CheckKind::Tcp && health.path != default.path),
                ("method", health.method != default.method),
                ("host", health.kind == CheckKind::Tcp && health.host.is_some()),
                ("headers", health.kind == CheckKind::Tcp && !health.headers.is_empty()),
                ("expect", health.expect != default.expect),
                ("contains", health.contains.is_some()),
            ];
            let label = match health.kind {
                CheckKind::Tcp => "a check of kind \"tcp\" only connects",
                _ => "a check of kind \"mcp\" takes any JSON-RPC answer to `server/discover`",
            };
            self.no_effect(at, &set, label);
        }
        let target = health.path.parse::<http::uri::PathAndQuery>();
        if !health.path.starts_with('/') || target.is_err() || health.path.contains('#') {
            self.report.error(&at.key("path"), "bad path for a check", "expected a path such as \"/health\"");
        }
        self.method(&at.key("method"), &health.method);
        if let Some(host) = &health.host
            && (host.parse::<http::uri::Authority>().is_err() || host.contains('@'))
        {
            self.report.error(&at.key("host"), "bad host for a check", "expected a host such as \"api.internal\"");
        }
        for (name, value) in &health.headers {
            let at = at.key("headers").key(name);
            self.sent_header(&at, name);
            self.header_value(&at, value);
        }
        if health.contains.as_deref() == Some("") {
            self.report.error(&at.key("contains"), "every body holds an empty text", "expected some text");
        }
    }

    fn sticky(&mut self, sticky: &Sticky, at: &At) {
        if let Some(cookie) = sticky.cookie.as_ref().filter(|cookie| cookie.parse::<http::HeaderName>().is_err()) {
            // RFC 6265 §4.1.1: a cookie's name is a token, as a header's is.
            let label = "expected a name such as \"tidegate\"";
            self.report.error(&at.key("cookie"), format!("bad cookie name {cookie:?}"), label);
        }
        if self.failed(at) {
            return;
        }
        match (&sticky.cookie, &sticky.learn) {
            (None, None) => {
                let label = "expected `cookie = \"NAME\"` or `learn = \"header:NAME\"`";
                self.report.error(at, format!("`{at}` does not say what to go by"), label);
            }
            (Some(_), Some(_)) => {
                let message = format!("`{at}` has both `cookie` and `learn`");
                self.report.clash(&at.key("learn"), &at.key("cookie"), message, ["this", "or this, not both"]);
            }
            _ => {}
        }
    }
}
