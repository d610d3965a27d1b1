//! Error pages: statuses that can be, files that can be read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Check;
use crate::config::place::At;

/// Pages are kept in memory, and larger ones are surely something else.
const LARGEST_PAGE: usize = 1 << 20;

impl Check<'_> {
    pub(super) fn error_pages(&mut self, at: &At, pages: &BTreeMap<String, PathBuf>) {
        for (status, path) in pages {
            let at = at.key(status);
            let known = matches!(status.as_str(), "4xx" | "5xx")
                || status.len() == 3 && status.parse::<u16>().is_ok_and(|status| (400..=599).contains(&status));
            if !known {
                let message = format!("`{status}` is not a status of an error");
                self.report.error_at_key(&at, message, "expected 400 to 599, \"4xx\" or \"5xx\"");
            }
            let page = self.file(&at, path, "error page");
            if page.is_some_and(|page| page.len() > LARGEST_PAGE) {
                self.report.error(&at, "the error page is too large", "expected at most 1 MiB");
            }
        }
    }
}
