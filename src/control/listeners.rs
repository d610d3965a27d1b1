//! Listeners as control knows them: their permanent numbers, their sockets, and what a reload does to both.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::config::{Config, model};
use crate::downstream::{self, Bound, Inherited, Pair, Seats, Socket, SocketFile, Terms, TlsSettings, TlsTerms};
use crate::limit::ConnectionLimiter;
use crate::snapshot::Listener;
use crate::telemetry::Registry;
use crate::types::Bind;

/// All listeners that there are or have been since the start.
///
/// A listener's number is its place here. It is never given to another name, because connections keep it: also those of a listener that has
/// gone, which go on until they end by themselves.
#[derive(Debug)]
pub(super) struct Listeners {
    workers: usize,
    inherited: Inherited,
    known: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    name: String,
    seats: Arc<Seats>,
    tables: Option<Arc<Listener>>,
    /// The addresses it is bound to, as configured.
    open: BTreeMap<Bind, Opened>,
}

/// An address that is listened on.
#[derive(Debug)]
struct Opened {
    /// Where: with the port that the kernel chose, if it was asked to.
    address: Bind,
    /// The socket's file; gone with this.
    _file: Option<SocketFile>,
}

/// What a reload has bound, not yet in use. Dropping it closes the sockets.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    fresh: Vec<(usize, Bind, Bound)>,
    stale: Vec<(usize, Bind)>,
}

/// What the workers are to do about a listener.
#[derive(Debug)]
pub(super) enum Step {
    /// Open a door; one socket for each worker.
    Open {
        /// The listener's number.
        listener: usize,
        /// The address, as configured.
        bind: Bind,
        /// Its connections on all workers.
        seats: Arc<Seats>,
        /// One for each worker.
        sockets: Vec<Socket>,
    },
    /// Close it; its connections go on.
    Close {
        /// The listener's number.
        listener: usize,
        /// The address, as configured.
        bind: Bind,
    },
}

impl Listeners {
    /// None yet, for so many workers. Takes over what systemd has handed to the process.
    pub(super) fn new(workers: usize) -> Self {
        Listeners { workers, inherited: Inherited::from_environment(), known: Vec::new() }
    }

    /// Gives a number to each new name. The names, by number.
    pub(super) fn adopt_names(&mut self, config: &Config) -> Vec<String> {
        for name in config.listener.keys() {
            if !self.known.iter().any(|known| known.name == *name) {
                let open = BTreeMap::new();
                self.known.push(Known { name: name.clone(), seats: Seats::new(), tables: None, open });
            }
        }
        self.known.iter().map(|known| known.name.clone()).collect()
    }

    /// Their tables for the next snapshot, by number. A listener that has gone keeps its last ones.
    ///
    /// **Errors**: certificates that cannot be used, one text for each problem.
    pub(super) fn derive(&self, config: &Config, registry: &Registry) -> Result<Vec<Arc<Listener>>, Vec<String>> {
        let mut problems = Vec::new();
        let mut tables = Vec::new();
        for (number, known) in self.known.iter().enumerate() {
            match (config.listener.get(&known.name), &known.tables) {
                (Some(settings), before) => match derive(number, &known.name, settings, before.as_deref(), registry) {
                    Ok(listener) => tables.push(Arc::new(listener)),
                    Err(found) => problems.extend(found),
                },
                (None, Some(last)) => tables.push(last.clone()),
                // Named only by a configuration that was refused: nobody has ever connected to it.
                (None, None) => tables.extend(tables.last().cloned()),
            }
        }
        if problems.is_empty() { Ok(tables) } else { Err(problems) }
    }

    /// Binds what is new. Nothing that is in use changes.
    ///
    /// **Errors**: an address that cannot be listened on; what has been bound is closed again.
    pub(super) fn bind(&self, config: &Config) -> Result<Prepared, String> {
        let mut prepared = Prepared::default();
        for (number, known) in self.known.iter().enumerate() {
            let wanted = config.listener.get(&known.name).map(|settings| settings.bind.as_slice()).unwrap_or_default();
            for bind in wanted.iter().filter(|bind| !known.open.contains_key(bind)) {
                if self.moves(config, bind) {
                    continue;
                }
                let bound = downstream::bind(bind, self.workers, &self.inherited);
                let bound = bound.map_err(|error| format!("listener {}: {error}", known.name))?;
                prepared.fresh.push((number, bind.clone(), bound));
            }
            let stale = known.open.keys().filter(|bind| !wanted.contains(bind));
            prepared.stale.extend(stale.map(|bind| (number, bind.clone())));
        }
        Ok(prepared)
    }

    /// Whether an address goes from one listener to another in one step: it cannot be bound before it has been given up.
    fn moves(&self, config: &Config, bind: &Bind) -> bool {
        self.known.iter().any(|known| {
            let keeps = config.listener.get(&known.name).is_some_and(|settings| settings.bind.contains(bind));
            known.open.contains_key(bind) && !keeps
        })
    }

    /// Puts it in use; the steps are for the workers.
    pub(super) fn commit(&mut self, prepared: Prepared, tables: &[Arc<Listener>]) -> Vec<Step> {
        for (known, tables) in self.known.iter_mut().zip(tables) {
            if *tables.name == known.name {
                known.tables = Some(tables.clone());
            }
        }
        let mut steps = Vec::new();
        for (listener, bind, bound) in prepared.fresh {
            let known = &mut self.known[listener];
            tracing::info!(listener = %known.name, "listening on {}", bound.address);
            known.open.insert(bind.clone(), Opened { address: bound.address, _file: bound.file });
            steps.push(Step::Open { listener, bind, seats: known.seats.clone(), sockets: bound.sockets });
        }
        for (listener, bind) in prepared.stale {
            let known = &mut self.known[listener];
            if let Some(opened) = known.open.remove(&bind) {
                tracing::info!(listener = %known.name, "no longer listening on {}", opened.address);
            }
            steps.push(Step::Close { listener, bind });
        }
        steps
    }

    /// The listeners that are open, by number, and where.
    pub(super) fn open(&self) -> impl Iterator<Item = (usize, &str, Vec<&Bind>)> {
        let open = self.known.iter().enumerate().filter(|(_, known)| !known.open.is_empty());
        open.map(|(number, known)| {
            (number, known.name.as_str(), known.open.values().map(|opened| &opened.address).collect())
        })
    }

    /// Forgets idle clients of the limits at accept.
    pub(super) fn sweep(&self, now: crate::types::Moment) {
        let tables = self.known.iter().filter_map(|known| known.tables.as_ref());
        tables.filter_map(|tables| tables.per_client.as_ref()).for_each(|limiter| limiter.sweep(now));
    }
}

fn derive(
    number: usize,
    name: &str,
    settings: &model::Listener,
    before: Option<&Listener>,
    registry: &Registry,
) -> Result<Listener, Vec<String>> {
    let problem = |text: String| format!("listener {name}: tls: {text}");
    let tls = match &settings.tls {
        None => None,
        Some(tls) => {
            let settings = tls_settings(tls, settings).map_err(|error| vec![problem(error)])?;
            let before = before.and_then(|before| before.terms.tls.as_deref());
            let terms = TlsTerms::build(&settings, before);
            Some(Arc::new(
                terms.map_err(|errors| errors.iter().map(|error| problem(error.to_string())).collect::<Vec<_>>())?,
            ))
        }
    };
    let known = before.and_then(|before| before.per_client.as_ref());
    let per_client = settings
        .max_connections_per_client
        .map(|max| Arc::new(known.map_or_else(|| ConnectionLimiter::new(max), |known| known.with_max(max))));
    Ok(Listener {
        name: name.into(),
        terms: Arc::new(Terms::new(number, name, settings, tls)),
        settings: settings.clone(),
        per_client,
        stats: registry.listener(name),
    })
}

/// The `tls` table with the contents of its files.
fn tls_settings(tls: &model::ListenerTls, listener: &model::Listener) -> Result<TlsSettings, String> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()));
    let first = tls.certificate.iter().zip(&tls.key);
    let others = tls.certificates.iter().map(|pair| (&pair.certificate, &pair.key));
    let mut certificates = Vec::new();
    for (certificate, key) in first.chain(others) {
        certificates.push(Pair {
            certificate_file: certificate.display().to_string(),
            certificate: read(certificate)?,
            key_file: key.display().to_string(),
            key: read(key)?,
        });
    }
    let client_ca = match &tls.client_ca {
        Some(path) => Some((path.display().to_string(), read(path)?)),
        None => None,
    };
    Ok(TlsSettings {
        certificates,
        min_version: tls.min_version,
        client_ca,
        client_auth: tls.client_auth,
        handshake_timeout: tls.handshake_timeout,
        protocols: listener.protocols.clone(),
    })
}
