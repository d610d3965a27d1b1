//! Names: that they lead somewhere, that nothing is called twice, that what is there is used.

use std::collections::{BTreeMap, BTreeSet};

use super::Check;
use crate::config::near::{did_you_mean, nearest};
use crate::config::place::At;
use crate::config::section::list_words;

impl Check<'_> {
    pub(super) fn names(&mut self) {
        self.well_formed();
        self.routes_named_once();
        if self.torn {
            return;
        }
        self.something_to_do();
        let pools: BTreeSet<&str> = self.config.pool.keys().map(String::as_str).collect();
        let listeners: BTreeSet<&str> = self.config.listener.keys().map(String::as_str).collect();
        let mut used = BTreeSet::new();
        for (index, route) in self.config.route.iter().enumerate() {
            let at = At::root().key("route").index(index);
            let split = route.split.iter().enumerate();
            let split = split.map(|(part, split)| (at.key("split").index(part).key("pool"), &split.pool));
            for (at, pool) in split.chain(route.pool.iter().map(|pool| (at.key("pool"), pool))) {
                used.insert(pool.as_str());
                self.leads_to("pool", &pools, &at, pool);
            }
            for (part, listener) in route.listener.iter().enumerate() {
                self.leads_to("listener", &listeners, &at.key("listener").index(part), listener);
            }
        }
        let unsure = self.failed(&At::root().key("route"));
        for pool in self.config.pool.keys().filter(|pool| !unsure && !used.contains(pool.as_str())) {
            let at = At::root().key("pool").key(pool);
            self.report.warning_at_key(&at, format!("no route uses the pool `{pool}`"), "it gets no requests");
        }
    }

    fn something_to_do(&mut self) {
        let root = At::root();
        if self.config.listener.is_empty() && !self.failed(&root.key("listener")) {
            let label = "add `[listener.web]` with `bind = \"0.0.0.0:8080\"`";
            self.report.error(&root, "there is no listener: nothing would be served", label);
        }
        if self.config.route.is_empty() && !self.failed(&root.key("route")) {
            let label = "add a `[[route]]`, such as `path = \"/\"` with `pool = \"NAME\"`";
            self.report.warning(&root, "there is no route: every request would be answered with 404", label);
        }
    }

    fn leads_to(&mut self, kind: &str, names: &BTreeSet<&str>, at: &At, name: &str) {
        // One that could not be read has been written all the same.
        if names.contains(name) || self.written(&At::root().key(kind).key(name)) {
            return;
        }
        let label = match nearest(name, names.iter().copied()) {
            None if names.is_empty() => format!("there is no {kind} at all"),
            None if names.len() == 1 => format!("the only {kind} is `{}`", names.iter().copied().collect::<String>()),
            None if names.len() <= 8 => {
                let names: Vec<&str> = names.iter().copied().collect();
                format!("the {kind}s are {}", list_words(&names))
            }
            near => did_you_mean(near),
        };
        self.report.error(at, format!("there is no {kind} called `{name}`"), label);
    }

    /// Names go into logs, metric labels and the admin API's paths.
    fn well_formed(&mut self) {
        let pools = self.config.pool.keys().map(|name| (At::root().key("pool").key(name), name));
        let listeners = self.config.listener.keys().map(|name| (At::root().key("listener").key(name), name));
        for (at, name) in listeners.chain(pools) {
            if !fits(name) {
                self.report.error_at_key(&at, format!("bad name {name:?}"), NAME);
            }
        }
        for (index, route) in self.config.route.iter().enumerate() {
            let at = At::root().key("route").index(index).key("name");
            if let Some(name) = route.name.as_ref().filter(|name| !fits(name)) {
                self.report.error(&at, format!("bad name {name:?}"), NAME);
            }
        }
    }

    fn routes_named_once(&mut self) {
        let mut first = BTreeMap::new();
        for (index, route) in self.config.route.iter().enumerate() {
            let Some(name) = &route.name else { continue };
            let at = At::root().key("route").index(index).key("name");
            match first.get(name) {
                Some(first) => {
                    self.report.clash(
                        &at,
                        first,
                        format!("two routes are called `{name}`"),
                        ["first here", "again here"],
                    );
                }
                None => {
                    first.insert(name, at);
                }
            }
        }
    }
}

const NAME: &str = "expected 1 to 100 characters, none of them a control character";

fn fits(name: &str) -> bool {
    let length = name.chars().count();
    (1..=100).contains(&length) && !name.chars().any(char::is_control)
}
