//! The commands: what a person types, and what the terminal says back.
//!
//! Nothing here decides anything about traffic, and nothing else in the crate prints to the terminal. Commands that change a
//! running Tidegate go through its admin API like any other client, so whatever the command line can do, a script with `curl`
//! can do too. (Why not signals and files: they cannot answer, and `reload` must tell the verdict.)

mod arguments;
pub mod backend;
mod bench;
mod client;
mod demo;
mod explain;
mod failure;
mod key;
mod look;
mod operate;
mod place;
mod run;
mod scaler;
mod status;
mod upstream;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};
pub use failure::Failure;

/// Runs one command to its end.
///
/// **Errors** are printed to standard error; the exit code says their kind: 1 failed, 64 usage, 78 configuration.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let asked_for = !error.use_stderr();
            // Nothing is left to do where not even the terminal can be written to.
            let _ = error.print();
            return if asked_for { ExitCode::SUCCESS } else { ExitCode::from(failure::USAGE) };
        }
    };
    match dispatch(arguments.command) {
        Ok(code) => code,
        Err(failure) => {
            failure.print();
            failure.code()
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Check { file } => look::check(&file),
        Command::Show(arguments) => look::show(arguments),
        Command::Run { file } => run::run(file),
        Command::Explain(arguments) => explain::run(arguments),
        Command::Demo(arguments) => demo::run(arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Upstream(arguments) => upstream::run(arguments),
        Command::Key { name, scopes } => key::run(&name, &scopes),
        Command::Scaler(command) => scaler::run(*command),
        client => operate::run(client),
    }
}
