//! Dressed answers: what operators want people to see instead of a bare line of text.

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

/// Pages by status; an exact status goes before its class.
#[derive(Debug, Default, Clone)]
pub struct Pages {
    exact: Vec<(u16, Page)>,
    class: Vec<(u16, Page)>,
}

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its content.
    pub body: Bytes,
    /// Its type.
    pub content_type: HeaderValue,
}

impl Pages {
    /// Adds a page for `"404"` or `"5xx"`; says whether the key is one of these.
    pub fn add(&mut self, key: &str, page: Page) -> bool {
        if let Some(class) = key.strip_suffix("xx").and_then(|class| class.parse().ok()) {
            self.class.push((class, page));
            return (4..=5).contains(&class);
        }
        match key.parse() {
            Ok(status) => {
                self.exact.push((status, page));
                (400..600).contains(&status)
            }
            Err(_) => false,
        }
    }

    /// The page for a status.
    pub fn find(&self, status: StatusCode) -> Option<&Page> {
        let code = status.as_u16();
        let exact = self.exact.iter().find(|(status, _)| *status == code);
        let class = || self.class.iter().find(|(class, _)| *class == code / 100);
        exact.or_else(class).map(|(_, page)| page)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.class.is_empty()
    }
}

/// The type of a page, by its file's name.
pub fn content_type(path: &std::path::Path) -> HeaderValue {
    HeaderValue::from_static(match path.extension().and_then(|extension| extension.to_str()) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("json") => "application/json",
        Some("xml") => "application/xml",
        _ => "text/plain; charset=utf-8",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exact_status_goes_before_its_class() {
        let page = |text: &'static str| Page {
            body: Bytes::from_static(text.as_bytes()),
            content_type: HeaderValue::from_static("text/html"),
        };
        let mut pages = Pages::default();
        assert!(pages.add("5xx", page("class")) && pages.add("502", page("exact")));
        assert!(
            !pages.clone().add("200", page(""))
                && !pages.clone().add("x", page(""))
                && !pages.clone().add("1xx", page(""))
        );
        assert_eq!(pages.find(StatusCode::BAD_GATEWAY).unwrap().body, "exact");
        assert_eq!(pages.find(StatusCode::GATEWAY_TIMEOUT).unwrap().body, "class");
        assert!(pages.find(StatusCode::NOT_FOUND).is_none());
    }
}
