use std::io::ErrorKind as Io;
use std::path::Path;
use std::time::Duration;

use bollard::errors::Error;

use crate::config::model;
use crate::scaler::{DriverError, ErrorKind};

/// Why a conversation with the engine did not bring what it was to bring, before it is put in words.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It did not answer within this.
    Slow(Duration),
    /// It could not be talked to, or said no.
    Engine(Error),
    /// It said something that is not what engines say.
    Unreadable(String),
    /// In words already.
    Told(DriverError),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Engine(error)
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Trouble::Engine(error.into())
    }
}

impl From<DriverError> for Trouble {
    fn from(error: DriverError) -> Self {
        Trouble::Told(error)
    }
}

impl Trouble {
    /// The status the engine answered with.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Trouble::Engine(Error::DockerResponseServerError { status_code, .. }) => Some(*status_code),
            _ => None,
        }
    }

    /// Whether the engine says so, in whatever case.
    pub(super) fn says(&self, words: &str) -> bool {
        match self {
            Trouble::Engine(Error::DockerResponseServerError { message, .. }) => {
                message.to_ascii_lowercase().contains(words)
            }
            _ => false,
        }
    }

    /// In words: `task` is what was tried, as in "cannot start the container".
    pub(super) fn tell(self, task: &str, socket: &Path, settings: &model::Docker) -> DriverError {
        let socket = socket.display();
        let unreachable = |what: String, advice: String| DriverError { what, advice, kind: ErrorKind::Unreachable };
        match self {
            Trouble::Told(error) => error,
            Trouble::Slow(span) => unreachable(
                format!("{task}: the engine at {socket} did not answer within {} s", span.as_secs()),
                "see with `docker ps` whether it hangs; its log says more (`journalctl -u docker`)".to_owned(),
            ),
            Trouble::Engine(Error::DockerResponseServerError { status_code, message }) => {
                answered(task, status_code, &message, settings)
            }
            Trouble::Engine(Error::DockerStreamError { error }) => answered(task, 500, &error, settings),
            Trouble::Unreadable(message) | Trouble::Engine(Error::JsonDataError { message, .. }) => unreachable(
                format!("{task}: {socket} gave an answer that cannot be read ({message})"),
                "see whether a Docker or Podman engine listens there (`docker version`)".to_owned(),
            ),
            Trouble::Engine(error) => {
                let (why, advice) = out_of_reach(&error);
                unreachable(format!("{task}: {socket}: {why}"), advice.to_owned())
            }
        }
    }
}

/// What is in the way of a connection.
fn out_of_reach(error: &Error) -> (String, &'static str) {
    let kind = match error {
        Error::IOError { err } => Some(err.kind()),
        _ => None,
    };
    match kind {
        Some(Io::NotFound) => (
            "there is no such socket".to_owned(),
            "start the engine (`systemctl start docker`), or say where its socket is with `socket` in the pool's `scaler.docker`",
        ),
        Some(Io::PermissionDenied) => (
            "this user may not use the socket".to_owned(),
            "add the user that Tidegate runs as to the group `docker` (which makes it as powerful as root), or use a rootless engine's socket",
        ),
        Some(Io::ConnectionRefused) => (
            "nobody listens there".to_owned(),
            "start the engine (`systemctl start docker`); its log says why it ended",
        ),
        // Of a Unix socket whose queue is full the kernel says at once that it would have to wait.
        Some(Io::TimedOut | Io::WouldBlock) => (
            "it takes no connections".to_owned(),
            "see with `docker ps` whether the engine hangs, and restart it if so",
        ),
        _ => (
            sources(error),
            "see whether the engine runs (`docker version`); its log says more (`journalctl -u docker`)",
        ),
    }
}

/// An error with its causes.
fn sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// The engine said no: what the operator can do is known for what is usual, by the words that Docker and Podman use.
fn answered(task: &str, status: u16, message: &str, settings: &model::Docker) -> DriverError {
    let said = message.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let image = &settings.image;
    let network = settings.network.as_deref().unwrap_or_default();
    let (kind, advice) = if has(&["no space left on device", "disk quota exceeded"]) {
        (ErrorKind::Full, "free some of the engine's disk: `docker system df`, `docker system prune`".to_owned())
    } else if has(&["cannot allocate memory", "resource temporarily unavailable", "too many open files"]) {
        (ErrorKind::Full, "the machine is full: free memory or processes, or lower the pool's `max`".to_owned())
    } else if has(&["port is already allocated", "address already in use"]) {
        let advice = "another program has taken the port; it is tried again with another one";
        (ErrorKind::Refused, advice.to_owned())
    } else if has(&["pool overlaps", "no available ip", "could not find an available"]) {
        (
            ErrorKind::Full,
            "the network has no free addresses: remove containers from it or make a larger one".to_owned(),
        )
    } else if has(&["pull access denied", "unauthorized", "authentication required", "denied: "]) {
        let advice = format!(
            "see whether the image's name is right; one that needs a login is to be pulled by hand (`docker login`, `docker pull {image}`)"
        );
        (ErrorKind::Refused, advice)
    } else if has(&["toomanyrequests", "rate limit"]) {
        let advice = format!(
            "the registry has had enough of us for now: wait, or pull by hand after `docker login` (`docker pull {image}`)"
        );
        (ErrorKind::Refused, advice)
    } else if has(&["manifest unknown", "manifest for ", "no such image", "image not known", "name unknown"]) {
        (ErrorKind::Refused, missing_image(settings))
    } else if has(&[
        "dial tcp",
        "no such host",
        "i/o timeout",
        "tls:",
        "x509:",
        "connection refused",
        "server misbehaving",
    ]) {
        let advice = format!(
            "see whether this machine reaches the registry (`docker pull {image}`), or bring the image by `docker load`"
        );
        (ErrorKind::Refused, advice)
    } else if !network.is_empty() && has(&["network"]) && has(&["not found", "no such"]) {
        (ErrorKind::Refused, format!("make it (`docker network create {network}`), or name another one with `network`"))
    } else if has(&["memory limit"]) {
        (ErrorKind::Refused, "raise `memory`; engines want at least 6 MiB".to_owned())
    } else if has(&["executable file not found", "exec format error", "oci runtime", "runc create failed", "crun:"]) {
        let advice = format!(
            "see with `docker run --rm {image}` whether the image has the `command` and is made for this machine"
        );
        (ErrorKind::Refused, advice)
    } else if has(&["unable to find user", "no matching entries in passwd", "no users found"]) {
        (ErrorKind::Refused, "`user` must be one of the image's, or a number".to_owned())
    } else if has(&["range of cpus", "nanocpus", "cfs quota"]) {
        (ErrorKind::Refused, "`cpus` must not be more than the machine has".to_owned())
    } else if has(&["volume", "mount", "bind source"]) {
        (
            ErrorKind::Refused,
            "see whether the `volumes` are written as \"/from:/to\" or \"/from:/to:ro\" and are there".to_owned(),
        )
    } else if status == 503 || has(&["shutting down", "daemon is not ready"]) {
        (ErrorKind::Unreachable, "the engine is starting or stopping; it is asked again".to_owned())
    } else {
        (ErrorKind::Refused, "the engine's log says more (`journalctl -u docker`)".to_owned())
    };
    DriverError { what: format!("{task}: {}", message.trim().trim_end_matches('.')), advice, kind }
}

/// What to do about an image that is not there.
pub(super) fn missing_image(settings: &model::Docker) -> String {
    let image = &settings.image;
    if settings.pull {
        format!("see whether the image's name and tag are right (`docker pull {image}`)")
    } else {
        format!("pull it (`docker pull {image}`), or allow that with `pull = true`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pull: bool) -> model::Docker {
        super::super::tests::settings(|docker| {
            docker.network = Some("apps".to_owned());
            docker.pull = pull;
        })
    }

    fn told(trouble: impl Into<Trouble>) -> DriverError {
        trouble.into().tell("cannot start tools-1", Path::new("/run/engine.sock"), &settings(true))
    }

    fn said(status_code: u16, message: &str) -> DriverError {
        told(Error::DockerResponseServerError { status_code, message: message.to_owned() })
    }

    /// Each as an engine says it, what it means, and a word of the advice.
    #[test]
    fn what_the_engine_refuses_comes_with_advice() {
        use ErrorKind::{Full, Refused, Unreachable};
        for (status, message, kind, advice) in [
            (500, "write /var/lib/docker/x: no space left on device", Full, "docker system prune"),
            (500, "OCI runtime create failed: cannot allocate memory: unknown", Full, "lower the pool's `max`"),
            (
                500,
                "driver failed programming external connectivity on endpoint x: Bind for 127.0.0.1:80 failed: port is already allocated",
                Refused,
                "another one",
            ),
            (
                404,
                "pull access denied for a/b, repository does not exist or may require 'docker login': denied: requested access",
                Refused,
                "docker login",
            ),
            (500, "toomanyrequests: You have reached your pull rate limit", Refused, "wait"),
            (404, "manifest for shop:9 not found: manifest unknown: manifest unknown", Refused, "name and tag"),
            (
                500,
                "Get \"https://registry.internal/v2/\": dial tcp: lookup registry.internal: no such host",
                Refused,
                "reaches the registry",
            ),
            (404, "network apps not found", Refused, "docker network create apps"),
            (
                400,
                "OCI runtime create failed: runc create failed: exec: \"shop\": executable file not found in $PATH",
                Refused,
                "`command`",
            ),
            (400, "unable to find user shop: no matching entries in passwd file", Refused, "`user`"),
            (400, "Minimum memory limit allowed is 6MB", Refused, "`memory`"),
            (400, "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available", Refused, "`cpus`"),
            (400, "invalid mount config for type \"bind\": bind source path does not exist: /x", Refused, "`volumes`"),
            (503, "engine is shutting down", Unreachable, "asked again"),
            (500, "something new", Refused, "log"),
        ] {
            let error = said(status, message);
            assert_eq!(error.kind, kind, "{message}");
            assert!(error.advice.contains(advice), "{message}: {}", error.advice);
            assert!(error.what.contains(message) && error.what.starts_with("cannot start tools-1"), "{}", error.what);
        }
    }

    #[test]
    fn an_engine_out_of_reach_is_told_apart() {
        for (kind, words) in [
            (Io::NotFound, "systemctl start docker"),
            (Io::PermissionDenied, "group `docker`"),
            (Io::ConnectionRefused, "log says why"),
            (Io::TimedOut, "hangs"),
            (Io::WouldBlock, "hangs"),
            (Io::BrokenPipe, "docker version"),
        ] {
            let error = told(Error::IOError { err: kind.into() });
            assert_eq!(error.kind, ErrorKind::Unreachable);
            assert!(error.advice.contains(words), "{kind}: {error}");
            assert!(error.what.contains("/run/engine.sock"), "{error}");
        }
        assert_eq!(told(Trouble::Slow(Duration::from_secs(10))).kind, ErrorKind::Unreachable);
    }

    #[test]
    fn a_missing_image_is_pulled_by_hand_where_we_may_not() {
        assert!(missing_image(&settings(false)).contains("pull = true"));
        assert!(!missing_image(&settings(true)).contains("pull = true"));
    }
}
