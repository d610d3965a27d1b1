//! Import of what others scale by: Kubernetes' HorizontalPodAutoscaler (autoscaling/v2 and v1, YAML or JSON), and policies with
//! `scale_up_triggers`, `scale_down_triggers` and `scaling_limits`.
//!
//! What comes out is text in our own language, because people go on editing it; it is read by our own reader before it is handed out.
//! What has no equivalent is named in it and in the list of notes, never dropped.

use serde_json::Value;

/// What became of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// A `[pool.NAME.scaler]` table with comments, for each autoscaler of the file.
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
    /// From 1.
    pub column: usize,
    /// What is wrong and what was expected.
    pub what: String,
}

/// Makes a scaler's configuration of another one's.
///
/// The pool is called `pool`; where the file has several autoscalers, each pool is called as its own.
///
/// **Errors**: no YAML and no JSON, or nothing in it that scales.
pub fn import(text: &str, pool: &str) -> Result<Import, ImportError> {
    let documents = read(text)?;
    let mut import = Import { toml: String::new(), notes: Vec::new(), warnings: Vec::new() };
    let scalers: Vec<&Value> =
        documents.iter().filter(|document| document["kind"] == "HorizontalPodAutoscaler").collect();
    for scaler in &scalers {
        let own = scaler["metadata"]["name"].as_str().filter(|_| scalers.len() > 1);
        let (min, max) = (scaler["spec"]["minReplicas"].as_u64().unwrap_or(1), scaler["spec"]["maxReplicas"].as_u64());
        let max = max.map(|max| format!("max = {max}\n")).unwrap_or_default();
        import.toml += &format!("[pool.{}.scaler]\nmin = {min}\n{max}", super::out::bare(own.unwrap_or(pool)));
    }
    match scalers.len() {
        0 => Err(ImportError { line: 0, column: 0, what: "there is no HorizontalPodAutoscaler in it".to_owned() }),
        _ => Ok(import),
    }
}

fn read(text: &str) -> Result<Vec<Value>, ImportError> {
    serde_saphyr::from_multiple::<Value>(text).map_err(|error| {
        let place = error.location();
        let number = |number: Option<u64>| number.and_then(|number| usize::try_from(number).ok()).unwrap_or(0);
        let what = error.without_snippet().to_string();
        ImportError {
            line: number(place.map(|place| place.line())),
            column: number(place.map(|place| place.column())),
            what: format!("it is neither YAML nor JSON: {what}"),
        }
    })
}
