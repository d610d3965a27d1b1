//! Certificates and keys: that they can be read, belong together and are still good.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Check;
use crate::config::model::{ClientAuth, ListenerTls, Pool, UpstreamTls};
use crate::config::place::At;
use crate::types::Address;

impl Check<'_> {
    pub(super) fn listener_tls(&mut self, tls: &ListenerTls, at: &At) {
        self.pair(tls.certificate.as_deref(), tls.key.as_deref(), at);
        for (index, further) in tls.certificates.iter().enumerate() {
            self.pair(Some(&further.certificate), Some(&further.key), &at.key("certificates").index(index));
        }
        let none = tls.certificate.is_none() && tls.key.is_none() && tls.certificates.is_empty();
        if none && !self.failed(at) {
            self.report.error(at, "TLS on a listener needs a certificate", "expected `certificate` and `key`");
        }
        if let Some(path) = &tls.client_ca {
            self.authorities(path, &at.key("client_ca"));
        } else if tls.client_auth != ClientAuth::Require && !self.failed(at) {
            let label = "it says how strictly `client_ca` is meant, which is not set";
            self.report.warning_at_key(&at.key("client_auth"), "client certificates are not asked for", label);
        }
    }

    pub(super) fn upstream_tls(&mut self, tls: &UpstreamTls, pool: &Pool, at: &At) {
        if let Some(path) = &tls.ca {
            self.authorities(path, &at.key("ca"));
        }
        self.pair(tls.certificate.as_deref(), tls.key.as_deref(), at);
        match &tls.server_name {
            Some(name) if ServerName::try_from(name.as_str()).is_err() => {
                let label = "expected a host such as \"api.internal\", without a port";
                self.report.error(&at.key("server_name"), format!("bad server name {name:?}"), label);
            }
            Some(_) => {}
            None if pool.upstreams.iter().any(|upstream| matches!(upstream.address, Address::Unix(_))) => {
                let label = "expected `server_name`, the name to verify: a Unix socket has none";
                self.report.error(at, "TLS to a Unix socket needs a name", label);
            }
            None => {}
        }
        if !tls.verify {
            let label = "whoever can answer at their addresses can be them";
            self.report.warning(&at.key("verify"), "upstreams are not verified", label);
        }
    }

    /// A certificate and its key, which come together or not at all.
    fn pair(&mut self, certificate: Option<&Path>, key: Option<&Path>, at: &At) {
        let (certificate_at, key_at) = (at.key("certificate"), at.key("key"));
        let chain = certificate.and_then(|path| self.chain(path, &certificate_at));
        let private = key.and_then(|path| self.private_key(path, &key_at));
        match (certificate, key) {
            (Some(_), None) if !self.failed(at) => {
                self.report.error(&certificate_at, "a certificate without its key", "expected `key` beside it");
            }
            (None, Some(_)) if !self.failed(at) => {
                self.report.error(&key_at, "a key without its certificate", "expected `certificate` beside it");
            }
            _ => {}
        }
        let (Some(chain), Some(private)) = (chain, private) else { return };
        let provider_key = match any_supported_type(&private) {
            Ok(key) => key,
            Err(_) => {
                let label = "expected an RSA (2048 to 8192 bits), ECDSA (P-256, P-384) or Ed25519 key";
                return self.report.error(&key_at, "the private key cannot be used", label);
            }
        };
        match CertifiedKey::new(chain, Arc::clone(&provider_key)).keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                let labels = ["this certificate has another public key", "this key does not belong to it"];
                self.report.clash(&key_at, &certificate_at, "the certificate and the key do not match", labels);
            }
            Err(error) => self.report.error(&certificate_at, "the certificate cannot be used", error.to_string()),
        }
    }

    /// The certificates of a file.
    fn certificates(&mut self, path: &Path, at: &At) -> Option<Vec<CertificateDer<'static>>> {
        let pem = self.file(at, path, "certificate")?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match certificates {
            Ok(certificates) if !certificates.is_empty() => Some(certificates),
            Ok(_) if PrivateKeyDer::from_pem_slice(&pem).is_ok() => {
                self.report.error(at, "there is no certificate in the file", "this is a private key");
                None
            }
            Ok(_) => {
                let label = "expected PEM, with a line `-----BEGIN CERTIFICATE-----`";
                self.report.error(at, "there is no certificate in the file", label);
                None
            }
            Err(error) => {
                self.report.error(at, "the certificate is not PEM", error.to_string());
                None
            }
        }
    }

    /// A chain whose leaf is still good.
    fn chain(&mut self, path: &Path, at: &At) -> Option<Vec<CertificateDer<'static>>> {
        let chain = self.certificates(path, at)?;
        let leaf = chain.first()?;
        let Ok((_, leaf)) = X509Certificate::from_der(leaf) else {
            self.report.error(at, "the certificate cannot be used", "its content is not an X.509 certificate");
            return None;
        };
        let now = seconds(self.surroundings.now());
        let validity = leaf.validity();
        if validity.not_after.timestamp() < now {
            let label = format!("it was good until {}", date(validity.not_after.timestamp()));
            self.report.warning(at, "the certificate has expired", label);
        }
        if validity.not_before.timestamp() > now {
            let label = format!("it is good from {} on", date(validity.not_before.timestamp()));
            self.report.warning(at, "the certificate is not yet good", label);
        }
        Some(chain)
    }

    fn private_key(&mut self, path: &Path, at: &At) -> Option<PrivateKeyDer<'static>> {
        let pem = self.file(at, path, "private key")?;
        match PrivateKeyDer::from_pem_slice(&pem) {
            Ok(key) => Some(key),
            Err(rustls::pki_types::pem::Error::NoItemsFound) => {
                let label = match CertificateDer::from_pem_slice(&pem) {
                    Ok(_) => "this is a certificate",
                    Err(_) => {
                        "expected PEM, with a line `-----BEGIN PRIVATE KEY-----`; an encrypted key cannot be used"
                    }
                };
                self.report.error(at, "there is no private key in the file", label);
                None
            }
            // The error may quote the file, which is a secret.
            Err(_) => {
                self.report.error(at, "the private key is not PEM", "expected PEM");
                None
            }
        }
    }

    /// Certificates of authorities to trust.
    fn authorities(&mut self, path: &Path, at: &At) {
        let Some(certificates) = self.certificates(path, at) else { return };
        let (_, unusable) = RootCertStore::empty().add_parsable_certificates(certificates);
        if unusable > 0 {
            let label = format!("{unusable} of its certificates cannot be read");
            self.report.error(at, "the authorities cannot be used", label);
        }
    }
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A date as in HTTP: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn date(seconds: i64) -> String {
    // httpdate ends with the year 9999.
    let seconds = u64::try_from(seconds).unwrap_or(0).min(253_402_300_799);
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}
