//! Whether every route can take a request at all, found out with the table that serves.

use super::Check;
use crate::config::place::At;
use crate::config::problem::Problem;
use crate::config::rule::rules;
use crate::route::{PatternError, Rule, Table};

impl Check<'_> {
    /// Reports routes whose requests all go to another; `sound` tells of each whether nothing has been reported of it yet.
    pub(super) fn reach(&mut self, sound: &[bool]) {
        let listeners: Vec<String> = self.config.listener.keys().cloned().collect();
        // By their place in the configuration: those that cannot be compiled are left out.
        let mut left: Vec<(usize, Rule)> = rules(self.config).into_iter().enumerate().collect();
        let build =
            |left: &[(usize, Rule)]| Table::build(left.iter().map(|(_, rule)| rule.clone()).collect(), &listeners);
        let table = match build(&left) {
            Ok(table) => table,
            Err(errors) => {
                for (index, error) in &errors {
                    // A listener that does not exist is reported by its name.
                    if sound.get(*index) == Some(&true) && !matches!(error, PatternError::Listener(_)) {
                        let at = At::root().key("route").index(*index);
                        self.report.error(&at, "the route cannot be used", error.to_string());
                    }
                }
                left.retain(|(index, _)| !errors.iter().any(|(broken, _)| broken == index));
                let Ok(table) = build(&left) else { return };
                table
            }
        };
        for (hidden, by) in table.shadowed() {
            self.shadowed(left[hidden].0, left[by].0);
        }
    }

    fn shadowed(&mut self, hidden: usize, by: usize) {
        let [at, by] = [hidden, by].map(|index| At::root().key("route").index(index));
        // What could not be read may have told the two apart.
        if self.failed(&at) || self.failed(&by) {
            return;
        }
        let problem = Problem::error(self.report.places.nearest_key(&at), "the route can never take a request")
            .label("every request it matches goes elsewhere")
            .also(
                self.report.places.nearest_key(&by),
                "to this one, which is as specific and comes first, or is more so",
            );
        self.report.problems.push(problem);
    }
}
