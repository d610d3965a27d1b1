//! Types that are one of a few words.

use crate::access::{Algorithm as TokenAlgorithm, CorsPreset};
use crate::balance::Algorithm;
use crate::config::model::{
    CheckKind, ClientAuth, Forwarded, Initial, LogFormat, PoolKind, Protocol, ProxyProtocol, RequestId, SessionLoss,
    StdioShare, TlsVersion,
};
use crate::config::near::{did_you_mean, nearest};
use crate::config::node::Node;
use crate::config::out::Out;
use crate::config::place::At;
use crate::config::section::{Reader, Value};
use crate::scale::{LeaderKind, Mode, Profile, Select, StopSignal, VictimOrder};

/// A type with a word for each of its values.
trait Words: Copy + PartialEq + 'static {
    fn all() -> &'static [(&'static str, Self)];
}

macro_rules! words {
    ($($ty:ident { $($word:literal = $value:ident),* })*) => {
        $(
            impl Words for $ty {
                fn all() -> &'static [(&'static str, Self)] {
                    &[$(($word, $ty::$value)),*]
                }
            }
        )*
        worded!($($ty)*);
    };
}

macro_rules! worded {
    ($($ty:ident)*) => {
        $(impl Value for $ty {
            fn words() -> String {
                one_of::<$ty>()
            }

            fn read(node: &Node, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
                read_word(node, at, reader)
            }

            fn write(&self) -> Option<Out> {
                <$ty as Words>::all().iter().find(|(_, value)| value == self).map(|(word, _)| Out::text(*word))
            }
        })*
    };
}

words! {
    LogFormat { "text" = Text, "json" = Json }
    Protocol { "http/1.1" = Http1, "h2" = Http2 }
    ProxyProtocol { "off" = Off, "accept" = Accept, "require" = Require }
    Forwarded { "off" = Off, "x-forwarded" = XForwarded, "forwarded" = Rfc7239, "both" = Both }
    RequestId { "off" = Off, "pass" = Pass, "always" = Always }
    TlsVersion { "1.2" = Tls12, "1.3" = Tls13 }
    ClientAuth { "require" = Require, "optional" = Optional }
    CheckKind { "http" = Http, "tcp" = Tcp, "mcp" = Mcp }
    PoolKind { "http" = Http, "mcp" = Mcp }
    StdioShare { "session" = Session, "principal" = Principal, "all" = All }
    SessionLoss { "reinit" = Reinit, "404" = NotFound }
    Initial { "down" = Down, "up" = Up }
}

/// Types that know their words themselves.
macro_rules! known {
    ($($ty:ident)*) => {
        $(impl Words for $ty {
            fn all() -> &'static [(&'static str, Self)] {
                &$ty::WORDS
            }
        })*
        worded!($($ty)*);
    };
}

known!(Algorithm TokenAlgorithm CorsPreset Mode Profile Select LeaderKind VictimOrder StopSignal);

fn one_of<T: Words>() -> String {
    let words: Vec<String> = T::all().iter().map(|(word, _)| format!("{word:?}")).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

fn read_word<T: Words>(node: &Node, at: &At, reader: &mut Reader<'_>) -> Option<T> {
    let expected = one_of::<T>();
    let Some(text) = node.text() else {
        reader.wrong_kind(node, at, &expected);
        return None;
    };
    let found = T::all().iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    if found.is_none() {
        let near = nearest(text, T::all().iter().map(|(word, _)| *word));
        let near = if near.is_some() { format!("; {}", did_you_mean(near)) } else { String::new() };
        reader.bad_value(node, at, format!("expected {expected}{near}"));
    }
    found
}
