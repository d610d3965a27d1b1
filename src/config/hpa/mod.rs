//! Import of what others scale by: Kubernetes' HorizontalPodAutoscaler (autoscaling/v2 and v1, YAML or JSON), and policies with
//! `scale_up_triggers`, `scale_down_triggers` and `scaling_limits`.
//!
//! What comes out is text in our own language, because people go on editing it; our own reader has read it before it is handed out.
//! What has no equivalent is named in it and in the list of warnings, never dropped.

mod draft;
mod kubernetes;
#[cfg(test)]
mod tests;
mod triggers;

use serde_json::Value;

use super::{Memory, read_text};

/// What became of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// A `[pool.NAME.scaler]` table with comments, for each scaler of the file.
    pub toml: String,
    /// What the operator has to know or to fill in, each in a sentence.
    pub notes: Vec<String>,
    /// What has no equivalent and was left out, each in a sentence.
    pub warnings: Vec<String>,
}

/// Why a file could not be imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {what}")]
pub struct ImportError {
    /// From 1; 0 where it is about the whole file.
    pub line: usize,
    /// From 1; 0 where it is about the whole file.
    pub column: usize,
    /// What is wrong and what was expected.
    pub what: String,
}

/// Makes scalers' configuration of others'.
///
/// The pool is called `pool`; where the file has several scalers, each pool is called as its own.
///
/// **Errors**: no YAML and no JSON, or nothing in it that scales.
pub fn import(text: &str, pool: &str) -> Result<Import, ImportError> {
    let mut documents = Vec::new();
    for document in parse(text)? {
        match document["items"].as_array() {
            Some(items) if document["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) => {
                documents.extend(items.iter().cloned());
            }
            _ => documents.push(document),
        }
    }
    let source = Source { text };
    let mut import = Import { toml: String::new(), notes: Vec::new(), warnings: Vec::new() };
    let scalers: Vec<&Value> = documents.iter().filter(|document| document["kind"] == kubernetes::KIND).collect();
    for scaler in &scalers {
        let own = scaler["metadata"]["name"].as_str().filter(|_| scalers.len() > 1);
        kubernetes::draft(scaler, &documents, own.unwrap_or(pool), &source)?.write(&mut import);
    }
    let policies: Vec<(Option<&str>, &Value)> =
        documents.iter().flat_map(|document| triggers::find(document)).collect();
    for (name, policy) in &policies {
        let own = name.filter(|_| policies.len() > 1);
        triggers::draft(policy, own.unwrap_or(pool)).write(&mut import);
    }
    if scalers.is_empty() && policies.is_empty() {
        let kinds: Vec<&str> = documents.iter().filter_map(|document| document["kind"].as_str()).collect();
        let found = if kinds.is_empty() { String::new() } else { format!(" (found {})", kinds.join(", ")) };
        let what = format!(
            "there is nothing that scales{found}; expected a HorizontalPodAutoscaler, or `scale_up_triggers`, `scale_down_triggers` and `scaling_limits`"
        );
        return Err(ImportError { line: 0, column: 0, what });
    }
    examine(&mut import);
    Ok(import)
}

/// Lets our own reader say what it thinks of the result.
fn examine(import: &mut Import) {
    let around = "[listener.import]\nbind = \":80\"\n[[route]]\nrespond = 204\n";
    let outcome = read_text("import", &format!("{around}{}", import.toml), &Memory::default());
    for problem in outcome.problems.iter().filter(|problem| !problem.message.starts_with("no route uses the pool")) {
        let told = format!("{}: {}", problem.message, problem.label);
        if problem.is_error() {
            import.warnings.push(format!("the result has to be mended by hand: {told}"));
        } else {
            import.notes.push(told);
        }
    }
}

fn parse(text: &str) -> Result<Vec<Value>, ImportError> {
    serde_saphyr::from_multiple::<Value>(text).map_err(|error| {
        let place = error.location();
        let number = |number: Option<u64>| number.and_then(|number| usize::try_from(number).ok()).unwrap_or(0);
        let what = error.without_snippet().to_string();
        ImportError {
            line: number(place.map(|place| place.line())),
            column: number(place.map(|place| place.column())),
            what: format!("it is neither YAML nor JSON: {}", what.lines().next().unwrap_or_default()),
        }
    })
}

/// The text that was read, to point at.
struct Source<'a> {
    text: &'a str,
}

impl Source<'_> {
    /// An error about the first place that has this word.
    fn error(&self, word: &str, what: String) -> ImportError {
        let found = self.text.lines().enumerate().find_map(|(line, text)| Some((line + 1, text.find(word)? + 1)));
        let (line, column) = found.unwrap_or((0, 0));
        ImportError { line, column, what }
    }
}

/// A number as it is written in configurations.
fn plain(number: f64) -> String {
    format!("{number}")
}
