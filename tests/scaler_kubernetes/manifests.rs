//! What conf/kubernetes/ allows is what is used: no less, and no more.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate::config::{self, Disk, Outcome};
use tidegate::scaler::Driver;
use tidegate::scaler::kubernetes::{Bounds, Kind, Lease, Port, Target};
use tidegate::scaler::leader::Election;

use super::cluster::*;
use super::support::{eventually, until};
use super::world::{Rule, key};

fn documents(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/kubernetes").join(name);
    let text = std::fs::read_to_string(path).expect("a manifest");
    serde_saphyr::from_multiple(&text).expect("YAML")
}

fn words(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|word| word.as_str().expect("a word").to_owned()).collect()
}

/// The rules of the Roles that are bound to our service account.
fn rules(name: &str) -> Vec<Rule> {
    let documents = documents(name);
    let bound = |role: &Value| {
        documents.iter().any(|binding| {
            let kind = binding["kind"].as_str().unwrap_or_default();
            let subject = json!({ "kind": "ServiceAccount", "name": "tidegate", "namespace": NAMESPACE });
            kind == format!("{}Binding", role["kind"].as_str().unwrap())
                && binding["roleRef"]["kind"] == role["kind"]
                && binding["roleRef"]["name"] == role["metadata"]["name"]
                && binding["metadata"]["namespace"] == role["metadata"]["namespace"]
                && binding["subjects"] == json!([subject])
        })
    };
    let roles = documents.iter().filter(|document| matches!(document["kind"].as_str(), Some("Role" | "ClusterRole")));
    let rules = roles
        .inspect(|role| assert!(bound(role), "nobody has {role}"))
        .flat_map(|role| role["rules"].as_array().unwrap());
    let rule = |rule: &Value| Rule {
        verbs: words(&rule["verbs"]),
        groups: words(&rule["apiGroups"]),
        resources: words(&rule["resources"]),
        names: words(&rule["resourceNames"]),
    };
    rules.map(rule).collect()
}

/// Everything that can be done, done once, by somebody who may do only what the rules say.
async fn everything(cluster: &Cluster, target: &str) {
    let bounds = Bounds { check: Duration::from_millis(100), ..quick() };
    let driver = cluster.driver_within(target, bounds);
    let found = listed(&driver, "two run", |found| running(found) == 2).await;
    until("it scales", async || driver.scale(&to(3)).await.ok()).await;
    driver.mark(&[found[0].id.clone()]).await.unwrap();
    driver.mark(&[]).await.unwrap();
    let mut request = to(1);
    request.victims = vec![found[1].id.clone()];
    driver.scale(&request).await.unwrap();
    cluster.world.change(|state| state.quota = Some(2));
    driver.scale(&to(4)).await.unwrap();
    hindered(&driver, "the quota is full").await;
    let mut lease = Lease::new(cluster.access(&cluster.kubeconfig()), "tidegate", "a", Duration::from_secs(60));
    assert!(lease.campaign().await.unwrap().leads);
    assert!(lease.campaign().await.unwrap().leads);
    lease.resign().await;
    eventually("all has been looked at", || {
        cluster.world.look(|state| state.asked.iter().any(|right| right.resource == "nodes"))
    })
    .await;
}

fn used(cluster: &Cluster) -> BTreeSet<(String, String, String)> {
    let asked = cluster.world.look(|state| state.asked.clone());
    asked.into_iter().map(|right| (right.verb, right.group, right.resource)).collect()
}

fn allowed(rules: &[Rule]) -> BTreeSet<(String, String, String)> {
    let mut all = BTreeSet::new();
    for rule in rules {
        for (verb, group, resource) in rule.rights() {
            assert!(![&verb, &group, &resource].contains(&&"*".to_owned()), "{rule:?}");
            all.insert((verb, group, resource));
        }
    }
    all
}

#[tokio::test]
async fn a_deployment_is_scaled_with_what_the_role_allows_and_all_of_it_is_needed() {
    let rules: Vec<Rule> = ["rbac.yaml", "rbac-zones.yaml"].into_iter().flat_map(rules).collect();
    let cluster = Cluster::new().await.with(|state| {
        state.keda = true;
        state.allowed = Some(rules.clone());
        state.put(&key("nodes", "", "node-1"), json!({ "metadata": {} }));
    });
    let cluster = cluster.with(deployment(2));
    everything(&cluster, "deployment/app").await;
    assert_eq!(used(&cluster), allowed(&rules));
    assert_eq!(cluster.world.look(|state| state.refused), 0);
}

#[tokio::test]
async fn a_statefulset_needs_the_further_role_and_not_the_rules_about_deployments() {
    let base: Vec<Rule> = ["rbac.yaml", "rbac-zones.yaml"].into_iter().flat_map(rules).collect();
    let without =
        base.into_iter().filter(|rule| !rule.resources.iter().any(|resource| resource.starts_with("deployments")));
    let rules: Vec<Rule> = without.chain(rules("rbac-statefulset.yaml")).collect();
    let cluster = Cluster::new().await.with(|state| {
        state.keda = true;
        state.allowed = Some(rules.clone());
        state.put(&key("nodes", "", "node-1"), json!({ "metadata": {} }));
    });
    let cluster = cluster.with(stateful_set(2));
    everything(&cluster, "statefulset/db").await;
    let mut expected = allowed(&rules);
    // Marks are of no use there.
    assert!(expected.remove(&("patch".to_owned(), String::new(), "pods".to_owned())));
    assert_eq!(used(&cluster), expected);
    assert_eq!(cluster.world.look(|state| state.refused), 0);
}

#[test]
fn the_configuration_in_the_configmap_is_one_and_fits_the_other_manifests() {
    let (all, app) = (documents("tidegate.yaml"), documents("app.yaml"));
    let find = |kind: &str| all.iter().find(|document| document["kind"] == kind).expect("a document");
    let text = find("ConfigMap")["data"]["tidegate.toml"]
        .as_str()
        .unwrap()
        .replace("${TIDEGATE_TOKEN}", "a-token-of-some-length");
    let Outcome { config, problems, .. } = config::read_text("/etc/tidegate/tidegate.toml", &text, &Disk);
    let errors: Vec<String> = problems.iter().filter(|problem| problem.is_error()).map(ToString::to_string).collect();
    assert!(errors.is_empty(), "{errors:?}");
    let config = config.expect("a configuration");
    let settings = config.pool["app"].scaler.as_ref().unwrap().kubernetes.clone().unwrap();
    let target: Target = settings.target.parse().unwrap();
    assert_eq!((target.kind, target.name.as_str()), (Kind::Deployment, app[0]["metadata"]["name"].as_str().unwrap()));
    assert_eq!(app[0]["kind"], json!("Deployment"));
    assert_eq!(app[0]["spec"]["replicas"], Value::Null, "it is ours");
    let ports = app[0].pointer("/spec/template/spec/containers/0/ports").unwrap();
    assert_eq!(settings.port.parse(), Ok(Port::Name(ports[0]["name"].as_str().unwrap().to_owned())));
    // Each is allowed by name.
    let rules = rules("rbac.yaml");
    let named =
        |resource: &str, name: &str| rules.iter().any(|rule| rule.resources == [resource] && rule.names == [name]);
    assert!(
        named("deployments/scale", &target.name)
            && named("deployments", &target.name)
            && named("leases", &config.scaler.leader.name)
    );
    let proxy = find("StatefulSet");
    assert_eq!(proxy.pointer("/spec/template/spec/serviceAccountName"), Some(&json!("tidegate")));
    let name = |n: u64| {
        format!(
            "http://{}-{n}.{}:9900",
            proxy["metadata"]["name"].as_str().unwrap(),
            proxy["spec"]["serviceName"].as_str().unwrap()
        )
    };
    let peers: Vec<String> = (0..proxy["spec"]["replicas"].as_u64().unwrap()).map(name).collect();
    assert_eq!(config.scaler.peers, peers);
    let names = all
        .iter()
        .chain(&app)
        .chain(&documents("rbac.yaml"))
        .map(|document| document["metadata"]["namespace"].clone())
        .collect::<Vec<_>>();
    assert!(names.iter().all(|namespace| namespace == NAMESPACE), "{names:?}");
}
