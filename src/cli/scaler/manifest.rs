//! A HorizontalPodAutoscaler as the simulator plays it: what it scales by, its behavior and its bounds.

use serde_json::Value;

use crate::cli::Failure;
use crate::scale::sim::{Contestant, Gauge, Hpa};
use crate::scale::{Amount, Pace, Rules, Select};

/// A HorizontalPodAutoscaler.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Manifest {
    pub(super) min: u32,
    pub(super) max: u32,
    by: By,
    up: Rules,
    down: Rules,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum By {
    /// CPU, as a share.
    Cpu(f64),
    /// Requests at once for each pod.
    Requests(f64),
}

impl Manifest {
    /// With all defaults.
    pub(super) fn cpu(target: f64) -> Self {
        let (up, down) = Hpa::default_behavior();
        Manifest { min: 1, max: u32::MAX, by: By::Cpu(target), up, down }
    }

    /// The first HorizontalPodAutoscaler of a YAML or JSON file.
    ///
    /// **Errors**: there is none, or it scales by nothing that a simulation has: CPU, or a number for each pod.
    pub(super) fn read(name: &str, text: &str) -> Result<Manifest, Failure> {
        let wrong = |what: String| Failure::Configuration(format!("{name}: {what}"));
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(text).map_err(|error| wrong(error.without_snippet().to_string()))?;
        let scaler = documents.iter().find(|document| document["kind"] == "HorizontalPodAutoscaler");
        let spec = &scaler.ok_or_else(|| wrong("there is no HorizontalPodAutoscaler in it".to_owned()))?["spec"];
        let by = scaled_by(spec).ok_or_else(|| {
            wrong(
                "expected a metric that can be played: cpu by averageUtilization, or Pods or External by averageValue"
                    .to_owned(),
            )
        })?;
        let (mut up, mut down) = Hpa::default_behavior();
        behavior(&mut up, &spec["behavior"]["scaleUp"]);
        behavior(&mut down, &spec["behavior"]["scaleDown"]);
        let number = |key: &str| spec[key].as_u64().and_then(|number| u32::try_from(number).ok());
        let max = number("maxReplicas").ok_or_else(|| wrong("expected spec.maxReplicas".to_owned()))?;
        Ok(Manifest { min: number("minReplicas").unwrap_or(1), max, by, up, down })
    }

    /// Whoever plays it, where an instance has so many slots.
    pub(super) fn contestant(&self, slots: u32) -> Box<dyn Contestant> {
        let (gauge, target) = match self.by {
            By::Cpu(share) => (Gauge::Cpu, share),
            By::Requests(each) => (Gauge::Concurrency, each / f64::from(slots.max(1))),
        };
        Box::new(Hpa::new(gauge, target, self.up.clone(), self.down.clone()))
    }
}

fn scaled_by(spec: &Value) -> Option<By> {
    if let Some(percent) = spec["targetCPUUtilizationPercentage"].as_f64() {
        return Some(By::Cpu(percent / 100.0));
    }
    let metrics = spec["metrics"].as_array()?;
    let cpu = metrics.iter().find(|metric| metric["resource"]["name"] == "cpu");
    if let Some(percent) = cpu.and_then(|metric| metric["resource"]["target"]["averageUtilization"].as_f64()) {
        return Some(By::Cpu(percent / 100.0));
    }
    let each = |metric: &Value| {
        let value = ["pods", "external"].iter().find_map(|kind| metric[kind]["target"].get("averageValue"))?;
        quantity(value)
    };
    metrics.iter().find_map(each).map(By::Requests)
}

/// `30`, `"30"`, `"500m"`, `"2k"`.
fn quantity(value: &Value) -> Option<f64> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let (number, factor) = match text.chars().last()? {
        'm' => (&text[..text.len() - 1], 1e-3),
        'k' => (&text[..text.len() - 1], 1e3),
        _ => (&text[..], 1.0),
    };
    number.parse::<f64>().ok().map(|number| number * factor).filter(|number| *number > 0.0)
}

fn behavior(rules: &mut Rules, given: &Value) {
    if let Some(window) = given["stabilizationWindowSeconds"].as_f64() {
        rules.stabilization = Some(window);
    }
    if let Some(tolerance) = quantity(&given["tolerance"]) {
        rules.tolerance = tolerance;
    }
    let pace = |policy: &Value| {
        let value = policy["value"].as_u64().and_then(|value| u32::try_from(value).ok())?;
        let amount = if policy["type"] == "Percent" { Amount::Percent(value) } else { Amount::Count(value) };
        Some(Pace { amount, period: policy["periodSeconds"].as_f64().filter(|period| *period > 0.0)? })
    };
    let policies: Vec<Pace> = given["policies"].as_array().into_iter().flatten().filter_map(pace).collect();
    if !policies.is_empty() {
        rules.policies = policies;
    }
    rules.select = match given["selectPolicy"].as_str() {
        Some("Min") => Select::Min,
        Some("Disabled") => Select::Disabled,
        _ => rules.select,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    const HPA: &str = r#"
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: { name: api }
spec:
  minReplicas: 2
  maxReplicas: 50
  metrics:
  - type: Resource
    resource: { name: memory, target: { type: Utilization, averageUtilization: 80 } }
  - type: Resource
    resource: { name: cpu, target: { type: Utilization, averageUtilization: 70 } }
  behavior:
    scaleDown:
      stabilizationWindowSeconds: 600
      selectPolicy: Min
      policies: [{ type: Percent, value: 10, periodSeconds: 60 }]
"#;

    #[test]
    fn an_autoscaler_is_read_as_kubernetes_means_it() {
        let read = Manifest::read("hpa.yaml", HPA).unwrap();
        assert_eq!((read.min, read.max, read.by), (2, 50, By::Cpu(0.7)));
        assert_eq!(read.up, Hpa::default_behavior().0);
        assert_eq!((read.down.stabilization, read.down.select), (Some(600.0), Select::Min));
        assert_eq!(read.down.policies, [Pace { amount: Amount::Percent(10), period: 60.0 }]);
        let old = "kind: HorizontalPodAutoscaler\nspec: { maxReplicas: 3, targetCPUUtilizationPercentage: 50 }";
        assert_eq!(Manifest::read("x", old).unwrap().by, By::Cpu(0.5));
        let pods = r#"{"kind":"HorizontalPodAutoscaler","spec":{"maxReplicas":3,"metrics":[
            {"type":"Pods","pods":{"metric":{"name":"busy"},"target":{"type":"AverageValue","averageValue":"3500m"}}}]}}"#;
        assert_eq!(Manifest::read("x", pods).unwrap().by, By::Requests(3.5));
    }

    #[test]
    fn what_cannot_be_played_is_refused_with_words() {
        for (text, told) in [
            ("a: [", "x: "),
            ("kind: Deployment", "no HorizontalPodAutoscaler"),
            ("kind: HorizontalPodAutoscaler\nspec: { maxReplicas: 3 }", "averageUtilization"),
            ("kind: HorizontalPodAutoscaler\nspec: { targetCPUUtilizationPercentage: 50 }", "maxReplicas"),
        ] {
            match Manifest::read("x", text) {
                Err(Failure::Configuration(problem)) => assert!(problem.contains(told), "{problem}"),
                other => panic!("{other:?}"),
            }
        }
    }
}
