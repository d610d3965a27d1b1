//! Golden tests: what is read, and what comes of it, in one file each.
//!
//! A case holds the main file, further files under `== NAME` lines (`== env` holds variables), a line `----------`, and
//! what is expected: the problems as a person sees them, then the normalized configuration if there is one.
//! `TIDEGATE_BLESS=1` writes down what is now.

use std::path::Path;
use std::time::Duration;

use super::*;

const BORDER: &str = "\n----------\n";

#[test]
fn every_case_comes_out_as_written_down() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config");
    let bless = std::env::var_os("TIDEGATE_BLESS").is_some();
    let world = certificates();
    let mut wrong = Vec::new();
    let mut cases: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    for path in &cases {
        let case = std::fs::read_to_string(path).unwrap();
        let (input, expected) = case.split_once(BORDER).unwrap_or((case.trim_end(), ""));
        let found = outcome_of(input, world.clone());
        if found.trim_end() != expected.trim_end() {
            if bless {
                std::fs::write(path, format!("{input}{BORDER}{}\n", found.trim_end())).unwrap();
            } else {
                wrong.push(format!("{}:\n{found}", path.display()));
            }
        }
    }
    assert!(cases.len() >= 30, "only {} cases", cases.len());
    assert!(wrong.is_empty(), "{} cases came out otherwise:\n\n{}", wrong.len(), wrong.join("\n\n"));
}

fn outcome_of(input: &str, mut world: Memory) -> String {
    let mut parts = input.split("\n== ");
    let main = parts.next().unwrap_or_default();
    for part in parts {
        let (name, content) = part.split_once('\n').unwrap_or((part, ""));
        if name == "env" {
            for (name, value) in content.lines().filter_map(|line| line.split_once('=')) {
                world.variables.insert(name.to_owned(), value.to_owned());
            }
        } else {
            world = world.file(Path::new("/etc/tidegate").join(name), content);
        }
    }
    let outcome = read_text("/etc/tidegate/tidegate.toml", main, &world);
    let problems = render(&outcome.problems, false).replace("/etc/tidegate/", "");
    let Some(config) = outcome.config else { return problems };
    let shown = show(&config, Secrets::Shown);
    let again = read_text("/elsewhere.toml", &shown, &world);
    assert_eq!(again.config.as_ref(), Some(&config), "{}\n{shown}", render(&again.problems, false));
    let hidden = show(&config, Secrets::Hidden);
    if problems.is_empty() { hidden } else { format!("{problems}\n{hidden}") }
}

/// Certificates and keys under `certs`: `a` and `b` are good, `old` has expired and `early` is not good yet.
fn certificates() -> Memory {
    let mut world = Memory::default();
    let day = Duration::from_secs(86_400);
    for (name, from, until) in [
        ("a", world.now - 10 * day, world.now + 10 * day),
        ("b", world.now - 10 * day, world.now + 10 * day),
        ("old", world.now - 20 * day, world.now - 10 * day),
        ("early", world.now + 10 * day, world.now + 20 * day),
    ] {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![format!("{name}.example.com")]).unwrap();
        params.not_before = from.into();
        params.not_after = until.into();
        let certificate = params.self_signed(&key).unwrap();
        world = world.file(format!("/etc/tidegate/certs/{name}.pem"), certificate.pem());
        world = world.file(format!("/etc/tidegate/certs/{name}.key"), key.serialize_pem());
    }
    world.file("/etc/tidegate/certs/empty.pem", "nothing\n").file("/etc/tidegate/page.html", "<h1>sorry</h1>")
}

#[test]
fn the_example_is_good() {
    let text = include_str!("../../conf/tidegate.toml");
    let outcome = read_text("/etc/tidegate/tidegate.toml", text, &Memory::default());
    assert!(outcome.problems.is_empty(), "{}", render(&outcome.problems, false));
    let shown = show(&outcome.config.unwrap(), Secrets::Shown);
    let again = read_text("/etc/tidegate/tidegate.toml", &shown, &Memory::default());
    assert!(again.problems.is_empty(), "{}", render(&again.problems, false));
}
