//! TLS from clients: what a listener shows, whom it asks for a certificate, what a handshake has found out.
//!
//! Takes PEM text, never paths: reading files is the configuration's. Errors are values whose text is for the person who wrote it.
//!
//! Sessions resume by stateless tickets. Their keys are kept when certificates are read anew, so that a reload costs no client a
//! full handshake; they are not kept, nor shared between listeners, where it is asked of clients differently who they are: a resumed
//! session is not asked again, so a ticket from a door that asks nothing would open one that does.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, ServerConnection, crypto::ring};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::certificate::{Certificates, Pair};
use crate::config::model::{ClientAuth, Protocol, TlsVersion};

/// What a listener's `tls` table says, with the files' contents in place of their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// The certificates with their keys; the first is the default.
    pub certificates: Vec<Pair>,
    /// The oldest version spoken.
    pub min_version: TlsVersion,
    /// Authorities that sign client certificates, PEM, with the file's name; none asks for no certificate.
    pub client_ca: Option<(String, Vec<u8>)>,
    /// With `client_ca`: whether clients must show a certificate.
    pub client_auth: ClientAuth,
    /// From the connection's start, or its PROXY protocol header, to the end of the handshake.
    pub handshake_timeout: Duration,
    /// What is spoken over it, in the order of preference.
    pub protocols: Vec<Protocol>,
}

/// TLS on a listener, ready for handshakes. Shared by all workers.
#[derive(Debug)]
pub struct TlsTerms {
    config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
    tickets: Arc<dyn ProducesTickets>,
    asked: Asked,
    handshake_timeout: Duration,
}

/// How clients are asked who they are.
type Asked = Option<(Vec<u8>, ClientAuth)>;

/// Why TLS on a listener cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// Not one certificate.
    #[error("a listener with TLS needs a certificate and its key")]
    NoCertificate,
    /// A file does not hold what it should.
    #[error("{file} {what}")]
    Content {
        /// The configuration key that names the file.
        key: &'static str,
        /// The file.
        file: String,
        /// What is wrong with it.
        what: String,
    },
    /// The system gives no randomness for ticket keys.
    #[error("cannot make keys for session tickets: {0}")]
    Tickets(String),
}

impl TlsError {
    /// The configuration key of the listener's `tls` table that the error is about.
    pub fn key(&self) -> &'static str {
        match self {
            TlsError::Content { key, .. } => key,
            TlsError::NoCertificate | TlsError::Tickets(_) => "certificate",
        }
    }

    pub(super) fn content(key: &'static str, file: &str, what: impl fmt::Display) -> TlsError {
        TlsError::Content { key, file: file.to_owned(), what: what.to_string() }
    }
}

impl TlsTerms {
    /// Sets up what `settings` ask for. `before` is what the same listener had, whose clients may resume their sessions.
    ///
    /// **Cost**: a few hundred microseconds for each certificate.
    /// **Errors**: all that is wrong, not only the first.
    pub fn build(settings: &TlsSettings, before: Option<&TlsTerms>) -> Result<Self, Vec<TlsError>> {
        let provider = Arc::new(ring::default_provider());
        let mut errors = Vec::new();
        let certificates = Certificates::build(&settings.certificates, &provider, &mut errors);
        let verifier = match &settings.client_ca {
            Some((file, pem)) => {
                verifier(file, pem, settings.client_auth, &provider).map_err(|error| errors.push(error)).ok()
            }
            None => Some(WebPkiClientVerifier::no_client_auth()),
        };
        let asked: Asked = settings.client_ca.as_ref().map(|(_, pem)| (pem.clone(), settings.client_auth));
        let tickets = match before {
            Some(before) if before.asked == asked => Ok(before.tickets.clone()),
            _ => ring::Ticketer::new().map_err(|error| TlsError::Tickets(error.to_string())),
        };
        let tickets = tickets.map_err(|error| errors.push(error)).ok();
        let (Some(certificates), Some(verifier), Some(tickets), true) =
            (certificates, verifier, tickets, errors.is_empty())
        else {
            return Err(errors);
        };
        let certificates = Arc::new(certificates);
        let versions = match settings.min_version {
            TlsVersion::Tls12 => rustls::ALL_VERSIONS,
            TlsVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("the provider supports both versions")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(certificates.clone());
        config.ticketer = tickets.clone();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.alpn_protocols = settings.protocols.iter().map(|protocol| alpn(*protocol).to_vec()).collect();
        let handshake_timeout = settings.handshake_timeout;
        Ok(TlsTerms { config: Arc::new(config), certificates, tickets, asked, handshake_timeout })
    }

    /// The rustls configuration.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// The certificates that are shown: their names, and until when they are valid.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    pub(super) fn handshake_timeout(&self) -> Duration {
        self.handshake_timeout
    }
}

/// What a protocol is called in TLS (RFC 7301).
fn alpn(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Http1 => b"http/1.1",
        Protocol::Http2 => b"h2",
    }
}

fn verifier(
    file: &str,
    pem: &[u8],
    auth: ClientAuth,
    provider: &Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let error = |what: String| TlsError::content("client_ca", file, what);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|cause| error(format!("is not valid PEM: {cause}")))?;
        roots
            .add(certificate)
            .map_err(|cause| error(format!("holds a certificate that cannot be an authority: {cause}")))?;
    }
    if roots.is_empty() {
        return Err(error("holds no certificate in PEM form".to_owned()));
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let builder = match auth {
        ClientAuth::Require => builder,
        ClientAuth::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|cause| error(format!("cannot be used: {cause}")))
}

/// What a handshake has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The name the client asked for (SNI), lower case.
    pub server_name: Option<Box<str>>,
    /// Whether HTTP/2 was agreed on.
    pub http2: bool,
    /// Who the client is, as its verified certificate says: RFC 4514 text such as `CN=service-a, O=Example`.
    pub client_subject: Option<Box<str>>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
}

impl TlsFacts {
    pub(super) fn of(session: &ServerConnection) -> Self {
        let leaf = session.peer_certificates().and_then(|chain| chain.first());
        TlsFacts {
            version: match session.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "TLSv1.3",
            },
            server_name: session.server_name().map(Box::from),
            http2: session.alpn_protocol() == Some(alpn(Protocol::Http2)),
            client_subject: leaf.and_then(|leaf| subject(leaf)),
            resumed: session.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        }
    }
}

fn subject(certificate: &CertificateDer<'_>) -> Option<Box<str>> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(certificate.subject().to_string().into())
}

/// Why a handshake did not lead to a connection.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The client did something TLS does not know, or was refused.
    #[error("TLS handshake failed: {0}")]
    Failed(std::io::Error),
    /// It took too long.
    #[error("TLS handshake took longer than handshake_timeout")]
    Timeout,
}
