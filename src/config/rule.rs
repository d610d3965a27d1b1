//! From routes as they are configured to the rules that requests are matched by: one way for serving, explaining and checking.

use std::collections::{BTreeMap, BTreeSet};

use http::{HeaderName, Method};

use super::model::{Config, Route};
use crate::route::{Condition, Rule, Subject, ValuePattern};

/// The rules of all routes, in their order, under the names of [`route_names`].
pub fn rules(config: &Config) -> Vec<Rule> {
    config.route.iter().zip(route_names(config)).map(|(route, name)| rule(route, name)).collect()
}

/// A name for each route: its own, or one made of its host and path; no two alike.
///
/// Names are what counters and limiter tables are kept under over reloads, so a route's own name never changes because
/// another route was added; a made one may get a number.
pub fn route_names(config: &Config) -> Vec<String> {
    let mut taken: BTreeSet<String> = config.route.iter().filter_map(|route| route.name.clone()).collect();
    // How many have wanted a name; thousands may want the same.
    let mut wishes: BTreeMap<String, usize> = BTreeMap::new();
    let mut names = Vec::with_capacity(config.route.len());
    for route in &config.route {
        if let Some(name) = &route.name {
            names.push(name.clone());
            continue;
        }
        let wanted = made_name(route);
        let number = wishes.entry(wanted.clone()).or_insert(0);
        let name = loop {
            *number += 1;
            let name = if *number == 1 { wanted.clone() } else { format!("{wanted} #{number}") };
            if taken.insert(name.clone()) {
                break name;
            }
        };
        names.push(name);
    }
    names
}

fn made_name(route: &Route) -> String {
    let host = route.host.first().map(ToString::to_string).unwrap_or_default();
    let path = route.path.first().map(ToString::to_string).unwrap_or_default();
    let name = format!("{host}{path}");
    if name.is_empty() { "any".to_owned() } else { name }
}

fn rule(route: &Route, name: String) -> Rule {
    let mut conditions = Vec::new();
    let mut add = |negated, subjects: Vec<Subject>| {
        conditions.extend(subjects.into_iter().map(|subject| Condition { subject, negated }));
    };
    add(false, methods(&route.method));
    add(false, values(&route.header, &route.query, &route.cookie));
    add(false, some(&route.from, Subject::Source));
    if let Some(except) = &route.except {
        // Any one of them excepts, so each is a condition of its own.
        add(true, some(&except.host, Subject::Host));
        add(true, some(&except.path, Subject::Path));
        add(true, methods(&except.method));
        add(true, values(&except.header, &except.query, &except.cookie));
        add(true, some(&except.from, Subject::Source));
    }
    Rule {
        name,
        listeners: route.listener.clone(),
        hosts: route.host.clone(),
        paths: route.path.clone(),
        conditions,
        priority: route.priority,
    }
}

/// A subject of a list, if there is anything in it.
fn some<T: Clone>(list: &[T], subject: impl Fn(Vec<T>) -> Subject) -> Vec<Subject> {
    if list.is_empty() { Vec::new() } else { vec![subject(list.to_vec())] }
}

fn methods(names: &[String]) -> Vec<Subject> {
    let methods: Vec<Method> = names.iter().filter_map(|name| Method::from_bytes(name.as_bytes()).ok()).collect();
    some(&methods, Subject::Method)
}

/// Names that are none have been reported; a rule without them is never served.
fn values(
    headers: &BTreeMap<String, ValuePattern>,
    parameters: &BTreeMap<String, ValuePattern>,
    cookies: &BTreeMap<String, ValuePattern>,
) -> Vec<Subject> {
    let headers = headers
        .iter()
        .filter_map(|(name, value)| Some(Subject::Header(name.parse::<HeaderName>().ok()?, value.clone())));
    let parameters = parameters.iter().map(|(name, value)| Subject::Query(name.clone(), value.clone()));
    let cookies = cookies.iter().map(|(name, value)| Subject::Cookie(name.clone(), value.clone()));
    headers.chain(parameters).chain(cookies).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Memory, read_text};

    fn config(routes: &str) -> Config {
        let text = format!("[listener.web]\nbind = \":80\"\n{routes}");
        let outcome = read_text("t.toml", &text, &Memory::default());
        let problems = crate::config::render(&outcome.problems, false);
        Config::clone(&outcome.config.unwrap_or_else(|| panic!("{problems}")))
    }

    #[test]
    fn routes_without_a_name_get_one_that_nobody_else_has() {
        let config = config(
            "[[route]]\nhost = \"a.com\"\npath = \"/x\"\nrespond = 204\n\
             [[route]]\nhost = \"a.com\"\npath = \"/x\"\nmethod = \"PUT\"\nrespond = 204\n\
             [[route]]\nname = \"a.com/x\"\npath = \"/y\"\nrespond = 204\n\
             [[route]]\nrespond = 204\n",
        );
        assert_eq!(route_names(&config), ["a.com/x #2", "a.com/x #3", "a.com/x", "any"]);
    }

    #[test]
    fn every_key_becomes_a_condition() {
        let config = config(
            "[[route]]\nmethod = [\"GET\", \"PUT\"]\nheader = { a = \"1\" }\nquery = { b = \"2\" }\ncookie = { c = \"3\" }\n\
             from = \"10.0.0.0/8\"\nexcept = { host = \"a.com\", path = \"/x\", from = [\"10.1.0.0/16\"] }\nrespond = 204\n",
        );
        let rules = rules(&config);
        let negated = rules[0].conditions.iter().filter(|condition| condition.negated).count();
        assert_eq!((rules[0].conditions.len(), negated), (8, 3));
    }
}
