//! What is wrong with a configuration, and how it is told to a person.

use std::fmt;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::source::Place;

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The configuration works, but probably not as meant.
    Warning,
    /// The configuration is refused.
    Error,
}

/// One thing wrong with a configuration: what, where, and what would be right.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Whether it refuses the configuration.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub message: String,
    /// Where, if it is about text at all.
    pub place: Option<Place>,
    /// What stands beside the marked text: what was expected, or the nearest right word.
    pub label: String,
    /// Other places that have to do with it, and how.
    pub others: Vec<(Place, String)>,
    /// What to do about it.
    pub help: Vec<String>,
}

impl Problem {
    /// An error at a place.
    pub fn error(place: Option<Place>, message: impl Into<String>) -> Self {
        let message = message.into();
        Problem {
            severity: Severity::Error,
            message,
            place,
            label: String::new(),
            others: Vec::new(),
            help: Vec::new(),
        }
    }

    /// A warning at a place.
    pub fn warning(place: Option<Place>, message: impl Into<String>) -> Self {
        Problem { severity: Severity::Warning, ..Problem::error(place, message) }
    }

    /// With words beside the marked text.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// With a line of advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// With another place that has to do with it.
    #[must_use]
    pub fn also(mut self, place: Option<Place>, label: impl Into<String>) -> Self {
        if let Some(place) = place {
            self.others.push((place, label.into()));
        }
        self
    }

    /// Whether it refuses the configuration.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The problem as a person is shown it: file, line and column, the line itself with the place marked, and advice.
    pub fn render(&self, color: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = annotate_snippets::Group::with_title(level.primary_title(one_line(&self.message)));
        if let Some(place) = &self.place {
            group = group.element(snippet(place, AnnotationKind::Primary, &self.label));
        } else if !self.label.is_empty() {
            group = group.element(Level::NOTE.message(one_line(&self.label)));
        }
        for (place, label) in &self.others {
            group = group.element(snippet(place, AnnotationKind::Context, label));
        }
        for help in &self.help {
            group = group.element(Level::HELP.message(one_line(help)));
        }
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
    }
}

/// The problem in one line, as for a log: `tidegate.toml:12:5: unknown key "ppol": did you mean "pool"?`
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&one_line(&self.message))?;
        if !self.label.is_empty() {
            write!(f, ": {}", one_line(&self.label))?;
        }
        Ok(())
    }
}

/// The problems as a person is shown them, one below the other, and how many there are.
///
/// **Bounds**: after a hundred the rest is only counted; nobody reads on, and the first are the ones to mend.
pub fn render(problems: &[Problem], color: bool) -> String {
    const SHOWN: usize = 100;
    let mut text = String::new();
    for problem in problems.iter().take(SHOWN) {
        text.push_str(&problem.render(color));
        text.push_str("\n\n");
    }
    if problems.len() > SHOWN {
        text.push_str(&format!("… and {} more\n\n", problems.len() - SHOWN));
    }
    let errors = problems.iter().filter(|problem| problem.is_error()).count();
    let count = |count: usize, what: &str| match count {
        0 => None,
        1 => Some(format!("1 {what}")),
        _ => Some(format!("{count} {what}s")),
    };
    let counts: Vec<String> =
        [count(errors, "error"), count(problems.len() - errors, "warning")].into_iter().flatten().collect();
    if !counts.is_empty() {
        text.push_str(&counts.join(", "));
        text.push('\n');
    }
    text
}

fn snippet<'a>(
    place: &'a Place,
    kind: AnnotationKind,
    label: &'a str,
) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let (line, range) = place.excerpt();
    let annotation = kind.span(range);
    let annotation = if label.is_empty() { annotation } else { annotation.label(one_line(label)) };
    Snippet::source(line).path(place.source().name()).line_start(place.line()).annotation(annotation)
}

/// Line breaks and other control characters of quoted text would break the frame of the message.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
