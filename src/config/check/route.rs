//! Routes: one action each, and everything about them that goes together.

use std::collections::BTreeMap;

use super::Check;
use crate::config::model::{Except, HeaderEdit, Limit, Redirect, Respond, Route, Split, TimeoutOverride};
use crate::config::place::At;
use crate::config::section::list_words;
use crate::route::{PathPattern, ValuePattern};

/// The keys that say what a route does.
const ACTIONS: [&str; 4] = ["pool", "split", "redirect", "respond"];

impl Check<'_> {
    pub(super) fn routes(&mut self) {
        let mut sound = Vec::with_capacity(self.config.route.len());
        for (index, route) in self.config.route.iter().enumerate() {
            let before = self.report.problems.len();
            let at = At::root().key("route").index(index);
            self.action(route, &at);
            self.matching(route, &at);
            if let Some(except) = &route.except {
                self.except(except, &at.key("except"));
            }
            self.split(&route.split, &at.key("split"));
            if let Some(redirect) = &route.redirect {
                self.redirect(redirect, &route.path, &at.key("redirect"));
            }
            if let Some(respond) = &route.respond {
                self.respond(respond, &route.path, &at.key("respond"));
            }
            if let Some(rewrite) = &route.rewrite {
                self.rewrite(rewrite, &route.path, &at.key("rewrite"));
            }
            self.header_edit(&route.request_headers, &route.path, &at.key("request_headers"));
            self.header_edit(&route.response_headers, &route.path, &at.key("response_headers"));
            for (index, limit) in route.limit.iter().enumerate() {
                self.limit(limit, &at.key("limit").index(index));
            }
            self.access(route, &at);
            if let Some(retry) = &route.retry {
                self.statuses(&retry.statuses, &at.key("retry"));
            }
            self.error_pages(&at.key("error_pages"), &route.error_pages);
            sound.push(self.report.problems.len() == before);
        }
        self.reach(&sound);
    }

    fn action(&mut self, route: &Route, at: &At) {
        let set = [route.pool.is_some(), !route.split.is_empty(), route.redirect.is_some(), route.respond.is_some()];
        let set: Vec<&str> = ACTIONS.into_iter().zip(set).filter(|(_, set)| *set).map(|(key, _)| key).collect();
        if self.failed(at) {
            return;
        }
        match set.as_slice() {
            [] => {
                let label = "expected one of `pool`, `split`, `redirect` and `respond`";
                self.report.error(at, "the route does not say what to do", label);
            }
            [_] => {}
            [first, second, ..] => {
                let message = format!("the route has {}, but only one of them can be done", list_words(&set));
                self.report.clash(&at.key(second), &at.key(first), message, ["this", "or this"]);
            }
        }
        if route.pool.is_some() || !route.split.is_empty() || set.is_empty() {
            return;
        }
        let set = [
            ("rewrite", route.rewrite.is_some()),
            ("retry", route.retry.is_some()),
            ("timeout", route.timeout != TimeoutOverride::default()),
            ("intercept_errors", route.intercept_errors),
            ("request_headers", route.request_headers != HeaderEdit::default()),
        ];
        self.no_effect(at, &set, "it is for requests that go to a pool");
    }

    fn matching(&mut self, route: &Route, at: &At) {
        for (index, method) in route.method.iter().enumerate() {
            self.method(&at.key("method").index(index), method);
        }
        self.conditions(&route.header, &at.key("header"), true);
        self.conditions(&route.query, &at.key("query"), false);
        self.conditions(&route.cookie, &at.key("cookie"), false);
    }

    fn except(&mut self, except: &Except, at: &At) {
        if *except == Except::default() && !self.failed(at) {
            let label = "expected one of `host`, `path`, `method`, `header`, `query`, `cookie` and `from`";
            self.report.warning(at, "nothing is excepted", label);
        }
        for (index, method) in except.method.iter().enumerate() {
            self.method(&at.key("method").index(index), method);
        }
        self.conditions(&except.header, &at.key("header"), true);
        self.conditions(&except.query, &at.key("query"), false);
        self.conditions(&except.cookie, &at.key("cookie"), false);
    }

    fn conditions(&mut self, conditions: &BTreeMap<String, ValuePattern>, at: &At, headers: bool) {
        for (name, pattern) in conditions {
            let at = at.key(name);
            if headers {
                self.header_name(&at, name);
            } else if name.is_empty() {
                self.report.error_at_key(&at, "a condition on something without a name", "expected a name");
            }
            if let ValuePattern::Regex(expression) = pattern {
                self.expression(&at, expression);
            }
        }
    }

    fn expression(&mut self, at: &At, expression: &str) {
        let pattern = PathPattern::Regex { expression: expression.to_owned(), ignore_case: false };
        if let Err(error) = pattern.check() {
            let key = at.key("regex");
            let at = if self.written(&key) { &key } else { at };
            self.report.error(at, "bad regular expression", error.to_string());
        }
    }

    fn split(&mut self, split: &[Split], at: &At) {
        if !split.is_empty() && split.iter().all(|part| part.weight == 0) && !self.failed(at) {
            self.report.error(at, "no part of the split gets any requests", "expected a weight above 0");
        }
        for (index, part) in split.iter().enumerate() {
            if let Some(first) = split[..index].iter().position(|earlier| earlier.pool == part.pool) {
                let message = format!("the pool `{}` is in the split twice", part.pool);
                self.report.clash(&at.index(index), &at.index(first), message, ["first here", "again here"]);
            }
        }
    }

    fn redirect(&mut self, redirect: &Redirect, paths: &[PathPattern], at: &At) {
        if !matches!(redirect.status, 301 | 302 | 303 | 307 | 308) {
            let message = format!("{} is not the status of a redirect", redirect.status);
            self.report.error(&at.key("status"), message, "expected 301, 302, 303, 307 or 308");
        }
        if redirect.to.is_empty() {
            self.report.error(&at.key("to"), "a redirect to nowhere", "expected a URL such as \"https://{host}{uri}\"");
        }
        self.template(&at.key("to"), &redirect.to, paths);
    }

    fn respond(&mut self, respond: &Respond, paths: &[PathPattern], at: &At) {
        if matches!(respond.status, 204 | 205 | 304) && !respond.body.is_empty() {
            let message = format!("an answer with status {} has no body", respond.status);
            self.report.error(&at.key("body"), message, "expected no `body`, or another `status`");
        }
        self.header_value(&at.key("content_type"), &respond.content_type);
        self.template(&at.key("body"), &respond.body, paths);
    }

    fn limit(&mut self, limit: &Limit, at: &At) {
        if self.failed(at) {
            return;
        }
        if limit.rate.is_none() && limit.requests.is_none() && limit.connections.is_none() {
            let label = "expected `rate`, `requests` or `connections`";
            self.report.error(at, "the limit does not limit anything", label);
        } else if limit.rate.is_none() {
            let set = [("burst", limit.burst != 0), ("delay", !limit.delay.is_zero())];
            self.no_effect(at, &set, "it goes with `rate`");
        }
    }
}
