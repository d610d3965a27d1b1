//! From what a route says of who may ask to what its requests are asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::derive::Keep;
use crate::access::{
    Auth, Cors, Jwks, KeyRing, KeySet, Keys, NamePattern, OriginPattern, Origins, Resource, TokenRules, Tokens,
};
use crate::config::model::{self, JwksPlace};
use crate::config::resource_path;
use crate::snapshot::Access;

/// The issuers whose keys are fetched: where from, and how often.
pub(super) type Issuers = HashMap<(String, Duration), Arc<Jwks>>;

/// What a route's requests are asked; none where it says nothing of that.
pub(super) fn derive_access(
    route: &model::Route,
    keep: &Keep,
    issuers: &mut Issuers,
) -> Result<Option<Box<Access>>, String> {
    let checked = !route.origins.is_empty();
    if !checked && route.cors.is_none() && route.auth.is_none() && route.resource.is_none() {
        return Ok(None);
    }
    let auth = route.auth.as_ref().map(|settings| auth(settings, keep, issuers)).transpose()?;
    let header = route.auth.as_ref().and_then(|auth| auth.principal_header.as_ref());
    Ok(Some(Box::new(Access {
        origins: checked.then(|| Origins(route.origins.clone())),
        cors: route.cors.as_ref().map(|settings| cors(settings, &route.origins)),
        auth,
        resource: route.resource.as_ref().map(|settings| resource(settings, route)).transpose()?,
        forward: route.auth.as_ref().and_then(|auth| auth.forward),
        principal_header: header
            .map(|name| name.parse())
            .transpose()
            .map_err(|_| "auth.principal_header: bad header name")?,
        hosts: route.host.clone(),
        listeners: route.listener.clone(),
    })))
}

fn cors(settings: &model::CorsSettings, of_route: &[OriginPattern]) -> Cors {
    let origins = match (settings.origins.as_slice(), of_route) {
        ([], []) => vec![OriginPattern::Any],
        ([], of_route) => of_route.to_vec(),
        (own, _) => own.to_vec(),
    };
    let preset = settings.preset;
    let with = |own: &[String], preset: &[&str]| -> Vec<String> {
        let preset = preset.iter().map(|name| (*name).to_owned());
        preset.chain(own.iter().cloned()).collect()
    };
    let mut methods = with(&settings.methods, preset.map_or(&[], |preset| preset.methods()));
    if methods.is_empty() {
        methods = with(&[], &["GET", "HEAD", "POST"]);
    }
    let preset_headers = preset.map_or(&[][..], |preset| preset.headers()).iter();
    let mut headers: Vec<NamePattern> = preset_headers.filter_map(|name| name.parse().ok()).collect();
    headers.extend_from_slice(&settings.headers);
    let expose = with(&settings.expose, preset.map_or(&[], |preset| preset.expose()));
    let max_age = settings.max_age.or(preset.map(|preset| preset.max_age()));
    Cors::new(Origins(origins), settings.credentials, &methods, &headers, &expose, max_age)
}

fn auth(settings: &model::AuthSettings, keep: &Keep, issuers: &mut Issuers) -> Result<Auth, String> {
    let keys = match &settings.keys {
        None => None,
        Some(path) => {
            let cannot = |why: &dyn std::fmt::Display| format!("auth.keys: {}: {why}", path.display());
            let text = std::fs::read_to_string(path).map_err(|error| cannot(&error))?;
            let header = settings.header.as_ref().map(|name| name.parse()).transpose();
            Some(Keys {
                ring: KeyRing::parse(&text).map_err(|error| cannot(&error))?,
                header: header.map_err(|_| "auth.header: bad header name")?,
            })
        }
    };
    let tokens = settings.jwt.as_ref().map(|jwt| tokens(jwt, keep, issuers)).transpose()?;
    Ok(Auth { keys, tokens, scopes: settings.scopes.clone() })
}

fn tokens(jwt: &model::JwtSettings, keep: &Keep, issuers: &mut Issuers) -> Result<Tokens, String> {
    let jwks = match &jwt.jwks {
        JwksPlace::File(path) => {
            let cannot = |why: &dyn std::fmt::Display| format!("auth.jwt.jwks: {}: {why}", path.display());
            let bytes = std::fs::read(path).map_err(|error| cannot(&error))?;
            Jwks::fixed(KeySet::parse(&bytes).map_err(|error| cannot(&error))?)
        }
        JwksPlace::Url(url) => {
            let key = (url.clone(), jwt.refresh);
            issuers.entry(key).or_insert_with_key(|key| keep.jwks(key).unwrap_or_else(Jwks::remote)).clone()
        }
    };
    let rules = TokenRules {
        issuer: jwt.issuer.clone(),
        audience: jwt.audience.clone(),
        algorithms: jwt.algorithms.clone(),
        leeway: jwt.leeway.as_secs(),
        claim: jwt.claim.clone(),
    };
    Ok(Tokens::new(jwks, rules, jwt.scopes.clone()))
}

fn resource(settings: &model::ResourceSettings, route: &model::Route) -> Result<Resource, String> {
    let path = resource_path(&route.path).unwrap_or_default();
    let made = Resource::new(
        settings.url.as_deref(),
        path,
        &settings.authorization_servers,
        &settings.scopes,
        settings.documentation.as_deref(),
    );
    made.map_err(|why| format!("resource.url: {why}"))
}
