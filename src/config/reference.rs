//! The reference page: every key of the configuration, from the same definitions that read it.

use std::fmt::Write;

use super::out::Secrets;
use super::schemas;
use super::section::{Key, Schema, Shape};
use crate::telemetry::access::Format;

const PREFACE: &str = "# Configuration reference

Made from the definitions in `src/config/model.rs` and `src/config/scaling.rs`; `TIDEGATE_BLESS=1 cargo test reference` makes it anew.
`tidegate show --defaults` prints the same as commented TOML, `tidegate show FILE` a configuration with every default
filled in, `tidegate check FILE` everything wrong with one.

The language is [TOML](https://toml.io). Besides:

- **Durations** are written `500ms`, `5s`, `2m`, `1h30m`, `1d`; **sizes** `512`, `64KiB`, `4MiB`, `1GB` (`KiB` is 1024,
  `KB` 1000); **rates** `100/s`, `10/min`, `1000/h`; **shares** `20%`. All of them in quotes, but for plain bytes.
- **Lists** of one need no brackets: `path = \"/api\"` is `path = [\"/api\"]`.
- **`${NAME}`** in a string is the environment variable, `${NAME:-default}` has a default, `$${` is a plain `${`. A number or
  a boolean can be written as such a string. In texts that may hold variables (below), `${name}` in small letters is a capture.
- **`include`** reads further files. Their listeners, pools and error pages join those of the including file, by name; their routes
  follow it. Everything else may be said in one file only.
- **Paths of files** start from the folder of the file that names them.
";

const VARIABLES: &str = "
## Variables

For `redirect.to`, `respond.body`, `rewrite.path`, `rewrite.to` and the values of headers. What the route's path expression
caught is `$1` or `${name}`; `{{`, `}}` and `$$` stand for these characters themselves.

| Variable | Value |
|---|---|
";

/// The page, in Markdown.
pub fn reference() -> String {
    let mut page = PREFACE.to_owned();
    let schemas = schemas();
    for schema in &schemas {
        section(&mut page, schema);
    }
    page.push_str(VARIABLES);
    for (name, meaning) in crate::route::VARIABLES {
        let _ = writeln!(page, "| `{{{name}}}` | {meaning} |");
    }
    let names: Vec<String> = Format::variables().map(|name| format!("`{{{name}}}`")).collect();
    let _ = write!(page, "\n## Variables of the access log\n\n{}\n", names.join(", "));
    page
}

fn section(page: &mut String, schema: &Schema) {
    let title = match schema.path {
        "" => "Top level".to_owned(),
        "route" => "`[[route]]`".to_owned(),
        path => format!("`{path}`"),
    };
    let _ = write!(page, "\n## {title}\n\n{}\n", schema.doc);
    if let Some(key) = schema.short {
        let _ = write!(page, "\nA bare value stands for its `{key}`.\n");
    }
    page.push_str("\n| Key | Value | Default | Meaning |\n|---|---|---|---|\n");
    for key in &schema.keys {
        let _ = writeln!(page, "| `{}` | {} | {} | {} |", key.name, kind(key), default(key), cell(&key.doc));
    }
}

fn kind(key: &Key) -> String {
    if let Some((shape, schema)) = key.section {
        let path = schema().path;
        let link = format!("[`{path}`](#{})", anchor(path));
        return match shape {
            Shape::One => link,
            Shape::List => format!("one or several {link}"),
            Shape::Named => format!("{link} for each name"),
        };
    }
    match &key.bounds {
        Some(bounds) => cell(&format!("{}; {bounds}", key.words)),
        None => cell(&key.words),
    }
}

fn default(key: &Key) -> String {
    match &key.default {
        _ if key.required => "**required**".to_owned(),
        Some(default) if key.section.is_none() => format!("`{}`", cell(&default.inline(Secrets::Shown))),
        _ => String::new(),
    }
}

/// GitHub's anchor of a heading: small letters, digits, dashes and underscores of it.
fn anchor(path: &str) -> String {
    let path = path.to_ascii_lowercase();
    path.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect()
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_page_is_current() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/REFERENCE.md");
        if std::env::var_os("TIDEGATE_BLESS").is_some() {
            std::fs::write(file, reference()).unwrap();
        }
        let kept = std::fs::read_to_string(file).unwrap_or_default();
        assert!(kept == reference(), "conf/REFERENCE.md is stale; TIDEGATE_BLESS=1 cargo test reference makes it anew");
    }
}
