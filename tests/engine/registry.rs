use std::process::Command;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// A registry with one image of one layer, in which there is `/tail`; it gives the layer away once [`Registry::open`] has been called.
///
/// **Source**: OCI distribution specification, and image manifest version 2, schema 2.
pub struct Registry {
    /// `127.0.0.1:PORT/shop:1`; engines speak plain HTTP with registries on the loopback.
    pub image: String,
    gate: Arc<Semaphore>,
}

impl Registry {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let image = format!("{}/shop:1", listener.local_addr().expect("an address"));
        let gate = Arc::new(Semaphore::new(0));
        let content = Arc::new(Content::new());
        let entry = gate.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, content.clone(), entry.clone()));
            }
        });
        Registry { image, gate }
    }

    /// From now on the layer is given away.
    pub fn open(&self) {
        self.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }
}

struct Content {
    layer: Vec<u8>,
    config: String,
    manifest: String,
}

impl Content {
    fn new() -> Self {
        let layer = super::programs(&[super::system("tail")]);
        let config = serde_json::json!({
            "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }, "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] }
        });
        let config = config.to_string();
        let zipped = zip(layer);
        let kind = |name: &str| format!("application/vnd.docker.{name}");
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": kind("distribution.manifest.v2+json"),
            "config": { "mediaType": kind("container.image.v1+json"), "size": config.len(), "digest": digest(config.as_bytes()) },
            "layers": [{ "mediaType": kind("image.rootfs.diff.tar.gzip"), "size": zipped.len(), "digest": digest(&zipped) }]
        });
        Content { layer: zipped, config, manifest: manifest.to_string() }
    }
}

fn zip(layer: Vec<u8>) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("layer");
    std::fs::write(&file, layer).expect("the layer is written");
    let output = Command::new("gzip").args(["-1", "-c"]).arg(&file).output().expect("gzip runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn digest(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// One request for each connection.
async fn serve(mut stream: TcpStream, content: Arc<Content>, gate: Arc<Semaphore>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let (status, kind, body): (_, _, &[u8]) = if path == "/v2/" {
        (200, "application/json", b"{}")
    } else if path.starts_with("/v2/shop/manifests/") {
        (200, "application/vnd.docker.distribution.manifest.v2+json", content.manifest.as_bytes())
    } else if path.ends_with(&digest(content.config.as_bytes())) {
        (200, "application/octet-stream", content.config.as_bytes())
    } else if path.ends_with(&digest(&content.layer)) {
        let _permit = gate.acquire().await;
        (200, "application/octet-stream", &content.layer)
    } else {
        (404, "application/json", br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#)
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\ndocker-content-digest: {}\r\n\
         docker-distribution-api-version: registry/2.0\r\nconnection: close\r\n\r\n",
        body.len(),
        digest(body)
    );
    let body = if method == "HEAD" { &[] } else { body };
    // A client that leaves in between is no concern.
    let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
    let _ = stream.shutdown().await;
}
