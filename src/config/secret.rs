//! Which parts of a configuration are not to be shown.

/// Whether the value at this way through the tables is a secret: tokens, keys, and headers and environment variables that carry credentials.
pub(crate) fn is_secret(way: &[&str]) -> bool {
    match way {
        ["admin", "token"] | ["scaler", "peer_token"] | ["mcp", "keys", ..] => true,
        ["scaler", "leader", "redis"] | ["scaler", "notify", "secret"] | ["pool", _, "scaler", "webhook", "secret"] => {
            true
        }
        [.., "set" | "add" | "headers" | "header" | "cookie" | "env", name] => is_credential(name),
        // `header = { authorization = { exact = "…" } }`
        [.., "header" | "cookie", name, "exact" | "prefix" | "regex"] => is_credential(name),
        _ => false,
    }
}

fn is_credential(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', "-");
    let known = ["authorization", "proxy-authorization", "cookie", "set-cookie"];
    known.contains(&name.as_str())
        || ["token", "secret", "password", "api-key", "apikey", "credential"].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_credentials_are_secrets() {
        assert!(is_secret(&["admin", "token"]));
        assert!(is_secret(&["mcp", "keys"]));
        assert!(is_secret(&["route", "request_headers", "set", "Authorization"]));
        assert!(is_secret(&["pool", "a", "health", "headers", "X-Api-Key"]));
        assert!(is_secret(&["scaler", "leader", "redis"]));
        assert!(is_secret(&["pool", "a", "scaler", "docker", "env", "DB_PASSWORD"]));
        assert!(!is_secret(&["pool", "a", "scaler", "docker", "env", "LOG_LEVEL"]));
        assert!(!is_secret(&["admin", "bind"]));
        assert!(!is_secret(&["route", "request_headers", "set", "X-Env"]));
        assert!(!is_secret(&["token"]));
    }
}
