//! Seeded changes of the seeds: what a fuzzer does, in small. For `tests/fuzz_seeds.rs`, and for the targets that only the crate itself
//! sees, in `src/fuzzing.rs`.

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
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"Host: x\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Upgrade: x\r\n",
    b"\r\n ",
    b"5\r\n",
    b"0\r\n\r\n",
    b"FFFFFFFFFFFFFFFF",
    b"PROXY TCP4 ",
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

/// Runs a target on its seeds and on so many changes of them; there is a fuzzer's binary of its name.
pub(crate) fn survives(name: &str, target: fn(&[u8]), cases: u32) {
    let binary = format!("fuzz_targets/{name}.rs");
    let there = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(&binary).is_file();
    assert!(there && include_str!("Cargo.toml").contains(&format!("path = \"{binary}\"")), "{name} has no binary");
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
