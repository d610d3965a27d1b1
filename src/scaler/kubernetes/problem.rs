//! What the API server's refusals mean, and what the operator can do about them.

use std::error::Error;
use std::time::Duration;

use kube::core::Status;

use super::{DriverError, ErrorKind};

/// What was being done when it failed: the permission that it takes, as a Role has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doing<'a> {
    pub(super) verb: &'static str,
    /// With its subresource: `deployments/scale`.
    pub(super) resource: &'a str,
    pub(super) group: &'static str,
    /// For people: `Deployment "app" in namespace "shop"`.
    pub(super) subject: &'a str,
}

pub(super) fn refused(what: impl Into<String>, advice: &str) -> DriverError {
    DriverError { what: what.into(), advice: advice.to_owned(), kind: ErrorKind::Refused }
}

fn unreachable(what: String, advice: &str) -> DriverError {
    DriverError { what, advice: advice.to_owned(), kind: ErrorKind::Unreachable }
}

pub(super) fn full(what: String) -> DriverError {
    let advice = "raise the ResourceQuota, lower the pods' requests, or lower max in [pool.NAME.scaler]";
    DriverError { what, advice: advice.to_owned(), kind: ErrorKind::Full }
}

pub(super) fn too_slow(server: &str, bound: Duration) -> DriverError {
    unreachable(
        format!("the API server {server} has not answered within {bound:?}"),
        "check the API server's load and the network to it; everything stays as it is meanwhile",
    )
}

pub(super) fn credentials_too_slow(bound: Duration) -> DriverError {
    unreachable(
        format!("the kubeconfig's credentials were not there within {bound:?}"),
        "run the credential plugin of the kubeconfig by hand and see what it waits for",
    )
}

/// An error and what caused it, each said once.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Whether this refusal is a quota's.
pub(super) fn is_quota(message: &str) -> bool {
    message.contains("exceeded quota")
}

pub(super) fn explain(error: &kube::Error, server: &str, doing: Doing<'_>) -> DriverError {
    match error {
        kube::Error::Api(status) => answered(status, server, doing),
        kube::Error::Auth(error) => refused(
            format!("the credentials for {server} cannot be read: {}", chain(error)),
            "check the token file or the credential plugin of the kubeconfig",
        ),
        kube::Error::SerdeError(error) => unreachable(
            format!("{server} answers what is no Kubernetes API: {error}"),
            "check that the kubeconfig's server is an API server and no other proxy stands before it",
        ),
        error => unreachable(
            format!("the API server {server} cannot be reached: {}", cause(error)),
            "check that it runs, the address in the kubeconfig, and the network policy; everything stays as it is meanwhile",
        ),
    }
}

/// kube wraps what happened in `ServiceError: …`; the innermost cause says most.
fn cause(error: &kube::Error) -> String {
    let mut inner: &dyn Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

fn answered(status: &Status, server: &str, doing: Doing<'_>) -> DriverError {
    let said = if status.message.is_empty() { &status.reason } else { &status.message };
    let Doing { verb, resource, group, subject } = doing;
    match status.code {
        401 => refused(
            format!("the API server {server} does not know us: {said}"),
            "the token or client certificate has expired or is another cluster's: renew the kubeconfig, or check the pod's service account",
        ),
        403 if is_quota(said) => full(said.clone()),
        403 => {
            let group = if group.is_empty() { "\"\" (core)".to_owned() } else { format!("\"{group}\"") };
            let advice = format!(
                "allow the verb \"{verb}\" on the resource \"{resource}\" of the API group {group} in a Role bound to our service account (conf/kubernetes/rbac.yaml has it)"
            );
            refused(said.clone(), &advice)
        }
        404 => refused(
            format!("there is no {subject}"),
            "create it, or correct target and namespace in [pool.NAME.scaler.kubernetes]",
        ),
        409 => refused(
            format!("{subject} was changed by somebody else at the same moment: {said}"),
            "nothing, if this is rare: it is tried again",
        ),
        429 | 500..=599 => unreachable(
            format!("the API server {server} answers {}: {said}", status.code),
            "check the API server's health and load; everything stays as it is meanwhile",
        ),
        code => refused(format!("the API server refuses to {verb} {subject} with {code}: {said}"), "see what it says"),
    }
}
