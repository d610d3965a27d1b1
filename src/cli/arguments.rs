use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::bench::BenchArguments;
use super::scaler::ScalerCommand;
use crate::admin::MAX_WEIGHT;
use crate::types::{Bind, Share, parse_duration};

/// A layer-7 reverse proxy and load balancer.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 64 wrong usage, 78 configuration refused.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the proxy
    Run {
        /// The configuration; without it ./tidegate.toml, then /etc/tidegate/tidegate.toml
        file: Option<PathBuf>,
    },
    /// Say everything that is wrong with a configuration
    Check {
        /// The configuration
        file: PathBuf,
    },
    /// Show a configuration as it is understood, every default filled in
    Show(ShowArguments),
    /// Say which route would take a request, why the others would not, and which upstreams it could go to
    Explain(ExplainArguments),
    /// Try it: three upstreams, the proxy in front of them, and what to do next
    Demo(DemoArguments),
    /// Run a small HTTP server to put behind the proxy: JSON, echo, events, slow and failing answers
    Upstream(UpstreamArguments),
    /// Send a load to a URL and say how it was answered: rate, errors, latency
    Bench(BenchArguments),
    /// Show how a running Tidegate and its upstreams are
    Status {
        /// As JSON, everything there is
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// Give an upstream no new requests and let it finish those it has
    Drain {
        #[command(flatten)]
        upstream: UpstreamName,
        /// Cut what still runs after so long; the pool's drain_timeout unless given
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        deadline: Option<Duration>,
        /// Return only once it is empty
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// Bring an upstream back from a drain or maintenance; the same as `ready`
    Undrain {
        #[command(flatten)]
        upstream: UpstreamName,
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// Take an upstream out of use, until `ready`
    Maintenance {
        #[command(flatten)]
        upstream: UpstreamName,
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// Bring an upstream back from maintenance or a drain; the same as `undrain`
    Ready {
        #[command(flatten)]
        upstream: UpstreamName,
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// Give an upstream another weight, until the configuration gives it another one
    Weight {
        #[command(flatten)]
        upstream: UpstreamName,
        /// The new weight; without it, the configured one again
        #[arg(value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_WEIGHT)))]
        weight: Option<u32>,
        #[command(flatten)]
        admin: AdminArguments,
    },
    /// Make a key for `auth.keys`: prints the key, once, and the line for the key file
    Key {
        /// Whose key it is: the name in limits, logs and headers
        name: String,
        /// A scope that it is good for, as often as needed
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
    },
    /// How pools are scaled: look, ask why, steer, simulate, plan, report
    #[command(subcommand)]
    Scaler(Box<ScalerCommand>),
    /// Have the configuration read again and say whether it is in force
    Reload {
        #[command(flatten)]
        admin: AdminArguments,
    },
}

/// `tidegate show`.
#[derive(Debug, Args)]
pub(super) struct ShowArguments {
    /// The configuration
    #[arg(required_unless_present_any = ["defaults", "reference"])]
    pub(super) file: Option<PathBuf>,
    /// Show every key there is with its default instead
    #[arg(long, conflicts_with_all = ["file", "reference"])]
    pub(super) defaults: bool,
    /// Show the reference page instead (Markdown)
    #[arg(long, conflicts_with = "file")]
    pub(super) reference: bool,
    /// Show tokens and credentials too, so that the text can be used as a configuration
    #[arg(long)]
    pub(super) secrets: bool,
}

/// `tidegate explain`.
#[derive(Debug, Args)]
pub(super) struct ExplainArguments {
    /// The configuration
    pub(super) file: PathBuf,
    /// The request's method
    pub(super) method: http::Method,
    /// The request's URL, such as http://api.example.com/v1/things?x=1
    pub(super) url: String,
    /// A request header, as often as needed
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub(super) headers: Vec<String>,
    /// The client's address
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub(super) from: IpAddr,
    /// The listener it comes in by; any unless given
    #[arg(long, value_name = "NAME")]
    pub(super) listener: Option<String>,
}

/// `tidegate demo`.
#[derive(Debug, Args)]
pub(super) struct DemoArguments {
    /// End by itself after so long, with a load of its own and a summary
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(3..=600))]
    pub(super) seconds: Option<u32>,
    /// Show the scaler instead: a load rises and falls, upstream processes come and go with it, and why; 55 seconds unless told
    #[arg(long)]
    pub(super) scale: bool,
    /// Show MCP servers instead: sessions go on while their servers are killed, drained and brought back; 10 seconds unless told
    #[arg(long, conflicts_with = "scale")]
    pub(super) mcp: bool,
}

/// What the paths of `tidegate upstream` answer.
const PATHS: &str = "\
Some paths answer in their own way; any other, as JSON, what it was asked:
  /echo            the request's body
  /bytes/SIZE      so many bytes, such as /bytes/10MiB
  /sse             an event stream; ?interval=100ms
  /slow/DURATION   the answer, later
  /status/CODE     an answer with this status
  /fail, /hang     a reset, or nothing at all
  /mcp             a tiny MCP server; without an Accept for event streams only a session, by Mcp-Session-Id
  /health          200, or 503 after POST /health/down; POST /health/up heals it
  /stats           what it has seen
WebSocket and other upgrades are echoed, gRPC too.";

/// `tidegate upstream`.
#[derive(Debug, Args)]
#[command(after_help = PATHS)]
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

/// Which upstream is meant.
#[derive(Debug, Args)]
pub(super) struct UpstreamName {
    /// The pool
    pub(super) pool: String,
    /// The upstream's address, as `tidegate status` shows it
    pub(super) upstream: String,
}

/// How to reach the running Tidegate.
#[derive(Debug, Args)]
pub(super) struct AdminArguments {
    /// Its admin API: http://HOST:PORT or unix:PATH; otherwise the configuration says
    #[arg(long, value_name = "URL")]
    pub(super) admin: Option<String>,
    /// The admin token; otherwise TIDEGATE_TOKEN, then the configuration
    #[arg(long)]
    pub(super) token: Option<String>,
    /// The configuration to take address and token from; ./tidegate.toml, then /etc/tidegate/tidegate.toml
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}
