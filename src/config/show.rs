//! A configuration as TOML again: normalized, every default filled in, and such that reading it gives the same.

use std::fmt::Write;

use super::model::Config;
use super::out::{Out, Secrets, bare, takes_captures};
use super::schemas;
use super::secret::is_secret;
use super::section::{Key, Section};

/// Inner tables and lists go on one line up to this width.
const WIDTH: usize = 110;

/// The configuration as TOML.
///
/// Reading it back gives the same configuration, as long as secrets are shown; with hidden ones it is refused.
pub fn show(config: &Config, secrets: Secrets) -> String {
    let mut entries = config.write_entries();
    for (key, value) in &mut entries {
        mark(value, &mut vec![key.clone()]);
    }
    let mut page = Page { text: String::new(), secrets };
    page.table("", &entries);
    page.text
}

/// Marks secrets, and texts with captures, by where they stand.
fn mark(out: &mut Out, way: &mut Vec<String>) {
    match out {
        Out::Text(text) => {
            let names: Vec<&str> = way.iter().map(String::as_str).collect();
            if is_secret(&names) {
                *out = Out::Secret(std::mem::take(text));
            } else if takes_captures(&names) {
                *out = Out::Capturing(std::mem::take(text));
            }
        }
        Out::List(items) => items.iter_mut().for_each(|item| mark(item, way)),
        Out::Table(entries) => {
            for (key, value) in entries {
                way.push(key.clone());
                mark(value, way);
                way.pop();
            }
        }
        _ => {}
    }
}

struct Page {
    text: String,
    secrets: Secrets,
}

impl Page {
    fn table(&mut self, path: &str, entries: &[(String, Out)]) {
        let top = path.is_empty();
        let (apart, here): (Vec<_>, Vec<_>) =
            entries.iter().partition(|(key, value)| self.stands_apart(top, key, value));
        for (key, value) in here {
            self.entry(key, value);
        }
        for (key, value) in apart {
            let path = if top { bare(key) } else { format!("{path}.{}", bare(key)) };
            match value {
                Out::Table(entries) if top && names_only(entries) => self.table_of_names(&path, entries),
                Out::Table(entries) => self.headed(&format!("[{path}]"), &path, entries),
                Out::List(items) => {
                    for item in items {
                        if let Out::Table(entries) = item {
                            self.headed(&format!("[[{path}]]"), &path, entries);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn table_of_names(&mut self, path: &str, entries: &[(String, Out)]) {
        for (name, value) in entries {
            if let Out::Table(entries) = value {
                let path = format!("{path}.{}", bare(name));
                self.headed(&format!("[{path}]"), &path, entries);
            }
        }
    }

    fn headed(&mut self, header: &str, path: &str, entries: &[(String, Out)]) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(header);
        self.text.push('\n');
        self.table(path, entries);
    }

    /// Whether a value has a header of its own instead of a line.
    fn stands_apart(&self, top: bool, key: &str, value: &Out) -> bool {
        match value {
            Out::Table(_) if top => true,
            Out::Table(_) => key.len() + 3 + value.inline(self.secrets).chars().count() > WIDTH,
            Out::List(items) => top && !items.is_empty() && items.iter().all(|item| matches!(item, Out::Table(_))),
            _ => false,
        }
    }

    fn entry(&mut self, key: &str, value: &Out) {
        let line = value.inline(self.secrets);
        match value {
            Out::List(items)
                if line.chars().count() + key.len() + 3 > WIDTH
                    || items.iter().any(|item| matches!(item, Out::Table(_))) =>
            {
                self.text.push_str(&format!("{} = [\n", bare(key)));
                for item in items {
                    self.text.push_str(&format!("    {},\n", item.inline(self.secrets)));
                }
                self.text.push_str("]\n");
            }
            _ => self.text.push_str(&format!("{} = {line}\n", bare(key))),
        }
    }
}

/// A table of names, each with a table, needs no header of its own.
fn names_only(entries: &[(String, Out)]) -> bool {
    !entries.is_empty() && entries.iter().all(|(_, value)| matches!(value, Out::Table(_)))
}

/// Every key with its meaning and its default, as a commented configuration.
///
/// **Shape**: explanations start with `# `, keys with `#`, so that taking that one sign away sets a key.
pub fn defaults() -> String {
    let mut text = String::new();
    for schema in schemas() {
        wrap(&mut text, &schema.doc);
        if !schema.path.is_empty() {
            let _ = match schema.path {
                "route" => writeln!(text, "#[[route]]"),
                path => writeln!(text, "#[{path}]"),
            };
        }
        text.push('\n');
        for key in schema.keys.iter().filter(|key| key.section.is_none()) {
            wrap(&mut text, &key.doc);
            text.push_str(&default_line(key));
            text.push_str("\n\n");
        }
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn default_line(key: &Key) -> String {
    let bounds = key.bounds.as_ref().map(|bounds| format!("; {bounds}")).unwrap_or_default();
    match &key.default {
        Some(default) => {
            let note = if bounds.is_empty() { bounds } else { format!("  # {}", &bounds[2..]) };
            format!("#{} = {}{note}", key.name, default.inline(Secrets::Shown))
        }
        None if key.required => format!("#{} =  # required: {}{bounds}", key.name, key.words),
        None => format!("#{} =  # not set: {}{bounds}", key.name, key.words),
    }
}

/// Text as comment lines.
fn wrap(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > 100 && line.len() > 1 {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Memory, read_text};

    /// Keys in `#key = value` lines, uncommented, under names that can be read.
    fn uncommented() -> String {
        let keys = |line: &str| line.starts_with('#') && !line.starts_with("# ") && !line.contains("=  #");
        let text = defaults();
        text.lines().filter(|line| keys(line)).map(|line| format!("{}\n", &line[1..])).collect()
    }

    #[test]
    fn every_default_can_be_written_out() {
        let text = uncommented();
        // Tables in lists are documented under the name of their key.
        let text = text.replace("[route.limit]", "[[route.limit]]").replace("[route.split]", "[[route.split]]");
        let text = text.replace("[pool.NAME.upstreams]", "[[pool.NAME.upstreams]]");
        let text = text.replace("[listener.NAME.tls.certificates]", "[[listener.NAME.tls.certificates]]");
        let text = ["signal", "policy", "schedule"].iter().fold(text, |text, list| {
            text.replace(&format!("[pool.NAME.scaler.{list}]"), &format!("[[pool.NAME.scaler.{list}]]"))
        });
        let outcome = read_text("tidegate.toml", &text, &Memory::default());
        let kinds = ["unknown key", "wrong type", "bad value", "impossible", "syntax", "duplicate", "cannot fill"];
        for problem in outcome.problems {
            assert!(!kinds.iter().any(|kind| problem.message.starts_with(kind)), "{}", problem.render(false));
        }
    }

    #[test]
    fn odd_amounts_read_back() {
        let text = "[listener.web]\nbind = \":80\"\nmax_body = 9007199254740993\nheader_timeout = \"1.0001s\"\n\
                    [pool.a]\nupstreams = \"127.0.0.1:1\"\npanic_threshold = \"7.005%\"\n\
                    [[route]]\npool = \"a\"\nlimit = \"5/1m30s\"\n";
        let config = read_text("t.toml", text, &Memory::default()).config.unwrap();
        let shown = show(&config, Secrets::Shown);
        assert_eq!(read_text("t.toml", &shown, &Memory::default()).config, Some(config), "{shown}");
    }

    #[test]
    fn every_key_is_among_the_defaults() {
        let text = defaults();
        for schema in schemas() {
            for key in schema.keys.iter().filter(|key| key.section.is_none()) {
                assert!(text.contains(&format!("\n#{} =", key.name)), "{}.{}", schema.path, key.name);
            }
        }
    }
}
