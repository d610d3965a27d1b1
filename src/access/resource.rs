use bytes::Bytes;
use serde_json::{Map, Value, json};

/// Where a resource is described: this, and behind it the resource's own path (RFC 9728 §3.1).
pub const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// What a route protects, as clients are told that look for a token.
///
/// **Source**: RFC 9728 §2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// The resource as the world knows it; none where it is where the request says.
    url: Option<Url>,
    /// Its path.
    path: String,
    /// Everything of the document but the resource itself.
    document: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Url {
    /// `https://mcp.example.com`.
    origin: String,
    whole: String,
}

impl Resource {
    /// A resource of this URL, or of this path on whatever host it is asked for.
    ///
    /// **Errors**: why the URL is none, in words.
    pub fn new(
        url: Option<&str>,
        path: &str,
        authorization_servers: &[String],
        scopes: &[String],
        documentation: Option<&str>,
    ) -> Result<Self, &'static str> {
        let mut document = Map::new();
        if !authorization_servers.is_empty() {
            document.insert("authorization_servers".to_owned(), json!(authorization_servers));
        }
        if !scopes.is_empty() {
            document.insert("scopes_supported".to_owned(), json!(scopes));
        }
        document.insert("bearer_methods_supported".to_owned(), json!(["header"]));
        if let Some(documentation) = documentation {
            document.insert("resource_documentation".to_owned(), json!(documentation));
        }
        let Some(whole) = url else {
            return Ok(Resource { url: None, path: path.trim_end_matches('/').to_owned(), document });
        };
        let (origin, path) = parted(whole)?;
        let path = path.trim_end_matches('/').to_owned();
        Ok(Resource { url: Some(Url { origin: origin.to_owned(), whole: whole.to_owned() }), path, document })
    }

    /// Whether a request's path asks for its description; `alone` where no other resource is on that host.
    pub fn is_described_at(&self, path: &str, alone: bool) -> bool {
        path.strip_prefix(WELL_KNOWN).is_some_and(|rest| rest == self.path || alone && matches!(rest, "" | "/"))
    }

    /// The description, for a request to this scheme and host.
    pub fn document(&self, scheme: &str, host: &str) -> Bytes {
        let mut document = self.document.clone();
        let resource = match &self.url {
            Some(url) => url.whole.clone(),
            None => format!("{scheme}://{host}{}", self.path),
        };
        document.insert("resource".to_owned(), Value::String(resource));
        Bytes::from(Value::Object(document).to_string())
    }

    /// Where the description is, for a request to this scheme and host.
    pub fn metadata(&self, scheme: &str, host: &str) -> String {
        match &self.url {
            Some(url) => format!("{}{WELL_KNOWN}{}", url.origin, self.path),
            None => format!("{scheme}://{host}{WELL_KNOWN}{}", self.path),
        }
    }
}

/// A resource's origin and path.
fn parted(url: &str) -> Result<(&str, &str), &'static str> {
    const URL: &str = "expected an absolute URL such as \"https://mcp.example.com/mcp\"";
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).ok_or(URL)?;
    if url.contains(['?', '#']) {
        return Err("expected a URL without a query and a fragment");
    }
    if url.contains('@') || url.parse::<http::Uri>().is_err() || url.contains(['"', '\\']) {
        return Err(URL);
    }
    let start = url.len() - rest.len();
    let end = rest.find('/').map_or(url.len(), |at| start + at);
    if end == start { Err(URL) } else { Ok(url.split_at(end)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(url: Option<&str>, path: &str) -> Resource {
        Resource::new(url, path, &["https://login.test".to_owned()], &["read".to_owned()], Some("https://docs.test"))
            .unwrap()
    }

    #[test]
    fn the_document_tells_where_tokens_are_to_be_had() {
        let fixed = resource(Some("https://mcp.example.com/mcp"), "/inside");
        let document: Value = serde_json::from_slice(&fixed.document("http", "10.0.0.1:8080")).unwrap();
        assert_eq!(
            document,
            json!({
                "resource": "https://mcp.example.com/mcp",
                "authorization_servers": ["https://login.test"],
                "scopes_supported": ["read"],
                "bearer_methods_supported": ["header"],
                "resource_documentation": "https://docs.test",
            })
        );
        let metadata = "https://mcp.example.com/.well-known/oauth-protected-resource/mcp";
        assert_eq!(fixed.metadata("http", "10.0.0.1:8080"), metadata);
        let asked = resource(None, "/mcp");
        let document: Value = serde_json::from_slice(&asked.document("https", "a.test:8443")).unwrap();
        assert_eq!(document["resource"], "https://a.test:8443/mcp");
        assert_eq!(
            asked.metadata("https", "a.test:8443"),
            "https://a.test:8443/.well-known/oauth-protected-resource/mcp"
        );
    }

    #[test]
    fn it_is_found_behind_its_path_and_alone_without() {
        let mcp = resource(None, "/mcp");
        assert!(mcp.is_described_at("/.well-known/oauth-protected-resource/mcp", false));
        assert!(mcp.is_described_at("/.well-known/oauth-protected-resource", true));
        assert!(!mcp.is_described_at("/.well-known/oauth-protected-resource", false));
        assert!(!mcp.is_described_at("/.well-known/oauth-protected-resource/other", true));
        assert!(!mcp.is_described_at("/.well-known/oauth-protected-resourcex", true));
        assert!(resource(Some("https://a.test"), "").is_described_at("/.well-known/oauth-protected-resource", false));
        assert!(
            resource(Some("https://a.test/x/"), "").is_described_at("/.well-known/oauth-protected-resource/x", false)
        );
    }

    #[test]
    fn a_url_that_is_none_is_refused() {
        for url in [
            "mcp.example.com/mcp",
            "ftp://a.test/",
            "https://",
            "https:///x",
            "https://u@a.test/",
            "https://a.test/?x",
            "https://a.test/#x",
            "https://a.test/\"",
        ] {
            assert!(Resource::new(Some(url), "/", &[], &[], None).is_err(), "{url}");
        }
    }
}
