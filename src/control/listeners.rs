//! Placeholder
use crate::config::Config;
use crate::snapshot::Listener;
use crate::telemetry::Registry;
use std::net::SocketAddr;
use std::sync::Arc;

pub struct Listeners {
    pub names: Vec<String>,
    pub bound: Vec<(usize, SocketAddr, Vec<std::net::TcpListener>)>,
    workers: usize,
}
pub struct Bound;
impl Listeners {
    pub fn new(workers: usize) -> Self {
        Listeners { names: vec![], bound: vec![], workers }
    }
    pub fn adopt_names(&mut self, config: &Config) -> Vec<String> {
        for name in config.listener.keys() {
            if !self.names.contains(name) {
                self.names.push(name.clone());
            }
        }
        self.names.clone()
    }
    pub fn derive(&mut self, config: &Config, registry: &Registry) -> Result<Vec<Arc<Listener>>, Vec<String>> {
        Ok(self
            .names
            .iter()
            .map(|name| {
                Arc::new(Listener {
                    name: name.as_str().into(),
                    settings: config.listener[name].clone(),
                    stats: registry.listener(name),
                })
            })
            .collect())
    }
    pub fn bind(&mut self, config: &Config) -> Result<Bound, String> {
        if self.bound.is_empty() {
            for (name, listener) in &config.listener {
                for bind in &listener.bind {
                    if let crate::types::Bind::Tcp(address) = bind {
                        let index = self.names.iter().position(|n| n == name).unwrap();
                        let first = crate::downstream::placeholder::listen(*address).map_err(|e| e.to_string())?;
                        let address = first.local_addr().unwrap();
                        let mut all = vec![first];
                        for _ in 1..self.workers {
                            all.push(crate::downstream::placeholder::listen(address).map_err(|e| e.to_string())?);
                        }
                        self.bound.push((index, address, all));
                    }
                }
            }
        }
        Ok(Bound)
    }
    pub fn addresses(&self) -> Vec<(String, SocketAddr)> {
        self.bound.iter().map(|(i, a, _)| (self.names[*i].clone(), *a)).collect()
    }
    pub fn commit(&mut self, _: Bound) {}
    pub fn open<'a>(&'a self, all: &'a [Arc<Listener>]) -> impl Iterator<Item = (&'a Arc<Listener>, Vec<String>)> {
        all.iter()
            .enumerate()
            .map(|(i, l)| (l, self.bound.iter().filter(|b| b.0 == i).map(|b| b.1.to_string()).collect()))
    }
}
