use super::*;
use crate::config::{model, render, settings};
use crate::scale::{Mode, Select, Target};

/// The import, and the scalers that our own reader makes of it.
fn imported(text: &str) -> (Import, std::collections::BTreeMap<String, model::Pool>) {
    let import = import(text, "web").unwrap_or_else(|error| panic!("{error}"));
    let around = "[listener.web]\nbind = \":80\"\n[[route]]\nrespond = 204\n";
    let outcome = read_text("t.toml", &format!("{around}{}", import.toml), &Memory::default());
    let config = outcome.config.unwrap_or_else(|| panic!("{}\n{}", import.toml, render(&outcome.problems, false)));
    (import, config.pool.clone())
}

const WHOLE: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: { name: snowflake-mcp }
spec:
  template:
    spec:
      containers:
      - { name: app, ports: [{ containerPort: 8080, name: http-mcp }] }
---
# The autoscaler.
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: snowflake-mcp-hpa
  namespace: production
spec:
  scaleTargetRef: { apiVersion: apps/v1, kind: Deployment, name: snowflake-mcp }
  minReplicas: 2
  maxReplicas: 50
  metrics:
  - type: Resource
    resource: { name: cpu, target: { type: Utilization, averageUtilization: 70 } }
  - type: Resource
    resource: { name: memory, target: { type: Utilization, averageUtilization: 80 } }
  - type: ContainerResource
    containerResource: { name: cpu, container: app, target: { type: Utilization, averageUtilization: 60 } }
  - type: Resource
    resource: { name: memory, target: { type: AverageValue, averageValue: 500Mi } }
  - type: Pods
    pods: { metric: { name: http_requests_per_second }, target: { type: AverageValue, averageValue: "30" } }
  - type: Pods
    pods: { metric: { name: queue_length, selector: { matchLabels: { queue: a } } }, target: { type: AverageValue, averageValue: 500m } }
  - type: Object
    object:
      metric: { name: p95-latency }
      describedObject: { apiVersion: networking.k8s.io/v1, kind: Ingress, name: main }
      target: { type: Value, value: 2k }
  - type: External
    external:
      metric:
        name: queue_messages_ready
        selector: { matchExpressions: [{ key: queue, operator: In, values: [a, b] }] }
      target: { type: AverageValue, averageValue: 10 }
  - type: Weather
  behavior:
    scaleUp:
      stabilizationWindowSeconds: 60
      policies:
      - { type: Percent, value: 50, periodSeconds: 60 }
      - { type: Pods, value: 4, periodSeconds: 60 }
      selectPolicy: Min
      tolerance: 50m
    scaleDown:
      stabilizationWindowSeconds: 300
      policies:
      - { type: Percent, value: 10, periodSeconds: 60 }
  paused: true
"#;

#[test]
fn an_autoscaler_of_kubernetes_becomes_ours() {
    let (import, pools) = imported(WHOLE);
    let scaler = pools["web"].scaler.as_ref().unwrap();
    assert_eq!((scaler.mode, scaler.min, scaler.max), (Mode::DryRun, 2, 50));
    let signals: Vec<(String, Target)> =
        scaler.signal.iter().map(|signal| (signal.metric.to_string(), signal.target)).collect();
    assert_eq!(
        signals,
        [
            ("cpu".to_owned(), Target::Utilization(0.7)),
            ("memory".to_owned(), Target::Utilization(0.8)),
            ("rps".to_owned(), Target::PerInstance(30.0)),
            ("external:queue_length".to_owned(), Target::PerInstance(0.5)),
            ("external:p95-latency".to_owned(), Target::Value(2000.0)),
            ("external:queue_messages_ready".to_owned(), Target::PerInstance(10.0)),
        ]
    );
    let queries: Vec<&str> = scaler.signal.iter().filter_map(|signal| signal.query.as_deref()).collect();
    assert_eq!(
        queries,
        [
            "sum(queue_length{queue=\"a\"})",
            "sum({__name__=\"p95-latency\"})",
            "sum(queue_messages_ready{queue=~\"a|b\"})"
        ]
    );
    let told = settings(&pools["web"]).unwrap();
    assert_eq!((told.up.stabilization, told.up.select, told.up.tolerance), (Some(60.0), Select::Min, 0.05));
    assert_eq!(told.up.policies.iter().map(ToString::to_string).collect::<Vec<_>>(), ["50%/1m", "4/1m"]);
    assert_eq!((told.down.stabilization, told.down.policies.len()), (Some(300.0), 1));
    let kubernetes = scaler.kubernetes.as_ref().unwrap();
    assert_eq!((kubernetes.target.as_str(), kubernetes.port.as_str()), ("deployment/snowflake-mcp", "http-mcp"));
    assert_eq!(kubernetes.namespace.as_deref(), Some("production"));
    // What has no equivalent is named, in the list and in the text.
    for left in ["ContainerResource cpu: 60%", "500Mi", "Weather", "spec.paused = true"] {
        assert!(import.warnings.iter().any(|warning| warning.contains(left)), "{left}: {:?}", import.warnings);
        assert!(import.toml.contains(left), "{left}\n{}", import.toml);
    }
    assert_eq!(import.warnings.len(), 4);
}

#[test]
fn the_text_is_as_people_would_write_it() {
    let (import, _) = imported(
        "apiVersion: autoscaling/v1\nkind: HorizontalPodAutoscaler\nmetadata: {name: a}\nspec:\n  maxReplicas: 5\n  targetCPUUtilizationPercentage: 80\n  scaleTargetRef: {kind: StatefulSet, name: db}\n",
    );
    let expected = "\
# Made of the HorizontalPodAutoscaler a (autoscaling/v1).
# mode is \"dry_run\": two scalers must not fight over one target; delete the HorizontalPodAutoscaler, then say mode = \"on\"
# utilization is of the request in HPA, and of the limit (what an instance may use) in Tidegate
# `port` is a guess: HPA does not know where pods listen
[pool.web.scaler]
mode = \"dry_run\"
min = 1
max = 5

# targetCPUUtilizationPercentage: averageUtilization 80.
[[pool.web.scaler.signal]]
metric = \"cpu\"
target = \"80%\"

[pool.web.scaler.behavior.scale_up]
# stabilization = \"0s\"  # as in HPA
# policies = [\"100%/15s\", \"4/15s\"]  # HPA's default; unbounded without
# tolerance = \"10%\"  # HPA's default; 0% without

[pool.web.scaler.behavior.scale_down]
# stabilization = \"5m\"  # HPA's default; without it the load's own hold decides
# policies = [\"100%/15s\"]  # HPA's default; without it no step takes more than half
# tolerance = \"10%\"  # as in HPA

[pool.web.scaler.kubernetes]
target = \"statefulset/db\"
port = \"http\"
";
    assert_eq!(import.toml, expected);
}

#[test]
fn several_autoscalers_are_pools_of_their_own() {
    let one = |name: &str| {
        format!(
            "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {{name: {name}}}\nspec: {{maxReplicas: 5, scaleTargetRef: {{kind: Deployment, name: {name}}}}}\n"
        )
    };
    let (_, pools) = imported(&format!("{}---\n{}", one("front-end"), one("worker")));
    assert_eq!(pools.keys().collect::<Vec<_>>(), ["front-end", "worker"]);
    let list = "{\"kind\": \"List\", \"items\": [{\"kind\": \"HorizontalPodAutoscaler\", \"metadata\": {\"name\": \"x\"}, \"spec\": {\"maxReplicas\": 3, \"scaleTargetRef\": {\"kind\": \"Rollout\", \"name\": \"x\"}}}]}";
    let (import, pools) = imported(list);
    assert_eq!(pools["web"].scaler.as_ref().unwrap().max, 3);
    assert!(import.warnings[0].starts_with("the target Rollout x"), "{:?}", import.warnings);
}

const TRIGGERS: &str = r#"{
  "scaling_policies": {
    "scale_up_triggers": [
      {"metric": "cpu_utilization", "threshold": 70, "duration": "5m"},
      {"metric": "memory_utilization", "threshold": "80%", "duration": "3m"},
      {"metric": "connection_pool_utilization", "threshold": 0.85, "duration": 120},
      {"metric": "response_time_p95", "threshold": "500ms", "duration": "5 minutes"},
      {"metric": "queue_length", "threshold": 50, "severity": "high"},
      {"metric": "disk_temperature", "threshold": 50}
    ],
    "scale_down_triggers": [
      {"metric": "cpu_utilization", "threshold": 30, "duration": "10m"},
      {"metric": "request_rate", "threshold": 5, "operator": "<=", "duration": "10m"}
    ],
    "scaling_limits": {
      "min_instances": 2, "max_instances": 50, "scale_up_rate": "50% or 4 pods per minute", "scale_down_rate": "10% per minute", "burst": 3
    }
  }
}"#;

#[test]
fn triggers_become_policies() {
    let (import, pools) = imported(TRIGGERS);
    let scaler = pools["web"].scaler.as_ref().unwrap();
    assert_eq!((scaler.min, scaler.max), (2, 50));
    let policies: Vec<String> = scaler
        .policy
        .iter()
        .map(|policy| {
            format!(
                "{}: {} for {:?} {} then {:?}",
                policy.name, policy.when, policy.r#for, policy.adjust, policy.cooldown
            )
        })
        .collect();
    assert_eq!(
        policies,
        [
            "cpu_up: cpu > 70% for 300s +50% then 60s",
            "memory_up: memory > 80% for 180s +50% then 60s",
            "pool_utilisation_up: pool_utilisation > 85% for 120s +50% then 60s",
            "latency_p95_up: latency_p95 > 500ms for 300s +50% then 60s",
            "queue_depth_up: queue_depth > 50 for 0ns +50% then 60s",
            "cpu_down: cpu < 30% for 600s -10% then 60s",
            "rps_down: rps <= 5 for 600s -10% then 60s",
        ]
    );
    assert_eq!(scaler.behavior.scale_up.policies.to_string(), "50%/1m or 4/1m");
    assert_eq!(scaler.behavior.scale_down.policies.to_string(), "10%/1m");
    for left in ["disk_temperature", "severity = \"high\"", "scaling_limits.burst = 3"] {
        assert!(import.warnings.iter().any(|warning| warning.contains(left)), "{left}: {:?}", import.warnings);
    }
    assert_eq!(import.warnings.len(), 3);
}

#[test]
fn triggers_at_the_top_and_by_service() {
    let (_, pools) = imported("{\"scale_up_triggers\": [{\"metric\": \"error_rate\", \"threshold\": 5}]}");
    assert_eq!(pools["web"].scaler.as_ref().unwrap().policy[0].when.to_string(), "errors > 5%");
    let two = "{\"api\": {\"scaling_limits\": {\"min\": 1, \"max\": 4, \"cooldown_minutes\": 5}, \"scale_up_triggers\": [{\"metric\": \"active_connections\", \"threshold\": 1000}]}, \"job\": {\"scaling_limits\": {\"max\": 9}}}";
    let (_, pools) = imported(two);
    assert_eq!(pools["job"].scaler.as_ref().unwrap().max, 9);
    assert_eq!(pools["api"].scaler.as_ref().unwrap().policy[0].cooldown.as_secs(), 300);
}

#[test]
fn what_cannot_be_imported_says_where() {
    let error = |text: &str| import(text, "web").unwrap_err();
    let broken = error("kind: HorizontalPodAutoscaler\nspec: [1, 2\n");
    assert!(
        broken.line >= 2 && broken.column > 0 && broken.what.starts_with("it is neither YAML nor JSON"),
        "{broken:?}"
    );
    let other = error("kind: Service\n");
    assert!(other.what.contains("(found Service)"), "{other}");
    assert_eq!(error("").line, 0);
    let without = error("# one\nkind: HorizontalPodAutoscaler\nspec: {minReplicas: 1}\n");
    assert_eq!((without.line, without.column), (2, 7));
    let wrong = error("kind: HorizontalPodAutoscaler\nspec:\n  maxReplicas: many\n");
    assert_eq!((wrong.line, wrong.column), (3, 3));
}

#[test]
fn what_others_write_stays_text() {
    let evil = "kind: HorizontalPodAutoscaler\nmetadata: {name: \"a\\n[listener.x]\\nbind = 1\"}\nspec: {maxReplicas: 5, \"x\\ny\": 1, scaleTargetRef: {kind: Deployment, name: \"a\"}, metrics: [{type: External, external: {metric: {name: \"q${HOME}\\\"\"}, target: {value: 3}}}]}\n";
    let (import, pools) = imported(evil);
    assert_eq!(
        pools["web"].scaler.as_ref().unwrap().signal[0].query.as_deref(),
        Some("sum({__name__=\"q${HOME}\\\"\"})")
    );
    assert!(!import.toml.contains("\n[listener"));
}

#[test]
fn a_result_that_needs_a_hand_says_so() {
    let text = "kind: HorizontalPodAutoscaler\nmetadata: {name: a}\nspec: {minReplicas: 9, maxReplicas: 5, scaleTargetRef: {kind: Deployment, name: a}}\n";
    let import = import(text, "web").unwrap();
    assert!(import.warnings[0].starts_with("the result has to be mended by hand"), "{:?}", import.warnings);
}

#[test]
fn quantities_are_kubernetes_own() {
    let quantity = |text: &str| kubernetes::quantity(&Value::from(text));
    assert_eq!(quantity("500m"), Some(0.5));
    assert_eq!(quantity("100m"), Some(0.1));
    assert_eq!(quantity("2k"), Some(2000.0));
    assert_eq!(quantity("1Gi"), Some(1073741824.0));
    assert_eq!(quantity("1e3"), Some(1000.0));
    assert_eq!(quantity("much"), None);
    assert_eq!(kubernetes::quantity(&Value::from(30)), Some(30.0));
}
