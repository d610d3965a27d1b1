//! Listeners as control knows them: their permanent numbers, their sockets, and what a reload does to both.
//!
//! An address that goes from one name to another (a listener that is renamed), or that covers one given up in the same edit (`:8080` instead of
//! `127.0.0.1:8080`), is never without a socket: the first is handed over as it is, the other opened beside the old one.

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
    file: Option<SocketFile>,
}

/// What a reload has bound, not yet in use. Dropping it closes the sockets.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    fresh: Vec<(usize, Bind, Bound)>,
    moved: Vec<Moved>,
    stale: Vec<(usize, Bind)>,
}

/// An address that goes from one listener to another.
#[derive(Debug)]
struct Moved {
    from: usize,
    to: usize,
    bind: Bind,
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
    /// Hand the door's socket to another listener; its connections go on.
    Move {
        /// The number of the listener that had it.
        from: usize,
        /// The number of the one that gets it.
        to: usize,
        /// The address, as configured.
        bind: Bind,
        /// The latter's connections on all workers.
        seats: Arc<Seats>,
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
                if let Some(from) = self.hands_over(config, bind) {
                    prepared.moved.push(Moved { from, to: number, bind: bind.clone() });
                    continue;
                }
                let bound = match self.gives_up(config, bind) {
                    true => downstream::rebind(bind, self.workers, &self.inherited),
                    false => downstream::bind(bind, self.workers, &self.inherited),
                };
                let bound = bound.map_err(|error| format!("listener {}: {error}", known.name))?;
                prepared.fresh.push((number, bind.clone(), bound));
            }
            let stale = known.open.keys().filter(|bind| !wanted.contains(bind));
            prepared.stale.extend(stale.map(|bind| (number, bind.clone())));
        }
        Ok(prepared)
    }

    /// What is listened on now and no longer will be.
    fn given_up<'a>(&'a self, config: &'a Config) -> impl Iterator<Item = (usize, &'a Bind, &'a Opened)> {
        self.known.iter().enumerate().flat_map(move |(number, known)| {
            let keeps = |bind: &Bind| config.listener.get(&known.name).is_some_and(|kept| kept.bind.contains(bind));
            known.open.iter().filter(move |(bind, _)| !keeps(bind)).map(move |(bind, opened)| (number, bind, opened))
        })
    }

    /// The listener that has this address and does not want it any more.
    fn hands_over(&self, config: &Config, bind: &Bind) -> Option<usize> {
        self.given_up(config).find(|(_, known, _)| *known == bind).map(|(from, ..)| from)
    }

    /// Whether a port is given up in the same step, so that nobody but ourselves is found there.
    fn gives_up(&self, config: &Config, bind: &Bind) -> bool {
        let Bind::Tcp(wanted) = bind else { return false };
        let same = |opened: &Opened| matches!(opened.address, Bind::Tcp(address) if address.port() == wanted.port());
        wanted.port() != 0 && self.given_up(config).any(|(_, _, opened)| same(opened))
    }

    /// Forgets the names that only a refused configuration had.
    pub(super) fn forget_unused(&mut self) {
        while self.known.last().is_some_and(|known| known.tables.is_none() && known.open.is_empty()) {
            self.known.pop();
        }
    }

    /// Holds nothing open any longer, so that the workers' sockets are the last.
    pub(super) fn let_go(&mut self) {
        self.known.iter_mut().for_each(|known| known.open.clear());
    }

    /// Puts it in use; the steps are for the workers.
    pub(super) fn commit(&mut self, prepared: Prepared, tables: &[Arc<Listener>], registry: &Registry) -> Vec<Step> {
        for (known, tables) in self.known.iter_mut().zip(tables) {
            if *tables.name == known.name {
                let before = known.tables.replace(tables.clone());
                if let Some(before) = before.as_ref().and_then(|before| before.terms.tls.as_ref())
                    && let Some(now) = &tables.terms.tls
                    && before.certificates().shown() != now.certificates().shown()
                {
                    registry.control.certificates.up();
                }
            }
        }
        let mut steps = Vec::new();
        for (listener, bind, bound) in prepared.fresh {
            let known = &mut self.known[listener];
            tracing::info!(listener = %known.name, "listening on {}", bound.address);
            known.open.insert(bind.clone(), Opened { address: bound.address, file: bound.file });
            steps.push(Step::Open { listener, bind, seats: known.seats.clone(), sockets: bound.sockets });
        }
        for Moved { from, to, bind } in prepared.moved {
            if let Some(opened) = self.known[from].open.remove(&bind) {
                tracing::info!(listener = %self.known[to].name, "takes over {}", opened.address);
                self.known[to].open.insert(bind.clone(), opened);
            }
            steps.push(Step::Move { from, to, bind, seats: self.known[to].seats.clone() });
        }
        for (listener, bind) in prepared.stale {
            let known = &mut self.known[listener];
            // One that was handed over has been taken out already.
            let Some(Opened { address, file }) = known.open.remove(&bind) else { continue };
            tracing::info!(listener = %known.name, "no longer listening on {address}");
            drop(file);
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
