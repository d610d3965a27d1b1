use std::process::ExitCode;

/// `EX_USAGE` of sysexits(3).
pub(super) const USAGE: u8 = 64;
/// `EX_CONFIG` of sysexits(3).
const CONFIGURATION: u8 = 78;

/// Why a command ended without doing what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// The command was asked for wrongly; exit code 64.
    Usage(String),
    /// A configuration was refused; the rendered problems; exit code 78.
    Configuration(String),
    /// Anything else; exit code 1.
    Failed(anyhow::Error),
}

impl Failure {
    /// The exit code it ends the process with.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Usage(_) => USAGE,
            Failure::Configuration(_) => CONFIGURATION,
            Failure::Failed(_) => 1,
        })
    }

    /// Says it on standard error.
    pub fn print(&self) {
        match self {
            Failure::Usage(text) => eprintln!("error: {text}"),
            // Already rendered, each problem with its own heading.
            Failure::Configuration(text) => eprintln!("{}", text.trim_end()),
            Failure::Failed(error) => eprintln!("error: {error:#}"),
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Failed(error.into())
    }
}
