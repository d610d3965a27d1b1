//! Types that are written as a string with a meaning of its own.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::plain::integer;
use crate::balance::HashKey;
use crate::config::model::{
    Headroom, HostHeader, JwksPlace, LogTarget, MaxConcurrency, NamePattern, OriginPattern, StatusSet, StickyKey,
    Workers,
};
use crate::config::near::{did_you_mean, nearest};
use crate::config::node::{Entry, Kind, Node};
use crate::config::out::Out;
use crate::config::place::At;
use crate::config::section::{Reader, Value};
use crate::limit::Per;
use crate::route::{HostPattern, PathPattern, ValuePattern};
use crate::scale::{Adjust, Condition, Metric, Pace, Paces, Target as ScaleTarget};
use crate::types::{Address, Bind, Rate, Share, Size, format_duration, parse_duration};

/// Types whose `FromStr` says what was expected and whose `Display` reads back.
macro_rules! texts {
    ($($ty:ty: $words:literal $(, $off:ident)?;)*) => {
        $(impl Value for $ty {
            const OFF: bool = texts!(@off $($off)?);

            fn words() -> String {
                $words.to_owned()
            }

            fn read(node: &Node, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
                parse(node, at, reader, &Self::words(), <$ty>::from_str)
            }

            fn write(&self) -> Option<Out> {
                Some(Out::text(self.to_string()))
            }
        })*
    };
    (@off) => { false };
    (@off off) => { true };
}

texts! {
    Adjust: "a change such as \"+2\", \"+50%\" or \"=10\"";
    Condition: "a condition such as \"queue_wait > 500ms\"";
    Address: "an address such as \"127.0.0.1:9001\"";
    Bind: "an address such as \"0.0.0.0:8080\"", off;
    HashKey: "\"client\", \"uri\", \"path\", \"header:NAME\", \"cookie:NAME\" or \"query:NAME\"";
    HostPattern: "a host such as \"api.example.com\" or \"*.example.com\"";
    PathPattern: "a path such as \"/api\" or \"= /exact\"";
    NamePattern: "a header name such as \"X-Api-Key\" or \"Mcp-Param-*\"";
    OriginPattern: "an origin such as \"https://app.example.com\"";
    Per: "\"client\", \"client/24\", \"header:NAME\", \"cookie:NAME\", \"principal\" or \"all\"";
    Rate: "a rate such as \"100/s\"", off;
    Share: "a share such as \"20%\"", off;
    StatusSet: "statuses such as \"200-399\" or \"200,204\"";
    StickyKey: "\"header:NAME\" or \"cookie:NAME\"";
}

fn parse<T, E: fmt::Display>(
    node: &Node,
    at: &At,
    reader: &mut Reader<'_>,
    expected: &str,
    from: impl Fn(&str) -> Result<T, E>,
) -> Option<T> {
    let Some(text) = node.text() else {
        reader.wrong_kind(node, at, expected);
        return None;
    };
    match from(text) {
        Ok(value) => Some(value),
        Err(error) => {
            reader.bad_value(node, at, error.to_string());
            None
        }
    }
}

impl Value for Duration {
    const OFF: bool = true;

    fn words() -> String {
        "a duration such as \"5s\"".to_owned()
    }

    fn read(node: &Node, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        if let Kind::Integer(number) = node.kind {
            reader.wrong_kind(node, at, &format!("a duration with its unit, such as \"{number}s\" or \"{number}ms\""));
            return None;
        }
        parse(node, at, reader, &Self::words(), parse_duration)
    }

    fn write(&self) -> Option<Out> {
        Some(Out::text(format_duration(*self)))
    }
}

impl Value for Size {
    const OFF: bool = true;

    fn words() -> String {
        "a size such as \"64KiB\"".to_owned()
    }

    fn read(node: &Node, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        match node.kind {
            // Plain bytes need no quotes.
            Kind::Integer(bytes) if bytes >= 0 => Some(Size(bytes.unsigned_abs())),
            _ => parse(node, at, reader, &Self::words(), Size::from_str),
        }
    }

    fn write(&self) -> Option<Out> {
        let text = self.to_string();
        // Beyond 2^53 the text's number is not exact, but an integer is.
        let exact = text.parse() == Ok(*self);
        if exact { Some(Out::Text(text)) } else { i64::try_from(self.0).ok().map(Out::Integer) }
    }
}

impl Value for IpNet {
    fn words() -> String {
        "a network such as \"10.0.0.0/8\"".to_owned()
    }

    fn read(node: &Node, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        parse(node, at, reader, &Self::words(), |text| {
            let address = || text.parse().ok().map(|address: std::net::IpAddr| IpNet::from(address));
            let network: Option<IpNet> = text.parse().ok().or_else(address);
            // The bits behind the prefix mean nothing; without them equal networks are equal.
            network.map(|network| network.trunc()).ok_or("expected a network such as \"10.0.0.0/8\" or an address")
        })
    }

    fn write(&self) -> Option<Out> {
        Some(Out::text(self.to_string()))
    }
}

impl Value for Workers {
    fn words() -> String {
        "\"auto\" or a number".to_owned()
    }

    fn read(node: &Node, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        if node.text() == Some("auto") {
            return Some(Workers::Auto);
        }
        let count = integer(node, at, reader, &Self::words())?;
        let count = u16::try_from(count).ok().filter(|count| (1..=1024).contains(count));
        if count.is_none() {
            reader.bad_value(node, at, "expected \"auto\" or 1 to 1024");
        }
        count.map(Workers::Count)
    }

    fn write(&self) -> Option<Out> {
        Some(match self {
            Workers::Auto => Out::text("auto"),
            Workers::Count(count) => Out::Integer(i64::from(*count)),
        })
    }
}

/// Types for which a plain number needs no quotes.
macro_rules! number_or_text {
    ($($ty:ty: $words:literal;)*) => {
        $(impl Value for $ty {
            const OFF: bool = true;

            fn words() -> String {
                $words.to_owned()
            }

            fn read(node: &Node, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
                let number = match node.kind {
                    Kind::Integer(number) => number.to_string(),
                    Kind::Float(number) => number.to_string(),
                    _ => return parse(node, at, reader, &Self::words(), <$ty>::from_str),
                };
                match <$ty>::from_str(&number) {
                    Ok(value) => Some(value),
                    Err(error) => {
                        reader.bad_value(node, at, error.to_string());
                        None
                    }
                }
            }

            fn write(&self) -> Option<Out> {
                let text = self.to_string();
                let integer = text.parse().ok().map(Out::Integer);
                let number = integer.or_else(|| text.parse().ok().map(Out::Float));
                Some(number.unwrap_or_else(|| Out::text(text)))
            }
        })*
    };
}

number_or_text! {
    Headroom: "\"learned\" or a number";
    MaxConcurrency: "a number or \"learn\"";
    Pace: "a pace such as \"4/15s\" or \"100%/15s\"";
    ScaleTarget: "a target such as \"70%\", 30 (for each instance) or \"value:500\"";
}

impl Value for Metric {
    fn words() -> String {
        "a metric such as \"load\" or \"cpu\"".to_owned()
    }

    fn read(node: &Node, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        parse(node, at, reader, &Self::words(), |text| {
            text.parse().map_err(|error: crate::scale::WordError| match nearest(text, Metric::known()) {
                None => error.to_string(),
                near => format!("expected {}; {}", Self::words(), did_you_mean(near)),
            })
        })
    }

    fn write(&self) -> Option<Out> {
        Some(Out::text(self.to_string()))
    }
}

/// A list, or one text for several.
impl Value for Paces {
    fn words() -> String {
        format!("{}, or a list of them", Pace::words())
    }

    fn read(node: &Node, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        match node.text() {
            Some(_) => parse(node, at, reader, &Self::words(), Paces::from_str),
            None => Vec::read(node, at, reader).map(Paces),
        }
    }

    fn write(&self) -> Option<Out> {
        self.0.write()
    }
}

impl Value for LogTarget {
    fn words() -> String {
        "\"off\", \"stdout\" or a file".to_owned()
    }

    fn read(node: &Node, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        match node.text() {
            Some("off") => Some(LogTarget::Off),
            Some("stdout") => Some(LogTarget::Stdout),
            _ => PathBuf::read(node, at, reader).map(LogTarget::File),
        }
    }

    fn write(&self) -> Option<Out> {
        match self {
            LogTarget::Off => Some(Out::text("off")),
            LogTarget::Stdout => Some(Out::text("stdout")),
            LogTarget::File(path) => path.write(),
        }
    }
}

impl Value for JwksPlace {
    fn words() -> String {
        "a URL such as \"https://login.example.com/jwks.json\", or a file".to_owned()
    }

    fn read(node: &Node, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        match node.text() {
            Some(url) if url.starts_with("https://") || url.starts_with("http://") => {
                Some(JwksPlace::Url(url.to_owned()))
            }
            Some(_) => PathBuf::read(node, at, reader).map(JwksPlace::File),
            None => {
                reader.wrong_kind(node, at, &Self::words());
                None
            }
        }
    }

    fn write(&self) -> Option<Out> {
        match self {
            JwksPlace::Url(url) => Some(Out::text(url.clone())),
            JwksPlace::File(path) => path.write(),
        }
    }
}

impl Value for HostHeader {
    fn words() -> String {
        "\"preserve\", \"upstream\" or a host".to_owned()
    }

    fn read(node: &Node, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        parse(node, at, reader, &Self::words(), |text| match text {
            "preserve" => Ok(HostHeader::Preserve),
            "upstream" => Ok(HostHeader::Upstream),
            literal => literal
                .parse::<http::uri::Authority>()
                .ok()
                .filter(|authority| !authority.as_str().contains('@'))
                .map(|_| HostHeader::Literal(literal.to_owned()))
                .ok_or("expected \"preserve\", \"upstream\" or a host such as \"api.internal:8080\""),
        })
    }

    fn write(&self) -> Option<Out> {
        Some(Out::text(match self {
            HostHeader::Preserve => "preserve",
            HostHeader::Upstream => "upstream",
            HostHeader::Literal(host) => host,
        }))
    }
}

const VALUE: &str = "a string, or a table with one of `exact`, `prefix`, `regex` and `present`";

impl Value for ValuePattern {
    fn words() -> String {
        VALUE.to_owned()
    }

    fn read(node: &Node, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.kind {
            Kind::Text { text, .. } => Some(ValuePattern::Exact(text.clone())),
            Kind::Table(entries) => match entries.as_slice() {
                [entry] => one_pattern(entry, at, reader),
                _ => {
                    reader.bad_value(node, at, format!("expected {VALUE}"));
                    None
                }
            },
            _ => {
                reader.wrong_kind(node, at, VALUE);
                None
            }
        }
    }

    fn write(&self) -> Option<Out> {
        let (key, value) = match self {
            ValuePattern::Exact(text) => return Some(Out::text(text.clone())),
            ValuePattern::Prefix(text) => ("prefix", Out::text(text.clone())),
            ValuePattern::Regex(text) => ("regex", Out::text(text.clone())),
            ValuePattern::Present(flag) => ("present", Out::Bool(*flag)),
        };
        Some(Out::Table(vec![(key.to_owned(), value)]))
    }
}

fn one_pattern(entry: &Entry, at: &At, reader: &mut Reader<'_>) -> Option<ValuePattern> {
    let here = at.key(&entry.key);
    reader.places.note(here.clone(), entry.place.clone(), entry.node.place.clone());
    match entry.key.as_str() {
        "exact" => String::read(&entry.node, &here, reader).map(ValuePattern::Exact),
        "prefix" => String::read(&entry.node, &here, reader).map(ValuePattern::Prefix),
        "regex" => String::read(&entry.node, &here, reader).map(ValuePattern::Regex),
        "present" => bool::read(&entry.node, &here, reader).map(ValuePattern::Present),
        other => {
            reader.unknown_key(other, &entry.place, at, &["exact", "prefix", "regex", "present"]);
            None
        }
    }
}
