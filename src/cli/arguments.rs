use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::types::{Bind, Share, parse_duration};

/// A layer-7 reverse proxy and load balancer.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, max_term_width = 100, disable_help_subcommand = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a small HTTP server to put behind the proxy: JSON, echo, events, slow and failing answers
    Upstream(UpstreamArguments),
}

/// `tidegate upstream`.
#[derive(Debug, Args)]
pub(super) struct UpstreamArguments {
    /// Where to listen: an address with a port (0 for a free one) or unix:PATH
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9001")]
    pub(super) bind: Bind,
    /// The name it answers with; its address unless given
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Wait so long before each answer
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    pub(super) latency: Duration,
    /// Answer this share of the requests with 500
    #[arg(long, value_name = "SHARE", default_value = "0%")]
    pub(super) failure_rate: Share,
}
