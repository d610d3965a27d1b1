//! From a configuration to the tables of a snapshot. Everything that can still be refused is refused here, before anything changes.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use super::access::{Issuers, derive_access};
use super::jwks::Fetching;
use super::listeners::Listeners;
use super::sealing_key;
use crate::access::Jwks;
use crate::config::{self, Config, model};
use crate::limit::{self, Limiter};
use crate::mcp::Keys;
use crate::proxy::pages::{Page, Pages, content_type};
use crate::route::{self, HeaderEdit, Rewrite, Table, Template};
use crate::scaler::HttpClient;
use crate::snapshot::{Action, Listener, Route};
use crate::telemetry::Registry;
use crate::telemetry::access::{AccessLog, Format, Target};
use crate::types::Moment;
use crate::upstream::{ClientTls, Settings};

/// What outlives a reload, besides the pools: limiter tables, by route and place; issuers' keys; the counters; the access log's writer.
#[derive(Debug)]
pub(super) struct Keep {
    /// All counters.
    pub registry: Arc<Registry>,
    /// The access log's writer.
    pub log: Arc<AccessLog>,
    limiters: HashMap<(String, usize), Arc<Limiter>>,
    /// The folder of the configuration's file.
    base: PathBuf,
    /// What MCP session ids are sealed with where the configuration has no key.
    made_key: OnceCell<Vec<u8>>,
    issuers: HashMap<(String, Duration), Fetching>,
    client: HttpClient,
}

/// The parts of a snapshot that come from the configuration alone.
#[derive(Debug)]
pub(super) struct Derived {
    /// By their permanent index.
    pub listeners: Vec<Arc<Listener>>,
    /// Which route takes a request.
    pub table: Arc<Table>,
    /// What the routes do.
    pub routes: Arc<[Route]>,
    /// The top level's pages.
    pub pages: Arc<Pages>,
    /// What access log lines look like.
    pub access_log: Option<Arc<Format>>,
    /// How each pool's upstreams are connected to.
    pub far: BTreeMap<String, Settings>,
    /// What MCP session ids are sealed with.
    pub keys: Arc<Keys>,
    limiters: HashMap<(String, usize), Arc<Limiter>>,
    issuers: Issuers,
    log: Target,
}

impl Keep {
    /// Nothing to keep yet.
    pub(super) fn new(registry: Arc<Registry>, log: Arc<AccessLog>, base: PathBuf) -> Self {
        Keep {
            registry,
            log,
            limiters: HashMap::new(),
            base,
            made_key: OnceCell::new(),
            issuers: HashMap::new(),
            client: HttpClient::default(),
        }
    }

    /// What MCP session ids are sealed with: the configuration's keys, else one that is made once and kept.
    fn keys(&self, config: &Config) -> Keys {
        if !config.mcp.keys.is_empty() {
            return Keys::derive(config.mcp.keys.iter().map(|key| key.expose().as_bytes()));
        }
        if config.pool.values().all(|pool| pool.kind == model::PoolKind::Http) {
            return Keys::derive([]);
        }
        let made = self.made_key.get_or_init(|| sealing_key::kept(&config.scaler.state_folder(&self.base)));
        Keys::derive([made.as_slice()])
    }

    /// Forgets idle clients, and writes down what the metrics page shows of limits.
    pub(super) fn sweep(&self, now: Moment) {
        for ((route, number), limiter) in &self.limiters {
            limiter.sweep(now);
            self.registry.limit(route, *number).control.observe(limiter);
        }
    }

    /// Takes over what a new configuration wants kept.
    ///
    /// **Errors**: the access log cannot be opened; nothing has changed then.
    pub(super) fn adopt(&mut self, derived: &mut Derived) -> Result<(), String> {
        let cannot = |error| format!("cannot open the access log: {error}; the one before stays in use");
        self.log.switch(derived.log.clone()).map_err(cannot)?;
        self.limiters = std::mem::take(&mut derived.limiters);
        let mut before = std::mem::take(&mut self.issuers);
        for (key, jwks) in std::mem::take(&mut derived.issuers) {
            let start = || Fetching::start(self.client.clone(), key.0.clone(), key.1, jwks);
            let fetching = before.remove(&key).unwrap_or_else(start);
            self.issuers.insert(key, fetching);
        }
        Ok(())
    }

    /// The keys of an issuer, where somebody fetches them already.
    pub(super) fn jwks(&self, key: &(String, Duration)) -> Option<Arc<Jwks>> {
        self.issuers.get(key).map(|fetching| fetching.jwks.clone())
    }
}

/// Derives the tables.
///
/// **Errors**: one text for each problem; the checks of `config` find most of them earlier and with their place in the text.
pub(super) fn derive(
    config: &Config,
    keep: &Keep,
    listeners: &mut Listeners,
    now: Moment,
) -> Result<Derived, Vec<String>> {
    let mut problems = Vec::new();
    let names = config::route_names(config);
    let known = listeners.adopt_names(config);
    let table = match Table::build(config::rules(config), &known) {
        Ok(table) => Some(table),
        Err(errors) => {
            problems.extend(errors.into_iter().map(|(index, error)| format!("route {}: {error}", names[index])));
            None
        }
    };
    let (mut limiters, mut issuers) = (HashMap::new(), Issuers::new());
    let mut routes = Vec::new();
    for (route, name) in config.route.iter().zip(&names) {
        match derive_access(route, keep, &mut issuers).and_then(|access| {
            derive_route(config, route, name, keep, &mut limiters, now).map(|route| Route { access, ..route })
        }) {
            Ok(route) => routes.push(route),
            Err(problem) => problems.push(format!("route {name}: {problem}")),
        }
    }
    let far = far_settings(config, &mut problems);
    let pages = pages(&config.error_pages).map_err(|problem| problems.push(problem)).ok();
    let listener_tables = listeners.derive(config, &keep.registry).map_err(|found| problems.extend(found)).ok();
    let format = match &config.access_log.target {
        model::LogTarget::Off => None,
        _ => Format::parse(&config.access_log.format)
            .map_err(|error| problems.push(format!("access_log.format: {error}")))
            .ok(),
    };
    match (table, pages, listener_tables) {
        (Some(table), Some(pages), Some(listeners)) if problems.is_empty() => Ok(Derived {
            listeners,
            table: Arc::new(table),
            routes: routes.into(),
            pages: Arc::new(pages),
            access_log: format.map(Arc::new),
            far,
            keys: Arc::new(keep.keys(config)),
            limiters,
            issuers,
            log: match &config.access_log.target {
                model::LogTarget::Off => Target::Off,
                model::LogTarget::Stdout => Target::Stdout,
                model::LogTarget::File(path) => Target::File(path.clone()),
            },
        }),
        _ => Err(problems),
    }
}

fn derive_route(
    config: &Config,
    route: &model::Route,
    name: &str,
    keep: &Keep,
    limiters: &mut HashMap<(String, usize), Arc<Limiter>>,
    now: Moment,
) -> Result<Route, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut limits = Vec::new();
    let mut limit_answers = Vec::new();
    for (number, limit) in route.limit.iter().enumerate() {
        let rule = limit_rule(limit);
        let key = (name.to_owned(), number);
        let limiter = match keep.limiters.get(&key) {
            Some(known) if *known.rule() == rule => known.clone(),
            Some(known) => Arc::new(known.with_rule(rule, now)),
            None => Arc::new(Limiter::new(rule)),
        };
        let status = StatusCode::from_u16(limit.status).map_err(|error| text(&error))?;
        limit_answers.push((status, keep.registry.limit(name, number)));
        limits.push(limiter.clone());
        limiters.insert(key, limiter);
    }
    Ok(Route {
        name: name.into(),
        action: action(config, route)?,
        rewrite: route.rewrite.as_ref().map(rewrite).transpose()?,
        request_headers: header_edit(&route.request_headers)?,
        response_headers: header_edit(&route.response_headers)?,
        limits,
        limit_answers,
        timeout: route.timeout.clone(),
        max_body: route.max_body.map(|size| size.map_or(u64::MAX, |size| size.0)),
        retry: route.retry.clone(),
        pages: Arc::new(pages(&route.error_pages)?),
        intercept_errors: route.intercept_errors,
        access_log: route.access_log,
        takes_lines: route.takes_lines() && pools_of(config, route).all(model::Pool::takes_lines),
        access: None,
        stats: keep.registry.route(name),
    })
}

/// The pools that a route's requests go to.
fn pools_of<'c>(config: &'c Config, route: &'c model::Route) -> impl Iterator<Item = &'c model::Pool> {
    let names = route.pool.iter().chain(route.split.iter().map(|split| &split.pool));
    names.filter_map(|name| config.pool.get(name))
}

pub(crate) fn rewrite(rewrite: &model::Rewrite) -> Result<Rewrite, String> {
    let made = match (&rewrite.prefix, &rewrite.path, &rewrite.regex) {
        (Some(prefix), _, _) => Rewrite::prefix(prefix),
        (_, Some(path), _) => Rewrite::path(path),
        (_, _, Some(regex)) => Rewrite::regex(regex, rewrite.to.as_deref().unwrap_or_default()),
        _ => return Err("rewrite: expected one of prefix, path and regex".to_owned()),
    };
    made.map_err(|error| format!("rewrite: {error}"))
}

fn header_edit(edit: &model::HeaderEdit) -> Result<HeaderEdit, String> {
    let all = |errors: Vec<route::EditError>| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    HeaderEdit::build(&edit.remove, &edit.set, &edit.add).map_err(all)
}

fn limit_rule(limit: &model::Limit) -> limit::Rule {
    limit::Rule {
        per: limit.per.clone(),
        rate: limit.rate,
        burst: limit.burst,
        cost: 1,
        delay: limit.delay,
        requests: limit.requests,
        connections: limit.connections,
        max_clients: limit.max_clients,
    }
}

fn action(config: &Config, route: &model::Route) -> Result<Action, String> {
    let index = |name: &str| {
        config.pool.keys().position(|known| known == name).ok_or_else(|| format!("no pool is called \"{name}\""))
    };
    let status = |code: u16| StatusCode::from_u16(code).map_err(|_| format!("{code} is not a status"));
    if let Some(pool) = &route.pool {
        return index(pool).map(Action::Pool);
    }
    if let Some(redirect) = &route.redirect {
        let to = Template::parse(&redirect.to).map_err(|error| error.to_string())?;
        return Ok(Action::Redirect(to, status(redirect.status)?));
    }
    if let Some(respond) = &route.respond {
        let body = Template::parse(&respond.body).map_err(|error| error.to_string())?;
        let content_type = HeaderValue::from_str(&respond.content_type).map_err(|error| error.to_string())?;
        return Ok(Action::Respond { status: status(respond.status)?, body, content_type });
    }
    let mut until = 0;
    let mut shares = Vec::new();
    for split in &route.split {
        until += u64::from(split.weight);
        shares.push((until, index(&split.pool)?));
    }
    if until == 0 { Err("it has no action".to_owned()) } else { Ok(Action::Split(shares)) }
}

fn far_settings(config: &Config, problems: &mut Vec<String>) -> BTreeMap<String, Settings> {
    let mut far = BTreeMap::new();
    for (name, pool) in &config.pool {
        let tls = pool.tls.as_ref().map(|tls| ClientTls::build(tls, pool.protocol, |path: &Path| std::fs::read(path)));
        match tls.transpose() {
            Ok(tls) => {
                far.insert(name.clone(), Settings::of(pool, tls.map(Arc::new)));
            }
            Err(error) => problems.push(format!("pool {name}: tls: {error}")),
        }
    }
    far
}

fn pages(files: &BTreeMap<String, PathBuf>) -> Result<Pages, String> {
    let mut pages = Pages::default();
    for (status, path) in files {
        let body = std::fs::read(path).map_err(|error| format!("error page {}: {error}", path.display()))?;
        if !pages.add(status, Page { body: Bytes::from(body), content_type: content_type(path) }) {
            return Err(format!("error page \"{status}\": expected a status such as \"502\", or \"4xx\" or \"5xx\""));
        }
    }
    Ok(pages)
}
