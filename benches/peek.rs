//! What looking into MCP messages costs: `cargo bench --bench peek`.
//!
//! Each group states the claim it protects; nothing here is asserted, since time depends on the machine.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use tidegate::mcp::peek::{Follow, peek};

fn main() {
    divan::main();
}

/// What fills the arguments of a call.
#[derive(Debug, Clone, Copy)]
enum Filling {
    /// Words without anything to escape.
    Text,
    /// Source code: a line end or a quote every 15 bytes.
    Code,
    /// Chinese, three bytes each.
    Chinese,
    /// Rows of small numbers and short strings: nothing but structure.
    Rows,
}

const FILLINGS: [Filling; 4] = [Filling::Text, Filling::Code, Filling::Chinese, Filling::Rows];

/// A `tools/call` as the Python SDK writes it (the id last), of `size` bytes or a few more.
fn call(filling: Filling, size: usize) -> Vec<u8> {
    let mut arguments = String::new();
    let piece = match filling {
        Filling::Text => "the quick brown fox jumps over the lazy dog, ",
        Filling::Code => r#"    let total = items.iter().sum();\n    log(\"total\", total);\n"#,
        Filling::Chinese => "快速的棕色狐狸跳过了懒狗",
        Filling::Rows => r#"{"id":17,"ok":true,"at":[1,2.5]},"#,
    };
    while arguments.len() + 300 < size {
        arguments.push_str(piece);
    }
    let arguments = match filling {
        Filling::Rows => format!("[{arguments}null]"),
        _ => format!("\"{arguments}\""),
    };
    let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","progressToken":"p1"}"#;
    let text = format!(
        r#"{{"method":"tools/call","params":{{"_meta":{meta},"name":"run_sql","arguments":{{"query":{arguments}}}}},"jsonrpc":"2.0","id":42}}"#
    );
    text.into_bytes()
}

/// **Claim**: at most 2 µs at 1 KiB and 15 µs at 64 KiB of text; what has many escapes, or is nothing but structure, costs what serde_json
/// needs to skip it.
#[divan::bench(args = FILLINGS, consts = [256, 1024, 65_536])]
fn whole<const SIZE: usize>(bencher: Bencher<'_, '_>, filling: Filling) {
    let body = call(filling, SIZE);
    bencher.counter(BytesCount::new(body.len())).bench_local(|| peek(black_box(&body), true).is_ok());
}

/// **Claim**: to follow what is too long to be looked into costs less than to send it: below 5 µs for 64 KiB of text.
#[divan::bench(args = FILLINGS)]
fn follow(bencher: Bencher<'_, '_>, filling: Filling) {
    let body = call(filling, 65_536);
    bencher.counter(BytesCount::new(body.len())).bench_local(|| Follow::new().feed(black_box(&body)).is_ok());
}
