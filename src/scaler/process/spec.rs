use crate::config::model;
use crate::scaler::spec_hash;

/// The hash of what makes an instance what it is: two with the same need not be replaced by each other.
///
/// How it is stopped, where its output goes and which ports it may get can be changed without touching those that run.
pub fn spec(settings: &model::Process) -> String {
    let model::Process { command, directory, env, inherit_env, memory, cpus, .. } = settings;
    spec_hash(&(command, directory, env, inherit_env, memory.map(|size| size.0), cpus))
}
