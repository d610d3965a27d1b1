//! `${NAME}` and `${NAME:-default}` in strings, filled in from the environment.

use crate::config::out::is_capture;

/// A string with its variables filled in, or what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// There is none in it.
    Plain,
    /// They were filled in, or an escape was resolved.
    Text(String),
    /// Why they could not be.
    Wrong(String),
}

/// Fills in the variables of a string; `$${` stands for a plain `${`.
///
/// With `captures` a name that starts with a small letter or a digit is the capture of a regular expression and stays.
/// As in a shell, a default also stands in for a variable that is empty.
pub(super) fn fill(text: &str, captures: bool, variable: impl Fn(&str) -> Option<String>) -> Filled {
    if !text.contains("${") {
        return Filled::Plain;
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        // The dollar before an escaped one has been passed on already.
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let Some((inside, after)) = rest[at + 2..].split_once('}') else {
            return Filled::Wrong("expected `}` to close the variable; a plain `${` is written `$${`".to_owned());
        };
        rest = after;
        if captures && is_capture(inside) {
            out.push_str(&format!("${{{inside}}}"));
            continue;
        }
        match value(inside, &variable) {
            Ok(value) => out.push_str(&value),
            Err(why) => return Filled::Wrong(why),
        }
    }
    out.push_str(rest);
    Filled::Text(out)
}

fn value(inside: &str, variable: &impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let named = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !named {
        return Err(format!("expected a variable such as `${{NAME}}` or `${{NAME:-default}}`, found `${{{inside}}}`"));
    }
    match (variable(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!("the environment variable `{name}` is not set; `${{{name}:-…}}` gives a default")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_environment(text: &str) -> Filled {
        fill(text, false, |name| match name {
            "HOST" => Some("example.com".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        })
    }

    #[test]
    fn variables_defaults_and_escapes_are_filled_in() {
        for (text, filled) in [
            ("${HOST}:80", "example.com:80"),
            ("a${HOST}${HOST}b", "aexample.comexample.comb"),
            ("${NONE:-x}", "x"),
            ("${NONE:-}", ""),
            ("${EMPTY:-x}", "x"),
            ("${EMPTY}", ""),
            ("$${HOST}", "${HOST}"),
            ("$$${HOST}", "$${HOST}"),
            ("${HOST}$${", "example.com${"),
        ] {
            assert_eq!(with_environment(text), Filled::Text(filled.to_owned()), "{text}");
        }
        for text in ["", "$", "$HOST", "{HOST}", "$1", "a$$b"] {
            assert_eq!(with_environment(text), Filled::Plain, "{text}");
        }
    }

    #[test]
    fn missing_broken_and_nameless_variables_are_refused() {
        for text in ["${NONE}", "${HOST", "${}", "${1}", "${A B}", "${:-x}"] {
            assert!(matches!(with_environment(text), Filled::Wrong(_)), "{text}");
        }
    }

    #[test]
    fn captures_stay_where_they_can_be() {
        assert_eq!(fill("/${1}/${name}", true, |_| None), Filled::Text("/${1}/${name}".to_owned()));
        assert!(matches!(fill("/${NAME}", true, |_| None), Filled::Wrong(_)));
    }

    proptest::proptest! {
        #[test]
        fn an_escaped_text_reads_back(text in "[$ {}A-Ca-c:-]{0,24}") {
            let escaped = text.replace("${", "$${");
            let filled = match with_environment(&escaped) {
                Filled::Plain => escaped,
                Filled::Text(text) => text,
                Filled::Wrong(why) => panic!("{why}"),
            };
            proptest::prop_assert_eq!(filled, text);
        }
    }
}
