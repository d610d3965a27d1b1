//! What is counted of MCP requests, by method, tool and error.

use std::sync::OnceLock;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::count::Counter;
use super::histogram::{Distribution, Histogram};
use crate::mcp::names::Names;

/// The methods that are counted apart; those that clients invent are `other`, the first.
pub(super) const METHODS: &[&str] = &[
    "other",
    "initialize",
    "server/discover",
    "ping",
    "tools/call",
    "tools/list",
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "logging/setLevel",
    "completion/complete",
    "subscriptions/listen",
    "tasks/get",
    "tasks/list",
    "tasks/result",
    "tasks/update",
    "tasks/cancel",
];

/// The number of a method among those counted apart, 0 for others.
pub fn method_number(method: &str) -> usize {
    METHODS.iter().skip(1).position(|known| *known == method).map_or(0, |place| place + 1)
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum McpError {
    /// With a result.
    None,
    /// With a result that says that the tool failed.
    Tool,
    /// Its client left, or the answer broke off.
    Cancelled,
    /// With an HTTP error that is no message.
    Http,
    /// With this JSON-RPC code.
    Code(i64),
}

/// The codes that are counted apart.
const CODES: [i64; 12] =
    [-32700, -32600, -32601, -32602, -32603, -32000, -32001, -32002, -32020, -32021, -32022, -32042];
/// The values of `error_type`: absent where there is no error; other codes are `other`.
pub(super) const ERRORS: [&str; 17] = [
    "",
    "tool_error",
    "cancelled",
    "http_error",
    "-32700",
    "-32600",
    "-32601",
    "-32602",
    "-32603",
    "-32000",
    "-32001",
    "-32002",
    "-32020",
    "-32021",
    "-32022",
    "-32042",
    "other",
];

impl McpError {
    fn number(self) -> usize {
        match self {
            McpError::None => 0,
            McpError::Tool => 1,
            McpError::Cancelled => 2,
            McpError::Http => 3,
            McpError::Code(code) => 4 + CODES.iter().position(|known| *known == code).unwrap_or(CODES.len()),
        }
    }
}

/// A method, or a tool that is called; made when it is first used, each of its histograms with its first such end.
type Operation = [OnceLock<Box<Histogram>>; ERRORS.len()];

/// What a worker counts for a pool of MCP servers.
///
/// **Bounds**: the methods, 200 tools and one for all others, each with its ways to end; 2 KiB for each that is in use.
#[derive(Debug)]
pub struct McpLane(Box<[OnceLock<Box<Operation>>]>);

impl Default for McpLane {
    fn default() -> Self {
        McpLane((0..METHODS.len() + Names::MAX + 1).map(|_| OnceLock::new()).collect())
    }
}

impl McpLane {
    /// A request has ended: its [`method_number`], the number of the tool it called, how it ended and after how long.
    pub fn ended(&self, method: usize, tool: Option<usize>, error: McpError, span: Duration) {
        let place = tool.map_or(method, |tool| METHODS.len() + tool.min(Names::MAX));
        let Some(operation) = self.0.get(place) else { return };
        let operation = operation.get_or_init(|| Box::new(std::array::from_fn(|_| OnceLock::new())));
        operation[error.number()].get_or_init(Box::default).record(span);
    }

    fn histogram(&self, place: usize, error: usize) -> Option<&Histogram> {
        self.0.get(place)?.get()?[error].get().map(|histogram| &**histogram)
    }
}

/// What is known of a pool of MCP servers as a whole.
#[derive(Debug, Default)]
pub struct McpPool {
    /// The tools that its servers have listed.
    pub tools: ArcSwap<Names>,
    /// Sessions that were begun anew elsewhere; only control writes it.
    pub moves: Counter,
}

impl McpPool {
    /// Its servers have listed these tools.
    pub fn listed<'a>(&self, tools: &[std::borrow::Cow<'a, str>]) {
        // Nearly always there is nothing new, and nothing is written.
        if self.tools.load().learn(tools.iter().cloned()).is_some() {
            self.tools
                .rcu(|known| known.learn(tools.iter().cloned()).map_or_else(|| known.clone(), std::sync::Arc::new));
        }
    }

    /// What the lanes have counted: method, tool, error and how long it took.
    pub(super) fn each(&self, lanes: &[&McpLane], mut add: impl FnMut([&str; 3], &Distribution)) {
        let tools = self.tools.load();
        let called = METHODS.iter().position(|method| *method == "tools/call").unwrap_or(0);
        for place in 0..METHODS.len() + tools.len() + 1 {
            let (method, tool) = match place.checked_sub(METHODS.len()) {
                Some(tool) => (METHODS[called], tools.name(tool)),
                None => (METHODS[place], ""),
            };
            for (number, error) in ERRORS.iter().enumerate() {
                let mut counted = lanes.iter().filter_map(|lane| lane.histogram(place, number)).peekable();
                if counted.peek().is_some() {
                    add([method, tool, error], &counted.collect());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    #[test]
    fn requests_are_counted_by_method_listed_tool_and_end() {
        let (pool, lanes) = (McpPool::default(), [McpLane::default(), McpLane::default()]);
        pool.listed(&[Cow::Borrowed("add")]);
        pool.listed(&[Cow::Borrowed("add"), Cow::Borrowed("fail")]);
        let number = |tool: &str| Some(pool.tools.load().number(tool));
        let call = method_number("tools/call");
        let second = Duration::from_secs(1);
        lanes[0].ended(call, number("add"), McpError::None, second);
        lanes[1].ended(call, number("add"), McpError::None, second);
        lanes[1].ended(call, number("fail"), McpError::Tool, second);
        for invented in 0..1000 {
            lanes[0].ended(call, number(&format!("tool{invented}")), McpError::Code(-32602), second);
        }
        lanes[0].ended(method_number("made/up"), None, McpError::Code(7), second);
        lanes[0].ended(method_number("ping"), None, McpError::Cancelled, second);
        let mut found = Vec::new();
        let all: Vec<&McpLane> = lanes.iter().collect();
        pool.each(&all, |labels, spans| found.push((labels.join(" "), spans.count())));
        let expected = [
            ("other  other", 1),
            ("ping  cancelled", 1),
            ("tools/call other -32602", 1000),
            ("tools/call add ", 2),
            ("tools/call fail tool_error", 1),
        ];
        assert_eq!(found, expected.map(|(labels, count)| (labels.to_owned(), count)));
    }

    #[test]
    fn each_code_has_its_word() {
        for code in CODES {
            assert_eq!(ERRORS[McpError::Code(code).number()], code.to_string());
        }
        assert_eq!(ERRORS[McpError::Code(1).number()], "other");
    }
}
