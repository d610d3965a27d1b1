//! The admin API, the log and the access log.

use super::Check;
use crate::config::near::{did_you_mean, nearest};
use crate::config::place::At;
use crate::telemetry::access::Format;
use crate::types::Bind;

/// A token shorter than this can be tried out.
const SHORTEST_TOKEN: usize = 16;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl Check<'_> {
    pub(super) fn admin(&mut self) {
        let at = At::root().key("admin");
        let admin = &self.config.admin;
        if let Some(token) = &admin.token {
            let token = token.expose();
            let visible = token.bytes().all(|b| b.is_ascii_graphic());
            if token.chars().count() < SHORTEST_TOKEN || !visible {
                let label = format!("expected at least {SHORTEST_TOKEN} visible ASCII characters");
                self.report.error(&at.key("token"), "the admin token is too weak", label);
            }
        } else if let Some(Bind::Tcp(address)) = &admin.bind
            && !address.ip().to_canonical().is_loopback()
            && !self.failed(&at)
        {
            let label =
                format!("expected a loopback address, a Unix socket, or a `token` beside it: {address} is public");
            self.report.error(&at.key("bind"), "the admin API on a public address needs a token", label);
        }
        if let Some(Bind::Unix(path)) = &admin.bind {
            self.unix_path(&at.key("bind"), path);
        }
        self.log_level();
        if let Err(error) = Format::parse(&self.config.access_log.format) {
            let at = At::root().key("access_log").key("format");
            self.report.error(&at, format!("bad value for `{at}`"), error.to_string());
        }
    }

    /// `info`, `info,tidegate::proxy=debug`.
    fn log_level(&mut self) {
        let at = At::root().key("log").key("level");
        for part in self.config.log.level.split(',') {
            let level = part.split_once('=').map_or(part, |(_, level)| level).trim();
            let target = part.split_once('=').map_or("tidegate", |(target, _)| target).trim();
            let word = target.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':');
            if target.is_empty() || !word {
                self.report.error(&at, format!("bad value for `{at}`"), "expected a module such as `tidegate::proxy`");
            }
            if !LEVELS.contains(&level) {
                let near = nearest(level, LEVELS);
                let near = if near.is_some() { format!("; {}", did_you_mean(near)) } else { String::new() };
                let label = format!("expected a level such as \"info\" or \"info,tidegate::proxy=debug\"{near}");
                self.report.error(&at, format!("bad value for `{at}`"), label);
            }
        }
    }
}
