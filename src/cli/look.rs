use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use super::Failure;
use super::arguments::ShowArguments;
use super::operate::print;
use crate::config::{self, Answer, Disk, Secrets};

/// `tidegate check FILE`.
pub(super) fn check(file: &Path) -> Result<ExitCode, Failure> {
    say(config::check(&file.to_string_lossy(), &Disk, colorful()))
}

/// `tidegate show`.
pub(super) fn show(arguments: ShowArguments) -> Result<ExitCode, Failure> {
    let Some(file) = arguments.file else {
        let text = if arguments.reference { config::reference() } else { config::defaults() };
        print(text.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    };
    let secrets = if arguments.secrets { Secrets::Shown } else { Secrets::Hidden };
    say(config::show_file(&file.to_string_lossy(), &Disk, secrets, colorful()))
}

fn say(answer: Answer) -> Result<ExitCode, Failure> {
    if !answer.complaints.is_empty() {
        eprintln!("{}", answer.complaints.trim_end());
    }
    print(answer.output.as_bytes())?;
    Ok(ExitCode::from(answer.code))
}

/// Whether problems are told in colours: to a person at a terminal who has not asked otherwise (no-color.org).
pub(super) fn colorful() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}
