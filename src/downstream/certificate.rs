use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use super::tls::TlsError;

/// A certificate chain and its key, as PEM text, with the names of the files they are from.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The chain's file.
    pub certificate_file: String,
    /// The chain, its leaf first.
    pub certificate: Vec<u8>,
    /// The key's file.
    pub key_file: String,
    /// The key.
    pub key: Vec<u8>,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        f.debug_struct("Pair").field("certificate_file", &self.certificate_file).finish_non_exhaustive()
    }
}

/// A listener's certificates, chosen by the name that a client asks for.
///
/// An exact name goes before a wildcard, which stands for exactly one label (RFC 6125 §6.4.3); a client that asks for no name, or
/// for one that nobody has, gets the first certificate, and may then decide for itself.
#[derive(Debug)]
pub struct Certificates {
    first: Arc<CertifiedKey>,
    exact: HashMap<Box<str>, Keys>,
    /// By what follows the `*.`.
    wildcard: HashMap<Box<str>, Keys>,
    shown: Vec<Shown>,
}

/// Those of one name: more than one where there is one for each kind of key.
type Keys = Vec<Arc<CertifiedKey>>;

/// A certificate as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its file.
    pub file: String,
    /// The names it is for.
    pub names: Vec<String>,
    /// When it ends to be valid.
    pub not_after: SystemTime,
    /// Tells it from any other.
    leaf: CertificateDer<'static>,
}

impl Certificates {
    /// Reads all pairs; what is wrong with them is added to `errors`.
    pub(super) fn build(pairs: &[Pair], provider: &CryptoProvider, errors: &mut Vec<TlsError>) -> Option<Self> {
        let mut read = Vec::with_capacity(pairs.len());
        for pair in pairs {
            match key(pair, provider) {
                Ok(found) => read.push(found),
                Err(error) => errors.push(error),
            }
        }
        if pairs.is_empty() {
            errors.push(TlsError::NoCertificate);
        }
        let first = read.first()?.0.clone();
        let (mut exact, mut wildcard) = (HashMap::<_, Keys>::new(), HashMap::<_, Keys>::new());
        for (key, shown) in &read {
            for name in &shown.names {
                match name.strip_prefix("*.") {
                    Some(parent) => wildcard.entry(parent.into()).or_default().push(key.clone()),
                    None => exact.entry(name.as_str().into()).or_default().push(key.clone()),
                }
            }
        }
        let shown = read.into_iter().map(|(_, shown)| shown).collect();
        Some(Certificates { first, exact, wildcard, shown })
    }

    /// All of them, in the order of the configuration.
    pub fn shown(&self) -> &[Shown] {
        &self.shown
    }

    fn named(&self, name: &str) -> Option<&Keys> {
        let name = name.strip_suffix('.').unwrap_or(name);
        // rustls hands names over in lower case.
        self.exact.get(name).or_else(|| self.wildcard.get(name.split_once('.')?.1))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let Some(keys) = hello.server_name().and_then(|name| self.named(name)) else {
            return Some(self.first.clone());
        };
        let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        keys.iter().find(usable).or(keys.first()).cloned()
    }
}

fn key(pair: &Pair, provider: &CryptoProvider) -> Result<(Arc<CertifiedKey>, Shown), TlsError> {
    let wrong = |what: String| TlsError::content("certificate", &pair.certificate_file, what);
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pair.certificate)
        .collect::<Result<_, _>>()
        .map_err(|cause| wrong(format!("is not valid PEM: {cause}")))?;
    let Some(leaf) = chain.first() else {
        return Err(wrong("holds no certificate in PEM form".to_owned()));
    };
    let shown = {
        let (_, read) = x509_parser::parse_x509_certificate(leaf)
            .map_err(|cause| wrong(format!("does not begin with a readable certificate: {cause}")))?;
        show(pair, &read, leaf.clone())
    };
    let wrong_key = |what: String| TlsError::content("key", &pair.key_file, what);
    let secret = PrivateKeyDer::from_pem_slice(&pair.key)
        .map_err(|cause| wrong_key(format!("holds no private key in PEM form: {cause}")))?;
    let key = CertifiedKey::from_der(chain, secret, provider).map_err(|cause| match cause {
        rustls::Error::InconsistentKeys(_) => {
            wrong_key(format!("is not the key of the certificate in {}", pair.certificate_file))
        }
        cause => wrong_key(format!("cannot be used with {}: {cause}", pair.certificate_file)),
    })?;
    Ok((Arc::new(key), shown))
}

fn show(pair: &Pair, read: &X509Certificate<'_>, leaf: CertificateDer<'static>) -> Shown {
    let alternative = read.subject_alternative_name().ok().flatten();
    let mut names: Vec<String> = alternative
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    if names.is_empty() {
        // Old certificates have their name only there.
        let common = read.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        names.extend(common.map(str::to_ascii_lowercase));
    }
    let seconds = u64::try_from(read.validity().not_after.timestamp()).unwrap_or(0);
    let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    Shown { file: pair.certificate_file.clone(), names, not_after, leaf }
}
