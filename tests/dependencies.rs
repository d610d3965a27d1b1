//! What we build on: permissive licences only, one provider of cryptography, and nothing from outside the registry.
//!
//! Whether something in it is known to be vulnerable is another question, which a database answers: `.ci/run` asks `cargo audit` where
//! that and its database can be had.

use std::process::Command;

use serde_json::Value;

/// Licences that ask for no more than to be named.
const PERMISSIVE: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Other ways to do what rustls with *ring* does here.
const OTHER_CRYPTOGRAPHY: [&str; 6] = ["aws-lc-rs", "aws-lc-sys", "boring", "native-tls", "openssl", "openssl-sys"];

/// All packages of the lock file that are built for this platform.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let used: Vec<&Value> = metadata["resolve"]["nodes"].as_array().unwrap().iter().map(|node| &node["id"]).collect();
    let all = metadata["packages"].as_array().unwrap();
    all.iter().filter(|package| used.contains(&&package["id"])).cloned().collect()
}

fn name(package: &Value) -> &str {
    package["name"].as_str().unwrap()
}

/// Whether an SPDX expression leaves us a choice of permissive licences only. `AND` binds closer than `OR`.
fn is_permissive(expression: &str) -> bool {
    fn either(words: &mut std::iter::Peekable<std::vec::IntoIter<String>>) -> bool {
        let mut any = both(words);
        while words.next_if(|word| word == "OR").is_some() {
            any |= both(words);
        }
        any
    }
    fn both(words: &mut std::iter::Peekable<std::vec::IntoIter<String>>) -> bool {
        let mut all = one(words);
        while words.next_if(|word| word == "AND").is_some() {
            all &= one(words);
        }
        all
    }
    fn one(words: &mut std::iter::Peekable<std::vec::IntoIter<String>>) -> bool {
        let Some(mut licence) = words.next() else { return false };
        if licence == "(" {
            let inner = either(words);
            return words.next().is_some_and(|word| word == ")") && inner;
        }
        if words.next_if(|word| word == "WITH").is_some() {
            licence = format!("{licence} WITH {}", words.next().unwrap_or_default());
        }
        PERMISSIVE.contains(&licence.as_str())
    }
    // `MIT/Apache-2.0` is how it was once written.
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<String> = spaced.split_whitespace().map(str::to_owned).collect();
    let mut words = words.into_iter().peekable();
    either(&mut words) && words.next().is_none()
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    for permissive in
        ["MIT", "MIT OR GPL-3.0", "MIT/Apache-2.0", "(MIT OR GPL-2.0) AND Unicode-3.0", "GPL-2.0 OR MIT AND ISC"]
    {
        assert!(is_permissive(permissive), "{permissive}");
    }
    for other in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "MPL-2.0",
        "(MIT OR ISC) AND AGPL-3.0",
        "GPL-2.0 WITH Classpath-exception-2.0",
        "MIT ISC",
    ] {
        assert!(!is_permissive(other), "{other}");
    }
}

#[test]
fn every_dependency_has_a_permissive_licence() {
    let all = packages();
    assert!(all.len() > 100, "{}", all.len());
    let others: Vec<_> = all
        .iter()
        .filter(|package| !package["license"].as_str().is_some_and(is_permissive))
        .map(|package| (name(package), &package["license"], &package["license_file"]))
        .collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn there_is_one_provider_of_cryptography() {
    let all = packages();
    assert!(all.iter().any(|package| name(package) == "ring"));
    let others: Vec<_> = all.iter().map(name).filter(|name| OTHER_CRYPTOGRAPHY.contains(name)).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn everything_comes_from_the_registry() {
    let all = packages();
    let others: Vec<_> = all
        .iter()
        .filter(|package| match package["source"].as_str() {
            Some(source) => !source.starts_with("registry+"),
            None => name(package) != "tidegate",
        })
        .map(|package| (name(package), &package["source"]))
        .collect();
    assert!(others.is_empty(), "{others:?}");
}
