use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::target::hasher;
use crate::config::model::{Protocol, UpstreamTls};

/// TLS towards the upstreams of one pool: what to trust, what to show, what to speak.
///
/// Connections made with one of these resume each other's sessions, on all workers.
#[derive(Debug)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
    fingerprint: u64,
}

/// Why TLS towards upstreams cannot be set up; its text is for the person who wrote the configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The configuration key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} {what}", path.display())]
    Content {
        /// The configuration key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A certificate without a key, or a key without a certificate.
    #[error("a client certificate needs both `certificate` and `key`")]
    HalfPair {
        /// The configuration key that is missing.
        key: &'static str,
    },
    /// A name that no certificate can be made for.
    #[error("expected a host name or an IP address that a certificate can be made for, found {0:?}")]
    ServerName(String),
    /// The system has no authorities to trust.
    #[error("found no certificate authorities on this system ({0}); name a `ca`")]
    NoAuthorities(String),
}

impl TlsError {
    /// The configuration key of the pool's `tls` table that the error is about.
    pub fn key(&self) -> &'static str {
        match self {
            TlsError::Read { key, .. } | TlsError::Content { key, .. } | TlsError::HalfPair { key } => key,
            TlsError::ServerName(_) => "server_name",
            TlsError::NoAuthorities(_) => "ca",
        }
    }
}

impl ClientTls {
    /// Sets up what `settings` ask for, to speak `protocol` over it; `read` reads the files they name.
    ///
    /// **Cost**: the system's authorities are read once in a process, a few milliseconds.
    pub fn build(
        settings: &UpstreamTls,
        protocol: Protocol,
        read: impl Fn(&Path) -> io::Result<Vec<u8>>,
    ) -> Result<Self, TlsError> {
        let read = |key: &'static str, path: &Path| {
            read(path).map_err(|source| TlsError::Read { key, path: path.to_owned(), source })
        };
        let mut fingerprint = hasher();
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("the provider supports the default versions");

        let builder = match &settings.ca {
            _ if !settings.verify => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
            }
            Some(path) => {
                let pem = read("ca", path)?;
                pem.hash(&mut fingerprint);
                builder.with_webpki_verifier(verifier(authorities(path, &pem)?, provider, path)?)
            }
            None => builder.with_root_certificates(system_authorities()?),
        };
        let mut config = match (&settings.certificate, &settings.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(_), None) => return Err(TlsError::HalfPair { key: "key" }),
            (None, Some(_)) => return Err(TlsError::HalfPair { key: "certificate" }),
            (Some(certificate), Some(key)) => {
                let (chain, secret) = (read("certificate", certificate)?, read("key", key)?);
                (&chain, &secret).hash(&mut fingerprint);
                let chain = certificates("certificate", certificate, &chain)?;
                let secret = PrivateKeyDer::from_pem_slice(&secret)
                    .map_err(|error| content("key", key, format_args!("holds no private key in PEM form: {error}")))?;
                builder.with_client_auth_cert(chain, secret).map_err(|error| {
                    content("key", key, format_args!("cannot be used with the certificate: {error}"))
                })?
            }
        };
        config.alpn_protocols = vec![alpn(protocol).to_vec()];
        let server_name = settings.server_name.as_deref().map(name).transpose()?;
        (settings.verify, &settings.server_name).hash(&mut fingerprint);
        Ok(ClientTls { config: Arc::new(config), server_name, fingerprint: fingerprint.finish() })
    }

    /// The rustls configuration.
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// The name to verify: the configured one, else `host`.
    ///
    /// **Errors**: where `host` is used and is no name that a certificate can be made for.
    pub fn server_name(&self, host: &str) -> Result<ServerName<'static>, TlsError> {
        self.server_name.clone().map_or_else(|| name(host), Ok)
    }

    /// The same for the same settings with the same file contents, within one process.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

/// What a protocol is called in TLS (RFC 7301).
pub(super) fn alpn(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Http1 => b"http/1.1",
        Protocol::Http2 => b"h2",
    }
}

fn name(text: &str) -> Result<ServerName<'static>, TlsError> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    ServerName::try_from(bare.to_owned()).map_err(|_| TlsError::ServerName(text.to_owned()))
}

fn content(key: &'static str, path: &Path, what: fmt::Arguments<'_>) -> TlsError {
    TlsError::Content { key, path: path.to_owned(), what: what.to_string() }
}

fn certificates(key: &'static str, path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| content(key, path, format_args!("is not valid PEM: {error}")))?;
    if found.is_empty() { Err(content(key, path, format_args!("holds no certificate in PEM form"))) } else { Ok(found) }
}

fn authorities(path: &Path, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates("ca", path, pem)? {
        store.add(certificate).map_err(|error| {
            content("ca", path, format_args!("holds a certificate that cannot be an authority: {error}"))
        })?;
    }
    Ok(store)
}

fn verifier(
    store: RootCertStore,
    provider: Arc<CryptoProvider>,
    path: &Path,
) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider)
        .build()
        .map_err(|error| content("ca", path, format_args!("cannot be used: {error}")))
}

fn system_authorities() -> Result<Arc<RootCertStore>, TlsError> {
    static FOUND: OnceLock<Result<Arc<RootCertStore>, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let loaded = rustls_native_certs::load_native_certs();
        let mut store = RootCertStore::empty();
        // Systems ship a few certificates that no strict reader accepts; the others are still good.
        let (added, _) = store.add_parsable_certificates(loaded.certs);
        match (added, loaded.errors.first()) {
            (0, Some(error)) => Err(error.to_string()),
            (0, None) => Err("its store is empty".to_owned()),
            _ => Ok(Arc::new(store)),
        }
    });
    found.clone().map_err(TlsError::NoAuthorities)
}

/// Accepts any certificate. The handshake still proves that the other side has its key, nothing else.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(path: &Path) -> io::Result<Vec<u8>> {
        let pair = || rcgen::generate_simple_self_signed(["upstream.test".to_owned()]).unwrap();
        match path.to_str().unwrap() {
            "good.pem" => Ok(pair().cert.pem().into_bytes()),
            "other.key" => Ok(pair().signing_key.serialize_pem().into_bytes()),
            "words.pem" => Ok(b"no certificate here".to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn refusal(settings: UpstreamTls) -> (&'static str, String) {
        let error = ClientTls::build(&settings, Protocol::Http1, files).unwrap_err();
        (error.key(), error.to_string())
    }

    #[test]
    fn what_cannot_work_is_said_with_its_key_and_file() {
        let none = UpstreamTls { verify: false, ..UpstreamTls::default() };
        let ca = |file: &str| UpstreamTls { ca: Some(file.into()), ..UpstreamTls::default() };
        assert_eq!(refusal(ca("absent.pem")), ("ca", "cannot read absent.pem: entity not found".to_owned()));
        assert_eq!(refusal(ca("words.pem")), ("ca", "words.pem holds no certificate in PEM form".to_owned()));
        let half = UpstreamTls { certificate: Some("good.pem".into()), ..none.clone() };
        assert_eq!(refusal(half.clone()).0, "key");
        let (key, text) = refusal(UpstreamTls { key: Some("other.key".into()), ..half.clone() });
        assert!(key == "key" && text.starts_with("other.key cannot be used with the certificate"), "{text}");
        let (key, text) = refusal(UpstreamTls { key: Some("words.pem".into()), ..half });
        assert!(key == "key" && text.contains("holds no private key"), "{text}");
        let (key, text) = refusal(UpstreamTls { server_name: Some("not a name".into()), ..none });
        assert!(key == "server_name" && text.contains("\"not a name\""), "{text}");
    }

    #[test]
    fn a_fingerprint_follows_the_contents_and_not_the_reading() {
        let build = |name: Option<&str>| {
            let settings =
                UpstreamTls { verify: false, server_name: name.map(str::to_owned), ..UpstreamTls::default() };
            ClientTls::build(&settings, Protocol::Http2, files).unwrap()
        };
        assert_eq!(build(None).fingerprint(), build(None).fingerprint());
        assert_ne!(build(None).fingerprint(), build(Some("a.test")).fingerprint());
        assert_eq!(build(Some("a.test")).server_name("b.test").unwrap(), ServerName::try_from("a.test").unwrap());
        assert_eq!(build(None).server_name("[::1]").unwrap(), ServerName::try_from("::1").unwrap());
        assert!(build(None).server_name("bad name").is_err());
    }
}
