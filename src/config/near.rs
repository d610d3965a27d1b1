//! The nearest right word for a wrong one.

/// The words other proxies use for our keys.
const TRANSLATIONS: &[(&str, &str)] = &[
    ("addr", "address"),
    ("algorithm", "balance"),
    ("backend", "pool"),
    ("backends", "pool"),
    ("cert", "certificate"),
    ("certificate_key", "key"),
    ("check", "health"),
    ("cluster", "pool"),
    ("frontend", "listener"),
    ("healthcheck", "health"),
    ("health_check", "health"),
    ("http2", "h2"),
    ("http1", "http/1.1"),
    ("http/1", "http/1.1"),
    ("http/2", "h2"),
    ("lb_policy", "balance"),
    ("least_conn", "least_connections"),
    ("leastconn", "least_connections"),
    ("ip_hash", "hash"),
    ("listen", "bind"),
    ("location", "route"),
    ("location", "path"),
    ("maxconn", "max_connections"),
    ("max_conns", "max_connections"),
    ("maxconns", "max_connections"),
    ("private_key", "key"),
    ("proxy_pass", "pool"),
    ("ratelimit", "limit"),
    ("rate_limit", "limit"),
    ("redirect_to", "redirect"),
    ("return", "respond"),
    ("server", "listener"),
    ("server", "upstreams"),
    ("servers", "upstreams"),
    ("targets", "upstreams"),
    ("upstream", "pool"),
    ("url", "address"),
    // Of those who scale.
    ("autoscale", "scaler"),
    ("autoscaler", "scaler"),
    ("autoscaling", "scaler"),
    ("hpa", "scaler"),
    ("scaling", "scaler"),
    ("min_instances", "min"),
    ("min_replicas", "min"),
    ("minreplicas", "min"),
    ("max_instances", "max"),
    ("max_replicas", "max"),
    ("maxreplicas", "max"),
    ("scaleup", "scale_up"),
    ("scaledown", "scale_down"),
    ("selectpolicy", "select"),
    ("stabilizationwindowseconds", "stabilization"),
    ("duration", "for"),
    ("threshold", "when"),
    ("timezone", "tz"),
    ("time_zone", "tz"),
    ("cpu_utilization", "cpu"),
    ("memory_utilization", "memory"),
    ("request_rate", "rps"),
    ("requests_per_second", "rps"),
    ("queue_length", "queue_depth"),
    ("response_time", "latency_p95"),
    ("error_rate", "errors"),
    ("active_connections", "connections"),
    ("pool_utilization", "pool_utilisation"),
    ("concurrency", "in_flight"),
];

/// The word nearest to `wrong`, if any is near enough to have been meant.
pub(crate) fn nearest<'a>(wrong: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = fold(wrong);
    let words: Vec<&str> = words.into_iter().collect();
    if let Some(word) = words.iter().find(|word| fold(word) == plain) {
        return Some(word);
    }
    let translated = TRANSLATIONS.iter().filter(|(theirs, _)| fold(theirs) == plain).map(|(_, ours)| *ours);
    if let Some(word) = translated.into_iter().find_map(|ours| words.iter().find(|word| **word == ours)) {
        return Some(word);
    }
    let near = words.iter().filter_map(|word| Some((slips(&plain, word)?, *word)));
    // A slip in a word of another proxy.
    let translated = TRANSLATIONS.iter().filter(|(_, ours)| words.contains(ours));
    let translated = translated.filter_map(|(theirs, ours)| Some((slips(&plain, theirs)?, *ours)));
    near.chain(translated).min_by_key(|(slips, _)| *slips).map(|(_, word)| word)
}

/// How many slips of the hand lead from one word to another, if they are few for its length.
fn slips(wrong: &str, word: &str) -> Option<usize> {
    let slips = strsim::damerau_levenshtein(wrong, &fold(word));
    (slips <= (wrong.len().min(word.len()) / 3).max(1)).then_some(slips)
}

/// Case and the kind of dash do not tell words apart.
fn fold(word: &str) -> String {
    // A word is never long; a pasted file must not cost its square in the distance.
    word.chars().take(64).map(|c| if c == '-' || c == ' ' { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// ` (did you mean "pool"?)`-like words for a message's label.
pub(crate) fn did_you_mean(word: Option<&str>) -> String {
    word.map(|word| format!("did you mean `{word}`?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_and_other_proxies_words_find_ours() {
        let keys = ["pool", "listener", "route", "bind", "upstreams", "least_connections", "max_connections"];
        for (wrong, right) in [
            ("ppol", Some("pool")),
            ("pools", Some("pool")),
            ("Least-Connections", Some("least_connections")),
            ("upstraems", Some("upstreams")),
            ("upstream", Some("pool")),
            ("listen", Some("bind")),
            ("location", Some("route")),
            ("locaton", Some("route")),
            ("maxconn", Some("max_connections")),
            ("zebra", None),
            ("", None),
        ] {
            assert_eq!(nearest(wrong, keys), right, "{wrong}");
        }
    }
}
