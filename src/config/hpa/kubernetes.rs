//! A HorizontalPodAutoscaler.

use serde_json::Value;

use super::draft::{Draft, Header};
use super::{ImportError, Source, plain};
use crate::config::out::Out;

/// What it is called.
pub(super) const KIND: &str = "HorizontalPodAutoscaler";

/// Makes a scaler of an autoscaler; `documents` are the others of the file, in which its target may be.
pub(super) fn draft(
    scaler: &Value,
    documents: &[Value],
    pool: &str,
    source: &Source<'_>,
) -> Result<Draft, ImportError> {
    let (meta, spec) = (&scaler["metadata"], &scaler["spec"]);
    let name = meta["name"].as_str().unwrap_or("without a name");
    let version = scaler["apiVersion"].as_str().unwrap_or("autoscaling/v2");
    let mut draft = Draft::new(pool, format!("the {KIND} {name} ({version})"));
    draft.note(
        "mode is \"dry_run\": two scalers must not fight over one target; delete the HorizontalPodAutoscaler, then say mode = \"on\"",
    );
    let Some(max) = spec["maxReplicas"].as_u64() else {
        let what = format!("{name} has no `maxReplicas`; expected a number");
        return Err(source.error(if spec["maxReplicas"].is_null() { KIND } else { "maxReplicas" }, what));
    };
    let min = spec["minReplicas"].as_u64().unwrap_or(1);
    draft.table(Header::Scaler).set("mode", "dry_run").set("min", min).set("max", max);
    if let Some(percent) = spec["targetCPUUtilizationPercentage"].as_f64() {
        utilization(&mut draft, "cpu", percent, "targetCPUUtilizationPercentage");
    }
    for metric in spec["metrics"].as_array().into_iter().flatten() {
        self::metric(&mut draft, metric);
    }
    for (theirs, ours) in [("scaleUp", "behavior.scale_up"), ("scaleDown", "behavior.scale_down")] {
        behavior(&mut draft, theirs, ours, &spec["behavior"][theirs]);
    }
    target(&mut draft, spec, meta, documents);
    let known =
        ["minReplicas", "maxReplicas", "targetCPUUtilizationPercentage", "metrics", "behavior", "scaleTargetRef"];
    unknown(&mut draft, "spec", spec, &known);
    unknown(&mut draft, "spec.behavior", &spec["behavior"], &["scaleUp", "scaleDown"]);
    for annotation in meta["annotations"].as_object().into_iter().flat_map(|annotations| annotations.keys()) {
        if annotation.starts_with("autoscaling.alpha.kubernetes.io/") && !annotation.ends_with("/conditions") {
            draft.warn(format!(
                "the annotation {annotation}; `kubectl get hpa.v2.autoscaling {name} -o yaml` has it as fields"
            ));
        }
    }
    Ok(draft)
}

/// Keys that nobody has asked for.
fn unknown(draft: &mut Draft, place: &str, value: &Value, known: &[&str]) {
    for (key, value) in value.as_object().into_iter().flatten().filter(|(key, _)| !known.contains(&key.as_str())) {
        draft.warn(format!("{place}.{key} = {value}"));
    }
}

fn metric(draft: &mut Draft, metric: &Value) {
    let kind = metric["type"].as_str().unwrap_or_default();
    let part = match kind {
        "Resource" => &metric["resource"],
        "ContainerResource" => &metric["containerResource"],
        "Pods" => &metric["pods"],
        "Object" => &metric["object"],
        "External" => &metric["external"],
        _ => return draft.warn(format!("a metric of type {kind:?}: {metric}")),
    };
    match kind {
        "Resource" | "ContainerResource" => resource(draft, kind, part),
        _ => custom(draft, kind, part),
    }
}

fn resource(draft: &mut Draft, kind: &str, part: &Value) {
    let name = part["name"].as_str().unwrap_or_default();
    let target = &part["target"];
    let told = format!("{kind} {name}");
    if kind == "ContainerResource" {
        let container = part["container"].as_str().unwrap_or_default();
        draft.note(format!("{told} is of the container {container:?} alone; Tidegate sees whole instances"));
    }
    let percent = target["averageUtilization"].as_f64().or(part["targetAverageUtilization"].as_f64());
    match (name, percent) {
        ("cpu" | "memory", Some(percent)) => utilization(draft, name, percent, &told),
        ("cpu" | "memory", None) => draft.warn(format!(
            "{told} with {target}: Tidegate knows {name} as a share of what an instance may use; expected a target such as \"70%\""
        )),
        _ => draft.warn(format!("{told}: Tidegate knows cpu and memory; use an external signal for it")),
    }
}

fn utilization(draft: &mut Draft, metric: &str, percent: f64, told: &str) {
    if !(percent > 0.0 && percent <= 100.0) {
        let why = "HPA counts from the request, Tidegate from what an instance may use, which is 100% at most";
        return draft.warn(format!("{told}: {}%; {why}", plain(percent)));
    }
    if draft.is_known(metric) {
        return draft.warn(format!("{told}: {}%; {metric} is a signal already", plain(percent)));
    }
    draft.note("utilization is of the request in HPA, and of the limit (what an instance may use) in Tidegate");
    if metric == "memory" {
        draft.note("memory only ever adds instances here: it does not fall when the load is shared");
    }
    let mut table = draft.table(Header::Item("signal"));
    table.comment(format!("{told}: averageUtilization {}.", plain(percent)));
    table.set("metric", metric).set("target", format!("{}%", plain(percent)));
}

/// A metric of somebody else's, unless the proxy sees it better itself.
fn custom(draft: &mut Draft, kind: &str, part: &Value) {
    // autoscaling/v2beta1 had it flat.
    let name = part["metric"]["name"].as_str().or(part["metricName"].as_str()).unwrap_or_default();
    let selector = if part["metric"]["selector"].is_null() { &part["selector"] } else { &part["metric"]["selector"] };
    let target = &part["target"];
    let each =
        [&target["averageValue"], &part["targetAverageValue"], &part["averageValue"]].into_iter().find_map(quantity);
    let whole = [&target["value"], &part["targetValue"]].into_iter().find_map(quantity);
    let told = format!("{kind} {name}");
    let (amount, each) = match (each, whole) {
        (Some(amount), _) => (amount, true),
        (None, Some(amount)) => (amount, false),
        (None, None) => return draft.warn(format!("{told}: no target that can be read in {part}")),
    };
    if amount <= 0.0 {
        return draft.warn(format!("{told}: a target of {} can not be met", plain(amount)));
    }
    let target = if each { plain(amount) } else { format!("value:{}", plain(amount)) };
    let origin = match part["describedObject"]["name"].as_str() {
        Some(object) => format!("{told} of {} {object}", part["describedObject"]["kind"].as_str().unwrap_or("object")),
        None => told.clone(),
    };
    if let Some(ours) = seen_here(name).filter(|_| kind != "External")
        && !draft.is_known(ours)
    {
        draft.note(format!("{origin} became `{ours}`, which the proxy counts itself"));
        let mut table = draft.table(Header::Item("signal"));
        table.comment(format!("{origin}: {}.", if each { "averageValue" } else { "value" }));
        table.set("metric", ours).set("target", target);
        return;
    }
    let mut metric = format!("external:{name}");
    let mut count = 1;
    while draft.is_known(&metric) {
        count += 1;
        metric = format!("external:{name}-{count}");
    }
    draft.note(format!("{origin}: `url` must be your Prometheus, and `query` must give its value there"));
    let query = format!("sum({})", series(draft, name, selector, &told));
    let mut table = draft.table(Header::Item("signal"));
    table.comment(format!("{origin}: {}.", if each { "averageValue" } else { "value" }));
    table.set("metric", metric).set("target", target).set("url", "http://127.0.0.1:9090").set("query", query);
}

/// What the proxy sees itself, by the usual names.
fn seen_here(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace(['-', '.', '/'], "_");
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    if has(&["requests_per_second", "request_rate", "requests_per_sec", "http_rps"]) || name == "rps" {
        Some("rps")
    } else if has(&["active_connections", "open_connections", "concurrent_connections"]) {
        Some("connections")
    } else if has(&["concurrent_requests", "requests_in_flight", "inflight_requests", "in_flight_requests"]) {
        Some("in_flight")
    } else {
        None
    }
}

/// A time series in PromQL.
fn series(draft: &mut Draft, name: &str, selector: &Value, told: &str) -> String {
    let mut labels = Vec::new();
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let plain = !name.is_empty() && name.chars().all(word) && !name.starts_with(|c: char| c.is_ascii_digit());
    if !plain {
        labels.push(format!("__name__={name:?}"));
    }
    for (label, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        labels.push(format!("{label}={:?}", value.as_str().unwrap_or_default()));
    }
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let key = expression["key"].as_str().unwrap_or_default();
        match expression["operator"].as_str() {
            Some("In") => labels.push(format!("{key}=~{:?}", values.join("|"))),
            Some("NotIn") => labels.push(format!("{key}!~{:?}", values.join("|"))),
            Some("Exists") => labels.push(format!("{key}!=\"\"")),
            Some("DoesNotExist") => labels.push(format!("{key}=\"\"")),
            _ => draft.warn(format!("{told}: the selector {expression}")),
        }
    }
    let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
    if plain { format!("{name}{labels}") } else { labels }
}

/// Kubernetes' quantities: `100`, `500m`, `2k`, `1Gi`.
pub(super) fn quantity(value: &Value) -> Option<f64> {
    if let Some(number) = value.as_f64() {
        return Some(number);
    }
    let text = value.as_str()?.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-')).unwrap_or(text.len());
    let factor: f64 = match &text[end..] {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1048576.0,
        "Gi" => 1073741824.0,
        "Ti" => 1099511627776.0,
        _ => return text.parse().ok().filter(|number: &f64| number.is_finite()),
    };
    let number: f64 = text[..end].parse().ok()?;
    // 500 thousandths are 0.5, not 0.5000000000000001.
    Some(if factor < 1.0 { number / (1.0 / factor).round() } else { number * factor })
}

/// HPA's `behavior` is ours; what HPA does where it says nothing stands beside it.
fn behavior(draft: &mut Draft, theirs: &str, ours: &'static str, rules: &Value) {
    let up = theirs == "scaleUp";
    let mut paces = Vec::new();
    for policy in rules["policies"].as_array().into_iter().flatten() {
        let (value, period) = (policy["value"].as_u64(), policy["periodSeconds"].as_u64());
        match (policy["type"].as_str(), value, period) {
            (Some("Pods"), Some(value), Some(period)) => paces.push(format!("{value}/{period}s")),
            (Some("Percent"), Some(value), Some(period)) => paces.push(format!("{value}%/{period}s")),
            _ => {
                draft.warn(format!("{theirs} policy {policy}: expected type Pods or Percent, value and periodSeconds"))
            }
        }
    }
    let select = rules["selectPolicy"].as_str().map(str::to_ascii_lowercase);
    if let Some(select) = select.as_deref().filter(|select| !matches!(*select, "max" | "min" | "disabled")) {
        draft.warn(format!("{theirs}.selectPolicy {select}"));
    }
    let tolerance = quantity(&rules["tolerance"]);
    if let Some(tolerance) = tolerance.filter(|tolerance| !(0.0..=1.0).contains(tolerance)) {
        draft.warn(format!("{theirs}.tolerance {tolerance}: Tidegate's is 100% at most"));
    }
    let mut table = draft.table(Header::Table(ours));
    match rules["stabilizationWindowSeconds"].as_u64() {
        Some(seconds) => table.set("stabilization", format!("{seconds}s")),
        None if up => table.aside("stabilization = \"0s\"  # as in HPA"),
        None => table.aside("stabilization = \"5m\"  # HPA's default; without it the load's own hold decides"),
    };
    if !paces.is_empty() {
        table.set("policies", paces);
    } else if up {
        table.aside("policies = [\"100%/15s\", \"4/15s\"]  # HPA's default; unbounded without");
    } else {
        table.aside("policies = [\"100%/15s\"]  # HPA's default; without it no step takes more than half");
    }
    if let Some(select) = select.filter(|select| matches!(select.as_str(), "max" | "min" | "disabled")) {
        table.set("select", select);
    }
    match tolerance.filter(|tolerance| (0.0..=1.0).contains(tolerance)) {
        Some(tolerance) => table.set("tolerance", crate::types::Share(tolerance).to_string()),
        None if up => table.aside("tolerance = \"10%\"  # HPA's default; 0% without"),
        None => table.aside("tolerance = \"10%\"  # as in HPA"),
    };
    unknown(
        draft,
        &format!("spec.behavior.{theirs}"),
        rules,
        &["stabilizationWindowSeconds", "policies", "selectPolicy", "tolerance"],
    );
}

fn target(draft: &mut Draft, spec: &Value, meta: &Value, documents: &[Value]) {
    let reference = &spec["scaleTargetRef"];
    let kind = reference["kind"].as_str().unwrap_or_default();
    let name = reference["name"].as_str().unwrap_or("app").to_owned();
    let ours = match kind {
        "Deployment" => "deployment",
        "StatefulSet" => "statefulset",
        _ => {
            draft.warn(format!("the target {kind} {name}: Tidegate scales Deployments and StatefulSets; \"deployment/{name}\" stands in its place"));
            "deployment"
        }
    };
    let same = |document: &&Value| document["kind"] == kind && document["metadata"]["name"] == name.as_str();
    let port = documents.iter().find(same).and_then(|workload| {
        let containers = workload["spec"]["template"]["spec"]["containers"].as_array()?;
        let port = containers.iter().find_map(|container| container["ports"].as_array()?.first())?;
        let number = port["containerPort"].as_u64().map(|port| port.to_string());
        port["name"].as_str().map(str::to_owned).or(number)
    });
    if port.is_none() {
        draft.note("`port` is a guess: HPA does not know where pods listen");
    }
    let namespace = meta["namespace"].as_str().map(Out::text);
    let mut table = draft.table(Header::Table("kubernetes"));
    table.set("target", format!("{ours}/{name}")).set("port", port.unwrap_or_else(|| "http".to_owned()));
    if let Some(namespace) = namespace {
        table.set("namespace", namespace);
    }
}
