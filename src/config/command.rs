//! What `tidegate check` and `tidegate show` answer, as text and exit code; printing it is the command line's.

use super::out::Secrets;
use super::problem::render;
use super::show::show;
use super::surroundings::Surroundings;
use super::{Outcome, read};

/// The exit code for a configuration that is refused (`EX_CONFIG` of sysexits.h).
const REFUSED: u8 = 78;

/// What a command says, and how it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// For standard output.
    pub output: String,
    /// For standard error.
    pub complaints: String,
    /// 0, or 78 for a configuration that is refused.
    pub code: u8,
}

/// `tidegate check FILE`: everything wrong with a configuration, and one line that says whether it would be taken.
pub fn check(name: &str, surroundings: &dyn Surroundings, color: bool) -> Answer {
    let outcome = read(name, surroundings);
    let complaints = render(&outcome.problems, color);
    match &outcome.config {
        Some(config) => {
            let output = format!(
                "{name} is good: {}, {}, {}\n",
                count(config.listener.len(), "listener"),
                count(config.pool.len(), "pool"),
                count(config.route.len(), "route")
            );
            Answer { output, complaints, code: 0 }
        }
        None => Answer { output: String::new(), complaints, code: REFUSED },
    }
}

/// `tidegate show FILE`: the configuration, normalized and with every default filled in.
pub fn show_file(name: &str, surroundings: &dyn Surroundings, secrets: Secrets, color: bool) -> Answer {
    let Outcome { config, problems, .. } = read(name, surroundings);
    let complaints = render(&problems, color);
    match config {
        Some(config) => Answer { output: show(&config, secrets), complaints, code: 0 },
        None => Answer { output: String::new(), complaints, code: REFUSED },
    }
}

fn count(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Memory;

    const GOOD: &str = "[listener.web]\nbind = \":80\"\n[[route]]\nrespond = 204\n";

    #[test]
    fn a_good_file_is_counted_and_shown() {
        let world = Memory::default().file("/t.toml", GOOD);
        let answer = check("/t.toml", &world, false);
        assert_eq!(answer.output, "/t.toml is good: 1 listener, 0 pools, 1 route\n");
        assert_eq!((answer.complaints.as_str(), answer.code), ("", 0));
        let answer = show_file("/t.toml", &world, Secrets::Hidden, false);
        assert!(answer.output.contains("[listener.web]\nbind = [\"[::]:80\"]\n"));
    }

    #[test]
    fn a_bad_file_ends_with_78_and_says_why() {
        let world = Memory::default().file("/t.toml", "listenr = 1\n");
        for answer in [check("/t.toml", &world, false), show_file("/t.toml", &world, Secrets::Hidden, true)] {
            assert_eq!((answer.output.as_str(), answer.code), ("", 78));
            assert!(answer.complaints.contains("listener"));
        }
        assert_eq!(check("/none.toml", &world, false).code, 78);
    }
}
