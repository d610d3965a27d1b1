//! What a route changes: path, headers, and texts with variables.

use super::Check;
use crate::config::model::{HeaderEdit, Rewrite};
use crate::config::place::At;
use crate::config::problem::Problem;
use crate::config::section::list_words;
use crate::route::{self, EditError, EditList, EditProblem, PathPattern, RewriteError, Template, TemplateError};

impl Check<'_> {
    /// A text with variables, and captures of the route's paths.
    pub(super) fn template(&mut self, at: &At, text: &str, paths: &[PathPattern]) {
        let parsed = Template::parse(text).and_then(|template| template.check_captures(paths));
        if let Err(error) = parsed {
            self.template_error(at, text, &error);
        }
    }

    fn template_error(&mut self, at: &At, text: &str, error: &TemplateError) {
        let place = self.report.places.nearest_value(at).map(|place| place.part(text, error.at));
        let message = format!("bad text with variables in `{at}`");
        self.report.problems.push(Problem::error(place, message).label(error.problem.to_string()));
    }

    pub(super) fn rewrite(&mut self, rewrite: &Rewrite, paths: &[PathPattern], at: &At) {
        let set = [("prefix", &rewrite.prefix), ("path", &rewrite.path), ("regex", &rewrite.regex)];
        let set: Vec<&str> = set.iter().filter(|(_, value)| value.is_some()).map(|(key, _)| *key).collect();
        match set.as_slice() {
            _ if self.failed(at) => {}
            [] => {
                let label = "expected one of `prefix`, `path` and `regex` (with `to`)";
                self.report.error(at, "the rewrite does not say what to do", label);
            }
            [_] => {}
            [first, second, ..] => {
                let message = format!("the rewrite has {}, but only one can be done", list_words(&set));
                self.report.clash(&at.key(second), &at.key(first), message, ["this", "or this"]);
            }
        }
        if let Some(prefix) = &rewrite.prefix {
            let built = route::Rewrite::prefix(prefix).and_then(|built| built.check(paths));
            self.rewritten(built, &at.key("prefix"), prefix, paths);
        }
        if let Some(path) = &rewrite.path {
            let built = route::Rewrite::path(path).and_then(|built| built.check(paths));
            self.rewritten(built, &at.key("path"), path, paths);
        }
        self.replacement(rewrite, at);
    }

    fn replacement(&mut self, rewrite: &Rewrite, at: &At) {
        let (regex_at, to_at) = (at.key("regex"), at.key("to"));
        if let Some(regex) = &rewrite.regex {
            let to = rewrite.to.as_deref().unwrap_or_default();
            match route::Rewrite::regex(regex, to) {
                Err(RewriteError::Template(error)) => self.template_error(&to_at, to, &error),
                Err(error) => self.report.error(&regex_at, "bad regular expression", error.to_string()),
                Ok(_) => {}
            }
        }
        match (&rewrite.regex, &rewrite.to) {
            (Some(_), None) if !self.failed(at) => {
                self.report.error(&regex_at, "`regex` without `to`", "expected `to`, what it becomes");
            }
            (None, Some(_)) if !self.failed(at) => {
                self.report.error(&to_at, "`to` without `regex`", "expected `regex`, what becomes of it");
            }
            _ => {}
        }
    }

    fn rewritten(&mut self, built: Result<(), RewriteError>, at: &At, text: &str, paths: &[PathPattern]) {
        match built {
            Ok(()) => {}
            Err(RewriteError::Template(error)) => self.template_error(at, text, &error),
            Err(RewriteError::NoPrefix) => {
                let index = paths.iter().position(|path| matches!(path, PathPattern::Regex { .. })).unwrap_or(0);
                let route = at.parent().and_then(|rewrite| rewrite.parent()).unwrap_or_default();
                let labels = ["this matches by an expression, which has no prefix", "expected `regex` and `to`"];
                self.report.clash(at, &route.key("path").index(index), "there is no prefix to replace", labels);
            }
            Err(error) => self.report.error(at, "bad path in a rewrite", error.to_string()),
        }
    }

    pub(super) fn header_edit(&mut self, edit: &HeaderEdit, paths: &[PathPattern], at: &At) {
        let errors = match route::HeaderEdit::build(&edit.remove, &edit.set, &edit.add) {
            Ok(built) => built.check_captures(paths).err().into_iter().collect(),
            Err(errors) => errors,
        };
        for error in errors {
            self.edit_error(edit, &error, at);
        }
    }

    fn edit_error(&mut self, edit: &HeaderEdit, error: &EditError, at: &At) {
        let same = |name: &&String| name.eq_ignore_ascii_case(&error.name);
        let (at, lines) = match error.list {
            EditList::Remove => {
                let index = edit.remove.iter().position(|name| *name == error.name).unwrap_or(0);
                let message = format!("the header {:?} cannot be taken out", error.name);
                return self.report.error(&at.key("remove").index(index), message, error.to_string());
            }
            EditList::Set => (at.key("set"), &edit.set),
            EditList::Add => (at.key("add"), &edit.add),
        };
        let name = lines.keys().find(same).unwrap_or(&error.name);
        let at = at.key(name);
        match &error.problem {
            EditProblem::Template(error) => {
                let text = lines.get(name).map(String::as_str).unwrap_or_default();
                self.template_error(&at, text, error);
            }
            EditProblem::Value => self.report.error(&at, "bad header value", error.to_string()),
            _ => {
                let message = format!("the header {:?} cannot be changed", error.name);
                self.report.error_at_key(&at, message, error.to_string());
            }
        }
    }
}
