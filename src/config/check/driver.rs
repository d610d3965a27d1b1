//! How a scaler makes instances, and what scalers of several proxies need of one another.

use std::collections::BTreeMap;

use super::Check;
use crate::config::model::{Docker, Kubernetes, Leader, Process, Scaler, Systemd};
use crate::config::place::At;
use crate::config::section::list_words;
use crate::scale::LeaderKind;

/// What fills in the place that an instance is reached at.
const PLACES: [&str; 2] = ["{port}", "{socket}"];

impl Check<'_> {
    /// What holds for the scalers of all pools.
    pub(super) fn scalers(&mut self) {
        let at = At::root().key("scaler");
        let scalers = &self.config.scaler;
        self.leader(&scalers.leader, &at.key("leader"));
        for (index, peer) in scalers.peers.iter().enumerate() {
            self.url(&at.key("peers").index(index), peer);
        }
        if let Some(webhook) = &scalers.notify.webhook {
            self.url(&at.key("notify").key("webhook"), webhook);
        } else if scalers.notify.secret.is_some() {
            self.no_effect(&at.key("notify"), &[("secret", true)], "it signs what the `webhook` gets");
        }
        if scalers.peer_token.is_some() && scalers.peers.is_empty() {
            self.no_effect(&at, &[("peer_token", true)], "there are no `peers`");
        }
        if scalers.cost.currency.trim().is_empty() {
            self.report.error(&at.key("cost").key("currency"), "no currency", "expected one such as \"EUR\"");
        }
        let least: u32 =
            self.config.pool.values().filter_map(|pool| pool.scaler.as_ref()).map(|scaler| scaler.min).sum();
        if scalers.max_total.is_some_and(|most| most < least) {
            let label = format!("the pools' `min` are {least} together");
            self.report.error(&at.key("max_total"), "there would not be room for the fewest instances", label);
        }
    }

    fn leader(&mut self, leader: &Leader, at: &At) {
        if self.failed(at) {
            return;
        }
        let kind = leader.kind;
        let label = format!("it is for another kind of leader election; here it is \"{}\"", kind.word());
        let set = [
            ("file", leader.file.is_some() && kind != LeaderKind::File),
            ("redis", leader.redis.is_some() && kind != LeaderKind::Redis),
            ("namespace", leader.namespace.is_some() && kind != LeaderKind::Kubernetes),
        ];
        self.no_effect(at, &set, &label);
        match kind {
            LeaderKind::File if leader.file.is_none() => {
                let label = "expected `file`, such as \"/run/tidegate/leader\"";
                self.report.error(at, "leader election by a file needs one", label);
            }
            LeaderKind::Redis => match leader.redis.as_ref().map(|redis| redis.expose()) {
                None => {
                    let label = "expected `redis`, such as \"redis://127.0.0.1:6379/0\"";
                    self.report.error(at, "leader election by Redis needs to know where it is", label);
                }
                Some(url)
                    if !["redis://", "rediss://", "unix://", "redis+unix://"]
                        .iter()
                        .any(|scheme| url.starts_with(scheme)) =>
                {
                    let label = "expected an address such as \"redis://127.0.0.1:6379/0\"";
                    self.report.error(&at.key("redis"), "no address of a Redis server", label);
                }
                Some(_) => {}
            },
            LeaderKind::Kubernetes if !cfg!(feature = "kubernetes") => {
                self.left_out(&at.key("kind"), "kubernetes");
            }
            _ => {}
        }
        if leader.name.trim().is_empty() {
            self.report.error(&at.key("name"), "the leader's lock has no name", "expected one such as \"tidegate\"");
        }
    }

    /// Exactly one way to make instances, and what it needs.
    pub(super) fn driver(&mut self, scaler: &Scaler, at: &At) {
        let set = [
            ("process", scaler.process.is_some()),
            ("docker", scaler.docker.is_some()),
            ("kubernetes", scaler.kubernetes.is_some()),
            ("systemd", scaler.systemd.is_some()),
            ("webhook", scaler.webhook.is_some()),
            ("exec", scaler.exec.is_some()),
        ];
        let ways: Vec<&str> = set.iter().filter(|(_, set)| *set).map(|(key, _)| *key).collect();
        match ways.as_slice() {
            _ if self.failed(at) => {}
            [] => {
                let label = format!("expected one of {}", list_words(&set.map(|(key, _)| key)));
                self.report.error(at, format!("`{at}` does not say how instances are made"), label);
            }
            [_] => {}
            [first, second, ..] => {
                let message = format!("`{at}` has {}, but instances are made in one way", list_words(&ways));
                self.report.clash(&at.key(second), &at.key(first), message, ["this", "or this"]);
            }
        }
        if let Some(process) = &scaler.process {
            self.process(process, scaler.max, &at.key("process"));
        }
        if let Some(docker) = &scaler.docker {
            self.docker(docker, &at.key("docker"));
        }
        if let Some(kubernetes) = &scaler.kubernetes {
            self.kubernetes(kubernetes, &at.key("kubernetes"));
        }
        if let Some(systemd) = &scaler.systemd {
            self.systemd(systemd, scaler.max, &at.key("systemd"));
        }
        if let Some(webhook) = &scaler.webhook {
            self.url(&at.key("webhook").key("url"), &webhook.url);
        }
        if let Some(exec) = &scaler.exec {
            self.command(&exec.command, &at.key("exec").key("command"));
        }
    }

    fn process(&mut self, process: &Process, most: u32, at: &At) {
        self.command(&process.command, &at.key("command"));
        let texts = || process.command.iter().chain(process.env.values());
        let port = texts().any(|text| text.contains(PLACES[0]));
        if !PLACES.iter().any(|place| texts().any(|text| text.contains(place))) && !process.command.is_empty() {
            let label = "expected `{port}` or `{socket}` in it or in `env`, where the instance listens";
            self.report.error(&at.key("command"), "nothing tells an instance where to listen", label);
        }
        if let Some(ports) = &process.ports {
            self.ports(ports, most, &at.key("ports"));
            if !port {
                self.no_effect(at, &[("ports", true)], "there is no `{port}` in `command` or `env`");
            }
        }
        if process.output.is_empty() {
            self.report.error(&at.key("output"), "no place for the output", "expected \"log\", \"off\" or a file");
        }
        self.variables(&process.env, &at.key("env"));
    }

    fn docker(&mut self, docker: &Docker, at: &At) {
        if !cfg!(feature = "docker") {
            self.left_out(at, "docker");
        }
        if docker.image.trim().is_empty() {
            self.report.error(&at.key("image"), "no image", "expected one such as \"registry.example.com/app:1.2\"");
        }
        for (index, volume) in docker.volumes.iter().enumerate() {
            let parts: Vec<&str> = volume.split(':').collect();
            let right =
                matches!(parts.as_slice(), [from, to] | [from, to, _] if !from.is_empty() && to.starts_with('/'));
            if !right {
                let label = "expected \"/HOST:/CONTAINER\", with \":ro\" to only read";
                self.report.error(&at.key("volumes").index(index), "bad volume", label);
            }
        }
        self.variables(&docker.env, &at.key("env"));
    }

    fn kubernetes(&mut self, kubernetes: &Kubernetes, at: &At) {
        if !cfg!(feature = "kubernetes") {
            self.left_out(at, "kubernetes");
        }
        let (kind, name) = kubernetes.target.split_once('/').unwrap_or((&kubernetes.target, ""));
        let right = |name: &str| {
            let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
            (1..=253).contains(&name.len()) && name.bytes().all(fits)
        };
        if !matches!(kind, "deployment" | "statefulset") || !right(name) {
            let label = "expected \"deployment/NAME\" or \"statefulset/NAME\"";
            self.report.error(&at.key("target"), format!("no target for a scaler: {:?}", kubernetes.target), label);
        }
        // RFC 6335 §5.1, as Kubernetes has it.
        let service = |name: &str| {
            let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            (1..=15).contains(&name.len()) && name.bytes().all(fits) && name.bytes().any(|b| b.is_ascii_lowercase())
        };
        if kubernetes.port.parse::<u16>().map_or(!service(&kubernetes.port), |port| port == 0) {
            let label = "expected a number such as \"8080\", or the name of a container port such as \"http\"";
            self.report.error(&at.key("port"), "no port of a pod", label);
        }
        if kubernetes.context.is_some() && kubernetes.kubeconfig.is_none() {
            self.no_effect(at, &[("context", true)], "it is one of a `kubeconfig`");
        }
    }

    fn systemd(&mut self, systemd: &Systemd, most: u32, at: &At) {
        let name = systemd.unit.strip_suffix("@.service").unwrap_or_default();
        if name.is_empty() || name.contains(['@', '/']) || name.contains(char::is_whitespace) {
            let label = "expected a template such as \"app@.service\"";
            self.report.error(&at.key("unit"), format!("{:?} is no template of units", systemd.unit), label);
        }
        self.ports(&systemd.ports, most, &at.key("ports"));
    }

    /// `8101-8199`, with room for all of them.
    fn ports(&mut self, ports: &str, most: u32, at: &At) {
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => {
                let count = u32::from(last - first) + 1;
                if count < most {
                    let label = format!("expected at least {most} for `max = {most}`, and one more to replace any");
                    self.report.error(at, format!("there are only {count} ports"), label);
                }
            }
            _ => self.report.error(at, "no range of ports", "expected one such as \"8101-8199\""),
        }
    }

    pub(super) fn command(&mut self, command: &[String], at: &At) {
        if self.failed(at) {
            return;
        }
        if command.first().is_none_or(|program| program.trim().is_empty()) {
            let label = "expected the program and its arguments, such as [\"app\", \"--port\", \"{port}\"]";
            self.report.error(at, "there is nothing to run", label);
        } else if command.len() == 1 && command[0].trim().contains(' ') {
            let label = "no shell splits it: expected a list, such as [\"app\", \"--port\", \"{port}\"]";
            self.report.warning(at, "the program's name has a space in it", label);
        }
    }

    pub(super) fn variables(&mut self, variables: &BTreeMap<String, String>, at: &At) {
        for name in variables.keys().filter(|name| name.is_empty() || name.contains(['=', '\0'])) {
            let label = "expected a name such as \"LOG_LEVEL\"";
            self.report.error_at_key(&at.key(name), format!("bad name of a variable {name:?}"), label);
        }
    }

    /// An address of somebody that is called by HTTP.
    pub(super) fn url(&mut self, at: &At, url: &str) {
        let uri = url.parse::<http::Uri>().ok();
        let right = uri.filter(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
        });
        if right.is_none() {
            let label = "expected a URL such as \"http://127.0.0.1:9090\"";
            self.report.error(at, format!("no URL: {url:?}"), label);
        }
    }

    fn left_out(&mut self, at: &At, feature: &str) {
        let label = format!("expected a Tidegate built with the cargo feature `{feature}`");
        self.report.error_at_key(at, format!("this Tidegate was built without `{feature}`"), label);
    }
}
