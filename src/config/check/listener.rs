//! Listeners: addresses, protocols, TLS.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use super::Check;
use crate::config::model::{Listener, ProxyProtocol};
use crate::config::place::At;
use crate::types::Bind;

impl Check<'_> {
    pub(super) fn listeners(&mut self) {
        let mut taken: BTreeMap<&Bind, At> = BTreeMap::new();
        if let Some(bind) = &self.config.admin.bind {
            taken.insert(bind, At::root().key("admin").key("bind"));
        }
        for (name, listener) in &self.config.listener {
            let at = At::root().key("listener").key(name);
            if listener.bind.is_empty() && !self.failed(&at.key("bind")) {
                self.report.error(&at.key("bind"), format!("`{at}` has no address"), "expected at least one address");
            }
            for (index, bind) in listener.bind.iter().enumerate() {
                let at = at.key("bind").index(index);
                self.bind(bind, &at, &mut taken);
            }
            self.listener(listener, &at);
        }
    }

    fn bind<'c>(&mut self, bind: &'c Bind, at: &At, taken: &mut BTreeMap<&'c Bind, At>) {
        match bind {
            // Port 0 is another port each time.
            Bind::Tcp(address) if address.port() == 0 => return,
            Bind::Tcp(_) => {}
            Bind::Unix(path) => self.unix_path(at, path),
        }
        match taken.get(bind) {
            Some(first) => {
                let labels = ["first here", "again here"];
                self.report.clash(at, &first.clone(), format!("two listeners on one address, {bind}"), labels);
            }
            None => {
                if let Some((other, first)) = taken.iter().find(|(other, _)| overlap(bind, other)) {
                    let what = format!("{bind} and {other} overlap: one of them is every address of that port");
                    self.report.clash(at, &first.clone(), what, ["first here", "again here"]);
                }
                taken.insert(bind, at.clone());
            }
        }
    }

    /// A relative path would mean another socket in every folder that we are started from.
    pub(super) fn unix_path(&mut self, at: &At, path: &Path) {
        if !path.is_absolute() {
            let label = format!("expected an absolute path, such as \"unix:/run/{}\"", path.display());
            self.report.error(at, "a Unix socket needs an absolute path", label);
        }
    }

    fn listener(&mut self, listener: &Listener, at: &At) {
        let protocols = at.key("protocols");
        if listener.protocols.is_empty() && !self.failed(&protocols) {
            self.report.error(
                &protocols,
                format!("`{at}` speaks no protocol"),
                "expected \"http/1.1\", \"h2\" or both",
            );
        }
        let proxied = at.key("proxy_protocol");
        let anybody = listener.trusted_proxies.is_empty() && !self.failed(&at.key("trusted_proxies"));
        if listener.proxy_protocol != ProxyProtocol::Off && anybody && self.only_tcp(listener) {
            let label = "add `trusted_proxies`, the networks that the load balancer connects from";
            self.report.warning(&proxied, "anybody who connects can claim any client address", label);
        }
        if listener.max_uri > listener.max_header_size {
            let label = format!("expected at most `max_header_size`, {}", listener.max_header_size);
            self.report.error(&at.key("max_uri"), "`max_uri` is larger than all headers together may be", label);
        }
        if let Some(tls) = &listener.tls {
            self.listener_tls(tls, &at.key("tls"));
        }
    }

    fn only_tcp(&self, listener: &Listener) -> bool {
        listener.bind.iter().all(|bind| matches!(bind, Bind::Tcp(_)))
    }
}

/// Whether one of them is every address, the other's among them: the system refuses the second. `[::]` is IPv4 too.
fn overlap(one: &Bind, other: &Bind) -> bool {
    let (Bind::Tcp(one), Bind::Tcp(other)) = (one, other) else { return false };
    let holds = |all: &SocketAddr, it: &SocketAddr| all.ip().is_unspecified() && (all.is_ipv6() || it.is_ipv4());
    one.port() == other.port() && (holds(one, other) || holds(other, one))
}
