//! The way to the API server: by the pod's service account, or by a kubeconfig.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rustls::crypto::{CryptoProvider, ring};
use tokio::sync::Mutex;
use tower::{BoxError, ServiceBuilder};

use super::problem::{self, Doing, refused};
use super::{Bounds, DriverError};

/// Where a cluster is and who we are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// A kubeconfig; unless given the pod's service account, and outside of a cluster the file that `KUBECONFIG` names.
    pub kubeconfig: Option<PathBuf>,
    /// Its context; the current one unless given.
    pub context: Option<String>,
    /// The namespace; the pod's or the context's own unless given.
    pub namespace: Option<String>,
}

/// A connection that is made when it is needed, and made anew from files when the API server does not know us any more.
#[derive(Debug)]
pub(super) struct Link {
    access: Access,
    bounds: Bounds,
    session: Mutex<Option<Arc<Session>>>,
}

pub(super) struct Session {
    pub(super) client: Client,
    pub(super) namespace: String,
    /// For people.
    pub(super) server: String,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({}, {})", self.server, self.namespace)
    }
}

impl Link {
    pub(super) fn new(access: Access, bounds: Bounds) -> Self {
        Link { access, bounds, session: Mutex::new(None) }
    }

    pub(super) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    pub(super) async fn session(&self) -> Result<Arc<Session>, DriverError> {
        let mut session = self.session.lock().await;
        if let Some(session) = &*session {
            return Ok(Arc::clone(session));
        }
        let opened = match tokio::time::timeout(self.bounds.call, open(&self.access, self.bounds.connect)).await {
            Ok(opened) => opened?,
            Err(_) => return Err(problem::credentials_too_slow(self.bounds.call)),
        };
        Ok(Arc::clone(session.insert(Arc::new(opened))))
    }

    /// Credentials are read anew at the next call: tokens and certificates are replaced in their files while we run.
    pub(super) async fn forget(&self) {
        *self.session.lock().await = None;
    }

    /// One call, bounded in time, its failure in words.
    pub(super) async fn call<T>(
        &self,
        doing: Doing<'_>,
        call: impl AsyncFnOnce(Arc<Session>) -> kube::Result<T>,
    ) -> Result<T, DriverError> {
        self.attempt(call, self.bounds.call).await?.map_err(|error| error.into_driver_error(doing))
    }

    /// As [`Link::call`], where some of the API server's refusals mean something.
    pub(super) async fn attempt<T>(
        &self,
        call: impl AsyncFnOnce(Arc<Session>) -> kube::Result<T>,
        bound: Duration,
    ) -> Result<Result<T, Failed>, DriverError> {
        let session = self.session().await?;
        let server = session.server.clone();
        let answer = match tokio::time::timeout(bound, call(session)).await {
            Ok(answer) => answer.map_err(|error| Failed { error, server }),
            Err(_) => return Err(problem::too_slow(&server, bound)),
        };
        if answer.as_ref().is_err_and(|failed| failed.code() == Some(401)) {
            self.forget().await;
        }
        Ok(answer)
    }
}

/// A call that the API server refused or never answered.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: kube::Error,
    pub(super) server: String,
}

impl Failed {
    /// The API server's status code, if it has answered.
    pub(super) fn code(&self) -> Option<u16> {
        match &self.error {
            kube::Error::Api(status) => Some(status.code),
            _ => None,
        }
    }

    pub(super) fn into_driver_error(self, doing: Doing<'_>) -> DriverError {
        problem::explain(&self.error, &self.server, doing)
    }
}

async fn open(access: &Access, connect: Duration) -> Result<Session, DriverError> {
    let config = config(access).await?;
    if let Some(proxy) = &config.proxy_url {
        return Err(refused(
            format!("the kubeconfig says proxy-url {proxy}, which Tidegate cannot use"),
            "remove proxy-url, or let a port forward stand in for it",
        ));
    }
    let namespace = access.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    // A credential plugin of the kubeconfig is a program: it may take its time, but not ours.
    let prepared = tokio::task::spawn_blocking(move || client(&config, connect)).await;
    match prepared {
        Ok(Ok(client)) => Ok(Session { client, namespace, server }),
        Ok(Err(error)) => Err(refused(
            format!("the credentials for {server} cannot be used: {}", problem::chain(&error)),
            "check the user and the certificate authority of the kubeconfig (`kubectl get pods` must work with it), or the pod's service account",
        )),
        Err(error) => Err(refused(format!("reading the credentials for {server} broke off: {error}"), "see the log")),
    }
}

async fn config(access: &Access) -> Result<Config, DriverError> {
    let unusable = |error| {
        let which = access.kubeconfig.as_ref().map_or("KUBECONFIG".to_owned(), |path| path.display().to_string());
        let advice = "check that the file exists, that we may read it, and that its context names a cluster and a user";
        refused(format!("the kubeconfig {which} cannot be used: {}", problem::chain(&error)), advice)
    };
    let in_cluster = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    let read = match &access.kubeconfig {
        Some(path) => Some(Kubeconfig::read_from(path).map_err(unusable)?),
        None if in_cluster => None,
        None => Kubeconfig::from_env().map_err(unusable)?,
    };
    let Some(read) = read else {
        return Config::incluster().map_err(|error| {
            refused(
                format!("this is no pod of a cluster, or it has no service account: {error}"),
                "set kubeconfig in [pool.NAME.scaler.kubernetes] (or KUBECONFIG), or run as a pod with automountServiceAccountToken",
            )
        });
    };
    let options = KubeConfigOptions { context: access.context.clone(), ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(read, &options).await.map_err(unusable)
}

/// Why not `Client::try_from(config)`: it retries by itself, has no bound for connecting of ours, and logs each failure as an error of its own.
fn client(config: &Config, connect: Duration) -> kube::Result<Client> {
    // kube asks rustls for the process's provider. Only ring is compiled in, and only ring is to be it.
    if CryptoProvider::get_default().is_none() {
        let _lost_a_race_for_the_same = ring::default_provider().install_default();
    }
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(connect));
    // Without TLS nothing is trusted, and the system's certificates need not be read for it.
    if config.cluster_url.scheme_str() == Some("http") {
        return over(http, config);
    }
    over(config.rustls_https_connector_with_connector(http)?, config)
}

fn over<C>(connector: C, config: &Config) -> kube::Result<Client>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let client = Http::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build::<_, Body>(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(client);
    Ok(Client::new(service, config.default_namespace.clone()))
}
