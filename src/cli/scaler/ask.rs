use std::time::Duration;

use bytes::Bytes;

use crate::admin::scaling::{Finding, History, PoolScaler, Record, ScalerStatus, Series};
use crate::cli::Failure;
use crate::cli::arguments::AdminArguments;
use crate::cli::client::{Client, segment};
use crate::cli::place::Place;
use crate::types::format_duration;

/// The scaler's part of the admin API, as the commands use it. Each answer comes with its text, for `--json`.
#[derive(Debug)]
pub(super) struct Asking {
    client: Client,
}

impl Asking {
    pub(super) fn of(admin: &AdminArguments) -> Result<Self, Failure> {
        Ok(Asking { client: Client::new(Place::find(admin)?) })
    }

    pub(super) async fn status(&self) -> Result<(ScalerStatus, Bytes), Failure> {
        self.client.look("/scaler").await
    }

    pub(super) async fn doctor(&self) -> Result<Vec<Finding>, Failure> {
        Ok(self.client.look("/scaler/doctor").await?.0)
    }

    pub(super) async fn explain(&self, pool: &str, at: Option<f64>) -> Result<(Record, Bytes), Failure> {
        let at = at.map(|at| format!("?at={at}")).unwrap_or_default();
        self.client.look(&format!("/scaler/{}/explain{at}", segment(pool))).await
    }

    pub(super) async fn history(&self, pool: &str, since: f64, all: bool) -> Result<History, Failure> {
        Ok(self.client.look(&format!("/scaler/{}/history?since={since}&all={all}", segment(pool))).await?.0)
    }

    pub(super) async fn series(&self, pool: &str, since: f64) -> Result<Series, Failure> {
        Ok(self.client.look(&format!("/scaler/{}/series?since={since}", segment(pool))).await?.0)
    }

    /// The configuration that runs.
    pub(super) async fn config(&self) -> Result<String, Failure> {
        self.client.text("/config").await
    }

    pub(super) async fn pause(&self, pool: &str, lasting: Duration) -> Result<PoolScaler, Failure> {
        self.order(pool, &format!("pause?for={}", format_duration(lasting))).await
    }

    pub(super) async fn resume(&self, pool: &str) -> Result<PoolScaler, Failure> {
        self.order(pool, "resume").await
    }

    pub(super) async fn set(&self, pool: &str, to: Option<u32>, lasting: Duration) -> Result<PoolScaler, Failure> {
        let query = to.map(|to| format!("?to={to}&for={}", format_duration(lasting))).unwrap_or_default();
        self.order(pool, &format!("set{query}")).await
    }

    pub(super) async fn recycle(&self, pool: &str) -> Result<PoolScaler, Failure> {
        self.order(pool, "recycle").await
    }

    async fn order(&self, pool: &str, what: &str) -> Result<PoolScaler, Failure> {
        Ok(self.client.order(&format!("/scaler/{}/{what}", segment(pool))).await?.0)
    }
}

/// The pool that is meant: the one named, else the only one there is.
///
/// **Errors**: it is not there, or several are and none is named.
pub(super) fn one<'a>(status: &'a ScalerStatus, named: Option<&str>) -> Result<&'a PoolScaler, Failure> {
    let names = || status.pools.iter().map(|pool| pool.pool.as_str()).collect::<Vec<_>>().join(", ");
    match (named, &status.pools[..]) {
        (_, []) => Err(Failure::Failed(anyhow::anyhow!("no pool has a scaler: give one a section [pool.NAME.scaler]"))),
        (None, [only]) => Ok(only),
        (None, _) => Err(Failure::Usage(format!("name the pool: {}", names()))),
        (Some(name), pools) => pools.iter().find(|pool| pool.pool == name).ok_or_else(|| {
            Failure::Failed(anyhow::anyhow!("pool `{name}` has no scaler; those that have: {}", names()))
        }),
    }
}

/// All pools, or the one named.
pub(super) fn some<'a>(status: &'a ScalerStatus, named: Option<&str>) -> Result<Vec<&'a PoolScaler>, Failure> {
    match named {
        Some(_) => Ok(vec![one(status, named)?]),
        None if status.pools.is_empty() => one(status, None).map(|pool| vec![pool]),
        None => Ok(status.pools.iter().collect()),
    }
}
