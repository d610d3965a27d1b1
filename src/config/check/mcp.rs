//! What is for MCP servers.

use super::Check;
use crate::config::model::{McpCache, McpDrain, McpLimit, Pool, PoolKind, SessionLoss};
use crate::config::place::At;
use crate::config::section::Report;

/// A key shorter than this could be guessed.
const KEY: usize = 32;

impl Check<'_> {
    pub(super) fn mcp_keys(&mut self) {
        let at = At::root().key("mcp").key("keys");
        for (index, key) in self.config.mcp.keys.iter().enumerate().filter(|(_, key)| key.expose().len() < KEY) {
            let label =
                format!("it has {} characters, expected at least {KEY}: `openssl rand -hex 32`", key.expose().len());
            self.report.error(&at.index(index), "a key that could be guessed", label);
        }
    }

    pub(super) fn mcp(&mut self, pool: &Pool, at: &At) {
        if pool.kind == PoolKind::Http {
            let set = [
                ("session_loss", pool.session_loss != SessionLoss::Reinit),
                ("drain", pool.drain != McpDrain::default()),
                ("keepalive", pool.keepalive != Pool::default().keepalive),
                ("stdio", pool.stdio.is_some()),
                ("limit", !pool.limit.is_empty()),
                ("list_cache", pool.list_cache != McpCache::default()),
            ];
            return self.no_effect(at, &set, "it is for pools of `kind = \"mcp\"`; here it is \"http\"");
        }
        if pool.sticky.is_some() {
            let label = "sessions of an MCP pool stay where they are by themselves";
            self.no_effect(at, &[("sticky", true)], label);
        }
        if let Some(stdio) = &pool.stdio {
            let at = at.key("stdio");
            if !pool.upstreams.is_empty() || pool.scaler.is_some() {
                let label =
                    "its upstream is the bridge to these processes: expected no `upstreams` and no `scaler` beside it";
                self.report.error(&at, "a pool has one kind of upstreams", label);
            }
            if pool.health.is_some() {
                let label = "a check would start processes, and keep them from being idle";
                self.report.error(
                    &at,
                    "processes that are started on demand are not checked: leave out `health`",
                    label,
                );
            }
            self.command(&stdio.command, &at.key("command"));
            self.variables(&stdio.env, &at.key("env"));
        }
        if pool.drain.portable && !pool.drain.migrate {
            let (first, second) = (at.key("drain").key("migrate"), at.key("drain").key("portable"));
            let labels = ["here they are to stay to the end", "here they are to move at once"];
            self.report.clash(&second, &first, "sessions can not both stay and move", labels);
        }
        for (index, limit) in pool.limit.iter().enumerate() {
            mcp_limit(&mut self.report, limit, &at.key("limit").index(index));
        }
    }
}

fn mcp_limit(report: &mut Report<'_>, limit: &McpLimit, at: &At) {
    if limit.rate.is_none() && limit.concurrency.is_none() {
        report.error(at, "a limit that limits nothing", "expected `rate` or `concurrency`");
    }
    if limit.rate.is_none() && limit.cost != McpLimit::default().cost {
        report.warning_at_key(&at.key("cost"), "`cost` has no effect", "it is how much of a `rate` a call uses");
    }
    let burst = limit.burst.map_or(limit.rate.map_or(u32::MAX, |rate| rate.count), |burst| burst.saturating_add(1));
    if limit.rate.is_some() && limit.cost > burst {
        let label = format!("expected at most {burst}, which is all that can be used at once");
        report.error(&at.key("cost"), "no call could ever be made", label);
    }
    let calls = limit.method.iter().all(|method| method == "tools/call");
    if !limit.tool.is_empty() && !calls {
        let label = "a limit with `tool` is for the method \"tools/call\" alone";
        report.error(&at.key("method"), "these methods call no tool", label);
    }
}
