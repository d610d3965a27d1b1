//! Which workload is scaled, and on which port its pods are reached.

use std::fmt;
use std::str::FromStr;

use kube::core::{ApiResource, GroupVersionKind};

/// A workload in the words of the configuration: `deployment/NAME` or `statefulset/NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

/// The workloads whose number can be set and whose pods serve all alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Pods without an identity; which of them go first can be told.
    Deployment,
    /// Pods with ordinals; the highest goes first.
    StatefulSet,
}

/// The port of the pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Port {
    /// Itself.
    Number(u16),
    /// The name of a container port.
    Name(String),
}

/// Why a target or a port could not be read; its text says what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct TargetError(&'static str);

const TARGET: TargetError = TargetError(
    "\"deployment/NAME\" or \"statefulset/NAME\", such as \"deployment/app\", with a name that Kubernetes allows",
);
const PORT: TargetError = TargetError(
    "a port from 1 to 65535, or the name of a container port (letters, digits and \"-\", at most 15) such as \"http\"",
);

impl Kind {
    /// As it is written in `kind:`.
    pub fn kind(self) -> &'static str {
        match self {
            Kind::Deployment => "Deployment",
            Kind::StatefulSet => "StatefulSet",
        }
    }

    /// As it is written in a URL and in a Role.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Deployment => "deployments",
            Kind::StatefulSet => "statefulsets",
        }
    }

    pub(super) fn resource(self) -> ApiResource {
        let kind = GroupVersionKind::gvk("apps", "v1", self.kind());
        ApiResource::from_gvk_with_plural(&kind, self.plural())
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let (kind, name) = text.split_once('/').ok_or(TARGET)?;
        let kind = match kind.to_ascii_lowercase().as_str() {
            "deployment" | "deployments" | "deploy" => Kind::Deployment,
            "statefulset" | "statefulsets" | "sts" => Kind::StatefulSet,
            _ => return Err(TARGET),
        };
        // A DNS subdomain (RFC 1123), as Kubernetes has it for the names of workloads.
        let label = |label: &str| {
            let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            !label.is_empty() && label.chars().all(inside) && !label.starts_with('-') && !label.ends_with('-')
        };
        let valid = name.len() <= 253 && name.split('.').all(label);
        if valid { Ok(Target { kind, name: name.to_owned() }) } else { Err(TARGET) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} \"{}\"", self.kind.kind(), self.name)
    }
}

impl FromStr for Port {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().ok().filter(|port| *port != 0).map(Port::Number).ok_or(PORT);
        }
        // An IANA service name (RFC 6335), as Kubernetes has it for the names of ports.
        let valid = text.len() <= 15 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if valid { Ok(Port::Name(text.to_owned())) } else { Err(PORT) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_a_kind_and_a_name() {
        let target: Target = "deployment/app".parse().unwrap();
        assert_eq!((target.kind, target.name.as_str()), (Kind::Deployment, "app"));
        assert_eq!("StatefulSet/db.blue-1".parse::<Target>().unwrap().kind, Kind::StatefulSet);
        for wrong in [
            "app",
            "deployment/",
            "deployment/App",
            "deployment/-a",
            "deployment/a/scale",
            "job/app",
            "daemonset/x",
            "deployment/a..b",
        ] {
            assert_eq!(wrong.parse::<Target>(), Err(TARGET), "{wrong}");
        }
    }

    #[test]
    fn ports_are_numbers_or_names() {
        assert_eq!("8080".parse(), Ok(Port::Number(8080)));
        assert_eq!("http-alt".parse(), Ok(Port::Name("http-alt".to_owned())));
        for wrong in ["", "0", "65536", "http_1", "a-name-that-is-too-long"] {
            assert_eq!(wrong.parse::<Port>(), Err(PORT), "{wrong}");
        }
    }
}
