use std::path::Path;

use super::simulate::read;
use crate::cli::Failure;
use crate::cli::operate::print;
use crate::config::hpa;

/// The pool's name where neither the command nor the file gives one.
const POOL: &str = "app";

/// `tidegate scaler import`: the configuration to standard output, what is to be known to standard error.
pub(super) fn run(file: &Path, pool: Option<&str>) -> Result<(), Failure> {
    let text = read(file)?;
    let named = name_of(&text);
    let pool = pool.or(named.as_deref()).unwrap_or(POOL);
    let import =
        hpa::import(&text, pool).map_err(|error| Failure::Configuration(format!("{}: {error}", file.display())))?;
    for (kind, texts) in [("note", &import.notes), ("warning", &import.warnings)] {
        texts.iter().for_each(|text| eprintln!("{kind}: {text}"));
    }
    print(import.toml.as_bytes())
}

/// What the file's first autoscaler is called.
fn name_of(text: &str) -> Option<String> {
    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(text).ok()?;
    let scaler = documents.iter().find(|document| document["kind"] == "HorizontalPodAutoscaler")?;
    scaler["metadata"]["name"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_s_own_name_is_known() {
        let text = "kind: Service\n---\nkind: HorizontalPodAutoscaler\nmetadata: { name: web-hpa }\n";
        assert_eq!(name_of(text).as_deref(), Some("web-hpa"));
        assert_eq!(name_of("{ \"scaling_limits\": {} }"), None);
    }
}
