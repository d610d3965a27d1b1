//! A configuration as a tree on its way out: what `tidegate show`, the reference and the defaults are written from.

/// A value to be written as TOML.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Out {
    Text(String),
    /// A text that is only shown where secrets may be.
    Secret(String),
    Integer(i64),
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
            Out::Text(text) => quote(&escape(text)),
            Out::Secret(text) => match secrets {
                Secrets::Shown => quote(&escape(text)),
                Secrets::Hidden => quote(HIDDEN),
            },
            Out::Integer(number) => number.to_string(),
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

/// `${` starts a variable when it is read back.
fn escape(text: &str) -> String {
    text.replace("${", "$${")
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
