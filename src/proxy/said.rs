//! What a request has said of itself that only the access log wants to know.

use http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue, REFERER, USER_AGENT};
use http::request::Parts;
use http::uri::PathAndQuery;

use crate::telemetry::access::Format;
use crate::types::Lines;

/// Kept from a request's head until its line is written; not gathered where there is no access log.
///
/// **Cost**: two counts of shared bytes while the head is text, which is looked through when the line is written, once.
#[derive(Debug)]
pub struct Said {
    target: Option<PathAndQuery>,
    head: Head,
    /// Whether the log names it.
    wants_id: bool,
    /// The request's id, where it has one and the log names it.
    request_id: Option<HeaderValue>,
}

#[derive(Debug)]
enum Head {
    Lines(Lines),
    Map(Box<[Option<HeaderValue>; 4]>),
}

const NAMES: [HeaderName; 4] = [HOST, USER_AGENT, REFERER, AUTHORIZATION];

/// Headers that the access log may name.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fields<'a> {
    /// `Host`.
    pub host: &'a [u8],
    /// `User-Agent`.
    pub user_agent: &'a [u8],
    /// `Referer`.
    pub referer: &'a [u8],
    /// `Authorization`.
    pub authorization: &'a [u8],
}

impl Said {
    /// What a request's head says, for a log of this format.
    pub fn of(parts: &Parts, lines: Option<&Lines>, format: &Format) -> Said {
        Said {
            target: parts.uri.path_and_query().cloned(),
            head: lines.map_or_else(|| Head::Map(Box::new(pick(&parts.headers))), |lines| Head::Lines(lines.clone())),
            wants_id: format.names_request_id(),
            request_id: None,
        }
    }

    /// The request's id, which is not looked at where nobody wants it.
    pub fn set_id(&mut self, id: impl FnOnce() -> Option<HeaderValue>) {
        if self.wants_id {
            self.request_id = id();
        }
    }

    /// The request's id, where it has one.
    pub fn request_id(&self) -> &str {
        self.request_id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default()
    }

    /// Path and query, or `*`.
    pub fn target(&self) -> &str {
        self.target.as_ref().map_or("*", PathAndQuery::as_str)
    }

    /// The first of each of these headers.
    pub fn fields(&self) -> Fields<'_> {
        match &self.head {
            Head::Lines(lines) => Fields::read(lines),
            Head::Map(values) => {
                let [host, user_agent, referer, authorization] = values.each_ref().map(|value| match value {
                    Some(value) => value.as_bytes(),
                    None => b"",
                });
                Fields { host, user_agent, referer, authorization }
            }
        }
    }
}

fn pick(headers: &HeaderMap) -> [Option<HeaderValue>; 4] {
    NAMES.map(|name| headers.get(name).cloned())
}

impl<'a> Fields<'a> {
    fn read(lines: &'a Lines) -> Self {
        let mut fields = Fields::default();
        for line in lines.iter() {
            // By length first: most names are none of these.
            let field = match line.name.len() {
                4 if line.is("host") => &mut fields.host,
                7 if line.is("referer") => &mut fields.referer,
                10 if line.is("user-agent") => &mut fields.user_agent,
                13 if line.is("authorization") => &mut fields.authorization,
                _ => continue,
            };
            if field.is_empty() {
                *field = line.value;
            }
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Request;

    use super::*;
    use crate::types::Marks;

    #[test]
    fn lines_and_a_map_say_the_same() {
        let text = "host: a.example\r\naccept: */*\r\nuser-agent: one\r\nuser-agent: two\r\nreferer: /from\r\nauthorization: Basic eA==\r\n";
        let lines = Lines::new(Bytes::from_static(text.as_bytes()), Marks::default());
        let format = Format::parse("{request_id} {host}").unwrap();
        let mut parts = Request::get("/a?b").body(()).unwrap().into_parts().0;
        let mut of_lines = Said::of(&parts, Some(&lines), &format);
        lines.read(&mut parts.headers);
        let of_map = Said::of(&parts, None, &format);
        for said in [&of_lines, &of_map] {
            let Fields { host, user_agent, referer, authorization } = said.fields();
            let all = [host, user_agent, referer, authorization];
            assert_eq!(all, [&b"a.example"[..], b"one", b"/from", b"Basic eA=="]);
            assert_eq!((said.target(), said.request_id()), ("/a?b", ""));
        }
        of_lines.set_id(|| Some(HeaderValue::from_static("7")));
        assert_eq!(of_lines.request_id(), "7");
        let mut without = Said::of(&parts, None, &Format::parse("combined").unwrap());
        without.set_id(|| unreachable!("this log does not name it"));
        assert_eq!(without.request_id(), "");
    }
}
