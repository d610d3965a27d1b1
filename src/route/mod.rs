//! Which route takes a request, and what it makes of its path and headers. Pure: no clock, no socket.

mod build;
mod condition;
mod edit;
mod explain;
mod hash;
pub mod host;
pub mod path;
mod pattern;
mod question;
mod rewrite;
mod rule;
mod shadow;
mod table;
mod template;
#[cfg(test)]
mod tests;
mod tree;

pub use edit::{EditError, EditList, EditProblem, HeaderEdit};
pub use explain::{By, Mismatch, Outcome, Reason, Verdict};
pub use host::{Host, HostError};
pub use path::{Path, PathError, normalize};
pub use pattern::{Condition, HostPattern, PathPattern, PatternError, Subject, ValuePattern};
pub use question::{Encoded, Question, cookies, parameters};
pub use rewrite::{Rewrite, RewriteError, Target, TargetError};
pub use rule::Rule;
pub use table::{Match, Matched, Table};
pub use template::{Captured, Group, Template, TemplateError, TemplateProblem, VARIABLES, Variable, Variables};
