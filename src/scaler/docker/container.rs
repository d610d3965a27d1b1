use std::collections::HashMap;

use bollard::models::{ContainerCreateBody, HostConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum};

use super::mine::{DECISION, GENERATION, INSTANCE, OWNER, POOL, SPEC};
use crate::balance::stable_hash;
use crate::config::model;
use crate::scaler::Order;

/// What a container is called: `tidegate-POOL-N`, with a hash where the pool's name has characters that a container's must not have.
pub(super) fn name(id: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if id.chars().all(fits) {
        return format!("tidegate-{id}");
    }
    let clean: String = id.chars().map(|c| if fits(c) { c } else { '_' }).collect();
    format!("tidegate-{clean}-{:08x}", stable_hash(id.as_bytes()) as u32)
}

/// The image with its tag, which engines do not add by themselves.
pub(super) fn tagged(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

/// What the engine is told to make.
pub(super) fn body(
    pool: &str,
    owner: &str,
    spec: &str,
    settings: &model::Docker,
    order: &Order,
) -> ContainerCreateBody {
    let mut labels: HashMap<String, String> = settings.labels.clone().into_iter().collect();
    let generation = order.generation.to_string();
    for (label, value) in [
        (POOL, pool),
        (INSTANCE, &order.id),
        (OWNER, owner),
        (SPEC, spec),
        (DECISION, &order.decision),
        (GENERATION, &generation),
    ] {
        labels.insert(label.to_owned(), value.to_owned());
    }
    let port = format!("{}/tcp", settings.port);
    ContainerCreateBody {
        image: Some(settings.image.clone()),
        cmd: (!settings.command.is_empty()).then(|| settings.command.clone()),
        env: Some(settings.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        user: settings.user.clone(),
        labels: Some(labels),
        exposed_ports: Some(vec![port.clone()]),
        host_config: Some(host(settings, port)),
        ..ContainerCreateBody::default()
    }
}

fn host(settings: &model::Docker, port: String) -> HostConfig {
    let memory = settings.memory.map(|size| i64::try_from(size.0).unwrap_or(i64::MAX));
    // A free port of the engine's choice, for this host alone.
    let binding = PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(String::new()) };
    HostConfig {
        binds: (!settings.volumes.is_empty()).then(|| settings.volumes.clone()),
        memory,
        // Without this as much again may be swapped, and a leak shows late.
        memory_swap: memory,
        nano_cpus: settings.cpus.map(|cpus| (cpus * 1e9).round() as i64),
        network_mode: settings.network.clone(),
        port_bindings: settings.network.is_none().then(|| HashMap::from([(port, Some(vec![binding]))])),
        // The fleet owns restarts: it backs off, and gives up on a build that does not come up.
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        ..HostConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Size;

    #[test]
    fn names_fit_the_engine_and_stay_apart() {
        assert_eq!(name("tools-3"), "tidegate-tools-3");
        assert!(name("größe 1-3").starts_with("tidegate-gr__e_1-3-"));
        assert_ne!(name("a b-1"), name("a/b-1"));
        assert!(name("日本-1").is_ascii());
    }

    #[test]
    fn only_an_image_without_a_tag_gets_one() {
        for (image, full) in [
            ("shop", "shop:latest"),
            ("shop:1", "shop:1"),
            ("host:5000/shop", "host:5000/shop:latest"),
            ("host:5000/shop:1", "host:5000/shop:1"),
            ("shop@sha256:00", "shop@sha256:00"),
        ] {
            assert_eq!(tagged(image), full);
        }
    }

    #[test]
    fn a_container_is_made_as_it_is_configured() {
        let mut settings = super::super::tests::settings(|docker| {
            docker.env.insert("MODE".to_owned(), "a b".to_owned());
            docker.labels.insert("team".to_owned(), "web".to_owned());
            docker.memory = Some(Size(64 << 20));
            docker.cpus = Some(0.5);
            docker.user = Some("1000".to_owned());
            docker.volumes = vec!["/srv:/data:ro".to_owned()];
        });
        let order = Order { id: "tools-3".to_owned(), decision: "d7".to_owned(), generation: 9 };
        let made = body("tools", "proxy-a", "feed", &settings, &order);
        let labels = made.labels.unwrap();
        for (label, value) in [
            ("team", "web"),
            ("tidegate.pool", "tools"),
            ("tidegate.instance", "tools-3"),
            ("tidegate.owner", "proxy-a"),
            ("tidegate.spec", "feed"),
            ("tidegate.decision", "d7"),
            ("tidegate.generation", "9"),
        ] {
            assert_eq!(labels[label], value);
        }
        assert_eq!(
            (made.cmd, made.env.unwrap(), made.user.unwrap()),
            (None, vec!["MODE=a b".to_owned()], "1000".to_owned())
        );
        let host = made.host_config.unwrap();
        assert_eq!(
            (host.memory, host.memory_swap, host.nano_cpus),
            (Some(64 << 20), Some(64 << 20), Some(500_000_000))
        );
        assert_eq!(host.restart_policy.unwrap().name, Some(RestartPolicyNameEnum::NO));
        assert_eq!(host.binds.unwrap(), ["/srv:/data:ro"]);
        let bindings = host.port_bindings.unwrap();
        assert_eq!(bindings["8000/tcp"].as_ref().unwrap()[0].host_ip.as_deref(), Some("127.0.0.1"));

        settings.network = Some("apps".to_owned());
        settings.command = vec!["serve".to_owned()];
        let made = body("tools", "proxy-a", "feed", &settings, &order);
        assert_eq!(made.cmd.unwrap(), ["serve"]);
        let host = made.host_config.unwrap();
        assert_eq!((host.network_mode.as_deref(), host.port_bindings), (Some("apps"), None));
    }
}
