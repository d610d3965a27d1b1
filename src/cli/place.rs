use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::Failure;
use super::arguments::AdminArguments;
use crate::config;
use crate::config::model::{Admin, Secret};
use crate::types::Bind;

/// Where a configuration is looked for when none is named.
pub(super) const USUAL: [&str; 2] = ["tidegate.toml", "/etc/tidegate/tidegate.toml"];

/// The configuration file meant: the one named, else the first of the usual ones that exists.
pub(super) fn usual_file(named: Option<&Path>) -> Option<PathBuf> {
    match named {
        Some(file) => Some(file.to_owned()),
        None => USUAL.iter().map(PathBuf::from).find(|file| file.exists()),
    }
}

/// Where a running Tidegate's admin API is, and what opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) address: Reach,
    pub(super) token: Option<String>,
}

/// How the API is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reach {
    /// `host:port`.
    Tcp(String),
    /// A socket's path.
    Unix(PathBuf),
}

impl std::fmt::Display for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reach::Tcp(authority) => write!(f, "http://{authority}"),
            Reach::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Place {
    /// From the arguments, the environment and the configuration, in this order.
    pub(super) fn find(arguments: &AdminArguments) -> Result<Place, Failure> {
        let named = arguments.admin.as_deref().map(parse).transpose()?;
        let token = arguments.token.clone().or_else(|| std::env::var("TIDEGATE_TOKEN").ok());
        if let (Some(address), Some(token)) = (&named, &token) {
            return Ok(Place { address: address.clone(), token: Some(token.clone()) });
        }
        let admin = match usual_file(arguments.config.as_deref()) {
            Some(file) => read(&file)?,
            None => Admin::default(),
        };
        let address = match named {
            Some(address) => address,
            None => reach(&admin)?,
        };
        Ok(Place { address, token: token.or_else(|| admin.token.as_ref().map(|token| token.expose().to_owned())) })
    }
}

fn parse(text: &str) -> Result<Reach, Failure> {
    let wrong = || Failure::Usage(format!("--admin {text}: expected http://HOST:PORT or unix:PATH"));
    if let Some(path) = text.strip_prefix("unix:") {
        return if path.is_empty() { Err(wrong()) } else { Ok(Reach::Unix(path.into())) };
    }
    let authority = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    match authority.parse::<http::uri::Authority>() {
        Ok(parsed) if parsed.port().is_some() => Ok(Reach::Tcp(authority.to_owned())),
        _ => Err(wrong()),
    }
}

/// The `[admin]` of a configuration, also of one that is refused: `status` must say why a broken edit was not taken.
fn read(file: &Path) -> Result<Admin, Failure> {
    if let Some(config) = config::from_disk(file).config {
        return Ok(config.admin.clone());
    }
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::Failed(anyhow::anyhow!("cannot read {}: {error}", file.display())))?;
    Ok(glean(&text).unwrap_or_default())
}

/// What can be told of `[admin]` in a text that is otherwise wrong.
fn glean(text: &str) -> Option<Admin> {
    let table: toml::Table = text.parse().ok()?;
    let admin = table.get("admin")?;
    let plain = |key: &str| admin.get(key).and_then(toml::Value::as_str).filter(|text| !text.contains("${"));
    let mut gleaned = Admin::default();
    if let Some(bind) = plain("bind") {
        gleaned.bind = if bind == "off" { None } else { Some(bind.parse().ok()?) };
    }
    gleaned.token = plain("token").map(|token| Secret::new(token.to_owned()));
    Some(gleaned)
}

fn reach(admin: &Admin) -> Result<Reach, Failure> {
    match &admin.bind {
        Some(Bind::Unix(path)) => Ok(Reach::Unix(path.clone())),
        Some(Bind::Tcp(address)) if address.port() == 0 => {
            Err(Failure::Usage("the configuration asks for any free admin port; name it with --admin".to_owned()))
        }
        Some(Bind::Tcp(address)) => Ok(Reach::Tcp(SocketAddr::new(near(address.ip()), address.port()).to_string())),
        None => Err(Failure::Failed(anyhow::anyhow!("the admin API is switched off by the configuration"))),
    }
}

/// Listening everywhere includes this machine's own address.
fn near(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(admin: Option<&str>, config: Option<&Path>) -> Result<Place, Failure> {
        let arguments = AdminArguments {
            admin: admin.map(str::to_owned),
            token: Some("t".to_owned()),
            config: config.map(Path::to_owned),
        };
        Place::find(&arguments)
    }

    #[test]
    fn an_address_is_taken_as_people_write_it() {
        for (text, address) in [
            ("http://127.0.0.1:9900", "http://127.0.0.1:9900"),
            ("http://proxy.internal:9900/", "http://proxy.internal:9900"),
            ("[::1]:9900", "http://[::1]:9900"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
        ] {
            assert_eq!(asked(Some(text), None).unwrap().address.to_string(), address);
        }
        for text in ["https://127.0.0.1:9900", "127.0.0.1", "unix:", "http://a b:1"] {
            assert!(matches!(asked(Some(text), None), Err(Failure::Usage(_))), "{text}");
        }
    }

    #[test]
    fn the_configuration_says_where_also_when_the_rest_of_it_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.toml");
        for (text, address) in [
            ("admin = { bind = \"unix:/run/x.sock\" }", "unix:/run/x.sock"),
            ("[admin]\nbind = \"0.0.0.0:7\"\ntoken = \"sixteen letters!\"\n[pol.x]\n", "http://127.0.0.1:7"),
            ("unknown = 1", "http://127.0.0.1:9900"),
            ("not even TOML", "http://127.0.0.1:9900"),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(asked(None, Some(&file)).unwrap().address.to_string(), address, "{text}");
        }
        std::fs::write(&file, "admin = { bind = \"off\" }\nwrong = 1").unwrap();
        assert!(asked(None, Some(&file)).is_err());
        assert!(asked(None, Some(&folder.path().join("none.toml"))).is_err());
    }
}
