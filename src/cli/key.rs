use std::process::ExitCode;

use super::Failure;
use super::operate::print;
use crate::access::{KeyRing, new_key};

/// `tidegate key NAME`.
pub(super) fn run(name: &str, scopes: &[String]) -> Result<ExitCode, Failure> {
    let (key, line) = new_key(name, scopes).ok_or_else(|| anyhow::anyhow!("the system gives no randomness"))?;
    if let Some(scope) = scopes.iter().find(|scope| scope.contains(',')) {
        return Err(Failure::Usage(format!("a scope has no comma; write --scope once for each in {scope:?}")));
    }
    let one_line = !name.starts_with('#') && !name.contains(char::is_control) && !scopes.iter().any(String::is_empty);
    if !one_line || KeyRing::parse(&line).is_err() {
        let text =
            "expected a name and scopes of visible ASCII without spaces, such as `tidegate key alice --scope read`";
        return Err(Failure::Usage(text.to_owned()));
    }
    let text = format!(
        "# The key. It is shown only now; send it as `Authorization: Bearer KEY`.\n{key}\n\n# Its line for the key file.\n{line}\n"
    );
    print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
