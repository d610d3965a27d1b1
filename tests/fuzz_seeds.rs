//! The fuzzer's targets without a fuzzer: every seed as it is, and seeded changes of them.
//!
//! `SEED=…` does it again; `FUZZ_CASES=1000000 cargo test --test fuzz_seeds path` takes its time.

#[path = "fuzz/targets.rs"]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fastrand::Rng;

/// What changes put in, besides parts of other seeds.
const PIECES: &[&[u8]] = &[
    b"",
    b"\0",
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b"/",
    b"//",
    b"/../",
    b"/./",
    b"..",
    b"%",
    b"%2e",
    b"%2F",
    b"%00",
    b"%25",
    b";",
    b":",
    b",",
    b"=",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"'",
    b"[",
    b"]",
    b"{",
    b"}",
    b"[[",
    b"0",
    b"-1",
    b"1e400",
    b"18446744073709551616",
    b"99999999999999999999",
    b"null",
    b"true",
    b"\"id\":1,",
    b"\"method\":\"x\",",
    b"\"params\":{}",
    b"\"jsonrpc\":\"2.0\"",
    b"for=",
    b"for=\"[::1]:80\"",
    b"10.0.0.1",
    b"::ffff:10.0.0.1",
    b"\xff",
    b"\xc3\xa4",
    b"\xe2\x80\xae",
    b"\xef\xbb\xbf",
    b"data:",
    b"id: 1\n",
    b"retry:",
    b"[[route]]\n",
    b"pool = \"x\"\n",
    b"inf",
    b"${A}",
];

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(name);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{name} has seeds");
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

fn changed(seeds: &[Vec<u8>], random: &mut Rng) -> Vec<u8> {
    let mut bytes = random.choice(seeds).cloned().unwrap_or_default();
    for _ in 0..random.usize(..6) {
        let at = random.usize(..=bytes.len());
        let end = at + random.usize(..=(bytes.len() - at).min(20));
        match random.u8(..6) {
            0 => drop(bytes.drain(at..end)),
            1 if at < bytes.len() => bytes[at] = random.u8(..),
            2 => bytes.splice(at..at, bytes[at..end].to_vec()).for_each(drop),
            3 => {
                let other = random.choice(seeds).unwrap();
                let from = random.usize(..=other.len());
                let to = from + random.usize(..=(other.len() - from).min(200));
                bytes.splice(at..end, other[from..to].iter().copied()).for_each(drop);
            }
            4 => bytes.truncate(at),
            _ => bytes.splice(at..end, random.choice(PIECES).unwrap().iter().copied()).for_each(drop),
        }
    }
    bytes
}

/// Runs a target on its seeds and on so many changes of them.
fn survives(name: &str, cases: u32) {
    let (_, target) = targets::TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..));
    let cases = number("FUZZ_CASES").unwrap_or(cases.into());
    let (seeds, mut random) = (seeds(name), Rng::with_seed(seed));
    let changes = (0..cases).map(|_| changed(&seeds, &mut random));
    for bytes in seeds.iter().cloned().chain(changes) {
        if catch_unwind(AssertUnwindSafe(|| target(&bytes))).is_err() {
            panic!("SEED={seed}: {name} fails on {:?}", bytes.escape_ascii().to_string());
        }
    }
}

#[test]
fn configurations() {
    survives("config", 300);
}

#[test]
fn paths() {
    survives("path", 20_000);
}

#[test]
fn hosts() {
    survives("host", 20_000);
}

#[test]
fn forwarding_headers() {
    survives("forwarded", 3_000);
}

#[test]
fn messages() {
    survives("peek", 10_000);
}

#[test]
fn event_streams() {
    survives("events", 10_000);
}

#[test]
fn limits() {
    survives("limiter", 2_000);
}

#[test]
fn every_target_has_a_fuzzers_binary() {
    let manifest = include_str!("fuzz/Cargo.toml");
    for (name, _) in targets::TARGETS {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
}
