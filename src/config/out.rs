//! A configuration as a tree on its way out: what `tidegate show`, the reference and the defaults are written from.

/// A value to be written as TOML.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Out {
    Text(String),
    /// A text that is only shown where secrets may be.
    Secret(String),
    /// A text in which `${name}` is what a regular expression caught.
    Capturing(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    List(Vec<Out>),
    Table(Vec<(String, Out)>),
}

/// How secrets are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// As [`HIDDEN`].
    Hidden,
    /// As they are.
    Shown,
}

/// What stands for a hidden secret: a variable that nobody sets, so that a copied listing is refused instead of
/// running with a secret that everybody can read here.
pub const HIDDEN: &str = "${HIDDEN}";

impl Out {
    pub(crate) fn text(text: impl Into<String>) -> Out {
        Out::Text(text.into())
    }

    /// The value in one line.
    pub(crate) fn inline(&self, secrets: Secrets) -> String {
        match self {
            Out::Secret(_) if secrets == Secrets::Hidden => quote(HIDDEN),
            Out::Text(text) | Out::Secret(text) => quote(&escape(text, |_| true)),
            Out::Capturing(text) => quote(&escape(text, |name| !is_capture(name))),
            Out::Integer(number) => number.to_string(),
            // With its point, or TOML reads an integer.
            Out::Float(number) => format!("{number:?}"),
            Out::Bool(flag) => flag.to_string(),
            Out::List(items) => {
                let items: Vec<String> = items.iter().map(|item| item.inline(secrets)).collect();
                format!("[{}]", items.join(", "))
            }
            Out::Table(entries) if entries.is_empty() => "{}".to_owned(),
            Out::Table(entries) => {
                let entries: Vec<String> =
                    entries.iter().map(|(key, value)| format!("{} = {}", bare(key), value.inline(secrets))).collect();
                format!("{{ {} }}", entries.join(", "))
            }
        }
    }
}

/// A key as TOML wants it: bare where that is allowed.
pub(crate) fn bare(key: &str) -> String {
    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if plain { key.to_owned() } else { quote(key) }
}

/// Whether a text at this way through the tables may use what a regular expression caught, as `${name}`.
pub(crate) fn takes_captures(way: &[&str]) -> bool {
    matches!(
        way,
        [.., "redirect"]
            | [.., "rewrite" | "redirect" | "respond", _]
            | [.., "request_headers" | "response_headers", "set" | "add", _]
    )
}

/// Whether the name in `${name}` is a capture's, where there are any: variables start with a capital or an underscore.
pub(crate) fn is_capture(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
}

/// Keeps `${` from being taken for a variable when it is read back, where what follows it would be.
fn escape(text: &str, variable: impl Fn(&str) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, behind) = rest.split_at(at);
        out.push_str(before);
        // Behind a dollar it would read as an escape itself.
        if before.ends_with('$') || variable(&behind[2..]) {
            out.push('$');
        }
        out.push_str("${");
        rest = &behind[2..];
    }
    out + rest
}

/// A string as TOML: with the quotes that leave it most readable, always in one line.
fn quote(text: &str) -> String {
    let literal = text.contains(['\\', '"']) && !text.contains('\'') && !text.chars().any(char::is_control);
    if literal {
        return format!("'{text}'");
    }
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
