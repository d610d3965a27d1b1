//! What templates can name about a request.

use http::request::Parts;

use super::life::Life;
use crate::route::{Match, Variables};
use crate::snapshot::Route;

/// A request, as templates see it.
pub struct Facts<'a> {
    life: &'a Life,
    route: &'a Route,
    parts: &'a Parts,
    path: &'a str,
    query: Option<&'a str>,
    found: Option<&'a Match<'a>>,
}

impl<'a> Facts<'a> {
    /// Of a request as it is now.
    pub fn new(life: &'a Life, route: &'a Route, parts: &'a Parts, path: &'a str, query: Option<&'a str>) -> Self {
        Facts { life, route, parts, path, query, found: None }
    }

    /// With the captures of its path.
    pub fn with_match(mut self, found: &'a Match<'a>) -> Self {
        self.found = Some(found);
        self
    }
}

impl Variables for Facts<'_> {}
