//! Whatever the text, reading it ends: with a configuration or with problems that can be shown.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

/// Texts to start from: the golden cases' main files and the example.
static SEEDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config");
    let cases = std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());
    let main = |case: String| case.split("\n----------\n").next().unwrap_or_default().to_owned();
    let mut seeds: Vec<String> = cases.map(main).collect();
    seeds.sort();
    seeds.push(include_str!("../../conf/tidegate.toml").to_owned());
    seeds
});

/// A change of a text: at a place (as a share of its length) so many characters are replaced.
#[derive(Debug, Clone)]
struct Slip {
    at: f64,
    cut: usize,
    insert: String,
}

fn slip() -> impl Strategy<Value = Slip> {
    let pieces = prop::sample::select(vec![
        "",
        "\"",
        "'",
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        ",",
        ".",
        "\n",
        "#",
        "0",
        "-1",
        "99999999999999999999",
        "1e400",
        "${",
        "${A}",
        "$${",
        "\\u0000",
        "\\",
        "ü",
        "\u{202e}",
        "\t",
        "\r\n",
        "\"\"\"",
        "true",
        "off",
        "\"off\"",
        "{}",
        "[]",
        "pool = \"x\"\n",
        "[route]\n",
        "[[route]]\n",
        "include = \"*\"\n",
        "token = \"t\"",
        "\u{feff}",
        "a.b.c = 1\n",
        "inf",
    ]);
    (0.0..1.0f64, 0usize..20, pieces).prop_map(|(at, cut, insert)| Slip { at, cut, insert: insert.to_owned() })
}

fn apply(text: &str, slip: &Slip) -> String {
    let mut start = (text.len() as f64 * slip.at) as usize;
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let rest: String = text[start..].chars().skip(slip.cut).collect();
    format!("{}{}{rest}", &text[..start], slip.insert)
}

fn survives(text: &str) {
    let outcome = read_text("/etc/tidegate.toml", text, &Memory::default());
    let plain = render(&outcome.problems, false);
    let _ = render(&outcome.problems, true);
    assert_eq!(outcome.config.is_none(), outcome.errors().next().is_some(), "{plain}");
    for problem in &outcome.problems {
        assert!(!problem.to_string().contains('\n'));
    }
    if let Some(config) = outcome.config {
        let shown = show(&config, Secrets::Shown);
        let again = read_text("/etc/tidegate.toml", &shown, &Memory::default());
        assert_eq!(again.config, Some(config), "{shown}\n{}", render(&again.problems, false));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn slips_of_the_hand_are_survived(seed: prop::sample::Index, slips in prop::collection::vec(slip(), 0..4)) {
        let seed = &SEEDS[seed.index(SEEDS.len())];
        survives(&slips.iter().fold(seed.clone(), |text, slip| apply(&text, slip)));
    }

    #[test]
    fn any_text_is_survived(text in "\\PC{0,200}") {
        survives(&text);
    }
}

#[test]
fn deep_and_wide_texts_are_survived() {
    survives(&format!("{}a = 1", "a.".repeat(100_000)));
    survives(&format!("[{}a]", "a.".repeat(100_000)));
    survives(&format!("x = {}", "[".repeat(100_000)));
    survives(&format!("x = {}", "{a=".repeat(100_000)));
    survives(&format!("{}\n", "a".repeat(1_000_000)));
    survives(&"[[route]]\nbad = 1\n".repeat(2_000));
    survives(&format!("[listener.a]\nbind = [{}]", "\"x\",".repeat(5_000)));
}
