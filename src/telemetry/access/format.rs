use super::clock::WallClock;
use super::escape;
use super::line::{Fact, Line, Variable, version};

/// How a line looks.
///
/// **Text**: `combined` (NGINX's), `json`, or a template such as `{client} {method} {path} {status} {duration}`; `{{` and `}}` are braces.
/// Durations are seconds with six decimals; what is absent is `-`, in JSON `null`.
/// **Cost**: about 100 ns for a combined line of a browser, 300 ns for JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    pieces: Vec<Piece>,
    json: bool,
    names_id: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Fact(Variable),
}

/// Why a format could not be read; its text says what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Neither a known format nor a template.
    #[error(
        "expected \"combined\", \"json\" or a template with variables such as \"{{client}} {{method}} {{path}} {{status}}\""
    )]
    NoFormat,
    /// A template names what there is not.
    #[error("there is no variable {{{name}}}{}", nearest.map(|near| format!("; {{{near}}} is near")).unwrap_or_default())]
    Unknown {
        /// What it names.
        name: String,
        /// The most similar variable there is.
        nearest: Option<&'static str>,
    },
    /// A brace without its other half.
    #[error(
        "a \"{{\" without its \"}}\", or the other way round; \"{{{{\" and \"}}}}\" stand for the braces themselves"
    )]
    Brace,
    /// A template of more than one line.
    #[error("expected a template without line breaks or other control characters (tabs are fine)")]
    Control,
}

const COMBINED: &str =
    "{client} - {user} [{time_local}] \"{request}\" {status} {bytes_out} \"{referer}\" \"{user_agent}\"";

/// The fields of a JSON line: every variable that is not made of others.
fn json_fields() -> impl Iterator<Item = (Variable, &'static str)> {
    let made_of_others = [Variable::TimeLocal, Variable::Request, Variable::Path, Variable::Query];
    Variable::ALL.iter().copied().filter(move |(variable, _)| !made_of_others.contains(variable))
}

impl Format {
    /// Reads a format.
    ///
    /// **Errors**: say what was expected, and the most similar variable where one is unknown.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        match text {
            "combined" => return Ok(Format::new(template(COMBINED)?, false)),
            "json" => return Ok(Self::json()),
            _ => {}
        }
        if text.chars().any(|char| char.is_control() && char != '\t') {
            return Err(FormatError::Control);
        }
        let pieces = template(text)?;
        if pieces.iter().all(|piece| matches!(piece, Piece::Text(_))) {
            return Err(FormatError::NoFormat);
        }
        Ok(Format::new(pieces, false))
    }

    fn new(pieces: Vec<Piece>, json: bool) -> Self {
        let names_id = pieces.contains(&Piece::Fact(Variable::RequestId));
        Format { pieces, json, names_id }
    }

    fn json() -> Self {
        let mut pieces = Vec::new();
        for (index, (variable, name)) in json_fields().enumerate() {
            pieces.push(Piece::Text(format!("{}\"{name}\":", if index == 0 { "{" } else { "," })));
            pieces.push(Piece::Fact(variable));
        }
        pieces.push(Piece::Text("}".to_owned()));
        Format::new(pieces, true)
    }

    /// The names of all variables.
    pub fn variables() -> impl Iterator<Item = &'static str> {
        Variable::ALL.iter().map(|(_, name)| *name)
    }

    /// Whether the request's id is written.
    pub fn names_request_id(&self) -> bool {
        self.names_id
    }

    /// Writes a line with its end.
    pub(super) fn write(&self, line: &Line<'_>, clock: &mut WallClock, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Fact(variable) if self.json => write_json(variable.of(line), line, clock, out),
                Piece::Fact(variable) => write_text(variable.of(line), line, clock, out),
            }
        }
        out.push(b'\n');
    }
}

fn write_text(fact: Fact<'_>, line: &Line<'_>, clock: &mut WallClock, out: &mut Vec<u8>) {
    match fact {
        Fact::Text(text) => escape::nginx(text, out),
        Fact::Plain(text) => out.extend_from_slice(text.as_bytes()),
        Fact::Request => {
            escape::nginx(line.method.as_bytes(), out);
            out.push(b' ');
            escape::nginx(line.target.as_bytes(), out);
            out.push(b' ');
            out.extend_from_slice(version(line.version).as_bytes());
        }
        Fact::Address(address) => escape::address(address, out),
        Fact::Number(number) => escape::number(number, out),
        Fact::Seconds(span) => escape::seconds(span, out),
        Fact::Time => clock.utc(line.at, out),
        Fact::TimeLocal => clock.local(line.at, out),
        Fact::Absent => out.push(b'-'),
    }
}

fn write_json(fact: Fact<'_>, line: &Line<'_>, clock: &mut WallClock, out: &mut Vec<u8>) {
    match fact {
        Fact::Absent => out.extend_from_slice(b"null"),
        Fact::Number(_) | Fact::Seconds(_) => write_text(fact, line, clock, out),
        Fact::Text(text) => {
            out.push(b'"');
            escape::json(text, out);
            out.push(b'"');
        }
        fact => {
            out.push(b'"');
            write_text(fact, line, clock, out);
            out.push(b'"');
        }
    }
}

fn template(text: &str) -> Result<Vec<Piece>, FormatError> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        plain.push_str(before);
        if let Some(after) = from.strip_prefix("{{").or_else(|| from.strip_prefix("}}")) {
            plain.push_str(&from[..1]);
            rest = after;
            continue;
        }
        let (name, after) = from.strip_prefix('{').and_then(|inner| inner.split_once('}')).ok_or(FormatError::Brace)?;
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(Piece::Fact(variable(name)?));
        rest = after;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

fn variable(name: &str) -> Result<Variable, FormatError> {
    if let Some((variable, _)) = Variable::ALL.iter().find(|(_, known)| *known == name) {
        return Ok(*variable);
    }
    let likeness = |known: &'static str| (strsim::jaro_winkler(name, known), known);
    let nearest = Format::variables().map(likeness).max_by(|(one, _), (two, _)| one.total_cmp(two));
    let nearest = nearest.filter(|(likeness, _)| *likeness > 0.7).map(|(_, known)| known);
    Err(FormatError::Unknown { name: name.to_owned(), nearest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn written(format: &str, line: &Line<'_>) -> String {
        let mut out = Vec::new();
        Format::parse(format).unwrap().write(line, &mut WallClock::new(), &mut out);
        let text = String::from_utf8(out).unwrap();
        text.strip_suffix('\n').unwrap().to_owned()
    }

    fn line<'a>() -> Line<'a> {
        Line {
            at: crate::types::Clock::now(),
            client: Some("203.0.113.7".parse().unwrap()),
            method: "GET",
            target: "/mcp?x=1",
            version: http::Version::HTTP_11,
            host: b"mcp.example.com",
            scheme: "https",
            status: 200,
            received: 12,
            sent: 3456,
            duration: Duration::from_micros(12_345),
            upstream_duration: Some(Duration::from_millis(9)),
            upstream_status: 200,
            listener: "web",
            route: "mcp",
            pool: "tools",
            upstream: "127.0.0.1:9001",
            attempts: 1,
            request_id: "abc",
            referer: b"https://example.com/",
            user_agent: b"curl/8.5.0",
            tls: "TLSv1.3",
            principal: "alice",
            ..Line::default()
        }
    }

    #[test]
    fn combined_is_nginx_s() {
        let text = written("combined", &line());
        let (before, rest) = text.split_once(" [").unwrap();
        let (time, after) = rest.split_once("] ").unwrap();
        assert_eq!(before, "203.0.113.7 - -");
        assert_eq!(after, r#""GET /mcp?x=1 HTTP/1.1" 200 3456 "https://example.com/" "curl/8.5.0""#);
        assert_eq!(time.len(), 26);
    }

    #[test]
    fn what_a_client_sends_cannot_forge_a_line() {
        let evil = Line {
            user_agent: b"x\" 200 0 \"-\" \"-\"\n10.0.0.1 - - \xC3\xA9",
            user: "a\nb",
            target: "/a\"b",
            ..line()
        };
        let text = written("combined", &evil);
        assert_eq!(text.lines().count(), 1);
        assert_eq!(text.matches('"').count(), 6);
        assert!(text.contains(r"a\x0Ab") && text.contains(r"/a\x22b") && text.contains(r"\x0A10.0.0.1 - - \xC3\xA9"));
        let json: serde_json::Value = serde_json::from_str(&written("json", &evil)).unwrap();
        assert_eq!(json["user_agent"], "x\" 200 0 \"-\" \"-\"\n10.0.0.1 - - é");
    }

    #[test]
    fn json_has_stable_names_and_types() {
        let json: serde_json::Value = serde_json::from_str(&written("json", &line())).unwrap();
        assert_eq!(json["status"], 200);
        assert_eq!(json["duration"], 0.012345);
        assert_eq!(json["upstream_duration"], 0.009);
        assert_eq!(json["version"], "HTTP/1.1");
        assert_eq!(json["refusal"], serde_json::Value::Null);
        assert!(json["time"].as_str().unwrap().ends_with('Z'));
        let names: Vec<&str> = json_fields().map(|(_, name)| name).collect();
        let stable = "time client user method target version host scheme status bytes_in bytes_out duration upstream_duration \
                      upstream_status listener route pool upstream attempts refusal request_id referer user_agent tls principal";
        assert_eq!(names.join(" "), stable);
        let bare: serde_json::Value = serde_json::from_str(&written("json", &Line::default())).unwrap();
        assert_eq!((&bare["client"], &bare["status"]), (&"unix:".into(), &serde_json::Value::Null));
    }

    #[test]
    fn templates_name_what_they_want() {
        assert_eq!(
            written("{client} {method} {path} {status} {duration}", &line()),
            "203.0.113.7 GET /mcp 200 0.012345"
        );
        assert_eq!(written("{{{query}}}\t{refusal}", &line()), "{x=1}\t-");
        assert_eq!(written("{request}", &Line { method: "", ..line() }), "-");
    }

    #[test]
    fn wrong_formats_say_what_was_expected() {
        let error = |text| Format::parse(text).unwrap_err();
        assert_eq!(error("{statsu}").to_string(), "there is no variable {statsu}; {status} is near");
        assert_eq!(error("{zzz}"), FormatError::Unknown { name: "zzz".into(), nearest: None });
        assert_eq!(error("combind"), FormatError::NoFormat);
        assert_eq!(error(""), FormatError::NoFormat);
        assert_eq!(error("{client"), FormatError::Brace);
        assert_eq!(error("client} {status}"), FormatError::Brace);
        assert_eq!(error("{client}\n{status}"), FormatError::Control);
    }
}
