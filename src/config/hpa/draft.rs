use super::super::out::{Out, Secrets, bare};
use super::Import;

/// A scaler's configuration while it is being written.
pub(super) struct Draft {
    pool: String,
    /// Where it comes from.
    origin: String,
    blocks: Vec<Block>,
    signals: Vec<String>,
    notes: Vec<String>,
    warnings: Vec<String>,
}

/// A table of the text.
struct Block {
    /// Behind `pool.NAME.scaler`, with its brackets; empty for the scaler itself.
    header: Header,
    comments: Vec<String>,
    lines: Vec<String>,
}

/// What a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// The scaler itself.
    Scaler,
    /// One table below it.
    Table(&'static str),
    /// One of several tables below it.
    Item(&'static str),
}

/// The lines of one table.
pub(super) struct Lines<'a>(&'a mut Block);

impl Lines<'_> {
    pub(super) fn comment(&mut self, text: impl Into<String>) -> &mut Self {
        self.0.comments.push(text.into());
        self
    }

    pub(super) fn set(&mut self, key: &str, value: impl Into<Out>) -> &mut Self {
        self.0.lines.push(format!("{} = {}", bare(key), value.into().inline(Secrets::Shown)));
        self
    }

    /// A line that would say what holds in any case, or that has to be thought about first.
    pub(super) fn aside(&mut self, text: impl Into<String>) -> &mut Self {
        self.0.lines.push(format!("# {}", text.into()));
        self
    }
}

impl From<&str> for Out {
    fn from(text: &str) -> Out {
        Out::text(text)
    }
}

impl From<String> for Out {
    fn from(text: String) -> Out {
        Out::text(text)
    }
}

impl From<u64> for Out {
    fn from(number: u64) -> Out {
        Out::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<Vec<String>> for Out {
    fn from(texts: Vec<String>) -> Out {
        Out::List(texts.into_iter().map(Out::text).collect())
    }
}

impl Draft {
    pub(super) fn new(pool: &str, origin: String) -> Draft {
        let (blocks, signals, notes, warnings) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Draft { pool: pool.to_owned(), origin, blocks, signals, notes, warnings }
    }

    /// Begins a table.
    pub(super) fn table(&mut self, header: Header) -> Lines<'_> {
        self.blocks.push(Block { header, comments: Vec::new(), lines: Vec::new() });
        let last = self.blocks.len() - 1;
        Lines(&mut self.blocks[last])
    }

    /// Whether a metric is a signal already; it is from now on.
    pub(super) fn is_known(&mut self, metric: &str) -> bool {
        let known = self.signals.iter().any(|signal| signal == metric);
        self.signals.push(metric.to_owned());
        known
    }

    /// What the operator has to know or do.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// What has no equivalent.
    pub(super) fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// Writes it behind what there is.
    pub(super) fn write(self, import: &mut Import) {
        let mut text = comment(&format!("Made of {}.", self.origin));
        for (mark, lines) in [("", &self.notes), ("Left out: ", &self.warnings)] {
            lines.iter().for_each(|line| text += &comment(&format!("{mark}{line}")));
        }
        let pool = bare(&self.pool);
        for (index, block) in self.blocks.iter().enumerate() {
            if index > 0 {
                text.push('\n');
            }
            block.comments.iter().for_each(|line| text += &comment(line));
            text += &match block.header {
                Header::Scaler => format!("[pool.{pool}.scaler]\n"),
                Header::Table(name) => format!("[pool.{pool}.scaler.{name}]\n"),
                Header::Item(name) => format!("[[pool.{pool}.scaler.{name}]]\n"),
            };
            block.lines.iter().for_each(|line| text += &one_line(line));
        }
        if !import.toml.is_empty() {
            import.toml.push('\n');
        }
        import.toml += &text;
        import.notes.extend(self.notes);
        import.warnings.extend(self.warnings);
    }
}

fn comment(text: &str) -> String {
    one_line(&format!("# {text}"))
}

/// Text of somebody else must not become a line of its own.
fn one_line(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    plain + "\n"
}
