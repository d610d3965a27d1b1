use crate::config::model;
use crate::scaler::spec_hash;

/// The hash of what makes an instance what it is: two with the same need not be replaced by each other.
///
/// How it is stopped, where its output goes and which ports it may get can be changed without touching those that run.
pub fn spec(settings: &model::Process) -> String {
    let model::Process { command, directory, env, inherit_env, memory, cpus, .. } = settings;
    spec_hash(&(command, directory, env, inherit_env, memory.map(|size| size.0), cpus))
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::scale::StopSignal;

    /// As the configuration has it where only the command is given.
    pub(in crate::scaler::process) fn settings(command: &[&str]) -> model::Process {
        model::Process {
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            ports: None,
            directory: None,
            env: BTreeMap::new(),
            inherit_env: true,
            output: "log".to_owned(),
            signal: StopSignal::Term,
            grace: Duration::from_secs(30),
            memory: None,
            cpus: None,
        }
    }

    #[test]
    fn only_what_an_instance_is_made_of_counts() {
        let first = settings(&["app", "{port}"]);
        let calmer = model::Process { grace: Duration::from_secs(5), output: "off".to_owned(), ..first.clone() };
        assert_eq!(spec(&first), spec(&calmer));
        let other = model::Process { inherit_env: false, ..first.clone() };
        assert_ne!(spec(&first), spec(&other));
        assert_ne!(spec(&first), spec(&settings(&["app", "-v", "{port}"])));
    }
}
