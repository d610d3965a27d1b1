use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, HandshakeKind, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::soon;

/// An authority of the test's own, and what it signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A certificate and its key, PEM.
#[derive(Debug, Clone)]
pub struct Signed {
    pub certificate: String,
    pub key: String,
}

impl Signed {
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("a certificate")
    }

    fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("a key")
    }
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for this name or address.
    pub fn signs(&self, name: &str) -> Signed {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        Signed { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        roots
    }

    /// What an upstream of this name speaks TLS with.
    pub fn server(&self, name: &str, alpn: &[&str]) -> Arc<ServerConfig> {
        let own = self.signs(name);
        let builder = server_builder().with_no_client_auth();
        let mut config = builder.with_single_cert(vec![own.der()], own.key_der()).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// The same, and it wants to see a client certificate of ours.
    pub fn server_that_asks(&self, name: &str) -> Arc<ServerConfig> {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider()).build().unwrap();
        let own = self.signs(name);
        let builder = server_builder().with_client_cert_verifier(verifier);
        Arc::new(builder.with_single_cert(vec![own.der()], own.key_der()).unwrap())
    }

    /// What a client trusting this authority speaks TLS with.
    pub fn client(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        self.client_of(alpn, rustls::ALL_VERSIONS, None)
    }

    pub fn client_of(
        &self,
        alpn: &[&str],
        versions: &[&'static rustls::SupportedProtocolVersion],
        shown: Option<&Signed>,
    ) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
        let builder = builder.with_root_certificates(self.roots());
        let mut config = match shown {
            Some(own) => builder.with_client_auth_cert(vec![own.der()], own.key_der()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn server_builder() -> rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier> {
    ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap()
}

/// What a TLS connection has shown of the other side.
#[derive(Debug, PartialEq, Eq)]
pub struct Shown {
    pub certificate: Vec<u8>,
    pub alpn: Option<String>,
    pub version: rustls::ProtocolVersion,
    pub resumed: bool,
}

/// Connects with TLS, asks for `/` over HTTP/1.1 and reads the answer's beginning; what was shown, or why not.
pub async fn handshake(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<Shown> {
    let name = ServerName::try_from(name.to_owned()).expect("a server name");
    soon("a TLS handshake", async {
        let stream = TcpStream::connect(address).await?;
        let mut stream: TlsStream<TcpStream> = TlsConnector::from(config.clone()).connect(name, stream).await?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        if !http2 {
            // TLS 1.3: only data from the server shows that it took our certificate, and brings tickets.
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            assert!(answer.starts_with(b"HTTP/1.1 "), "{:?}", String::from_utf8_lossy(&answer));
        }
        let session = stream.get_ref().1;
        Ok(Shown {
            certificate: session.peer_certificates().expect("a certificate")[0].to_vec(),
            alpn: session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
            version: session.protocol_version().expect("a version"),
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        })
    })
    .await
}
